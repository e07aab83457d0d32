"""Gains over layers and rates, and what a choice's gain becomes on rows that did not choose it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from eckart.analysis.findings import Choice, Findings
from eckart.analysis.outcomes import short_name
from eckart.records import Edit
from eckart.reports.figures.base import COLOURS, MARKERS, new_figure, plain_text, title_panel
from eckart.reports.table import POINTS, UNITS, Units
from eckart.statistics.crossed import Estimate

MOST_NUMBERS = 120
"""A map of more cells than this is drawn without numbers."""
MOST_LABELS = 12
"""More choices than this are drawn without their names and intervals."""
COLOUR_MAP = "PuOr_r"


@dataclass(frozen=True, eq=False)
class GainMap:
    """A target's gains, in points or errors, by layer and rate; NaN where a cell was not scored.

    Arguments:
        title: what the target is.
        layers, rates: the axes.
        points: the gains.
        chosen: (layer, rate) of the choice.
        units: of the gains.
    """

    title: str
    layers: tuple[int, ...]
    rates: tuple[float, ...]
    points: Float[np.ndarray, "layers rates"]
    chosen: tuple[int, float] | None
    units: Units = POINTS


def gain_map(findings: Findings, choice: Choice, split: str) -> GainMap | None:
    """Gather a target's gains; None where there is but one layer or nothing was scored."""
    gains = {
        edit: measured.gain.mean
        for edit in findings.edits(choice.target)
        if (measured := findings.measured(choice.condition, edit, split)) and measured.gain
    }
    layers = sorted({edit.layer for edit in gains})
    rates = sorted({edit.rate for edit in gains})
    if len(layers) < 2:
        return None
    units = UNITS[findings.kind]
    points = np.full((len(layers), len(rates)), np.nan)
    for edit, gain in gains.items():
        points[layers.index(edit.layer), rates.index(edit.rate)] = units.scale * gain
    where = choice.condition
    best = choice.edit if choice.agreed else None
    chosen = (best.layer, best.rate) if isinstance(best, Edit) else None
    title = f"{where.task}, {short_name(where.model)}, {choice.part}"
    return GainMap(title, tuple(layers), tuple(rates), points, chosen, units)


@plain_text
def draw_gain_maps(maps: Sequence[GainMap], columns: int, split: str) -> Figure:
    """Draw gains by layer and rate, one panel a unit, all on one scale; the choice is framed."""
    columns = min(columns, len(maps))
    rows = math.ceil(len(maps) / columns)
    tallest = max(len(gains.layers) for gains in maps)
    figure = Figure(
        figsize=(max(3.2 * columns + 0.6, 4.8), (0.9 + 0.24 * max(tallest, 6)) * rows),
        layout="constrained",
    )
    units = maps[0].units
    least = 1.0 if units is POINTS else 1e-9
    reach = max(least, *(float(np.nanmax(np.abs(gains.points))) for gains in maps))
    scale = Normalize(-reach, reach)
    for index, gains in enumerate(maps):
        axes = figure.add_subplot(rows, columns, index + 1)
        _draw_map(axes, gains, scale)
        if index % columns == 0:
            axes.set_ylabel("layer", size=8)
        if index + columns >= len(maps):
            axes.set_xlabel("clipping rate ξ", size=8)
    bar = figure.colorbar(ScalarMappable(scale, COLOUR_MAP), ax=figure.axes, shrink=0.8, aspect=30)
    bar.set_label(f"{split} gain{units.column}", size=8)
    bar.ax.tick_params(labelsize=7)
    return figure


