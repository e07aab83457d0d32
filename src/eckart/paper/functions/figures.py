"""Figures of models that learn functions: squared error against the number of examples (Figure 5 of
the paper) and the clipping rate; a linear model's trajectory, and its bound beside its error."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from eckart.paper.functions.cells import MATRICES, ClippedCell
from eckart.paper.functions.classes import find_class
from eckart.paper.functions.clipping import Clipping, ErrorCell
from eckart.paper.functions.curves import Curve, ErrorCurves, StepCurves
from eckart.paper.functions.trajectory import TrajectoryReading
from eckart.reports.figures.accuracy import RateLine, RatePanel, draw_rate_panel
from eckart.reports.figures.base import (
    COLOURS,
    MARKERS,
    draw_banded,
    new_figure,
    plain_text,
    tidy,
)
from eckart.reports.table import ERRORS

STYLES = {
    name: (COLOURS[i + 1], MARKERS[i + 1])
    for i, name in enumerate(("least-squares", "ridge", "lasso", "tree", "3-nn", "averaging"))
}
"""A baseline has one colour and marker in every figure."""
OWN = (COLOURS[0], MARKERS[0])
EARLY, LATE = 0.92, 0.05
"""Where on the scale of colours the first and the last kept model of a training lie."""
LEAST_TOP = 1.5
SIZES = {"updates": "|ΔW_t|", "steps": "|G_t|", "weights": "|W_t|"}


@dataclass(frozen=True)
class CurveLine:
    """A curve as it is drawn.

    Arguments:
        curve: means and intervals by the number of examples.
        colour, marker, style: of the line.
        band: how opaque its interval is.
    """

    curve: Curve
    colour: Any
    marker: str
    style: str = "-"
    band: float = 0.15


def error_lines(curves: ErrorCurves) -> list[CurveLine]:
    """Return the lines of Figure 5a: baselines first, the model above them."""
    return [
        *(CurveLine(b, *STYLES[b.name]) for b in curves.baselines),
        CurveLine(curves.model, *OWN),
    ]


def step_lines(curves: StepCurves) -> list[CurveLine]:
    """Return the lines of Figure 5b: light for few steps, dark for many; least squares in black."""
    scale = mpl.colormaps["viridis"]
    last = max(len(curves.models) - 1, 1)
    places = [EARLY + (LATE - EARLY) * i / last for i in range(len(curves.models))]
    lines = [
        CurveLine(model, scale(place), "", band=0.08)
        for model, place in zip(curves.models, places, strict=True)
    ]
    return [*lines, CurveLine(curves.reference, "black", "", ":", band=0.0)]


@plain_text
def draw_error_curves(curves: ErrorCurves) -> Figure:
    """Draw a model's squared error beside baselines' against the number of examples, with 95% bands
    (Figure 5a)."""
    return _draw_curves(curves, error_lines(curves), max(curves.model.highs))


@plain_text
def draw_step_curves(curves: StepCurves) -> Figure:
    """Draw the squared errors of a training's models, with 95% bands, and least squares (Figure
    5b)."""
    return _draw_curves(curves, step_lines(curves), max(curves.models[-1].highs))


def _draw_curves(
    curves: ErrorCurves | StepCurves, lines: list[CurveLine], highest: float
) -> Figure:
    """Draw lines up to the main one's highest point; others may leave the frame."""
    figure, axes = new_figure()
    top = max(LEAST_TOP, 1.05 * highest)
    for line in lines:
        draw_banded(
            axes,
            curves.counts,
            line.curve.means,
            line.curve.lows,
            line.curve.highs,
            line.colour,
            line.band,
            marker=line.marker,
            linestyle=line.style,
            linewidth=1.4,
            label=line.curve.name,
        )
    axes.axhline(
        find_class(curves.function).error_of_0(curves.dimension),
        color="0.4",
        linestyle="--",
        linewidth=1,
        label="always 0",
    )
    axes.axvline(curves.dimension, color="0.85", linewidth=1, zorder=0)
    axes.annotate(
        f"d = {curves.dimension}",
        (curves.dimension, 1),
        (3, -3),
        size=8,
        color="0.4",
        va="top",
        xycoords=("data", "axes fraction"),
        textcoords="offset points",
    )
    axes.set_ylim(-0.02 * top, top)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    above = [line.curve.name for line in lines if max(line.curve.means) > top]
    axes.set_xlabel(
        "examples" + (f"   (above the frame in part: {', '.join(above)})" if above else "")
    )
    axes.set_ylabel("squared error / variance of f")
    axes.set_title(f"{curves.function}, {curves.n:,} prompts, 95% intervals", size=10)
    figure.legend(loc="outside right upper", frameon=False, fontsize=8)
    return figure


