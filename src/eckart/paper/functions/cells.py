"""The cells of a linear-attention model: what clipping a matrix does to its bound and error."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.stats import spearmanr

from eckart.errors import EditError
from eckart.paper.functions.models import LinearAttentionModel
from eckart.paper.functions.trajectory import NOISE, Cases, Noise, TrajectoryReading, read
from eckart.records import Edit
from eckart.statistics.crossed import Estimate, seed_and_row_mean
from eckart.statistics.grids import Bounded, rank_correlation
from eckart.statistics.multiplicity import holm
from eckart.weights.anatomy import Anatomy
from eckart.weights.edits import Factors, clip

MATRICES = ("q", "k", "v", "attn")
"""What a linear model has to clip."""
CELL_RATES = (0.15, 0.3, 0.5, 0.65, 0.8)
"""They keep every rank from 5 to 1 of a matrix of width 6."""


@dataclass(frozen=True, eq=False)
class ClippedCell:
    """A model before and after an edit, on the same prompts.

    Arguments:
        edit: one layer, one part, one rate.
        rank: what the edit keeps of each of its matrices.
        before, after: the readings.
    """

    edit: Edit
    rank: int
    before: TrajectoryReading
    after: TrajectoryReading

    @cached_property
    def loss(self) -> Estimate:
        """By how much the loss on fresh points rose."""
        return seed_and_row_mean((self.after.tested_loss - self.before.tested_loss)[None])

    @cached_property
    def gap(self) -> Estimate:
        """By how much the generalisation error rose."""
        gaps = [reading.tested_loss - reading.trained_loss for reading in (self.before, self.after)]
        return seed_and_row_mean((gaps[1] - gaps[0])[None], bounds=(-2.0, 2.0))

    @property
    def bound(self) -> float:
        """By how much the bound rose."""
        return self.after.bound - self.before.bound

    def to_json(self) -> dict[str, Any]:
        """Return the edit, every change, and the reading after it as JSON values."""
        return {
            "edit": str(self.edit),
            "rank": self.rank,
            "changes": {name: float(change(self)) for name, change in {**SAID, **MEASURED}.items()},
            "after": self.after.to_json(),
        }


SAID: dict[str, Callable[[ClippedCell], float]] = {
    "bound": lambda cell: cell.bound,
    "norm half": lambda cell: float((cell.after.norm_terms - cell.before.norm_terms).sum()),
    "log-determinant half": lambda cell: float(
        (cell.before.log_determinants - cell.after.log_determinants).sum()
    ),
    "sum of |G_t|": lambda cell: float(cell.after.steps.sum() / cell.before.steps.sum()) - 1,
    "|W_L|": lambda cell: float(cell.after.weights[-1] / cell.before.weights[-1]) - 1,
}
"""What the theory says of a cell, each as a change: the bound and its two halves (the signs are
those with which they enter the bound), and norms as a share of the unclipped."""

MEASURED: dict[str, Callable[[ClippedCell], float]] = {
    "loss": lambda cell: cell.loss.mean,
    "gap": lambda cell: cell.gap.mean,
}
"""What is measured of a cell, as a change."""


def clip_cells(
    model: LinearAttentionModel,
    cases: Cases,
    rates: Sequence[float] = CELL_RATES,
    noise: Noise = NOISE,
    seed: int | None = None,
) -> list[ClippedCell]:
    """Clip every matrix of every layer, and all three of a layer, at every rate; one at a time, on
    the live model.

    Arguments:
        model: as it was before when this returns, byte for byte.
        cases: the prompts of every reading.
        rates: the clipping rates; of those that leave the same rank the first counts alone.
        noise: of the bound.
        seed: draws this noise, the same in every cell, into every step; None for the model's own,
            exact ones.

    Raises:
        EditError: a rate is not in [0, 1), or none is above 0.
        EckartError: as `read`.
    """
    if not any(rates):
        raise EditError("no rate above 0: there is nothing to clip; give some, such as 0.5,0.9")
    before, anatomy, factors = read(model, cases, noise, seed), Anatomy.of(model), Factors()
    cells: dict[tuple[int, str, int], ClippedCell] = {}
    for edit in [
        Edit(layer, part, rate)
        for layer in range(len(anatomy.layers))
        for part in MATRICES
        for rate in rates
    ]:
        with clip(model, edit, anatomy=anatomy, factors=factors) as clipped:
            rank = clipped[0].rank
            if edit.rate and (edit.layer, edit.part, rank) not in cells:
                after = read(model, cases, noise, seed)
                cells[edit.layer, edit.part, rank] = ClippedCell(edit, rank, before, after)
    return list(cells.values())


def adjusted(cells: Sequence[ClippedCell]) -> Float[np.ndarray, " cells"]:
    """Return the p value of each cell's change of the loss, adjusted for the number of cells
    (Holm).

    Arguments:
        cells: all that are looked at, of all models: leaving some out makes the others look surer
            than they are.
    """
    return holm([cell.loss.p_value for cell in cells])


def surely(cells: Sequence[ClippedCell], level: float = 0.05) -> list[int]:
    """Say of each cell whether the loss surely rises (1), surely falls (-1), or neither (0).

    Arguments:
        cells: all that are looked at, as for `adjusted`.
        level: with at most this probability any of them is called wrongly.
    """
    found = zip(cells, adjusted(cells), strict=True)
    return [int(np.sign(cell.loss.mean)) if p <= level else 0 for cell, p in found]


def correlations(cells: Sequence[ClippedCell]) -> dict[str, dict[str, float | None]]:
    """Return whether what the theory says of one model's cells ranks them as what is measured:
    Spearman's correlation.

    Without an interval: cells of one model are every one that there is, and no sample of anything;
    other models would have other correlations, and one model does not say how different.
    `agreement` is for several.

    Returns:
        By what is said, then by what is measured, the correlation of the changes; None where there
        are fewer than three cells, or changes are all alike.
    """
    said, measured = (
        {n: _changes(cells, of) for n, of in every.items()} for every in (SAID, MEASURED)
    )
    return {name: {what: _rank(x, y) for what, y in measured.items()} for name, x in said.items()}


def _rank(x: np.ndarray, y: np.ndarray) -> float | None:
    ordered = len(x) > 2 and np.isfinite([x, y]).all() and np.ptp(x) > 0 and np.ptp(y) > 0
    return float(spearmanr(x, y).statistic) if ordered else None


def agreement(
    cells: Sequence[ClippedCell], groups: Sequence[Hashable]
) -> dict[str, dict[str, Bounded]]:
    """Return whether what the theory says of cells ranks them as what is measured: Spearman's
    correlation.

    Arguments:
        cells: of several models.
        groups: each cell's model, as for `rank_correlation`.

    Returns:
        By what is said, then by what is measured, the correlation of the changes, with its
        interval.

    Raises:
        EckartError: fewer than three groups, or changes that are all alike.
    """
    measured = {name: _changes(cells, change) for name, change in MEASURED.items()}
    return {
        name: {
            what: rank_correlation(_changes(cells, change), y, groups)
            for what, y in measured.items()
        }
        for name, change in SAID.items()
    }


def _changes(cells: Sequence[ClippedCell], change: Callable[[ClippedCell], float]) -> np.ndarray:
    return np.array([change(cell) for cell in cells])
