"""The cells of finished sweeps: every edit with what the theory says of it and what it was measured
to gain."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from eckart.analysis.findings import Findings
from eckart.analysis.outcomes import Condition
from eckart.errors import RunError
from eckart.paper.prediction.predictors import (
    CONDITION,
    DEPTH,
    FLOORS,
    RATE,
    bound_changes,
    implicit_changes,
)
from eckart.paper.probe import Prober
from eckart.records import Edit, Trial
from eckart.reports.table import finite
from eckart.runs import Run
from eckart.scoring.scorer import Progress, silent
from eckart.sweeps.grid import ModelEntry, Sweep
from eckart.sweeps.sources import Sources
from eckart.tasks.task import Task
from eckart.weights.conditioning import layer_condition_numbers
from eckart.weights.models import LoadedModel
from eckart.weights.spectrum import exact_matrices, spectra

Drawn = tuple[str, str, int]
"""A model, a task, and the number of demonstrations: a condition without its scoring, which is
nothing to the probe."""
Said = dict[str, float]


@dataclass(frozen=True)
class ProbeOptions:
    """How much is read of a run's models.

    Arguments:
        prompts: validation rows of each draw of demonstrations, from the beginning. Their labels
            are not read.
        seeds: draws of demonstrations, at most, the first of the run's.
        floors: of the bound, as shares of `Probe.mean_variance`.
        device: see `load_model`.
    """

    prompts: int = 4
    seeds: int = 2
    floors: tuple[float, ...] = FLOORS
    device: str = "auto"


@dataclass(frozen=True)
class PredictedCell:
    """An edit in a condition of a run.

    Arguments:
        run: the run's folder.
        condition, edit: which.
        said: by predictor, what is known of it without labels; means over draws of demonstrations.
        gains: by split, the mean gain over seeds and rows.
    """

    run: str
    condition: Condition
    edit: Edit
    said: Said
    gains: dict[str, float]

    @property
    def group(self) -> tuple[str, str]:
        """The model and the task without its variant: cells that share both are no independent
        evidence."""
        return self.condition.model, self.condition.task_name

    def to_json(self) -> dict[str, Any]:
        return {
            "run": self.run,
            **asdict(self.condition),
            "edit": str(self.edit),
            "said": {name: finite(value) for name, value in self.said.items()},
            "gains": self.gains,
        }


def study_of(run: Run) -> Sweep:
    """Return the grid of a sweep's run; a RunError where it is a search's, or holds no scored edit
    with demonstrations."""
    grid = run.asked.grid
    if run.asked.kind != "sweep" or not grid:
        raise RunError(
            f"run '{run.folder}' is no sweep's, so its edits lie in one layer; give the folder of"
            " an eckart sweep"
        )
    scored = [trial for trial in run.trials.values() if trial.labelled and len(trial.edits) == 1]
    if not any(trial.setting.shots for trial in scored):
        what = (
            "no scored edits"
            if not scored
            else "edits without demonstrations alone, which have no implicit gradient"
        )
        raise RunError(
            f"run '{run.folder}' holds {what}; give a sweep over tasks with demonstrations"
        )
    # An empty list is what a study left out.
    said = {name: value for name, value in grid.items() if value != []}
    return Sweep.of(said, f"run '{run.folder}'")


def cells(
    findings: Findings, how: ProbeOptions, progress: Progress = silent
) -> list[PredictedCell]:
    """Probe a run's models, clipped as its trials were, and set what they say beside what was
    measured.

    A RunError where it is no sweep's, or its model or rows are no longer those of its trials; an
    EckartError where its models or data are gone, or a model cannot be probed.
    """
    probed = _Probed(findings, how)
    said: dict[tuple[Drawn, Edit], Said] = {}
    for entry in probed.study.models:
        model = probed.model(entry)
        numbers = {part: probed.condition_numbers(model, part) for part in probed.study.parts}
        for drawn in sorted({_of(w) for w in findings.conditions if w.model == entry.name}):
            if not drawn[2]:
                continue  # no demonstrations
            for edit, values in probed.said(model, drawn, progress).items():
                said[drawn, edit] = {
                    **values,
                    CONDITION: numbers[edit.part][edit.layer],
                    RATE: edit.rate,
                    DEPTH: float(edit.layer),
                }
    found = []
    for (where, clipped), cell in findings.cells.items():
        gains = {split: m.gain.mean for split, m in cell.measured.items() if m.gain}
        if isinstance(clipped, Edit) and gains and (_of(where), clipped) in said:
            values = said[_of(where), clipped]
            found.append(PredictedCell(str(findings.run.folder), where, clipped, values, gains))
    return found


def _of(where: Condition) -> Drawn:
    return where.model, where.task, where.shots


class _Probed:
    """A run whose models are read once more, as its trials read them."""

    def __init__(self, findings: Findings, how: ProbeOptions) -> None:
        self.findings, self.run, self.how = findings, findings.run, how
        self.study = study_of(findings.run)
        self.sources = Sources()

    def model(self, entry: ModelEntry) -> LoadedModel:
        """Load the very weights that the trials are of, and compute with them in float32, where
        outputs can be checked."""
        kept = self.run.models.get(entry.name, {})
        asked = {"device": self.how.device, "dtype": kept.get("dtype", entry.dtype)}
        model = self.sources.model(entry if entry.live else entry.model_copy(update=asked))
        if kept.get("fingerprint", model.fingerprint) != model.fingerprint:
            raise RunError(
                f"model '{entry.name}' is no longer the one of run '{self.run.folder}': its"
                " weights, configuration or tokenizer changed; bring the old one back, or run the"
                " sweep again with another --out"
            )
        return replace(model, model=model.model.float())

    def condition_numbers(self, model: LoadedModel, part: str) -> dict[int, float]:
        """Return what the run noted of a part by layer; measured where it did not."""
        return self.findings.condition_numbers(model.name, part) or layer_condition_numbers(
            spectra(exact_matrices(model, part)), self.study.combine
        )

    def said(self, model: LoadedModel, drawn: Drawn, progress: Progress) -> dict[Edit, Said]:
        """Return what the probe says of every edit of a task, as means over draws of its
        demonstrations."""
        edits = sorted(
            {e for where, e in self.findings.cells if isinstance(e, Edit) and _of(where) == drawn}
        )
        seeds = sorted({trial.setting.seed for trial in self._trials(drawn)})[: self.how.seeds]
        readings: dict[Edit, list[Said]] = {edit: [] for edit in edits}
        name = f"{drawn[1]}, {drawn[2]} shots, edits probed"
        with progress(name, len(edits) * len(seeds)) as advance:
            for seed in seeds:
                prober = self._prober(model, drawn, seed)
                for edit, said in _moved(prober, self.how.floors, edits):
                    readings[edit].append(said)
                    advance(1)
        return {
            edit: {name: float(np.mean([said[name] for said in own])) for name in own[0]}
            for edit, own in readings.items()
        }

    def _trials(self, drawn: Drawn) -> list[Trial]:
        trials = self.run.trials.values()
        return [t for t in trials if (t.setting.model, t.setting.task, t.setting.shots) == drawn]

    def _prober(self, model: LoadedModel, drawn: Drawn, seed: int) -> Prober:
        """Return a prober of the prompts that the trials of one seed are of."""
        entry = next(task for task in self.study.tasks if task.full_name == drawn[1])
        task = self.sources.task(entry, drawn[2], seed)
        rows = self.sources.scorer(self.study, task, model).rows("validation").digest
        scored = {
            trial.rows
            for trial in self._trials(drawn)
            if trial.setting.seed == seed and trial.split.name == "validation"
        }
        if scored and rows not in scored:
            raise RunError(
                f"task '{drawn[1]}' no longer has the rows of run '{self.run.folder}': its data"
                " changed; bring the old back, or run the sweep again with another --out"
            )
        if not isinstance(task, Task):
            raise RunError(
                f"task '{drawn[1]}' of run '{self.run.folder}' is no text, and the probe reads"
                " texts; give another run"
            )
        return Prober(
            model,
            task,
            prompts=self.how.prompts,
            truncate_demonstrations=self.study.truncate_demonstrations,
            drop_long_rows=self.study.drop_long_rows,
        )


def _moved(
    prober: Prober, floors: Sequence[float], edits: list[Edit]
) -> Iterator[tuple[Edit, Said]]:
    before = prober()
    scale = before.mean_variance
    for edit in edits:
        after = prober(edit)
        moved = {f: before.at(f * scale).compare(after.at(f * scale)) for f in floors}
        yield edit, {**implicit_changes(before.compare(after)), **bound_changes(moved)}
