"""Accuracy against the clipping rate, a panel a unit: Figures 1 and 2 of the paper."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from eckart.analysis.measured import Measured, Measurements
from eckart.analysis.outcomes import Condition, short_name
from eckart.records import Edit
from eckart.reports.figures.base import COLOURS, MARKERS, plain_text, tidy

MOST_LINES = 6
"""More layers than this are not drawn: the first two, the last two, as in the paper, and the
best."""


@dataclass(frozen=True)
class Line:
    """A layer's accuracies: one point a rate, with its 95% interval."""

    layer: int
    rates: tuple[float, ...]
    accuracies: tuple[float, ...]
    lows: tuple[float, ...]
    highs: tuple[float, ...]

    @property
    def best(self) -> int:
        """Return the index of the highest accuracy."""
        return max(range(len(self.rates)), key=lambda i: (self.accuracies[i], -self.rates[i]))


@dataclass(frozen=True)
class Panel:
    """One unit's lines.

    Arguments:
        title: what the unit is.
        lines: one a layer.
        unpruned: the unpruned model's accuracy.
        majority: what always answering the most frequent label would score.
    """

    title: str
    lines: tuple[Line, ...]
    unpruned: float
    majority: float

    @property
    def rates(self) -> list[float]:
        """Return every rate that any line has."""
        return sorted({rate for line in self.lines for rate in line.rates})


def accuracy_panel(
    found: Measurements, condition: Condition, part: str, split: str, title: str = ""
) -> Panel | None:
    """Gather a unit's accuracies by layer and rate; None where its unpruned model was not
    scored."""
    unpruned = found.measured(condition, None, split)
    points = {
        e: m
        for e in found.edits(condition, part)
        if (m := found.measured(condition, e, split)) is not None
    }
    if unpruned is None or not points:
        return None
    named = title or f"{condition.task}, {short_name(condition.model)}, {part}"
    lines = [_line(layer, points, unpruned) for layer in shown_layers(points)]
    return Panel(named, tuple(lines), unpruned.accuracy, unpruned.majority_rate)


def shown_layers(points: dict[Edit, Measured]) -> list[int]:
    """Return which layers are drawn."""
    layers = sorted({edit.layer for edit in points})
    if len(layers) <= MOST_LINES:
        return layers
    best = max(points, key=lambda edit: points[edit].accuracy).layer
    return sorted({*layers[:2], *layers[-2:], best})


@plain_text
def draw_accuracy(panels: Sequence[Panel], columns: int, split: str) -> Figure:
    """Draw accuracy against the clipping rate, one panel a unit, one line a layer, with 95% bands.

    Rates are evenly spaced, as in the paper; rate 0 is the unpruned model, the dashed line. The
    best point of each line is marked.
    """
    columns = min(columns, len(panels))
    rows = math.ceil(len(panels) / columns)
    figure = Figure(figsize=(max(3.3 * columns, 4.6), 2.7 * rows + 0.5), layout="constrained")
    layers = sorted({line.layer for panel in panels for line in panel.lines})
    style = dict(zip(layers, zip(cycle(COLOURS), cycle(MARKERS), strict=False), strict=False))
    for index, panel in enumerate(panels):
        axes = tidy(figure.add_subplot(rows, columns, index + 1))
        _draw_panel(axes, panel, style)
        if index % columns == 0:
            axes.set_ylabel(f"{split} accuracy", size=8)
        if index + columns >= len(panels):
            axes.set_xlabel("clipping rate ξ", size=8)
    handles = {
        text: handle
        for axes in figure.axes
        for handle, text in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    order = sorted(handles, key=lambda text: (not text.startswith("layer"), len(text), text))
    figure.legend(
        [handles[text] for text in order],
        order,
        loc="outside lower center",
        ncols=min(len(order), int(figure.get_figwidth() // 2.1)),
        frameon=False,
        fontsize=8,
    )
    return figure


def _line(layer: int, points: dict[Edit, Measured], unpruned: Measured) -> Line:
    own = {edit.rate: measured for edit, measured in points.items() if edit.layer == layer}
    by_rate = sorted({0.0: unpruned, **own}.items())
    return Line(
        layer,
        rates=tuple(rate for rate, _ in by_rate),
        accuracies=tuple(measured.accuracy for _, measured in by_rate),
        lows=tuple(measured.accuracy_interval[0] for _, measured in by_rate),
        highs=tuple(measured.accuracy_interval[1] for _, measured in by_rate),
    )


def _draw_panel(axes: Axes, panel: Panel, style: dict[int, tuple[str, str]]) -> None:
    place = {rate: i for i, rate in enumerate(panel.rates)}
    for line in panel.lines:
        colour, marker = style[line.layer]
        x = [place[rate] for rate in line.rates]
        axes.fill_between(x, line.lows, line.highs, color=colour, alpha=0.10, linewidth=0)
        axes.plot(
            x,
            line.accuracies,
            color=colour,
            marker=marker,
            markersize=4,
            linewidth=1.3,
            label=f"layer {line.layer}",
        )
    for line in panel.lines:  # above every line
        if line.accuracies[line.best] <= panel.unpruned:
            continue
        best = (place[line.rates[line.best]], line.accuracies[line.best])
        axes.plot(
            *best,
            marker="*",
            markersize=11,
            color=style[line.layer][0],
            markeredgecolor="black",
            zorder=4,
        )
    axes.axhline(panel.unpruned, color="0.25", linestyle="--", linewidth=1, label="unpruned")
    axes.axhline(
        panel.majority, color="0.55", linestyle=":", linewidth=1, label="most frequent label"
    )
    axes.plot(
        [],
        [],
        marker="*",
        color="white",
        markeredgecolor="black",
        linestyle="none",
        markersize=10,
        label="best of a layer, if above unpruned",
    )
    axes.set_xticks(
        range(len(place)),
        [f"{rate:g}" for rate in place],
        size=7,
        rotation=45 if len(place) > 7 else 0,
    )
    axes.tick_params(axis="y", labelsize=7)
    axes.set_title(panel.title, size=9)
