"""The tables and figures of models that learn functions: squared error against the number of
examples (Figure 5 of the paper) and the clipping rate; a linear model's trajectory, and its bound
beside its error."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import cycle
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from eckart.paper.functions.baselines import BASELINES
from eckart.paper.functions.cells import MATRICES, MEASURED, ClippedCell, adjusted
from eckart.paper.functions.classes import find_class
from eckart.paper.functions.clipping import Clipping
from eckart.paper.functions.curves import Curve, Curves, ErrorCurves, StepCurves
from eckart.paper.functions.readings import Noise, TrajectoryReading
from eckart.reports.figures.accuracy import RateLine, RatePanel, draw_rate_panel
from eckart.reports.figures.base import (
    COLOURS,
    MARKERS,
    draw_banded,
    new_figure,
    plain_text,
    tidy,
)
from eckart.reports.table import ERRORS, FORMATS, Column, Table
from eckart.statistics.crossed import Estimate

NOTE = (
    "95% intervals, Student's over the prompts; squared errors have heavy tails, which they take"
    " too lightly"
)
STEPS_NOTE = "means over the prompts; their 95% intervals are in the figure (--plot) and in --json"

ESTIMATE = FORMATS["estimate"]
BY_LAYER: dict[str, Callable[[TrajectoryReading], np.ndarray]] = {
    "|Delta W_t|, t =": lambda reading: reading.updates,
    "|G_t|, t =": lambda reading: reading.steps,
    "|W_t|, t =": lambda reading: reading.weights,
    "norm half, nats, t =": lambda reading: reading.norm_terms,
    "-log det, nats, t =": lambda reading: -reading.log_determinants,
}
AT_ONCE: dict[str, Callable[[TrajectoryReading], str]] = {
    "bound on the gap (R = 1/2)": lambda reading: f"{reading.bound:.3f}",
    "gap: loss, fresh less examples": lambda reading: ESTIMATE(_triple(reading.gap)),
    "loss: min(1, squared error / variance)": lambda reading: ESTIMATE(_triple(reading.loss)),
    "squared error / variance, mean": lambda reading: f"{reading.error:.3g}",
    "... median prompt": lambda reading: f"{np.median(reading.tested):.3g}",
    "... largest prompt": lambda reading: f"{reading.tested.max():.3g}",
}


def error_table(curves: ErrorCurves) -> Table:
    """Return errors by the number of examples, a model's beside the baselines', and its excess over
    one of them."""
    over = curves.reference.replace("least-squares", "least squares")
    columns: dict[Column, Iterable[Any]] = {
        Column("model", curves.model.name, "estimate"): _bounded(curves.model),
        **{Column(f"baseline {b.name}", b.name, "decimals"): b.means for b in curves.baselines},
        Column("excess", f"excess over {over}", "estimate"): _bounded(curves.excess),
    }
    return _by_count(curves, columns, NOTE)


def step_table(curves: StepCurves) -> Table:
    """Return errors by the number of examples, a column for each kept model of a training."""
    shown = (*curves.models, curves.reference)
    columns = {Column(curve.name, curve.name, "decimals"): curve.means for curve in shown}
    return _by_count(curves, columns, STEPS_NOTE)


def _by_count(curves: Curves, columns: Mapping[Column, Iterable[Any]], note: str) -> Table:
    keys = [column.key for column in columns]
    rows = [
        {"examples": count, "n": curves.n, **dict(zip(keys, of_count, strict=True))}
        for count, *of_count in zip(curves.counts, *columns.values(), strict=True)
    ]
    title = f"{curves.function}, d = {curves.dimension}: squared error over the variance of f"
    examples, n = Column("examples", "examples", "count"), Column("n", "n", "count")
    return Table("errors", title, note, (examples, *columns, n), rows)


def _bounded(curve: Curve) -> Iterable[tuple[float, float, float]]:
    return zip(curve.means, curve.lows, curve.highs, strict=True)


def _triple(found: Estimate) -> tuple[float, float, float]:
    return (found.mean, *found.interval)


def readings_table(
    readings: Mapping[str, TrajectoryReading], residual: float, noise: Noise
) -> Table:
    """Return readings side by side, by what they are of: norms and terms by layer, then bound and
    error."""
    first = next(iter(readings.values()))
    rows = [
        {"": f"{quantity} {t + 1}"} | {name: f"{of(r)[t]:.4g}" for name, r in readings.items()}
        for quantity, of in BY_LAYER.items()
        for t in range(len(first.steps))
    ]
    rows += [
        {"": quantity} | {name: of(reading) for name, reading in readings.items()}
        for quantity, of in AT_ONCE.items()
    ]
    title = (
        f"Theorem 1 against the model's own blocks: residual {residual:.1e}\nN = {first.examples},"
        f" b = {noise.shots}, floor {noise.floor:g}, {len(first.tested):,} prompts; norms are"
        " medians\nin brackets: 95% intervals of the mean over the prompts"
    )
    columns = (Column("", ""), *(Column(name, name, "written") for name in readings))
    return Table("readings", title, "", columns, rows)


def cells_table(cells: Sequence[ClippedCell]) -> Table:
    """Return what each cell does to the bound and to what is measured, as changes with 95%
    intervals.

    The intervals are each cell's own; the p value of the loss is adjusted for the number of cells.
    """
    columns = (
        Column("clipped", "clipped", "written"),
        Column("rank", "rank", "count"),
        Column("bound", "bound", "written"),
        Column("gap", "gap", "difference"),
        Column("loss", "loss", "difference"),
        Column("p", "its p (Holm)", "p"),
        Column("error", "squared error / variance", "written"),
    )
    rows = [
        {
            "clipped": str(cell.edit),
            "rank": cell.rank,
            "bound": f"{cell.bound:+.3f}",
            "gap": _triple(cell.gap),
            "loss": _triple(cell.loss),
            "p": p,
            "error": f"{cell.after.error:.3g}",
        }
        for cell, p in zip(cells, adjusted(cells), strict=True)
    ]
    title = (
        "changes by clipping, and the squared error after it\nintervals: 95%, of each cell alone;"
        f" p: that the loss does not change, adjusted for {len(cells)} cells"
    )
    return Table("cells", title, "", columns, rows)


def correlation_table(found: Mapping[str, Mapping[str, Mapping[str, float | None]]]) -> Table:
    """Return whether what the theory says ranks one model's cells as what is measured:
    `correlations`, by the descent that they are of."""
    columns = [Column("", "change in")]
    rows: dict[str, dict[str, str]] = {}
    for descent, by_said in found.items():
        for measured in MEASURED:
            pair = f"{descent}: {measured}"
            columns.append(Column(pair, pair, "written"))
            for said, ranks in by_said.items():
                rank = ranks[measured]
                row = rows.setdefault(said, {"": said})
                row[pair] = "-" if rank is None else f"{rank:+.2f}"
    title = (
        "rank correlation of the changes, over the cells of this one model\n"
        "no interval: other models would have others, and one does not say how different"
    )
    return Table("correlations", title, "", tuple(columns), list(rows.values()))


Look = dict[str, Any]
"""How a curve is drawn."""
OWN, *_OTHERS = ({"colour": c, "marker": m} for c, m in zip(COLOURS, MARKERS, strict=True))
STYLES: dict[str, Look] = dict(zip(BASELINES, _OTHERS, strict=False))
"""A baseline has one colour and marker in every figure."""
EARLY, LATE = 0.92, 0.05
"""Where on the scale of colours the first and the last kept model of a training lie."""
LEAST_TOP = 1.5
SIZES = {"updates": "|ΔW_t|", "steps": "|G_t|", "weights": "|W_t|"}


@plain_text
def draw_error_curves(curves: ErrorCurves) -> Figure:
    """Draw a model's squared error, above baselines', against the number of examples, with 95%
    bands (Figure 5a)."""
    baselines = [(baseline, STYLES[baseline.name]) for baseline in curves.baselines]
    return _draw_curves(curves, [*baselines, (curves.model, OWN)], max(curves.model.highs))


@plain_text
def draw_step_curves(curves: StepCurves) -> Figure:
    """Draw the squared errors of a training's models, light for few steps and dark for many, with
    95% bands; least squares in black (Figure 5b)."""
    scale = mpl.colormaps["viridis"]
    last = max(len(curves.models) - 1, 1)
    lines: list[tuple[Curve, Look]] = [
        (model, {"colour": scale(EARLY + (LATE - EARLY) * i / last), "band": 0.08})
        for i, model in enumerate(curves.models)
    ]
    lines.append((curves.reference, {"colour": "black", "linestyle": ":", "band": 0.0}))
    return _draw_curves(curves, lines, max(curves.models[-1].highs))


def _draw_curves(curves: Curves, lines: list[tuple[Curve, Look]], highest: float) -> Figure:
    """Draw lines up to the main one's highest point; others may leave the frame."""
    figure, axes = new_figure()
    top = max(LEAST_TOP, 1.05 * highest)
    for curve, look in lines:
        style = {"band": 0.15, "marker": "", "linewidth": 1.4, "label": curve.name, **look}
        draw_banded(axes, curves.counts, curve.means, curve.lows, curve.highs, **style)
    always_0 = find_class(curves.function).error_of_0(curves.dimension)
    axes.axhline(always_0, color="0.4", linestyle="--", linewidth=1, label="always 0")
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
    above = ", ".join(curve.name for curve, _ in lines if max(curve.means) > top)
    axes.set_xlabel("examples" + (f"   (above the frame in part: {above})" if above else ""))
    axes.set_ylabel("squared error / variance of f")
    axes.set_title(f"{curves.function}, {curves.n:,} prompts, 95% intervals", size=10)
    figure.legend(loc="outside right upper", frameon=False, fontsize=8)
    return figure


