"""A linear model's trajectory by layer, and its bound beside its error over clipped cells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from eckart.paper.functions.cells import MATRICES, ClippedCell
from eckart.paper.functions.trajectory import TrajectoryReading
from eckart.reports.figures.base import COLOURS, MARKERS, plain_text, tidy

SIZES = {"updates": "|ΔW_t|", "steps": "|G_t|", "weights": "|W_t|"}


@dataclass(frozen=True)
class NormCurve:
    """One norm by layer.

    Arguments:
        name: what of.
        clipped: after an edit, or before.
        values: for t = 1 to L.
    """

    name: str
    clipped: bool
    values: tuple[float, ...]


@dataclass(frozen=True)
class CellPoint:
    """One clipped cell: by how much its bound and what is measured rose.

    Arguments:
        layer, part: what was clipped.
        bound, measured: the changes.
    """

    layer: int
    part: str
    bound: float
    measured: float


@dataclass(frozen=True)
class CellPanel:
    """What is measured against the bound, over cells.

    Arguments:
        measured: what it is, for the axis.
        points: one for each cell.
    """

    measured: str
    points: tuple[CellPoint, ...]


def norm_curves(
    before: TrajectoryReading, after: TrajectoryReading | None = None
) -> list[NormCurve]:
    """Gather the norms of a trajectory, and those after an edit where there is one."""
    readings = [(before, False)] + ([(after, True)] if after else [])
    return [
        NormCurve(name, clipped, tuple(getattr(reading, field).tolist()))
        for reading, clipped in readings
        for field, name in SIZES.items()
    ]


def cell_panels(exact: Sequence[ClippedCell], noisy: Sequence[ClippedCell]) -> list[CellPanel]:
    """Gather the cells of the model's own descent and of the noisy one that the bound is on."""
    return [
        CellPanel(
            "change in the loss",
            tuple(CellPoint(c.edit.layer, c.edit.part, c.bound, c.loss.mean) for c in exact),
        ),
        CellPanel(
            "change in the noisy descent's gap",
            tuple(CellPoint(c.edit.layer, c.edit.part, c.bound, c.gap.mean) for c in noisy),
        ),
    ]


@plain_text
def draw_trajectory(
    curves: Sequence[NormCurve], panels: Sequence[CellPanel], edit: str = "", of: str = ""
) -> Figure:
    """Draw norms by layer, and beside them each panel of cells.

    Arguments:
        curves: solid before, dashed after the edit.
        panels: one set of axes each; colours are layers and marks are parts.
        edit: what the dashed curves are after.
        of: which model all of it is of, where there are several.
    """
    figure = Figure(figsize=(4.2 * (1 + len(panels)), 3.9), layout="constrained")
    first, *others = figure.subplots(1, 1 + len(panels), squeeze=False)[0]
    _draw_norms(tidy(first), curves)
    for axes, panel in zip(others, panels, strict=True):
        _draw_cells(tidy(axes), panel)
    titles = [
        f"dashed: after {edit}" if edit else "the trajectory",
        *["a mark for each clipped cell"] * len(panels),
    ]
    for axes, title in zip([first, *others], titles, strict=True):
        axes.set_title(f"{of}; {title}" if of else title, fontsize=9)
    _legend(figure, panels)
    return figure


def _draw_norms(axes: Axes, curves: Sequence[NormCurve]) -> None:
    names = list(SIZES.values())
    for curve in curves:
        index = names.index(curve.name)
        axes.plot(
            range(1, len(curve.values) + 1),
            curve.values,
            color=COLOURS[index],
            marker=MARKERS[index],
            markersize=5,
            linestyle="--" if curve.clipped else "-",
            markerfacecolor="white" if curve.clipped else None,
            label=None if curve.clipped else curve.name,
        )
    axes.set_xticks(range(1, len(curves[0].values) + 1))
    axes.set(xlabel="t (layer t - 1)", ylabel="norm, median over prompts", ylim=(0, None))
    axes.legend(frameon=False, fontsize=8)


def _draw_cells(axes: Axes, panel: CellPanel) -> None:
    for point in panel.points:
        axes.plot(
            point.bound,
            point.measured,
            color=COLOURS[point.layer % len(COLOURS)],
            marker=MARKERS[MATRICES.index(point.part)],
            markersize=5,
            alpha=0.6,
            linestyle="none",
        )
    axes.axhline(0, color="0.8", linewidth=0.8, zorder=0)
    axes.axvline(0, color="0.8", linewidth=0.8, zorder=0)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.set(xlabel="change in the bound", ylabel=panel.measured)


def _legend(figure: Figure, panels: Sequence[CellPanel]) -> None:
    points = [point for panel in panels for point in panel.points]
    if not points:
        return
    layers = sorted({point.layer for point in points})
    handles = [
        Line2D(
            [],
            [],
            color=COLOURS[layer % len(COLOURS)],
            marker="o",
            linestyle="none",
            label=f"layer {layer}",
        )
        for layer in layers
    ]
    handles += [
        Line2D([], [], color="0.4", marker=MARKERS[index], linestyle="none", label=part)
        for index, part in enumerate(MATRICES)
    ]
    figure.legend(
        handles=handles, loc="outside lower right", ncols=len(handles), frameon=False, fontsize=8
    )
