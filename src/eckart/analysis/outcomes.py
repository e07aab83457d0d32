"""The outcomes of a run as matrices: what each edit merits on each row, under which
demonstrations."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Bool, Float

from eckart.errors import RunError
from eckart.records import SMALLEST, Edit, Edits, Rows, Trial
from eckart.runs import Run
from eckart.statistics.scores import Outcome

SPLITS = ("validation", "test")
Pick: TypeAlias = Edit | Edits
"""What is clipped: one edit, or several at once."""
Picks: TypeAlias = dict[int, Pick | None]
"""What each seed chose; None for the unpruned model."""


@dataclass(frozen=True, order=True)
class Condition:
    """What several draws of demonstrations have in common.

    Arguments:
        model, task, shots, scoring: as in `Setting`.
    """

    model: str
    task: str
    shots: int
    scoring: str

    @classmethod
    def of(cls, trial: Trial, prompts: int = 1) -> Condition:
        """Return a trial's condition; the variants of a task are one where a run averages over
        several prompts."""
        setting = trial.setting
        task = setting.task if prompts == 1 else setting.task.partition(":")[0]
        return cls(setting.model, task, setting.shots, setting.scoring)

    @property
    def task_name(self) -> str:
        """The task's name without the variant of its prompts."""
        return self.task.partition(":")[0]

    def __str__(self) -> str:
        return f"{short_name(self.model)}, {self.task}, {self.shots} shots, {self.scoring}"


class Target(NamedTuple):
    """A part in a condition: for each, one choice is made."""

    condition: Condition
    part: str


@dataclass(frozen=True, eq=False)
class Block:
    """Everything that was scored in one condition on one split, row by row.

    Rows are aligned by their ids: seeds draw different demonstrations, so their splits may differ
    by a few rows.

    Arguments:
        condition, split: what was scored.
        seeds: of the demonstrations.
        ids: every row that any seed scored.
        edits: what was clipped; the unpruned model is not among them.
        kind: of the outcomes: on labels, or on numbers.
        unpruned: the `row_merits` of the unpruned model, such as 1 where it was right and 0 where
            it was wrong; NaN where it was not asked. Under several prompts, their mean.
        merits: the same for each edit.
        trials: what filled the matrices, by edit (None for the unpruned model) and seed; a race
            leaves several, and so do several prompts.
    """

    condition: Condition
    split: str
    seeds: tuple[int, ...]
    ids: tuple[str, ...]
    edits: tuple[Pick, ...]
    kind: type[Outcome]
    unpruned: Float[np.ndarray, "seeds rows"]
    merits: Float[np.ndarray, "edits seeds rows"]
    trials: dict[tuple[Pick | None, int], list[Trial]]

    @cached_property
    def gains(self) -> Float[np.ndarray, "edits seeds rows"]:
        """Merits after less merits before, by the same seed on the same row; NaN where either is
        not known."""
        return self.merits - self.unpruned

    @cached_property
    def place(self) -> dict[Pick, int]:
        """Where each edit stands among the edits."""
        return {edit: place for place, edit in enumerate(self.edits)}

    @cached_property
    def asked(self) -> Bool[np.ndarray, "seeds rows"]:
        """Whether anything was scored on a row under a seed."""
        return ~np.isnan(self.unpruned) | ~np.isnan(self.merits).all(axis=0)

    @property
    def row_counts(self) -> list[int]:
        """How many rows each seed asked the unpruned model."""
        return [int(count) for count in (~np.isnan(self.unpruned)).sum(axis=1) if count]

    def row_merits(self, edit: Pick | None) -> Float[np.ndarray, "seeds rows"]:
        """Return what an edit, or the unpruned model, merits on each row."""
        return self.unpruned if edit is None else self.merits[self.place[edit]]

    def outcomes(self, edit: Pick | None) -> list[Outcome]:
        kept = (trial for seed in self.seeds for trial in self.trials.get((edit, seed), []))
        return [trial.score for trial in kept if trial.score is not None]

    def known(self, picks: Picks) -> Picks:
        """Return the picks that were scored, of seeds that are known here."""
        return {s: pick for s, pick in picks.items() if s in self.seeds and self.has(pick)}

    def has(self, edit: Pick | None) -> bool:
        """Whether an edit, or the unpruned model, was scored at all."""
        return edit is None or edit in self.place


def blocks(run: Run, controls: bool = False) -> dict[tuple[Condition, str], Block]:
    """Gather a run's trials by condition and split, without those that failed."""
    groups: dict[tuple[Condition, str], list[Trial]] = defaultdict(list)
    for trial in measurable(run, controls):
        if trial.score is not None:
            condition = Condition.of(trial, run.asked.prompts)
            groups[condition, trial.split.name].append(trial)
    return {key: _block(*key, trials, run.rows) for key, trials in sorted(groups.items())}


