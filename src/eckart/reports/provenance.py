"""The origin of a run's numbers: its settings, what it cost, and how to run it again."""

from __future__ import annotations

import shlex
from collections import Counter
from dataclasses import dataclass
from typing import Any

import yaml

from eckart.analysis.findings import find
from eckart.analysis.outcomes import short_name
from eckart.errors import RunError
from eckart.runs import Run
from eckart.selection.plan import BY_HAND, Plan

VERSIONS = ("eckart", "torch", "transformers", "python")
SCORED = ("task", "shots", "seed", "scoring", "dtype")
"""The settings of a search that its command line says beside those of its plan."""


@dataclass(frozen=True)
class Provenance:
    """Where a run's numbers come from.

    Arguments:
        title: what the run is about.
        kind: `search`, `sweep`, `spectrum`, or what else made it.
        warnings: what a reader must know first: that it is unfinished, that trials failed.
        settings: name and value, in words.
        versions: of the programs that made it; `unknown` where the run does not say.
        cost: name and value, in words.
        command: runs it again.
    """

    title: str
    kind: str
    warnings: list[str]
    settings: dict[str, str]
    versions: dict[str, str]
    cost: dict[str, str]
    command: str

    def to_json(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "settings": self.settings,
            "versions": self.versions,
            "cost": self.cost,
            "command": self.command,
        }


def provenance(run: Run) -> Provenance:
    """Gather where a run's numbers come from."""
    kind = run.asked.kind
    if kind == "training":
        raise RunError(
            f"'{run.folder}' holds a training, which eckart functions evaluate measures; a report"
            " is of a search, a sweep or a spectrum"
        )
    recorded = run.origin.get("versions") or {}
    return Provenance(
        title=_title(run, kind),
        kind=kind,
        warnings=_warnings(run, kind),
        settings={name: _said(value) for name, value in _flat(run.settings).items()},
        versions={name: str(recorded.get(name, "unknown")) for name in VERSIONS},
        cost=_cost(run),
        command=_command(run, kind),
    )


def _title(run: Run, kind: str) -> str:
    models = sorted({short_name(trial.setting.model) for trial in run.trials.values()})
    tasks = sorted({trial.setting.task for trial in run.trials.values()})
    if not models:
        return f"{kind.capitalize()}: {run.folder.name}"
    return f"{kind.capitalize()}: {_few(models, 'models')} on {_few(tasks, 'tasks')}"


def _few(names: list[str], noun: str) -> str:
    return ", ".join(names) if len(names) <= 3 else f"{len(names)} {noun}"


def _warnings(run: Run, kind: str) -> list[str]:
    failed = sum(trial.score is None for trial in run.trials.values())
    several = sum(len(trial.edits) > 1 for trial in run.trials.values())
    said = []
    there, wanted = progress(run)
    if there < wanted and run.settings.get("strategy") != BY_HAND:
        said.append(
            f"This {kind} is unfinished: {there:,} of {wanted:,} trials are there. The report is of"
            " these; the same command goes on with the rest."
        )
    if failed:
        said.append(
            f"{failed} of {len(run.trials)} trials failed; they are listed below and count nowhere."
        )
    if several and not run.settings.get("strategy"):
        said.append(f"{several} trials clip several places at once, and are left out.")
    return said


