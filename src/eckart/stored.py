"""A checkpoint's weights exactly as they are stored, read from its safetensors files a parameter at a time."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import cache, partial
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Any, TypeVar

from safetensors import safe_open
from torch import nn
from transformers.utils.hub import cached_file

from eckart.anatomy import Anatomy, Weight
from eckart.files import home
from eckart.models import LoadedModel, empty_model, explained, load_checkpoint

T = TypeVar("T")

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
EXACT = {
    "float64": {"F64", "F32", "F16", "BF16"},
    "float32": {"F32", "F16", "BF16"},
    "float16": {"F16"},
    "bfloat16": {"BF16"},
}
"""The stored dtypes whose numbers a dtype holds, every one of them."""


@dataclass(frozen=True)
class Place:
    """Where a parameter lies: a safetensors file, and its name in there."""

    file: Path
    key: str


@dataclass(frozen=True, eq=False)
class StoredWeights:
    """A model's weights in the dtype that they are stored in, of which one parameter at a time is in memory.

    Where the checkpoint does not hold the model's parameters one for one, as when transformers joins the experts of a
    mixture on loading, the model is loaded whole instead, with a warning.

    Arguments:
        name: the hub id or folder.
        anatomy: the model's; on the meta device unless the model was loaded whole.
        places: where each parameter lies, by its path; None if the model was loaded whole.
    """

    name: str
    anatomy: Anatomy
    places: Mapping[str, Place] | None = field(repr=False)

    @classmethod
    def of(cls, name: str, trust_remote_code: bool = False) -> StoredWeights:
        """Find where every matrix of a checkpoint lies; only the files' headers are read.

        Raises:
            ModelError: there is no such model, a file is missing or damaged, or the model cannot be taken apart.
        """
        anatomy = Anatomy.of(empty_model(name, trust_remote_code))
        with explained(name):
            places = _places(name, anatomy)
        if places is None:
            warnings.warn(
                f"the checkpoint of '{name}' does not hold the model's matrices one for one: it is loaded whole",
                stacklevel=2,
            )
            anatomy = Anatomy.of(load_checkpoint(name, "auto", trust_remote_code))
        return cls(name, anatomy, places)

    @property
    def whole(self) -> bool:
        """Whether the model had to be loaded whole."""
        return self.places is None

    def read(self, weights: Iterable[Weight]) -> Iterator[Weight]:
        """Give matrices of the anatomy with their numbers, on the CPU; neighbours of one parameter share one reading.

        Raises:
            ModelError: a file is damaged, or has gone.
        """
        if self.places is None:
            yield from weights
            return
        for path, views in groupby(weights, key=attrgetter("path")):
            parameter = self._parameter(self.places[path])
            yield from (replace(view, parameter=parameter) for view in views)

    def _parameter(self, place: Place) -> nn.Parameter:
        with explained(self.name), safe_open(place.file, framework="pt") as file:
            return nn.Parameter(file.get_tensor(place.key), requires_grad=False)


def rounded(loaded: LoadedModel) -> bool:
    """Whether loading rounded the weights: they are not, as numbers, those that the checkpoint's files hold.

    The files count, not what `config.json` says of them. A live model is what it is.
    """
    if loaded.live:
        return False
    with explained(loaded.name):
        return not _dtypes(loaded.name) <= EXACT[loaded.dtype]


def _dtypes(name: str) -> set[str]:
    """Return the floating-point dtypes in a checkpoint's files, as safetensors calls them."""
    fetched = cache(partial(_fetched, name))
    places = [Place(Path(fetched(file)), key) for key, file in _files(name).items()]
    found = _from_headers(places, lambda header: header.get_dtype())
    return {dtype for dtype in found if dtype.startswith(("F", "BF"))}


def _places(name: str, anatomy: Anatomy) -> dict[str, Place] | None:
    """Return where each parameter of an anatomy lies, or None if one is not found, or has another shape there."""
    files, fetched = _files(name), cache(partial(_fetched, name))
    prefix = f"{anatomy.model.base_model_prefix}."
    shapes: dict[str, tuple[int, ...]] = {}
    places: dict[str, Place] = {}
    for weight in (weight for layer in anatomy.layers for weight in layer):
        key = next((key for key in _keys(weight, prefix) if key in files), None)
        if key is None:
            return None
        places[weight.path] = Place(Path(fetched(files[key])), key)
        shapes[weight.path] = tuple(weight.parameter.shape)
    stored = _from_headers(places.values(), lambda header: tuple(header.get_shape()))
    return places if stored == list(shapes.values()) else None


def _keys(weight: Weight, prefix: str) -> Iterator[str]:
    """Give the names that a checkpoint may use: those of the model, with and without what it calls its decoder."""
    for path in (weight.path, *weight.tied):
        yield from (path, path.removeprefix(prefix), prefix + path)


def _files(name: str) -> dict[str, str]:
    """Return which safetensors file holds which tensor; nothing where there is no such file."""
    for listing in (SINGLE, INDEX):
        try:
            path = _fetched(name, listing)
        except OSError:
            continue
        if listing == INDEX:
            return json.loads(Path(path).read_text(encoding="utf-8"))["weight_map"]
        with safe_open(path, framework="pt") as file:
            return dict.fromkeys(file.keys(), SINGLE)
    return {}


def _fetched(name: str, file: str) -> str:
    """Return a checkpoint's file: in its folder, in the hub's cache, or downloaded.

    Raises:
        OSError: there is none.
    """
    path = cached_file(str(home(name)) if home(name).is_dir() else name, file)
    assert path is not None
    return path


def _from_headers(places: Iterable[Place], read: Callable[[Any], T]) -> list[T]:
    """Return what each place's header says, every file opened once."""
    places = list(places)
    with ExitStack() as stack:
        opened: dict[Path, Any] = {
            file: stack.enter_context(safe_open(file, framework="pt"))
            for file in {place.file for place in places}
        }
        return [read(opened[place.file].get_slice(place.key)) for place in places]
