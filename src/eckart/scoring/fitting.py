"""Prompts that the model can read: fewer demonstrations where a row needs it, rows left out where
none fit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from eckart.errors import TaskError
from eckart.records import Row, Rows, Split, fingerprint
from eckart.scoring.encoding import CHUNK, Encoder
from eckart.tasks.prompts import Example, Prompt
from eckart.tasks.task import Task
from eckart.weights.models import Tokenizer


@dataclass(frozen=True)
class Fitted:
    """A split's prompts, and what had to be done so that they fit.

    Arguments:
        prompts: in the split's order.
        described: the rows without demonstrations, as a report shows them.
        shots: how many demonstrations each prompt shows.
        notes: how many rows show fewer demonstrations, how many are left out.
    """

    prompts: tuple[Prompt, ...]
    described: Rows
    shots: tuple[int, ...]
    notes: tuple[str, ...] = ()

    @cached_property
    def digest(self) -> str:
        """The SHA-256 of the prompts: ids, contexts, continuations and labels."""
        return fingerprint([(p.id, p.context, p.continuations, p.label) for p in self.prompts])

    def part(self, split: Split) -> Fitted:
        """Return some of the rows.

        Raises:
            TaskError: there are none, or not so many.
        """
        start, stop = split.start or 0, split.stop or 0
        if not 0 <= start < stop <= len(self.prompts):
            raise TaskError(
                f"rows [{start}:{stop}] are not among the split's {len(self.prompts)} rows"
            )
        return replace(
            self,
            prompts=self.prompts[split.slice],
            described=replace(self.described, rows=self.described.rows[split.slice]),
            shots=self.shots[split.slice],
        )


def fit(
    task: Task,
    split: str,
    tokenizer: Tokenizer,
    window: int | None,
    *,
    truncate: bool = False,
    drop: bool = False,
    examples: Sequence[Example] | None = None,
) -> Fitted:
    """Return a split's prompts, each at most `window` tokens long; without leave to do anything, as
    they are.

    Arguments:
        task, split: whose prompts.
        tokenizer, window: the model's own, and the most tokens that it reads.
        truncate: show only as many of its first demonstrations as fit in a row that is too long.
        drop: leave out a row that still is.
        examples: others than the split's own, which is then but a name for them.

    Raises:
        TaskError: no row is left.
    """
    rows = task.examples(split) if examples is None else examples
    prompts = tuple(map(task.prompt, rows))
    kept = within(
        prompts,
        lambda place, shots: task.prompt(rows[place], shots),
        task.shots,
        tokenizer,
        window,
        truncate=truncate,
        drop=drop,
    )
    if not kept:
        raise TaskError(
            f"no {split} row fits into the {window} tokens that the model reads; use fewer --shots"
        )
    places, fitted, shots = zip(*kept, strict=True)
    return Fitted(
        fitted,
        _described(task, [rows[place] for place in places]),
        shots,
        _notes(split, shots, task.shots, len(prompts), window),
    )


def within(
    prompts: Sequence[Prompt],
    again: Callable[[int, int], Prompt],
    shots: int,
    tokenizer: Tokenizer,
    window: int | None,
    *,
    truncate: bool,
    drop: bool,
) -> list[tuple[int, Prompt, int]]:
    """Return the prompts that are kept, each with its place and its number of demonstrations.

    Arguments:
        prompts: with all demonstrations.
        again: makes the prompt at a place again, with fewer of them.
        shots: how many all are.
        tokenizer, window, truncate, drop: see `fit`.
    """
    if window is None or not (truncate or drop):
        return [(place, prompt, shots) for place, prompt in enumerate(prompts)]
    encoder = Encoder(tokenizer, prompts)
    fitting = range(shots - 1, -1, -1) if truncate else range(0)
    kept: list[tuple[int, Prompt, int]] = []
    lengths = fed_lengths(prompts, encoder)
    for place, (prompt, length) in enumerate(zip(prompts, lengths, strict=True)):
        choices = ((again(place, fewer), fewer) for fewer in fitting)
        shorter = ((p, fewer) for p, fewer in choices if fed_lengths([p], encoder)[0] <= window)
        found = (prompt, shots) if length <= window else next(shorter, None)
        if found or not drop:  # one that is still too long is refused by name later
            kept.append((place, *(found or (prompt, shots))))
    return kept


def _described(task: Task, examples: Sequence[Example]) -> Rows:
    return Rows(task.labels, tuple(Row(e.id, e.text, e.label, e.choices) for e in examples))


def _notes(
    split: str, shots: tuple[int, ...], full: int, rows: int, window: int | None
) -> tuple[str, ...]:
    shorter = sum(n < full for n in shots)
    left_out = rows - len(shots)
    fewest = f"as few as {min(shots)}, to fit into {window} tokens"
    notes = {
        f"{split}: {shorter} rows show fewer demonstrations, {fewest}": shorter,
        f"{split}: left out {left_out} rows that are longer than {window} tokens": left_out,
    }
    return tuple(note for note, count in notes.items() if count)


def fed_lengths(prompts: Sequence[Prompt], encoder: Encoder) -> list[int]:
    """Return for each prompt how many tokens are fed for its longest continuation; the last token
    is only scored."""
    lengths: list[int] = []
    for start in range(0, len(prompts), CHUNK):
        chunk = prompts[start : start + CHUNK]
        found = iter(encoder([p.context + choice for p in chunk for choice in p.continuations]))
        lengths += [max(len(next(found)) for _ in prompt.continuations) - 1 for prompt in chunk]
    return lengths
