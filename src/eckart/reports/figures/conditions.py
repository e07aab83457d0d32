"""Condition numbers by layer: Figure 3 of the paper."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import cycle

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from eckart.records import MatrixSpectrum
from eckart.reports.figures.base import COLOURS, MARKERS, new_figure


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
    figure, axes = new_figure()
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