def clipping_panels(clipping: Clipping) -> list[RatePanel]:
    """Gather what is drawn of each part: one line a layer, from the unpruned model on."""
    panels = []
    for part in dict.fromkeys(cell.edit.part for cell in clipping.cells):
        cells = [cell for cell in clipping.cells if cell.edit.part == part]
        layers = sorted({cell.edit.layer for cell in cells})
        lines = (
            _rate_line(layer, [c for c in cells if c.edit.layer == layer], clipping)
            for layer in layers
        )
        always_0 = clipping.task.kind.error_of_0(clipping.task.dimension)
        panel = RatePanel(
            part, tuple(lines), clipping.unpruned.mean, (always_0, "always 0"), ERRORS
        )
        panels.append(panel)
    return panels


def _rate_line(layer: int, cells: Sequence[ErrorCell], clipping: Clipping) -> RateLine:
    errors = [clipping.unpruned, *(cell.error for cell in cells)]
    return RateLine(
        layer,
        rates=(0.0, *(cell.edit.rate for cell in cells)),
        means=tuple(error.mean for error in errors),
        lows=tuple(error.interval[0] for error in errors),
        highs=tuple(error.interval[1] for error in errors),
    )


@plain_text
def draw_clipping(panels: Sequence[RatePanel], title: str) -> Figure:
    """Draw the panels on one logarithmic scale, with 95% bands; rates are evenly spaced."""
    figure = Figure(figsize=(3.9 * len(panels) + 0.6, 3.9), layout="constrained")
    figure.suptitle(title, size=10)
    first: Axes | None = None
    for index, panel in enumerate(panels):
        axes = tidy(figure.add_subplot(1, len(panels), index + 1, sharey=first))
        first = first or axes
        looks = zip(cycle(COLOURS), cycle(MARKERS), strict=False)
        draw_rate_panel(axes, panel, {line.layer: next(looks) for line in panel.lines})
        axes.set_xlabel("clipping rate ξ", size=8)
        if index == 0:
            axes.set_ylabel("test squared error / variance of f", size=8)
    handles, names = figure.axes[0].get_legend_handles_labels()
    columns = min(len(names), 4 * len(panels))
    figure.legend(
        handles, names, loc="outside lower center", ncols=columns, frameon=False, fontsize=8
    )
    return figure


@dataclass(frozen=True)
class NormCurve:
    """One norm by layer.

    Arguments:
        name: what of.
        clipped: after an edit, or before.
        values: for t = 1 to L.
    """

    name: str
    clipped: bool
    values: tuple[float, ...]


@dataclass(frozen=True)
class CellPoint:
    """One clipped cell: by how much its bound and what is measured rose.

    Arguments:
        layer, part: what was clipped.
        bound, measured: the changes.
    """

    layer: int
    part: str
    bound: float
    measured: float


@dataclass(frozen=True)
class CellPanel:
    """What is measured against the bound, over cells.

    Arguments:
        measured: what it is, for the axis.
        points: one for each cell.
    """

    measured: str
    points: tuple[CellPoint, ...]