def _draw_map(axes: Axes, gains: GainMap, scale: Normalize) -> None:
    axes.imshow(gains.points, cmap=COLOUR_MAP, norm=scale, aspect="auto", origin="lower")
    if gains.points.size <= MOST_NUMBERS:
        for (row, column), value in np.ndenumerate(gains.points):
            dark = abs(value) > 0.6 * scale.vmax  # type: ignore[operator]
            says = (
                "–"
                if math.isnan(value)
                else f"{value:{'+.1f' if gains.units is POINTS else '+.1g'}}"
            )
            axes.text(
                column,
                row,
                says,
                ha="center",
                va="center",
                size=6.5,
                color="white" if dark else "black",
            )
    if gains.chosen:
        corner = gains.rates.index(gains.chosen[1]) - 0.5, gains.layers.index(gains.chosen[0]) - 0.5
        axes.add_patch(Rectangle(corner, 1, 1, fill=False, edgecolor="black", linewidth=2))
    axes.set_xticks(range(len(gains.rates)), [f"{rate:g}" for rate in gains.rates], size=7)
    step = max(1, len(gains.layers) // 12)
    axes.set_yticks(
        range(0, len(gains.layers), step), [str(layer) for layer in gains.layers[::step]], size=7
    )
    title_panel(axes, gains.title)


@dataclass(frozen=True)
class GainPair:
    """A cell's gain, in points or errors, on the rows that chose and on those that did not.

    Arguments:
        part: which was clipped.
        validation, test: the gains.
        interval: the test gain's, 95%.
        chosen: the choice's name, such as `sst2, mlp`; nothing where validation did not choose it.
        units: of the gains.
    """

    part: str
    validation: float
    test: float
    interval: tuple[float, float]
    chosen: str = ""
    units: Units = POINTS


def gain_pairs(findings: Findings) -> list[GainPair]:
    """Return every choice that was tested, and every other cell that the same seeds scored on both
    splits."""
    chosen = {
        (choice.condition, edit) for choice in findings.choices for edit in choice.picks.values()
    }
    pairs = []
    for choice in findings.choices:
        if choice.naive is not None and choice.gain and choice.basis != "cross-validated":
            name = f"{choice.condition.task}, {choice.part}"
            pairs.append(_pair(findings, choice.part, choice.naive, choice.gain, name))
    for (condition, edit), cell in findings.cells.items():
        gains = [
            m.gain for split in ("validation", "test") if (m := cell.measured.get(split)) and m.gain
        ]
        if (
            isinstance(edit, Edit)
            and (condition, edit) not in chosen
            and len(gains) == 2
            and gains[0].seeds == gains[1].seeds
        ):
            pairs.append(_pair(findings, edit.part, gains[0].mean, gains[1]))
    return pairs


def _pair(
    findings: Findings, part: str, validation: float, test: Estimate, chosen: str = ""
) -> GainPair:
    units = UNITS[findings.kind]
    low, high = (units.scale * end for end in test.interval)
    at = units.scale * validation, units.scale * test.mean
    return GainPair(part, *at, (low, high), chosen, units)


@plain_text
def draw_gain_pairs(pairs: Sequence[GainPair]) -> Figure:
    """Draw test gains against validation gains: what is chosen for its height tends to come
    down."""
    figure, axes = new_figure()
    for part, colour, marker in zip(
        sorted({pair.part for pair in pairs}), COLOURS, MARKERS, strict=False
    ):
        own = [pair for pair in pairs if pair.part == part]
        axes.scatter(
            [pair.validation for pair in own],
            [pair.test for pair in own],
            s=14,
            color=colour,
            marker=marker,
            alpha=0.5,
            linewidths=0,
            label=part,
        )
    chosen = [pair for pair in pairs if pair.chosen]
    if len(chosen) <= MOST_LABELS:
        _label(axes, chosen)
    axes.scatter(
        [pair.validation for pair in chosen],
        [pair.test for pair in chosen],
        s=90,
        facecolors="none",
        edgecolors="black",
        linewidths=1.2,
        label="chosen on validation",
    )
    axes.axline((0, 0), slope=1, color="0.4", linestyle="--", linewidth=1, label="equal")
    axes.axhline(0, color="0.8", linewidth=0.8, zorder=0)
    axes.axvline(0, color="0.8", linewidth=0.8, zorder=0)
    unit = pairs[0].units.column
    axes.set(xlabel=f"validation gain{unit}", ylabel=f"test gain{unit}")
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=8)
    return figure


def _label(axes: Axes, chosen: Sequence[GainPair]) -> None:
    """Number the choices, name them in the legend, and draw the 95% intervals of their test
    gains."""
    for index, pair in enumerate(sorted(chosen, key=lambda pair: pair.validation)):
        axes.vlines(pair.validation, *pair.interval, color="0.6", linewidth=1, zorder=1)
        place = (0, 8 if index % 2 else -14)  # neighbours' numbers stay apart
        at, number = (pair.validation, pair.test), str(index + 1)
        axes.annotate(number, at, place, textcoords="offset points", ha="center", size=7, zorder=5)
        axes.plot([], [], linestyle="none", label=f"{number}: {pair.chosen}")
