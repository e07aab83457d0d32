"""A checkpoint's own files once more, of which nothing but the clipped matrices changes."""

from __future__ import annotations

import json
import shutil
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from operator import attrgetter
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor, nn

from eckart.files import BESIDE_WEIGHTS
from eckart.records import Edit
from eckart.weights.anatomy import Anatomy
from eckart.weights.edits import clip_, dropped_biases, edit_, targets_of
from eckart.weights.identity import raw_bytes
from eckart.weights.loading.files import FLOATS, Checkpoint, StoredTensor
from eckart.weights.models import LoadedModel, Model
from eckart.weights.stored import StoredWeights

NOTICES = ("LICENSE*", "NOTICE*")

Change = tuple[StoredTensor, Tensor]


def copy_clipped(source: LoadedModel, edits: Sequence[Edit], folder: Path) -> None:
    """Write a clipped model, into an empty folder, as the files of the checkpoint that it was
    loaded from: every tensor keeps its name, its dtype, and its bytes.

    Only clipped matrices change. They are truncations of the stored numbers, whatever the model
    runs in.
    """
    checkpoint = Checkpoint(source.name)
    for shard in checkpoint.shards:
        shutil.copyfile(shard, folder / shard.name)
    _copy_beside(checkpoint, folder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # to be loaded whole is what saving always was
        stored = StoredWeights.of(source.name, source.options)
    if stored.places is None:
        _write_joined(source.name, stored.anatomy, edits, folder)
    else:
        _overwrite_(folder, _clipped(stored, edits))


def stored_dtype(source: LoadedModel) -> str:
    """Return the dtype that most of a model's numbers have: in its checkpoint, or of a live one in
    memory."""
    if source.live:
        return source.dtype
    if source.file is not None:
        return "float32"  # what it is dequantised to
    sizes: Counter[str] = Counter()
    for tensor in Checkpoint(source.name).tensors.values():
        if tensor.dtype in FLOATS:
            sizes[tensor.dtype] += tensor.size
    return str(FLOATS[sizes.most_common(1)[0][0]]).removeprefix("torch.")


def save(model: Model, folder: Path) -> None:
    """Write a model as the library does."""
    with torch.no_grad():
        model.save_pretrained(folder, safe_serialization=True)


def _copy_beside(checkpoint: Checkpoint, folder: Path) -> None:
    """Copy what else belongs to the checkpoint, from its folder or the hub's cache.

    Weights in other formats stay behind: they would be those of the unclipped model.
    """
    assert checkpoint.listing is not None
    if checkpoint.listing not in checkpoint.shards:
        shutil.copyfile(checkpoint.listing, folder / checkpoint.listing.name)
    for pattern in (*BESIDE_WEIGHTS, *NOTICES):
        for path in checkpoint.listing.parent.glob(pattern):
            if path.is_file():
                shutil.copyfile(path, folder / path.name)


def _clipped(stored: StoredWeights, edits: Sequence[Edit]) -> Iterator[Change]:
    """Give every parameter that edits change, changed as it is stored, for each place that it lies
    in."""
    assert stored.places is not None
    model = stored.anatomy.model
    targets = {w: e for w, e in targets_of(model, edits, stored.anatomy).items() if e.rate}
    by_key = {weight.key: edit for weight, edit in targets.items()}
    # So that the matrices of one parameter are cut in one reading of it.
    every = sorted(targets, key=attrgetter("path"))
    for path, views in groupby(stored.read(every), key=attrgetter("path")):
        parameter: nn.Parameter | None = None
        for weight in views:
            parameter = weight.parameter
            edit_(weight, by_key[weight.key])
        assert parameter is not None
        yield from ((place, parameter.detach()) for place in stored.places[path])
    for path in dropped_biases(model, targets):
        yield from ((place, torch.zeros(place.shape)) for place in stored.places[path])


def _write_joined(name: str, anatomy: Anatomy, edits: Sequence[Edit], folder: Path) -> None:
    """Write a checkpoint whose tensors the library joins on loading: it parts them again when it
    writes them.

    Where it then gives them other names than the checkpoint's, its own files are kept: every
    number, if not its dtype.
    """
    clip_(anatomy.model, edits, anatomy=anatomy)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        save(anatomy.model, Path(scratch))
        written, originals = Checkpoint(scratch).tensors, Checkpoint(name).tensors
        if written.keys() <= originals.keys():
            _overwrite_(folder, _different(originals, written))
            return
        for path in folder.glob("*.safetensors*"):
            path.unlink()
        for path in Path(scratch).glob("*.safetensors*"):
            path.rename(folder / path.name)


def _different(
    originals: Mapping[str, StoredTensor], written: Mapping[str, StoredTensor]
) -> Iterator[Change]:
    for key, tensor in written.items():
        before = _read(originals[key])
        after = _read(tensor).to(before.dtype)
        if raw_bytes(before) != raw_bytes(after):
            yield originals[key], after


def _read(place: StoredTensor) -> Tensor:
    with safe_open(place.file, framework="pt") as file:
        return file.get_tensor(place.key)


def _overwrite_(folder: Path, changes: Iterable[Change]) -> None:
    """Set tensors' bytes in copies of their files: 8 bytes of length, a header that says where each
    lies, the bytes."""
    for place, numbers in changes:
        with (folder / place.file.name).open("r+b") as opened:
            length = int.from_bytes(opened.read(8), "little")
            start, end = json.loads(opened.read(length))[place.key]["data_offsets"]
            content = raw_bytes(numbers.to(FLOATS[place.dtype]))
            assert len(content) == end - start
            opened.seek(8 + length + start)
            opened.write(content)
