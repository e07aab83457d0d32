"""Rank correlations by predictor, leads over a random layer by screen, and the cells of the best
predictor."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from eckart.analysis.outcomes import short_name
from eckart.paper.prediction.agreement import Agreement
from eckart.paper.prediction.screens import Lead
from eckart.paper.prediction.study import Prediction
from eckart.reports.figures.base import COLOURS, MARKERS, plain_text, tidy

THEORY, BASELINE = COLOURS[:2]
LEGEND: dict[str, Any] = {"frameon": False, "fontsize": 8}


class _Line(NamedTuple):
    """A value with its interval, and whether it is of what the theory names."""

    name: str
    theory: bool
    value: float
    low: float
    high: float


@plain_text
def draw_prediction(found: Prediction) -> Figure:
    """Draw correlations, leads and cells side by side, of the test rows where there are some; the
    theory in one colour, baselines in another."""
    figure = Figure(figsize=(13.0, 5.2), layout="constrained")
    left, middle, right = (tidy(axes) for axes in figure.subplots(1, 3, width_ratios=(1, 1, 1.1)))
    ranks = {split: _ranks(found, split) for split in ("test", "validation")}
    split = "test" if ranks["test"] else "validation"
    _draw_lines(left, ranks[split])
    left.set(xlabel=f"rank correlation with the {split} gain, among layers", xlim=(-1, 1))
    for name, colour in (("the theory's", THEORY), ("baseline", BASELINE)):
        _name(left, name, color=colour)
    left.legend(loc="lower left", **LEGEND)
    _draw_lines(middle, [_lead(s.screen, s.theory, s.in_search) for s in found.screens])
    _draw_lines(middle, [_lead(s.screen, s.theory, s.each_rate) for s in found.screens], shift=0.3)
    middle.set(xlabel="as a screen: lead over a random layer, points")
    for fill, name in (("0.3", "rate by validation"), ("white", "same rate for all layers")):
        _name(middle, name, color="0.3", markerfacecolor=fill)
    middle.legend(**LEGEND)
    _draw_cells(right, found, split)
    return figure


def strongest(found: Prediction, split: str) -> Agreement:
    """Return the theory's agreement whose correlation among layers is farthest from 0."""
    known = [a for a in found.agreement(split, "layers") if a.rank and a.predictor.theory]
    return max(known or found.agreements[:1], key=lambda a: abs(a.rank.value) if a.rank else 0.0)


def _ranks(found: Prediction, split: str) -> list[_Line]:
    return [
        _Line(a.predictor.name, a.predictor.theory, a.rank.value, *a.rank.interval)
        for a in found.agreement(split, "layers")
        if a.rank
    ]


def _lead(name: str, theory: bool, lead: Lead) -> _Line:
    low, high = lead.estimate.interval
    return _Line(name, theory, 100 * lead.estimate.mean, 100 * low, 100 * high)


def _name(axes: Axes, label: str, **look: Any) -> None:
    """Put a mark in the legend alone."""
    axes.plot([], [], **{"marker": "o", "linestyle": "none", "label": label, **look})


def _draw_lines(axes: Axes, lines: Iterable[_Line], shift: float = 0.0) -> None:
    """Draw a line a predictor, the first on top; those that are shifted down are hollow."""
    names = []
    for place, line in enumerate(lines):
        names.append(line.name)
        colour = THEORY if line.theory else BASELINE
        look: dict[str, Any] = {"color": colour, "markerfacecolor": "white" if shift else colour}
        axes.plot([line.low, line.high], [place + shift] * 2, color=colour, linewidth=1.2)
        axes.plot(line.value, place + shift, marker="o", markersize=4.5, **look)
    axes.axvline(0, color="0.6", linewidth=0.8, zorder=0)
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.set_ylim(len(names) - 0.4, -0.8)


def _draw_cells(axes: Axes, found: Prediction, split: str) -> None:
    """Draw what the strongest predictor says of the cells against their gains: a colour a model, a
    mark a part."""
    best = strongest(found, split).predictor
    cells = [cell for cell in found.cells if split in cell.gains]
    models = sorted({short_name(cell.condition.model) for cell in cells})
    parts = sorted({cell.edit.part for cell in cells})
    colours = {model: COLOURS[index % len(COLOURS)] for index, model in enumerate(models)}
    marks = {part: MARKERS[index % len(MARKERS)] for index, part in enumerate(parts)}
    for cell in cells:
        axes.plot(
            cell.said[best.name],
            100 * cell.gains[split],
            color=colours[short_name(cell.condition.model)],
            marker=marks[cell.edit.part],
            markersize=4,
            alpha=0.45,
            linestyle="none",
        )
    for model, colour in colours.items():
        _name(axes, model, color=colour)
    for part, mark in marks.items():
        _name(axes, part, color="0.4", marker=mark)
    axes.axhline(0, color="0.8", linewidth=0.8, zorder=0)
    _stretch(axes, max((abs(cell.said[best.name]) for cell in cells), default=0.0))
    claimed = "more" if best.sign > 0 else "less"
    axes.set(xlabel=f"{best.name} (theory: {claimed} is better)", ylabel=f"{split} gain, points")
    axes.legend(**LEGEND)


def _stretch(axes: Axes, largest: float) -> None:
    """Draw numbers of many sizes on one axis: by their logarithms above about a tenth of the
    largest, plainly below."""
    if largest == 0:
        return
    power = math.floor(math.log10(largest))
    large, small = 10.0**power, 10.0 ** (power - 1)
    axes.set_xscale("symlog", linthresh=small)
    # The scale's own labels are formulas, which are not drawn here.
    ticks = [-large, -small, 0.0, small, large]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
