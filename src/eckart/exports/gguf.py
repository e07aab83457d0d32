"""A clipped model as a GGUF file: a base file once more, of which nothing but the edited tensors
changes."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Any

from torch import nn

from eckart.errors import ModelError
from eckart.exports.recipe import TYPES, Patched, PatchedTensor
from eckart.records import Edit
from eckart.weights.anatomy import Anatomy, Weight
from eckart.weights.edits import dropped_biases, edit_, targets_of
from eckart.weights.gguf import GgufFile, GgufTensors
from eckart.weights.models import LoadedModel, Model
from eckart.weights.quantised import GgufType
from eckart.weights.stored import StoredWeights

FARTHEST = 0.5
"""How far a base's edited matrices may be from the model's, in Frobenius norm and as a share of the
model's, before it is another model's. Two bits a weight are at about 0.3, another training at 1.4.
"""


def patch(
    base: GgufFile,
    outline: Model,
    edits: Sequence[Edit],
    target: Path,
    type_: str = "f16",
    near: str | LoadedModel | None = None,
) -> Patched:
    """Write a clipped model as a GGUF file, by patching one that is not.

    The edited tensors are dequantised, clipped as the model has them, and laid out again as
    llama.cpp has them; all else is copied byte for byte. One matrix at a time is in memory.

    Arguments:
        base: the file.
        outline: the model in it, with or without weights.
        edits: what to clip; none makes a copy.
        target: the new file; in a draft, for a part of it stays where this is interrupted.
        type_: what the edited tensors are written as: `f16`, `bf16` or `q8_0`.
        near: what was searched, where that was no GGUF file: the base must be the same model.

    Raises:
        EditError: the model has no such layer or part.
        ModelError: the base is damaged, one of several parts, or not the model's; or a tensor
            cannot be edited, or not be written so.
    """
    kind, anatomy = GgufType.of(type_, TYPES), Anatomy.of(outline)
    tensors = base.tensors(outline)
    targets = {w: e for w, e in targets_of(anatomy.model, edits, anatomy).items() if e.rate}
    patches = _patches(tensors, targets, kind)
    distance = None if near is None else _distance(tensors, anatomy, targets, near)
    zeros = {tensors.tensor(path).name for path in dropped_biases(anatomy.model, targets)}
    _write(tensors.reader, patches, zeros, target)
    return Patched(
        base=base.path.name,
        tensors=tuple(each.described for each in patches.values()),
        kept=len(tensors.reader.tensors) - len(patches) - len(zeros),
        distance=distance,
    )


@dataclass(frozen=True)
class _Patch:
    """A tensor that is written anew: the parameter that it is, and what is done to its matrices."""

    tensors: GgufTensors
    path: str
    edits: Mapping[Weight, Edit]
    kind: GgufType

    @property
    def tensor(self) -> Any:
        return self.tensors.tensor(self.path)

    @property
    def described(self) -> PatchedTensor:
        before, after = self.tensor.tensor_type.name, self.kind.label
        return PatchedTensor(name=self.tensor.name, before=before, after=after)

    @property
    def size(self) -> int:
        return self.kind.size(int(self.tensor.n_elements))

    def content(self) -> bytes:
        """Return the tensor's bytes."""
        parameter = nn.Parameter(self.tensors.read(self.path), requires_grad=False)
        for weight, edit in self.edits.items():
            edit_(replace(weight, parameter=parameter), edit)
        numbers = self.tensors.laid_out(self.path, parameter.detach())
        return self.kind.packed(numbers, self.tensor.name).tobytes()


def _patches(
    tensors: GgufTensors, targets: Mapping[Weight, Edit], kind: GgufType
) -> dict[str, _Patch]:
    """Return what is written anew, by the tensors' names."""
    if tensors.reader.byte_order != "I":
        raise ModelError(f"'{tensors.file.name}' is big-endian, which is not written; convert it")
    found = {}
    for path, weights in groupby(sorted(targets, key=attrgetter("path")), attrgetter("path")):
        made = _Patch(tensors, path, {weight: targets[weight] for weight in weights}, kind)
        kind.check(int(made.tensor.shape[0]), made.tensor.name)
        found[made.tensor.name] = made
    return found


def _distance(
    tensors: GgufTensors,
    anatomy: Anatomy,
    targets: Mapping[Weight, Edit],
    model: str | LoadedModel,
) -> float:
    """Return how far the matrices to be edited are from a model's, after making sure that they can
    be its.

    Raises:
        ModelError: another number of layers, other names or shapes, or numbers that are too far.
    """
    stored = _stored(model)
    own = stored.anatomy
    names, expected = (
        [[(w.name, w.shape) for w in layer] for layer in each.layers] for each in (anatomy, own)
    )
    if names != expected:
        raise _other_model(tensors, stored, f"{_sizes(anatomy)}, and the model {_sizes(own)}")
    found = 0.0
    for weight in targets:
        theirs = weight.of(tensors.read(weight.path)).double()
        mine = next(w for w in own.layers[weight.layer] if w.name == weight.name)
        ours = next(stored.read([mine])).read().double().cpu()
        far = float((theirs - ours).norm() / ours.norm())
        if not far <= FARTHEST:
            raise _other_model(
                tensors, stored, f"{weight.label} is {far:.0%} of the model's away from it"
            )
        found = max(found, far)
    return found


def _stored(model: str | LoadedModel) -> StoredWeights:
    """Return the weights that a base is compared with: a live model's, or a checkpoint's, of which
    one matrix at a time is read."""
    if isinstance(model, LoadedModel):
        return StoredWeights(model.name, Anatomy.of(model.model), None)
    return StoredWeights.of(model)


def _other_model(tensors: GgufTensors, model: StoredWeights, why: str) -> ModelError:
    return ModelError(
        f"'{tensors.file.name}' is another model than '{model.name}': it has {why}; give the GGUF"
        " file that was converted from it"
    )


def _sizes(anatomy: Anatomy) -> str:
    first = ", ".join(f"{w.name} {w.shape[0]} x {w.shape[1]}" for w in anatomy.layers[0])
    return f"{len(anatomy.layers)} layers of {first}"


def _write(reader: Any, patches: Mapping[str, _Patch], zeros: set[str], path: Path) -> None:
    """Write the new file: the header and all keys as they are, a list of tensors with the new types
    and places, and the tensors in the order in which they lie in the base.

    gguf's own writer would write every key anew.
    """
    from gguf import GGUFWriter

    align = int(reader.alignment)
    by_place = sorted(reader.tensors, key=attrgetter("data_offset"))
    places, end = {}, 0
    for tensor in by_place:
        made = patches.get(tensor.name)
        places[tensor.name] = end
        end += GGUFWriter.ggml_pad(made.size if made else tensor.n_bytes, align)
    with path.open("wb") as out:
        out.write(reader.data[: min(tensor.field.offset for tensor in reader.tensors)])
        for tensor in reader.tensors:
            made = patches.get(tensor.name)
            *same, kind, _ = tensor.field.parts  # the last two: the type, and where the data lies
            for part in same:
                out.write(part)
            number = int(made.kind.number if made else kind[0])
            out.write(struct.pack("<IQ", number, places[tensor.name]))
        for tensor in by_place:
            out.write(bytes(-out.tell() % align))
            if tensor.name in patches:
                out.write(patches[tensor.name].content())
            elif tensor.name in zeros:
                out.write(bytes(tensor.n_bytes))  # zero in every type
            else:
                out.write(tensor.data)
        out.write(bytes(-out.tell() % align))
