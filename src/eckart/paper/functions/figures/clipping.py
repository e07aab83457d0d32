"""Squared error against the clipping rate, one panel a part, one line a layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from eckart.paper.functions.clipping import Cell, Clipping
from eckart.reports.figures.base import COLOURS, MARKERS, plain_text, tidy


@dataclass(frozen=True)
class Line:
    """A layer's errors by rate; the first is the unpruned model's."""

    layer: int
    rates: tuple[float, ...]
    errors: tuple[float, ...]
    lows: tuple[float, ...]
    highs: tuple[float, ...]


@dataclass(frozen=True)
class Panel:
    """A part's lines, the rates of all of them, and the errors of the unpruned model and of always
    answering 0."""

    part: str
    lines: tuple[Line, ...]
    unpruned: float
    rates: tuple[float, ...]
    always_0: float


def clipping_panels(clipping: Clipping) -> list[Panel]:
    """Gather what is drawn of each part."""
    parts = dict.fromkeys(cell.edit.part for cell in clipping.cells)
    panels = []
    for part in parts:
        cells = [cell for cell in clipping.cells if cell.edit.part == part]
        layers = sorted({cell.edit.layer for cell in cells})
        lines = tuple(
            _line(layer, [c for c in cells if c.edit.layer == layer], clipping) for layer in layers
        )
        rates = (0.0, *sorted({cell.edit.rate for cell in cells}))
        always_0 = clipping.task.kind.error_of_0(clipping.task.dimension)
        panels.append(Panel(part, lines, clipping.unpruned.mean, rates, always_0))
    return panels


@plain_text
def draw_clipping(panels: Sequence[Panel], title: str) -> Figure:
    """Draw the panels on one logarithmic scale, with 95% bands; rates are evenly spaced."""
    figure = Figure(figsize=(3.9 * len(panels) + 0.6, 3.9), layout="constrained")
    figure.suptitle(title, size=10)
    first: Axes | None = None
    for index, panel in enumerate(panels):
        axes = tidy(figure.add_subplot(1, len(panels), index + 1, sharey=first))
        first = first or axes
        _draw(axes, panel)
        if index == 0:
            axes.set_ylabel("test squared error / variance of f", size=8)
    handles, names = figure.axes[0].get_legend_handles_labels()
    columns = min(len(names), 4 * len(panels))
    figure.legend(
        handles, names, loc="outside lower center", ncols=columns, frameon=False, fontsize=8
    )
    return figure


def _line(layer: int, cells: Sequence[Cell], clipping: Clipping) -> Line:
    points = [(0.0, clipping.unpruned), *((cell.edit.rate, cell.error) for cell in cells)]
    return Line(
        layer,
        rates=tuple(rate for rate, _ in points),
        errors=tuple(error.mean for _, error in points),
        lows=tuple(error.interval[0] for _, error in points),
        highs=tuple(error.interval[1] for _, error in points),
    )


def _draw(axes: Axes, panel: Panel) -> None:
    for line, colour, marker in zip(panel.lines, cycle(COLOURS), cycle(MARKERS), strict=False):
        x = [panel.rates.index(rate) for rate in line.rates]
        axes.fill_between(x, line.lows, line.highs, color=colour, alpha=0.12, linewidth=0)
        axes.plot(
            x,
            line.errors,
            color=colour,
            marker=marker,
            markersize=4,
            linewidth=1.3,
            label=f"layer {line.layer}",
        )
    axes.axhline(panel.unpruned, color="0.25", linestyle="--", linewidth=1, label="unpruned")
    axes.axhline(panel.always_0, color="0.55", linestyle=":", linewidth=1, label="always 0")
    axes.set_yscale("log")
    axes.set_xticks(range(len(panel.rates)), [f"{rate:g}" for rate in panel.rates], size=7)
    axes.set_xlabel("clipping rate ξ", size=8)
    axes.tick_params(axis="y", labelsize=7)
    axes.set_title(panel.part, size=9)