def clipping_panels(clipping: Clipping) -> list[RatePanel]:
    """Gather what is drawn of each part: one line a layer, from the unpruned model on."""
    task = clipping.task
    reference = task.kind.error_of_0(task.dimension), "always 0"
    panels = []
    for part, cells in clipping.parts.items():
        lines = []
        for layer in sorted({edit.layer for edit in cells}):
            by_rate = {0.0: clipping.unpruned}
            by_rate |= {edit.rate: cell for edit, cell in cells.items() if edit.layer == layer}
            means = tuple(cell.mean for cell in by_rate.values())
            lows, highs = zip(*(cell.interval for cell in by_rate.values()), strict=True)
            lines.append(RateLine(layer, tuple(by_rate), means, lows, highs))
        panels.append(RatePanel(part, tuple(lines), clipping.unpruned.mean, reference, ERRORS))
    return panels


@plain_text
def draw_clipping(panels: Sequence[RatePanel], title: str) -> Figure:
    """Draw the panels on one logarithmic scale, with 95% bands; rates are evenly spaced."""
    figure = Figure(figsize=(3.9 * len(panels) + 0.6, 3.9), layout="constrained")
    figure.suptitle(title, size=10)
    first, *others = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes in others:
        axes.sharey(first)
    for axes, panel in zip((first, *others), panels, strict=True):
        looks = zip(cycle(COLOURS), cycle(MARKERS), strict=False)
        draw_rate_panel(tidy(axes), panel, {line.layer: next(looks) for line in panel.lines})
        axes.set_xlabel("clipping rate ξ", size=8)
    first.set_ylabel("test squared error / variance of f", size=8)
    handles, names = first.get_legend_handles_labels()
    columns = min(len(names), 4 * len(panels))
    figure.legend(
        handles, names, loc="outside lower center", ncols=columns, frameon=False, fontsize=8
    )
    return figure


