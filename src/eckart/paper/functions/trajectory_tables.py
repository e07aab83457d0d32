"""Tables of a linear model's trajectory, bound and error."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import numpy as np
from rich.console import RenderableType

from eckart.paper.functions.cells import ClippedCell, adjusted
from eckart.paper.functions.trajectory import Noise, TrajectoryReading
from eckart.reports.terminal import Sheet, titled
from eckart.statistics.crossed import Estimate
from eckart.statistics.grids import Bounded

T = TypeVar("T")

BY_LAYER: dict[str, Callable[[TrajectoryReading], np.ndarray]] = {
    "|Delta W_t|, t =": lambda reading: reading.updates,
    "|G_t|, t =": lambda reading: reading.steps,
    "|W_t|, t =": lambda reading: reading.weights,
    "norm half, nats, t =": lambda reading: reading.norm_terms,
    "-log det, nats, t =": lambda reading: -reading.log_determinants,
}
AT_ONCE: dict[str, Callable[[TrajectoryReading], str]] = {
    "bound on the gap (R = 1/2)": lambda reading: f"{reading.bound:.3f}",
    "gap: loss, fresh less examples": lambda reading: _estimate(reading.gap),
    "loss: min(1, squared error / variance)": lambda reading: _estimate(reading.loss),
    "squared error / variance, mean": lambda reading: f"{reading.error:.3g}",
    "... median prompt": lambda reading: f"{np.median(reading.tested):.3g}",
    "... largest prompt": lambda reading: f"{reading.tested.max():.3g}",
}


def readings_table(
    readings: Mapping[str, TrajectoryReading], residual: float, noise: Noise
) -> RenderableType:
    """Return readings side by side: norms and terms by layer, then bound and error.

    Arguments:
        readings: by what they are of.
        residual: of Theorem 1 against the model's own blocks.
        noise: of the bound.
    """
    first = next(iter(readings.values()))
    rows = [
        [f"{name} {t + 1}", *(f"{of(reading)[t]:.4g}" for reading in readings.values())]
        for name, of in BY_LAYER.items()
        for t in range(len(first.steps))
    ]
    rows += [
        [name, *(of(reading) for reading in readings.values())] for name, of in AT_ONCE.items()
    ]
    title = (
        f"Theorem 1 against the model's own blocks: residual {residual:.1e}\nN = {first.examples},"
        f" b = {noise.shots}, floor {noise.floor:g}, {len(first.tested):,} prompts; norms are"
        " medians"
    )
    return titled(title, Sheet(["", *readings], rows))


def cells_table(cells: Sequence[ClippedCell]) -> RenderableType:
    """Return what each cell does to the bound and to what is measured, as changes with 95%
    intervals.

    The intervals are each cell's own; the p value of the loss is adjusted for the number of cells.
    """
    rows = [
        [
            str(cell.edit),
            str(cell.rank),
            f"{cell.bound:+.3f}",
            _estimate(cell.gap, "+"),
            _estimate(cell.loss, "+"),
            f"{p:.2g}",
            f"{cell.after.error:.3g}",
        ]
        for cell, p in zip(cells, adjusted(cells), strict=True)
    ]
    columns = [
        "clipped",
        "rank",
        "bound",
        "gap",
        "loss",
        "its p (Holm)",
        "squared error / variance",
    ]
    title = (
        "changes by clipping, and the squared error after it\nintervals: 95%, of each cell alone;"
        f" p: that the loss does not change, adjusted for {len(cells)} cells"
    )
    return titled(title, Sheet(columns, rows, names=0))


def agreement_table(
    agreements: Mapping[str, Mapping[str, Mapping[str, Bounded]]],
) -> RenderableType:
    """Return whether what the theory says ranks the cells of several models as what is measured.

    Arguments:
        agreements: of `agreement`, with the models as groups, by the descent that they are of.
    """
    title = "rank correlation of the changes, over cells (95%, new draws of models)"
    return _correlated(title, agreements, _rank)


def correlation_table(
    found: Mapping[str, Mapping[str, Mapping[str, float | None]]],
) -> RenderableType:
    """Return whether what the theory says ranks one model's cells as what is measured.

    Arguments:
        found: of `correlations`, by the descent that they are of.
    """
    title = (
        "rank correlation of the changes, over the cells of this one model\n"
        "no interval: other models would have others, and one does not say how different"
    )
    return _correlated(title, found, lambda rank: "-" if rank is None else f"{rank:+.2f}")


def _correlated(
    title: str, found: Mapping[str, Mapping[str, Mapping[str, T]]], written: Callable[[T], str]
) -> RenderableType:
    first = next(iter(found.values()))
    measured = list(next(iter(first.values())))
    columns = [f"{descent}: {what}" for descent in found for what in measured]
    rows = [
        [said, *(written(of[said][what]) for of in found.values() for what in measured)]
        for said in first
    ]
    return titled(title, Sheet(["change in", *columns], rows))


def _estimate(estimate: Estimate, sign: str = "") -> str:
    low, high = estimate.interval
    return f"{estimate.mean:{sign}.3f} ({low:{sign}.3f} to {high:{sign}.3f})"


def _rank(rank: Bounded) -> str:
    low, high = rank.interval
    return f"{rank.value:+.2f} ({low:+.2f} to {high:+.2f})"
