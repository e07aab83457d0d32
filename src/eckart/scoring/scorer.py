"""What scores a model on a task, whatever the task asks for: clip, read, score, make the trial."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from functools import cached_property, singledispatch
from typing import Any

from eckart.errors import TaskError
from eckart.records import Edit, Rows, Setting, Trial, fingerprint
from eckart.scores import Outcome
from eckart.scoring.methods import SCORING_VERSION
from eckart.tasks.task import AnyTask
from eckart.weights.anatomy import Anatomy
from eckart.weights.edits import Factors, canonical, clip
from eckart.weights.models import LoadedModel

Report = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]
"""Shows a job's progress: given its name and number of rows, a context whose value is told of rows
done."""


def silent(what: str, rows: int) -> AbstractContextManager[Callable[[int], None]]:
    """Report nothing."""
    return nullcontext(lambda done: None)


class Scorer(ABC):
    """Scores a model, clipped or not, on the splits of a task.

    Arguments:
        model: what `load_model` returned.
        task: demonstrations and rows.
        method: how outcomes are made, where nothing else is said.
        report: shows progress.
    """

    def __init__(self, model: LoadedModel, task: AnyTask, method: str, report: Report) -> None:
        self.model = model
        self.task = task
        self.method = method
        self.report = report
        self._factors: Factors = {}
        self._weights: str | None = None

    @abstractmethod
    def on(self, model: LoadedModel) -> Scorer:
        """Return a scorer that does the same with another model."""

    @abstractmethod
    def rows(self, split: str) -> Rows:
        """Return a split's rows; of the whole one, if only some of its rows are named."""

    @abstractmethod
    def digest(self, split: str) -> str:
        """Return a hash of a split's prompts as they will be read."""

    @abstractmethod
    def tokens(self, split: str, methods: Sequence[str] = ()) -> int:
        """Return how many tokens a split has; nothing is read, and the model's weights are not
        needed.

        Raises:
            TaskError: a row does not fit, or a method does not go with the task.
        """

    @abstractmethod
    def prepare(self, split: str, methods: Sequence[str] = ()) -> object:
        """Do what need be done once for a split, whatever the number of edits."""

    @abstractmethod
    def outcomes(
        self, edits: Sequence[Edit], split: str, methods: Sequence[str]
    ) -> Sequence[Outcome]:
        """Score a split that is prepared through the model as it is now, clipped by these edits,
        once a method."""

    @abstractmethod
    def notes(self, *splits: str) -> tuple[str, ...]:
        """Return what a reader should know about the rows of these splits."""

    @cached_property
    def anatomy(self) -> Anatomy:
        """The model's layers and matrices."""
        return Anatomy.of(self.model.model)

    @property
    def reading_key(self) -> dict[str, int]:
        """What the last bits of an outcome depend on besides the dtype; nothing where they matter
        to nobody."""
        return {}

    @property
    def setting(self) -> Setting:
        """What is scored before anything is clipped."""
        task = self.task
        return Setting(self.model.name, task.full_name, task.shots, task.seed, self.method)

    def expect(self, edits: Iterable[Edit]) -> None:
        """Say which single edits are to come; factorisations of matrices that they do not touch are
        forgotten."""
        chosen = self.canonical(list(edits))
        touched = {
            weight.key for edit in chosen for weight in self.anatomy.select(edit.layer, edit.part)
        }
        for key in self._factors.keys() - touched:
            del self._factors[key]

    def forget(self) -> None:
        """Let go of whatever was made of the model's weights: the very parameters may be others
        now."""
        self._factors.clear()
        self.__dict__.pop("anatomy", None)

    def release(self, layer: int) -> None:
        """Let go of the factorisations of a layer's matrices; they are made again where they are
        needed again."""
        for weight in self.anatomy.layers[layer]:
            self._factors.pop(weight.key, None)

    def canonical(self, edits: Sequence[Edit]) -> tuple[Edit, ...]:
        """Return these edits as trials name them; see `eckart.weights.edits.canonical`."""
        # A model that cannot be taken apart can still be scored, as it is.
        return canonical(self.anatomy, edits) if edits else ()

    def key(self, edits: Sequence[Edit], split: str, method: str | None = None) -> str:
        """Return the trial's key: a hash of everything that its outcome depends on; see
        `eckart.weights.identity`.

        Arguments:
            method: how the outcome is made; the scorer's own by default.
        """
        parts = {
            "model": self.model.fingerprint,
            "dtype": self.model.dtype,
            "task": (
                self.task.digest
            ),  # a null prompt depends on the template, which the rows need not give away
            "rows": self.digest(split),
            "edits": [str(edit) for edit in self.canonical(edits)],
            "method": method or self.method,
            "scoring": SCORING_VERSION,
            **self.reading_key,
        }
        return fingerprint(parts)

    def __call__(self, edits: Sequence[Edit], split: str) -> Trial:
        """Score the model with these edits on a split by the scorer's own method; see `trials`."""
        return self.trials(edits, split)[0]

    def trials(self, edits: Sequence[Edit], split: str, methods: Sequence[str] = ()) -> list[Trial]:
        """Score the model with these edits on a split by several methods; the model is as before
        afterwards.

        The rows are read once, whatever the number of methods.

        Arguments:
            edits: what to clip, all together.
            split: `validation`, `test` or `all`, or some of its rows, such as `validation[0:64]`.
            methods: how outcomes are made; the scorer's own by default.

        Returns:
            One trial a method, in their order. The seconds of each are an equal share of those of
            the one reading.

        Raises:
            TaskError: there is no such method, or it does not go with the task or with some of the
                rows alone.
            ModelError: a weight or an output is not a number, or a single row does not fit into
                memory.
            EditError: the model has no such layer or part.
        """
        begin = time.perf_counter()
        self._notice()
        chosen, wanted = self.canonical(edits), methods or (self.method,)
        self.prepare(split, wanted)
        with self._clipped(chosen):
            outcomes = self.outcomes(chosen, split, wanted)
        seconds, rows = (time.perf_counter() - begin) / len(wanted), self.rows(split).digest
        return [
            Trial(
                key=self.key(chosen, split, method),
                setting=replace(self.setting, scoring=method),
                split=split,
                rows=rows,
                edits=chosen,
                score=found,
                seconds=seconds,
            )
            for method, found in zip(wanted, outcomes, strict=True)
        ]

    def _notice(self) -> None:
        """Forget what was made of other weights than the model has now: it may have been trained in
        between."""
        weights = self.model.identity.look()
        if self._weights not in (None, weights):
            self.forget()
        self._weights = weights

    @contextmanager
    def _clipped(self, edits: Sequence[Edit]) -> Iterator[None]:
        if not edits:  # a model that cannot be taken apart can still be scored
            yield
            return
        clipped = clip(self.model.model, edits, anatomy=self.anatomy, factors=self._factors)
        with self.model.identity.restored(), clipped:
            yield


@singledispatch
def scorer_of(task: Any, model: LoadedModel, **options: Any) -> Scorer:
    """Return what scores a model on a task of its kind.

    Arguments:
        task: whatever a kind of scorer is registered for.
        model: what `load_model` returned.
        options: the scorer's own.

    Raises:
        TaskError: nothing is known that scores such a task.
    """
    raise TaskError(
        f"a {type(task).__name__} is no task: give one that Task.load returns, or its name"
    )
