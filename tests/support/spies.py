"""What a model itself does inside a layer, taken from its own forward pass without changing it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from eckart.weights.anatomy import Weight


@torch.no_grad()
def attention_states(model: PreTrainedModel, block: nn.Module, ids: Tensor) -> dict[str, Tensor]:
    """Return a layer's q, k and v as its attention gets them, each (row, head, token, feature)."""
    attention = attention_of(block)
    taken: list[tuple[Tensor, ...]] = []
    with SPLITS.get(type(attention).__name__, through_interface)(attention, taken.append):
        model(ids)
    return dict(zip("qkv", (by_head(state, model, ids) for state in taken[-1]), strict=True))


def attention_of(block: nn.Module) -> nn.Module:
    named = [module for module in block.modules() if type(module).__name__.endswith("Attention")]
    return named[-1]  # GPT-Neo wraps its own in another


def by_head(state: Tensor, model: PreTrainedModel, ids: Tensor) -> Tensor:
    if state.dim() == 3:  # (row, token, heads * features)
        config = model.config.get_text_config()
        state = state.unflatten(
            -1, (-1, getattr(config, "head_dim", None) or config.hidden_size // 4)
        )
    return state if state.shape[2] == ids.shape[1] else state.transpose(1, 2)


@contextmanager
def through_interface(attention: nn.Module, take: Callable[[Any], None]) -> Iterator[None]:
    """Take what the attention hands to transformers' attention functions, after its own split and
    rotation."""
    modeling = sys.modules[type(attention).__module__]
    real = modeling.ALL_ATTENTION_FUNCTIONS

    def get_interface(*arguments: Any) -> Callable[..., Any]:
        function = real.get_interface(*arguments)

        def spy(
            module: nn.Module, q: Tensor, k: Tensor, v: Tensor, *args: Any, **kwargs: Any
        ) -> Any:
            if module is attention:
                take((q, k, v))
            return function(module, q, k, v, *args, **kwargs)

        return spy

    modeling.ALL_ATTENTION_FUNCTIONS = SimpleNamespace(get_interface=get_interface)
    try:
        yield
    finally:
        modeling.ALL_ATTENTION_FUNCTIONS = real


def result_of(method: str) -> Callable[..., Any]:
    """Take what the attention's own splitting method returns."""
    return wrapped(method, lambda arguments, result: result)


def arguments_of(method: str) -> Callable[..., Any]:
    """Take the first three arguments of the attention's own method."""
    return wrapped(method, lambda arguments, result: arguments[:3])


def wrapped(method: str, choose: Callable[[Any, Any], Any]) -> Callable[..., Any]:
    @contextmanager
    def split(attention: nn.Module, take: Callable[[Any], None]) -> Iterator[None]:
        real = getattr(attention, method)

        def spy(*arguments: Any) -> Any:
            result = real(*arguments)
            take(choose(arguments, result))
            return result

        setattr(attention, method, spy)
        yield
        delattr(attention, method)

    return split


@contextmanager
def of_three_modules(attention: nn.Module, take: Callable[[Any], None]) -> Iterator[None]:
    """Take the outputs of q_proj, k_proj and v_proj, once all three have run."""
    seen: dict[str, Tensor] = {}

    def hook(name: str) -> Callable[..., None]:
        def remember(module: nn.Module, inputs: Any, output: Tensor) -> None:
            seen[name] = output
            if len(seen) == 3:
                take(tuple(seen[name] for name in "qkv"))

        return remember

    with hooked(*((getattr(attention, f"{name}_proj"), hook(name)) for name in "qkv")):
        yield


@contextmanager
def of_three_chunks(attention: nn.Module, take: Callable[[Any], None]) -> Iterator[None]:
    """Take the thirds of MPT's fused output, as `mixed_qkv.chunk(3, dim=2)` in its forward does."""
    with hooked((attention.Wqkv, lambda module, inputs, output: take(output.chunk(3, dim=2)))):
        yield


SPLITS = {
    "BloomAttention": result_of("_reshape"),
    "FalconAttention": result_of("_split_heads"),
    "GPTJAttention": arguments_of("_attn"),
    "GPTNeoSelfAttention": arguments_of("_attn"),
    "XGLMAttention": of_three_modules,
    "MptAttention": of_three_chunks,
}


@contextmanager
def hooked(*hooks: tuple[nn.Module, Callable[..., Any]]) -> Iterator[None]:
    with ExitStack() as stack:
        for module, hook in hooks:
            stack.callback(module.register_forward_hook(hook).remove)
        yield


@torch.no_grad()
def flow(model: PreTrainedModel, weight: Weight, ids: Tensor) -> tuple[Tensor, Tensor]:
    """Return what goes into and comes out of the module that owns a weight."""
    taken: list[tuple[Tensor, Tensor]] = []
    owner = model.get_submodule(weight.path.rpartition(".")[0])
    with hooked((owner, lambda module, inputs, output: taken.append((inputs[0], output.clone())))):
        model(ids)
    return taken[-1]
