"""The implicit gradient's norm by layer and head, and the trajectory along depth, of a model
clipped and not."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from eckart.paper.probe.reading import Comparison, Probe
from eckart.reports.figures.base import COLOURS, MARKERS, plain_text, tidy

APART = 0.12
"""How far left and right of its layer a probe's heads are drawn, so that two probes do not hide
each other."""


@dataclass(frozen=True, eq=False)
class ProbeLines:
    """One probe's lines.

    Arguments:
        name: what the legend calls it.
        heads: for each layer, the mean over prompts of each head's log norm, or of its update's
            norm.
        steps, path: (layers,), mean norms of the steps and of the trajectory.
    """

    name: str
    heads: tuple[Float[np.ndarray, " heads"], ...]
    steps: Float[np.ndarray, " layers"]
    path: Float[np.ndarray, " layers"]


@dataclass(frozen=True)
class ProbeDrawing:
    """What a figure shows.

    Arguments:
        title: the model, the task and the prompts.
        heads_are: the quantity of the left panel.
        readings: one, or two to compare.
    """

    title: str
    heads_are: str
    readings: tuple[ProbeLines, ...]


def probe_drawing(found: Probe | Comparison) -> ProbeDrawing:
    """Gather what is drawn; where no implicit gradient's norm is defined (soft caps), that of what
    it adds."""
    probes = [found] if isinstance(found, Probe) else [found.before, found.after]
    capped = any(np.isnan(layer.log_norm).any() for probe in probes for layer in probe.layers)
    quantity = "update_norm" if capped else "log_norm"
    first = probes[0]
    name = first.model.rstrip("/").rpartition("/")[2]
    title = f"{name}, {first.task}, {first.shots} shots, {first.prompts} prompts"
    axis = "|ΔW' φ(q)|" if capped else "log |ΔW'|"
    return ProbeDrawing(title, axis, tuple(_reading(probe, quantity) for probe in probes))


def _reading(probe: Probe, quantity: str) -> ProbeLines:
    name = ", ".join(map(str, probe.edits)) or "unpruned"
    heads = tuple(getattr(layer, quantity).mean(axis=0) for layer in probe.layers)
    return ProbeLines(name, heads, probe.means("step_norm"), probe.means("path_norm"))


@plain_text
def draw_probe(drawing: ProbeDrawing) -> Figure:
    """Draw the heads' norms by layer on the left, a mark a head; steps and trajectory along depth
    on the right."""
    figure = Figure(figsize=(10.4, 4.0), layout="constrained")
    left, right = (tidy(axes) for axes in figure.subplots(1, 2))
    for index, reading in enumerate(drawing.readings):
        shift = APART * (2 * index - len(drawing.readings) + 1)
        _draw_heads(left, reading, shift, COLOURS[index], MARKERS[index])
        _draw_path(right, reading, COLOURS[index], MARKERS[index])
    left.set(xlabel="layer", ylabel=f"{drawing.heads_are}, a mark a head")
    right.set(xlabel="layer", ylabel="norm at the last token", ylim=(0, None))
    for axes in (left, right):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    right.plot([], [], color="0.3", label="trajectory")
    right.plot([], [], color="0.3", linestyle=":", label="the layer's step")
    for axes in (left, right):
        axes.legend(frameon=False, fontsize=8)
    figure.suptitle(drawing.title, fontsize=10)
    return figure


def _draw_heads(axes: Axes, reading: ProbeLines, shift: float, colour: str, marker: str) -> None:
    for layer, heads in enumerate(reading.heads):
        places = np.full(len(heads), layer + shift)
        axes.plot(
            places, heads, color=colour, marker=marker, linestyle="none", markersize=4, alpha=0.6
        )
    middles = [heads.mean() for heads in reading.heads]
    style = "--" if shift > 0 else "-"
    axes.plot(middles, style, color=colour, linewidth=1, label=f"{reading.name}, mean")


def _draw_path(axes: Axes, reading: ProbeLines, colour: str, marker: str) -> None:
    layers = range(len(reading.path))
    axes.plot(layers, reading.path, color=colour, marker=marker, markersize=4, label=reading.name)
    axes.plot(
        layers, reading.steps, color=colour, marker=marker, markersize=3, linestyle=":", linewidth=1
    )
