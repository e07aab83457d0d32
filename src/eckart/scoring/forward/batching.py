"""Rows into batches: alike in length, and no larger than the device holds."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from eckart.errors import ModelError
from eckart.scoring.encoding import Tokens

CACHED = 4
"""How many tokens of keys and values a batch may hold for each token that it computes."""


def plan_batches(rows: Sequence[Tokens], budget: int, prefix: int = 0) -> list[list[int]]:
    """Group rows of alike length, longest first, so that padding is rare and memory runs out early
    or never.

    Arguments:
        rows: token rows.
        budget: the most tokens, padding included, in a batch; a longer row is a batch of its own.
        prefix: tokens before every row whose keys and values each row of a batch holds; they are
            not computed, but take memory.

    >>> plan_batches([(1,), (1, 2, 3), (4, 5, 6)], budget=6)
    [[1, 2], [0]]
    """
    batches: list[list[int]] = []
    room = 0
    for index in sorted(range(len(rows)), key=lambda i: -len(rows[i])):
        if room < 1:
            batches.append([])
            width = len(rows[index])
            room = max(1, min(budget // width, CACHED * budget // (prefix + width)))
        batches[-1].append(index)
        room -= 1
    return batches


def pad(rows: Sequence[Tokens], device: torch.device) -> Int[Tensor, "batch time"]:
    """Stack rows, padded on the right.

    A causal model's real tokens never see what stands to their right, so any token id pads; on the
    left it would shift positions and sliding windows.
    """
    width = max(map(len, rows))
    return torch.tensor([row + (0,) * (width - len(row)) for row in rows], device=device)


def run_halving(run: Callable[[list[int]], None], batches: Sequence[list[int]], what: str) -> None:
    """Run batches in order; where memory runs out, halve that batch and all that follow, and go on.

    Arguments:
        run: computes one batch of row indices; leaves nothing behind when it raises.
        batches: row indices.
        what: names the job in the error.

    Raises:
        ModelError: a single row does not fit.
    """
    waiting = list(reversed(batches))
    largest = max(map(len, batches), default=1)
    while waiting:
        batch = waiting.pop()
        if len(batch) > largest:
            waiting.extend(batch[i : i + largest] for i in reversed(range(0, len(batch), largest)))
            continue
        try:
            run(batch)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if len(batch) == 1:
                raise ModelError(
                    f"{what}: not even one row fits into memory; use fewer --shots or a smaller"
                    " dtype"
                ) from error
            largest = len(batch) // 2
            waiting.append(batch)
            release_memory()


def is_out_of_memory(error: BaseException) -> bool:
    """Say whether an error means that the device's or the machine's memory is full."""
    text = str(error).lower()
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        "out of memory" in text or "can't allocate memory" in text or "not enough memory" in text
    )


def release_memory() -> None:
    """Give cached device memory back."""
    if torch.accelerator.is_available():
        torch.get_device_module(torch.accelerator.current_accelerator()).empty_cache()
