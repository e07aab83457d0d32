"""Exact factorisation, optimal truncation, singular values and condition numbers of one matrix.

Why nothing here goes through a Gram matrix: the eigenvalues of W^T W are the *squares* of the singular
values, each with an error of about eps * sigma_max^2. A singular value below sqrt(eps) * sigma_max, which is
3e-4 of the largest in float32 and 1e-8 in float64, drowns in that error: the square root of what is left is
noise, and may be of a negative number. Truncation would survive this, since it needs only the large ones; a
condition number is exactly the quotient that does not.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import scipy.linalg
import torch
from jaxtyping import Float
from torch import Tensor

from eckart.errors import ModelError
from eckart.records import check_rate

T = TypeVar("T")


def rank_at(rate: float, shape: tuple[int, int]) -> int:
    """Return the rank that a clipping rate keeps: `max(1, floor((1 - rate) * min(m, n) + 1e-9))`.

    Arguments:
        rate: the clipping rate xi in [0, 1) of Section 2, xi = 1 - r / min(m, n).
        shape: (m, n).

    Returns:
        The rank r in 1..min(m, n).

    Raises:
        EditError: the rate is not in [0, 1).

    >>> rank_at(0.95, (4096, 16384)), rank_at(0.9, (10, 10)), rank_at(0.995, (64, 64)), rank_at(0, (7, 5))
    (204, 1, 1, 5)
    """
    # Without 1e-9, (1 - 0.9) * 10 = 0.9999999999999998 would floor to 0.
    return max(1, math.floor((1 - check_rate(rate)) * min(shape) + 1e-9))


def factored_size(rate: float, shape: tuple[int, int]) -> int:
    """Return how many numbers the two factors (m, r) and (r, n) of a clipped matrix hold: `r * (m + n)`."""
    return rank_at(rate, shape) * sum(shape)


@dataclass(frozen=True, eq=False)
class Factor:
    """One exact factorisation `W = U diag(s) V^T` that serves every clipping rate (Section 2, Eckart-Young).

    Arguments:
        name: what error messages call the matrix.
        original: (m, n), a copy of the stored entries in their own dtype, on their own device.
        u, s, vt: (m, k), (k,) descending, (k, n) with k = min(m, n), in the working precision.

    >>> factor = Factor.of(torch.diag(torch.tensor([3.0, 2.0, 1.0])))
    >>> factor.truncate(0.5)
    tensor([[3., 0., 0.],
            [0., 0., 0.],
            [0., 0., 0.]])
    >>> factor.rank(0.5), factor.factored_parameters(0.5)
    (1, 6)
    """

    name: str
    original: Float[Tensor, "m n"]
    u: Float[Tensor, "m k"]
    s: Float[Tensor, " k"]
    vt: Float[Tensor, "k n"]

    @classmethod
    def of(
        cls, weight: Tensor, *, name: str = "the matrix", precision: torch.dtype = torch.float64
    ) -> Factor:
        """Factorise a matrix once.

        Arguments:
            weight: (m, n), any floating-point dtype and device; it is copied, and left as it is.
            name: what error messages call the matrix.
            precision: the dtype to compute in, `torch.float64` or `torch.float32`; a float64 matrix is
                always computed in float64.

        Raises:
            ModelError: the matrix is not 2-D, is empty, is not floating-point, holds NaN or infinity, or has
                no values yet (meta device); or no LAPACK driver converges on it.
        """
        tall = _tall(_upcast(weight, name, precision))
        u, s, vt = _converging(torch.linalg.svd, _svd_by_qr_iteration, tall, name, full_matrices=False)
        _check_no_overflow(s, name)
        if tall.shape != weight.shape:
            u, vt = vt.T, u.T
        original = weight.detach().clone(memory_format=torch.contiguous_format)
        return cls(name=name, original=original, u=u, s=s, vt=vt)

    @property
    def shape(self) -> tuple[int, int]:
        """(m, n)."""
        return (self.original.shape[0], self.original.shape[1])

    def rank(self, rate: float) -> int:
        """Return the rank that a clipping rate keeps; see `rank_at`."""
        return rank_at(rate, self.shape)

    def truncate(self, rate: float) -> Float[Tensor, "m n"]:
        """Return the closest matrix of the rank that a clipping rate keeps, `U_r diag(s_r) V_r^T`.

        It is always a truncation of the original weights, so rates can be tried in any order.

        Arguments:
            rate: the clipping rate xi in [0, 1).

        Returns:
            (m, n) in the original's dtype, on its device; a bit-exact copy of the original at full rank.

        Raises:
            EditError: the rate is not in [0, 1).
            ModelError: an entry of the truncated matrix is too large for the original's dtype.
        """
        r = self.rank(rate)
        if r == len(self.s):
            return self.original.clone()
        product = (self.u[:, :r] * self.s[:r]) @ self.vt[:r]
        # Cast first, move second: the device of the original may not know the working precision.
        truncated = product.to(self.original.dtype)
        if not _finite(truncated):
            raise ModelError(
                f"{self.name} at rank {r} has entries up to {product.abs().max():.3g}, too large for "
                f"{truncated.dtype}; load the model in bfloat16 or float32"
            )
        return truncated.to(self.original.device)

    def kept_energy(self, rate: float) -> float:
        """Return the share of the squared Frobenius norm that a clipping rate keeps, in [0, 1].

        The squared norm is the sum of the *squared* singular values. A zero matrix loses nothing: 1.
        """
        s = self.s.detach().cpu().double()
        scaled = s / s[0].clamp_min(torch.finfo(s.dtype).tiny)  # the squares themselves may overflow
        energies = scaled.square().cumsum(0)
        return float(energies[self.rank(rate) - 1] / energies[-1]) if energies[-1] > 0 else 1.0

    def factored_parameters(self, rate: float) -> int:
        """Return how many numbers the two factors (m, r) and (r, n) hold: `r * (m + n)`."""
        return factored_size(rate, self.shape)


@dataclass(frozen=True, eq=False)
class Spectrum:
    """All the singular values of one matrix, in float64, and its 2-norm condition number (Section 3.4).

    They are those of the stored weights, whatever their dtype. The rounding of a clipped matrix to float32 or
    bfloat16 is part of what is stored: its small singular values are that rounding, not zeros.

    Arguments:
        name: what the matrix is called.
        shape: (m, n).
        values: (min(m, n),), float64, descending, on the CPU.

    >>> Spectrum.of(torch.diag(torch.tensor([8.0, 2.0, 0.5]))).condition_number
    16.0
    >>> print(Spectrum.of(torch.ones(3, 5)).describe())
    singular (rank 1 of 3)
    """

    name: str
    shape: tuple[int, int]
    values: Float[Tensor, " k"]

    @classmethod
    def of(cls, weight: Tensor, *, name: str = "the matrix") -> Spectrum:
        """Compute every singular value of a matrix, in float64.

        Arguments:
            weight: (m, n), any floating-point dtype and device; it is left as it is.
            name: what error messages call the matrix.

        Raises:
            ModelError: as `Factor.of`.
        """
        tall = _tall(_upcast(weight, name, torch.float64))
        values = _converging(torch.linalg.svdvals, _singular_values_by_qr_iteration, tall, name)
        _check_no_overflow(values, name)
        return cls(name=name, shape=(weight.shape[0], weight.shape[1]), values=values.cpu())

    @property
    def sigma_max(self) -> float:
        """The largest singular value, the spectral norm."""
        return float(self.values[0])

    @property
    def sigma_min(self) -> float:
        """The smallest of the min(m, n) singular values; where `singular`, it is rounding noise."""
        return float(self.values[-1])

    @property
    def rank(self) -> int:
        """How many singular values exceed `max(m, n) * eps * sigma_max`, float64's resolution of them."""
        tolerance = max(self.shape) * torch.finfo(torch.float64).eps * self.sigma_max
        return int((self.values > tolerance).sum())

    @property
    def singular(self) -> bool:
        """Whether the rank is below min(m, n), to float64 precision."""
        return self.rank < len(self.values)

    @property
    def condition_number(self) -> float:
        """`sigma_max / sigma_min`, or infinity where the matrix is singular."""
        return math.inf if self.singular else self.sigma_max / self.sigma_min

    def describe(self) -> str:
        """Return the condition number as text, such as `1.2e+03` or `singular (rank 30 of 64)`."""
        if self.singular:
            return f"singular (rank {self.rank} of {len(self.values)})"
        return f"{self.condition_number:.1e}"


