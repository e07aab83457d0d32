"""What Algorithm 1 chooses from: rates, and layers by their condition numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from eckart.anatomy import Anatomy, Weight
from eckart.errors import EditError
from eckart.records import TOP_K, check_rate
from eckart.runs import RunStore
from eckart.spectrum import Spectrum

COMBINATIONS: dict[str, Callable[[Sequence[float]], float]] = {
    "geometric": lambda values: float(np.exp(np.mean(np.log(values)))),
    "mean": lambda values: float(np.mean(values)),
    "max": max,
    "min": min,
}
"""How the condition numbers of a layer's matrices become the layer's; the paper does not say."""


@dataclass(frozen=True)
class MatrixSpectrum:
    """The two ends of a matrix's spectrum, and what it is a matrix of.

    Arguments:
        layer, name, path: where it is.
        shape: (out_features, in_features).
        sigma_max, sigma_min: largest and smallest singular value.
        rank: numerical rank in float64.
        condition_number: `sigma_max / sigma_min`; infinite where the matrix is singular to float64 precision.
    """

    layer: int
    name: str
    path: str
    shape: tuple[int, int]
    sigma_max: float
    sigma_min: float
    rank: int
    condition_number: float

    @property
    def singular(self) -> bool:
        """Whether the smallest singular value is zero as far as float64 can tell."""
        return math.isinf(self.condition_number)

    def to_json(self) -> dict[str, Any]:
        """Return plain values; an infinite condition number is null, since JSON has none."""
        return {**asdict(self), "condition_number": finite(self.condition_number), "singular": self.singular}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> MatrixSpectrum:
        """Read what `to_json` wrote."""
        kept = {k: v for k, v in values.items() if k != "singular"}
        condition = math.inf if values["singular"] else values["condition_number"]
        return cls(**{**kept, "shape": tuple(values["shape"]), "condition_number": condition})


def measure(weight: Weight) -> MatrixSpectrum:
    """Compute a weight's spectrum in float64, from the stored numbers.

    Raises:
        ModelError: the weight holds NaN or infinite numbers.
    """
    spectrum = Spectrum.of(weight.read(), name=weight.label)
    return MatrixSpectrum(
        layer=weight.layer,
        name=weight.name,
        path=weight.path,
        shape=weight.shape,
        sigma_max=spectrum.sigma_max,
        sigma_min=spectrum.sigma_min,
        rank=spectrum.rank,
        condition_number=spectrum.condition_number,
    )


def spectra(
    anatomy: Anatomy,
    part: str = "all",
    *,
    layers: Iterable[int] | None = None,
    store: RunStore | None = None,
    advance: Callable[[int], None] = lambda matrices: None,
) -> list[MatrixSpectrum]:
    """Measure every matrix of a part in every layer; what a store knows is not measured again."""
    found = []
    for layer in range(len(anatomy.layers)) if layers is None else layers:
        for weight in anatomy.select(layer, part):
            found.append(_recalled(weight, store))
            advance(1)
    return found


def layer_condition_numbers(
    matrices: Iterable[MatrixSpectrum], combine: str = "geometric"
) -> dict[int, float]:
    """Combine the condition numbers of each layer's matrices into the layer's.

    Arguments:
        matrices: of any layers, in any order.
        combine: `geometric` mean (the default: no single matrix decides, whatever its scale), `mean`, `max`, `min`.

    Raises:
        EditError: there is no such combination.
    """
    if combine not in COMBINATIONS:
        raise EditError(f"no combination '{combine}'; the combinations are {', '.join(COMBINATIONS)}")
    by_layer: dict[int, list[float]] = {}
    for matrix in matrices:
        by_layer.setdefault(matrix.layer, []).append(matrix.condition_number)
    return {layer: COMBINATIONS[combine](values) for layer, values in sorted(by_layer.items())}


def select_layer(condition_numbers: Mapping[int, float], top_k: int = TOP_K) -> int:
    """Return the deepest of the `top_k` layers with the largest condition numbers (Algorithm 1, lines 2 to 4).

    Of equal condition numbers the deeper layer counts as larger.

    >>> select_layer({0: 10.0, 1: 90.0, 2: 40.0, 3: 5.0}, top_k=2)
    2
    """
    if top_k < 1:
        raise EditError(f"top-k {top_k} selects no layer; it must be at least 1")
    largest = sorted(condition_numbers, key=lambda layer: (condition_numbers[layer], layer), reverse=True)
    return max(largest[:top_k])


def check_rates(rates: Iterable[float]) -> tuple[float, ...]:
    """Return the candidate rates in ascending order, each once, with 0 among them: not to clip is always an answer.

    Raises:
        EditError: a rate is outside [0, 1).
    """
    return tuple(sorted({0.0, *(check_rate(rate) for rate in rates)}))


def finite(value: float) -> float | None:
    """Return a number, or None where JSON has no word for it."""
    return value if math.isfinite(value) else None


def _recalled(weight: Weight, store: RunStore | None) -> MatrixSpectrum:
    name = f"{weight.path} {weight.name}"
    known = store.spectrum(name) if store else None
    if known is not None:
        return MatrixSpectrum.from_json(known)
    measured = measure(weight)
    if store is not None:
        store.keep_spectrum(name, measured.to_json())
    return measured
