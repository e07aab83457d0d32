"""Rank correlations by predictor, leads over a random layer by screen, and the cells of the best
predictor."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from eckart.analysis.outcomes import short_name
from eckart.paper.prediction.agreement import Agreement
from eckart.paper.prediction.study import Prediction
from eckart.reports.figures.base import COLOURS, MARKERS, plain_text, tidy
from eckart.statistics.crossed import Estimate


@dataclass(frozen=True)
class PredictorLine:
    """One predictor's value with its interval.

    Arguments:
        name: what it is of.
        theory: whether the theory names it.
        value, low, high: the numbers; in points where they are accuracies.
    """

    name: str
    theory: bool
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class PredictedPoint:
    """One cell: what is said of it, in the predictor's own units, and its gain in points."""

    model: str
    part: str
    said: float
    gain: float


@dataclass(frozen=True)
class PredictionDrawing:
    """What a figure shows.

    Arguments:
        split: whose gains.
        ranks: correlations among layers.
        leads: of screens over a random layer, each layer at the rate that validation chose.
        at_rates: the same at one rate for all layers.
        best: the theory's predictor whose correlation among layers is farthest from 0, and its
            claimed sign.
        points: its cells.
    """

    split: str
    ranks: tuple[PredictorLine, ...]
    leads: tuple[PredictorLine, ...]
    at_rates: tuple[PredictorLine, ...]
    best: tuple[str, int]
    points: tuple[PredictedPoint, ...]


def prediction_drawing(found: Prediction) -> PredictionDrawing:
    """Gather what is drawn, of the test rows where there are some."""
    known = {
        split: [a for a in found.agreement(split, "layers") if a.rank is not None]
        for split in ("test", "validation")
    }
    split = "test" if known["test"] else "validation"
    theory = [a for a in known[split] if a.predictor.theory]
    best = max(theory, key=_strength).predictor if theory else found.agreements[0].predictor
    return PredictionDrawing(
        split,
        tuple(
            PredictorLine(a.predictor.name, a.predictor.theory, a.rank.value, *a.rank.interval)
            for a in known[split]
            if a.rank
        ),
        tuple(_lead(s.screen, s.theory, s.over_random) for s in found.screens),
        tuple(_lead(s.screen, s.theory, s.each_rate) for s in found.screens),
        (best.name, best.sign),
        tuple(
            PredictedPoint(
                short_name(c.condition.model), c.edit.part, c.said[best.name], 100 * c.gains[split]
            )
            for c in found.cells
            if split in c.gains
        ),
    )


@plain_text
def draw_prediction(drawing: PredictionDrawing) -> Figure:
    """Draw correlations, leads and cells side by side; the theory in one colour, baselines in
    another."""
    figure = Figure(figsize=(13.0, 5.2), layout="constrained")
    left, middle, right = (tidy(axes) for axes in figure.subplots(1, 3, width_ratios=(1, 1, 1.1)))
    _draw_lines(left, drawing.ranks)
    left.set(xlabel=f"rank correlation with the {drawing.split} gain, among layers", xlim=(-1, 1))
    _draw_lines(middle, drawing.leads)
    _draw_lines(middle, drawing.at_rates, shift=0.3)
    middle.set(xlabel="as a screen: lead over a random layer, points")
    for fill, name in (("0.3", "rate by validation"), ("white", "same rate for all layers")):
        middle.plot(
            [], [], color="0.3", marker="o", markerfacecolor=fill, linestyle="none", label=name
        )
    middle.legend(frameon=False, fontsize=8)
    _draw_points(right, drawing)
    handles = [
        Line2D([], [], color=COLOURS[index], marker="o", linestyle="none", label=name)
        for index, name in enumerate(("the theory's", "baseline"))
    ]
    left.legend(handles=handles, frameon=False, fontsize=8, loc="lower left")
    return figure


def _strength(agreement: Agreement) -> float:
    return abs(agreement.rank.value) if agreement.rank else 0.0


def _lead(name: str, theory: bool, lead: Estimate) -> PredictorLine:
    low, high = lead.interval
    return PredictorLine(name, theory, 100 * lead.mean, 100 * low, 100 * high)


def _draw_lines(axes: Axes, lines: Sequence[PredictorLine], shift: float = 0.0) -> None:
    """Draw a line a predictor, the first on top; those that are shifted down are hollow."""
    for place, line in enumerate(lines):
        colour = COLOURS[0] if line.theory else COLOURS[1]
        axes.plot([line.low, line.high], [place + shift] * 2, color=colour, linewidth=1.2)
        fill = "white" if shift else colour
        axes.plot(
            line.value,
            place + shift,
            color=colour,
            marker="o",
            markersize=4.5,
            markerfacecolor=fill,
        )
    axes.axvline(0, color="0.6", linewidth=0.8, zorder=0)
    axes.set_yticks(range(len(lines)), [line.name for line in lines], fontsize=8)
    axes.set_ylim(len(lines) - 0.4, -0.8)


def _draw_points(axes: Axes, drawing: PredictionDrawing) -> None:
    models, parts = (sorted({getattr(p, of) for p in drawing.points}) for of in ("model", "part"))
    for point in drawing.points:
        axes.plot(
            point.said,
            point.gain,
            color=COLOURS[models.index(point.model) % len(COLOURS)],
            marker=MARKERS[parts.index(point.part) % len(MARKERS)],
            markersize=4,
            alpha=0.45,
            linestyle="none",
        )
    for index, model in enumerate(models):
        axes.plot(
            [], [], color=COLOURS[index % len(COLOURS)], marker="o", linestyle="none", label=model
        )
    for index, part in enumerate(parts):
        marker = MARKERS[index % len(MARKERS)]
        axes.plot([], [], color="0.4", marker=marker, linestyle="none", label=part)
    axes.axhline(0, color="0.8", linewidth=0.8, zorder=0)
    _stretch(axes, max((abs(point.said) for point in drawing.points), default=0.0))
    name, sign = drawing.best
    claimed = "more" if sign > 0 else "less"
    axes.set(xlabel=f"{name} (theory: {claimed} is better)", ylabel=f"{drawing.split} gain, points")
    axes.legend(frameon=False, fontsize=8)


def _stretch(axes: Axes, largest: float) -> None:
    """Draw numbers of many sizes on one axis: by their logarithms above about a tenth of the
    largest, plainly below."""
    if largest == 0:
        return
    power = math.floor(math.log10(largest))
    axes.set_xscale("symlog", linthresh=10.0 ** (power - 1))
    sizes = [10.0**power, 10.0 ** (power - 1)]
    # The scale's own labels are formulas, which are not drawn here.
    ticks = [-sizes[0], -sizes[1], 0.0, sizes[1], sizes[0]]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
