"""A clipped model as a GGUF file: a base file once more, of which nothing but the edited tensors
changes."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import IO, Any

from torch import nn

from eckart.errors import ModelError, RunError
from eckart.files import check_writable, drafted, home
from eckart.records import Edit
from eckart.weights.anatomy import Anatomy, Weight
from eckart.weights.edits import dropped_biases, edit_, targets_of
from eckart.weights.gguf import GgufFile, GgufTensors
from eckart.weights.loading.gguf import SUFFIX
from eckart.weights.models import LoadedModel, empty_model
from eckart.weights.quantised import GgufType
from eckart.weights.stored import StoredWeights

TYPES = ("f16", "bf16", "q8_0")
"""What edited tensors may be written as."""
FARTHEST = 0.5
"""How far a base's edited matrices may be from the model's, in Frobenius norm and as a share of the
model's, before it is another model's. Two bits a weight are at about 0.3, another training at 1.4.
"""
CHUNK = 1 << 24


@dataclass(frozen=True)
class PatchedTensor:
    """A tensor that was written anew: its name in the file, and its type before and after."""

    name: str
    before: str
    after: str


@dataclass(frozen=True)
class Patched:
    """A GGUF file that was made of another.

    Arguments:
        path: the new file.
        base: the file whose other tensors and keys it has, byte for byte.
        edits: what was clipped.
        tensors: those that were written anew.
        kept: how many were copied.
        distance: how far the base's edited matrices are from those of the model that was given
            beside it, at most: in Frobenius norm, as a share of the model's. None without one.
    """

    path: Path
    base: Path
    edits: tuple[Edit, ...]
    tensors: tuple[PatchedTensor, ...]
    kept: int
    distance: float | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            "path": str(self.path),
            "base": str(self.base),
            "edits": [str(edit) for edit in self.edits],
            "tensors": [vars(tensor) for tensor in self.tensors],
            "kept": self.kept,
            "distance": self.distance,
        }

    def __str__(self) -> str:
        """Say what the file is."""
        kinds = ", ".join(dict.fromkeys(tensor.before for tensor in self.tensors))
        anew = (
            f"{len(self.tensors)} tensors dequantised from {kinds}, clipped and written as"
            f" {self.tensors[0].after}"
            if self.tensors
            else "nothing is clipped"
        )
        checked = (
            ""
            if self.distance is None
            else f"; the base's matrices there are within {self.distance:.2%} of the model's"
        )
        return f"{self.path}: {anew}; {self.kept} tensors and every key as in {self.base}{checked}"


def export_gguf(
    base_gguf: str | Path,
    edits: Sequence[Edit],
    target: str | Path,
    type_: str = "f16",
    model: str | LoadedModel | None = None,
) -> Patched:
    """Write a clipped model as a GGUF file, by patching one that is not.

    The edited tensors are dequantised, clipped as the model has them, and laid out again as
    llama.cpp has them; all else is copied byte for byte. One matrix at a time is in memory. The
    file appears once it is whole.

    Arguments:
        base_gguf: a GGUF file, by any of the names that mean one.
        edits: what to clip; none makes a copy.
        target: a file that does not exist yet.
        type_: what the edited tensors are written as: `f16`, `bf16` or `q8_0`.
        model: what was searched, where that was no GGUF file: the base must be the same model.

    Raises:
        EditError: the model has no such layer or part.
        ModelError: the base is no GGUF file, or damaged, one of several parts, or not the model's;
            or a tensor cannot be edited, or not be written so.
        RunError: the target is taken, or cannot be written.
    """
    kind, path = GgufType.of(type_, TYPES), check_new_gguf(target)
    file = _base(base_gguf)
    anatomy = Anatomy.of(empty_model(str(base_gguf)))
    tensors = file.tensors(anatomy.model)
    targets = {w: e for w, e in targets_of(anatomy.model, edits, anatomy).items() if e.rate}
    patches = _patches(tensors, targets, kind)
    distance = None if model is None else _distance(tensors, anatomy, targets, model)
    zeros = {tensors.tensor(path).name for path in dropped_biases(anatomy.model, targets)}
    try:
        with drafted(path) as draft:
            _write(tensors.reader, file.path, patches, zeros, draft)
    except OSError as error:
        raise RunError(
            f"'{path}' cannot be written ({error.strerror}); check space and permissions"
        ) from error
    return Patched(
        path,
        file.path,
        tuple(edits),
        tuple(patch.described for patch in patches.values()),
        len(tensors.reader.tensors) - len(patches) - len(zeros),
        distance,
    )


def check_new_gguf(target: str | Path) -> Path:
    """Return where a GGUF file can be written; a RunError where something is there, or cannot
    be."""
    path = home(target).absolute()
    if path.suffix.lower() != SUFFIX:
        raise RunError(
            f"'{target}' does not end in {SUFFIX}, by which GGUF files are known; add it"
        )
    if path.exists():
        raise RunError(f"'{target}' exists, and nothing is overwritten; name a new file")
    check_writable(path)
    return path


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
        return PatchedTensor(self.tensor.name, self.tensor.tensor_type.name, self.kind.label)

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


def _base(name: str | Path) -> GgufFile:
    file = GgufFile.of(str(name))
    if file is None:
        raise ModelError(
            f"'{name}' is no GGUF file; give the one to patch with --gguf BASE.gguf (llama.cpp's"
            " convert_hf_to_gguf.py makes one of a folder)"
        )
    return file


def _patches(
    tensors: GgufTensors, targets: Mapping[Weight, Edit], kind: GgufType
) -> dict[str, _Patch]:
    """Return what is written anew, by the tensors' names."""
    if tensors.reader.byte_order != "I":
        raise ModelError(f"'{tensors.file.name}' is big-endian, which is not written; convert it")
    found = {}
    for path, weights in groupby(sorted(targets, key=attrgetter("path")), attrgetter("path")):
        patch = _Patch(tensors, path, {weight: targets[weight] for weight in weights}, kind)
        kind.check(int(patch.tensor.shape[0]), patch.tensor.name)
        found[patch.tensor.name] = patch
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


