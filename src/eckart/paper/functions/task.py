"""A task that asks for numbers, and what scores a model on it: the same search and sweeps as for
text run on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from eckart.analysis.outcomes import SPLITS
from eckart.errors import ModelError, NotANumberError, TaskError
from eckart.paper.functions.classes import (
    SEEDS,
    FunctionClass,
    Prompts,
    find_class,
    held_out_generator,
    noisy,
)
from eckart.records import Edits, Row, Rows, Split, fingerprint
from eckart.scoring.evaluator import scorer_of
from eckart.scoring.scorer import Progress, Scorer, silent
from eckart.statistics.scores import SQUARED_ERROR, SquaredErrors
from eckart.weights.models import LoadedModel
from eckart.weights.options import ReadingOptions

BATCH_TOKENS = 8192


@dataclass(frozen=True)
class FunctionTask:
    """Functions of a class, each with demonstrations and a point of d numbers that is asked for.

    A row is a function and the point: `split_seed` draws them, `size` for validation and for test
    each. `seed` draws the `shots` demonstrations, so that several seeds show the same functions by
    other points. A TaskError where there is no such class, or a number is too small.

    >>> FunctionTask("linear", dimension=5, shots=10).name
    'linear-5'
    """

    function: str = "linear"
    dimension: int = 5
    shots: int = 10
    seed: int = 0
    size: int = 1000
    split_seed: int = 0

    variant = None
    labels = ()
    metric = SQUARED_ERROR
    metrics = (SQUARED_ERROR,)

    def __post_init__(self) -> None:
        find_class(self.function)
        for name, least in (("dimension", 1), ("shots", 0), ("size", 2)):
            value = getattr(self, name)
            if not isinstance(value, int) or value < least:
                raise TaskError(
                    f"{name} {value} of function class '{self.function}': give a whole number,"
                    f" {least} or more"
                )

    @property
    def kind(self) -> FunctionClass:
        return find_class(self.function)

    @property
    def name(self) -> str:
        return f"{self.function}-{self.dimension}"

    full_name = name

    @property
    def digest(self) -> str:
        """A hash of all that prompts depend on besides their rows."""
        return fingerprint([self.name, self.shots, self.seed])

    def rows_digest(self, split: str) -> str:
        return fingerprint([self.name, self.size, self.split_seed, split])

    def redrawn(self, *, shots: int | None = None, seed: int | None = None) -> FunctionTask:
        """Return the task with other demonstrations; what is None stays."""
        return replace(
            self,
            shots=self.shots if shots is None else shots,
            seed=self.seed if seed is None else seed,
        )

    def prompts(self, split: str) -> Prompts:
        """Return the prompts of `validation` or `test`; a TaskError where there is no such
        split."""
        if split not in SPLITS:
            raise TaskError(f"no split '{split}' of functions; the splits are {', '.join(SPLITS)}")
        drawn = self._generator("rows", split, self.split_seed)
        shown = self._generator("shown", split, self.seed)
        functions = self.kind.draw(drawn, self.size, self.dimension)
        asked = torch.randn(self.size, 1, self.dimension, generator=drawn)
        points = torch.randn(self.size, self.shots, self.dimension, generator=shown)
        values = noisy(self.kind, functions(points), shown)
        answers = noisy(self.kind, functions(asked), drawn)
        return Prompts(torch.cat([points, asked], dim=1), torch.cat([values, answers], dim=1))

    def rows(self, split: str) -> Rows:
        """Return the rows of a split, as a reader meets them."""
        prompts = self.prompts(split)
        asked, answers = prompts.x[:, -1].tolist(), prompts.y[:, -1].tolist()
        return Rows((), tuple(map(_row, range(self.size), asked, answers)))

    def _generator(self, what: str, split: str, seed: int) -> Generator:
        """Return a generator of its own for each split and seed; no training draws what it does."""
        return held_out_generator(int(fingerprint([what, self.name, split, seed])[:8], 16) % SEEDS)


def _row(number: int, x: list[float], y: float) -> Row:
    point = ", ".join(f"{value:.3f}" for value in x)
    return Row(id=str(number), text=f"f({point}) = {y:.3f}", label=None)


class FunctionScorer(Scorer):
    """Scores a model, clipped or not, by its squared error on functions, over the variance of their
    values; there is no other scoring.

    Raises:
        TaskError: the model has another dimension than the task, or reads fewer points.
        ModelError: the model reads no numbers.
    """

    def __init__(
        self,
        model: LoadedModel,
        task: FunctionTask,
        *,
        scoring: str | None = None,
        batch_tokens: int | None = None,
        progress: Progress = silent,
    ) -> None:
        super().__init__(model, task, scoring or SQUARED_ERROR, progress)
        self.task: FunctionTask = task
        self.reading = ReadingOptions(batch_tokens=batch_tokens)
        self._batch_tokens = batch_tokens or BATCH_TOKENS
        self._prompts: dict[str, Prompts] = {}
        if model.tokenizer is not None:
            raise ModelError(
                f"model '{model.name}' was loaded as one that reads text; load a model of functions"
                " with eckart.paper.functions.loading.loaded_model"
            )
        _check_size(model, task)

    def on(self, model: LoadedModel) -> FunctionScorer:
        same: dict[str, Any] = {"batch_tokens": self._batch_tokens, "progress": self.progress}
        return FunctionScorer(model, self.task, scoring=self.scoring, **same)

    def rows(self, split: str) -> Rows:
        return self._rows[Split(split).name]

    def digest(self, split: str) -> str:
        return fingerprint([self.task.digest, self.task.rows_digest(split)])

    def tokens(self, split: str, scorings: Sequence[str] = ()) -> int:
        """Return how many there are: one for each point and each value that is shown."""
        return len(self.prepare(split, scorings).y) * (2 * self.task.shots + 1)

    def prepare(self, split: str, scorings: Sequence[str] = ()) -> Prompts:
        for scoring in scorings:
            if scoring != SQUARED_ERROR:
                raise TaskError(
                    f"no scoring '{scoring}' of functions; there is {SQUARED_ERROR}, and no other"
                )
        split = Split(split)
        if split.name not in self._prompts:
            self._prompts[split.name] = self.task.prompts(split.name)
        whole = self._prompts[split.name]
        return Prompts(whole.x[split.slice], whole.y[split.slice])

    def outcomes(self, edits: Edits, split: str, scorings: Sequence[str]) -> list[SquaredErrors]:
        prompts = self.prepare(split)
        what = f"{split} {', '.join(map(str, edits)) or 'unpruned'}"
        with self.progress(what, len(prompts.y)) as advance:
            errors = self._errors(prompts, advance)
        return [errors for _ in scorings]

    def notes(self, *splits: str) -> tuple[str, ...]:
        return ()  # every row is read as it is

    @cached_property
    def _rows(self) -> dict[str, Rows]:
        return {split: self.task.rows(split) for split in SPLITS}

    @torch.inference_mode()
    def _errors(self, prompts: Prompts, advance: Any) -> SquaredErrors:
        shots, model = self.task.shots, self.model.model
        size = max(1, self._batch_tokens // (2 * shots + 1))
        found: list[Float[Tensor, " prompts"]] = []
        for batch in zip(prompts.x.split(size), prompts.y.split(size), strict=True):
            x, y = (part.to(model.device, model.dtype) for part in batch)
            predicted = model(x, y, [shots])[:, 0].double().cpu()
            found.append((predicted - batch[1][:, -1].double()).square())
            advance(len(y))
        errors = torch.cat(found) / self.task.kind.variance(self.task.dimension)
        if not errors.isfinite().all():
            raise NotANumberError(
                f"the model predicts no number for {int((~errors.isfinite()).sum())} of"
                f" {len(errors)} functions"
            )
        return SquaredErrors(len(errors), float(errors.mean()), tuple(errors.tolist()))


def _check_size(model: LoadedModel, task: FunctionTask) -> None:
    function_model: Any = model.model
    dimension, points = function_model.config.dimension, function_model.points
    if task.dimension != dimension:
        raise TaskError(
            f"task '{task.name}' has points of {task.dimension} numbers, and model '{model.name}'"
            f" reads points of {dimension}; choose --dimension {dimension}"
        )
    if task.shots >= points:
        raise TaskError(
            f"{task.shots} shots and the point that is asked for are more than the {points} points"
            f" that model '{model.name}' reads; choose --shots {points - 1} or fewer"
        )


@scorer_of.register
def _(task: FunctionTask, model: LoadedModel, **options: Any) -> FunctionScorer:
    unknown = sorted(options.keys() - {"scoring", "batch_tokens", "progress"})
    if unknown:
        raise TaskError(f"functions are read without '{unknown[0]}'; leave it out")
    return FunctionScorer(model, task, **options)
