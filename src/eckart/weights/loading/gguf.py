"""GGUF files before transformers meets them: which one is meant, that it is one, and whole."""

from __future__ import annotations

import contextlib
import importlib
import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from huggingface_hub import list_repo_files
from transformers.utils.hub import cached_file

from eckart.errors import ModelError, how_to_install
from eckart.files import home
from eckart.weights.loading.failures import first_line
from eckart.weights.loading.files import CONFIG, found, is_pointer

SUFFIX = ".gguf"
MAGIC = b"GGUF"
INSTALL = how_to_install("gguf")
ENCODERS = frozenset({"t5", "t5encoder", "umt5"})
"""Families that transformers reads from GGUF and that are no decoders."""
SETTINGS = {
    "context_length": "max_position_embeddings",
    "feed_forward_length": "n_inner",
    "attention.key_length": "head_dim",
    "attention.sliding_window": "sliding_window",
    "attn_logit_softcapping": "attn_logit_softcapping",
    "final_logit_softcapping": "final_logit_softcapping",
}
"""What llama.cpp calls settings that transformers' loader does not read of every family."""
GEMMAS_BY_WIDTH = (46, 62)
"""The depths of the Gemma models whose attention is scaled by the width of a head in the hidden
state, and not by the head's own."""
AS_GPT2 = ("gpt-2", "mpt", "olmo", "jais", "trillion", "granite-docling")
"""The names of GPT-2's way of splitting text."""
PART = re.compile(r"-(\d{5})-of-(\d{5})\.gguf$", re.IGNORECASE)


def locate(name: str) -> Path | None:
    """Return the GGUF file that a name means, or None; a ModelError where it is not there, or
    several are."""
    path = home(name)
    if path.is_file():
        return path if path.suffix.lower() == SUFFIX else None
    if path.is_dir():
        files = {file.name: file for file in path.iterdir() if file.suffix.lower() == SUFFIX}
        if (path / CONFIG).is_file() or not files:
            return None
        return files[_only(name, list(files))]
    repository, colon, file = name.partition(":")
    if file.lower().endswith(SUFFIX):
        return _fetched(repository, file)
    if name.lower().endswith(SUFFIX):
        raise ModelError(f"no GGUF file '{name}'; give its path, or hub-id:{path.name}")
    if colon or not re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", name) or found(name, CONFIG) is not None:
        return None
    held = [file for file in _listed(name) if file.lower().endswith(SUFFIX)]
    return _fetched(name, _only(name, held)) if held else None


def _only(name: str, files: list[str]) -> str:
    if len(files) > 1:
        split = " (parts of one model: join them first)" if PART.search(files[0]) else ""
        raise ModelError(
            f"'{name}' holds {len(files)} GGUF files, {', '.join(sorted(files)[:8])}{split}; name"
            " one: its path, or hub-id:file.gguf"
        )
    return files[0]


def _listed(repository: str) -> list[str]:
    try:
        return list_repo_files(repository)
    except Exception:  # whatever it is, loading says it in its own words
        return []


def _fetched(repository: str, file: str) -> Path:
    try:
        path = cached_file(repository, file)
    except (OSError, ValueError) as error:
        raise ModelError(
            f"no GGUF file '{file}' in '{repository}' ({first_line(error)}); check the repository's"
            " name, the file's, and the network"
        ) from error
    assert path is not None
    return Path(path)


def check_magic(name: str, path: Path) -> None:
    with path.open("rb") as file:
        magic = file.read(len(MAGIC))
    if magic == MAGIC:
        return
    if is_pointer(path):
        raise ModelError(
            f"'{name}' is a Git LFS pointer, not the file itself; run `git lfs pull` in its folder,"
            " or download it anew"
        )
    raise ModelError(
        f"'{name}' is called {path.name} and is no GGUF file: it does not begin with GGUF; download"
        " it again"
    )


