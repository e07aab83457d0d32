"""The scorer of a model on a task of any kind: clip, read, score, make the trial."""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import replace
from functools import cached_property, partial
from typing import Any, TypeAlias, TypeVar

from eckart.errors import NotANumberError
from eckart.records import ATTENTION, PARTS, Edit, Edits, Rows, Setting, Split, Trial, fingerprint
from eckart.scoring.methods import SCORING_VERSION
from eckart.statistics.scores import Outcome
from eckart.tasks.task import AnyTask
from eckart.weights.anatomy import Anatomy
from eckart.weights.edits import Cut, Factors, canonical, clip, cut_of, resolve
from eckart.weights.hooks import HALF
from eckart.weights.models import LoadedModel
from eckart.weights.options import ReadingOptions
from eckart.weights.quantised import RULE, GgufType, check_rows, quantised

Candidates: TypeAlias = Iterable[Sequence[Edit]] | Mapping[Edits, Sequence[str]]
"""Edits that are clipped together, and where they differ in that by which scorings."""

Asked: TypeAlias = Mapping[Edits, Mapping[str, str]]
"""The keys of trials, by candidate and scoring."""

Progress = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]
"""Shows a job's progress: given its name and number of rows, a context whose value is told of rows
done."""


@contextmanager
def progress(what: str, rows: int) -> Iterator[Callable[[int], None]]:
    """Show a bar in a terminal or a notebook, until the job is done.

    >>> import eckart
    >>> eckart.search(model, task, progress=eckart.progress)  # doctest: +SKIP
    """
    from tqdm.auto import tqdm

    with tqdm(total=rows, desc=what, leave=False) as bar:

        def advance(done: int) -> None:
            bar.update(done)

        yield advance


def silent(what: str, rows: int) -> AbstractContextManager[Callable[[int], None]]:
    """Report nothing."""
    return nullcontext(lambda done: None)


