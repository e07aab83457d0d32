"""A search's candidates: validation accuracy against the clipping rate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from eckart.reports.figures.base import COLOURS, new_figure
from eckart.selection.drawn import interval

if TYPE_CHECKING:
    from eckart.selection.result import SearchResult


@dataclass(frozen=True)
class RatePoint:
    """A candidate's accuracy on n validation rows, with its 95% interval."""

    rate: float
    n: int
    accuracy: float
    low: float
    high: float


def rate_points(result: SearchResult) -> list[RatePoint]:
    """Return one point for each candidate that could be scored."""
    return [
        RatePoint(c.rate, score.n, score.merits["accuracy"], *interval(c.trial))
        for c in result.candidates
        if (score := c.trial.score)
    ]


def draw_rates(points: list[RatePoint], chosen: float, majority: float, title: str) -> Figure:
    """Draw validation accuracy against the clipping rate; bars are 95% Wilson intervals.

    A candidate that a race dropped was scored on fewer rows than the others: its mark is hollow,
    says on how many, and is joined to none.
    """
    figure, axes = new_figure()
    best = next(i for i, point in enumerate(points) if point.rate == chosen)
    rows = points[best].n
    _draw_points(axes, [(i, p) for i, p in enumerate(points) if p.n == rows], linestyle="-")
    dropped = [(i, p) for i, p in enumerate(points) if p.n < rows]
    if dropped:
        _draw_points(
            axes, dropped, linestyle="none", markerfacecolor="white", label="dropped: fewer rows"
        )
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
    axes.axhline(
        majority, color="0.6", linestyle=":", linewidth=1, label="always the most frequent label"
    )
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
