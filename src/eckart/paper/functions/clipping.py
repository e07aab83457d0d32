"""The clipping of a model that learns functions: every layer and rate, and Algorithm 1 with the
squared error as its score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from eckart.analysis.findings import find
from eckart.analysis.outcomes import Block
from eckart.errors import EditError, RunError
from eckart.paper.functions.task import FunctionTask
from eckart.records import Edit, Trial
from eckart.runs import Run
from eckart.selection.result import SearchResult
from eckart.statistics.crossed import Estimate, seed_and_row_mean
from eckart.statistics.gain import verdict
from eckart.statistics.scores import SQUARED_ERROR
from eckart.sweeps.grid import Sweep
from eckart.sweeps.sources import Sources, settle
from eckart.weights.models import LoadedModel


@dataclass(frozen=True)
class ErrorCell:
    """One edit on the test rows, over all seeds.

    Arguments:
        edit: what was clipped.
        error: mean squared error, over the variance of f, with its interval.
        gain: by how much it is smaller than the unpruned model's, on the same rows and
            demonstrations.
        adjusted: the gain's p value, adjusted for the number of cells (Holm).
    """

    edit: Edit
    error: Estimate
    gain: Estimate
    adjusted: float

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "edit": str(self.edit)}


@dataclass(frozen=True)
class Clipping:
    """What clipping does to a model that learns functions.

    Arguments:
        model, task: what was scored on what.
        unpruned: its error on the test rows.
        cells: every edit that was scored, by part, layer and rate.
        searches: Algorithm 1's result for each part.
        failed: test trials without a score, and why; a cell without any is not among the cells.
    """

    model: str
    task: FunctionTask
    unpruned: Estimate
    cells: tuple[ErrorCell, ...]
    searches: tuple[SearchResult, ...]
    failed: tuple[str, ...] = ()

    def surely(self, level: float = 0.05) -> tuple[list[ErrorCell], list[ErrorCell]]:
        """Return the cells that are better, and those that are worse, after correction for their
        number."""
        said = [(cell, verdict(cell.gain, cell.adjusted, level)) for cell in self.cells]
        better = [cell for cell, word in said if word == "gain"]
        return better, [cell for cell, word in said if word == "loss"]

    def to_json(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "task": asdict(self.task),
            "metric": SQUARED_ERROR,
            "unpruned": asdict(self.unpruned),
            "cells": [cell.to_json() for cell in self.cells],
            "failed": list(self.failed),
            "algorithm1": [search.to_json() for search in self.searches],
        }


def plan_clipping(
    model: LoadedModel,
    task: FunctionTask,
    parts: Sequence[str],
    rates: Sequence[float],
    layers: str | Sequence[int],
    seeds: Sequence[int],
) -> tuple[Sweep, Sources]:
    """Return the sweep over layers and rates, checked, and where its model and task come from.

    Raises:
        EckartError: a part, a layer or a rate does not exist, or the model does not read the task.
    """
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
    return settle(Sweep.of(values, "the sweep"), sources), sources


def gather(run: Run, task: FunctionTask, searches: Sequence[SearchResult] = ()) -> Clipping:
    """Return what a sweep's run says of each edit on the test rows.

    Arguments:
        run: of `plan_clipping`'s sweep.
        task: the sweep's.
        searches: Algorithm 1's results.

    Raises:
        RunError: the unpruned model has no score.
    """
    findings = find(run)
    conditions = findings.conditions  # of one model and one task
    test = findings.pair(conditions[0])[1] if conditions else None
    if test is None or not test.outcomes(None):
        raise RunError(
            f"run '{run.folder}' holds no test score of the unpruned model; let its sweep go on"
        )
    cells = []
    for target in findings.targets:
        for edit in findings.edits(target):
            measured = findings.measured(test.condition, edit, "test")
            if measured and measured.gain and measured.p_holm is not None:
                error = _error(test, edit)
                cells.append(ErrorCell(edit, error, measured.gain, measured.p_holm))
    failures = [trial for cell in findings.cells.values() for trial in cell.failures]
    return Clipping(
        model=test.condition.model,
        task=task,
        unpruned=_error(test, None),
        cells=tuple(cells),
        searches=tuple(searches),
        failed=tuple(sorted(_said(trial) for trial in failures if trial.split == "test")),
    )


def _error(block: Block, edit: Edit | None) -> Estimate:
    """Return the mean error over the seeds that scored; a trial scores all rows or none."""
    errors = -block.row_merits(edit)
    return seed_and_row_mean(errors[~np.isnan(errors).any(axis=1)], bounds=None)


def _said(trial: Trial) -> str:
    edits = ", ".join(map(str, trial.edits)) or "unpruned"
    return f"{edits}, seed {trial.setting.seed}: {trial.error}"
