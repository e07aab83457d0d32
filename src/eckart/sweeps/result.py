"""The result of a sweep: of each unit, scoring and part the best on validation, and its test."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from eckart.algorithm1 import best_edit, control_arms
from eckart.errors import numbered
from eckart.records import Edit, Setting, Trial
from eckart.runs import Run, folder_name
from eckart.selection.controls import Against, against, controls_sentence
from eckart.selection.guarded import Guarded
from eckart.statistics.gain import counted, mean_text, sentence, verdict
from eckart.statistics.paired import PairedDifference, compare
from eckart.statistics.scores import SQUARED_ERROR, Shown, shown

Trials = Mapping[tuple[Edit, ...], Trial]


@dataclass(frozen=True)
class Line:
    """A unit's best edit of a part under a scoring.

    Arguments:
        setting: the unit and the scoring.
        part: what is clipped.
        metric: what is compared on validation.
        candidates: how many edits were tried on validation.
        rows: the number of validation rows.
        unpruned: the unpruned model's validation score; None where it could not be scored.
        edit: the best on validation; None where none is better than the unpruned model.
        best: its validation score.
        test: clipped against unpruned on the same test rows; None where they were not looked at, or
            nothing is clipped.
        controls: the edit against each of its control arms on the test rows; None where they were
            not asked for, none where nothing is clipped.
        guarded: what else the edit did; None where nobody asked, or nothing is clipped.
    """

    setting: Setting
    part: str
    metric: str
    candidates: int
    rows: int
    unpruned: float | None
    edit: Edit | None
    best: float | None
    test: PairedDifference | None
    controls: tuple[Against, ...] | None = None
    guarded: Guarded | None = None

    def to_json(self) -> dict[str, Any]:
        values = {**asdict(self), "edit": self.edit and str(self.edit)}
        del values["controls"], values["guarded"]
        if self.controls is not None:
            values["controls"] = [arm.to_json() for arm in self.controls]
        return values | ({"guard": self.guarded.to_json()} if self.guarded else {})

    def __str__(self) -> str:
        s = self.setting
        unit = (
            f"{folder_name(s.model)}, {s.task}, shots {s.shots}, seed {s.seed}, {s.scoring},"
            f" {self.part}"
        )
        if self.unpruned is None:
            return f"{unit}: the unpruned model cannot be scored"
        before = mean_text(self.unpruned, self.metric)
        validation = f"{unit}: validation {self.metric.replace('_', ' ')} {before}"
        if self.edit is None:
            return f"{validation} (n = {self.rows}); none of {self.candidates} edits does better"
        assert self.best is not None
        found = (
            f"{validation} -> {mean_text(self.best, self.metric)} at {self.edit} (best of"
            f" {self.candidates}; n = {self.rows})"
        )
        harm = f". {self.guarded}" if self.guarded else ""
        if self.test is None:
            return f"{found}; not tested{harm}"
        accuracy = "" if self.metric == SQUARED_ERROR else "accuracy "
        gain = sentence(self.test, self.metric, f"n = {self.test.n}")
        arms = f"; {controls_sentence(self.controls)}" if self.controls else ""
        return f"{found}; test {accuracy}{gain}{arms}{harm}"


@dataclass(frozen=True, repr=False)
class SweepResult(Shown):
    """A sweep's run, read back.

    Arguments:
        run: its settings, trials, rows and spectra.
    """

    run: Run

    @cached_property
    def lines(self) -> tuple[Line, ...]:
        """One line for each unit, scoring and part, in the order of their settings."""
        by_setting: dict[Setting, dict[str, dict[tuple[Edit, ...], Trial]]] = defaultdict(
            lambda: {"validation": {}, "test": {}}
        )
        for trial in self.run.trials.values():
            by_setting[trial.setting][trial.split][trial.edits] = trial
        return tuple(
            line
            for setting in sorted(by_setting)
            for line in self._lines(
                setting, by_setting[setting]["validation"], by_setting[setting]["test"]
            )
        )

    def _lines(self, setting: Setting, validation: Trials, test: Trials) -> Iterator[Line]:
        asked = self.run.asked
        metric = asked.metric(setting.task)
        values = {
            edits: t.score.merits[metric] for edits, t in validation.items() if t.score is not None
        }
        unpruned = values.get(())
        for part in asked.parts:
            tried = [edits for edits in validation if edits and edits[0].part == part]
            of_part = {edits[0]: values[edits] for edits in tried if edits in values}
            edit = None if unpruned is None else best_edit(of_part, unpruned)
            yield Line(
                setting=setting,
                part=part,
                metric=metric,
                candidates=len(tried),
                rows=max(
                    (t.score.n for t in validation.values() if t.score is not None), default=0
                ),
                unpruned=None if unpruned is None else shown(metric, unpruned),
                edit=edit,
                best=None if edit is None else shown(metric, of_part[edit]),
                test=None if edit is None else _compared(test.get(()), test.get((edit,))),
                controls=_against(edit, test) if asked.grid.get("controls") else None,
                guarded=None if edit is None else self._guarded(setting.model, edit),
            )

    def _guarded(self, model: str, edit: Edit) -> Guarded | None:
        return Guarded.in_run(self.run, model, (edit,))

    def to_json(self) -> dict[str, Any]:
        return {
            "run": str(self.run.folder),
            "settings": self.run.settings,
            "models": self.run.models,
            "trials": len(self.run.trials),
            "failed": sum(trial.status == "failed" for trial in self.run.trials.values()),
            "spectra": len(self.run.spectra),
            "lines": [line.to_json() for line in self.lines],
        }

    def verdict(self) -> str:
        """Say of how many choices the test rows show a gain or a loss, or neither; not corrected
        for their number."""
        told = counted(verdict(line.test) for line in self.lines if line.test)
        rest = {
            "with nothing clipped": sum(
                line.unpruned is not None and line.edit is None for line in self.lines
            ),
            "not tested": sum(line.edit is not None and line.test is None for line in self.lines),
            "not scored": sum(line.unpruned is None for line in self.lines),
        }
        others = [f"{count} {what}" for what, count in rest.items() if count]
        tested = [f"{told} on test rows"] if told else []
        return f"{numbered(len(self.lines), 'choice')}: {', '.join([*tested, *others])}"

    def __str__(self) -> str:
        return "\n".join(map(str, self.lines))


def _against(choice: Edit | None, test: Trials) -> tuple[Against, ...]:
    tested = None if choice is None else test.get((choice,))
    if choice is None or tested is None:
        return ()
    arms = (test.get((arm,)) for arm in control_arms(choice, droppable=True))
    return against(tested, filter(None, arms))


def _compared(unpruned: Trial | None, clipped: Trial | None) -> PairedDifference | None:
    if unpruned is None or clipped is None or unpruned.score is None or clipped.score is None:
        return None
    return compare(unpruned.score, clipped.score)
