"""A checkpoint's own files once more, of which nothing but the clipped matrices changes."""

from __future__ import annotations

import hashlib
import os
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from pathlib import Path

import torch
from torch import Tensor, nn

from eckart.errors import ModelError
from eckart.exports.card import BASE_CARD, CARD, MODELFILE, PROMPT, USE
from eckart.exports.recipe import RECIPE, SUMS
from eckart.files import BESIDE_WEIGHTS, home
from eckart.records import Edit
from eckart.weights.anatomy import Anatomy
from eckart.weights.edits import clip_, dropped_biases, edit_, targets_of
from eckart.weights.identity import raw_bytes
from eckart.weights.loading.failures import explained
from eckart.weights.loading.files import (
    FLOATS,
    Checkpoint,
    StoredTensor,
    found,
    place_in,
    read_tensor,
)
from eckart.weights.models import LoadedModel, Model
from eckart.weights.stored import StoredWeights

NOTICES = ("LICENSE*", "NOTICE*")
CALLED = {CARD: BASE_CARD}
"""What a file of the base model is called in the folder, where it has another name there."""
MADE = (RECIPE, SUMS, CARD, BASE_CARD, PROMPT, USE, MODELFILE)
"""What an export puts beside the weights."""
BLOCK = 1 << 20

Change = tuple[StoredTensor, Tensor]


@dataclass(frozen=True)
class Copied:
    """What was copied of a checkpoint.

    Arguments:
        base: the SHA-256 of each file, by its name there.
        kept: the same of those that lie in the folder as they are, by their names in it.
    """

    base: dict[str, str]
    kept: dict[str, str]


def copy_clipped(
    source: LoadedModel,
    edits: Sequence[Edit],
    folder: Path,
    wanted: Mapping[str, str] | None = None,
) -> Copied:
    """Write a clipped model, into an empty folder, as the files of the checkpoint that it was
    loaded from: every tensor keeps its name, its dtype, and its bytes.

    Only clipped matrices change. They are truncations of the stored numbers, whatever the model
    runs in, and one of them is in memory at a time, unless the library joins them on loading.

    Arguments:
        source: may be without its weights, for these are read from the files.
        wanted: the digests of the only files to copy, or all that belong to the checkpoint.

    Raises:
        ModelError: a file is not the one that is wanted.
    """
    with explained(source.name):
        files = _files(Checkpoint(source.name))
    base = {}
    for name in files if wanted is None else wanted:
        if name not in files:
            raise ModelError(f"'{source.name}' is not the recipe's base model: it has no {name}")
        if not files[name].is_file():
            raise ModelError(f"'{source.name}' has no {name}; copy all of its files again")
        base[name] = copied(files[name], folder / CALLED.get(name, name))
        if wanted is not None and base[name] != wanted[name]:
            raise ModelError(
                f"'{source.name}' is not the recipe's base model: the SHA-256 of its {name} is"
                f" {base[name][:12]}, and of the recipe's {wanted[name][:12]}; give the model, in"
                " the revision, that was exported"
            )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # to be loaded whole is what saving always was
        stored = StoredWeights.of(source.name, source.options)
    if stored.places is None:
        changed = _write_joined(source.name, stored.anatomy, edits, folder)
    else:
        changed = _overwrite_(folder, _clipped(stored, edits))
    return Copied(base, {n: d for n, d in base.items() if n not in changed and n != CARD})


def revision(source: LoadedModel) -> str | None:
    """Return the commit of the hub that a checkpoint's files are of; None for a folder."""
    if source.live or source.file is not None or home(source.name).is_dir():
        return None
    listing = Checkpoint(source.name).listing
    inside = listing is not None and listing.parent.parent.name == "snapshots"
    return listing.parent.name if listing is not None and inside else None


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


def _files(checkpoint: Checkpoint) -> dict[str, Path]:
    """Return the files of a checkpoint by their names, in its folder or the hub's cache, the small
    ones first.

    Weights in other formats stay behind: they would be those of the unclipped model. So does what
    an earlier export put beside them.
    """
    listing = checkpoint.listing
    assert listing is not None
    for name in sorted(set(checkpoint.index.values())):
        if Path(name).name != name or "\\" in name or name in MADE:
            raise ModelError(
                f"model '{checkpoint.name}' has an index that keeps weights in {name!r}, which an"
                " exported folder has no such place for; save it anew (save_pretrained), and export"
                " that"
            )
    patterns = (*BESIDE_WEIGHTS, *NOTICES)
    others = [p for pattern in patterns for p in sorted(listing.parent.glob(pattern))]
    small = {path.name: path for path in others if path.is_file() and path.name not in MADE}
    card = found(checkpoint.name, CARD)
    large = {path.name: path for path in (listing, *checkpoint.shards)}
    return {**small, **({CARD: Path(card)} if card else {}), **large}


def copied(path: Path, target: Path) -> str:
    """Copy a file in constant memory, holes as holes, and return its SHA-256."""
    digest = hashlib.sha256()
    with path.open("rb") as source, target.open("wb") as file:
        while block := source.read(BLOCK):
            digest.update(block)
            if block.count(0) == len(block):
                file.seek(len(block), os.SEEK_CUR)
            else:
                file.write(block)
        file.truncate()
    return digest.hexdigest()


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


def _write_joined(name: str, anatomy: Anatomy, edits: Sequence[Edit], folder: Path) -> set[str]:
    """Write a checkpoint whose tensors the library joins on loading: it parts them again when it
    writes them. Returns the names of the files that changed.

    Where it then gives them other names than the checkpoint's, its own files are kept: every
    number, if not its dtype.
    """
    clip_(anatomy.model, edits, anatomy=anatomy)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        save(anatomy.model, Path(scratch))
        written, originals = Checkpoint(scratch).tensors, Checkpoint(name).tensors
        if written.keys() <= originals.keys():
            return _overwrite_(folder, _different(originals, written))
        old, new = list(folder.glob("*.safetensors*")), list(Path(scratch).glob("*.safetensors*"))
        for path in old:
            path.unlink()
        for path in new:
            path.rename(folder / path.name)
        return {path.name for path in (*old, *new)}


def _different(
    originals: Mapping[str, StoredTensor], written: Mapping[str, StoredTensor]
) -> Iterator[Change]:
    for key, tensor in written.items():
        before = read_tensor(originals[key])
        after = read_tensor(tensor).to(before.dtype)
        if raw_bytes(before) != raw_bytes(after):
            yield originals[key], after


def _overwrite_(folder: Path, changes: Iterable[Change]) -> set[str]:
    """Set tensors' bytes in copies of their files; return the names of the files that changed."""
    changed = set()
    for place, numbers in changes:
        content = raw_bytes(numbers.to(FLOATS[place.dtype]))
        with (folder / place.file.name).open("r+b") as opened:
            start, size = place_in(opened, place.key)
            assert len(content) == size
            opened.seek(start)
            opened.write(content)
        changed.add(place.file.name)
    return changed
