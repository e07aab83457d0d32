"""What Algorithm 1 chooses from: rates, and the condition numbers of layers."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from eckart.errors import EditError
from eckart.records import MatrixSpectrum, check_rate
from eckart.weights.anatomy import Anatomy, Weight
from eckart.weights.identity import raw_bytes
from eckart.weights.models import LoadedModel
from eckart.weights.spectrum import Spectrum
from eckart.weights.stored import StoredWeights, rounded


class Spectra(Protocol):
    """Whatever remembers spectra, such as a `RunStore`."""

    def spectrum(self, matrix: str) -> dict[str, Any] | None:
        """Return what is known of a matrix's spectrum."""
        ...

    def keep_spectrum(self, matrix: str, spectrum: dict[str, Any]) -> None:
        """Remember a matrix's spectrum."""
        ...


class Noted:
    """Spectra, and a note of those that were asked for: which matrices a model has now, whatever it
    had before.

    Arguments:
        store: remembers them.
        note: told of all names so far at each new one.
    """

    def __init__(
        self, store: Spectra, note: Callable[[list[str]], None] = lambda names: None
    ) -> None:
        self._store = store
        self._note = note
        self.names: list[str] = []

    def spectrum(self, matrix: str) -> dict[str, Any] | None:
        """Return what is known of a matrix's spectrum."""
        known = self._store.spectrum(matrix)
        if known is not None:
            self._add(matrix)
        return known

    def keep_spectrum(self, matrix: str, spectrum: dict[str, Any]) -> None:
        """Remember a matrix's spectrum."""
        self._store.keep_spectrum(matrix, spectrum)
        self._add(matrix)

    def _add(self, matrix: str) -> None:
        if matrix not in self.names:
            self.names.append(matrix)
            self._note(self.names)


COMBINATIONS: dict[str, Callable[[Sequence[float]], float]] = {
    "geometric": lambda values: float(np.exp(np.mean(np.log(values)))),
    "mean": lambda values: float(np.mean(values)),
    "max": max,
    "min": min,
}
"""How the condition numbers of a layer's matrices become the layer's; the paper does not say."""


def matrices(
    anatomy: Anatomy, part: str = "all", layers: Iterable[int] | None = None
) -> list[Weight]:
    """Return the matrices of a part in the given layers, each once, or in all of them.

    Raises:
        EditError: a layer or the part does not exist.
    """
    every = range(len(anatomy.layers))
    chosen = every if layers is None else sorted({anatomy.layer_index(layer) for layer in layers})
    return [weight for layer in chosen for weight in anatomy.select(layer, part)]


def exact_matrices(model: LoadedModel, part: str) -> Iterable[Weight]:
    """Return a part's matrices with the numbers that the checkpoint stores, even if loading rounded
    them."""
    if not rounded(model):
        return matrices(Anatomy.of(model.model), part)
    stored = StoredWeights.of(model.name, model.options)
    return stored.read(matrices(stored.anatomy, part))


def measure(weight: Weight, device: torch.device | None = None) -> MatrixSpectrum:
    """Compute a weight's spectrum in float64 from the stored numbers, on a device, or where the
    weight is.

    Raises:
        ModelError: the weight holds NaN or infinite numbers.
    """
    return _measure(weight, weight.read(), device)


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


def layer_condition_numbers(
    matrices: Iterable[MatrixSpectrum], combine: str = "geometric"
) -> dict[int, float]:
    """Combine the condition numbers of each layer's matrices into the layer's.

    Arguments:
        matrices: of any layers, in any order.
        combine: `geometric` mean (the default: no single matrix decides, whatever its scale),
            `mean`, `max`, `min`.

    Raises:
        EditError: there is no such combination.
    """
    if combine not in COMBINATIONS:
        raise EditError(
            f"no combination '{combine}'; the combinations are {', '.join(COMBINATIONS)}"
        )
    by_layer: dict[int, list[float]] = {}
    for matrix in matrices:
        by_layer.setdefault(matrix.layer, []).append(matrix.condition_number)
    return {layer: COMBINATIONS[combine](values) for layer, values in sorted(by_layer.items())}


def check_rates(rates: Iterable[float]) -> tuple[float, ...]:
    """Return the candidate rates in ascending order, each once, with 0 among them: not to clip is
    always an answer.

    Raises:
        EditError: a rate is outside [0, 1).
    """
    return tuple(sorted({0.0, *(check_rate(rate) for rate in rates)}))


def _measure(weight: Weight, matrix: Tensor, device: torch.device | None) -> MatrixSpectrum:
    spectrum = Spectrum.of(matrix.to(device), name=weight.label)
    return MatrixSpectrum(
        layer=weight.layer,
        name=weight.name,
        path=weight.path,
        shape=weight.shape,
        sigma_max=spectrum.sigma_max,
        sigma_min=spectrum.sigma_min,
        rank=spectrum.rank,
        condition_number=spectrum.condition_number,
        rounding=spectrum.rounding,
    )


def _recalled(weight: Weight, store: Spectra, device: torch.device | None) -> MatrixSpectrum:
    matrix = weight.read()
    name = f"{weight.key} {_digest(matrix)}"
    known = store.spectrum(name)
    if known is not None:
        return MatrixSpectrum.from_json(known)
    measured = _measure(weight, matrix, device)
    store.keep_spectrum(name, measured.to_json())
    return measured


def _digest(matrix: Tensor) -> str:
    """Return a hash of a matrix's dtype, shape and bytes: another checkpoint under the same name
    has another."""
    digest = hashlib.blake2b(f"{matrix.dtype} {tuple(matrix.shape)}".encode(), digest_size=16)
    digest.update(raw_bytes(matrix))
    return digest.hexdigest()
