"""Whether a model reads from left to right, found out by running it and not by what it is
called."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from eckart.errors import ModelError
from eckart.weights.loading.config import context_window

ROWS, LENGTH = 3, 32
TOLERANCE, ROUTED = 1e-3, 0.03
"""The share of what changed tokens move later outputs by that they may move earlier ones by, in
half precision: next to nothing in forwards of one shape, and rounding where experts are handed
other numbers of tokens."""
TOLERANCE_FLOAT32 = 1e-4


@torch.inference_mode()
def check_causal(model: PreTrainedModel, name: str) -> None:
    """Refuse a model whose outputs depend on tokens that come later: an encoder, or a decoder
    configured to be one.

    The second half of a few rows of random tokens is changed; what the model says along the first
    half must stay. A mixture of experts may turn at a near tie, so only what shows in every row
    counts.

    Arguments:
        model: in evaluation mode, with its weights.
        name: what the model was asked for by.

    Raises:
        ModelError: it is an encoder-decoder, or sees later tokens.
    """
    if model.config.is_encoder_decoder:
        raise ModelError(
            f"model '{name}' ({type(model).__name__}) is an encoder-decoder; give a decoder-only"
            " language model"
        )
    tokens = None if model.device.type == "meta" else _rows(model)
    if tokens is None:
        return
    half = tokens.shape[1] // 2
    changed = torch.cat([tokens[:, :half], tokens[:, half:].roll(1, dims=0)], dim=1)
    try:
        moved = (_outputs(model, changed) - _outputs(model, tokens)).abs().amax(-1)
    except (RuntimeError, ValueError, TypeError, IndexError, AttributeError):
        return  # what it cannot read as plain rows of tokens, scoring says in its own words
    earlier, later = moved[:, :half].amax(-1), moved[:, half:].amax(-1)
    if bool((earlier > _tolerance(model) * later).all()):
        raise ModelError(
            f"model '{name}' ({type(model).__name__}) is not a causal decoder: other tokens at the"
            " end of a row change what it says before them, so it is an encoder, or its"
            " configuration makes it one (is_decoder, is_causal, use_bidirectional_attention);"
            " give a decoder-only language model"
        )


def _tolerance(model: PreTrainedModel) -> float:
    if model.dtype in (torch.float32, torch.float64):
        return TOLERANCE_FLOAT32
    return ROUTED if any("expert" in name for name, _ in model.named_modules()) else TOLERANCE


def _outputs(model: PreTrainedModel, tokens: Tensor) -> Tensor:
    return model(input_ids=tokens.to(model.device), use_cache=False).logits.float()


def _rows(model: PreTrainedModel) -> Tensor | None:
    """Return rows of random tokens that have no meaning of their own, or None where there are too
    few such tokens."""
    text = model.config.get_text_config(decoder=True)
    size = getattr(text, "vocab_size", None)
    if not isinstance(size, int):
        return None
    special = set(_special(model.config.to_dict()))
    plain = [token for token in range(min(size, 4096)) if token not in special]
    if len(plain) < 2 * ROWS:
        return None
    length = min(LENGTH, context_window(model.config) or LENGTH)
    chosen = torch.randint(len(plain), (ROWS, length), generator=torch.Generator().manual_seed(0))
    return torch.tensor(plain)[chosen] if length >= 4 else None


def _special(config: Mapping[Any, Any]) -> Iterator[int]:
    """Give every token that a configuration names: padding, ends, where an image goes."""
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from _special(value)
        elif "token" in str(key) and isinstance(value, int):
            yield value
