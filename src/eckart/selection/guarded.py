"""The harm that an edit did besides what it was chosen for, on a text and on other tasks, from the
trials of the guard."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from eckart.errors import RunError, numbered
from eckart.records import Edits, Setting, Trial, or_null
from eckart.runs import Run
from eckart.statistics.harm import Harm, TextHarm, harm, rows_needed
from eckart.statistics.paired import PairedDifference, compare
from eckart.statistics.scores import TEXT_PREFIX, Score, TextReading

NOT_SCORED = "the clipped model could not be scored"


@dataclass(frozen=True)
class TaskHarm:
    """An edit on the test rows of a task that did not choose it.

    Arguments:
        setting: the task, its demonstrations and its scoring.
        margin: the largest loss that does not matter, in points.
        unpruned, clipped: the two accuracies; None where the clipped model could not be scored.
        change: of the accuracy, on the same rows.
    """

    setting: Setting
    margin: float
    unpruned: float
    clipped: float | None
    change: PairedDifference | None

    @property
    def verdict(self) -> Harm:
        """See `harm`. A model whose outputs are no numbers is worse at everything."""
        return "worse" if self.change is None else harm(self.change, self.margin)

    @property
    def needed(self) -> int | None:
        """How many rows would tell, were there no change; None where these do, or none would."""
        if self.change is None or self.verdict != "cannot tell":
            return None
        return rows_needed(self.change, self.margin)

    def to_json(self) -> dict[str, Any]:
        return {
            "task": self.setting.task,
            "shots": self.setting.shots,
            "seed": self.setting.seed,
            "scoring": self.setting.scoring,
            "unpruned": self.unpruned,
            "clipped": self.clipped,
            "change": self.change and self.change.to_json(),
            "verdict": self.verdict,
            "rows_needed": self.needed,
        }

    def __str__(self) -> str:
        name, found = self.setting.task, self.change
        if found is None:
            return f"{name}: worse ({NOT_SCORED})"
        low, high = found.interval
        numbers = (
            f"{100 * found.difference:+.2f} points, 95% interval {100 * low:+.2f} to"
            f" {100 * high:+.2f}"
        )
        if self.verdict != "cannot tell":
            return f"{name}: {self.verdict} ({numbers}; n = {found.n})"
        enough = f"; about {self.needed:,} would do if nothing changes" if self.needed else ""
        return f"{name}: cannot tell with n = {found.n} rows ({numbers}{enough})"


@dataclass(frozen=True)
class Guarded:
    """What an edit did to a model, on a text and on tasks that did not choose it.

    Arguments:
        edits: what was clipped.
        margin: by how many points a task's accuracy may fall.
        text: the harm on the text; None where the clipped model could not be scored on it.
        text_name: which text it is.
        tasks: the harm on each task.
    """

    edits: Edits
    margin: float
    text: TextHarm | None
    text_name: str
    tasks: tuple[TaskHarm, ...]

    @classmethod
    def of(cls, edits: Edits, trials: Iterable[Trial], margin: float) -> Guarded:
        """Compare the trials of an edit with those of the unpruned model.

        Arguments:
            edits: as trials name them.
            trials: of the guard's text and tasks, in the order in which they are shown.

        Raises:
            RunError: the unpruned model could not be scored on one of them.
        """
        found: dict[Setting, dict[Edits, Trial]] = defaultdict(dict)
        model: str | None = None
        for trial in trials:  # of one model, which may have been moved in between
            model = model or trial.setting.model
            found[replace(trial.setting, model=model)][trial.edits] = trial
        text, name, tasks = None, "", []
        for setting, by_edits in found.items():
            before, after = _outcomes(by_edits, edits)
            if isinstance(before, TextReading):
                name = setting.task.removeprefix(TEXT_PREFIX)
                text = TextHarm.of(before, after) if isinstance(after, TextReading) else None
            elif isinstance(before, Score):
                change = compare(before, after) if isinstance(after, Score) else None
                clipped = after.accuracy if isinstance(after, Score) else None
                tasks.append(TaskHarm(setting, margin, before.accuracy, clipped, change))
        return cls(edits, margin, text, name, tuple(tasks))

    @classmethod
    def in_run(cls, run: Run, model: str, edits: Edits) -> Guarded | None:
        """Return what a run's guard found of an edit; None where it finished nothing of it."""
        mine = [trial for trial in run.guarded if trial.setting.model == model]
        begun = {trial.setting for trial in mine if trial.edits == edits}
        whole = {t.setting for t in mine if not t.edits and t.score is not None} & begun
        found = [t for t in mine if t.setting in whole and t.edits in ((), edits)]
        if not found or run.margin is None:
            return None
        return cls.of(edits, sorted(found, key=lambda t: t.setting), run.margin)

    def to_json(self) -> dict[str, Any]:
        return {
            "edits": [str(edit) for edit in self.edits],
            "margin": self.margin,
            "text": {"name": self.text_name, **(_plain(self.text) if self.text else {})},
            "tasks": [task.to_json() for task in self.tasks],
        }

    def __str__(self) -> str:
        """Say it in one sentence."""
        said = [self._text_sentence(), *map(str, self.tasks)]
        margin = f" (margin {self.margin:g} point{'s' * (self.margin != 1)})" if self.tasks else ""
        edits = ", ".join(map(str, self.edits))
        return f"What else {edits} did{margin}: {'; '.join(said)}."

    def _text_sentence(self) -> str:
        found = self.text
        if found is None:
            return f"on the text '{self.text_name}' {NOT_SCORED}"
        around = [
            f" (95% interval {low:.4f} to {high:.4f})"
            for low, high in filter(None, (found.divergence_interval, found.ratio_interval))
        ]
        divergence, ratio = around or ("", "")
        return (
            f"on the text '{self.text_name}' ({numbered(found.windows, 'window')}, {found.tokens:,}"
            f" tokens) KL from the unpruned model {found.divergence:.4f} nats a token{divergence},"
            f" perplexity times {found.ratio:.4f}{ratio}"
        )


def _plain(found: TextHarm) -> dict[str, Any]:
    """Return plain values: a perplexity that is too large for a number is null."""
    return {
        name: [or_null(bound) for bound in value]
        if isinstance(value, tuple)
        else value and or_null(value)
        for name, value in asdict(found).items()
    }


def _outcomes(trials: Mapping[Edits, Trial], edits: Edits) -> tuple[Any, Any]:
    """Return the unpruned and the clipped model's outcomes."""
    before = trials[()].score
    if before is None:
        raise RunError(
            f"the unpruned model cannot be scored on the guard's {trials[()].setting.task}:"
            f" {trials[()].error}"
        )
    return before, trials[edits].score if edits in trials else None
