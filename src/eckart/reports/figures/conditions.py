"""Condition numbers by layer: Figure 3 of the paper."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from eckart.records import PARTS
from eckart.reports.figures.base import COLOURS, MARKERS, new_figure
from eckart.weights.conditioning import MatrixSpectrum

ORDER = PARTS["all"]
HOLLOW: dict[str, Any] = {"linestyle": "none", "markerfacecolor": "white", "markersize": 5}


@dataclass(frozen=True)
class ConditionCurve:
    """The condition numbers of one kind of matrix.

    Arguments:
        name: the matrix, such as `q`.
        layers, values: one point a layer; singular matrices are left out here,
        singular: and listed here.
        unresolved: the layers whose smallest singular value may be the rounding of storage.
    """

    name: str
    layers: tuple[int, ...]
    values: tuple[float, ...]
    singular: tuple[int, ...]
    unresolved: tuple[int, ...] = ()


def condition_curves(matrices: Iterable[MatrixSpectrum]) -> list[ConditionCurve]:
    """Gather spectra by matrix name, in the order of a layer; of its experts the worst-conditioned
    is drawn."""
    worst: dict[str, dict[int, MatrixSpectrum]] = defaultdict(dict)
    for matrix in matrices:
        own = worst[matrix.name.split("[")[0]]
        if matrix.layer not in own or matrix.condition_number > own[matrix.layer].condition_number:
            own[matrix.layer] = matrix
    return [_curve(name, worst[name]) for name in sorted(worst, key=ORDER.index)]


def _curve(name: str, points: dict[int, MatrixSpectrum]) -> ConditionCurve:
    finite = {layer: point for layer, point in sorted(points.items()) if not point.singular}
    return ConditionCurve(
        name,
        layers=tuple(finite),
        values=tuple(point.condition_number for point in finite.values()),
        singular=tuple(sorted(points.keys() - finite.keys())),
        unresolved=tuple(layer for layer, point in finite.items() if not point.resolved),
    )


def draw_condition_numbers(curves: list[ConditionCurve], title: str) -> Figure:
    """Draw 2-norm condition numbers by layer, one line a kind of matrix (Figure 3 of the paper).

    A kind of matrix has one colour in every figure; a mark is hollow where the value may be due to
    rounding.
    """
    figure, axes = new_figure()
    ceiling = 3 * max((value for curve in curves for value in curve.values), default=1.0)
    style = dict(zip(ORDER, zip(COLOURS, MARKERS, strict=True), strict=True))
    for curve in curves:
        colour, marker = style[curve.name]
        axes.plot(
            curve.layers, curve.values, color=colour, marker=marker, label=curve.name, markersize=5
        )
        points = dict(zip(curve.layers, curve.values, strict=True))
        hollow = [points[layer] for layer in curve.unresolved]
        axes.plot(curve.unresolved, hollow, **HOLLOW, color=colour, marker=marker)
        if curve.singular:
            axes.plot(
                curve.singular,
                [ceiling] * len(curve.singular),
                color=colour,
                marker="x",
                linestyle="none",
            )
    if any(curve.singular for curve in curves):
        axes.axhline(ceiling, color="0.7", linewidth=0.8, linestyle=":")
        axes.annotate(
            "singular (×)",
            (0, ceiling),
            xycoords=("axes fraction", "data"),
            va="bottom",
            color="0.4",
            size=8,
        )
    axes.set_title(title, size=10, parse_math=False)  # a path may hold a $
    axes.set(xlabel="layer", ylabel="condition number σ_max / σ_min", yscale="log")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if any(curve.unresolved for curve in curves):
        axes.plot([], [], **HOLLOW, color="0.3", marker="o", label="within rounding")
    figure.legend(loc="outside right upper", frameon=False, fontsize=8)
    return figure
