"""The one loop: clip, read every row, rank the labels, keep the trial."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from eckart.anatomy import Anatomy
from eckart.edits import Factors, clip
from eckart.errors import ModelError
from eckart.evaluation.fitting import Fitted, fit, parse_rows
from eckart.evaluation.forward import Prompts, log_likelihoods, plain_log_likelihoods
from eckart.evaluation.requests import Requests, build_requests, context_window
from eckart.evaluation.scoring import SCORING_VERSION, check_method, combine, score
from eckart.evaluation.trunk import can_share
from eckart.models import LoadedModel, Model, Tokenizer, load_model
from eckart.records import Edit, Score, Trial, fingerprint
from eckart.statistics import accuracy_interval
from eckart.tasks.prompts import Prompt
from eckart.tasks.task import Task

Report = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]
"""Shows a job's progress: given its name and number of rows, a context whose value is told of rows done."""

TOLERANCE = {"float64": 1e-6, "float32": 1e-3, "float16": 0.03, "bfloat16": 0.25}
"""How far, in nats per token, the fast path may be from the plain forward before it is given up, by dtype."""

BATCH_TOKENS = {"cpu": 4096, "mps": 8192, "cuda": 32768}


def silent(what: str, rows: int) -> AbstractContextManager[Callable[[int], None]]:
    """Report nothing."""
    return nullcontext(lambda done: None)


@dataclass(frozen=True, eq=False)
class _Readable:
    """Requests, and the way of reading them that agrees with the model's plain forward."""

    requests: Requests
    budget: int


@dataclass(frozen=True, eq=False)
class _Prepared:
    """A split as the model reads it, ready for any number of edits.

    Arguments:
        rows: what is asked.
        nulls: the distinct prompts without content, and which of them is each row's; None where none are needed.
    """

    prompts: tuple[Prompt, ...]
    rows: _Readable
    nulls: tuple[_Readable, Int[np.ndarray, " prompts"]] | None


