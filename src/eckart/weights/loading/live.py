"""What can be wrong with a model that the caller brings in memory."""

from __future__ import annotations

from typing import Any, NoReturn

from torch import nn
from transformers import PreTrainedModel

from eckart.errors import ModelError
from eckart.weights.loading.config import quantised

MERGE = "merge it first: model = model.merge_and_unload()"
WRAPPERS = {
    "DataParallel": "give the model inside it: model.module",
    "DistributedDataParallel": "give the model inside it: model.module",
    "FullyShardedDataParallel": "load the whole model from a checkpoint instead",
    "PeftModel": MERGE,
    "PeftModelForCausalLM": MERGE,
}


def unwrapped(model: Any) -> Any:
    """Return the model inside what torch.compile returned: the same weights, read as they were
    written."""
    return getattr(model, "_orig_mod", model)


def refuse_wrapper(model: object) -> NoReturn:
    """Refuse what is neither a name nor a model of the transformers library.

    Raises:
        ModelError: always.
    """
    kind = type(model).__name__
    remedy = WRAPPERS.get(kind, "give a PreTrainedModel, a folder or a hub id")
    raise ModelError(f"a {kind} is no transformers model; {remedy}")


def check_live(model: PreTrainedModel) -> None:
    """Refuse a live model whose readings would not be those of its weights alone.

    Raises:
        ModelError: it is in training mode, quantised, has an adapter in it, or was compiled in
            place.
    """
    kind = type(model).__name__
    check_evaluation_mode(model)
    settings = getattr(model.config, "quantization_config", None)
    if settings is not None:
        raise ModelError(f"the live {kind} {quantised(settings)}")
    if getattr(model, "_hf_peft_config_loaded", False) or _holds(
        model, lambda m: type(m).__module__.startswith("peft.")
    ):
        raise ModelError(
            f"the live {kind} has an adapter in it, which is no part of its matrices; merge it"
            " first (peft's merge_and_unload), or take it out (model.delete_adapter)"
        )
    if _holds(model, lambda module: getattr(module, "_compiled_call_impl", None) is not None):
        raise ModelError(
            f"the live {kind} was compiled in place, which holds on to what is clipped; load it"
            " again without compile()"
        )


def check_evaluation_mode(model: nn.Module) -> None:
    """Refuse a model in training mode: its dropout makes every reading another one.

    Raises:
        ModelError: it is, or a module inside it is.
    """
    if _holds(model, lambda module: module.training):
        raise ModelError(
            f"the live {type(model).__name__} is in training mode, in which dropout makes every"
            " reading another one; call model.eval() first"
        )


def _holds(model: nn.Module, wrong: Any) -> bool:
    return any(wrong(module) for module in model.modules())
