"""A greedy search: its steps and looks, in the terminal and on a run's page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType

from eckart.reports.results import tested_report
from eckart.reports.table import Column, Table
from eckart.reports.terminal import Said

if TYPE_CHECKING:
    from eckart.selection.result import GreedyResult

COLUMNS = (
    Column("step", "step", "count"),
    Column("rows", "rows", "count"),
    Column("read", "candidates", "count"),
    Column("row_passes", "row passes", "count"),
    Column("best", "best"),
    Column("gain", "gain a row", "number"),
    Column("e", "e", "written"),
    Column("needed", "needed", "written"),
    Column("dropped", "dropped", "count"),
    Column("fate", ""),
)
NOTE = (
    "Each step adds the candidate whose e-value against the composition without it reaches what is"
    " needed, so that with probability 0.95 every step of the whole search makes the model better"
    " on new rows, under the demonstrations that chose, by what it was compared by (of a gain in"
    " log-probability, a nat a row counts at most). The gains of what was taken are optimistic: the"
    " test rows say what it is worth."
)


def greedy_report(result: GreedyResult) -> RenderableType:
    """Return everything that a greedy search found: the verdict first, then its course."""
    document = result.to_json()
    return Group(
        *(Said(text, "bold") for text in document["says"]),
        Said(""),
        *tested_report(result),
        steps_table(document),
        *(Said(f"note: {note}", "dim") for note in result.notes),
    )


def steps_table(document: Mapping[str, Any]) -> Table:
    """Return a row a look; none of a choice by hand, which took no steps."""
    course = document.get("greedy") or {"metric": "", "steps": []}
    rows = [
        {
            **look,
            "step": step["step"],
            "read": len(look["read"]),
            "e": f"10^{look['log10_e']:.1f}",
            "needed": f"10^{step['log10_threshold']:.1f}",
            "dropped": len(look["dropped"]),
            "fate": "taken" if step["taken"] and look is step["looks"][-1] else "",
        }
        for step in course["steps"]
        for look in step["looks"]
    ]
    title = f"validation: steps, by {course['metric'].replace('_', '-')}"
    return Table("steps", title, NOTE, COLUMNS, rows)
