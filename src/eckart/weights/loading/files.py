"""The files of a checkpoint: what lies in its folder, and what the headers of its safetensors
say."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property, reduce
from pathlib import Path
from typing import IO, Any

import torch
from safetensors import safe_open
from torch import Tensor
from transformers.utils.hub import cached_file

from eckart.errors import ModelError
from eckart.files import BESIDE_WEIGHTS, home
from eckart.weights.loading.config import MERGE_IT
from eckart.weights.loading.failures import explained

CONFIG = "config.json"
SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
ADAPTER_CONFIG = "adapter_config.json"
POINTER = b"version https://git-lfs"
FLOATS = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
"""The stored dtypes whose numbers are the weights themselves, not codes that scales turn into
weights."""
SECOND_COPY = re.compile(r"consolidated\b.*|model\.\w+|model\.\w+-\d+-of-\d+")
"""What the same weights are called in Mistral's own layout, and in another precision."""


@dataclass(frozen=True)
class StoredTensor:
    """A tensor as a safetensors file's header describes it; its dtype is called as there:
    `BF16`."""

    file: Path
    key: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """How many numbers it holds."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Checkpoint:
    """The files of a checkpoint, by its hub id or folder, each looked at once, when it is first
    asked for.

    Whatever is asked for may raise an OSError where a file is missing, a SafetensorError where one
    is damaged, and a ModelError where they disagree: see `explained`.
    """

    name: str

    @cached_property
    def config(self) -> dict[str, Any]:
        """The config.json as it is written; empty where there is none."""
        with explained(self.name):
            path = found(self.name, CONFIG)
            config = {} if path is None else json.loads(Path(path).read_text(encoding="utf-8"))
        if not isinstance(config, dict):
            raise ModelError(
                f"model '{self.name}' has a config.json that is no JSON object; copy it again"
            )
        return config

    @cached_property
    def listing(self) -> Path | None:
        """The one file, or the index, that loading begins with."""
        named = self.config.get("transformers_weights")
        for file in [named] if isinstance(named, str) else [SINGLE, INDEX]:
            try:
                return Path(_fetched(self.name, file))
            except OSError:
                continue
        return None

    @cached_property
    def index(self) -> dict[str, str]:
        """In which file each tensor lies, by its name; empty where one file holds all."""
        if self.listing is None or self.listing.suffix != ".json":
            return {}
        return dict(json.loads(self.listing.read_text(encoding="utf-8"))["weight_map"])

    @cached_property
    def shards(self) -> tuple[Path, ...]:
        """The safetensors files that loading reads; none where there is no such file."""
        if self.listing is None:
            return ()
        if self.listing.suffix != ".json":
            return (self.listing,)
        return tuple(Path(_fetched(self.name, file)) for file in sorted(set(self.index.values())))

    @cached_property
    def tensors(self) -> dict[str, StoredTensor]:
        """Every tensor by its name; only the files' headers are read."""
        tensors: dict[str, StoredTensor] = {}
        for tensor in (tensor for file in self.shards for tensor in _tensors(file)):
            other = tensors.setdefault(tensor.key, tensor)
            if other is not tensor:
                raise ModelError(
                    f"model '{self.name}' holds {tensor.key} twice, in {other.file.name} and in"
                    f" {tensor.file.name}; which of the two is meant nobody can tell: remove one"
                )
        for key, place in self.index.items():
            if key not in tensors or tensors[key].file.name != Path(place).name:
                raise ModelError(
                    f"model '{self.name}' has an index that says {key} lies in {place}, and it does"
                    " not; the index belongs to other files: copy all of them again"
                )
        return tensors

    @property
    def exact_dtype(self) -> torch.dtype:
        """The narrowest dtype that holds every number of the files."""
        stored = {FLOATS[t.dtype] for t in self.tensors.values() if t.dtype in FLOATS}
        return reduce(torch.promote_types, sorted(stored, key=str)) if stored else torch.float32


def located(name: str) -> str:
    """Return a name as the model library takes it: `~` is the home folder."""
    return str(home(name)) if name.startswith("~") else name


def check_source(name: str) -> None:
    """Refuse a path that is no model's folder (absent, a file, without a config.json) before a hub
    is asked for it."""
    path = home(name)
    looks_local = name.startswith((".", "/", "~")) or name.count("/") > 1
    if not path.exists():
        if looks_local:
            raise ModelError(
                f"no model folder '{name}'; give a hub id or a folder that holds config.json"
            )
        return
    if not path.is_dir():
        raise ModelError(
            f"'{name}' is a file; give the folder that holds config.json and model.safetensors, or"
            " a GGUF file (.gguf)"
        )
    if (path / ADAPTER_CONFIG).is_file() and not (path / CONFIG).is_file():
        _refuse_adapter(name, path / ADAPTER_CONFIG, alone=True)
    if not (path / CONFIG).is_file():
        raise ModelError(
            f"folder '{name}' holds no config.json, so it is no transformers checkpoint, and no"
            f" GGUF file{_instead(name)}"
        )


def _instead(name: str) -> str:
    """Say what a folder is, where we wrote it."""
    folder = home(name)
    if (folder / "state.safetensors").is_file():
        return f"; it is a training of functions, which `eckart functions evaluate {name}` measures"
    if (folder / "run.sqlite").is_file():
        return f"; it is a run, whose model `eckart export {name}` writes"
    return ""


