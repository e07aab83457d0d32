"""Hooks: parts of a live model that are replaced while a `with` block runs, and put back after
it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

HALF = (torch.bfloat16, torch.float16)
Forward = Callable[..., Any]


class PassEnded(Exception):  # noqa: N818  # what was wanted is known; it is no error
    """A pass was led no further."""


def replace_forward(undo: ExitStack, module: nn.Module, forward: Forward) -> None:
    """Give a module another forward until `undo` is closed."""
    # First: an interrupt in between does no harm.
    undo.callback(_restore, module, module.__dict__.get("forward"))
    module.forward = forward


def _restore(module: nn.Module, own: Forward | None) -> None:
    if own is None:
        module.__dict__.pop("forward", None)
    else:
        module.forward = own


def replaceable(attention: nn.Module) -> bool:
    """Say whether an attention module's function can be replaced: it is looked up in a registry, or
    is GPT-J's own."""
    return hasattr(sys.modules[type(attention).__module__], "ALL_ATTENTION_FUNCTIONS") or _is_gptj(
        attention
    )


@contextmanager
def replaced_attention(model: nn.Module, name: str, gptj: Callable[..., Any]) -> Iterator[None]:
    """Let a model's attention be computed by another function while a `with` block runs: by what is
    registered under a name with transformers' `AttentionInterface`, or, for GPT-J's own attention,
    which is in no registry, by `gptj`, given the module first."""
    configs: dict[int, Any] = {
        id(m.config): m.config for m in model.modules() if hasattr(m, "config")
    }
    with ExitStack() as undo:
        for config, own in [(config, config._attn_implementation) for config in configs.values()]:
            undo.callback(setattr, config, "_attn_implementation", own)
        for config in configs.values():
            config._attn_implementation = name
        by_hand: list[Any] = [module for module in model.modules() if _is_gptj(module)]
        for module in by_hand:
            undo.callback(module.__dict__.pop, "_attn", None)
            module._attn = partial(gptj, module)
        yield


def _is_gptj(module: nn.Module) -> bool:
    return hasattr(module, "_attn") and hasattr(module, "scale_attn")


@contextmanager
def in_float32(model: nn.Module, blocks: Sequence[nn.Module] = ()) -> Iterator[None]:
    """Let a model compute in float32 while a `with` block runs; in a wider dtype it computes as it
    does anyway.

    What two ways of reading differ in by their making shows in float32; in half precision it hides
    behind rounding. The blocks, its layers, are converted one at a time as they run; everything
    else is converted at once.
    """
    with ExitStack() as undo:
        inside = {id(module) for block in blocks for module in block.modules()}
        undo.enter_context(
            _converted(module for module in model.modules() if id(module) not in inside)
        )
        for block in blocks:
            replace_forward(undo, block, _converting(block, block.forward))
        yield


def _converting(block: nn.Module, forward: Forward) -> Forward:
    def wide(*args: Any, **kwargs: Any) -> Any:
        """Stand in for the layer's forward."""
        with _converted(block.modules()):
            return forward(*args, **kwargs)

    return wide


@contextmanager
def _converted(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Let modules hold float32 copies of their half-precision tensors; the tensors themselves are
    not touched."""
    copies: dict[int, Tensor] = {}  # tied ones share theirs
    with ExitStack() as undo:
        for module in modules:
            kinds: tuple[dict[str, Any], ...] = (module._parameters, module._buffers)
            for held in kinds:
                for name, tensor in held.items():
                    if tensor is not None and tensor.dtype in HALF:
                        undo.callback(held.__setitem__, name, tensor)
                        if id(tensor) not in copies:
                            copies[id(tensor)] = _wide(tensor)
                        held[name] = copies[id(tensor)]
        yield


def _wide(tensor: Tensor) -> Tensor:
    wide = tensor.detach().float()
    return nn.Parameter(wide, requires_grad=False) if isinstance(tensor, nn.Parameter) else wide