class Scorer(ABC):
    """Scores a model, clipped or not, on the splits of a task: one verb, `score`.

    What a kind of task needs is in the abstract methods; nothing else is overridden.

    Arguments:
        model: what `load_model` returned.
        task: demonstrations and rows.
        scoring: how outcomes are made, where nothing else is said.
        progress: shows how far a reading is.
    """

    reading = ReadingOptions()
    """How rows are read, where the kind of task leaves a choice."""
    stored_as: str | None = None
    """The type of GGUF files that the clipped weights go through; None for no type."""
    _budget: int | None = None
    """The most tokens in a batch; None where no outcome depends on it."""

    def __init__(self, model: LoadedModel, task: AnyTask, scoring: str, progress: Progress) -> None:
        self.model = model
        self.task = task
        self.scoring = scoring
        self.progress = progress
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
    def tokens(self, split: str, scorings: Sequence[str] = ()) -> int:
        """Return how many tokens a split has, those that all rows begin with counted once; nothing
        is read, and no weights are needed.

        Raises:
            TaskError: a row does not fit or cannot be told from its label, or a scoring does not go
                with the task.
        """

    @abstractmethod
    def notes(self, *splits: str) -> tuple[str, ...]:
        """Return what a reader should know about the rows of these splits."""

    @abstractmethod
    def prepare(self, split: str, scorings: Sequence[str] = ()) -> object:
        """Do what need be done once for a split, whatever the number of edits."""

    @abstractmethod
    def outcomes(self, edits: Edits, split: str, scorings: Sequence[str]) -> Sequence[Outcome]:
        """Read a prepared split through the model as it is now, and return an outcome a scoring."""

    def sharing(self, candidates: Collection[Edits]) -> AbstractContextManager[None]:
        """Let the readings of these candidates share what they can, while a `with` block runs."""
        return nullcontext()

    @property
    def reading_key(self) -> dict[str, int]:
        """What an outcome's last bits depend on besides the dtype, where they matter: in half
        precision on what is read together."""
        half = self.model.model.dtype in HALF
        return {"batch_tokens": self._budget} if self._budget and half else {}

    @cached_property
    def anatomy(self) -> Anatomy:
        """The model's layers and matrices."""
        return Anatomy.of(self.model.model)

    @property
    def setting(self) -> Setting:
        """What is scored before anything is clipped."""
        task = self.task
        return Setting(self.model.name, task.full_name, task.shots, task.seed, self.scoring)

    def canonical(self, edits: Sequence[Edit]) -> Edits:
        """Return these edits as trials name them; see `eckart.weights.edits.canonical`."""
        # A model that cannot be taken apart can still be scored, as it is.
        return canonical(self.anatomy, edits) if edits else ()

    def key(self, edits: Sequence[Edit], split: str, scoring: str | None = None) -> str:
        """Return the trial's key: a hash of everything that its outcome depends on.

        `eckart.weights.identity` lists what that is. Runs are resumed by these keys, so none of the
        parts below may change its name or its value.

        Arguments:
            scoring: how the outcome is made; the scorer's own by default.
        """
        parts = {
            "model": self.model.fingerprint,
            "dtype": self.model.dtype,
            # A null prompt depends on the template, which the rows need not give away.
            "task": self.task.digest,
            "rows": self.digest(split),
            "edits": [str(edit) for edit in self.canonical(edits)],
            "method": scoring or self.scoring,
            "scoring": SCORING_VERSION,
            **self.reading_key,
            **({"stored_as": self.stored_as} if self.stored_as else {}),
        }
        return fingerprint(parts)

    def asked(self, candidates: Candidates, split: str, scorings: Sequence[str] = ()) -> Asked:
        """Return which trials are asked for, in the order in which candidates are read.

        The unpruned model comes first, then the deepest: a reading that begins anywhere leaves the
        states of all points below it.

        Arguments:
            candidates: edits that are clipped together, `()` for the unpruned model; or a mapping
                from these to scorings of their own.
            split: see `score`.
            scorings: of those that have none of their own; the scorer's by default.

        Raises:
            EditError: the model has no such layer.
            TaskError: there is no such split.
        """
        own = candidates if isinstance(candidates, Mapping) else {}
        self._notice()  # the keys are those of the weights as they are now
        asked: dict[Edits, dict[str, str]] = {}
        for edits in candidates:
            keys = asked.setdefault(self.canonical(edits), {})
            for scoring in own.get(tuple(edits), ()) or scorings or (self.scoring,):
                keys[scoring] = self.key(edits, split, scoring)
        return {edits: asked[edits] for edits in sorted(asked, key=_place)}

    def score(
        self, candidates: Candidates, split: str, scorings: Sequence[str] = ()
    ) -> Iterator[Trial]:
        """Score candidates on a split, each by each scoring; the model is as before afterwards.

        Readings share factorisations and states of layers below the edits, which are let go of when
        no candidate needs them any more. Rows are read once a candidate, whatever the number of
        scorings.

        Arguments:
            candidates, scorings: see `asked`.
            split: `validation`, `test` or `all`, or some of its rows, such as `validation[0:64]`.

        Yields:
            A trial a candidate and scoring, as each is done; the order is `asked`'s. One of a
            clipped model whose outputs are no numbers failed. The seconds of each are an equal
            share of those of the one reading.

        Raises:
            TaskError: there is no such scoring, or it does not go with the task or with some of the
                rows alone.
            ModelError: a weight is not a number, or a single row does not fit into memory.
            EditError: the model has no such layer or part.
        """
        yield from self.answer(self.asked(candidates, split, scorings), split)

    def answer(self, asked: Asked, split: str) -> Iterator[Trial]:
        """Score what `asked` returned, or some of it; see `score`."""
        split = Split(split)
        last_use = {
            key: number for number, edits in enumerate(asked) for key in self._touched(edits)
        }
        with self.sharing(asked):
            for number, (edits, keys) in enumerate(asked.items()):
                to_come = {key for key, last in last_use.items() if last >= number}
                for key in self._factors.keys() - to_come:
                    del self._factors[key]
                yield from self._trials(edits, split, keys)

    def __call__(self, edits: Sequence[Edit], split: str) -> Trial:
        """Score one candidate by the scorer's own scoring; see `score`.

        Raises:
            NotANumberError: the outputs are no numbers.
        """
        (trial,) = self.score([tuple(edits)], split)
        if trial.score is None:
            raise NotANumberError(trial.error)
        return trial

    def storing_notes(self) -> tuple[str, ...]:
        """Return what a reader should know about weights that went through a type."""
        if self.stored_as is None:
            return ()
        kind, dtype, file = GgufType(self.stored_as), self.model.dtype, self.model.file
        said = [f"the weights are clipped, quantised to {kind.label} and dequantised: {RULE}"]
        if file is not None:
            said.append(f"they were quantised before, and are again: {file.origin}")
        if dtype != "float32":
            said.append(
                f"the dequantised numbers are rounded to {dtype}, which the model computes in;"
                " --dtype float32 keeps them"
            )
        return tuple(said)

    def cuts(self, edits: Sequence[Edit]) -> list[Cut]:
        """Return what edits take away of each matrix that they clip.

        Raises:
            EditError: the model has no such layer or part, or a matrix is named twice.
        """
        found = resolve(self.anatomy, self.canonical(edits)) if edits else {}
        return [cut_of(weight, edit, self._factors) for weight, edit in found.items()]

    def share_factors(self, other: Scorer) -> None:
        """Use another scorer's factorisations of the same model's matrices, and let it use
        these."""
        self._factors = other._factors

    def forget(self) -> None:
        """Let go of whatever was made of the weights: the very parameters may be others now."""
        self._factors.clear()
        self.__dict__.pop("anatomy", None)

    def _trials(self, edits: Edits, split: Split, keys: Mapping[str, str]) -> list[Trial]:
        begin, scorings = time.perf_counter(), list(keys)
        self._notice()
        self.prepare(split, scorings)
        make = partial(self.trial, edits, split)
        try:
            with self._clipped(edits):
                outcomes = self.outcomes(edits, split, scorings)
        except NotANumberError as error:  # it would fail again
            return [make(*asked, status="failed", error=str(error)) for asked in keys.items()]
        seconds = (time.perf_counter() - begin) / len(scorings)
        return [
            make(*asked, score=outcome, seconds=seconds)
            for asked, outcome in zip(keys.items(), outcomes, strict=True)
        ]

    def trial(self, edits: Edits, split: Split, scoring: str, key: str, **made: Any) -> Trial:
        """Make the trial of a candidate.

        Arguments:
            key: its own.
            made: what came of it, by the fields of `Trial`.
        """
        return Trial(
            key=key,
            setting=replace(self.setting, scoring=scoring),
            split=split,
            rows=self.rows(split).digest,
            edits=edits,
            file=self.model.file.origin if self.model.file else None,
            stored_as=self.stored_as,
            **made,
        )

    def _touched(self, edits: Edits) -> set[str]:
        """Return the keys of the matrices that edits clip."""
        return {w.key for edit in edits for w in self.anatomy.select(edit.layer, edit.part)}

    def _notice(self) -> None:
        """Forget what was made of other weights than the model has now: it may have been trained
        in between."""
        weights = self.model.identity.look()
        if self._weights not in (None, weights):
            self.forget()
        self._weights = weights

    @contextmanager
    def _clipped(self, edits: Edits) -> Iterator[None]:
        """Let the model be as a candidate has it: clipped, and then as it is stored."""
        with ExitStack() as stack:
            if edits or self.stored_as:  # a model that cannot be taken apart can still be scored
                stack.enter_context(self.model.identity.restored())
                model, anatomy = self.model.model, self.anatomy
                stack.enter_context(clip(model, edits, anatomy=anatomy, factors=self._factors))
            if self.stored_as:
                stack.enter_context(quantised(self.anatomy, GgufType(self.stored_as)))
            yield


ScorerT = TypeVar("ScorerT", bound=Scorer)


def storing(scorer: ScorerT, kind: str) -> ScorerT:
    """Return a scorer that does the same with weights that are clipped first, and then quantised
    to a type of GGUF files and dequantised.

    Raises:
        ModelError: there is no such type, or a row of the model is no whole number of its blocks.
    """
    other = scorer.on(scorer.model)
    assert isinstance(other, type(scorer))
    other.stored_as = GgufType.of(kind).name
    check_rows(other.anatomy, GgufType(other.stored_as))
    other.share_factors(scorer)
    return other


def _place(edits: Edits) -> tuple[float, bool]:
    """Order candidates: the unpruned model, then the deepest; of a layer, what leaves its attention
    as it was comes first."""
    if not edits:
        return -math.inf, False
    layer = min(edit.layer for edit in edits)
    parts = {matrix for edit in edits if edit.layer == layer for matrix in PARTS[edit.part]}
    return -layer, not parts.isdisjoint(ATTENTION)
