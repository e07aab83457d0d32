"""The language-model head: on the scored positions alone, and in float32."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import linear

from eckart.errors import ModelError
from eckart.evaluation.route import replace_forward
from eckart.models import Model


@contextmanager
def head_at(model: Model, rows: Int[Tensor, " scored"], positions: Int[Tensor, " scored"]) -> Iterator[None]:
    """Let the head read only the given positions; the model's logits become (1, scored, vocabulary).

    The selection happens where the hidden states enter the head, so whatever the model's own forward does to
    its logits afterwards (scaling, soft-capping) still happens, on every architecture.

    Arguments:
        model: a causal language model.
        rows, positions: index of the row and of the token for each scored position.

    Raises:
        ModelError: the model has no output embeddings.
    """

    def select(_: Any, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        hidden, *rest = inputs
        return hidden[rows.to(hidden.device), positions.to(hidden.device)].unsqueeze(0), *rest

    hook = _head(model).register_forward_pre_hook(select)
    try:
        yield
    finally:
        hook.remove()


@contextmanager
def float32_head(model: Model) -> Iterator[None]:
    """Let a half-precision model's head compute in float32 while a `with` block runs.

    With 8 bits of mantissa, logits near 16 are multiples of 1/8: labels tie, and ties go to the first. The weights stay
    the stored ones; a copy in float32 is held while the block runs.

    Raises:
        ModelError: the model has no output embeddings.
    """
    head = _head(model)
    if type(head) is not nn.Linear or head.weight.dtype not in (torch.bfloat16, torch.float16):
        yield
        return
    weight = head.weight.detach().float()
    bias = None if head.bias is None else head.bias.detach().float()

    def forward(hidden: Float[Tensor, "... size"]) -> Float[Tensor, "... vocabulary"]:
        return linear(hidden.float(), weight, bias)

    with ExitStack() as undo:
        replace_forward(undo, head, forward)
        yield


def first_position(device: torch.device) -> tuple[Int[Tensor, " one"], Int[Tensor, " one"]]:
    """Return the selection that costs the head least, for a pass whose logits nobody reads."""
    zero = torch.zeros(1, dtype=torch.long, device=device)
    return zero, zero


def _head(model: Model) -> nn.Module:
    head = model.get_output_embeddings()
    if head is None:
        raise ModelError(
            f"{type(model).__name__} has no language-model head, so it gives no probabilities to score"
        )
    return head