def progress(run: Run) -> tuple[int, int]:
    """Return how many trials there are of those that must be there, as far as the settings tell.

    A search scores every rate on validation and then, under each draw, the unpruned model and its
    choice on test, unless that is to clip nothing; how much of validation a race reads, and which
    rates are one edit, its settings do not tell: one that came to the test has what it needs. A
    sweep scores the unpruned model and every edit on validation; on test all of them, or at least
    the unpruned model.
    """
    unpruned = {
        trial.setting for trial in run.trials.values() if not trial.edits and trial.split == "test"
    }
    asked = run.asked
    on_validation = sum(
        trial.split.name == "validation" and (asked.raced or not trial.split.is_part)
        for trial in run.trials.values()
    )
    if asked.kind == "search":
        done = asked.raced or bool(unpruned)
        wanted = on_validation if done else len(asked.rates) * asked.draws
        clipped = {t.setting for t in run.trials.values() if t.edits and t.split == "test"}
        due = clipped or (unpruned and _untested(run))
        there = on_validation + len(unpruned) + len(clipped)
        return (there, wanted + asked.draws * (2 if due else 1))
    if not asked.grid:
        return (0, 0)
    read = asked.readings * len(asked.models)
    whole = read + asked.readings * sum(_edits(run, model) for model in asked.models)
    if asked.grid["test"] == "all":
        return (len(run.trials), 2 * whole)
    tested = read if asked.grid["test"] == "selected" else 0
    return (on_validation + min(len(unpruned), tested), whole + tested)


def _untested(run: Run) -> bool:
    """Whether a search without a result, which it writes last, chose an edit on validation."""
    written = (run.folder / "result.json").is_file()
    return not written and any(choice.edit for choice in find(run).choices)


def _edits(run: Run, model: str) -> int:
    """Return how many edits a sweep makes of a model; at least one, where it was not looked at
    yet."""
    facts = run.models.get(model, {})
    layers = facts.get("layers", {"any": [0]})
    every = sum(map(len, layers.values())) * sum(rate > 0 for rate in run.asked.rates)
    return facts.get("edits") or every


def _flat(settings: dict[str, Any]) -> dict[str, Any]:
    """Take a study's own settings out of their wrapping."""
    study = settings.get("study")
    plain = {name: value for name, value in settings.items() if name != "study"}
    return {**plain, **study} if isinstance(study, dict) else plain


def _said(value: Any) -> str:
    if isinstance(value, list) and all(isinstance(item, str | int | float) for item in value):
        return ", ".join(map(str, value))
    if isinstance(value, dict | list):
        return yaml.safe_dump(value, sort_keys=False, allow_unicode=True).strip()
    return "not set" if value is None else str(value)


def _cost(run: Run) -> dict[str, str]:
    seconds: Counter[str] = Counter()
    for trial in run.trials.values():
        seconds[trial.split.name] += trial.seconds  # type: ignore[assignment]
    counts = Counter(trial.split.name for trial in run.trials.values())
    split_costs = {
        f"{split} trials": f"{counts[split]:,}, {seconds[split]:,.1f} s"
        for split in sorted(counts, reverse=True)
    }
    total = sum(trial.seconds for trial in run.trials.values())
    return {"trials": f"{len(run.trials):,}", **split_costs, "seconds, all trials": f"{total:,.1f}"}


def _command(run: Run, kind: str) -> str:
    if run.origin.get("command"):
        return str(run.origin["command"])
    if kind == "sweep":
        return shlex.join(
            ["eckart", "sweep", str(run.folder / "study.yaml"), "--out", str(run.folder)]
        )
    model = next((trial.setting.model for trial in run.trials.values()), "MODEL")
    if kind == "search":
        return shlex.join(["eckart", "search", model, *_search_options(run)])
    return shlex.join(["eckart", "spectrum", model])


def _search_options(run: Run) -> list[str]:
    said = {**run.settings, "rivals": bool(run.rivals)}
    if "seeds" in said:
        del said["seed"]
    if "screen_rows" in said:
        said["screen_rows"] = said["screen_rows"][0]  # beside their digest
    options = []
    for name in (*SCORED, *Plan.model_fields):
        value, flag = said.get(name), f"--{name.replace('_', '-')}"
        if name in Plan.model_fields and Plan.model_fields[name].annotation is bool:
            options += [flag] if value else []
        elif isinstance(value, list):
            options += [
                flag,
                ",".join(f"{each:g}" if name == "rates" else str(each) for each in value),
            ]
        elif value is not None:
            options += [flag, str(value)]
    return options
