"""A choice beside what costs nothing: fewer demonstrations, calibration and both, on the same test
rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Float

from eckart.records import SMALLEST, Trial
from eckart.runs import Run
from eckart.selection.controls import WORDS, Versus, adjusted, joined
from eckart.statistics.crossed import Estimate, mean_gain
from eckart.statistics.gain import sentence
from eckart.statistics.scores import Score

CALIBRATIONS = ("contextual", "batch")
"""Scorings that need no training; `batch` needs the same labels in every row."""
UNPRUNED = "the unpruned model"
MAJORITY = "the most frequent label"
NOT_READ = "not read yet"

_Draw: TypeAlias = tuple[str, int | None]
"""A task's full name, and the seed of its demonstrations; None where there are none."""


def ways(shots: int, scoring: str, choices: bool) -> dict[int, tuple[str, ...]]:
    """Return what the unpruned model can do otherwise at no cost: by the number of demonstrations,
    the scorings.

    Arguments:
        shots, scoring: what the choice was made with.
        choices: whether each row brings its own candidates.

    >>> ways(5, "sum", choices=False)[2], ways(5, "sum", choices=False)[5]
    (('sum', 'contextual', 'batch'), ('contextual', 'batch'))
    >>> ways(0, "mean", choices=True)
    {0: ('contextual',)}
    """
    plain, calibrated = ("mean", CALIBRATIONS[:1]) if choices else ("sum", CALIBRATIONS)
    scorings = dict.fromkeys((scoring, plain, *calibrated))
    return {
        fewer: tuple(way for way in scorings if (fewer, way) != (shots, scoring))
        for fewer in dict.fromkeys((shots, shots // 2, 0))
    }


@dataclass(frozen=True)
class Rival(Versus):
    """A choice against one of its rivals, on the rows that both were asked; p is adjusted for what
    is free alone.

    Arguments:
        name: in words.
        free: whether it is one of `ways`; the unpruned model and the most frequent label are none.
        accuracy, choice: the rival's and the choice's, means over the draws.
    """

    name: str
    free: bool
    accuracy: float | None = None
    choice: float | None = None
    gain: Estimate | None = field(default=None, kw_only=True)

    @property
    def described(self) -> str:
        """Its name where no table says what these are."""
        if self.free:
            return f"{UNPRUNED} with {self.name.replace(' with ', ' and ')}"
        return f"always answering {MAJORITY}" if self.name == MAJORITY else self.name

    @property
    def told(self) -> str:
        """The choice's gain over it, in numbers."""
        return sentence(_gain(self), "accuracy", p=self.p_adjusted if self.free else None)

    def to_json(self) -> dict[str, Any]:
        gain = self.gain and {**asdict(self.gain), "interval": list(self.gain.interval)}
        return {
            "name": self.name,
            "free": self.free,
            "accuracy": self.accuracy,
            "choice": self.choice,
            "gain": gain,
            "p_adjusted": self.p_adjusted,
            "error": self.error,
            "choice_does": WORDS[self.verdict] if self.gain else "not compared",
        }

    def __str__(self) -> str:
        """Say how the choice stands against it."""
        return f"{self.accuracy:.4f} against {self.choice:.4f}, choice less rival {self.told}"


@dataclass(frozen=True)
class Rivals:
    """A search's choice beside all that costs nothing.

    Arguments:
        clipped: whether anything is; otherwise the choice is the unpruned model.
        rows: how many the choice was asked, under any draw.
        each: the unpruned model, where it is not the choice; what is free; the most frequent label.
    """

    clipped: bool
    rows: int
    each: tuple[Rival, ...]

    @classmethod
    def in_run(cls, run: Run) -> Rivals | None:
        """Compare a search's choice with its rivals, as far as these were read; None before it was
        tested."""
        tested = [
            trial
            for trial in run.trials.values()
            if trial.split == "test"
            and trial.score is not None
            and all(edit.cut == SMALLEST for edit in trial.edits)
        ]
        unpruned = [trial for trial in tested if not trial.edits]
        clipped = [trial for trial in tested if trial.edits]
        chosen = clipped or unpruned
        if not chosen:
            return None
        bench = _Bench(run, chosen)
        own = chosen[0].setting
        several = any(row.choices for row in run.rows[chosen[0].rows].rows)
        free = [
            bench.free(_name(fewer, way, own.shots, own.scoring), fewer, way)
            for fewer, scorings in ways(own.shots, own.scoring, several).items()
            for way in scorings
        ]
        first = [bench.against(UNPRUNED, False, unpruned)] if clipped else []
        each = (*first, *adjusted(free), bench.majority())
        return cls(bool(clipped), len(bench.ids), each)

    @property
    def compared(self) -> list[Rival]:
        return [each for each in self.each if each.gain]

    @property
    def nearest(self) -> Rival:
        """The rival over which the choice gains least; one that is told to be better comes before
        one that is not."""
        return min(self.compared, key=lambda each: (each.verdict != "loss", _gain(each).mean))

    @property
    def helps(self) -> bool:
        """Whether clipping beats the unpruned model, everything that is free and the most frequent
        label. What gave no numbers is no rival."""
        rivals = [each for each in self.each if each.gain or each.error == NOT_READ]
        return self.clipped and all(each.verdict == "gain" for each in rivals)

    def to_json(self) -> dict[str, Any]:
        return {
            "says": str(self),
            "helps": self.helps,
            "rivals": [each.to_json() for each in self.each],
        }

    def __str__(self) -> str:
        """Say whether clipping helps; if not, which rival does as well or better, and what to
        do."""
        left = [f"{each.name} ({each.error})" for each in self.each if each.error]
        beside = f"; not compared with {joined(left)}" if left else ""
        free = sum(each.free for each in self.compared)
        said = f"{self._says()}{beside}; paired, Holm over {free} that are free."
        return said[0].upper() + said[1:]

    def _says(self) -> str:
        nearest = self.nearest
        gain, rows = _gain(nearest).mean, _gain(nearest).rows
        on = f" on the {rows} rows that both were asked" if rows < self.rows else ""
        numbers = f"{nearest}{on}"
        if self.helps:
            free = sum(each.free for each in self.compared)
            return (
                f"clipping helps: it beats {free} free rivals, {UNPRUNED} and {MAJORITY}; nearest"
                f" comes {nearest.name}, {numbers}"
            )
        if gain < 0 or (self.clipped and gain == 0):
            start = "clipping is not shown to help" if self.clipped else "nothing is clipped"
            doubt = "" if nearest.verdict == "loss" else "; these rows do not tell the two apart"
            if not doubt or not nearest.free:
                return f"{start}: {_advice(nearest)}: {numbers}{doubt}"
            return (
                f"{start}, and nothing that is free is told to be better; highest here comes"
                f" {nearest.name}: {numbers}{doubt}"
            )
        if not self.clipped:
            return f"nothing is clipped, and nothing that is free does better than {UNPRUNED}"
        close = [each.name for each in self.each if each.gain and each.verdict != "gain"]
        return (
            "clipping is not shown to help: it does best here, but cannot be told from"
            f" {joined(close)}, which cost nothing; score more test rows or draws, or use these"
            f" (nearest comes {nearest.name}, {numbers})"
        )


class _Bench:
    """Puts trials of a run beside its choice, draw by draw and row by row."""

    def __init__(self, run: Run, chosen: Sequence[Trial]) -> None:
        self.run = run
        self.chosen = chosen
        self.draws = sorted({_draw(trial) for trial in chosen}, key=str)
        every = (row.id for trial in chosen for row in run.rows[trial.rows].rows)
        self.ids = {name: place for place, name in enumerate(dict.fromkeys(every))}
        self.choice = self._merits(chosen)

    def free(self, name: str, shots: int, scoring: str) -> Rival:
        """Return the choice against one of the ways that are free."""
        asked = (shots, scoring)
        trials = [t for t in self.run.rivals if (t.setting.shots, t.setting.scoring) == asked]
        return self.against(name, True, trials)

    def majority(self) -> Rival:
        """Return the choice against always answering the most frequent label."""
        labels = [label for trial in self.chosen for label in _score(trial).labels]
        most = max(sorted(set(labels)), key=labels.count)
        return self._compare(
            *(MAJORITY, False),
            self._merits(self.chosen, lambda score: [float(lab == most) for lab in score.labels]),
        )

    def against(self, name: str, free: bool, trials: Sequence[Trial]) -> Rival:
        """Return the choice against whatever these trials are of."""
        failed = next((trial.error for trial in trials if trial.score is None), None)
        if failed or not trials:
            return Rival(name, free, error=failed or NOT_READ)
        return self._compare(name, free, self._merits(trials))

    def _compare(self, name: str, free: bool, rival: Float[np.ndarray, "draws rows"]) -> Rival:
        gains = self.choice - rival
        gain = mean_gain(gains, Score)
        if gain is None:
            return Rival(name, free, error="fewer than two rows were asked of both")
        kept = (~np.isnan(gains)).sum(axis=1) >= 2
        known = np.where(np.isnan(gains[kept]), np.nan, 1.0)
        accuracy, choice = (
            float(np.nanmean(known * side[kept], axis=1).mean()) for side in (rival, self.choice)
        )
        return Rival(name, free, accuracy, choice, gain=gain, p_adjusted=gain.p_value)

    def _merits(
        self,
        trials: Iterable[Trial],
        of: Callable[[Score], Sequence[float]] = lambda score: score.row_merits,
    ) -> Float[np.ndarray, "draws rows"]:
        """Return what trials merit on the choice's rows under each seed, averaged over prompts; NaN
        where they were not asked."""
        by_draw = {_draw(trial): trial for trial in trials}
        values = np.full((len(self.draws), len(self.ids)), np.nan)
        for line, (task, seed) in zip(values, self.draws, strict=True):
            # Without demonstrations there is one draw alone.
            trial = by_draw.get((task, seed), by_draw.get((task, None)))
            if trial is None:
                continue
            rows = self.run.rows[trial.rows].rows
            for row, merit in zip(rows, of(_score(trial)), strict=True):
                if row.id in self.ids:
                    line[self.ids[row.id]] = merit
        seeds = np.array([seed or 0 for _, seed in self.draws])
        return np.array([values[seeds == seed].mean(axis=0) for seed in dict.fromkeys(seeds)])


def _gain(rival: Rival) -> Estimate:
    assert rival.gain is not None
    return rival.gain


def _score(trial: Trial) -> Score:
    assert isinstance(trial.score, Score)
    return trial.score


def _draw(trial: Trial) -> _Draw:
    return trial.setting.task, trial.setting.seed if trial.setting.shots else None


def _name(shots: int, scoring: str, own_shots: int, own_scoring: str) -> str:
    fewer = [f"{shots} demonstration{'s' * (shots != 1)}"] * (shots != own_shots)
    how = f"{scoring} calibration" if scoring in CALIBRATIONS else "plain scores"
    return " with ".join(fewer + [how] * (scoring != own_scoring))


def _advice(rival: Rival) -> str:
    """Say what to do where a rival is as good as the choice."""
    instead = {
        UNPRUNED: "leave the model unpruned",
        MAJORITY: f"nothing is learned, for {MAJORITY} alone does as well",
    }
    return instead.get(rival.name, f"use {rival.name}")
