"""Both ends of a matrix's spectrum and its condition number, and where the stored precision ends.

sigma_max / sigma_min needs two singular values of thousands, and not from a Gram matrix: its
eigenvalues are the *squares* of the singular values, each with an error of about eps * sigma_max^2,
in which a sigma_min below 1e-8 of sigma_max drowns even in float64. R of a QR factorisation has the
singular values of W to eps * sigma_max, and Lanczos finds the largest eigenvalue of R^T R, and of
its inverse, without forming either: a step is two products, or two triangular solves, with R.
Wherever anything is odd (no convergence, a singular matrix) the full list of singular values
decides.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable
from dataclasses import asdict
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from scipy.sparse.linalg import ArpackError, LinearOperator, eigsh
from torch import Tensor

from eckart.weights.anatomy import Anatomy, Weight
from eckart.weights.conditioning import MatrixSpectrum, Spectrum
from eckart.weights.identity import raw_bytes
from eckart.weights.linalg import prepared, singular_values
from eckart.weights.models import LoadedModel
from eckart.weights.stored import StoredWeights, rounded

EPS = torch.finfo(torch.float64).eps
EXPONENT = 0x7FF << 52
"""What is left of a float64's bits without sign and mantissa: those of the power of two at or below
its size."""
SMALL = 256
"""Up to this size, all singular values cost no more than a QR factorisation and Lanczos
(measured)."""
TOLERANCE = 1e-7
"""Relative residual at which Lanczos stops: at most half of it is left in a singular value, mostly
far less. At a condition number of 1e8 float64 itself leaves 1e-8 in R^-1."""
RESTARTS = 50
"""After so many, of about 20 steps each, the full factorisation is cheaper."""


def spectrum_of(
    weight: Tensor, *, name: str = "the matrix", spacing: Tensor | None = None
) -> Spectrum:
    """Compute the ends of a matrix's spectrum to at least six digits, from the stored numbers.

    Arguments:
        weight: (m, n), any floating-point dtype and device; it is left as it is, and computed with
            where it is.
        name: what error messages call the matrix.
        spacing: (m, n), how far apart the numbers lie that a quantisation could have put in each
            place; None where there was none.

    Raises:
        ModelError: as `Factor.of`.

    >>> spectrum_of(torch.diag(torch.tensor([8.0, 2.0, 0.5]))).condition_number
    16.0
    >>> spectrum_of(torch.ones(3, 5)).rank
    1
    """
    tall = prepared(weight, name)
    ends = _ends(tall) if tall.shape[1] > SMALL else None
    if ends is not None and ends[1] > _resolution(tall, ends[0]):
        sigma_max, sigma_min = ends
        rank = tall.shape[1]
    else:
        values = singular_values(tall, name)
        sigma_max = float(values[0])
        sigma_min = float(values[-1])
        rank = int((values > _resolution(tall, sigma_max)).sum())
    rounding = rounding_norm(tall, weight.dtype)
    if spacing is not None:  # the steps of a quantisation are far wider
        rounding = max(rounding, noise_norm(spacing.to(tall)))
    return Spectrum(
        shape=(weight.shape[0], weight.shape[1]),
        sigma_max=sigma_max,
        sigma_min=sigma_min,
        rank=rank,
        rounding=rounding,
    )


def measure(weight: Weight, device: torch.device | None = None) -> MatrixSpectrum:
    """Compute a weight's spectrum in float64 from the stored numbers, on a device, or where the
    weight is; a ModelError where it holds NaN or infinite numbers."""
    return _measure(weight, weight.read(), weight.spacing, device)


def spectra(
    weights: Iterable[Weight],
    *,
    store: Spectra | None = None,
    device: torch.device | None = None,
    advance: Callable[[int], None] = lambda matrices: None,
) -> list[MatrixSpectrum]:
    """Measure matrices one after the other; what a store knows of the very same numbers is not
    measured again.

    Arguments:
        weights: read as they come, and let go of.
        store: keeps every spectrum at once, by the matrix's name and a hash of its bytes.
        device: where to compute; None for where each weight is.
        advance: told of every matrix that is done.
    """
    found = []
    for weight in weights:
        found.append(measure(weight, device) if store is None else _recalled(weight, store, device))
        advance(1)
    return found


def matrices(
    anatomy: Anatomy, part: str = "all", layers: Iterable[int] | None = None
) -> list[Weight]:
    """Return the matrices of a part in the given layers, each once, or in all of them; an EditError
    where a layer or the part does not exist."""
    every = range(len(anatomy.layers))
    chosen = every if layers is None else sorted({anatomy.layer_index(layer) for layer in layers})
    return [weight for layer in chosen for weight in anatomy.select(layer, part)]


def exact_matrices(model: LoadedModel, part: str) -> Iterable[Weight]:
    """Return a part's matrices with the numbers that the checkpoint stores, even if loading rounded
    them, and with the steps of its quantisation."""
    if model.file is None and not rounded(model):
        return matrices(Anatomy.of(model.model), part)
    stored = StoredWeights.of(model.name, model.options)
    return stored.read(matrices(stored.anatomy, part))


@runtime_checkable
class Spectra(Protocol):
    """Whatever remembers spectra, such as a `RunStore`."""

    def spectrum(self, matrix: str) -> dict[str, Any] | None: ...

    def keep_spectrum(self, matrix: str, spectrum: dict[str, Any]) -> None: ...


class Noted:
    """Spectra, and a note of those that were asked for: which matrices a model has now, whatever it
    had before. It is told of all names so far at each new one."""

    def __init__(
        self, store: Spectra, note: Callable[[list[str]], None] = lambda names: None
    ) -> None:
        self._store = store
        self._note = note
        self.names: list[str] = []

    def spectrum(self, matrix: str) -> dict[str, Any] | None:
        known = self._store.spectrum(matrix)
        if known is not None:
            self._add(matrix)
        return known

    def keep_spectrum(self, matrix: str, spectrum: dict[str, Any]) -> None:
        self._store.keep_spectrum(matrix, spectrum)
        self._add(matrix)

    def _add(self, matrix: str) -> None:
        if matrix not in self.names:
            self.names.append(matrix)
            self._note(self.names)


def noise_norm(spacing: Float[Tensor, "m n"]) -> float:
    """Estimate the spectral norm of the error of rounding to the nearest of numbers that lie so far
    apart.

    The error of an entry has mean 0 and variance spacing^2 / 12, and a random matrix with variances
    s_ij^2 a spectral norm of about max_i sqrt(sum_j s_ij^2) + max_j sqrt(sum_i s_ij^2) (Bandeira
    and van Handel 2016), which for entries of one size is s (sqrt(m) + sqrt(n)).

    >>> round(noise_norm(torch.ones(100, 100, dtype=torch.float64)) * 12**0.5, 6)
    20.0
    """
    return float(spacing.norm(dim=0).max() + spacing.norm(dim=1).max()) / math.sqrt(12)


def rounding_norm(matrix: Float[Tensor, "m n"], dtype: torch.dtype) -> float:
    """Estimate the spectral norm of the error that rounding a matrix (float64, the stored numbers)
    to a dtype makes.

    Numbers between 2^e and 2^(e+1) are eps * 2^e apart. By `noise_norm` that makes at most about
    eps / (2 sqrt(3)) * rms(W) * (sqrt(m) + sqrt(n)).

    >>> ones = torch.ones(100, 100, dtype=torch.float64)
    >>> round(rounding_norm(ones, torch.float32) / (2**-23 / 12**0.5), 6)
    20.0
    """
    limits = torch.finfo(dtype)
    # The 2^e of every entry.
    powers = matrix.view(torch.int64).bitwise_and(EXPONENT).view(torch.float64)
    powers.clamp_min_(limits.tiny)  # below the smallest normal number the spacing no longer shrinks
    largest = float(powers.max())
    powers /= largest  # else the squares of large float64 numbers overflow
    return limits.eps * noise_norm(powers) * largest


def _ends(tall: Float[Tensor, "m n"]) -> tuple[float, float] | None:
    """Return the largest and smallest singular value, or None where only a full factorisation can
    tell."""
    r = torch.linalg.qr(tall, mode="r").R
    diagonal = r.diagonal().abs()
    scale = float(diagonal.max())
    if not float(diagonal.min()) > _resolution(tall, scale):
        return None  # singular: sigma_min <= min |r_ii| and sigma_max >= max |r_ii|
    r = r / scale  # squares neither overflow nor vanish
    try:
        largest = _largest_eigenvalue(lambda x: r.T @ (r @ x), r)
        inverse_of_smallest = _largest_eigenvalue(_inverse_gram(r, explicit=r.is_cuda), r)
    except ArpackError:
        return None
    return scale * math.sqrt(largest), scale / math.sqrt(inverse_of_smallest)


def _inverse_gram(r: Float[Tensor, "n n"], explicit: bool) -> Callable[[Tensor], Tensor]:
    """Return x -> (R^T R)^-1 x, by two triangular solves or, explicitly, by two products with R^-1.

    A solve with one vector is a chain of n steps, which a GPU spends waiting; there R^-1 is worth
    its n^3 flops.
    """
    if explicit:
        inverse = torch.linalg.solve_triangular(r, torch.eye(len(r)).to(r), upper=True)
        return lambda x: inverse @ (inverse.T @ x)
    solve = torch.linalg.solve_triangular
    return lambda x: solve(r, solve(r.T, x, upper=False), upper=True)


def _largest_eigenvalue(apply: Callable[[Tensor], Tensor], like: Float[Tensor, "n n"]) -> float:
    """Return the largest eigenvalue of a symmetric operator on (n, 1) columns, by ARPACK's
    Lanczos."""
    n = len(like)

    def step(x: np.ndarray) -> np.ndarray:
        column = torch.from_numpy(np.ascontiguousarray(x).reshape(n, 1)).to(like.device)
        return apply(column).reshape(n).cpu().numpy()

    # The start is random, so that no structure of the matrix makes it blind, and fixed, so that
    # runs repeat.
    start = np.random.default_rng(0).standard_normal(n)
    found = eigsh(
        LinearOperator((n, n), matvec=step, dtype=np.float64),
        k=1,
        which="LA",
        v0=start,
        tol=TOLERANCE,
        maxiter=RESTARTS,
        return_eigenvectors=False,
    )
    return float(found[0])


def _resolution(matrix: Float[Tensor, "m n"], sigma_max: float) -> float:
    """Return what float64 tells from zero in a matrix: `max(m, n) * eps * sigma_max`."""
    return max(matrix.shape) * EPS * sigma_max


def _measure(
    weight: Weight, matrix: Tensor, spacing: Tensor | None, device: torch.device | None
) -> MatrixSpectrum:
    spectrum = spectrum_of(matrix.to(device), name=weight.label, spacing=spacing)
    return MatrixSpectrum(
        layer=weight.layer, name=weight.name, path=weight.path, **asdict(spectrum)
    )


def _recalled(weight: Weight, store: Spectra, device: torch.device | None) -> MatrixSpectrum:
    matrix, spacing = weight.read(), weight.spacing
    name = f"{weight.key} {_digest(matrix)}{'' if spacing is None else ' ' + _digest(spacing)}"
    known = store.spectrum(name)
    if known is not None:
        return MatrixSpectrum.from_json(known)
    measured = _measure(weight, matrix, spacing, device)
    store.keep_spectrum(name, measured.to_json())
    return measured


def _digest(matrix: Tensor) -> str:
    """Return a hash of a matrix's dtype, shape and bytes: of another checkpoint, another."""
    digest = hashlib.blake2b(f"{matrix.dtype} {tuple(matrix.shape)}".encode(), digest_size=16)
    digest.update(raw_bytes(matrix))
    return digest.hexdigest()
