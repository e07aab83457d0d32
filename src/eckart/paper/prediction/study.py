"""The whole question, over several runs: cells, agreements, screens, and the answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from eckart.analysis.claims import whole_layers
from eckart.analysis.findings import find
from eckart.analysis.outcomes import SPLITS
from eckart.errors import RunError
from eckart.paper.prediction.agreement import Agreement, agreements
from eckart.paper.prediction.predictors import predictors
from eckart.paper.prediction.probing import PredictedCell, ProbeOptions, cells, study_of
from eckart.paper.prediction.screens import LayerChoice, Screened, screened, units
from eckart.runs import Run
from eckart.scoring.scorer import Progress, silent

FEWEST_GROUPS = 3


@dataclass(frozen=True, eq=False)
class Prediction:
    """What theory says of practice, over some runs: every edit with what is said of it and what it
    gained, rank correlations of the two, and predictors that choose a layer (none where no run
    scored several layers whole on test rows)."""

    how: ProbeOptions
    cells: tuple[PredictedCell, ...]
    agreements: tuple[Agreement, ...]
    screens: tuple[Screened, ...]

    @property
    def groups(self) -> list[tuple[str, str]]:
        return sorted({cell.group for cell in self.cells})

    def agreement(self, split: str, among: str) -> list[Agreement]:
        return [found for found in self.agreements if (found.split, found.among) == (split, among)]

    def to_json(self) -> dict[str, Any]:
        beating = (s.screen for s in self.screens if s.theory and s.in_search.beats_random)
        return {
            **asdict(self.how),
            "floors": list(self.how.floors),
            "agreements": [found.to_json() for found in self.agreements],
            "screens": [screen.to_json() for screen in self.screens],
            "screens_that_beat_random": list(beating),
            "cells": [cell.to_json() for cell in self.cells],
        }


def predict(
    runs: Sequence[Run], how: ProbeOptions | None = None, progress: Progress = silent
) -> Prediction:
    """Ask whether the theory's quantities predict the gains that some sweeps measured.

    Models are read, clipped as the trials were, on the prompts of the trials; nothing is scored
    again, and no run is changed.

    Arguments:
        runs: of sweeps; their models and data where their settings say.
        how: how much is read; `ProbeOptions()` by default.
        progress: shows it.

    Raises:
        RunError: a run is no sweep's, its model or data changed, or there are fewer than three
            models and tasks.
        EckartError: a model or its data are gone, or a model cannot be probed.
    """
    how = how or ProbeOptions()
    studies = [study_of(run) for run in runs]
    found = [find(run) for run in runs]
    groups = {(w.model, w.task_name) for of_run in found for w in of_run.conditions if w.shots}
    if len(groups) < FEWEST_GROUPS:
        raise RunError(
            f"{len(groups)} pairs of a model and a task allow no interval: cells of one pair are no"
            f" independent evidence; give runs of at least {FEWEST_GROUPS}"
        )
    names = predictors(how.floors)
    every: list[PredictedCell] = []
    chosen_from: list[LayerChoice] = []
    for study, findings in zip(studies, found, strict=True):
        of_run = cells(findings, how, progress)
        every += of_run
        chosen_from += units(list(whole_layers(findings)), of_run, names, study.top_k)
    ranked = [agreement for split in SPLITS for agreement in agreements(every, names, split)]
    return Prediction(how, tuple(every), tuple(ranked), tuple(screened(chosen_from, names)))
