"""A config.json: what it says that cannot be, named by its key before a library stumbles on it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch

from eckart.errors import ModelError

UNQUANTISED = "load it unquantised: the original checkpoint in bfloat16, float16 or float32"
MERGE_IT = "merge it first (peft's merge_and_unload, then save_pretrained)"
READS_NUMBERS = frozenset({"InContextModel", "LinearAttentionModel"})
"""The architectures of `eckart.paper.functions`."""
FREE_TEXT = ("version", "name", "path", "hash", "id2label", "label2id", "auto_map", "__float__")
"""What the names of keys contain whose values are anybody's words."""


def check_config(name: str, config: Mapping[str, Any]) -> None:
    """Refuse a configuration, as it is written, that no language model can be made from: of a model
    that reads numbers, or is quantised, or with a value that its key cannot have."""
    kinds = config.get("architectures")
    if isinstance(kinds, list) and not READS_NUMBERS.isdisjoint(map(str, kinds)):
        raise ModelError(
            f"model '{name}' reads numbers and no text; measure it with eckart functions evaluate"
        )
    for path, key, value in _values(config):
        if key in ("quantization_config", "compression_config") and value:
            raise ModelError(f"model '{name}' {quantised(value)}")
        if key in ("dtype", "torch_dtype"):
            _check_dtype(name, path, value)
        elif (
            isinstance(value, str)
            and not any(word in path for word in FREE_TEXT)
            and _is_number(value)
        ):
            raise ModelError(
                f"model '{name}' has {path}: \"{value}\" in its config.json, a text where a number,"
                " true, false or null is meant; take away the quotation marks"
            )
    _check_padding(name, config)


def quantised(settings: Any) -> str:
    """Say of a model with these settings of a quantisation what it is, and what to do."""
    given = settings if isinstance(settings, Mapping) else settings.to_dict()
    method = given.get("quant_method") or (
        "bitsandbytes"
        if given.get("load_in_4bit") or given.get("load_in_8bit")
        else "by an unnamed method"
    )
    name = getattr(method, "value", method)  # transformers' own settings hold an enumeration
    return f"is quantised ({name}), its weights packed; {UNQUANTISED}"


def _values(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str, Any]]:
    """Give every value with its path and key, those of nested settings too."""
    for key, value in config.items():
        yield f"{prefix}{key}", key, value
        if isinstance(value, Mapping):
            yield from _values(value, f"{prefix}{key}.")


def _check_dtype(name: str, path: str, value: Any) -> None:
    known = value is None or value == "auto" or isinstance(value, Mapping)
    if not known and not (
        isinstance(value, str) and isinstance(getattr(torch, value, None), torch.dtype)
    ):
        raise ModelError(
            f"model '{name}' has {path}: {value!r} in its config.json, which is no dtype; "
            "write it as float32, bfloat16 or float16, without a prefix"
        )


def _check_padding(name: str, config: Mapping[str, Any]) -> None:
    """A padding token behind the end of the vocabulary is one that the embedding does not have."""
    for settings in (config, config.get("text_config")):
        if not isinstance(settings, Mapping):
            continue
        token, size = settings.get("pad_token_id"), settings.get("vocab_size")
        if isinstance(token, int) and isinstance(size, int) and token >= size > 0:
            raise ModelError(
                f"model '{name}' has pad_token_id: {token} in its config.json, outside of its"
                f" vocabulary of {size}; write null there (padding is not scored), or the id that"
                " the tokenizer pads with"
            )


def _is_number(text: str) -> bool:
    if text in ("true", "false", "null", "True", "False", "None"):
        return True
    try:
        float(text)
    except ValueError:
        return False
    return True


def context_window(config: Any) -> int | None:
    """Return the most tokens that a model reads, from its configuration; None where it names no
    limit."""
    text = config.get_text_config(decoder=True)
    for name in (
        "max_position_embeddings",
        "n_positions",
        "max_sequence_length",
        "max_seq_len",
        "seq_length",
    ):
        value = getattr(text, name, None)
        if isinstance(value, int) and value > 0:
            return value
    return None