@plain_text
def draw_trajectory(
    before: TrajectoryReading,
    after: TrajectoryReading | None,
    exact: Sequence[ClippedCell],
    noisy: Sequence[ClippedCell],
    edit: str = "",
    of: str = "",
) -> Figure:
    """Draw norms by layer, dashed after an edit; beside them what is measured of each cell against
    its bound: the loss, and the gap of the noisy descent that the bound is on.

    Colours are layers and marks are parts; `of` says which model all of it is of, where there are
    several.
    """
    figure = Figure(figsize=(12.6, 3.9), layout="constrained")
    norms, loss, gap = (tidy(axes) for axes in figure.subplots(1, 3))
    _draw_norms(norms, before)
    if after is not None:
        _draw_norms(norms, after, linestyle="--", markerfacecolor="white")
    norms.set_xticks(range(1, len(before.steps) + 1))
    norms.set(xlabel="t (layer t - 1)", ylabel="norm, median over prompts", ylim=(0, None))
    names = norms.lines[: len(SIZES)]
    norms.legend(names, SIZES.values(), frameon=False, fontsize=8)
    _draw_cells(loss, [(cell, cell.loss.mean) for cell in exact], "change in the loss")
    _draw_cells(gap, [(c, c.gap.mean) for c in noisy], "change in the noisy descent's gap")
    titles = [f"dashed: after {edit}" if edit else "the trajectory"]
    titles += ["a mark for each clipped cell"] * 2
    for axes, title in zip(figure.axes, titles, strict=True):
        axes.set_title(f"{of}; {title}" if of else title, fontsize=9)
    _name_cells(loss, sorted({cell.edit.layer for cell in (*exact, *noisy)}))
    handles, labels = loss.get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside lower right", ncols=len(labels), frameon=False, fontsize=8
    )
    return figure


def _draw_norms(axes: Axes, reading: TrajectoryReading, **style: Any) -> None:
    for index, name in enumerate(SIZES):
        norms = getattr(reading, name)
        look = {"color": COLOURS[index], "marker": MARKERS[index], "markersize": 5, **style}
        axes.plot(range(1, len(norms) + 1), norms, **look)


def _draw_cells(axes: Axes, cells: Sequence[tuple[ClippedCell, float]], measured: str) -> None:
    for cell, change in cells:
        colour = COLOURS[cell.edit.layer % len(COLOURS)]
        marker = MARKERS[MATRICES.index(cell.edit.part)]
        look: Look = {"color": colour, "marker": marker, "markersize": 5, "alpha": 0.6}
        axes.plot(cell.bound, change, linestyle="none", **look)
    axes.axhline(0, color="0.8", linewidth=0.8, zorder=0)
    axes.axvline(0, color="0.8", linewidth=0.8, zorder=0)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.set(xlabel="change in the bound", ylabel=measured)


def _name_cells(axes: Axes, layers: Sequence[int]) -> None:
    """Put the colours of layers and the marks of parts into a legend."""
    looks = {f"layer {layer}": (COLOURS[layer % len(COLOURS)], "o") for layer in layers}
    looks |= {part: ("0.4", MARKERS[index]) for index, part in enumerate(MATRICES)}
    for label, (colour, marker) in looks.items():
        axes.plot([], [], color=colour, marker=marker, linestyle="none", label=label)
