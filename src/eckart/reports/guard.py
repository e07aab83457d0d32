"""The guard of a run on its page: what every choice did besides what it was chosen for."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from eckart.analysis.outcomes import short_name
from eckart.reports.table import Column, Table
from eckart.runs import Run
from eckart.selection.guarded import NOT_SCORED, Guarded, TaskHarm
from eckart.selection.plan import BY_HAND
from eckart.statistics.harm import TextHarm

WHERE = (Column("model", "model"), Column("edit", "edit"), Column("on", "on"))
TEXT = (
    *WHERE,
    Column("windows", "windows", "count"),
    Column("divergence", "KL, nats a token", "number"),
    Column("divergence_interval", "KL, 95%", "numbers"),
    Column("unpruned", "perplexity: unpruned", "number"),
    Column("clipped", "perplexity: clipped", "number"),
    Column("ratio", "perplexity, times", "number"),
    Column("ratio_interval", "times, 95%", "numbers"),
    Column("failed", "failed"),
)
TASKS = (
    *WHERE,
    Column("shots", "shots", "count"),
    Column("rows", "rows", "count"),
    Column("unpruned", "accuracy: unpruned", "share"),
    Column("clipped", "accuracy: clipped", "share"),
    Column("change", "change, points", "points"),
    Column("interval", "95% interval", "range"),
    Column("verdict", "verdict"),
    Column("needed", "rows that would do", "count"),
)


def guards(run: Run) -> list[tuple[str, Guarded]]:
    """Return for every model and choice that was guarded what it did."""
    places = {(trial.setting.model, trial.edits) for trial in run.guarded if trial.edits}
    if run.settings.get("strategy") == BY_HAND:  # what was only looked at is no choice
        chosen = {trial.edits for trial in run.trials.values() if trial.split.name == "test"}
        places = {(model, edits) for model, edits in places if edits in chosen}
    found = ((model, Guarded.in_run(run, model, edits)) for model, edits in sorted(places))
    return [(short_name(model), guarded) for model, guarded in found if guarded]


def guard_tables(run: Run) -> tuple[Table, Table]:
    """Return what every guarded edit did on the text, and on each task."""
    found = [
        ({"model": model, "edit": ", ".join(map(str, guarded.edits))}, guarded)
        for model, guarded in guards(run)
    ]
    text = Table(
        "guard",
        "What else the choices did: text",
        "How far each choice moves the model on a text that did not choose it. KL is KL(unpruned ||"
        " clipped) of the next token; a window of the text is the unit of its intervals.",
        TEXT,
        [
            {**where, "on": guarded.text_name, **_on_text(guarded.text)}
            for where, guarded in found
            if guarded.text_name
        ],
    )
    tasks = Table(
        "guard_tasks",
        "What else the choices did: other tasks",
        "Each choice on the test rows of tasks that did not choose it. A task is not worse where"
        f" its interval lies above -{run.margin or 0:g} points, worse where it does not and lies"
        " below 0; otherwise more rows are needed.",
        TASKS,
        [{**where, **_on_task(task)} for where, guarded in found for task in guarded.tasks],
    )
    return text, tasks


def _on_text(text: TextHarm | None) -> dict[str, Any]:
    return {"failed": NOT_SCORED} if text is None else asdict(text)


def _on_task(task: TaskHarm) -> dict[str, Any]:
    found = task.change
    measured = {} if found is None else {"rows": found.n, "interval": found.interval}
    return {
        "on": task.setting.task,
        "shots": task.setting.shots,
        "unpruned": task.unpruned,
        "clipped": task.clipped,
        "change": found and found.difference,
        "verdict": task.verdict,
        "needed": task.needed,
        **measured,
    }
