"""The choices of several runs, paired on the rows that both were asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from eckart.analysis.findings import Choice, Findings
from eckart.analysis.measured import reported
from eckart.analysis.outcomes import Block
from eckart.records import Row
from eckart.runs import Run
from eckart.selection.controls import Versus
from eckart.statistics.crossed import Estimate, mean_gain


@dataclass(frozen=True)
class ChoicePair(Versus):
    """A run's choice, and the first run's that it is compared with.

    Arguments:
        first, second: the choices; the first is None where the first run has none like it.
        shared, asked: rows that both were asked under a seed of both, and that the second was.
        before, after: the means of the first choice and of the second on these.
    """

    first: Choice | None
    second: Choice
    shared: int = 0
    asked: int = 0
    before: float = float("nan")
    after: float = float("nan")
    gain: Estimate | None = field(default=None, kw_only=True)


def paired_choices(first: Findings, second: Findings) -> list[ChoicePair]:
    """Compare every choice of a run with the like one of the first run: of the same task, shots,
    scoring and part; or of the same task, where both have but one."""
    return [
        _paired(first, _like(choice, first, second), second, choice) for choice in second.choices
    ]


def _like(choice: Choice, first: Findings, second: Findings) -> Choice | None:
    def facts(each: Choice) -> tuple[str, int, str, str]:
        where = each.condition
        return where.task, where.shots, where.scoring, each.part

    own = [c for c in first.choices if c.condition.task == choice.condition.task]
    same = [c for c in own if facts(c) == facts(choice)]
    others = [c for c in second.choices if c.condition.task == choice.condition.task]
    return same[0] if len(same) == 1 else own[0] if len(own) == len(others) == 1 else None


def _paired(a: Findings, first: Choice | None, b: Findings, second: Choice) -> ChoicePair:
    if first is None:
        return ChoicePair(None, second, error="the first run has no choice like it")
    if first.missing or second.missing:
        return ChoicePair(
            first, second, error=f"a choice is not known: {first.missing or second.missing}"
        )
    one, two = a.block(first), b.block(second)
    if one is None or two is None or one.split != two.split:
        return ChoicePair(first, second, error="they were not both tested")
    ours, theirs = _rows(a.run, one), _rows(b.run, two)
    ids = [name for name in two.ids if name in ours and ours[name] == theirs[name]]
    seeds = _seeds(one, two, first, second)
    found = ChoicePair(first, second, shared=len(ids), asked=len(two.ids))
    if len(ids) < 2:
        return replace(found, error="they were asked different rows")
    if not seeds:
        return replace(found, error="they have no draw of demonstrations in common")
    before = _merits(one, first, [seed for seed, _ in seeds], ids)
    after = _merits(two, second, [seed for _, seed in seeds], ids)
    both = ~np.isnan(after - before)
    gain = mean_gain(after - before, two.kind)
    if gain is None:
        return replace(found, error="no row was answered by both")
    return replace(
        found,
        shared=int(both.any(axis=0).sum()),
        before=reported(two.kind, float(before[both].mean())),
        after=reported(two.kind, float(after[both].mean())),
        gain=gain,
    )


def _rows(run: Run, block: Block) -> dict[str, tuple[Row, tuple[str, ...]]]:
    """Return every row as it was asked, with the labels' names, by its id."""
    digests = {trial.rows for trials in block.trials.values() for trial in trials}
    return {
        row.id: (row, tuple(rows.labels))
        for d in sorted(digests)
        for rows in [run.rows[d]]
        for row in rows.rows
    }


def _seeds(one: Block, two: Block, first: Choice, second: Choice) -> list[tuple[int, int]]:
    """Return which draw is compared with which: the same; without demonstrations, the only one with
    each."""
    ours = [seed for seed in one.seeds if seed in first.picks or not first.edit]
    theirs = [seed for seed in two.seeds if seed in second.picks or not second.edit]
    if not one.condition.shots:
        return [(ours[0], seed) for seed in theirs] if ours else []
    if not two.condition.shots:
        return [(seed, theirs[0]) for seed in ours] if theirs else []
    return [(seed, seed) for seed in ours if seed in theirs]


def _merits(block: Block, choice: Choice, seeds: Sequence[int], ids: Sequence[str]) -> np.ndarray:
    columns = [block.ids.index(name) for name in ids]
    lines = [
        block.row_merits(choice.picks.get(seed))[block.seeds.index(seed)][columns] for seed in seeds
    ]
    return np.array(lines)
