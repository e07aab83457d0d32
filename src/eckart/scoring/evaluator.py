"""The scorer of tasks with labels: from prompts to tokens, to log-likelihoods, to a score."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property, singledispatch
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from eckart.errors import ModelError, NotANumberError, TaskError
from eckart.records import Edit, Edits, Rows, Split, Trial
from eckart.scoring.encoding import token_notes
from eckart.scoring.evaluation import Evaluation
from eckart.scoring.fitting import Fitted, fit
from eckart.scoring.forward.fastest import BOTTOM, CheckedPart, CheckedReader, Readers
from eckart.scoring.forward.plain import sizes
from eckart.scoring.forward.states import StateStore
from eckart.scoring.forward.trunk import LayerPoint, Trunk
from eckart.scoring.gradients import Question, Take, log_loss_gradients
from eckart.scoring.methods import (
    INPUTS,
    LogLikelihoods,
    Nulls,
    Ranks,
    check_finite,
    check_method,
    check_winnable,
    combine,
    null_prompts,
    score,
)
from eckart.scoring.requests import build_requests, check_vocabulary
from eckart.scoring.scorer import Progress, Scorer, silent, storing
from eckart.statistics.scores import Score
from eckart.tasks.prompts import Example, Prompt
from eckart.tasks.task import AnyTask, Task, no_task
from eckart.weights.anatomy import Weight
from eckart.weights.loading.config import context_window
from eckart.weights.models import LoadedModel, Model, Tokenizer, load_model, needed_tokenizer
from eckart.weights.options import ReadingOptions

BATCH_TOKENS = {"cpu": 1024, "mps": 4096, "cuda": 16384}
"""The most tokens in a batch where nobody says otherwise."""


def most_tokens(model: LoadedModel, said: int | None) -> int:
    """Return the most tokens in a batch."""
    return said or BATCH_TOKENS.get(model.model.device.type, 4096)


class Evaluator(Scorer):
    """Scores a causal language model, clipped or not, on the splits of a task with labels.

    Arguments:
        model: what `load_model` returned.
        task: demonstrations, rows and labels.
        scoring: what ranks the labels, where nothing else is said; see `combine`. The task's own by
            default.
        progress: shows it.
        reading: the fields of `ReadingOptions`.

    Raises:
        TaskError: a prompt is longer than the model reads.
        ModelError: the model reads no text.
    """

    def __init__(
        self,
        model: LoadedModel,
        task: Task,
        *,
        scoring: str | None = None,
        progress: Progress = silent,
        **reading: Any,
    ) -> None:
        chosen = check_method(scoring or task.default_score, task.kind)
        self.tokenizer = needed_tokenizer(model)
        self.task: Task = task.for_tokenizer(self.tokenizer)
        super().__init__(model, self.task, chosen, progress)
        self.window = context_window(model.model.config)
        self.reading = ReadingOptions.of(reading)
        self._budget: int = most_tokens(model, self.reading.batch_tokens)
        self.states = StateStore.on(model.model.device, self.reading.cache_memory)
        self._probes = StateStore.on(model.model.device, self.reading.cache_memory)
        self._points: frozenset[LayerPoint] = frozenset()
        self._readables: list[CheckedReader] = []
        self._fitted: dict[str, Fitted] = {}
        self._prepared: dict[str, CheckedReader | CheckedPart] = {}
        self._nulls: dict[tuple[str, str], Nulls] = {}

    def on(self, model: LoadedModel) -> Evaluator:
        return Evaluator(
            model, self.task, scoring=self.scoring, progress=self.progress, **dict(self.reading)
        )

    def forget(self) -> None:
        super().forget()
        for made in ("trunk", "readers"):
            self.__dict__.pop(made, None)
        for kept in (self._prepared, self._nulls, self._readables, self.states, self._probes):
            kept.clear()

    @cached_property
    def trunk(self) -> Trunk | None:
        """What leads passes through the model from any layer on; None for a model that cannot be
        taken apart."""
        try:
            return Trunk(self.anatomy)
        except ModelError:
            return None

    @cached_property
    def readers(self) -> Readers:
        """How the model's rows can be read."""
        return Readers(self.model.model, self._budget, self.trunk, self.states, self._probes)

    @contextmanager
    def sharing(self, candidates: Collection[Edits]) -> Iterator[None]:
        """Let readings begin at the edited layers, on the states that earlier ones leave there."""
        if self._points:  # another call is under way, whose states these readings may use
            yield
            return
        points = {self.trunk.point(edits) for edits in candidates} if self.trunk else set()
        if len(candidates) > 1:  # of one alone nobody would use the states
            self._points = frozenset(p for p in points if p is not None and p != BOTTOM)
        self._forget_states()
        try:
            yield
        finally:
            self._points = frozenset()
            self._forget_states()

    def _forget_states(self) -> None:
        self.states.clear()
        self._probes.clear()
        for rows in self._readables:
            rows.forget()

    def outcomes(self, edits: Edits, split: str, scorings: Sequence[str]) -> list[Score]:
        prompts = self.fitted(split).prompts
        labels, ids = [p.label for p in prompts], [p.id for p in prompts]
        return [score(ranks, labels, ids) for ranks in self.ranks(edits, split, scorings)]

    def ranks(self, edits: Edits, split: str, scorings: Sequence[str]) -> list[Ranks]:
        """Read a prepared split through the model as it is now, and return by each scoring what
        ranks its labels, in nats."""
        split = Split(split)
        reading = self._read(split, scorings, edits)
        ids = [prompt.id for prompt in self.fitted(split).prompts]
        for values in reading.measured:
            check_finite(values, ids, self.model.dtype)
        return [combine(scoring, reading) for scoring in scorings]

    def tokens(self, split: str, scorings: Sequence[str] = ()) -> int:
        for scoring in scorings:
            check_method(scoring, self.task.kind)
        prompts = self.fitted(split).prompts
        requests = build_requests(prompts, self.tokenizer, self.window)
        check_vocabulary(self.model, requests)
        for scoring in scorings:
            check_winnable(scoring, self.task.kind, requests, prompts)
        return len(requests.prefix) + sum(map(len, requests.rows))

    def rows(self, split: str) -> Rows:
        return self.fitted(Split(split).name).described

    def evaluate(self, edits: Sequence[Edit], split: str) -> Evaluation:
        """Score the model with these edits on a split, and return the outcome together with its
        rows, and with the unpruned model's where there are edits.

        Raises:
            NotANumberError: the outputs are no numbers.
        """
        return self.evaluation(self.score([(), self.canonical(edits)], split), split)

    def evaluation(self, trials: Iterable[Trial], split: str) -> Evaluation:
        """Return the outcome of the unpruned model's trial on a split and at most one other's,
        together with their rows.

        Raises:
            NotANumberError: the outputs are no numbers.
        """
        found = sorted(trials, key=lambda trial: trial.edits)  # the unpruned model is the first
        trial = found[-1]
        for each in found:
            if each.score is None:
                raise NotANumberError(each.error)
        return Evaluation(
            model=self.model.name,
            dtype=self.model.dtype,
            task=self.task,
            scoring=self.scoring,
            trial=trial,
            prompts=self.fitted(split).prompts,
            notes=self.notes(split),
            unpruned=found[0] if len(found) > 1 else None,
        )

    def fitted(self, split: str) -> Fitted:
        """Return a split's prompts as they will be read; `validation[0:64]` is the first 64 of
        them."""
        split = Split(split)
        if split not in self._fitted:
            whole = not split.is_part
            self._fitted[split] = self._fit(split) if whole else self.fitted(split.name).part(split)
        return self._fitted[split]

    def spare(self, most: int, but: Collection[str] = ()) -> Fitted:
        """Return the prompts of rows that are neither shown, nor validated, nor tested, as they
        will be read; of `Task.spare` at most so many, but those with these ids.

        Raises:
            TaskError: there are none.
        """
        rows = [row for row in self.task.spare if row.id not in but][:most]
        if not rows:
            raise TaskError(
                f"every row that demonstrations of task '{self.task.name}' are drawn from is a"
                " demonstration, or of validation or test: none is left to take a gradient on; give"
                " smaller --split-sizes, or another --layer"
            )
        return self._fit("spare", rows)

    def _fit(self, split: str, examples: Sequence[Example] | None = None) -> Fitted:
        return fit(
            self.task,
            split,
            self.tokenizer,
            self.window,
            truncate=self.reading.truncate_demonstrations,
            drop=self.reading.drop_long_rows,
            examples=examples,
        )

    def loss_gradients(self, rows: Fitted, weights: Collection[Weight], take: Take) -> None:
        """Hand on the gradient of these rows' mean log-loss by each matrix; see
        `log_loss_gradients`.

        Labels are ranked as the task does by default, whatever the scoring: by the sum of their
        tokens' log-likelihoods, and candidates by the mean.
        """
        requests = build_requests(
            rows.prompts, self.tokenizer, self.window, regime=self.readers.lengths.regime
        )
        check_vocabulary(self.model, requests)
        labels = [prompt.label for prompt in rows.prompts]
        question = Question(requests, labels, self.task.default_score == "mean")
        with self.progress("gradients", len(weights)) as advance:

            def told(weight: Weight, gradient: Tensor) -> None:
                take(weight, gradient)
                advance(1)

            log_loss_gradients(self.anatomy, question, weights, self._budget, told)

    def digest(self, split: str) -> str:
        return self.fitted(split).digest

    def notes(self, *splits: str) -> tuple[str, ...]:
        said = (
            note
            for split in splits
            for note in (
                *self.fitted(split).notes,
                *token_notes(split, self.fitted(split).prompts, self.tokenizer),
            )
        )
        of_model = self.model.file.notes if self.model.file else ()
        chat = self.task.format.chat
        told = () if chat is None else (str(chat),)
        return (*of_model, *self.storing_notes(), *told, *self.task.notes, *said)

    def prepare(self, split: str, scorings: Sequence[str] = ()) -> CheckedReader | CheckedPart:
        """Tokenise a split once, with the prompts without content that these scorings need, and
        settle how to read it.

        Raises:
            TaskError: there is no such scoring, or it does not go with the task or with some of the
                rows alone.
        """
        split = Split(split)
        for scoring in scorings or (self.scoring,):
            check_method(scoring, self.task.kind, split)
            if scoring in INPUTS:
                self._null(split, scoring)
        reader, prompts = self._reader(split), self.fitted(split).prompts
        for scoring in scorings or (self.scoring,):
            check_winnable(scoring, self.task.kind, reader.requests, prompts)
        return reader

    def _reader(self, split: Split) -> CheckedReader | CheckedPart:
        if split not in self._prepared:
            if split.is_part:
                whole = self._reader(Split(split.name))
                assert isinstance(whole, CheckedReader)
                rows = range(len(whole.requests.continuations))[split.slice]
                self._prepared[split] = whole.part(rows)
            else:
                self._prepared[split] = self._readable(self.fitted(split).prompts, split)
        return self._prepared[split]

    def _null(self, split: Split, scoring: str) -> Nulls:
        if (split, scoring) not in self._nulls:
            if split.is_part:
                whole = self._null(Split(split.name), scoring)
                self._nulls[split, scoring] = whole.part(split)
            else:
                prompts, which = null_prompts(self.task, self.fitted(split), INPUTS[scoring])
                self._nulls[split, scoring] = Nulls(self._readable(prompts, "content-free"), which)
        return self._nulls[split, scoring]

    def _read(self, split: Split, scorings: Sequence[str], edits: Sequence[Edit]) -> LogLikelihoods:
        reader, start = self._reader(split), self.trunk.point(edits) if self.trunk else None
        what = f"{split} {', '.join(map(str, edits)) or 'unpruned'}"
        with self.progress(what, len(self.fitted(split).prompts)) as advance:
            sums = reader.sums(start, self._points, advance, logits="logit" in scorings)
        nulls = {scoring: self._null(split, scoring) for scoring in scorings if scoring in INPUTS}
        null_sums = {
            scoring: null.log_likelihoods(start, self._points) for scoring, null in nulls.items()
        }
        characters = np.array([prompt.characters for prompt in self.fitted(split).prompts])
        logits = sums[1] if len(sums) > 1 else None
        return LogLikelihoods(sums[0], *sizes(reader.requests), characters, null_sums, logits)

    def _readable(self, prompts: Sequence[Prompt], what: str) -> CheckedReader:
        """Tokenise prompts, and settle how to read them."""
        with self.progress(f"tokens of {what}", len(prompts)) as advance:
            requests = build_requests(
                prompts, self.tokenizer, self.window, advance, self.readers.lengths.regime
            )
        check_vocabulary(self.model, requests)
        self._readables.append(CheckedReader(self.readers, requests, what))
        return self._readables[-1]


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
    raise no_task(task)


