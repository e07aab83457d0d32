"""The tables and the figure of a probe: its quantities by layer, and how clipping moved them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from rich.console import Group, RenderableType

from eckart.analysis.outcomes import short_name
from eckart.paper.probe.reading import QUANTITIES, Comparison, Probe
from eckart.reports.figures.base import COLOURS, MARKERS, plain_text, tidy
from eckart.reports.table import Column, Table
from eckart.reports.terminal import Said

APART = 0.12
"""How far left and right of its layer a probe's heads are drawn, so that two probes do not hide
each other."""


def probe_report(found: Probe | Comparison) -> RenderableType:
    """Return a probe's table by layer; of two probes both, and what moved."""
    if isinstance(found, Probe):
        return Group(_heading(found), _read(found))
    return Group(
        Said(moved(found), "bold"),
        _heading(found.before),
        _read(found.before),
        _read(found.after),
        _by_layer("clipped less unpruned", found.before, found.change, "change"),
    )


def moved(found: Comparison) -> str:
    """Say in one line what Remark 5 says of the layers below the clipped one, and what was seen."""
    if found.reach == 0:
        return "Remark 5: no layer is below the clipped one"
    below = "layer 0" if found.reach == 1 else f"layers 0 to {found.reach - 1}"
    return f"Remark 5: {below}, below what was clipped, moved by {found.moved_below:.3g} at most"


def _heading(found: Probe) -> RenderableType:
    read = (
        f"{found.task}, {found.shots} shots, {found.prompts} {found.split} prompts, {found.dtype}"
    )
    residual = f"heads' outputs computed anew differ by {found.residual:.1e} at most, relatively"
    tokens = f"N: tokens of demonstrations that the last token sees; noise floor {found.floor:g}"
    linear = "|Σ v ⊗ k| and, with g = v ⊗ k, Theorem 2's norm term, log det and term leave W_Q out"
    text = f"{read}: means over heads and prompts\n{residual}; {tokens}\n{linear}"
    return Said(text, "dim")


def _read(found: Probe) -> Table:
    edits = ", ".join(map(str, found.edits))
    return _by_layer(f"clipped: {edits}" if edits else "unpruned", found, found.means, "number")


def _by_layer(
    title: str, found: Probe, values: Callable[[str], Float[np.ndarray, " layers"]], kind: str
) -> Table:
    """Return a row a layer of a probe, with what each quantity's name gives."""
    columns = (
        Column("layer", "layer", "count"),
        Column("tokens", "N", "number"),
        *(Column(name, title, kind) for name, title in QUANTITIES.items()),
    )
    by_name = {name: values(name) for name in QUANTITIES}
    rows: list[dict[str, Any]] = [
        {"layer": layer.layer, "tokens": layer.tokens.mean()}
        | {name: own[index] for name, own in by_name.items()}
        for index, layer in enumerate(found.layers)
    ]
    return Table("probe", title, "", columns, rows)


@plain_text
def draw_probe(found: Probe | Comparison) -> Figure:
    """Draw the heads' log norms by layer on the left, a mark a head; steps and trajectory along
    depth on the right; means over prompts.

    Where no implicit gradient's norm is defined (soft caps), that of what it adds is drawn.
    """
    probes = [found] if isinstance(found, Probe) else [found.before, found.after]
    capped = any(np.isnan(layer.log_norm).any() for probe in probes for layer in probe.layers)
    quantity, axis = ("update_norm", "|ΔW' φ(q)|") if capped else ("log_norm", "log |ΔW'|")
    figure = Figure(figsize=(10.4, 4.0), layout="constrained")
    left, right = (tidy(axes) for axes in figure.subplots(1, 2))
    for index, probe in enumerate(probes):
        shift = APART * (2 * index - len(probes) + 1)
        _draw_heads(left, probe, quantity, shift, COLOURS[index], MARKERS[index])
        _draw_path(right, probe, COLOURS[index], MARKERS[index])
    left.set(xlabel="layer", ylabel=f"{axis}, a mark a head")
    right.set(xlabel="layer", ylabel="norm at the last token", ylim=(0, None))
    right.plot([], [], color="0.3", label="trajectory")
    right.plot([], [], color="0.3", linestyle=":", label="the layer's step")
    for axes in (left, right):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend(frameon=False, fontsize=8)
    first = probes[0]
    title = f"{short_name(first.model)}, {first.task}, {first.shots} shots, {first.prompts} prompts"
    figure.suptitle(title, fontsize=10)
    return figure


def _draw_heads(
    axes: Axes, probe: Probe, quantity: str, shift: float, colour: str, marker: str
) -> None:
    look: dict[str, Any] = {"color": colour, "marker": marker, "markersize": 4, "alpha": 0.6}
    for layer in probe.layers:
        heads = getattr(layer, quantity).mean(axis=0)
        axes.plot(np.full(len(heads), layer.layer + shift), heads, linestyle="none", **look)
    style = "--" if shift > 0 else "-"
    means = probe.means(quantity)
    axes.plot(means, style, color=colour, linewidth=1, label=f"{_name(probe)}, mean")


def _draw_path(axes: Axes, probe: Probe, colour: str, marker: str) -> None:
    look: dict[str, Any] = {"color": colour, "marker": marker}
    axes.plot(probe.means("path_norm"), markersize=4, label=_name(probe), **look)
    axes.plot(probe.means("step_norm"), markersize=3, linestyle=":", linewidth=1, **look)


def _name(probe: Probe) -> str:
    return ", ".join(map(str, probe.edits)) or "unpruned"
