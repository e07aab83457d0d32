"""The types of GGUF files that weights can be put into, and a model whose weights went through
one."""

from __future__ import annotations

import importlib.util
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from eckart.errors import ModelError, closest
from eckart.weights.anatomy import Anatomy, Weight
from eckart.weights.loading.gguf import INSTALL
from eckart.weights.options import GGUF_TYPES

OUTPUT = ("f16", "bf16", "q8_0")
"""The types that an output matrix keeps; of the others it is q8_0."""

RULE = (
    "the layers' matrices and the token embeddings; norms, biases and positions as they are; the"
    " output matrix, and embeddings tied to it, Q8_0 of every smaller type"
)
"""What is quantised: what llama.cpp does, but that it takes Q6_K for the output matrix where rows
are multiples of 256. The package gguf has no quantiser for that."""


@dataclass(frozen=True)
class GgufType:
    """A type of tensors in GGUF files, by the name that files and programs know it by."""

    name: str

    @classmethod
    def of(cls, name: str, known: Collection[str] = GGUF_TYPES) -> GgufType:
        """Return a type; a ModelError where there is none of that name, or no package gguf."""
        if name.lower() not in known:
            raise ModelError(
                f"no GGUF type '{name}' that weights can be put into here; {closest(name, known)}"
            )
        if importlib.util.find_spec("gguf") is None:
            raise ModelError(f"'{name}' is a type of GGUF files, which need packages: {INSTALL}")
        return cls(name.lower())

    @property
    def label(self) -> str:
        """The name as files show it."""
        return self.name.upper()

    @property
    def number(self) -> Any:
        """What files know it by."""
        from gguf import GGMLQuantizationType

        return GGMLQuantizationType[self.label]

    @property
    def for_output(self) -> GgufType:
        """What the matrix that ends in the vocabulary is put into, where a model is quantised."""
        return self if self.name in OUTPUT else GgufType("q8_0")

    def size(self, numbers: int) -> int:
        """Return how many bytes so many numbers take."""
        block, bytes_ = self._block
        return numbers // block * bytes_

    def check(self, row: int, name: str) -> None:
        """Refuse rows that are not whole blocks."""
        if row % self._block[0]:
            raise ModelError(
                f"{name} has rows of {row} numbers, and {self.label} takes them by"
                f" {self._block[0]}; choose f16 or bf16"
            )

    def packed(self, numbers: np.ndarray, name: str) -> np.ndarray:
        """Quantise numbers along the last axis; a ModelError where they are beyond the type's."""
        from gguf import quantize

        # An inf is found below, and the quantiser divides by the scale of blocks of zeros.
        with np.errstate(all="ignore"):
            packed = quantize(np.ascontiguousarray(numbers, dtype=np.float32), self.number)
            if not np.isfinite(self._unpacked(packed)).all():
                raise ModelError(
                    f"{name} has numbers up to {np.abs(numbers).max():.3g}, and {self.label} holds"
                    " none so large; choose bf16"
                )
        return packed

    def rounded(self, numbers: Tensor, name: str) -> Tensor:
        """Quantise a matrix and dequantise it, in float32, on the CPU."""
        packed = self.packed(numbers.float().cpu().numpy(), name)
        return torch.from_numpy(np.array(self._unpacked(packed)))

    def _unpacked(self, packed: np.ndarray) -> np.ndarray:
        from gguf import dequantize

        return dequantize(packed, self.number)

    @property
    def _block(self) -> tuple[int, int]:
        from gguf import GGML_QUANT_SIZES

        block, size = GGML_QUANT_SIZES[self.number]
        return int(block), int(size)


@contextmanager
def quantised(anatomy: Anatomy, kind: GgufType) -> Iterator[None]:
    """Let a model have its weights as a GGUF file of a type would hold them, dequantised, while a
    `with` block runs; every byte comes back. `RULE` says which of them.

    Raises:
        ModelError: a row is no whole number of blocks, or a number is beyond the type's.
    """
    check_rows(anatomy, kind)
    with ExitStack() as undo, torch.no_grad():
        for weight in _matrices(anatomy):
            original = weight.read()
            undo.callback(weight.write_, original)
            weight.write_(kind.rounded(original, weight.label).to(original.device))
        for name, parameter, own in _vocabulary(anatomy, kind):
            before = parameter.detach().clone()
            undo.callback(parameter.detach().copy_, before)
            parameter.detach().copy_(own.rounded(before, name))
        yield


def check_rows(anatomy: Anatomy, kind: GgufType) -> None:
    """Refuse a model of which a row is no whole number of a type's blocks."""
    for weight in _matrices(anatomy):
        kind.check(weight.shape[1], weight.label)
    for name, parameter, own in _vocabulary(anatomy, kind):
        own.check(parameter.shape[1], name)


def _matrices(anatomy: Anatomy) -> list[Weight]:
    """Return every matrix of the layers, a tied one once."""
    every = (weight for layer in anatomy.layers for weight in layer)
    return list({f"{min([w.path, *w.tied])}:{w.name}": w for w in every}.values())


def _vocabulary(anatomy: Anatomy, kind: GgufType) -> Iterator[tuple[str, nn.Parameter, GgufType]]:
    """Give the matrices that begin or end in the vocabulary, each once, with their types."""
    ends = anatomy.model.get_output_embeddings()
    output = None if ends is None else ends.weight
    begins: Any = anatomy.model.get_input_embeddings().weight
    if output is not None:
        yield "the output matrix", output, kind.for_output
    if begins is not output:
        yield "the token embeddings", begins, kind