class Evaluator:
    """Scores a model, clipped or not, on the splits of a task.

    Arguments:
        model: what `load_model` returned.
        task: demonstrations, rows and labels.
        method: `sum`, `mean`, `byte` or `prior`; the task's own by default.
        batch_tokens: the most tokens in a batch; chosen by device when None.
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
        truncate_demonstrations: bool = False,
        drop_long_rows: bool = False,
        report: Report = silent,
    ) -> None:
        self.model = model
        self.task = task
        self.method = check_method(method or task.default_score)
        self.report = report
        self.window = context_window(model.model.config)
        self._options: dict[str, Any] = {
            "method": method,
            "batch_tokens": batch_tokens,
            "truncate_demonstrations": truncate_demonstrations,
            "drop_long_rows": drop_long_rows,
            "report": report,
        }
        self._budget = batch_tokens or BATCH_TOKENS.get(model.model.device.type, 4096)
        self._fitting = {"truncate": truncate_demonstrations, "drop": drop_long_rows}
        self._factors: Factors = {}
        self._fitted: dict[str, Fitted] = {}
        self._prepared: dict[str, _Prepared] = {}

    def on(self, model: LoadedModel) -> Evaluator:
        """Return an evaluator that does the same with another model."""
        return Evaluator(model, self.task, **self._options)

    @cached_property
    def anatomy(self) -> Anatomy:
        """The model's layers and matrices."""
        return Anatomy.of(self.model.model)

    def canonical(self, edits: Sequence[Edit]) -> tuple[Edit, ...]:
        """Resolve negative layers, drop edits at rate 0, and sort, so that equal edits are equal values."""
        resolved = [replace(edit, layer=self.anatomy.layer_index(edit.layer)) for edit in edits]
        return tuple(sorted(edit for edit in resolved if edit.rate > 0))

    def key(self, edits: Sequence[Edit], split: str) -> str:
        """Return the trial's key: a hash of everything that its outcome depends on."""
        parts = {
            "model": self.model.fingerprint,
            "dtype": self.model.dtype,
            "task": self.task.digest,  # a null prompt depends on the template, which the rows need not give away
            "rows": self.digest(split),
            "edits": [str(edit) for edit in self.canonical(edits)],
            "method": self.method,
            "scoring": SCORING_VERSION,
        }
        return fingerprint(parts)

    def __call__(self, edits: Sequence[Edit], split: str) -> Trial:
        """Score the model with these edits on a split; the model is as before afterwards.

        Raises:
            ModelError: a weight or an output is not a number, or a single row does not fit into memory.
            EditError: the model has no such layer or part.
        """
        start = time.perf_counter()
        chosen = self.canonical(edits)
        data = self.prepare(split)
        what = f"{split} {', '.join(map(str, chosen)) or 'unpruned'}"
        with self._clipped(chosen):
            values = self._values(data, what)
        outcome = score(values, [p.label for p in data.prompts], [p.id for p in data.prompts])
        return Trial(
            key=self.key(chosen, split),
            split=split,
            edits=chosen,
            score=outcome,
            seconds=time.perf_counter() - start,
        )

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
                else fit(self.task, split, self.model.tokenizer, self.window, **self._fitting)
            )
        return self._fitted[split]

    def digest(self, split: str) -> str:
        """Return a hash of a split's prompts as they will be read: ids, contexts, continuations and labels."""
        return self.fitted(split).digest

    def notes(self, *splits: str) -> tuple[str, ...]:
        """Return what a reader should know about the rows of these splits."""
        return (*self.task.notes, *(note for split in splits for note in self.fitted(split).notes))

    def prepare(self, split: str) -> _Prepared:
        """Tokenise a split once, and settle how its rows can be read fast and right."""
        if split not in self._prepared:
            fitted = self.fitted(split)
            nulls = self._nulls(fitted) if self.method == "prior" else None
            self._prepared[split] = _Prepared(fitted.prompts, self._readable(fitted.prompts, split), nulls)
        return self._prepared[split]

    def _clipped(self, edits: Sequence[Edit]) -> AbstractContextManager[Any]:
        if not edits:
            return nullcontext()  # a model that cannot be taken apart can still be scored
        return clip(self.model.model, edits, anatomy=self.anatomy, factors=self._factors)

    def _values(self, data: _Prepared, what: str) -> Float[np.ndarray, "prompts labels"]:
        model, rows, null_sums = self.model.model, data.rows, None
        with self.report(what, len(data.prompts)) as advance:
            sums = log_likelihoods(model, rows.requests, rows.budget, advance)
        if data.nulls is not None:
            nulls, which = data.nulls
            null_sums = log_likelihoods(model, nulls.requests, nulls.budget)[which]
        return combine(self.method, sums, *_sizes(rows.requests), null_sums)

    def _nulls(self, fitted: Fitted) -> tuple[_Readable, Int[np.ndarray, " prompts"]]:
        """Return the distinct prompts without content, and which of them belongs to each row."""
        pairs = zip(fitted.prompts, fitted.shots, strict=True)
        nulls = [self.task.null_prompt(prompt, shots) for prompt, shots in pairs]
        distinct = {(null.context, null.continuations): null for null in nulls}
        place = {content: index for index, content in enumerate(distinct)}
        which = np.array([place[null.context, null.continuations] for null in nulls])
        return self._readable(tuple(distinct.values()), "content-free"), which

    def _readable(self, prompts: Prompts, what: str) -> _Readable:
        """Tokenise prompts, and find the fastest way to read them that agrees with the plain forward on two of them."""
        model = self.model.model
        with self.report(f"tokens of {what}", len(prompts)) as advance:
            requests = build_requests(prompts, self.model.tokenizer, self.window, advance)
        lengths = [max(len(requests.rows[c.row]) for c in choices) for choices in requests.continuations]
        sample = sorted({int(np.argmin(lengths)), int(np.argmax(lengths))})
        plain = plain_log_likelihoods(model, requests.subset(sample).without_prefix())
        allowed = TOLERANCE[self.model.dtype] * _sizes(requests.subset(sample))[0]
        for name, share, budget in self._ways():
            way = requests if share else requests.without_prefix()
            fast = log_likelihoods(model, way.subset(sample), budget)
            if (np.abs(fast - plain) <= allowed).all() or not np.isfinite(plain).all():
                if name:
                    warnings.warn(f"{what} rows are read {name}: sharing fails on this model", stacklevel=2)
                return _Readable(way, budget)
        raise ModelError(
            f"{type(model).__name__} scores rows differently in a batch and alone, so no result could be "
            "trusted; is it a causal decoder?"
        )

    def _ways(self) -> Iterator[tuple[str, bool, int]]:
        """Yield how rows can be read, fastest first: a name, whether they share a prefix, the batch's tokens."""
        if can_share(self.model.model):
            yield "", True, self._budget
        yield "without sharing their demonstrations", False, self._budget
        yield "one by one", False, 1


