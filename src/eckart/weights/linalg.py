"""Exact factorisation and optimal truncation of one matrix, and what every use of its singular
values shares.

Truncation goes through the smaller Gram matrix: W_r = W V_r V_r^T, with V_r the leading
eigenvectors of G = W^T W in float64. It takes 35 to 60% of the SVD's time on a CPU, and this is why
it is accurate enough:

- The computed vectors are those of G + E. Any r orthonormal columns V leave the squared Frobenius
  residual tr G - tr V^T G V, so the best for G + E exceed the optimum by at most 2 r |E|. Product
  and eigh together have |E| <= n eps sigma_max^2, in practice a few eps: an excess of at most 2 r n
  eps sigma_max^2.
- Singular values below sqrt(eps) = 1.5e-8 of the largest drown in E. To confuse their directions
  costs no more than they are, which is what storage in float32 rounds off anyway (about 2e-8
  |W|_F).
- A float64 weight is stored more finely than that. It keeps the exact SVD.

A condition number is a quotient with the *smallest* singular value, which is just what drowns. It
never comes from a Gram matrix: see `eckart.weights.spectrum`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias, TypeVar

import scipy.linalg
import torch
from jaxtyping import Float, Int
from torch import Tensor

from eckart.algorithm1 import rank_at
from eckart.errors import ModelError

T = TypeVar("T")
Order: TypeAlias = Int[Tensor, " k"] | None
"""Which singular directions stay longest; None for those of the largest singular values."""


def factored_size(rate: float, shape: tuple[int, int]) -> int:
    """Return how many numbers the two factors (m, r) and (r, n) of a clipped matrix hold:
    `r * (m + n)`."""
    return rank_at(rate, shape) * sum(shape)


@dataclass(frozen=True, eq=False)
class Factor:
    """One exact factorisation `W = U diag(s) V^T` that serves every clipping rate (Section 2,
    Eckart-Young).

    Arguments:
        name: what error messages call the matrix.
        original: (m, n), a copy of the stored entries in their own dtype, on their own device.
        s: (k,), k = min(m, n), descending, float64; below 1.5e-8 of the first they are rounding,
            see `Spectrum`.
        v: (k, k), float64, one singular vector a column: the right ones, or of a wide matrix the
            left ones.

    >>> factor = Factor.of(torch.diag(torch.tensor([3.0, 2.0, 1.0])))
    >>> factor.truncate(0.5)
    tensor([[3., 0., 0.],
            [0., 0., 0.],
            [0., 0., 0.]])
    >>> factor.rank(0.5)
    1
    """

    name: str
    original: Float[Tensor, "m n"]
    s: Float[Tensor, " k"]
    v: Float[Tensor, "k k"]

    @classmethod
    def of(cls, weight: Tensor, *, name: str = "the matrix") -> Factor:
        """Factorise a matrix once, in float64.

        Arguments:
            weight: (m, n), any floating-point dtype and device; it is copied, and left as it is.
            name: what error messages call the matrix.

        Raises:
            ModelError: the matrix is not 2-D, is empty, is not floating-point, holds NaN or
                infinity, or has no values yet (meta device); or no LAPACK driver converges on it.
        """
        tall = prepared(weight, name)
        s, v = _by_svd(tall, name) if weight.dtype == torch.float64 else _by_gram(tall, name)
        original = weight.detach().clone(memory_format=torch.contiguous_format)
        return cls(name=name, original=original, s=s, v=v)

    @property
    def shape(self) -> tuple[int, int]:
        return (self.original.shape[0], self.original.shape[1])

    def rank(self, rate: float) -> int:
        """Return the rank that a clipping rate keeps; see `rank_at`."""
        return rank_at(rate, self.shape)

    def truncate(self, rate: float, order: Order = None) -> Float[Tensor, "m n"]:
        """Return the closest matrix of the rank that a clipping rate keeps, `U_r diag(s_r) V_r^T`.

        It is always a truncation of the original weights, so rates can be tried in any order.

        Arguments:
            rate: the clipping rate xi in [0, 1).
            order: (k,), the singular directions by which of them stay longest, numbered by
                descending singular value; that very order by default. Another keeps the sum of
                s_i u_i v_i^T over its first r, which is not the closest matrix of that rank. A
                direction is as sure as its singular value is apart from the next: where two are
                equal, which is which is arbitrary.

        Returns:
            (m, n) in the original's dtype, on its device; a bit-exact copy of the original at full
            rank.

        Raises:
            EditError: the rate is not in [0, 1).
            ModelError: an entry of the truncated matrix is too large for the original's dtype.
        """
        r = self.rank(rate)
        if r == len(self.s):
            return self.original.clone()
        product = self._projected(r, order)
        # Cast first, move second: the device of the original may not know the working precision.
        truncated = product.to(self.original.dtype)
        if not _finite(truncated):
            raise ModelError(
                f"{self.name} at rank {r} has entries up to {product.abs().max():.3g}, too large"
                f" for {truncated.dtype}; load the model in bfloat16 or float32"
            )
        return truncated.to(self.original.device)

    def _projected(self, r: int, order: Order = None) -> Float[Tensor, "m n"]:
        """Return what the first r directions keep, in float64, by the fewer of the directions kept
        and dropped."""
        matrix = _float64(self.original)
        tall = _tall(matrix)
        keep_few = 2 * r <= len(self.s)
        v = self.v if order is None else self.v[:, order]
        directions = v[:, :r] if keep_few else v[:, r:]
        along = (tall @ directions) @ directions.T
        product = along if keep_few else tall - along
        return product if tall is matrix else product.T

    def slopes(self, gradient: Float[Tensor, "m n"]) -> Float[Tensor, " k"]:
        """Return how fast a function of the matrix changes along each singular value, times that
        value: `sigma_i g_i` with `g_i = u_i^T G v_i`.

        To cut the singular value changes the function by minus this, to first order.

        Arguments:
            gradient: (m, n), the function's gradient G by the matrix's entries.

        >>> Factor.of(torch.diag(torch.tensor([3.0, 2.0]))).slopes(torch.ones(2, 2)).tolist()
        [3.0, 2.0]
        """
        matrix, by_entry = _float64(self.original), _float64(gradient)
        if matrix.shape[0] < matrix.shape[1]:
            matrix, by_entry = matrix.T, by_entry.T
        # W v_i = sigma_i u_i, so that no u is needed, nor a quotient with a sigma that is rounding.
        return ((matrix @ self.v) * (by_entry @ self.v)).sum(0)

    def kept_energy(self, rate: float, order: Order = None) -> float:
        """Return the share of the squared Frobenius norm that a clipping rate keeps, in [0, 1].

        The squared norm is the sum of the *squared* singular values. A zero matrix loses nothing:
            1.
        """
        s = self.s.detach().cpu().double()
        scaled = s / s[0].clamp_min(torch.finfo(s.dtype).tiny)  # squares may overflow
        energies = (scaled if order is None else scaled[order]).square().cumsum(0)
        return float(energies[self.rank(rate) - 1] / energies[-1]) if energies[-1] > 0 else 1.0


def prepared(weight: Tensor, name: str) -> Float[Tensor, "rows columns"]:
    """Return a matrix as every factorisation takes it: checked (a ModelError, as of `Factor.of`),
    in float64, and not wider than it is tall: LAPACK needs three to five times as long for a wide
    matrix as for its transpose."""
    _check_matrix(weight, name)
    working = _float64(weight.detach())
    if not _finite(working):
        bad = int((~torch.isfinite(working)).sum())
        raise ModelError(
            f"{name} holds {bad} NaN or infinite entries of {working.numel()}, as after an"
            " overflowed half-precision save or in a damaged file; fetch the checkpoint again, or"
            " in float32 or bfloat16"
        )
    return _tall(working)


def singular_values(tall: Float[Tensor, "m n"], name: str) -> Float[Tensor, " n"]:
    """Return every singular value of a `prepared` matrix, descending, from its full factorisation;
    a ModelError where they do not converge, or overflow."""
    return _decomposed(tall, name, vectors=False)[0]


def _float64(weight: Tensor) -> Tensor:
    # MPS and some others lack float64; moved before it is cast, for the same reason.
    device = weight.device if weight.device.type in ("cpu", "cuda") else torch.device("cpu")
    return weight.to(device).to(torch.float64)


def _tall(matrix: Float[Tensor, "m n"]) -> Float[Tensor, "rows columns"]:
    return matrix.T if matrix.shape[0] < matrix.shape[1] else matrix


def _by_gram(
    tall: Float[Tensor, "m n"], name: str
) -> tuple[Float[Tensor, " n"], Float[Tensor, "n n"]]:
    """Return singular values and right singular vectors from the eigenvectors of the smaller Gram
    matrix."""
    try:
        squares, vectors = torch.linalg.eigh(tall.T @ tall)
    except torch.linalg.LinAlgError:  # type: ignore[attr-defined]  # it is public, and not re-exported
        return _by_svd(tall, name)
    # Rounding makes the square of a zero negative as often as not.
    return squares.flip(0).clamp_min(0).sqrt(), vectors.flip(1)


def _by_svd(
    tall: Float[Tensor, "m n"], name: str
) -> tuple[Float[Tensor, " n"], Float[Tensor, "n n"]]:
    s, vt = _decomposed(tall, name, vectors=True)
    return s, vt.T


def _decomposed(tall: Float[Tensor, "m n"], name: str, *, vectors: bool) -> tuple[Tensor, Tensor]:
    """Return singular values, and right singular vectors as rows where they are asked for: by
    LAPACK's divide and conquer, or, in the rare case that it does not converge, its QR
    iteration."""
    try:
        if vectors:
            _, s, vt = torch.linalg.svd(tall, full_matrices=False)
        else:
            s = vt = torch.linalg.svdvals(tall)
    except torch.linalg.LinAlgError:  # type: ignore[attr-defined]  # it is public, and not re-exported
        s, vt = _by_qr_iteration(tall, name)
    if not _finite(s):
        raise ModelError(
            f"{name} has entries so large that its singular values overflow {s.dtype}; "
            "its file is likely damaged: fetch the checkpoint again"
        )
    return s, vt


def _by_qr_iteration(matrix: Float[Tensor, "m n"], name: str) -> tuple[Tensor, Tensor]:
    array = matrix.cpu().double().numpy()
    try:
        _, s, vt = scipy.linalg.svd(array, full_matrices=False, lapack_driver="gesvd")
    except scipy.linalg.LinAlgError:
        raise ModelError(
            f"the singular values of {name} do not converge, as with damaged entries; "
            "fetch the checkpoint again, or leave this matrix out"
        ) from None
    return torch.from_numpy(s).to(matrix), torch.from_numpy(vt).to(matrix)


def _check_matrix(weight: Tensor, name: str) -> None:
    if weight.dim() != 2 or weight.numel() == 0:
        raise ModelError(
            f"{name} has shape {tuple(weight.shape)}, and is not a matrix with at least one row and"
            " column; name one 2-D weight of the model"
        )
    if not weight.is_floating_point():
        raise ModelError(
            f"{name} holds {weight.dtype} entries, as in a quantised checkpoint; "
            "load the model in a floating-point dtype"
        )
    if weight.is_meta:
        raise ModelError(
            f"{name} is on the meta device and has no values; load the model with its weights"
        )


def _finite(matrix: Tensor) -> bool:
    # One-byte dtypes have no isfinite; their entries are finite exactly where float32's are.
    entries = matrix.float() if matrix.dtype.itemsize == 1 else matrix
    # A sum is the faster check; it may overflow where no entry does.
    return bool(torch.isfinite(entries.sum())) or bool(torch.isfinite(entries).all())
