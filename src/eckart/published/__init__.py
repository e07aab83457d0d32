"""Published numbers, to stand beside a result: the paper's Tables 2 to 8, and the authors' released
logs."""

from __future__ import annotations

import csv
import re
from functools import cache
from importlib import resources
from typing import Any

import yaml

SOURCES = ("algorithm1_tables.csv", "author_logs.csv")


def identify(name: str, config: Any) -> str | None:
    """Return the paper's name for a checkpoint, or None where it is another one: a model that only
    shares the name, a hub id or a path, has another configuration."""
    known = named(name)
    facts = {k: v for k, v in _facts("models.yaml").get(known, {}).items() if k != "name"}
    return known if all(getattr(config, k, None) == v for k, v in facts.items()) else None


def named(name: str) -> str | None:
    """Return the paper's name for a checkpoint by its name alone, for whoever has no configuration
    at hand.

    >>> named("EleutherAI/gpt-j-6B"), named("gpt2")
    ('gpt-j-6b', None)
    """
    last = re.split(r"[/\\]", name.rstrip("/\\"))[-1].lower()
    models = _facts("models.yaml").items()
    return next((known for known, facts in models if re.fullmatch(facts["name"], last)), None)


def record() -> list[dict[str, Any]]:
    """Return every published pair of accuracies, of the paper's tables and of the authors' logs.

    Returns:
        one row a table's line or log: `source`, `model`, `task`, `part`, `layer`, `rate`,
        `test_baseline`, `test_clipped`, accuracies in [0, 1].
    """
    keys = sorted({(r["model"], r["task"], r["part"]) for name in SOURCES for r in _table(name)})
    return [
        {"model": model, "task": task, "part": part, **row}
        for model, task, part in keys
        for row in published_rows(model, task, part)
    ]


def sizes(task: str) -> tuple[int, int]:
    """Return how many test rows a task has in the paper, and what its published accuracies are
    multiples of."""
    facts = _facts("sizes.yaml")[task]
    return facts["test"], facts.get("divisor", facts["test"])


def slips() -> list[str]:
    """Return what a reader of the published numbers should know."""
    return list(_facts("slips.yaml"))


def published_rows(model: str | None, task: str, part: str) -> list[dict[str, Any]]:
    """Return every published row about a model, task and part.

    Returns:
        one row a table or log: `source`, `layer`, `rate`, `test_baseline`, `test_clipped`,
            accuracies in [0, 1].
    """
    wanted = {"model": model, "task": task, "part": part}
    rows = [
        _row(f"Table {row['table']}", row["layer"], row["best_rate"], row)
        for row in _table("algorithm1_tables.csv")
        if wanted.items() <= row.items()
    ]
    logs = {
        row["layer"]: _row("authors' log", row["layer"], row["selected_rate"], row)
        for row in _table("author_logs.csv")
        if wanted.items() <= row.items()
    }
    return rows + list(logs.values())


def _row(source: str, layer: str, rate: str, row: dict[str, str]) -> dict[str, Any]:
    return {
        "source": source,
        "layer": int(layer),
        "rate": float(rate),
        "test_baseline": float(row["test_baseline"]),
        "test_clipped": float(row["test_pruned"]),
    }


@cache
def _facts(name: str) -> Any:
    return yaml.safe_load(_text(name))


@cache
def _table(name: str) -> tuple[dict[str, str], ...]:
    return tuple(csv.DictReader(_text(name).splitlines()))


def _text(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")
