"""The cost of a sweep, before it starts: counted from its rows, and timed on a few of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from eckart.algorithm1 import RANDOM_ARMS
from eckart.records import Split
from eckart.runs import read_run
from eckart.scoring.scorer import Scorer
from eckart.selection.alike import apart
from eckart.selection.draws import drawn_tasks
from eckart.selection.greedy import propose
from eckart.selection.plan import Plan
from eckart.selection.racing import FIRST_LOOK
from eckart.selection.recorded import Recorded
from eckart.statistics.power import Outlook
from eckart.sweeps.grid import Sweep, Unit
from eckart.sweeps.sources import Outline, Sources
from eckart.sweeps.units import foresee_unit
from eckart.weights.anatomy import Anatomy

Foreseen = Callable[[Unit, Outlook], None]
"""Told what the test rows can show of a unit's model, task and shots."""
ARMS = len(RANDOM_ARMS) + 2
"""How many control arms a choice has at most: the random ones, the largest, and drop."""


@dataclass(frozen=True)
class Cost:
    """An estimate.

    Arguments:
        units, trials: how many there are; of `selected` tests the most that there can be.
        kept: trials that the run's folder holds already.
        rows, tokens: read by the unpruned models, in all units and splits together.
        seconds: for what is not kept, on this machine, one unit after the other.
        disk: bytes of the run's file in the end.
        states: bytes that one unit's passes leave for its edits, in memory or in a temporary file,
            in float32; in half precision they are half as many.
    """

    units: int
    trials: int
    kept: int
    rows: int
    tokens: int
    seconds: float
    disk: int
    states: int

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class _Model:
    """What a model's units are made of.

    Arguments:
        edits: how many a unit has.
        passes: what they cost together, in passes of the unpruned model: an edit begins at its
            layer.
        points: at how many places the unpruned pass leaves states for them.
        width: bytes of a token's state in float32; in half precision it has half as many.
    """

    edits: int
    passes: float
    points: int
    width: int

    @classmethod
    def of(cls, sweep: Sweep, anatomy: Anatomy) -> _Model:
        """Count a model's edits. Which layer `auto` will choose is not known; it counts as the
        middle one."""
        n = len(anatomy.layers)
        layers = sweep.layers_of(anatomy) or [n // 2]
        edits = apart(anatomy, sweep.edits(dict.fromkeys(sweep.parts, layers)))
        passes = sum((n - edit.layer) / n for edit in edits)
        width = anatomy.model.config.get_text_config().hidden_size * 4
        return cls(len(edits), passes, len(sweep.parts) * len(layers), width)

    def of_split(self, sweep: Sweep, split: str) -> tuple[int, float]:
        """Return the most edits that are scored on a split, the unpruned model among them, and
        their passes."""
        choices = min(len(sweep.parts) * sweep.scored, self.edits)
        arms = choices * ARMS if split == "test" and sweep.controls else 0
        edits = choices if split == "test" and sweep.test == "selected" else self.edits
        return 1 + edits + arms, 1 + self.passes * (edits + arms) / max(self.edits, 1)


def expected_trials(sweep: Sweep, folder: Path, sources: Sources) -> int:
    """Return how many trials are still to come, at most."""
    models = [_Model.of(sweep, Outline.of(entry, sweep, sources).anatomy) for entry in sweep.models]
    units = len(sweep.tasks) * len(sweep.draws)
    return units * sum(
        _trials(sweep, model, split) for model in models for split in sweep.splits
    ) - _kept(folder)


def estimate(
    sweep: Sweep, folder: Path, sources: Sources, foreseen: Foreseen | None = None
) -> Cost:
    """Count a sweep's trials, rows and tokens, and time each model on a few rows.

    Arguments:
        sweep: resolved.
        folder: the run's.
        sources: where its models and tasks come from; those that `settle` had need not be read
            again.
        foreseen: told what can be seen, where anybody is; it is measured on the same rows, at the
            last layer where it is not known which one `auto` will choose.
    """
    found = list(_costs(sweep, sources, foreseen))
    total = {f.name: sum(getattr(cost, f.name) for cost in found) for f in fields(Cost)}
    kept = _kept(folder)
    left = 1 - min(1, kept / max(total["trials"], 1))
    states = max((cost.states for cost in found), default=0)
    return Cost(**{**total, "kept": kept, "seconds": total["seconds"] * left, "states": states})


def as_sweep(plan: Plan, scorer: Scorer) -> tuple[Sweep, Sources]:
    """Return the sweep that costs what a search does: a race at most as much, a greedy search as
    much in a step in which nothing is dropped."""
    model, tasks = scorer.model, drawn_tasks(scorer.task, (), plan.templates)
    candidates = propose(plan, scorer.anatomy) if plan.greedy else ()
    layers = {edit.layer for edit in candidates}
    if isinstance(plan.layer, int):
        layers = {scorer.anatomy.layer_index(plan.layer)}
    values = {
        "models": [{"name": model.name, "live": True}],
        "tasks": [
            {"name": task.name, "variant": task.variant, "digest": task.digest} for task in tasks
        ],
        **({"seeds": plan.seeds} if len(plan.seeds) > 1 else {}),
        "layers": sorted(layers) or "auto",
        "parts": [plan.part],
        "rates": plan.tried,
        "scorings": [scorer.scoring],
        "controls": plan.controls,
        **scorer.reading.model_dump(exclude_defaults=True),
    }
    sources = Sources({model.name: model}, {task.full_name: task for task in tasks})
    return Sweep.of(values), sources


def _costs(sweep: Sweep, sources: Sources, foreseen: Foreseen | None) -> Iterator[Cost]:
    for entry in sweep.models if sweep.tasks else ():  # spectra alone need no model in memory
        loaded = sources.model(entry)
        anatomy = Anatomy.of(loaded.model)
        model = _Model.of(sweep, anatomy)
        layers = sweep.layers_of(anatomy) or [len(anatomy.layers) - 1]
        pace = None
        for unit in (unit for unit in sweep.units if unit.model is entry):
            task = sources.task(unit.task, unit.shots, unit.seed)
            scorer = sources.scorer(sweep, task, loaded)
            pace = _pace(scorer) if pace is None else pace
            if foreseen is not None:
                recorded = Recorded(scorer, None)
                outlook = foresee_unit(sweep, unit, recorded, dict.fromkeys(sweep.parts, layers))
                if outlook is not None:
                    foreseen(unit, outlook)
            for split in sweep.splits:
                size = scorer.tokens(split)
                n = len(scorer.rows(split).rows)
                trials = _trials(sweep, model, split)
                yield Cost(
                    units=int(split == "validation"),
                    trials=trials,
                    kept=0,
                    rows=n,
                    tokens=size,
                    seconds=pace * size * model.of_split(sweep, split)[1],
                    disk=trials * n * (8 * len(task.labels) + 6),
                    states=model.points * model.width * size,
                )


def _trials(sweep: Sweep, model: _Model, split: str) -> int:
    if split == "test" and sweep.test == "selected":
        choices = min(len(sweep.parts), model.edits)
        return sweep.scored * (1 + choices * (1 + ARMS * sweep.controls))
    return sweep.scored * model.of_split(sweep, split)[0]


def _pace(scorer: Scorer) -> float:
    """Return the seconds that the unpruned model takes for a token, timed on the first rows."""
    rows = Split.part("validation", 0, min(FIRST_LOOK, len(scorer.rows("validation").rows)))
    scorer.prepare(rows)
    start = time.perf_counter()
    scorer([], rows)
    return (time.perf_counter() - start) / scorer.tokens(rows)


def _kept(folder: Path) -> int:
    trials = read_run(folder).trials.values() if (folder / "run.sqlite").is_file() else ()
    return sum(not trial.split.is_part for trial in trials)  # a first look is counted nowhere
