"""The guard of a run on its page: what every choice did besides what it was chosen for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from eckart.analysis.outcomes import short_name
from eckart.reports.table import Column, Table
from eckart.runs import Run
from eckart.selection.guarded import NOT_SCORED, Guarded, TaskHarm
from eckart.statistics.harm import TextHarm

COLUMNS = (
    Column("model", "model"),
    Column("edit", "edit"),
    Column("on", "on"),
    Column("n", "rows, or windows of the text", "count"),
    Column("measure", "measure"),
    Column("before", "unpruned", "written"),
    Column("after", "clipped", "written"),
    Column("change", "change", "written"),
    Column("interval", "95% interval", "written"),
    Column("verdict", "verdict"),
)


def guards(run: Run) -> list[tuple[str, Guarded]]:
    """Return for every model and edit that was guarded what it did."""
    places = {(trial.setting.model, trial.edits) for trial in run.guarded if trial.edits}
    found = ((model, Guarded.in_run(run, model, edits)) for model, edits in sorted(places))
    return [(short_name(model), guarded) for model, guarded in found if guarded]


def guard_table(run: Run) -> Table:
    """Return what every guarded edit did on the text and on each task."""
    note = (
        "What each choice did besides what it was chosen for, on rows that did not choose it. KL is"
        " KL(unpruned || clipped) of the next token, in nats a token; a window of the text is the"
        " unit of its intervals. A task is not worse where its interval lies above"
        f" -{run.margin or 0:g} points, worse where it does not and lies below 0; otherwise more"
        " rows are needed."
    )
    rows = [
        {"model": model, "edit": ", ".join(map(str, guarded.edits)), **row}
        for model, guarded in guards(run)
        for row in _rows(guarded)
    ]
    return Table("guard", "What else the choices did", note, COLUMNS, rows)


def _rows(guarded: Guarded) -> Iterator[dict[str, Any]]:
    name = f"text '{guarded.text_name}'"
    if guarded.text is not None:
        yield from _text_rows(guarded.text, name)
    elif guarded.text_name:
        yield {"on": name, "measure": "KL, nats a token", "verdict": NOT_SCORED}
    yield from map(_task_row, guarded.tasks)


def _text_rows(text: TextHarm, name: str) -> Iterator[dict[str, Any]]:
    measures = (
        ("KL, nats a token", "", "", text.divergence, text.divergence_interval),
        (
            "perplexity, times",
            f"{text.unpruned:.4g}",
            f"{text.clipped:.4g}",
            text.ratio,
            text.ratio_interval,
        ),
    )
    for measure, before, after, change, interval in measures:
        yield {
            "on": name,
            "n": text.windows,
            "measure": measure,
            "before": before,
            "after": after,
            "change": f"{change:.4f}",
            "interval": "" if interval is None else "{:.4f} to {:.4f}".format(*interval),
            "verdict": "",
        }


def _task_row(task: TaskHarm) -> dict[str, Any]:
    found = task.change
    needed = f" ({task.needed:,} rows would)" if task.needed else ""
    return {
        "on": f"{task.setting.task}, {task.setting.shots} shots",
        "n": None if found is None else found.n,
        "measure": "accuracy, points",
        "before": f"{task.unpruned:.4f}",
        "after": "" if task.clipped is None else f"{task.clipped:.4f}",
        "change": "" if found is None else f"{100 * found.difference:+.2f}",
        "interval": ""
        if found is None
        else "{:+.2f} to {:+.2f}".format(*(100 * bound for bound in found.interval)),
        "verdict": f"{task.verdict}{needed}",
    }
