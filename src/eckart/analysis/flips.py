"""Which rows an edit fixed and which it broke, as a reader meets them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from eckart.analysis.findings import Choice, Findings
from eckart.analysis.outcomes import Block
from eckart.records import Edit, Row, Rows, Trial
from eckart.runs import Run


@dataclass(frozen=True)
class Flip:
    """A row whose answer turned from wrong to right, or from right to wrong.

    Arguments:
        kind: `fixed` or `broken`.
        id, text: the row.
        label, before, after: the right answer, the unpruned model's and the clipped model's, in
            words.
        seeds: under which demonstrations it turned so.
        scored: under how many it was scored.
    """

    kind: Literal["fixed", "broken"]
    id: str
    text: str
    label: str
    before: str
    after: str
    seeds: tuple[int, ...]
    scored: int


def flips(run: Run, found: Findings, choice: Choice, split: str) -> list[Flip]:
    """Return what a choice turned on a split: first what it fixed, then what it broke, the most
    steady first."""
    block = found.blocks.get((choice.condition, split))
    if block is None:
        return []
    turned: dict[tuple[str, str, str], list[tuple[int, Row, Rows]]] = defaultdict(list)
    scored: dict[str, int] = defaultdict(int)
    for seed, edit in choice.picks.items():
        before, after = (_answers(run, block, which, seed) for which in (None, edit))
        for row, rows, answer in after.values():
            if row.id not in before:
                continue
            scored[row.id] += 1
            was = before[row.id][2]
            if (was == row.label) != (answer == row.label):
                turned[row.id, _name(rows, row, was), _name(rows, row, answer)].append(
                    (seed, row, rows)
                )
    found_flips = [
        _flip(was, is_now, where, scored[row_id]) for (row_id, was, is_now), where in turned.items()
    ]
    return sorted(found_flips, key=lambda flip: (flip.kind != "fixed", -len(flip.seeds), flip.id))


def _name(rows: Rows, row: Row, index: int | None) -> str:
    """Return an answer in words: a choice of the row's own, or a label."""
    assert index is not None
    names = row.choices or rows.labels
    return names[index] if index < len(names) else str(index)


def _answers(
    run: Run, block: Block, edit: Edit | None, seed: int
) -> dict[str, tuple[Row, Rows, int]]:
    trials = block.trials.get((edit, seed), [])
    return {
        row.id: (row, rows, answer)
        for trial in trials
        for row, rows, answer in _predicted(run, trial)
    }


def _predicted(run: Run, trial: Trial) -> Iterator[tuple[Row, Rows, int]]:
    assert trial.labelled is not None
    rows = run.rows[trial.rows]
    for row, answer in zip(rows.rows[trial.split.slice], trial.labelled.predictions, strict=True):
        yield row, rows, answer


def _flip(was: str, is_now: str, where: list[tuple[int, Row, Rows]], scored: int) -> Flip:
    _, row, rows = where[0]
    label = _name(rows, row, row.label)
    return Flip(
        kind="fixed" if is_now == label else "broken",
        id=row.id,
        text=row.text,
        label=label,
        before=was,
        after=is_now,
        seeds=tuple(seed for seed, _, _ in where),
        scored=scored,
    )
