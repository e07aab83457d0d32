"""The tables of what a search says beside its choice: a screen's order, a greedy search's steps,
rivals, precisions, and what the guard found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from rich.console import RenderableType

from eckart.analysis.outcomes import short_name
from eckart.reports.table import POINTS, Column, Table, gain_columns, gain_values
from eckart.reports.terminal import listed, titled
from eckart.runs import Run
from eckart.selection.controls import WORDS, Versus
from eckart.selection.deployed import AtPrecision, Deployed
from eckart.selection.guarded import NOT_SCORED, Guarded, TaskHarm
from eckart.selection.order import Order
from eckart.selection.plan import BY_HAND
from eckart.selection.rivals import Rivals
from eckart.statistics.gain import verdict
from eckart.statistics.harm import TextHarm

PLACES = (
    Column("rank", "", "count"),
    Column("layer", "layer", "count"),
    Column("part", "part"),
    Column("score", "score", "number"),
)


def screen_of(run: Run) -> Order | None:
    """Return the order that a run's screen put places in, where it asked one."""
    return Order.from_json(run.screen) if run.screen else None


def screen_table(order: Order) -> Table:
    """Return one row a place."""
    rows = [
        {"rank": rank, "layer": place.layer, "part": place.part, "score": score}
        for rank, (place, score) in enumerate(order.scores.items(), 1)
    ]
    return Table("screen", f"Where to clip: screen {order.name}", f"By {order.by}.", PLACES, rows)


def screen_list(order: Order) -> RenderableType:
    """Return the places and their scores for a terminal, the first marked."""
    entries = [
        f"{'*' * (place == order.first)}{place.layer}:{place.part}"
        + ("" if score is None else f" {score:.4g}")
        for place, score in order.scores.items()
    ]
    return titled(f"screen {order.name}, * first ({order.by})", listed(entries))


STEPS = (
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
STEPS_NOTE = (
    "Each step adds the candidate whose e-value against the composition without it reaches what is"
    " needed, so that with probability 0.95 every step of the whole search makes the model better"
    " on new rows, under the demonstrations that chose, by what it was compared by (of a gain in"
    " log-probability, a nat a row counts at most). The gains of what was taken are optimistic: the"
    " test rows say what it is worth."
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
    return Table("steps", title, STEPS_NOTE, STEPS, rows)


RIVALS = (
    Column("rival", "rival"),
    Column("accuracy", "accuracy", "share"),
    *gain_columns(POINTS, "choice less it"),
    Column("p_adjusted", "p, Holm", "p"),
    Column("rows", "rows", "count"),
    Column("says", "the choice"),
)
RIVALS_NOTE = (
    "What costs nothing, on the choice's test rows: fewer demonstrations, calibration, and both."
    " Above 0 the choice is better. That clipping helps is said only where it beats every line of"
    " this table. p is corrected for all that is free; that of the unpruned model and of the most"
    " frequent label is its own. The best of these rivals was found on these rows, and is a little"
    " worse on new ones."
)


def rivals_table(rivals: Rivals, note: str = "") -> Table:
    """Return one row a rival."""
    rows = [{**versus_values(r), "rival": r.name, "accuracy": r.accuracy} for r in rivals.each]
    title = "Does clipping beat what costs nothing?"
    if not rivals.clipped:
        title = "Nothing is clipped: the unpruned model beside what costs nothing"
    return Table("rivals", title, note, RIVALS, rows)


def versus_values(found: Versus) -> dict[str, Any]:
    """Return how a choice does against something else, as a row."""
    if found.gain is None:
        return {"says": f"not compared: {found.error}"}
    return {
        **gain_values(found.gain),
        "p_adjusted": found.p_adjusted,
        "says": WORDS[found.verdict],
    }


PRECISIONS = (
    Column("as", "weights"),
    Column("unpruned", "unpruned", "share"),
    Column("clipped", "clipped", "share"),
    *gain_columns(POINTS, "gain"),
    Column("p_value", "p", "p"),
    Column("says", "verdict"),
)
PRECISIONS_NOTE = (
    "Clipped first, then quantised and dequantised, as a GGUF file of the type holds the weights;"
    " the unpruned model alike, on the same test rows. p is not corrected for the number of types."
)


def deployed_table(found: Deployed) -> Table:
    """Return one row a precision, that of the search first."""
    rows = [_precision_row(one) for one in (found.searched, *found.each)]
    title = "Does the gain survive quantisation?"
    return Table("deployed", title, PRECISIONS_NOTE, PRECISIONS, rows)


def _precision_row(one: AtPrecision) -> dict[str, Any]:
    if one.failed:
        return {"as": one.name, "says": f"not scored: {one.failed}"}
    before, after, gain = one.unpruned.score, one.clipped.score, one.gain
    assert before is not None
    assert after is not None
    return {
        "as": one.name,
        "unpruned": before.merits[before.headline],
        "clipped": after.merits[after.headline],
        **gain_values(gain),
        "says": verdict(gain),
    }


GUARDED = (Column("model", "model"), Column("edit", "edit"), Column("on", "on"))
TEXT = (
    *GUARDED,
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
    *GUARDED,
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
