"""The one loop: clip, read every row, rank the labels, keep the trial."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from eckart.errors import ModelError
from eckart.evaluation.calibration import INPUTS, Nulls, null_prompts
from eckart.evaluation.fitting import Fitted, fit
from eckart.evaluation.outcome import Evaluation
from eckart.evaluation.reading import Reader
from eckart.evaluation.requests import build_requests, context_window
from eckart.evaluation.route import Point, Route
from eckart.evaluation.scorer import Report, Scorer, scorer_of, silent
from eckart.evaluation.scoring import Reading, check_method, combine, score
from eckart.evaluation.trunk import Trunk
from eckart.evaluation.vocabulary import check_vocabulary
from eckart.evaluation.ways import agrees, find_reader, sample_of, sizes
from eckart.models import LoadedModel, Model, Tokenizer, load_model, needed_tokenizer
from eckart.records import Edit, Rows, parse_rows
from eckart.scores import Score
from eckart.tasks.prompts import Prompt
from eckart.tasks.task import Task

BOTTOM = Point(0)
HARSH = 0.9
"""From this clipping rate on, a reading that ignored the edit would be far from the plain forward."""

BATCH_TOKENS = {"cpu": 1024, "mps": 4096, "cuda": 16384}


@dataclass(frozen=True, eq=False)
class _Prepared:
    """A split as the model reads it, ready for any number of edits.

    Arguments:
        prompts: the rows.
        reader: reads them.
        checked: points from which reading was found to agree with the plain forward, under a mild edit or a harsh one.
    """

    prompts: tuple[Prompt, ...]
    reader: Reader
    checked: set[tuple[Point, bool]] = field(default_factory=set)

    def rows_of(self, start: int, stop: int) -> _Prepared:
        """Return rows `start` to `stop - 1` as a split of their own."""
        return _Prepared(self.prompts[start:stop], self.reader.part(range(start, stop)), self.checked)


class Evaluator(Scorer):
    """Scores a causal language model, clipped or not, on the splits of a task with labels.

    Arguments:
        model: what `load_model` returned.
        task: demonstrations, rows and labels.
        method: what ranks the labels, where nothing else is said; see `combine`. The task's own by default.
        batch_tokens: the most tokens in a batch; chosen by device when None.
        cache_memory: bytes of memory for the states that candidates share; a share of the free memory when None. What
            exceeds it goes to a temporary file.
        truncate_demonstrations: show fewer demonstrations in a row that is longer than the model reads.
        drop_long_rows: leave out a row that is longer than the model reads.
        report: shows progress.

    Raises:
        TaskError: a prompt is longer than the model reads.
        ModelError: the model's batched forward does not agree with its own plain one.
    """

    def __init__(
        self,
        model: LoadedModel,
        task: Task,
        *,
        method: str | None = None,
        batch_tokens: int | None = None,
        cache_memory: int | None = None,
        truncate_demonstrations: bool = False,
        drop_long_rows: bool = False,
        report: Report = silent,
    ) -> None:
        super().__init__(model, task, check_method(method or task.default_score, task.kind), report)
        self.task: Task = task
        self.tokenizer = needed_tokenizer(model)
        self.window = context_window(model.model.config)
        self._options: dict[str, Any] = {
            "method": method,
            "batch_tokens": batch_tokens,
            "cache_memory": cache_memory,
            "truncate_demonstrations": truncate_demonstrations,
            "drop_long_rows": drop_long_rows,
            "report": report,
        }
        self._budget = batch_tokens or BATCH_TOKENS.get(model.model.device.type, 4096)
        self._fitting = {"truncate": truncate_demonstrations, "drop": drop_long_rows}
        self.trunk = Trunk.on(model.model.device, cache_memory)
        self._points: frozenset[Point] = frozenset()
        self._tails = True
        self._fitted: dict[str, Fitted] = {}
        self._prepared: dict[str, _Prepared] = {}
        self._nulls: dict[tuple[str, str], Nulls] = {}

    def on(self, model: LoadedModel) -> Evaluator:
        """Return an evaluator that does the same with another model."""
        return Evaluator(model, self.task, **self._options)

    @cached_property
    def route(self) -> Route | None:
        """What leads passes through the model from any layer on; None for a model that cannot be taken apart."""
        try:
            return Route(self.anatomy)
        except ModelError:
            return None

    def expect(self, edits: Iterable[Edit]) -> None:
        """Say which single edits are to come: the next pass leaves the states that they share with the unpruned model.

        What earlier passes left is forgotten, and so are factorisations of matrices that these edits do not touch.
        """
        chosen = self.canonical(list(edits))
        super().expect(chosen)
        route = self.route if self._tails else None
        points = {route.point([edit]) for edit in chosen} if route else set()
        self._points = frozenset(point for point in points if point is not None and point != BOTTOM)
        self.trunk.clear()

    def outcomes(self, edits: Sequence[Edit], split: str, methods: Sequence[str]) -> list[Score]:
        """Read what `prepare` prepared through the model as it is now, and score it once a method."""
        reading, prompts = self._read(split, methods, edits), self._rows(split).prompts
        labels, ids = [p.label for p in prompts], [p.id for p in prompts]
        return [score(combine(method, reading), labels, ids) for method in methods]

    def tokens(self, split: str, methods: Sequence[str] = ()) -> int:
        """Return how many tokens a split has, those that all rows begin with counted once; nothing is read.

        Raises:
            TaskError: a row does not fit or cannot be told from its label, or a method does not go with the task.
        """
        for method in methods:
            check_method(method, self.task.kind)
        requests = build_requests(self.fitted(split).prompts, self.tokenizer, self.window)
        check_vocabulary(self.model, requests)
        return len(requests.prefix) + sum(map(len, requests.rows))

    def rows(self, split: str) -> Rows:
        """Return a split's rows; of the whole one, if only some of its rows are named."""
        part = parse_rows(split)
        return self.fitted(part[0] if part else split).described

    def evaluate(self, edits: Sequence[Edit], split: str) -> Evaluation:
        """Score the model with these edits on a split, and return the outcome together with its rows."""
        trial = self(edits, split)
        return Evaluation(
            model=self.model.name,
            dtype=self.model.dtype,
            task=self.task,
            scoring=self.method,
            trial=trial,
            prompts=self.fitted(split).prompts,
            notes=self.notes(split),
        )

    def fitted(self, split: str) -> Fitted:
        """Return a split's prompts as they will be read; `validation[0:64]` is the first 64 of them."""
        part = parse_rows(split)
        if split not in self._fitted:
            self._fitted[split] = (
                self.fitted(part[0]).rows(*part[1:])
                if part
                else fit(self.task, split, self.tokenizer, self.window, **self._fitting)
            )
        return self._fitted[split]

    def digest(self, split: str) -> str:
        """Return a hash of a split's prompts as they will be read: ids, contexts, continuations and labels."""
        return self.fitted(split).digest

    def notes(self, *splits: str) -> tuple[str, ...]:
        """Return what a reader should know about the rows of these splits."""
        return (*self.task.notes, *(note for split in splits for note in self.fitted(split).notes))

    def prepare(self, split: str, methods: Sequence[str] = ()) -> _Prepared:
        """Tokenise a split once, with the prompts without content that these methods need, and settle how to read it.

        Raises:
            TaskError: there is no such method, or it does not go with the task or with some of the rows alone.
        """
        for method in methods or (self.method,):
            check_method(method, self.task.kind, split)
            if method in INPUTS:
                self._null(split, method)
        return self._rows(split)

    def _rows(self, split: str) -> _Prepared:
        if split not in self._prepared:
            part, prompts = parse_rows(split), self.fitted(split).prompts
            self._prepared[split] = (
                self._rows(part[0]).rows_of(*part[1:])
                if part
                else _Prepared(prompts, self._readable(prompts, split))
            )
        return self._prepared[split]

    def _null(self, split: str, method: str) -> Nulls:
        if (split, method) not in self._nulls:
            part = parse_rows(split)
            if part is not None:
                self._nulls[split, method] = self._null(part[0], method).rows_of(*part[1:])
            else:
                prompts, which = null_prompts(self.task, self.fitted(split), INPUTS[method])
                self._nulls[split, method] = Nulls(self._readable(prompts, "content-free"), which)
        return self._nulls[split, method]

    def _read(self, split: str, methods: Sequence[str], edits: Sequence[Edit]) -> Reading:
        """Read what `prepare` prepared, through the model as it is now."""
        data, start = self._rows(split), self._start(edits)
        what = f"{split} {', '.join(map(str, edits)) or 'unpruned'}"
        with self.report(what, len(data.prompts)) as advance:
            sums = data.reader.sums(start, self._points, advance, logits="logit" in methods)
        if start is not None and start in self._points:
            harsh = max(edit.rate for edit in edits) >= HARSH
            if (start, harsh) not in data.checked:
                start, sums = self._checked(data, start, sums)
                data.checked.add((start, harsh))
        nulls = {method: self._null(split, method) for method in methods if method in INPUTS}
        null_sums = {method: null.log_likelihoods(start, self._points) for method, null in nulls.items()}
        return Reading(sums[0], *sizes(data.reader.requests), null_sums, sums[1] if len(sums) > 1 else None)

    def _readable(self, prompts: Sequence[Prompt], what: str) -> Reader:
        """Tokenise prompts, and settle how to read them."""
        with self.report(f"tokens of {what}", len(prompts)) as advance:
            requests = build_requests(prompts, self.tokenizer, self.window, advance)
        check_vocabulary(self.model, requests)
        return find_reader(self.model, requests, self._budget, self.route, self.trunk, what)

    def _start(self, edits: Sequence[Edit]) -> Point | None:
        """Return the lowest point that edits change; the bottom where passes are not to begin above it."""
        start = self.route.point(edits) if self.route else None
        return start if self._tails or start is None else BOTTOM

    def _checked(
        self, data: _Prepared, start: Point, sums: Float[np.ndarray, "measures prompts labels"]
    ) -> tuple[Point, Float[np.ndarray, "measures prompts labels"]]:
        """Return sums whose log-likelihoods agree with the plain forward on a prompt, and where their passes began.

        Raises:
            ModelError: they do not agree even where passes begin at the bottom.
        """
        sample = sample_of(data.reader.requests)[:1]
        requests = data.reader.requests.subset(sample)
        if agrees(self.model, sums[0, sample], requests):
            return start, sums
        warnings.warn("candidates run through all layers: sharing the lower ones fails here", stacklevel=2)
        self._tails = False
        self.expect(())
        sums = data.reader.sums(BOTTOM, logits=len(sums) > 1)
        if not agrees(self.model, sums[0, sample], requests):
            raise ModelError(
                f"{type(self.model.model).__name__} scores rows differently in a batch when clipped"
            )
        return BOTTOM, sums


