"""The clipping of a model that learns functions: every layer and rate, and Algorithm 1 with the
squared error as its score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from eckart.analysis.findings import find
from eckart.analysis.measured import Measured
from eckart.analysis.outcomes import Block
from eckart.errors import EditError, RunError
from eckart.paper.functions.task import FunctionTask
from eckart.records import Edit, Trial
from eckart.runs import Run
from eckart.selection.result import SearchResult
from eckart.statistics.crossed import seed_and_row_mean
from eckart.statistics.gain import Verdict, verdict
from eckart.statistics.scores import SQUARED_ERROR
from eckart.sweeps.grid import Sweep
from eckart.sweeps.sources import Sources, settle
from eckart.weights.models import LoadedModel


@dataclass(frozen=True, eq=False)
class Clipping:
    """What clipping does to a model that learns functions, on the test rows: to the unpruned model,
    to every edit that was scored, by part, and to what Algorithm 1 chose in each part; and why a
    trial has no score."""

    test: Block
    task: FunctionTask
    unpruned: Measured
    parts: dict[str, dict[Edit, Measured]]
    searches: tuple[SearchResult, ...]
    failed: tuple[str, ...]

    @property
    def cells(self) -> dict[Edit, Measured]:
        return {edit: found for of_part in self.parts.values() for edit, found in of_part.items()}

    def to_json(self) -> dict[str, Any]:
        return {
            "model": self.test.condition.model,
            "task": asdict(self.task),
            "metric": SQUARED_ERROR,
            "unpruned": self._error(None),
            "cells": [
                {
                    "edit": str(edit),
                    "error": self._error(edit),
                    "gain": found.gain and asdict(found.gain),
                    "adjusted": found.p_holm,
                }
                for edit, found in self.cells.items()
            ],
            "failed": list(self.failed),
            "algorithm1": [search.to_json() for search in self.searches],
        }

    def _error(self, edit: Edit | None) -> dict[str, Any]:
        """Return the mean over the seeds that scored; a trial scores all rows or none."""
        errors = -self.test.row_merits(edit)
        return asdict(seed_and_row_mean(errors[~np.isnan(errors).any(axis=1)], bounds=None))


def judged(found: Measured) -> Verdict:
    """Say what is sure of an edit, after correction for their number."""
    return verdict(found.gain, found.p_holm) if found.gain else "cannot tell"


def plan_clipping(
    model: LoadedModel,
    task: FunctionTask,
    parts: Sequence[str],
    rates: Sequence[float],
    layers: str | Sequence[int],
    seeds: Sequence[int],
) -> tuple[Sweep, Sources]:
    """Return the sweep over layers and rates, checked, and where its model and task come from; an
    EckartError where a part, a layer or a rate does not exist, or the model does not read the
    task."""
    if not any(rates):
        raise EditError("no rate above 0: there is nothing to clip; give some, such as 0.5,0.9")
    values = {
        "models": [{"name": model.name, "live": True}],
        "tasks": [{"name": task.name, "digest": task.digest}],
        "layers": layers,
        "parts": list(parts),
        "rates": list(rates),
        "seeds": list(seeds),
        "test": "all",
    }
    sources = Sources({model.name: model}, {task.full_name: task})
    return settle(Sweep.of(values), sources), sources


def gather(run: Run, task: FunctionTask, searches: Sequence[SearchResult] = ()) -> Clipping:
    """Return what the run of `plan_clipping`'s sweep says of each edit on the test rows; a RunError
    where the unpruned model has no score."""
    findings = find(run)
    conditions = findings.conditions  # of one model and one task
    test = findings.pair(conditions[0])[1] if conditions else None
    unpruned = findings.measured(test.condition, None, "test") if test else None
    if test is None or unpruned is None:
        raise RunError(
            f"run '{run.folder}' holds no test score of the unpruned model; let its sweep go on"
        )
    where = test.condition
    parts = {
        target.part: {
            edit: found
            for edit in findings.edits(target)
            if (found := findings.measured(where, edit, "test")) and found.gain
        }
        for target in findings.targets
    }
    failures = [trial for cell in findings.cells.values() for trial in cell.failures]
    return Clipping(
        test,
        task,
        unpruned,
        {part: cells for part, cells in parts.items() if cells},
        tuple(searches),
        tuple(sorted(_said(trial) for trial in failures if trial.split == "test")),
    )


def _said(trial: Trial) -> str:
    edits = ", ".join(map(str, trial.edits)) or "unpruned"
    return f"{edits}, seed {trial.setting.seed}: {trial.error}"
