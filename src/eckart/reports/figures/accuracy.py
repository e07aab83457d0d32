"""Accuracy against the clipping rate, a panel a unit: Figures 1 and 2 of the paper."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from eckart.analysis.findings import Findings
from eckart.analysis.measured import Measured
from eckart.analysis.outcomes import Target, short_name
from eckart.records import Edit
from eckart.reports.figures.base import (
    COLOURS,
    MARKERS,
    draw_banded,
    legend_of_all,
    plain_text,
    tidy,
    title_panel,
)
from eckart.reports.table import ERRORS, POINTS, UNITS, Units

BLURRED = "nothing can be told apart here:\nevery 95% interval holds the unpruned model"
MOST_LINES = 6
"""More layers than this are not drawn: the first two, the last two, as in the paper, and the
best."""


@dataclass(frozen=True)
class RateLine:
    """A layer's accuracies, or errors: one point a rate, with its 95% interval."""

    layer: int
    rates: tuple[float, ...]
    means: tuple[float, ...]
    lows: tuple[float, ...]
    highs: tuple[float, ...]


@dataclass(frozen=True)
class RatePanel:
    """The lines of one target.

    Arguments:
        title: what the target is.
        lines: one a layer.
        unpruned: the unpruned model's accuracy, or error.
        reference: what a guess would score, and what that guess is; None where there is none.
        units: of its numbers.
    """

    title: str
    lines: tuple[RateLine, ...]
    unpruned: float
    reference: tuple[float, str] | None = None
    units: Units = POINTS

    @property
    def rates(self) -> list[float]:
        return sorted({rate for line in self.lines for rate in line.rates})

    @property
    def blurred(self) -> bool:
        """Whether every interval holds the unpruned model's number, so that nothing shows."""
        return all(
            low <= self.unpruned <= high
            for line in self.lines
            for low, high in zip(line.lows, line.highs, strict=True)
        )

    def best(self, line: RateLine) -> int | None:
        """Return the index of a line's best point, the smallest rate of equals; None where it is
        not better than the unpruned model."""
        sign = self.units.sign
        best = max(range(len(line.rates)), key=lambda i: (sign * line.means[i], -line.rates[i]))
        return best if sign * line.means[best] > sign * self.unpruned else None


def accuracy_panel(
    findings: Findings, target: Target, split: str, title: str = ""
) -> RatePanel | None:
    """Gather a target's accuracies, or errors, by layer and rate; None where its unpruned model was
    not scored."""
    condition = target.condition
    unpruned = findings.measured(condition, None, split)
    points = {
        edit: measured
        for edit in findings.edits(target)
        if (measured := findings.measured(condition, edit, split)) is not None
    }
    if unpruned is None or not points:
        return None
    units = UNITS[findings.kind]
    named = title or f"{condition.task}, {short_name(condition.model)}, {target.part}"
    lines = tuple(_line(layer, points, unpruned) for layer in shown_layers(points, units.sign))
    majority = unpruned.others.get("majority_rate")
    reference = None if majority is None else (majority, "most frequent label")
    return RatePanel(named, lines, unpruned.mean, reference, units)


def shown_layers(points: dict[Edit, Measured], sign: int) -> list[int]:
    """Return which layers are drawn; the sign is that of `Units`."""
    layers = sorted({edit.layer for edit in points})
    if len(layers) <= MOST_LINES:
        return layers
    best = max(points, key=lambda edit: sign * points[edit].mean).layer
    return sorted({*layers[:2], *layers[-2:], best})


@plain_text
def draw_accuracy(panels: Sequence[RatePanel], columns: int, split: str) -> Figure:
    """Draw accuracy against the clipping rate, one panel a target, one line a layer, with 95%
    bands; errors on a logarithmic scale.

    Rates are evenly spaced, as in the paper; rate 0 is the unpruned model, the dashed line. The
    best point of each line is marked.
    """
    columns = min(columns, len(panels))
    rows = math.ceil(len(panels) / columns)
    figure = Figure(figsize=(max(3.3 * columns, 4.6), 2.7 * rows + 0.5), layout="constrained")
    layers = sorted({line.layer for panel in panels for line in panel.lines})
    looks = dict(zip(layers, zip(cycle(COLOURS), cycle(MARKERS), strict=False), strict=False))
    for index, panel in enumerate(panels):
        axes = tidy(figure.add_subplot(rows, columns, index + 1))
        draw_rate_panel(axes, panel, looks)
        _mark_best(axes, panel, looks)
        if len(panel.rates) > 7:
            axes.tick_params(axis="x", rotation=45)
        if index % columns == 0:
            axes.set_ylabel(f"{split} {panel.units.metric}", size=8)
        if index + columns >= len(panels):
            axes.set_xlabel("clipping rate ξ", size=8)
    handles = legend_of_all(figure)
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


def draw_rate_panel(axes: Axes, panel: RatePanel, looks: dict[int, tuple[str, str]]) -> None:
    """Draw a panel's lines in their bands, and what they are compared with.

    Arguments:
        axes: to draw in.
        panel: what is drawn.
        looks: a colour and a marker by layer.
    """
    for line in panel.lines:
        x = [panel.rates.index(rate) for rate in line.rates]
        colour, marker = looks[line.layer]
        draw_banded(
            axes,
            x,
            line.means,
            line.lows,
            line.highs,
            colour,
            band=0.0 if panel.blurred else 0.1,
            marker=marker,
            label=f"layer {line.layer}",
        )
    if panel.blurred:
        about = axes.text(
            *(0.5, 0.02), BLURRED, transform=axes.transAxes, ha="center", va="bottom", size=7,
            color="0.25", bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1},
        )  # fmt: skip
        about.set_in_layout(False)  # words wider than a narrow panel leave it no room
    axes.axhline(panel.unpruned, color="0.25", linestyle="--", linewidth=1, label="unpruned")
    if panel.reference:
        value, name = panel.reference
        axes.axhline(value, color="0.55", linestyle=":", linewidth=1, label=name)
    if panel.units is ERRORS:
        axes.set_yscale("log")
    axes.set_xticks(range(len(panel.rates)), [f"{rate:g}" for rate in panel.rates], size=7)
    axes.tick_params(axis="y", labelsize=7)
    title_panel(axes, panel.title)


def _mark_best(axes: Axes, panel: RatePanel, looks: dict[int, tuple[str, str]]) -> None:
    for line in panel.lines:
        best = panel.best(line)
        if best is not None:  # above every line
            place = panel.rates.index(line.rates[best]), line.means[best]
            colour = looks[line.layer][0]
            axes.plot(
                *place, marker="*", markersize=11, color=colour, markeredgecolor="black", zorder=4
            )
    axes.plot(
        [],
        [],
        marker="*",
        color="white",
        markeredgecolor="black",
        linestyle="none",
        markersize=10,
        label=f"best of a layer, if {'above' if panel.units.sign > 0 else 'below'} unpruned",
    )


def _line(layer: int, points: dict[Edit, Measured], unpruned: Measured) -> RateLine:
    own = {edit.rate: measured for edit, measured in points.items() if edit.layer == layer}
    by_rate = sorted({0.0: unpruned, **own}.items())
    return RateLine(
        layer,
        rates=tuple(rate for rate, _ in by_rate),
        means=tuple(measured.mean for _, measured in by_rate),
        lows=tuple(measured.interval[0] for _, measured in by_rate),
        highs=tuple(measured.interval[1] for _, measured in by_rate),
    )
