"""The language-model head: on the scored positions alone, and exact where it counts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import linear

from eckart.errors import ModelError
from eckart.scoring.forward.precision import HALF
from eckart.scoring.forward.trunk import replace_forward
from eckart.weights.models import Model


@contextmanager
def head_at(
    model: Model, rows: Int[Tensor, " scored"], positions: Int[Tensor, " scored"]
) -> Iterator[None]:
    """Let the head read only the given positions; the model's logits become (1, scored,
    vocabulary).

    The selection happens where the hidden states enter the head, so whatever the model's own
    forward does to its logits afterwards (scaling, soft-capping) still happens, on every
    architecture.

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
def exact_logits(model: Model, tokens: Sequence[int]) -> Iterator[None]:
    """Let a half-precision model's head give its logits in float32, those of some tokens exactly,
    in a `with` block.

    With 8 bits of mantissa, logits near 16 are multiples of 1/8: labels tie, and ties go to the
    first. So the columns of the scored tokens are computed in float32. The others count only in the
    sum over the vocabulary, where their rounding averages out, and which is the same for all
    labels: they are computed in the model's dtype, which is fast.

    Arguments:
        model: a causal language model.
        tokens: the ids that are scored.

    Raises:
        ModelError: the model has no output embeddings.
    """
    head = _head(model)
    if type(head) is not nn.Linear or head.weight.dtype not in HALF or head.weight.is_meta:
        yield
        return
    columns = torch.tensor(sorted(set(tokens)), device=head.weight.device)
    weight = head.weight.detach()[columns].float()
    bias = None if head.bias is None else head.bias.detach()[columns].float()

    def forward(hidden: Float[Tensor, "... size"]) -> Float[Tensor, "... vocabulary"]:
        hidden = hidden.to(weight.device)  # this stands in for what accelerate put there, too
        logits = linear(hidden, head.weight, head.bias).float()
        logits[..., columns] = linear(hidden.float(), weight, bias)
        return logits

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
            f"{type(model).__name__} has no language-model head, so it gives no probabilities to"
            " score"
        )
    return head
