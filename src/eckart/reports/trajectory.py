"""Tables of a linear model's trajectory, bound and error."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from eckart.functions.cells import Cell
from eckart.functions.trajectory import Noise, Reading
from eckart.inference import Estimate
from eckart.rules import Bounded

BY_LAYER: dict[str, Callable[[Reading], np.ndarray]] = {
    "|Delta W_t|, t =": lambda reading: reading.updates,
    "|G_t|, t =": lambda reading: reading.steps,
    "|W_t|, t =": lambda reading: reading.weights,
    "norm half, nats, t =": lambda reading: reading.norm_terms,
    "-log det, nats, t =": lambda reading: -reading.log_determinants,
}
AT_ONCE: dict[str, Callable[[Reading], str]] = {
    "bound on the gap (R = 1/2)": lambda reading: f"{reading.bound:.3f}",
    "gap: loss, fresh less examples": lambda reading: _estimate(reading.gap),
    "loss: min(1, squared error / variance)": lambda reading: _estimate(reading.loss),
    "squared error / variance, mean": lambda reading: f"{reading.error:.3g}",
    "... median prompt": lambda reading: f"{np.median(reading.tested):.3g}",
    "... largest prompt": lambda reading: f"{reading.tested.max():.3g}",
}


def readings_table(readings: Mapping[str, Reading], residual: float, noise: Noise) -> RenderableType:
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
    rows += [[name, *(of(reading) for reading in readings.values())] for name, of in AT_ONCE.items()]
    title = (
        f"Theorem 1 against the model's own blocks: residual {residual:.1e}\n"
        f"N = {first.examples}, b = {noise.shots}, floor {noise.floor:g}, {len(first.tested):,} prompts; norms are "
        "medians"
    )
    return _titled(title, ["", *readings], rows)


def cells_table(cells: Sequence[Cell]) -> RenderableType:
    """Return what each cell does to the bound and to what is measured, as changes with 95% intervals."""
    rows = [
        [
            str(cell.edit),
            str(cell.rank),
            f"{cell.bound:+.3f}",
            _estimate(cell.gap, "+"),
            _estimate(cell.loss, "+"),
            f"{cell.after.error:.3g}",
        ]
        for cell in cells
    ]
    columns = ["clipped", "rank", "bound", "gap", "loss", "squared error / variance"]
    return _titled("changes by clipping, and the squared error after it", columns, rows)


def agreement_table(
    agreements: Mapping[str, Mapping[str, Mapping[str, Bounded]]], groups: str
) -> RenderableType:
    """Return whether what the theory says ranks the cells as what is measured.

    Arguments:
        agreements: of `agreement`, by the descent that they are of.
        groups: what the intervals take as independent.
    """
    columns = [f"{descent}: {what}" for descent, found in agreements.items() for what in _measured(found)]
    rows = [
        [said, *(_rank(found[said][what]) for found in agreements.values() for what in _measured(found))]
        for said in next(iter(agreements.values()))
    ]
    title = f"rank correlation of the changes, over cells (95%, new draws of {groups})"
    return _titled(title, ["change in", *columns], rows)


def _measured(found: Mapping[str, Mapping[str, Bounded]]) -> list[str]:
    return list(next(iter(found.values())))


def _estimate(estimate: Estimate, sign: str = "") -> str:
    low, high = estimate.interval
    return f"{estimate.mean:{sign}.3f} ({low:{sign}.3f} to {high:{sign}.3f})"


def _rank(rank: Bounded) -> str:
    low, high = rank.interval
    return f"{rank.value:+.2f} ({low:+.2f} to {high:+.2f})"


def _titled(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> RenderableType:
    table = Table(box=box.SIMPLE_HEAD)
    for index, column in enumerate(columns):
        table.add_column(column, justify="right" if index else "left")
    for row in rows:
        table.add_row(*map(Text, row))
    return Group(Text(title, style="bold"), table)