def _sizes(requests: Requests) -> tuple[Int[np.ndarray, "prompts labels"], Int[np.ndarray, "prompts labels"]]:
    tokens = [[len(c.tokens) for c in choices] for choices in requests.continuations]
    lengths = [[c.bytes for c in choices] for choices in requests.continuations]
    return np.array(tokens), np.array(lengths)


@dataclass(frozen=True)
class Evaluation:
    """A trial together with the rows it was scored on.

    Arguments:
        model, dtype: what was scored.
        task: on what, and
        scoring: how.
        trial: the outcome.
        prompts: the rows, in the split's order.
        notes: what a reader should know about them.
    """

    model: str
    dtype: str
    task: Task
    scoring: str
    trial: Trial
    prompts: tuple[Prompt, ...]
    notes: tuple[str, ...]

    @property
    def score(self) -> Score:
        """The outcome's metrics and rows."""
        assert self.trial.score is not None
        return self.trial.score

    def to_json(self) -> dict[str, Any]:
        """Return the one document that `eckart evaluate --json` prints."""
        return {
            "task": self.task.name,
            "model": self.model,
            "split": self.trial.split,
            "edits": [str(edit) for edit in self.trial.edits],
            **self.score.summary(),
            "interval": list(accuracy_interval(self.score)),
            "labels": list(self.task.labels),
            "shots": self.task.shots,
            "seed": self.task.seed,
            "scoring": self.scoring,
            "dtype": self.dtype,
            "seconds": self.trial.seconds,
            "notes": list(self.notes),
        }

    def rows(self, with_prompts: bool = False) -> Iterator[dict[str, Any]]:
        """Yield one JSON value a row, in the split's order.

        Arguments:
            with_prompts: add the context and the continuations exactly as the model reads them.
        """
        for prompt, prediction, values in zip(
            self.prompts, self.score.predictions, self.score.log_likelihoods, strict=True
        ):
            text = (
                {"context": prompt.context, "continuations": list(prompt.continuations)}
                if with_prompts
                else {}
            )
            yield {
                "id": prompt.id,
                "label": self.task.labels[prompt.label],
                "prediction": self.task.labels[prediction],
                "log_likelihoods": [value if math.isfinite(value) else None for value in values],
                **text,
            }


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
        options: passed on to `Evaluator`: `method`, `batch_tokens`, `truncate_demonstrations`, `drop_long_rows`,
            `report`.

    Raises:
        EckartError: the model, the task or an edit is not usable.
    """
    task = Task.load(task) if isinstance(task, str) else task
    loaded = load_model(model, dtype=dtype, device=device, tokenizer=tokenizer)
    return Evaluator(loaded, task, **options).evaluate([edits] if isinstance(edits, Edit) else edits, split)