@scorer_of.register
def _(task: Task, model: LoadedModel, **options: Any) -> Evaluator:
    return Evaluator(model, task, **options)


def evaluate(
    model: str | Path | Model | LoadedModel,
    task: Task | str,
    edits: Edit | Sequence[Edit] = (),
    *,
    split: str = "validation",
    dtype: str = "auto",
    device: str = "auto",
    tokenizer: Tokenizer | None = None,
    **options: Any,
) -> Evaluation:
    """Score a model on a task's split, with any number of edits at once.

    Arguments:
        model: a hub id, a local folder, or a live `PreTrainedModel`, which is left as it was.
        task: a `Task`, or the name of one.
        edits: what to clip, all together.
        split: `validation`, `test`, or `all`.
        dtype, device, tokenizer: see `load_model`.
        options: passed on to `Evaluator`: `method`, `batch_tokens`, `cache_memory`, `truncate_demonstrations`,
            `drop_long_rows`, `report`.

    Raises:
        EckartError: the model, the task or an edit is not usable.
    """
    task = Task.load(task) if isinstance(task, str) else task
    loaded = load_model(model, dtype=dtype, device=device, tokenizer=tokenizer)
    return Evaluator(loaded, task, **options).evaluate([edits] if isinstance(edits, Edit) else edits, split)