def checked(name: str) -> Checkpoint:
    """Return a checkpoint whose folder holds no more weights, and no less, than loading it reads; a
    ModelError where an adapter lies there, files of Git LFS were never fetched, or weights beside
    its own."""
    check_source(name)
    adapter = found(name, ADAPTER_CONFIG)
    if adapter is not None:
        _refuse_adapter(name, Path(adapter), alone=found(name, CONFIG) is None)
    checkpoint = Checkpoint(name)
    folder = home(name)
    if folder.is_dir():
        _refuse_adapter_weights(name, folder)
        _refuse_pointers(name, _read_with_it(folder))
        with explained(name):
            shards = set(checkpoint.shards)
        _refuse_pointers(name, shards)
        _refuse_beside(name, folder, shards)
    return checkpoint


def _fetched(name: str, file: str) -> str:
    """Return a checkpoint's file: in its folder, in the hub's cache, or downloaded; an OSError
    where there is none."""
    path = cached_file(located(name), file)
    assert path is not None
    return path


def found(name: str, file: str) -> str | None:
    """Return a checkpoint's file, or None where there is none."""
    if home(name).is_dir():
        path = home(name) / file
        return str(path) if path.is_file() else None
    with explained(name):
        return cached_file(
            name,
            file,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
            _raise_exceptions_for_gated_repo=False,
        )


def place_in(file: IO[bytes], key: str) -> tuple[int, int]:
    """Return where a tensor's bytes begin in a safetensors file, and how many they are: 8 bytes of
    length stand before a header that says where each lies, and the bytes."""
    length = int.from_bytes(file.read(8), "little")
    start, end = json.loads(file.read(length))[key]["data_offsets"]
    return 8 + length + start, end - start


def read_tensor(place: StoredTensor) -> Tensor:
    """Return a tensor of `FLOATS`, with nothing else of its file in memory: the library maps the
    whole file, which a limit of memory takes for the process's own."""
    with place.file.open("rb") as file:
        start, size = place_in(file, place.key)
        content = bytearray(size)
        file.seek(start)
        if file.readinto(content) < size:
            raise OSError(f"{place.file.name} ends before {place.key} does")
    numbers = torch.frombuffer(content, dtype=FLOATS[place.dtype]) if size else torch.empty(0)
    return numbers.reshape(place.shape)


def _tensors(file: Path) -> list[StoredTensor]:
    with safe_open(file, framework="numpy") as header:  # of torch's the whole file is mapped
        names = header.keys()
        slices = {key: header.get_slice(key) for key in names}
        return [
            StoredTensor(file, k, s.get_dtype(), tuple(s.get_shape())) for k, s in slices.items()
        ]


def _refuse_adapter(name: str, path: Path, *, alone: bool) -> None:
    with explained(name):
        base = (
            json.loads(path.read_text(encoding="utf-8")).get("base_model_name_or_path")
            or "its base model"
        )
    raise ModelError(
        f"'{name}' {'is' if alone else 'holds'} an adapter (adapter_config.json, for {base}), and"
        f" what is clipped and scored are whole matrices: {MERGE_IT}"
        + ("" if alone else ", or move it away to score the model without it")
    )


def _refuse_adapter_weights(name: str, folder: Path) -> None:
    weights = sorted(folder.glob("adapter_model.*"))
    if weights:
        raise ModelError(
            f"'{name}' holds an adapter ({weights[0].name}) beside the model, which would not be"
            f" scored: {MERGE_IT}, or move it away to score the model without it"
        )


def _read_with_it(folder: Path) -> set[Path]:
    """Return the files beside the weights that loading may read."""
    # A vocabulary in a file of its own is read only where there is no tokenizer.json.
    whole = (folder / "tokenizer.json").is_file()
    patterns = (*BESIDE_WEIGHTS, "*.index.json")
    files = {path for pattern in patterns for path in folder.glob(pattern)}
    return {path for path in files if not (whole and path.suffix == ".model")}


def _refuse_pointers(name: str, files: Iterable[Path]) -> None:
    pointers = sorted(path.name for path in files if is_pointer(path))
    if pointers:
        raise ModelError(
            f"model '{name}' holds {', '.join(pointers[:3])} as a Git LFS pointer, not the file"
            " itself; run `git lfs install` and `git lfs pull` in that folder, or download it anew"
        )


def is_pointer(path: Path) -> bool:
    """Whether a file is what Git LFS leaves in place of one that it has not fetched."""
    if not path.is_file() or path.stat().st_size > 1024:
        return False
    with path.open("rb") as file:
        return file.read(len(POINTER)) == POINTER


def _refuse_beside(name: str, folder: Path, shards: set[Path]) -> None:
    """Refuse safetensors that loading does not read, unless they are the same weights once more."""
    if not shards:
        return
    read = {path.resolve() for path in shards}
    beside = [
        p
        for p in sorted(folder.glob("*.safetensors"))
        if p.resolve() not in read and not is_pointer(p)
    ]
    groups: dict[str, list[Path]] = {}
    for path in beside:
        groups.setdefault(path.name.split("-0")[0].split(".0")[0], []).append(path)
    for paths in groups.values():
        if not _is_second_copy(name, paths, shards):
            raise ModelError(
                f"folder '{name}' holds {paths[0].name}, which is no part of the checkpoint that"
                f" {min(shards).name} belongs to and would not be scored; move it away, or make one"
                " checkpoint of both (save_pretrained)"
            )


def _is_second_copy(name: str, paths: list[Path], shards: Iterable[Path]) -> bool:
    """Whether files are called like the same weights in another layout or precision, and hold as
    many numbers."""
    if not all(SECOND_COPY.fullmatch(path.stem) for path in paths):
        return False
    with explained(name):
        return _numbers(paths) == _numbers(shards)


def _numbers(files: Iterable[Path]) -> int:
    return sum(tensor.size for file in files for tensor in _tensors(file))