def _upcast(weight: Tensor, name: str, precision: torch.dtype) -> Float[Tensor, "m n"]:
    """Return a valid matrix in the working precision, on a device that has it."""
    _check_matrix(weight, name)
    if precision not in (torch.float32, torch.float64):
        raise ModelError(f"{name} cannot be factorised in {precision}; choose torch.float64 or torch.float32")
    dtype = torch.float64 if weight.dtype == torch.float64 else precision
    # MPS and some others lack float64; moved before it is cast, for the same reason.
    device = weight.device if weight.device.type in ("cpu", "cuda") else torch.device("cpu")
    working = weight.detach().to(device).to(dtype)
    if not _finite(working):
        bad = int((~torch.isfinite(working)).sum())
        raise ModelError(
            f"{name} holds {bad} NaN or infinite entries of {working.numel()}, as after an overflowed "
            "half-precision save or in a damaged file; fetch the checkpoint again, or in float32 or bfloat16"
        )
    return working


def _tall(matrix: Float[Tensor, "m n"]) -> Float[Tensor, "rows columns"]:
    # LAPACK needs three to five times as long for a wide matrix as for its transpose.
    return matrix.T if matrix.shape[0] < matrix.shape[1] else matrix


def _check_matrix(weight: Tensor, name: str) -> None:
    if weight.dim() != 2 or weight.numel() == 0:
        raise ModelError(
            f"{name} has shape {tuple(weight.shape)}, and is not a matrix with at least one row and column; "
            "name one 2-D weight of the model"
        )
    if not weight.is_floating_point():
        raise ModelError(
            f"{name} holds {weight.dtype} entries, as in a quantised checkpoint; "
            "load the model in a floating-point dtype"
        )
    if weight.is_meta:
        raise ModelError(f"{name} is on the meta device and has no values; load the model with its weights")


