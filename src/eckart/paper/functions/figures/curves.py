"""Squared error against the number of examples: Figure 5 of the paper."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from eckart.paper.functions.classes import find_class
from eckart.reports.figures.base import COLOURS, MARKERS, new_figure, plain_text

if TYPE_CHECKING:
    from eckart.paper.functions.curves import Curve, ErrorCurves, StepCurves

STYLES = {
    name: (COLOURS[i + 1], MARKERS[i + 1])
    for i, name in enumerate(("least-squares", "ridge", "lasso", "tree", "3-nn", "averaging"))
}
"""A baseline has one colour and marker in every figure."""
OWN = (COLOURS[0], MARKERS[0])
EARLY, LATE = 0.92, 0.05
"""Where on the scale of colours the first and the last kept model of a training lie."""
LEAST_TOP = 1.5


@dataclass(frozen=True)
class Line:
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


def error_lines(curves: ErrorCurves) -> list[Line]:
    """Return the lines of Figure 5a: baselines first, the model above them."""
    return [*(Line(b, *STYLES[b.name]) for b in curves.baselines), Line(curves.model, *OWN)]


def step_lines(curves: StepCurves) -> list[Line]:
    """Return the lines of Figure 5b: light for few steps, dark for many; least squares in black."""
    scale, last = mpl.colormaps["viridis"], max(len(curves.models) - 1, 1)
    places = [EARLY + (LATE - EARLY) * i / last for i in range(len(curves.models))]
    lines = [
        Line(model, scale(place), "", band=0.08)
        for model, place in zip(curves.models, places, strict=True)
    ]
    return [*lines, Line(curves.reference, "black", "", ":", band=0.0)]


@plain_text
def draw_error_curves(curves: ErrorCurves) -> Figure:
    """Draw a model's squared error beside baselines' against the number of examples, with 95% bands
    (Figure 5a)."""
    return _draw(curves, error_lines(curves), max(curves.model.highs))


@plain_text
def draw_step_curves(curves: StepCurves) -> Figure:
    """Draw the squared errors of a training's models, with 95% bands, and least squares (Figure
    5b)."""
    return _draw(curves, step_lines(curves), max(curves.models[-1].highs))


def _draw(curves: ErrorCurves | StepCurves, lines: list[Line], highest: float) -> Figure:
    """Draw lines up to the main one's highest point; others may leave the frame."""
    figure, axes = new_figure()
    top = max(LEAST_TOP, 1.05 * highest)
    for line in lines:
        _draw_line(axes, curves.counts, line)
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


def _draw_line(axes: Axes, counts: tuple[int, ...], line: Line) -> None:
    curve = line.curve
    axes.fill_between(
        counts, curve.lows, curve.highs, color=line.colour, alpha=line.band, linewidth=0
    )
    axes.plot(
        counts,
        curve.means,
        color=line.colour,
        marker=line.marker,
        markersize=4,
        linewidth=1.4,
        linestyle=line.style,
        label=curve.name,
    )
