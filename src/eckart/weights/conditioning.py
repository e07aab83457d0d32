"""The condition numbers that Algorithm 1 chooses a layer by, as values: a report needs no torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from eckart.errors import EditError
from eckart.records import or_null

COMBINATIONS: dict[str, Callable[[Sequence[float]], float]] = {
    "geometric": lambda values: float(np.exp(np.mean(np.log(values)))),
    "mean": lambda values: float(np.mean(values)),
    "max": max,
    "min": min,
}
"""How the condition numbers of a layer's matrices become the layer's; the paper does not say."""


@dataclass(frozen=True, kw_only=True)
class Spectrum:
    """The ends of one matrix's spectrum, in float64, and its 2-norm condition number (Section 3.4).

    They are those of the stored weights, whatever their dtype. Storage rounds: by Weyl's inequality
    it moves each singular value by at most `rounding`, so a `sigma_min` above it was in the matrix
    before it was stored, and one below may be that rounding alone, as it is for a clipped matrix,
    whose zeros storage fills.

    Arguments:
        shape: (m, n) = (out_features, in_features).
        sigma_max: the largest singular value, the spectral norm.
        sigma_min: the smallest of the min(m, n) singular values; where `singular`, it is float64's
            own noise.
        rank: how many singular values exceed `max(m, n) * eps * sigma_max`, float64's resolution of
            them.
        rounding: the spectral norm of the error that rounding to the stored dtype makes.
    """

    shape: tuple[int, int]
    sigma_max: float
    sigma_min: float
    rank: int
    rounding: float = 0.0

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


@dataclass(frozen=True, kw_only=True)
class MatrixSpectrum(Spectrum):
    """A spectrum, and which `Weight` it is the spectrum of."""

    layer: int
    name: str
    path: str

    def to_json(self) -> dict[str, Any]:
        """Return plain values; an infinite condition number is null, since JSON has none."""
        return {
            "layer": self.layer,
            "name": self.name,
            "path": self.path,
            "shape": self.shape,
            "sigma_max": self.sigma_max,
            "sigma_min": self.sigma_min,
            "rank": self.rank,
            "condition_number": or_null(self.condition_number),
            "rounding": self.rounding,
            "singular": self.singular,
            "resolved": self.resolved,
        }

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> MatrixSpectrum:
        derived = ("condition_number", "singular", "resolved")
        kept = {name: value for name, value in values.items() if name not in derived}
        return cls(**{**kept, "shape": tuple(values["shape"])})


def layer_condition_numbers(
    matrices: Iterable[MatrixSpectrum], combine: str = "geometric"
) -> dict[int, float]:
    """Combine the condition numbers of each layer's matrices into the layer's: by default their
    geometric mean, so that no single matrix decides, whatever its scale; an EditError where there
    is no such combination."""
    if combine not in COMBINATIONS:
        raise EditError(
            f"no combination '{combine}'; the combinations are {', '.join(COMBINATIONS)}"
        )
    by_layer: dict[int, list[float]] = {}
    for matrix in matrices:
        by_layer.setdefault(matrix.layer, []).append(matrix.condition_number)
    return {layer: COMBINATIONS[combine](values) for layer, values in sorted(by_layer.items())}