def _finite(matrix: Tensor) -> bool:
    # One-byte dtypes have no isfinite; their entries are finite exactly where float32's are.
    return bool(torch.isfinite(matrix.float() if matrix.dtype.itemsize == 1 else matrix).all())


def _check_no_overflow(values: Tensor, name: str) -> None:
    if not _finite(values):
        raise ModelError(
            f"{name} has entries so large that its singular values overflow {values.dtype}; "
            "its file is likely damaged: fetch the checkpoint again"
        )


def _converging(
    compute: Callable[..., T], fallback: Callable[[Tensor], T], matrix: Tensor, name: str, **options: Any
) -> T:
    """Run LAPACK's divide and conquer and, in the rare case that it does not converge, its QR iteration."""
    try:
        return compute(matrix, **options)
    except torch.linalg.LinAlgError:  # type: ignore[attr-defined]  # it is public, and not re-exported
        try:
            return fallback(matrix)
        except scipy.linalg.LinAlgError:
            raise ModelError(
                f"the singular values of {name} do not converge, as with damaged entries; "
                "fetch the checkpoint again, or leave this matrix out"
            ) from None


def _svd_by_qr_iteration(
    matrix: Float[Tensor, "m n"],
) -> tuple[Float[Tensor, "m k"], Float[Tensor, " k"], Float[Tensor, "k n"]]:
    arrays = scipy.linalg.svd(matrix.cpu().double().numpy(), full_matrices=False, lapack_driver="gesvd")
    u, s, vt = (torch.from_numpy(array).to(matrix) for array in arrays)
    return u, s, vt


def _singular_values_by_qr_iteration(matrix: Float[Tensor, "m n"]) -> Float[Tensor, " k"]:
    array = matrix.cpu().double().numpy()
    return torch.from_numpy(scipy.linalg.svd(array, compute_uv=False, lapack_driver="gesvd")).to(matrix)