def measurable(run: Run, controls: bool = False) -> list[Trial]:
    """Return the trials of the unpruned model, of single edits as the paper's are, and of what was
    composed; those of control arms where they are asked for, for nothing is chosen among them."""
    chosen = composition(run)
    return [
        trial
        for trial in run.trials.values()
        if trial.edits == chosen
        or (controls and not is_plain(trial.edits))
        or (len(trial.edits) <= 1 and is_plain(trial.edits))
    ]


def is_plain(edits: Edits) -> bool:
    """Whether edits cut what the paper's do."""
    return all(edit.cut == SMALLEST for edit in edits)


def pick_of(edits: Edits) -> Pick | None:
    """Return edits as what may be picked; None for the unpruned model."""
    return edits[0] if len(edits) == 1 else edits or None


def edits_of(pick: Pick | None) -> Edits:
    """Return the edits that were picked."""
    return (pick,) if isinstance(pick, Edit) else pick or ()


def composition(run: Run) -> Edits | None:
    """Return what a greedy search, or somebody by hand, had tested; None before it was."""
    result = kept_result(run)
    return tuple(map(Edit.parse, result["edits"])) if result else None


def kept_result(run: Run) -> dict[str, Any] | None:
    """Return the result that the run of a composition keeps, greedy or by hand; None of any other,
    or where it is not written yet, or damaged: the same search, which reads nothing again, writes
    it."""
    return written_result(run.folder) if run.settings.get("strategy") else None


def written_result(folder: Path) -> dict[str, Any] | None:
    """Return the result of a composition that lies in a run's folder; None where it is not written
    yet, or damaged."""
    try:
        result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return result if isinstance(result, dict) and {"edits", "says"} <= {*result} else None


def sample(blocks: Sequence[Block]) -> str:
    """Write how many rows and seeds some blocks have; rows a seed too, where seeds differ by a few
    rows.

    Arguments:
        blocks: of one or more conditions; ranges are written where they differ.
    """
    every = span([len(block.ids) for block in blocks])
    seeds = span([len(block.seeds) for block in blocks])
    own = span([count for block in blocks for count in block.row_counts])
    differs = any({*block.row_counts} != {len(block.ids)} for block in blocks)
    rows = f"{own} rows a seed, {every} in all" if differs else f"{every} rows"
    return f"n = {rows}, {seeds} {'seed' if seeds == '1' else 'seeds'}"


def span(numbers: Sequence[int]) -> str:
    """Write the least and the largest of some numbers, once where they are equal.

    >>> span([3, 1, 2]), span([1200, 1200])
    ('1 to 3', '1,200')
    """
    low = min(numbers, default=0)
    high = max(numbers, default=0)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def short_name(model: str) -> str:
    """Return the last part of a hub id or path.

    >>> short_name("EleutherAI/gpt-j-6b"), short_name("models/mine/")
    ('gpt-j-6b', 'mine')
    """
    return model.replace("\\", "/").rstrip("/").split("/")[-1]


def _block(condition: Condition, split: str, trials: list[Trial], rows: dict[str, Rows]) -> Block:
    seeds = tuple(sorted({trial.setting.seed for trial in trials}))
    edits = tuple(pick for each in sorted({t.edits for t in trials}) if (pick := pick_of(each)))
    columns, ids = _columns({trial.rows for trial in trials}, rows)
    place = {edit: index for index, edit in enumerate((None, *edits))}
    line = {seed: index for index, seed in enumerate(seeds)}
    prompts = sorted({trial.setting.task for trial in trials})
    merits = np.full((len(prompts), len(place), len(seeds), len(ids)), np.nan)
    kept: dict[tuple[Pick | None, int], list[Trial]] = defaultdict(list)
    whole = {(t.edits, t.setting.seed) for t in trials if not t.split.is_part}
    for trial in trials:
        if trial.split.is_part and (trial.edits, trial.setting.seed) in whole:
            continue  # a first look at rows that were then read again
        assert trial.score is not None
        edit, seed = pick_of(trial.edits), trial.setting.seed
        asked = columns[trial.rows][trial.split.slice]
        prompt = prompts.index(trial.setting.task)
        merits[prompt, place[edit], line[seed], asked] = trial.score.row_merits
        kept[edit, seed].append(trial)
        kind = type(trial.score)
    means = merits.mean(axis=0)  # NaN where a prompt is missing
    return Block(condition, split, seeds, ids, edits, kind, means[0], means[1:], dict(kept))


def _columns(
    digests: Collection[str], rows: dict[str, Rows]
) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """Give every row id of several splits one column, in the order in which they are met."""
    place: dict[str, int] = {}
    absent = [digest for digest in digests if digest not in rows]
    if absent:
        raise RunError(
            f"the run lacks the rows of split {absent[0][:12]}; it is damaged: restore it, or run"
            " it again"
        )
    columns = {
        digest: np.array([place.setdefault(row.id, len(place)) for row in rows[digest].rows])
        for digest in sorted(digests)
    }
    return columns, tuple(place)
