"""The models and tasks of a sweep: loaded, and checked before anything long is computed or any
weights are read."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from eckart.errors import StudyError, about
from eckart.records import fingerprint
from eckart.scoring.evaluator import scorer_of
from eckart.scoring.methods import SCORING_VERSION
from eckart.scoring.scorer import Scorer
from eckart.scoring.text import GuardText
from eckart.selection.draws import alike
from eckart.selection.guard import Guard
from eckart.selection.plan import check_known
from eckart.sweeps.grid import ModelEntry, Sweep, TaskEntry, Unit
from eckart.tasks.spec import DrawnTask, TaskOptions
from eckart.tasks.task import AnyTask, Task
from eckart.weights.anatomy import Anatomy
from eckart.weights.models import LoadedModel, load_model, outlined_model
from eckart.weights.options import ModelOptions, ReadingOptions


@dataclass(frozen=True)
class Sources:
    """The models and tasks that the caller holds in memory, by their names; no two of a sweep share
    one."""

    models: Mapping[str, LoadedModel] = field(default_factory=dict)
    tasks: Mapping[str, AnyTask] = field(default_factory=dict)
    _read: dict[str, Task] = field(default_factory=dict, repr=False)

    def model(self, entry: ModelEntry) -> LoadedModel:
        if entry.live:
            return _held(self.models, entry.name)
        return load_model(entry.name, **entry.only(ModelOptions))

    def task(self, entry: TaskEntry, shots: int | None, seed: int | None) -> AnyTask:
        """Load a task with these demonstrations; its rows are read once, however often it is asked
        for."""
        if entry.digest is not None:
            return _held(self.tasks, entry.full_name).redrawn(shots=shots, seed=seed)
        said = {**entry.only(TaskOptions), "name": None}
        # Drawn at once as it was asked for: the task's own number of demonstrations may be more
        # than its rows allow.
        key = fingerprint([said, shots is None, seed is None])
        if key not in self._read:
            self._read[key] = Task.of(DrawnTask.of({**said, "shots": shots, "seed": seed or 0}))
        task = self._read[key].redrawn(shots=shots, seed=seed)
        return task if entry.name is None else replace(task, name=entry.name)

    def guard(self, sweep: Sweep, scorer: Scorer) -> Guard | None:
        """Return what looks at the choices of a unit; None where nobody asked.

        Raises:
            EckartError: the guard's text or a task is not usable.
        """
        if not sweep.guard:
            return None
        return Guard(scorer, sweep.guard_text, self._guard_tasks(sweep), sweep.guard_margin)

    def guards(self, sweep: Sweep) -> tuple[AnyTask, ...]:
        """Return the guard's text and tasks; none where nobody asked."""
        if not sweep.guard:
            return ()
        return (GuardText.load(sweep.guard_text), *self._guard_tasks(sweep))

    def _guard_tasks(self, sweep: Sweep) -> list[Task]:
        """Load the guard's tasks, whose rows are read once."""
        for name in sweep.guard_task:
            with about(f"guard task '{name}'"):
                if f"guard {name}" not in self._read:
                    self._read[f"guard {name}"] = Task.load(name)
        return [self._read[f"guard {name}"] for name in sweep.guard_task]

    def scorer(self, sweep: Sweep, task: AnyTask, model: LoadedModel) -> Scorer:
        said = sweep.model_dump(include={*ReadingOptions.model_fields}, exclude_defaults=True)
        return scorer_of(task, model, **said)


def settle(sweep: Sweep, sources: Sources | None = None) -> Sweep:
    """Check every model, task and row of a sweep, and fill in what its tasks leave open.

    Raises:
        EckartError: a model or a task is not usable, a layer or part does not exist, a row does not
            fit.
    """
    sources = sources or Sources()
    outlines = [Outline.of(entry, sweep, sources) for entry in sweep.models]
    tasks = tuple(_resolved(entry, sweep, sources, outlines) for entry in sweep.tasks)
    check_names([task.full_name for task in tasks], "tasks")
    return sweep.model_copy(update={"tasks": tasks})


def check_names(names: Sequence[str], what: str) -> None:
    """Refuse names by which two models or two tasks could not be told apart.

    Raises:
        StudyError: a name stands twice.
    """
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise StudyError(f"two {what} are called '{twice}'; give one of them another name")


def _resolved(
    entry: TaskEntry, sweep: Sweep, sources: Sources, outlines: Sequence[Outline]
) -> TaskEntry:
    """Check every unit of a task, and return its entry with what it leaves open."""
    drawn = {}
    for shots, seed in sweep.draws:
        with about(entry.full_name):
            task = drawn[shots, seed] = sources.task(entry, shots, seed)
            check_known(entry.metric, task.metrics, "metric", StudyError)
        for outline in outlines:
            with about(Unit(outline.entry, entry, shots, seed)):
                scorer = sources.scorer(sweep, task, outline.model)
                for split in sweep.splits:
                    scorer.tokens(split, sweep.scorings)
                sources.guard(sweep, scorer)
    _tell_alike(entry, drawn)
    first = drawn[sweep.draws[0]]
    return entry.model_copy(update={"name": first.name, "metric": entry.metric or first.metric})


def _tell_alike(entry: TaskEntry, drawn: Mapping[tuple[int | None, int | None], AnyTask]) -> None:
    """Warn of seeds that draw the same demonstrations: their results are one result, not
    several."""
    for said in alike(drawn.values()):
        warnings.warn(f"{entry.full_name}: {said}", stacklevel=2)


def contents(sweep: Sweep, sources: Sources) -> dict[str, dict[str, Any]]:
    """Return for each task and draw of a sweep what its trials depend on besides the model and the
    settings.

    Settings say where a task's prompts and rows come from; what was found there is known by these
    digests.
    """
    return {
        unit.asked: content(sources.task(unit.task, unit.shots, unit.seed), sweep)
        for unit in sweep.units
        if unit.model is sweep.models[0]
    }


def content(task: AnyTask, sweep: Sweep) -> dict[str, Any]:
    """Return the digests of a task's prompts and rows, and by which version of the scoring they are
    scored."""
    rows = {f"{split} rows": task.rows_digest(split) for split in sweep.splits}
    return {**rows, "prompts or demonstrations": task.digest, "scoring version": SCORING_VERSION}


@dataclass(frozen=True)
class Outline:
    """A model without its weights, unless they are in memory anyway: its layers, and what it reads
    with."""

    entry: ModelEntry
    model: LoadedModel
    anatomy: Anatomy

    @classmethod
    def of(cls, entry: ModelEntry, sweep: Sweep, sources: Sources) -> Outline:
        """Look at a model.

        Raises:
            EckartError: there is no such model, or it lacks a layer or a part of the sweep.
        """
        with about(entry.name):
            model = sources.model(entry) if entry.live else outlined_model(entry.name, entry)
            anatomy = Anatomy.of(model.model)
            for layer in sweep.layers_of(anatomy) or [0]:
                for part in sweep.parts:
                    anatomy.select(layer, part)
        return cls(entry, model, anatomy)


HeldT = TypeVar("HeldT")


def _held(things: Mapping[str, HeldT], name: str) -> HeldT:
    if name not in things:
        raise StudyError(
            f"'{name}' was in the memory of the process that began this sweep; go on from Python"
        )
    return things[name]
