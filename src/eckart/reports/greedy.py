"""A greedy search: its steps and looks, in the terminal and on a run's page."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType

from eckart.reports.controls import controls_report
from eckart.reports.results import LEGEND, outcome_table
from eckart.reports.table import Column, Table
from eckart.reports.terminal import Said
from eckart.runs import Run
from eckart.statistics.gain import sentence, verdict
from eckart.statistics.paired import PairedDifference

if TYPE_CHECKING:
    from eckart.selection.composed import GreedyResult

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
    " needed, so that with probability 0.95 no step of the whole search makes the model worse or"
    " leaves it as it is. The gains of what was taken are optimistic: the test rows say what it is"
    " worth."
)


def greedy_report(result: GreedyResult) -> RenderableType:
    """Return everything that a greedy search found: the verdict first, then its course."""
    document = result.to_json()
    return Group(
        *(Said(text, "bold") for text in greedy_summary(document, result.caution())),
        Said(""),
        *([Said(f"{result.guarded}\n")] if result.guarded else []),
        outcome_table(result),
        Said(f"{LEGEND}\n", "dim"),
        *(controls_report(result) if result.beside() else []),
        steps_table(document),
        *(Said(f"note: {note}", "dim") for note in result.notes),
    )


def greedy_summary(document: Mapping[str, Any], caution: str = "") -> list[str]:
    """Say what a greedy search chose, what that is worth, and what it could see.

    Arguments:
        document: of `GreedyResult.to_json`.
        caution: said first.
    """
    course = document["greedy"]
    edits = ", ".join(document["edits"])
    test = PairedDifference(**_paired(document["test"]))
    said = verdict(test)
    found = (
        f"{said.capitalize()} with n = {test.n} test rows: clipping {edits} changes test accuracy"
        f" by {sentence(test, 'accuracy')}."
        if edits
        else "No candidate was told to be better than the unpruned model, so nothing is clipped."
    )
    read = (
        f"Tried: {len(course['candidates'])} candidates in {course['looks']} looks,"
        f" {course['row_passes']:,} row passes; the search ended since {course['ended']}."
    )
    return [*filter(None, [caution]), found, read, f"It could see: {course['could_see']}."]


def _paired(test: Mapping[str, Any]) -> dict[str, Any]:
    names = ("n", "difference", "interval", "p_value", "fixed", "broken")
    return {name: test[name] for name in names} | {"interval": tuple(test["interval"])}


def steps_table(document: Mapping[str, Any]) -> Table:
    """Return a row a look."""
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
        for step in document["greedy"]["steps"]
        for look in step["looks"]
    ]
    title = f"validation: steps, by {document['greedy']['metric'].replace('_', ' ')}"
    return Table("steps", title, NOTE, COLUMNS, rows)


def kept_document(run: Run) -> dict[str, Any] | None:
    """Return the result that a greedy search's run keeps; None of any other, or unfinished, run."""
    path = run.folder / "result.json"
    if run.settings.get("strategy") != "greedy" or not path.exists():
        return None
    document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return document
