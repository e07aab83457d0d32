"""The tables of functions: error curves, and a linear model's trajectory, bound and error."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from eckart.paper.functions.cells import MEASURED, ClippedCell, adjusted
from eckart.paper.functions.curves import Curve, Curves, ErrorCurves, StepCurves
from eckart.paper.functions.readings import Noise, TrajectoryReading
from eckart.reports.table import FORMATS, Column, Table
from eckart.statistics.crossed import Estimate

NOTE = (
    "95% intervals, Student's over the prompts; squared errors have heavy tails, which they take"
    " too lightly"
)
STEPS_NOTE = "means over the prompts; their 95% intervals are in the figure (--plot) and in --json"

ESTIMATE = FORMATS["estimate"]
BY_LAYER: dict[str, Callable[[TrajectoryReading], np.ndarray]] = {
    "|Delta W_t|, t =": lambda reading: reading.updates,
    "|G_t|, t =": lambda reading: reading.steps,
    "|W_t|, t =": lambda reading: reading.weights,
    "norm half, nats, t =": lambda reading: reading.norm_terms,
    "-log det, nats, t =": lambda reading: -reading.log_determinants,
}
AT_ONCE: dict[str, Callable[[TrajectoryReading], str]] = {
    "bound on the gap (R = 1/2)": lambda reading: f"{reading.bound:.3f}",
    "gap: loss, fresh less examples": lambda reading: ESTIMATE(_triple(reading.gap)),
    "loss: min(1, squared error / variance)": lambda reading: ESTIMATE(_triple(reading.loss)),
    "squared error / variance, mean": lambda reading: f"{reading.error:.3g}",
    "... median prompt": lambda reading: f"{np.median(reading.tested):.3g}",
    "... largest prompt": lambda reading: f"{reading.tested.max():.3g}",
}


def error_table(curves: ErrorCurves) -> Table:
    """Return errors by the number of examples, a model's beside the baselines', and its excess over
    least squares."""
    columns: dict[Column, Iterable[Any]] = {
        Column("model", curves.model.name, "estimate"): _bounded(curves.model),
        **{Column(f"baseline {b.name}", b.name, "decimals"): b.means for b in curves.baselines},
        Column("excess", "excess over least squares", "estimate"): _bounded(curves.excess),
    }
    return _by_count(curves, columns, NOTE)


def step_table(curves: StepCurves) -> Table:
    """Return errors by the number of examples, a column for each kept model of a training."""
    shown = (*curves.models, curves.reference)
    columns = {Column(curve.name, curve.name, "decimals"): curve.means for curve in shown}
    return _by_count(curves, columns, STEPS_NOTE)


def _by_count(curves: Curves, columns: Mapping[Column, Iterable[Any]], note: str) -> Table:
    keys = [column.key for column in columns]
    rows = [
        {"examples": count, "n": curves.n, **dict(zip(keys, of_count, strict=True))}
        for count, *of_count in zip(curves.counts, *columns.values(), strict=True)
    ]
    title = f"{curves.function}, d = {curves.dimension}: squared error over the variance of f"
    examples, n = Column("examples", "examples", "count"), Column("n", "n", "count")
    return Table("errors", title, note, (examples, *columns, n), rows)


def _bounded(curve: Curve) -> Iterable[tuple[float, float, float]]:
    return zip(curve.means, curve.lows, curve.highs, strict=True)


def _triple(found: Estimate) -> tuple[float, float, float]:
    return (found.mean, *found.interval)


def readings_table(
    readings: Mapping[str, TrajectoryReading], residual: float, noise: Noise
) -> Table:
    """Return readings side by side, by what they are of: norms and terms by layer, then bound and
    error."""
    first = next(iter(readings.values()))
    rows = [
        {"": f"{quantity} {t + 1}"} | {name: f"{of(r)[t]:.4g}" for name, r in readings.items()}
        for quantity, of in BY_LAYER.items()
        for t in range(len(first.steps))
    ]
    rows += [
        {"": quantity} | {name: of(reading) for name, reading in readings.items()}
        for quantity, of in AT_ONCE.items()
    ]
    title = (
        f"Theorem 1 against the model's own blocks: residual {residual:.1e}\nN = {first.examples},"
        f" b = {noise.shots}, floor {noise.floor:g}, {len(first.tested):,} prompts; norms are"
        " medians"
    )
    columns = (Column("", ""), *(Column(name, name, "written") for name in readings))
    return Table("readings", title, "", columns, rows)


def cells_table(cells: Sequence[ClippedCell]) -> Table:
    """Return what each cell does to the bound and to what is measured, as changes with 95%
    intervals.

    The intervals are each cell's own; the p value of the loss is adjusted for the number of cells.
    """
    columns = (
        Column("clipped", "clipped", "written"),
        Column("rank", "rank", "count"),
        Column("bound", "bound", "written"),
        Column("gap", "gap", "difference"),
        Column("loss", "loss", "difference"),
        Column("p", "its p (Holm)", "p"),
        Column("error", "squared error / variance", "written"),
    )
    rows = [
        {
            "clipped": str(cell.edit),
            "rank": cell.rank,
            "bound": f"{cell.bound:+.3f}",
            "gap": _triple(cell.gap),
            "loss": _triple(cell.loss),
            "p": p,
            "error": f"{cell.after.error:.3g}",
        }
        for cell, p in zip(cells, adjusted(cells), strict=True)
    ]
    title = (
        "changes by clipping, and the squared error after it\nintervals: 95%, of each cell alone;"
        f" p: that the loss does not change, adjusted for {len(cells)} cells"
    )
    return Table("cells", title, "", columns, rows)


def correlation_table(found: Mapping[str, Mapping[str, Mapping[str, float | None]]]) -> Table:
    """Return whether what the theory says ranks one model's cells as what is measured:
    `correlations`, by the descent that they are of."""
    columns = [Column("", "change in")]
    rows: dict[str, dict[str, str]] = {}
    for descent, by_said in found.items():
        for measured in MEASURED:
            pair = f"{descent}: {measured}"
            columns.append(Column(pair, pair, "written"))
            for said, ranks in by_said.items():
                rank = ranks[measured]
                row = rows.setdefault(said, {"": said})
                row[pair] = "-" if rank is None else f"{rank:+.2f}"
    title = (
        "rank correlation of the changes, over the cells of this one model\n"
        "no interval: other models would have others, and one does not say how different"
    )
    return Table("correlations", title, "", tuple(columns), list(rows.values()))
