"""A checkpoint's weights exactly as they are stored, read from its safetensors or GGUF files a
parameter at a time."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import groupby
from operator import attrgetter

import torch
from torch import Tensor, nn

from eckart.weights.anatomy import Anatomy, Weight
from eckart.weights.gguf import GgufFile, GgufTensors
from eckart.weights.identity import identify
from eckart.weights.loading.accounts import refuse_left_out
from eckart.weights.loading.failures import explained
from eckart.weights.loading.files import FLOATS, Checkpoint, StoredTensor, read_tensor
from eckart.weights.models import LoadedModel, Tokenizer, empty_model, load_checkpoint
from eckart.weights.options import PLAIN, ModelOptions


@dataclass(frozen=True, eq=False)
class StoredWeights:
    """A model's weights in the dtype that they are stored in, of which one parameter at a time is
    in memory.

    Where the checkpoint does not hold the model's parameters one for one, as when transformers
    joins the experts of a mixture on loading, the model is loaded whole instead, with a warning.

    Arguments:
        name: the hub id or folder.
        anatomy: the model's; on the meta device unless the model was loaded whole.
        places: where each parameter lies, by its path, as often as it is stored; None if the model
            was loaded whole, or is a GGUF file.
        tensors: those of a GGUF file; None for another checkpoint, or if the model was loaded
            whole.
    """

    name: str
    anatomy: Anatomy
    places: Mapping[str, tuple[StoredTensor, ...]] | None = field(repr=False)
    tensors: GgufTensors | None = field(default=None, repr=False)

    @classmethod
    def of(cls, name: str, options: ModelOptions = PLAIN) -> StoredWeights:
        """Find where every matrix of a checkpoint lies; only the files' headers are read. A
        ModelError where there is no such model, a file is missing or damaged, or the model cannot
        be taken apart."""
        anatomy = Anatomy.of(empty_model(name, options))
        file = GgufFile.of(name)
        places, tensors = None, None
        if file is None:
            checkpoint = Checkpoint(name)
            with explained(name):
                places = _places(anatomy, checkpoint.tensors)
            refuse_left_out(checkpoint, anatomy.model)
        else:
            paths = (weight.path for layer in anatomy.layers for weight in layer)
            found = file.tensors(anatomy.model)
            tensors = found if found.covers(paths) else None
        if places is None and tensors is None:
            warnings.warn(
                f"the checkpoint of '{name}' does not hold the model's matrices one for one: it is"
                " loaded whole",
                stacklevel=2,
            )
            anatomy = Anatomy.of(load_checkpoint(name, None, options))
        return cls(name, anatomy, places, tensors)

    @property
    def whole(self) -> bool:
        """Whether the model had to be loaded whole."""
        return self.places is None and self.tensors is None

    def read(self, weights: Iterable[Weight]) -> Iterator[Weight]:
        """Give matrices of the anatomy with their numbers, on the CPU; neighbours of one parameter
        share one reading. A ModelError where a file is damaged, or has gone."""
        if self.whole:
            yield from weights
            return
        for path, views in groupby(weights, key=attrgetter("path")):
            numbers, steps = self._numbers(path)
            parameter = nn.Parameter(numbers, requires_grad=False)
            yield from (replace(view, parameter=parameter, steps=steps) for view in views)

    def _numbers(self, path: str) -> tuple[Tensor, Tensor | None]:
        if self.tensors is not None:
            return self.tensors.read(path), self.tensors.steps(path)
        assert self.places is not None
        place = self.places[path][0]
        with explained(self.name):
            return read_tensor(place), None


def rounded(loaded: LoadedModel) -> bool:
    """Whether the weights, as numbers, are no longer those of the checkpoint's files, whatever its
    config.json says of them. A live model is what it is."""
    if loaded.live:
        return False
    with explained(loaded.name):
        stored = torch.float32 if loaded.file else Checkpoint(loaded.name).exact_dtype
    return torch.promote_types(stored, loaded.model.dtype) != loaded.model.dtype


def stored_fingerprint(
    stored: StoredWeights, tokenizer: Tokenizer | None, dtype: torch.dtype
) -> str | None:
    """Return the fingerprint of a checkpoint as it would be loaded in a dtype, with one tensor in
    memory at a time; None where its files do not hold every tensor one for one."""
    model = stored.anatomy.model
    named = dict(model.named_parameters(remove_duplicate=False))
    places = {id(named[path]): place[0] for path, place in (stored.places or {}).items()}
    if any(id(named.get(name)) not in places for name in model.state_dict()):
        return None

    def read(name: str, _: Tensor) -> Tensor:
        return read_tensor(places[id(named[name])]).to(dtype)

    with explained(stored.name):
        return identify(model, tokenizer, read=read)


def _places(
    anatomy: Anatomy, stored: Mapping[str, StoredTensor]
) -> dict[str, tuple[StoredTensor, ...]] | None:
    """Return where each parameter of an anatomy lies, or None if one is not found, or is something
    else there."""
    prefix = f"{anatomy.model.base_model_prefix}."
    matrices = {weight.path: weight for layer in anatomy.layers for weight in layer}
    places: dict[str, tuple[StoredTensor, ...]] = {}
    for path, parameter in anatomy.model.named_parameters(remove_duplicate=False):
        names = (path, *(matrices[path].tied if path in matrices else ()))
        found = [stored[key] for key in dict.fromkeys(_keys(names, prefix)) if key in stored]
        shape = tuple(parameter.shape)
        alike = all(place.dtype in FLOATS and place.shape == shape for place in found)
        if found and alike:
            places[path] = tuple(found)
        elif path in matrices:
            return None
    return places


def _keys(paths: Iterable[str], prefix: str) -> Iterator[str]:
    """Give the names that a checkpoint may use: those of the model, with and without what it calls
    its decoder."""
    for path in paths:
        yield from (path, path.removeprefix(prefix), prefix + path)
