"""Prompts that the model can read: fewer demonstrations where a row needs it, rows left out where none fit."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from eckart.errors import TaskError
from eckart.evaluation.requests import CHUNK, Encoder
from eckart.models import Tokenizer
from eckart.tasks.prompts import Example, Prompt
from eckart.tasks.task import Task


@dataclass(frozen=True)
class Fitted:
    """A split's prompts, and what had to be done so that they fit.

    Arguments:
        prompts: in the split's order.
        notes: how many rows show fewer demonstrations, how many are left out.
    """

    prompts: tuple[Prompt, ...]
    notes: tuple[str, ...] = ()

    @cached_property
    def digest(self) -> str:
        """The SHA-256 of the prompts: ids, contexts, continuations and labels."""
        return hashlib.sha256(repr(self.prompts).encode(errors="surrogatepass")).hexdigest()


@dataclass(frozen=True)
class Fitting:
    """What may be done to a row that is longer than the model reads.

    Arguments:
        truncate: show only as many of its first demonstrations as fit.
        drop: leave out a row that still does not fit.
    """

    truncate: bool = False
    drop: bool = False

    def fit(self, task: Task, split: str, tokenizer: Tokenizer, window: int | None) -> Fitted:
        """Return a split's prompts, each at most `window` tokens long.

        Without leave to do anything, prompts are returned as they are.

        Raises:
            TaskError: no row is left.
        """
        prompts = task.prompts(split)
        if window is None or not (self.truncate or self.drop):
            return Fitted(prompts)
        encoder = Encoder(tokenizer)
        fewest, kept, shorter = task.shots, [], 0
        for example, prompt, length in zip(
            task.examples(split), prompts, fed_lengths(prompts, encoder), strict=True
        ):
            shots = task.shots if length <= window else self._most(task, example, encoder, window)
            if shots is None:
                continue
            shorter, fewest = shorter + (shots < task.shots), min(fewest, shots)
            kept.append(prompt if shots == task.shots else task.prompt(example, shots))
        if not kept:
            raise TaskError(
                f"no {split} row fits into the {window} tokens that the model reads; use fewer --shots"
            )
        left_out = len(prompts) - len(kept)
        notes = (
            f"{split}: {shorter} rows show fewer demonstrations, as few as {fewest}, to fit into {window} tokens",
            f"{split}: left out {left_out} rows that are longer than {window} tokens",
        )
        return Fitted(
            tuple(kept), tuple(note for note, n in zip(notes, (shorter, left_out), strict=True) if n)
        )

    def _most(self, task: Task, example: Example, encoder: Encoder, window: int) -> int | None:
        """Return the most demonstrations with which a row fits; None where it is to be left out.

        A row that must not be left out stays as it is, for the error that names it.
        """
        for shots in range(task.shots - 1, -1, -1) if self.truncate else ():
            if fed_lengths([task.prompt(example, shots)], encoder)[0] <= window:
                return shots
        return None if self.drop else task.shots


def fed_lengths(prompts: Sequence[Prompt], encoder: Encoder) -> list[int]:
    """Return for each prompt how many tokens are fed for its longest continuation; the last token is only scored."""
    lengths: list[int] = []
    for start in range(0, len(prompts), CHUNK):
        chunk = prompts[start : start + CHUNK]
        found = iter(encoder([p.context + choice for p in chunk for choice in p.continuations]))
        lengths += [max(len(next(found)) for _ in prompt.continuations) - 1 for prompt in chunk]
    return lengths
