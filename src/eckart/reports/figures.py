"""Figures, with what is drawn separated from how."""

from __future__ import annotations

import io
import math
import os
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from eckart.errors import RunError
from eckart.runs import write_whole
from eckart.selection.space import MatrixSpectrum
from eckart.selection.study import Study
from eckart.statistics import accuracy_interval

# Okabe and Ito's colours stay apart for colour-blind readers; the markers stay apart in print.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C6D31", "#7F7F7F")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")
FORMATS = (".png", ".svg", ".pdf")


@dataclass(frozen=True)
class Curve:
    """The condition numbers of one kind of matrix.

    Arguments:
        name: the matrix, such as `q`.
        layers, values: one point a layer; singular matrices are left out here,
        singular: and listed here.
    """

    name: str
    layers: tuple[int, ...]
    values: tuple[float, ...]
    singular: tuple[int, ...]


def condition_curves(matrices: Iterable[MatrixSpectrum]) -> list[Curve]:
    """Gather spectra by matrix name; of a layer's experts the worst-conditioned is drawn."""
    worst: dict[str, dict[int, float]] = defaultdict(dict)
    for matrix in matrices:
        kind = matrix.name.split("[")[0]
        worst[kind][matrix.layer] = max(worst[kind].get(matrix.layer, 0.0), matrix.condition_number)
    return [
        Curve(
            name,
            layers=tuple(layer for layer, value in points.items() if math.isfinite(value)),
            values=tuple(value for value in points.values() if math.isfinite(value)),
            singular=tuple(layer for layer, value in points.items() if math.isinf(value)),
        )
        for name, points in worst.items()
    ]


def draw_condition_numbers(curves: list[Curve], title: str) -> Figure:
    """Draw 2-norm condition numbers by layer, one line a kind of matrix (Figure 3 of the paper)."""
    figure, axes = _figure()
    ceiling = 3 * max((value for curve in curves for value in curve.values), default=1.0)
    for curve, colour, marker in zip(curves, cycle(COLOURS), cycle(MARKERS), strict=False):
        axes.plot(curve.layers, curve.values, color=colour, marker=marker, label=curve.name, markersize=5)
        if curve.singular:
            axes.plot(
                curve.singular, [ceiling] * len(curve.singular), color=colour, marker="x", linestyle="none"
            )
    if any(curve.singular for curve in curves):
        axes.axhline(ceiling, color="0.7", linewidth=0.8, linestyle=":")
        axes.annotate(
            "singular (×)", (0, ceiling), xycoords=("axes fraction", "data"), va="bottom", color="0.4", size=8
        )
    axes.set_title(title, parse_math=False)  # a path may hold a $
    axes.set(xlabel="layer", ylabel="condition number σ_max / σ_min", yscale="log")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.legend(loc="outside right upper", frameon=False, fontsize=8)
    return figure


@dataclass(frozen=True)
class RatePoint:
    """A candidate's accuracy on n validation rows, with its 95% Wilson interval."""

    rate: float
    n: int
    accuracy: float
    low: float
    high: float


def rate_points(study: Study) -> list[RatePoint]:
    """Return one point for each candidate that could be scored."""
    scores = [(c.rate, c.trial.score) for c in study.candidates if c.trial.score is not None]
    return [RatePoint(rate, s.n, s.accuracy, *accuracy_interval(s)) for rate, s in scores]


def draw_rates(points: list[RatePoint], chosen: float, majority: float, title: str) -> Figure:
    """Draw validation accuracy against the clipping rate; bars are 95% Wilson intervals.

    A candidate that a race dropped was scored on fewer rows than the others: its mark is hollow, says on how many, and
    is joined to none.
    """
    figure, axes = _figure()
    best = next(i for i, point in enumerate(points) if point.rate == chosen)
    rows = points[best].n
    _draw_points(axes, [(i, p) for i, p in enumerate(points) if p.n == rows], linestyle="-")
    dropped = [(i, p) for i, p in enumerate(points) if p.n < rows]
    if dropped:
        _draw_points(axes, dropped, linestyle="none", markerfacecolor="white", label="dropped: fewer rows")
    for i, point in dropped:
        axes.annotate(
            f"n = {point.n}",
            (i, point.low),
            (0, -4),
            textcoords="offset points",
            ha="center",
            va="top",
            size=7,
        )
    unpruned = "unpruned" if points[0].n == rows else f"unpruned, first {points[0].n} rows"
    axes.axhline(points[0].accuracy, color="0.3", linestyle="--", linewidth=1, label=unpruned)
    axes.axhline(majority, color="0.6", linestyle=":", linewidth=1, label="always the most frequent label")
    axes.plot(
        best,
        points[best].accuracy,
        marker="*",
        markersize=15,
        color=COLOURS[1],
        linestyle="none",
        label="chosen",
        zorder=3,
    )
    axes.set_xticks(range(len(points)), [f"{point.rate:g}" for point in points])
    axes.set_title(title, parse_math=False)
    axes.set(xlabel="clipping rate ξ", ylabel=f"validation accuracy (n = {rows}, 95% intervals)")
    axes.legend(frameon=False, fontsize=8)
    return figure


def _draw_points(axes: Axes, places: list[tuple[int, RatePoint]], **style: Any) -> None:
    axes.errorbar(
        [i for i, _ in places],
        [p.accuracy for _, p in places],
        yerr=[[p.accuracy - p.low for _, p in places], [p.high - p.accuracy for _, p in places]],
        **{"color": COLOURS[0], "marker": "o", "capsize": 3, "linewidth": 1.2, **style},
    )


def check_figure_path(path: Path) -> None:
    """Refuse a figure file that could not be written, before anything is computed.

    Raises:
        RunError: its format is unknown or its folder does not exist.
    """
    if path.suffix not in FORMATS:
        raise RunError(
            f"figure '{path}' ends in none of {', '.join(FORMATS)}; name it, for example, {path.stem}.png"
        )
    if not path.parent.is_dir():
        raise RunError(f"figure '{path}' cannot be written: there is no folder '{path.parent}'")
    if not os.access(path.parent, os.W_OK):
        raise RunError(
            f"figure '{path}' cannot be written: folder '{path.parent}' is read-only; name another"
        )


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure, whole or not at all."""
    content = io.BytesIO()
    figure.savefig(content, format=path.suffix[1:], dpi=160)
    write_whole(path, content.getvalue())


def _figure() -> tuple[Figure, Axes]:
    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    axes = figure.add_subplot()
    axes.grid(axis="y", color="0.92", linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes
