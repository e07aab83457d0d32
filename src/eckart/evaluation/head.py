"""The language-model head on the scored positions alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from eckart.errors import ModelError
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
    head = model.get_output_embeddings()
    if head is None:
        raise ModelError(
            f"{type(model).__name__} has no language-model head, so it gives no probabilities to score"
        )

    def select(_: Any, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        hidden, *rest = inputs
        return hidden[rows.to(hidden.device), positions.to(hidden.device)].unsqueeze(0), *rest

    hook = head.register_forward_pre_hook(select)
    try:
        yield
    finally:
        hook.remove()


def first_position(device: torch.device) -> tuple[Int[Tensor, " one"], Int[Tensor, " one"]]:
    """Return the selection that costs the head least, for a pass whose logits nobody reads."""
    zero = torch.zeros(1, dtype=torch.long, device=device)
    return zero, zero
