"""A model in memory: nothing in it bends a reading, and it reads from left to right, found out by
running it and not by what it is called."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from eckart.errors import ModelError
from eckart.weights.loading.config import MERGE_IT, context_window, quantised

WRAPPERS = {
    "DataParallel": "give the model inside it: model.module",
    "DistributedDataParallel": "give the model inside it: model.module",
    "FullyShardedDataParallel": "load the whole model from a checkpoint instead",
    "PeftModel": MERGE_IT,
    "PeftModelForCausalLM": MERGE_IT,
}

ROWS, LENGTH = 3, 32
TOLERANCE, ROUTED = 1e-3, 0.03
"""The share of what changed tokens move later outputs by that they may move earlier ones by, in
half precision: next to nothing in forwards of one shape, and rounding where experts are handed
other numbers of tokens."""
TOLERANCE_FLOAT32 = 1e-4


def unwrapped(model: Any) -> Any:
    """Return the model inside what torch.compile returned: the same weights, read as they were
    written."""
    return getattr(model, "_orig_mod", model)


def refuse_wrapper(model: object) -> NoReturn:
    """Refuse what is neither a name nor a model of the transformers library."""
    kind = type(model).__name__
    remedy = WRAPPERS.get(kind, "give a PreTrainedModel, a folder or a hub id")
    raise ModelError(f"a {kind} is no transformers model; {remedy}")


def check_live(model: PreTrainedModel) -> None:
    """Refuse a live model whose readings would not be those of its weights alone: one in training
    mode, quantised, with an adapter in it, or compiled in place."""
    kind = type(model).__name__
    check_evaluation_mode(model)
    settings = getattr(model.config, "quantization_config", None)
    if settings is not None:
        raise ModelError(f"the live {kind} {quantised(settings)}")
    if getattr(model, "_hf_peft_config_loaded", False) or _holds(
        model, lambda m: type(m).__module__.startswith("peft.")
    ):
        raise ModelError(
            f"the live {kind} has an adapter in it, which is no part of its matrices; {MERGE_IT},"
            " or take it out (model.delete_adapter)"
        )
    if _holds(model, lambda module: getattr(module, "_compiled_call_impl", None) is not None):
        raise ModelError(
            f"the live {kind} was compiled in place, which holds on to what is clipped; load it"
            " again without compile()"
        )


def check_evaluation_mode(model: nn.Module) -> None:
    """Refuse a model in training mode, or with a module that is: dropout makes every reading
    another one."""
    if _holds(model, lambda module: module.training):
        raise ModelError(
            f"the live {type(model).__name__} is in training mode, in which dropout makes every"
            " reading another one; call model.eval() first"
        )


def _holds(model: nn.Module, wrong: Any) -> bool:
    return any(wrong(module) for module in model.modules())


@torch.inference_mode()
def check_causal(model: PreTrainedModel, name: str) -> None:
    """Refuse a model whose outputs depend on tokens that come later: an encoder, or a decoder
    configured to be one.

    The second half of a few rows of random tokens is changed; what the model, in evaluation mode,
    says along the first half must stay. A mixture of experts may turn at a near tie, so only what
    shows in every row counts.
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
