"""What a run measured: every cell's accuracy and gain, with their certainty."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from eckart.analysis.outcomes import Block, Condition, blocks, edit_of
from eckart.records import Edit, Trial
from eckart.runs import Run
from eckart.scores import Score
from eckart.statistics.crossed import Estimate, seed_and_row_mean
from eckart.statistics.multiplicity import false_discovery, holm
from eckart.statistics.paired import paired_difference, wilson_interval


@dataclass(frozen=True)
class Measured:
    """What was measured of one edit, or of the unpruned model, on one split.

    Arguments:
        rows, seeds: how many of each were scored.
        accuracy, accuracy_interval: the mean over seeds of the share of rows that are right, and
            its 95% interval.
        balanced_accuracy, macro_f1, log_loss, majority_rate: means over the trials.
        by_seed: the accuracy under each seed.
        gain: right after less right before, by the same seed on the same row. None for the unpruned
            model, and where fewer than two rows were scored on both. Its p value is exact McNemar's
            where there is one seed.
        fixed, broken: pairs of a seed and a row that were wrong before and are right after, and the
            reverse.
        p_holm, p_fdr: the gain's p value, adjusted for all cells of the run on this split.
    """

    rows: int
    seeds: int
    accuracy: float
    accuracy_interval: tuple[float, float]
    balanced_accuracy: float
    macro_f1: float
    log_loss: float
    majority_rate: float
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
    edit: Edit | None
    measured: dict[str, Measured]
    failures: tuple[Trial, ...]
    seconds: float


@dataclass(frozen=True, eq=False)
class Measurements:
    """Everything that a run measured.

    Arguments:
        blocks: the matrices, by condition and split.
        cells: every edit and the unpruned model, by condition.
    """

    blocks: dict[tuple[Condition, str], Block]
    cells: dict[tuple[Condition, Edit | None], Cell]

    @property
    def conditions(self) -> list[Condition]:
        """Return the conditions, sorted."""
        return sorted({condition for condition, _ in self.cells})

    @property
    def units(self) -> list[tuple[Condition, str]]:
        """Return every condition with every part that was clipped in it, sorted."""
        return sorted({(where, edit.part) for where, edit in self.cells if edit is not None})

    def edits(self, condition: Condition, part: str) -> list[Edit]:
        """Return the edits of a part that were tried in a condition, sorted."""
        return sorted(e for where, e in self.cells if where == condition and e and e.part == part)

    def measured(self, condition: Condition, edit: Edit | None, split: str) -> Measured | None:
        """Return what was measured of an edit, or of the unpruned model."""
        cell = self.cells.get((condition, edit))
        return cell.measured.get(split) if cell else None


def measure_run(run: Run) -> Measurements:
    """Measure every cell of a run, and compare it with the unpruned model."""
    gathered = blocks(run)
    return Measurements(gathered, _adjusted(_cells(run, gathered)))


def measure(block: Block, edit: Edit | None) -> Measured:
    """Measure an edit, or the unpruned model, in a block."""
    right = block.outcomes(edit)
    asked = ~np.isnan(right)
    seeds = asked.any(axis=1)
    means = {block.seeds[i]: float(right[i, asked[i]].mean()) for i in np.flatnonzero(seeds)}
    scores = block.scores(edit)
    plain = Measured(
        rows=int(asked.any(axis=0).sum()),
        seeds=len(means),
        accuracy=float(np.mean(list(means.values()))),
        accuracy_interval=accuracy_interval(right[seeds]),
        balanced_accuracy=_mean(scores, "balanced_accuracy"),
        macro_f1=_mean(scores, "macro_f1"),
        log_loss=_mean(scores, "log_loss"),
        majority_rate=_mean(scores, "majority_rate"),
        by_seed=means,
    )
    return plain if edit is None else _with_gain(plain, right - block.unpruned)


def mean_gain(gains: Float[np.ndarray, "seeds rows"]) -> Estimate | None:
    """Average gains over seeds and rows; None where no seed has two rows.

    No gain is beyond 100 points, so neither is the interval. For one seed it and the p value are
    those that a search reports: Bonett and Price's, and exact McNemar's.
    """
    known = gains[(~np.isnan(gains)).sum(axis=1) >= 2]
    if len(known) == 0:
        return None
    found = seed_and_row_mean(known)
    if len(known) > 1:
        low, high = found.interval
        return replace(found, interval=(max(-1.0, low), min(1.0, high)))
    row = known[0][~np.isnan(known[0])]
    paired = paired_difference((row < 0).tolist(), (row > 0).tolist())
    return replace(found, interval=paired.interval, p_value=paired.p_value)


def accuracy_interval(right: Float[np.ndarray, "seeds rows"]) -> tuple[float, float]:
    """Return the 95% interval of a mean accuracy: Wilson's where there is one seed."""
    asked = ~np.isnan(right)
    if len(right) == 1 or asked.sum(axis=1).min() < 2:
        return wilson_interval(int(np.nansum(right)), int(asked.sum()))
    low, high = seed_and_row_mean(right, bounds=(0.0, 1.0)).interval
    return max(0.0, low), min(1.0, high)


def _with_gain(plain: Measured, gains: Float[np.ndarray, "seeds rows"]) -> Measured:
    fixed, broken = int((gains > 0).sum()), int((gains < 0).sum())
    return replace(plain, gain=mean_gain(gains), fixed=fixed, broken=broken)


def _mean(scores: Sequence[Score], name: str) -> float:
    return float(np.mean([getattr(score, name) for score in scores]))


def _cells(
    run: Run, gathered: dict[tuple[Condition, str], Block]
) -> dict[tuple[Condition, Edit | None], Cell]:
    trials: dict[tuple[Condition, Edit | None], list[Trial]] = defaultdict(list)
    for trial in run.trials.values():
        if len(trial.edits) <= 1:
            trials[Condition.of(trial), edit_of(trial)].append(trial)
    splits = sorted({split for _, split in gathered})
    return {
        (condition, edit): Cell(
            condition,
            edit,
            measured=_by_split(condition, edit, gathered, splits),
            failures=tuple(trial for trial in kept if trial.score is None),
            seconds=sum(trial.seconds for trial in kept),
        )
        for (condition, edit), kept in trials.items()
    }


def _by_split(
    condition: Condition,
    edit: Edit | None,
    gathered: dict[tuple[Condition, str], Block],
    splits: list[str],
) -> dict[str, Measured]:
    found = {split: gathered.get((condition, split)) for split in splits}
    return {
        split: measure(block, edit)
        for split, block in found.items()
        if block is not None and block.scores(edit)
    }


def _adjusted(
    cells: dict[tuple[Condition, Edit | None], Cell],
) -> dict[tuple[Condition, Edit | None], Cell]:
    """Adjust every gain's p value for all cells that were measured on the same split."""
    kept = dict(cells)
    for split in {split for cell in cells.values() for split in cell.measured}:
        keys = [
            k for k, cell in cells.items() if split in cell.measured and cell.measured[split].gain
        ]
        p = [_gain(cells[key].measured[split]).p_value for key in keys]
        for key, by_holm, by_share in zip(keys, holm(p), false_discovery(p), strict=True):
            measured = replace(
                kept[key].measured[split], p_holm=float(by_holm), p_fdr=float(by_share)
            )
            kept[key] = replace(kept[key], measured={**kept[key].measured, split: measured})
    return kept


def _gain(measured: Measured) -> Estimate:
    assert measured.gain is not None
    return measured.gain