def _write(
    reader: Any, base: Path, patches: Mapping[str, _Patch], zeros: set[str], path: Path
) -> None:
    """Write the new file: the header and all keys as they are, a list of tensors with the new types
    and places, and the tensors in the order in which they lie in the base."""
    align = int(reader.alignment)
    by_place = sorted(reader.tensors, key=attrgetter("data_offset"))
    places, end = {}, 0
    for tensor in by_place:
        patch = patches.get(tensor.name)
        places[tensor.name] = end
        end += _padded(patch.size if patch else tensor.n_bytes, align)
    with base.open("rb") as source, path.open("wb") as out:
        start = min(tensor.field.offset for tensor in reader.tensors)
        _copy(source, out, 0, start)
        for tensor in reader.tensors:
            size = sum(part.nbytes for part in tensor.field.parts)
            source.seek(tensor.field.offset)
            patch = patches.get(tensor.name)
            kind = int(patch.kind.number if patch else tensor.tensor_type)
            # A name, the dimensions, and then 12 bytes: the type, and where the data lies.
            out.write(source.read(size)[:-12] + struct.pack("<IQ", kind, places[tensor.name]))
        _pad(out, align)
        for tensor in by_place:
            if tensor.name in patches:
                out.write(patches[tensor.name].content())
            elif tensor.name in zeros:
                out.write(bytes(tensor.n_bytes))  # zero in every type
            else:
                _copy(source, out, tensor.data_offset, tensor.n_bytes)
            _pad(out, align)


def _copy(source: IO[bytes], out: IO[bytes], start: int, size: int) -> None:
    source.seek(start)
    while size:
        chunk = source.read(min(size, CHUNK))
        if not chunk:
            raise ModelError(f"'{source.name}' became shorter while it was copied; export again")
        out.write(chunk)
        size -= len(chunk)


def _padded(size: int, align: int) -> int:
    return size + -size % align


def _pad(out: IO[bytes], align: int) -> None:
    out.write(bytes(-out.tell() % align))
