"""What a probe found, as tables for the terminal."""

from __future__ import annotations

import math

from rich.console import Group, RenderableType

from eckart.paper.probe.reading import Comparison, Probe
from eckart.reports.terminal import Said, Sheet, titled

COLUMNS = {
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
"""Every quantity by the name of its column; `eckart.paper.probe.reading.QUANTITIES` says what each
is."""


def probe_report(found: Probe | Comparison) -> RenderableType:
    """Return a probe's table by layer; of two probes both, and what moved."""
    if isinstance(found, Probe):
        return Group(
            _heading(found), _table("unpruned" if not found.edits else _named(found), _rows(found))
        )
    before, after = found.before, found.after
    changes = {name: [_signed(value) for value in found.change(name)] for name in COLUMNS}
    return Group(
        Said(moved(found), "bold"),
        _heading(before),
        _table("unpruned", _rows(before)),
        _table(_named(after), _rows(after)),
        _table(
            "clipped less unpruned", [_row(before, i, changes) for i in range(len(before.layers))]
        ),
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


def _named(found: Probe) -> str:
    return f"clipped: {', '.join(map(str, found.edits))}"


def _rows(found: Probe) -> list[list[str]]:
    means = {name: [_plain(value) for value in found.means(name)] for name in COLUMNS}
    return [_row(found, index, means) for index in range(len(found.layers))]


def _row(found: Probe, index: int, cells: dict[str, list[str]]) -> list[str]:
    layer = found.layers[index]
    return [
        str(layer.layer),
        f"{layer.tokens.mean():.4g}",
        *(cells[name][index] for name in COLUMNS),
    ]


def _table(title: str, rows: list[list[str]]) -> RenderableType:
    return titled(title, Sheet(["layer", "N", *COLUMNS.values()], rows, names=0))


def _plain(value: float) -> str:
    return f"{value:.4g}" if not math.isnan(value) else "-"


def _signed(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:+.3g}" if value else "0"
