"""The cells of a linear-attention model: what clipping a matrix does to its bound and error."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.stats import spearmanr

from eckart.errors import EditError
from eckart.paper.functions.models import LinearAttentionModel
from eckart.paper.functions.readings import NOISE, Cases, Noise, TrajectoryReading, read
from eckart.records import Edit
from eckart.statistics.crossed import Estimate, seed_and_row_mean
from eckart.statistics.multiplicity import holm
from eckart.weights.anatomy import Anatomy
from eckart.weights.edits import Factors, clip

MATRICES = ("q", "k", "v", "attn")
"""What a linear model has to clip."""
CELL_RATES = (0.15, 0.3, 0.5, 0.65, 0.8)
"""They keep every rank from 5 to 1 of a matrix of width 6."""


@dataclass(frozen=True, eq=False)
class ClippedCell:
    """A model's readings before and after an edit, on the same prompts; `rank` is what it keeps of
    each of its matrices."""

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
        return self.after.bound - self.before.bound

    def to_json(self) -> dict[str, Any]:
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
    the live model, which is as it was when this returns, byte for byte.

    Of rates that leave the same rank the first counts alone. Other arguments as `read`; an
    EditError where a rate is not in [0, 1), or none is above 0.
    """
    if not any(rates):
        raise EditError("no rate above 0: there is nothing to clip; give some, such as 0.5,0.9")
    before, anatomy, factors = read(model, cases, noise, seed), Anatomy.of(model), Factors()
    cells: dict[tuple[int, str, int], ClippedCell] = {}
    for layer, part, rate in product(range(len(anatomy.layers)), MATRICES, rates):
        edit = Edit(layer, part, rate)
        with clip(model, edit, anatomy=anatomy, factors=factors) as clipped:
            place = layer, part, clipped[0].rank
            if rate and place not in cells:
                after = read(model, cases, noise, seed)
                cells[place] = ClippedCell(edit, place[-1], before, after)
    return list(cells.values())


def adjusted(cells: Sequence[ClippedCell]) -> Float[np.ndarray, " cells"]:
    """Return the p value of each cell's change of the loss, adjusted for the number of cells
    (Holm): leaving some out makes the others look surer than they are."""
    return holm([cell.loss.p_value for cell in cells])


def correlations(cells: Sequence[ClippedCell]) -> dict[str, dict[str, float | None]]:
    """Return whether what the theory says of one model's cells ranks them as what is measured:
    Spearman's correlation.

    Without an interval: cells of one model are every one that there is, and no sample of anything;
    other models would have other correlations, and one model does not say how different.

    Returns:
        By what is said, then by what is measured, the correlation of the changes; None where there
        are fewer than three cells, or changes are all alike.
    """
    measured = {name: [change(cell) for cell in cells] for name, change in MEASURED.items()}
    return {
        name: {what: _rank([change(cell) for cell in cells], y) for what, y in measured.items()}
        for name, change in SAID.items()
    }


def _rank(x: Sequence[float], y: Sequence[float]) -> float | None:
    ordered = len(x) > 2 and np.isfinite([x, y]).all() and np.ptp(x) > 0 and np.ptp(y) > 0
    return float(spearmanr(x, y).statistic) if ordered else None