@lru_cache(maxsize=2)
def read_file(name: str, path: str, size: int, changed: int) -> Any:
    """Return a reader of a file that has this size and was changed then."""
    try:
        import accelerate  # noqa: F401  transformers asks for it
        from gguf import GGUFReader
    except ImportError as error:
        raise ModelError(
            f"'{name}' is a GGUF file, and reading one needs the packages gguf and accelerate:"
            f" {INSTALL}"
        ) from error
    try:
        reader = GGUFReader(path)
    except Exception as error:  # numpy's, of a file that ends too soon; struct's, unicode's, ...
        raise ModelError(
            f"'{name}' is cut short or damaged ({first_line(error)}); download it again"
        ) from error
    parts = reader.fields.get("split.count")
    if parts is not None and parts.contents() > 1:
        raise ModelError(
            f"'{name}' is one of {parts.contents()} parts of a model; join them first"
            " (llama-gguf-split --merge)"
        )
    if "general.architecture" not in reader.fields or not reader.tensors:
        raise ModelError(
            f"'{name}' holds no model: it lacks general.architecture or has no tensors"
        )
    return reader


@contextlib.contextmanager
def parsed_once(reader: Any) -> Iterator[None]:
    """Let transformers meet a file that is parsed already.

    Each time that it wants something of it, it would parse it, and build the family's table of
    names for every module of the model, which takes longer than all the rest.
    """
    library: Any = importlib.import_module("gguf")
    before = library.GGUFReader, library.get_tensor_name_map
    library.GGUFReader, library.get_tensor_name_map = (lambda path: reader), lru_cache(before[1])
    try:
        yield
    finally:
        library.GGUFReader, library.get_tensor_name_map = before


def families() -> list[str]:
    """Return the decoders that transformers reads from GGUF, as llama.cpp calls them."""
    from transformers.modeling_gguf_pytorch_utils import GGUF_SUPPORTED_ARCHITECTURES

    known = {*GGUF_SUPPORTED_ARCHITECTURES, *converted()} - {"general", "tokenizer", *ENCODERS}
    return sorted({plain(name): name.replace("_moe", "moe") for name in sorted(known)}.values())


def known_splits() -> list[str]:
    """Return the ways of splitting text, as llama.cpp calls them, that byte-level tokenizers of
    transformers are given."""
    try:
        rules = importlib.import_module("transformers.integrations.gguf.gguf_tokenizer_mapping")
    except ImportError:  # before it had any
        return list(AS_GPT2)
    return [*AS_GPT2, *rules.GGUF_PRE_TOKENIZER_SPLITS]


def converted() -> list[str]:
    """Return the families whose tensors transformers converts by rules instead of names."""
    try:
        rules = importlib.import_module("transformers.integrations.gguf")
    except ImportError:  # before it had any
        return []
    return list(rules.GGUF_ARCHS)


def plain(family: str) -> str:
    """Return a family's name as llama.cpp and transformers write it alike."""
    return family.replace("_", "").replace("-", "")


def mend_(config: Any, setting: Callable[[str], Any]) -> None:
    """Give a configuration the settings of the file that transformers' loader passes over for some
    families, and takes its own defaults for."""
    for key, name in SETTINGS.items():
        if setting(key) is not None and hasattr(config, name):
            setattr(config, name, setting(key))
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    if hasattr(config, "query_pre_attn_scalar"):  # no file holds it; llama.cpp goes by the depth
        largest = config.num_hidden_layers in GEMMAS_BY_WIDTH
        width = config.hidden_size // config.num_attention_heads
        config.query_pre_attn_scalar = width if largest else size
    rope = getattr(config, "rope_parameters", None) or {}
    rope = rope.get("full_attention", rope)
    found = {
        "rope_theta": setting("rope.freq_base"),
        "partial_rotary_factor": (setting("rope.dimension_count") or size) / size,
    }
    rope |= {name: value for name, value in found.items() if name in rope and value is not None}
    factor = setting("rope.scaling.factor")
    if rope and factor not in (None, 0.0, 1.0):
        rope |= {"rope_type": "linear", "factor": factor}
