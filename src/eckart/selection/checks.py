"""What can be wrong with a sweep is found before anything long is computed, and before any weights are loaded."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TypeVar

from eckart.anatomy import Anatomy
from eckart.errors import EckartError, StudyError
from eckart.evaluation.evaluator import Evaluator
from eckart.evaluation.fitting import fit
from eckart.evaluation.requests import Requests, build_requests, context_window
from eckart.evaluation.scoring import check_method
from eckart.models import LoadedModel, Tokenizer, empty_model, load_model, load_tokenizer
from eckart.records import fingerprint
from eckart.selection.grid import ModelEntry, Sweep, TaskEntry, Unit
from eckart.tasks.task import Task


@dataclass(frozen=True)
class Sources:
    """The models and tasks that the caller holds in memory: models by name, tasks by digest."""

    models: Mapping[str, LoadedModel] = field(default_factory=dict)
    tasks: Mapping[str, Task] = field(default_factory=dict)
    _read: dict[str, Task] = field(default_factory=dict, repr=False)

    def model(self, entry: ModelEntry) -> LoadedModel:
        """Load a model."""
        if entry.live:
            return _held(self.models, entry.name, entry.name)
        return load_model(entry.name, **entry.model_dump(exclude={"name", "live"}))

    def task(self, entry: TaskEntry, shots: int | None, seed: int | None) -> Task:
        """Load a task with these demonstrations; its rows are read once, however often it is asked for."""
        if entry.digest is not None:
            return _held(self.tasks, entry.digest, entry.full_name).redrawn(shots=shots, seed=seed)
        said = entry.model_dump(exclude={"task", "name", "metric", "digest"})
        key = fingerprint([entry.task, said])
        if key not in self._read:
            self._read[key] = Task.load(entry.task, **said)
        task = self._read[key].redrawn(shots=shots, seed=seed)
        return task if entry.name is None else replace(task, name=entry.name)

    def evaluator(self, sweep: Sweep, unit: Unit, model: LoadedModel) -> Evaluator:
        """Return what scores a unit."""
        return Evaluator(
            model,
            self.task(unit.task, unit.shots, unit.seed),
            batch_tokens=sweep.batch_tokens,
            cache_memory=sweep.cache_memory,
            truncate_demonstrations=sweep.truncate_demonstrations,
            drop_long_rows=sweep.drop_long_rows,
        )


def resolve(sweep: Sweep, sources: Sources | None = None) -> Sweep:
    """Check every model, task and row of a sweep, and fill in what its tasks leave open.

    Raises:
        EckartError: a model or a task is not usable, a layer or part does not exist, a row does not fit.
    """
    sources = sources or Sources()
    outlines = [Outline.of(entry, sweep, sources) for entry in sweep.models]
    tasks = tuple(_resolved(entry, sweep, sources, outlines) for entry in sweep.tasks)
    names = [task.full_name for task in tasks]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise StudyError(f"two tasks are called '{twice}'; give one of them another name")
    return sweep.model_copy(update={"tasks": tasks})


def _resolved(entry: TaskEntry, sweep: Sweep, sources: Sources, outlines: Sequence[Outline]) -> TaskEntry:
    """Check every unit of a task, and return its entry with what it leaves open."""
    drawn = {}
    for shots, seed in sweep.draws:
        with _about(entry.full_name):
            task = drawn[shots, seed] = sources.task(entry, shots, seed)
            for scoring in sweep.scorings:
                check_method(scoring, task.kind)
        for outline in outlines:
            with _about(Unit(outline.entry, entry, shots, seed)):
                for split in sweep.splits:
                    outline.requests(task, split, sweep)
    first = drawn[sweep.draws[0]]
    return entry.model_copy(update={"name": first.name, "metric": entry.metric or first.metric})


@dataclass(frozen=True)
class Outline:
    """A model without its weights: its layers, and what it reads with."""

    entry: ModelEntry
    anatomy: Anatomy
    tokenizer: Tokenizer
    window: int | None

    @classmethod
    def of(cls, entry: ModelEntry, sweep: Sweep, sources: Sources) -> Outline:
        """Look at a model.

        Raises:
            EckartError: there is no such model, or it lacks a layer or a part of the sweep.
        """
        with _about(entry.name):
            if entry.live:
                loaded = sources.model(entry)
                model, tokenizer = loaded.model, loaded.tokenizer
            else:
                model = empty_model(entry.name, entry.trust_remote_code)
                tokenizer = load_tokenizer(entry.name, entry.trust_remote_code)
            anatomy = Anatomy.of(model)
            for layer in sweep.layers_of(anatomy) or [0]:
                for part in sweep.parts:
                    anatomy.select(layer, part)
        return cls(entry, anatomy, tokenizer, context_window(model.config))

    def requests(self, task: Task, split: str, sweep: Sweep) -> Requests:
        """Return a split as the model reads it.

        Raises:
            TaskError: a row does not fit, or cannot be told from its label.
        """
        truncate, drop = sweep.truncate_demonstrations, sweep.drop_long_rows
        fitted = fit(task, split, self.tokenizer, self.window, truncate=truncate, drop=drop)
        return build_requests(fitted.prompts, self.tokenizer, self.window)


HeldT = TypeVar("HeldT")


def _held(things: Mapping[str, HeldT], key: str, name: str) -> HeldT:
    if key not in things:
        raise StudyError(
            f"'{name}' was in the memory of the process that began this sweep; go on from Python"
        )
    return things[key]


@contextmanager
def _about(what: object) -> Iterator[None]:
    """Say what an error is about, unless it says so itself: `gpt2` is not named by `gpt2-xl`."""
    try:
        yield
    except EckartError as error:
        if re.search(rf"(?<![\w/-]){re.escape(str(what))}(?![\w-]|\.\w)", str(error)):
            raise
        raise type(error)(f"{what}: {error}") from error