def norm_curves(
    before: TrajectoryReading, after: TrajectoryReading | None = None
) -> list[NormCurve]:
    """Gather the norms of a trajectory, and those after an edit where there is one."""
    readings = [(before, False)] + ([(after, True)] if after else [])
    return [
        NormCurve(name, clipped, tuple(getattr(reading, field).tolist()))
        for reading, clipped in readings
        for field, name in SIZES.items()
    ]


def cell_panels(exact: Sequence[ClippedCell], noisy: Sequence[ClippedCell]) -> list[CellPanel]:
    """Gather the cells of the model's own descent and of the noisy one that the bound is on."""
    return [
        CellPanel(
            "change in the loss",
            tuple(CellPoint(c.edit.layer, c.edit.part, c.bound, c.loss.mean) for c in exact),
        ),
        CellPanel(
            "change in the noisy descent's gap",
            tuple(CellPoint(c.edit.layer, c.edit.part, c.bound, c.gap.mean) for c in noisy),
        ),
    ]


@plain_text
def draw_trajectory(
    curves: Sequence[NormCurve], panels: Sequence[CellPanel], edit: str = "", of: str = ""
) -> Figure:
    """Draw norms by layer, and beside them each panel of cells.

    Arguments:
        curves: solid before, dashed after the edit.
        panels: one set of axes each; colours are layers and marks are parts.
        edit: what the dashed curves are after.
        of: which model all of it is of, where there are several.
    """
    figure = Figure(figsize=(4.2 * (1 + len(panels)), 3.9), layout="constrained")
    first, *others = figure.subplots(1, 1 + len(panels), squeeze=False)[0]
    _draw_norms(tidy(first), curves)
    for axes, panel in zip(others, panels, strict=True):
        _draw_cells(tidy(axes), panel)
    titles = [
        f"dashed: after {edit}" if edit else "the trajectory",
        *["a mark for each clipped cell"] * len(panels),
    ]
    for axes, title in zip([first, *others], titles, strict=True):
        axes.set_title(f"{of}; {title}" if of else title, fontsize=9)
    _legend(figure, panels)
    return figure


def _draw_norms(axes: Axes, curves: Sequence[NormCurve]) -> None:
    names = list(SIZES.values())
    for curve in curves:
        index = names.index(curve.name)
        axes.plot(
            range(1, len(curve.values) + 1),
            curve.values,
            color=COLOURS[index],
            marker=MARKERS[index],
            markersize=5,
            linestyle="--" if curve.clipped else "-",
            markerfacecolor="white" if curve.clipped else None,
            label=None if curve.clipped else curve.name,
        )
    axes.set_xticks(range(1, len(curves[0].values) + 1))
    axes.set(xlabel="t (layer t - 1)", ylabel="norm, median over prompts", ylim=(0, None))
    axes.legend(frameon=False, fontsize=8)


def _draw_cells(axes: Axes, panel: CellPanel) -> None:
    for point in panel.points:
        axes.plot(
            point.bound,
            point.measured,
            color=COLOURS[point.layer % len(COLOURS)],
            marker=MARKERS[MATRICES.index(point.part)],
            markersize=5,
            alpha=0.6,
            linestyle="none",
        )
    axes.axhline(0, color="0.8", linewidth=0.8, zorder=0)
    axes.axvline(0, color="0.8", linewidth=0.8, zorder=0)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.set(xlabel="change in the bound", ylabel=panel.measured)


def _legend(figure: Figure, panels: Sequence[CellPanel]) -> None:
    points = [point for panel in panels for point in panel.points]
    if not points:
        return
    layers = sorted({point.layer for point in points})
    handles = [
        Line2D(
            [],
            [],
            color=COLOURS[layer % len(COLOURS)],
            marker="o",
            linestyle="none",
            label=f"layer {layer}",
        )
        for layer in layers
    ]
    handles += [
        Line2D([], [], color="0.4", marker=MARKERS[index], linestyle="none", label=part)
        for index, part in enumerate(MATRICES)
    ]
    figure.legend(
        handles=handles, loc="outside lower right", ncols=len(handles), frameon=False, fontsize=8
    )
