"""A greedy search: its steps and looks, in the terminal and on a run's page."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType

from eckart.reports.results import tested_report
from eckart.reports.table import Column, Table
from eckart.reports.terminal import Said
from eckart.runs import Run

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
OUTCOME = (
    Column("name", ""),
    Column("accuracy", "accuracy", "share"),
    Column("interval", "95% interval", "shares"),
    Column("balanced_accuracy", "balanced", "share"),
    Column("macro_f1", "macro-F1", "share"),
    Column("log_loss", "log-loss", "share"),
)
ARMS = (
    Column("edit", "arm"),
    Column("value", "accuracy", "share"),
    Column("difference", "choice less arm, points", "points"),
    Column("interval", "95% interval", "range"),
    Column("p_adjusted", "p, Holm", "p"),
    Column("choice", "the choice"),
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


def tested_tables(document: Mapping[str, Any]) -> list[Table]:
    """Return how a composition did on the test rows, and beside its control arms."""
    test = document["test"]
    outcome = [{**test["baseline"], "name": "unpruned"}]
    if document["edits"]:
        outcome.append({**test["clipped"], "name": "clipped"})
    majority = f"majority {test['baseline']['majority_rate']:.4f}"
    controls = document.get("controls") or {"says": "", "arms": []}
    arms = [
        {**arm, **(arm["choice_less_arm"] or {}), "choice": arm["error"] or arm["choice"]}
        for arm in controls["arms"]
    ]
    title = f"The test rows (n = {test['baseline']['n']}; {majority})"
    beside = "Does the composition beat its control arms?"
    says = f"{controls['says'][:1].upper()}{controls['says'][1:]}."
    return [
        Table("outcome", title, "", OUTCOME, outcome),
        Table("controls", beside, says, ARMS, arms),
    ]


def kept_document(run: Run) -> dict[str, Any] | None:
    """Return the result that the run of a composition keeps, greedy or by hand; None of any other,
    or where it is not written yet, or damaged: the same search, which reads nothing again, writes
    it."""
    if not run.settings.get("strategy"):
        return None
    try:
        document = json.loads((run.folder / "result.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return document if isinstance(document, dict) and "edits" in document else None
