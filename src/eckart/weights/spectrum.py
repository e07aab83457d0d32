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

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from scipy.sparse.linalg import ArpackError, LinearOperator, eigsh
from torch import Tensor

from eckart.weights.linalg import prepared, singular_values

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


@dataclass(frozen=True)
class Spectrum:
    """The ends of one matrix's spectrum, in float64, and its 2-norm condition number (Section 3.4).

    They are those of the stored weights, whatever their dtype. Storage rounds: by Weyl's inequality
    it moves each singular value by at most `rounding`, so a `sigma_min` above it was in the matrix
    before it was stored, and one below may be that rounding alone, as it is for a clipped matrix,
    whose zeros storage fills.

    Arguments:
        name: what the matrix is called.
        shape: (m, n).
        sigma_max: the largest singular value, the spectral norm.
        sigma_min: the smallest of the min(m, n) singular values; where `singular`, it is float64's
            own noise.
        rank: how many singular values exceed `max(m, n) * eps * sigma_max`, float64's resolution of
            them.
        rounding: the spectral norm of the error that rounding to the weight's dtype makes; see
            `rounding_norm`.

    >>> Spectrum.of(torch.diag(torch.tensor([8.0, 2.0, 0.5]))).condition_number
    16.0
    >>> print(Spectrum.of(torch.ones(3, 5)).describe())
    singular (rank 1 of 3)
    """

    name: str
    shape: tuple[int, int]
    sigma_max: float
    sigma_min: float
    rank: int
    rounding: float

    @classmethod
    def of(cls, weight: Tensor, *, name: str = "the matrix") -> Spectrum:
        """Compute the ends of a matrix's spectrum to at least six digits.

        Arguments:
            weight: (m, n), any floating-point dtype and device; it is left as it is, and computed
                with where it is.
            name: what error messages call the matrix.

        Raises:
            ModelError: as `Factor.of`.
        """
        tall = prepared(weight, name)
        ends = _ends(tall) if tall.shape[1] > SMALL else None
        if ends is not None and ends[1] > _resolution(tall, ends[0]):
            sigma_max, sigma_min, rank = *ends, tall.shape[1]
        else:
            values = singular_values(tall, name)
            sigma_max, sigma_min = float(values[0]), float(values[-1])
            rank = int((values > _resolution(tall, sigma_max)).sum())
        shape = (weight.shape[0], weight.shape[1])
        return cls(name, shape, sigma_max, sigma_min, rank, rounding_norm(tall, weight.dtype))

    @property
    def singular(self) -> bool:
        """Whether the rank is below min(m, n), to float64 precision."""
        return self.rank < min(self.shape)

    @property
    def resolved(self) -> bool:
        """Whether the matrix had a smallest singular value other than 0 before it was rounded for
        storage."""
        return not self.singular and self.sigma_min > self.rounding

    @property
    def condition_number(self) -> float:
        """`sigma_max / sigma_min`, or infinity where the matrix is singular."""
        return math.inf if self.singular else self.sigma_max / self.sigma_min

    def describe(self) -> str:
        """Return the condition number as text, such as `1.2e+03` or `singular (rank 30 of 64)`."""
        if self.singular:
            return f"singular (rank {self.rank} of {min(self.shape)})"
        return f"{self.condition_number:.1e}"


def rounding_norm(matrix: Float[Tensor, "m n"], dtype: torch.dtype) -> float:
    """Estimate the spectral norm of the error that rounding a matrix to a dtype makes.

    Numbers between 2^e and 2^(e+1) are eps * 2^e apart, so rounding to the nearest makes an error
    of mean 0 and variance (eps * 2^e)^2 / 12. A random matrix with variances s_ij^2 has a spectral
    norm of about max_i sqrt(sum_j s_ij^2) + max_j sqrt(sum_i s_ij^2) (Bandeira and van Handel
    2016), which for entries of one size is s (sqrt(m) + sqrt(n)), and at most eps / (2 sqrt(3)) *
    rms(W) * (sqrt(m) + sqrt(n)).

    Arguments:
        matrix: (m, n), float64, the stored numbers.
        dtype: what they are stored in.

    >>> round(rounding_norm(torch.ones(100, 100, dtype=torch.float64), torch.float32) / (2**-23 /
    12**0.5), 6) 20.0
    """
    limits = torch.finfo(dtype)
    powers = (
        matrix.view(torch.int64).bitwise_and(EXPONENT).view(torch.float64)
    )  # the 2^e of every entry
    powers.clamp_min_(limits.tiny)  # below the smallest normal number the spacing no longer shrinks
    largest = float(powers.max())
    powers /= largest  # else the squares of large float64 numbers overflow
    relative = float(powers.norm(dim=0).max() + powers.norm(dim=1).max())
    return limits.eps / math.sqrt(12) * relative * largest


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
