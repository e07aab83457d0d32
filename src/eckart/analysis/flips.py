"""The flips of a choice: which rows it fixed and which it broke, as a reader meets them."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Literal

import numpy as np

from eckart.analysis.findings import Choice, Findings
from eckart.analysis.outcomes import Pick
from eckart.records import Row, Rows, Trial
from eckart.runs import Run
from eckart.statistics.scores import Score

Answers = dict[str, tuple[Row, Rows, float]]
"""By row id: the row, and the predicted label's index or the squared error."""
Pairs = dict[tuple[int, str], tuple[Answers, Answers]]
"""By seed and prompt: the unpruned model's answers and the clipped model's."""


@dataclass(frozen=True)
class Flip:
    """A row that turned from wrong to right, or from right to wrong; or whose error turned smaller,
    or larger.

    Arguments:
        kind: `fixed` or `broken`.
        id, text: the row.
        label, before, after: the right answer, the unpruned model's and the clipped model's, in
            words. Of numbers, the errors, as means over the seeds, and no label.
        seeds: under which demonstrations it turned so.
        scored: under how many demonstrations and prompts it was scored.
    """

    kind: Literal["fixed", "broken"]
    id: str
    text: str
    label: str
    before: str
    after: str
    seeds: tuple[int, ...]
    scored: int


def flips(findings: Findings, choice: Choice, split: str) -> list[Flip]:
    """Return what a choice turned on a split: first what it fixed, then what it broke, the most
    steady first; of errors, those that changed by most."""
    block = findings.blocks.get((choice.condition, split))
    if block is None:
        return []

    def answers(edit: Pick | None, seed: int, prompt: str) -> Answers:
        kept = block.trials.get((edit, seed), [])
        trials = [trial for trial in kept if trial.setting.task == prompt]
        return {row: of for trial in trials for row, of in _answers(findings.run, trial).items()}

    prompts = {t.setting.task for trials in block.trials.values() for t in trials}
    pairs = {
        (seed, prompt): (answers(None, seed, prompt), answers(edit, seed, prompt))
        for seed, edit in choice.picks.items()
        for prompt in sorted(prompts)
    }
    return _label_flips(pairs) if block.kind is Score else _error_flips(pairs)


def _answers(run: Run, trial: Trial) -> Answers:
    rows = run.rows[trial.rows]
    asked = rows.rows[trial.split.slice]
    score = trial.score
    assert score is not None
    errors = (-merit for merit in score.row_merits)
    answers = score.predictions if isinstance(score, Score) else errors
    return {row.id: (row, rows, answer) for row, answer in zip(asked, answers, strict=True)}


def _label_flips(pairs: Pairs) -> list[Flip]:
    turned: dict[tuple[str, str, str], list[tuple[int, Row, Rows]]] = defaultdict(list)
    scored: dict[str, int] = defaultdict(int)
    for (seed, _), (before, after) in pairs.items():
        for row, rows, answer in after.values():
            if row.id not in before:
                continue
            scored[row.id] += 1
            was = before[row.id][2]
            if (was == row.label) != (answer == row.label):
                key = row.id, _name(rows, row, was), _name(rows, row, answer)
                turned[key].append((seed, row, rows))
    found = [
        _flip(was, is_now, where, scored[row_id]) for (row_id, was, is_now), where in turned.items()
    ]
    return sorted(found, key=lambda flip: (flip.kind != "fixed", -len(flip.seeds), flip.id))


def _name(rows: Rows, row: Row, index: float | None) -> str:
    """Return an answer in words: a choice of the row's own, or a label."""
    assert index is not None
    names = row.choices or rows.labels
    return names[int(index)] if index < len(names) else str(index)


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
        seeds=tuple(dict.fromkeys(seed for seed, _, _ in where)),
        scored=scored,
    )


def _error_flips(pairs: Pairs) -> list[Flip]:
    rows: dict[str, Row] = {}
    errors: dict[str, dict[int, tuple[float, float]]] = defaultdict(dict)
    for (seed, _), (before, after) in pairs.items():
        for name, (row, _, error) in after.items():
            if name in before:
                rows[name] = row
                errors[name][seed] = before[name][2], error
    changes: list[tuple[float, Flip]] = []
    for name, by_seed in errors.items():
        was, now = np.mean(list(by_seed.values()), axis=0)
        if was == now:
            continue
        same_way = [seed for seed, (b, a) in by_seed.items() if (a < b) == (now < was) and a != b]
        kind: Literal["fixed", "broken"] = "fixed" if now < was else "broken"
        about = (f"{was:.4g}", f"{now:.4g}", tuple(same_way), len(by_seed))
        changes.append((abs(now - was), Flip(kind, name, rows[name].text, "", *about)))
    changes.sort(key=lambda change: (change[1].kind != "fixed", -change[0], change[1].id))
    return [flip for _, flip in changes]