@scorer_of.register
def _(task: Task, model: LoadedModel, **options: Any) -> Evaluator:
    return Evaluator(model, task, **options)


def scorer_like(scorer: Scorer, task: AnyTask) -> Scorer:
    """Return what scores the same model on another task of the kind, read and scored alike."""
    # A kind of task that leaves no choice in how it is read takes no such options.
    reading = scorer.reading.model_dump(exclude_defaults=True)
    how = {"scoring": scorer.scoring, "progress": scorer.progress, **reading}
    return scorer_of(task, scorer.model, **how)


def evaluate(
    model: str | Path | Model | LoadedModel,
    task: Task | str,
    edits: Edit | Sequence[Edit] = (),
    *,
    split: str = "validation",
    stored_as: str | None = None,
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
        stored_as: the type of GGUF files that the clipped weights go through, such as `q4_0`.
        dtype, device, tokenizer: see `load_model`.
        options: passed on to `Evaluator`.

    Raises:
        EckartError: the model, the task or an edit is not usable.
    """
    task = Task.load(task) if isinstance(task, str) else task
    loaded = load_model(model, dtype=dtype, device=device, tokenizer=tokenizer)
    evaluator = Evaluator(loaded, task, **options)
    if stored_as is not None:
        evaluator = storing(evaluator, stored_as)
    return evaluator.evaluate([edits] if isinstance(edits, Edit) else edits, split)
