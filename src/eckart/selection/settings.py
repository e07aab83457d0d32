"""The settings of a search: what makes its run what it is, and names its folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from eckart.records import fingerprint
from eckart.runs import folder_name
from eckart.scoring.scorer import Scorer
from eckart.selection.draws import OWN, drawn_tasks
from eckart.selection.plan import BY_HAND, Plan
from eckart.selection.racing import ALPHA
from eckart.selection.screens import screen_settings
from eckart.tasks.task import AnyTask


def default_folder(plan: Plan, scorer: Scorer) -> Path:
    """Name a run by its settings: the same search goes on where it stopped, another one never meets
    it."""
    return folder_of(describe(plan, scorer), scorer, plan.part)


def folder_of(settings: dict[str, Any], scorer: Scorer, what: str) -> Path:
    """Return where a run with these settings lies by default."""
    digest = fingerprint(settings)[:8]
    # A task's name is no path: it may come from a task file of somebody else's.
    task = (
        folder_name(scorer.task.name.replace("/", "-"))
        .encode("utf-8", "ignore")[:80]
        .decode("utf-8", "ignore")
    )
    return Path("runs") / f"{folder_name(scorer.model.name)}-{task}-{what}-{digest}"


def describe(plan: Plan, scorer: Scorer) -> dict[str, Any]:
    """Return the settings that make a run what it is, as JSON values.

    Arguments:
        scorer: of the plan's first draw.
    """
    task = scorer.task
    return {
        "kind": "search",
        "model": scorer.model.name,
        "weights": scorer.model.fingerprint,
        "dtype": scorer.model.dtype,
        "task": task.name,
        "prompts": task.digest,
        "rows": [scorer.digest("validation"), scorer.digest("test")],
        "shots": task.shots,
        "seed": task.seed,
        "metric": plan.metric or task.metric,
        "scoring": scorer.scoring,
        "part": plan.part,
        "rates": list(plan.tried),
        "layer": plan.layer,
        "top_k": plan.top_k,
        "combine": plan.combine,
        # Only where there is one: a run of Algorithm 1 as written goes on whatever made it.
        **({"race": ALPHA} if plan.race else {}),
        **({"controls": True} if plan.controls else {}),
        **screen_settings(plan, scorer),
        **_greedy_settings(plan),
        **_draws(plan, task),
        **scorer.reading_key,
        **({"file": scorer.model.file.origin} if scorer.model.file else {}),
    }


def by_hand(scorer: Scorer) -> dict[str, Any]:
    """Return the settings of a run whose edits somebody chooses by looking at them."""
    said = describe(Plan(), scorer)
    planned = ("part", "rates", "layer", "top_k", "combine")
    return {k: v for k, v in said.items() if k not in planned} | {"strategy": BY_HAND}


def _greedy_settings(plan: Plan) -> dict[str, Any]:
    said = {"places": plan.places, "evaluations": plan.evaluations, "minutes": plan.minutes}
    given = {name: value for name, value in said.items() if value is not None}
    return {"strategy": plan.strategy, **given} if plan.greedy else {}


def _draws(plan: Plan, task: AnyTask) -> dict[str, Any]:
    tasks = drawn_tasks(task, plan.seeds, plan.templates)
    if len(tasks) == 1:
        return {}
    prompts = list(dict.fromkeys(each.variant or OWN for each in tasks))
    return {
        **({"seeds": list(plan.seeds)} if len(plan.seeds) > 1 else {}),
        **({"templates": prompts} if len(prompts) > 1 else {}),
        "draws": [each.digest for each in tasks],
    }
