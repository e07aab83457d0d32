"""A half-precision model's own forward in float32, without a second copy of its weights."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from eckart.scoring.forward.trunk import Forward, replace_forward
from eckart.weights.models import Model

HALF = (torch.bfloat16, torch.float16)


@contextmanager
def in_float32(model: Model, blocks: Sequence[nn.Module] = ()) -> Iterator[None]:
    """Let a model compute in float32 while a `with` block runs; in a wider dtype it computes as it
    does anyway.

    What two ways of reading differ in by their making shows in float32; in half precision it hides
    behind rounding.

    Arguments:
        model: a causal language model.
        blocks: its layers, which are converted one at a time as they run; everything else is
            converted at once.
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
