"""The measurements of a run: every cell's mean and gain, with their certainty."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace

import numpy as np

from eckart.analysis.outcomes import Block, Condition, Pick, measurable, pick_of
from eckart.records import Trial
from eckart.runs import Run
from eckart.statistics.crossed import Estimate, mean_gain, merit_interval, turned
from eckart.statistics.multiplicity import false_discovery, holm
from eckart.statistics.scores import Outcome, Score


@dataclass(frozen=True)
class Measured:
    """What was measured of one edit, or of the unpruned model, on one split.

    Arguments:
        rows, seeds: how many of each were scored.
        mean, interval: the mean over seeds of the accuracy, or of the squared error, and its 95%
            interval.
        others: means over the trials of what is reported beside it, such as `macro_f1`.
        by_seed: the mean under each seed.
        gain: merits after less merits before, by the same seed on the same row: above 0 where more
            is right, or the error smaller. None for the unpruned model, and where fewer than two
            rows were scored on both. For labels under one seed its p value is exact McNemar's.
        fixed, broken: pairs of a seed and a row that are better after, and worse.
        p_holm, p_fdr: the gain's p value, adjusted for all cells of the run on this split.
    """

    rows: int
    seeds: int
    mean: float
    interval: tuple[float, float]
    others: dict[str, float]
    by_seed: dict[int, float]
    gain: Estimate | None = None
    fixed: int = 0
    broken: int = 0
    p_holm: float | None = None
    p_fdr: float | None = None


@dataclass(frozen=True)
class Cell:
    """One edit in one condition.

    Arguments:
        condition, edit: which cell it is; the edit is None for the unpruned model.
        measured: by split.
        failures: the trials that failed.
        seconds: what its trials took together.
    """

    condition: Condition
    edit: Pick | None
    measured: dict[str, Measured]
    failures: tuple[Trial, ...]
    seconds: float


Cells = dict[tuple[Condition, Pick | None], Cell]
Blocks = dict[tuple[Condition, str], Block]


def measure_cells(run: Run, blocks: Blocks) -> Cells:
    """Measure every edit in every condition, and compare it with the unpruned model."""
    trials: dict[tuple[Condition, Pick | None], list[Trial]] = defaultdict(list)
    for trial in measurable(run):
        trials[Condition.of(trial, run.asked.prompts), pick_of(trial.edits)].append(trial)
    splits = sorted({split for _, split in blocks})
    cells = {
        (condition, edit): Cell(
            condition,
            edit,
            measured={
                split: measure(block, edit)
                for split in splits
                if (block := blocks.get((condition, split))) and block.outcomes(edit)
            },
            failures=tuple(trial for trial in kept if trial.score is None),
            seconds=sum(trial.seconds for trial in kept),
        )
        for (condition, edit), kept in trials.items()
    }
    return _adjusted(cells)


def measure(block: Block, edit: Pick | None) -> Measured:
    """Measure an edit, or the unpruned model, in a block."""
    merits = block.row_merits(edit)
    asked = ~np.isnan(merits)
    seeds = asked.any(axis=1)
    means = {block.seeds[i]: float(merits[i, asked[i]].mean()) for i in np.flatnonzero(seeds)}
    outcomes = block.outcomes(edit)
    measured = Measured(
        rows=int(asked.any(axis=0).sum()),
        seeds=len(means),
        mean=reported(block.kind, float(np.mean(list(means.values())))),
        interval=merit_interval(merits[seeds], block.kind),
        others={
            name: float(np.mean([getattr(outcome, name) for outcome in outcomes]))
            for name in block.kind.others
        },
        by_seed={seed: reported(block.kind, mean) for seed, mean in means.items()},
    )
    if edit is None:
        return measured
    gains = merits - block.unpruned
    fixed, broken = turned(gains)
    return replace(measured, gain=mean_gain(gains, block.kind), fixed=fixed, broken=broken)


def reported(kind: type[Outcome], merit: float) -> float:
    """Return a mean merit as it is reported: an error is positive."""
    return merit if kind is Score else -merit


def _adjusted(cells: Cells) -> Cells:
    """Adjust every gain's p value for all cells that were measured on the same split."""
    kept = dict(cells)
    for split in {split for cell in cells.values() for split in cell.measured}:
        gains = {
            key: measured.gain
            for key, cell in cells.items()
            if (measured := cell.measured.get(split)) and measured.gain
        }
        p = [gain.p_value for gain in gains.values()]
        for key, by_holm, by_share in zip(gains, holm(p), false_discovery(p), strict=True):
            measured = replace(
                kept[key].measured[split], p_holm=float(by_holm), p_fdr=float(by_share)
            )
            kept[key] = replace(kept[key], measured={**kept[key].measured, split: measured})
    return kept
