"""The tables of a probe: its quantities by layer, and how clipping moved them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float
from rich.console import Group, RenderableType

from eckart.paper.probe.reading import Comparison, Probe
from eckart.reports.table import Column, Table
from eckart.reports.terminal import Said

TITLES = {
    "share": "share",
    "log_normaliser": "log D'",
    "log_norm": "log |ΔW'|",
    "rank": "rank",
    "stable_rank": "stable rank",
    "update_norm": "|ΔW' φ(q)|",
    "linear_norm": "|Σ v ⊗ k|",
    "norm_term": "norm term",
    "log_determinant": "log det",
    "term": "term",
    "step_norm": "step",
    "path_norm": "trajectory",
}
"""Every quantity by the title of its column; `eckart.paper.probe.reading.QUANTITIES` says what each
is."""


def probe_report(found: Probe | Comparison) -> RenderableType:
    """Return a probe's table by layer; of two probes both, and what moved."""
    if isinstance(found, Probe):
        return Group(_heading(found), _read(found))
    before, after = found.before, found.after
    change = _by_layer("clipped less unpruned", before, found.change, "change")
    return Group(
        Said(moved(found), "bold"),
        _heading(before),
        _read(before),
        _read(after),
        change,
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
        *(Column(name, title, kind) for name, title in TITLES.items()),
    )
    by_name = {name: values(name) for name in TITLES}
    rows: list[dict[str, Any]] = [
        {"layer": layer.layer, "tokens": layer.tokens.mean()}
        | {name: own[index] for name, own in by_name.items()}
        for index, layer in enumerate(found.layers)
    ]
    return Table("probe", title, "", columns, rows)
