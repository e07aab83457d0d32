"""The labeller: an evaluator of rows that come as they come, with labels or without."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from scipy.special import softmax
from transformers import GenerationConfig

from eckart.errors import TaskError
from eckart.records import Edit, Edits, Rows, Split
from eckart.scoring.encoding import Encoder
from eckart.scoring.evaluator import Evaluator
from eckart.scoring.fitting import Fitted, within
from eckart.scoring.methods import OF_ALL_ROWS, Ranks
from eckart.statistics.gain import sentence
from eckart.statistics.paired import paired_difference, wilson_interval
from eckart.tasks.portable import UNKNOWN, PortableTask
from eckart.tasks.prompts import CONTENT_FREE, Prompt
from eckart.tasks.task import Task
from eckart.weights.models import LoadedModel, Tokenizer, needed_tokenizer

NEW = Split("new")
LONG, EMPTY = "longer than the model reads", "without an input"
"""Why rows are left out."""


@dataclass(frozen=True, eq=False)
class Ranked:
    """What a model, clipped or not, says of some rows.

    Arguments:
        places: which of the rows were read; the others are left out.
        prompts: of those that were.
        ranks: what ranks their labels, by each candidate.
        left_out: how many rows were not read, by why.
        shortened: how many show fewer demonstrations, to fit.
    """

    places: tuple[int, ...]
    prompts: tuple[Prompt, ...]
    ranks: tuple[Ranks, ...]
    left_out: Counter[str]
    shortened: int


@dataclass
class Tally:
    """What came of the rows so far.

    Arguments:
        read: rows.
        digest: the SHA-256 of these.
        left_out: how many were not labelled, by why.
        shortened: how many show fewer demonstrations, to fit.
        labelled: how many had a label of their own.
        unknown: how many had one that the task does not know.
        right: how many of the labelled each model has right, the unpruned one first.
        fixed, broken: how many the clipped model alone has right, and the unpruned one alone.
    """

    read: int = 0
    digest: str = ""
    left_out: dict[str, int] = field(default_factory=dict)
    shortened: int = 0
    labelled: int = 0
    unknown: int = 0
    right: list[int] = field(default_factory=list)
    fixed: int = 0
    broken: int = 0

    def note(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Count rows that were read."""
        text = json.dumps(list(map(dict, rows)), default=str)
        self.digest = hashlib.sha256((self.digest + text).encode()).hexdigest()
        self.read += len(rows)

    def add(self, ranked: Ranked) -> None:
        """Count what came of some rows."""
        self.left_out = dict(Counter(self.left_out) + ranked.left_out)
        self.shortened += ranked.shortened
        labels = np.array([prompt.label for prompt in ranked.prompts])
        known = labels >= 0
        self.unknown += int((labels == UNKNOWN).sum())
        right = [ranks.argmax(axis=1)[known] == labels[known] for ranks in ranked.ranks]
        self.labelled += int(known.sum())
        counts = [int(found.sum()) for found in right] or self.right
        self.right = [a + b for a, b in zip(self.right or [0] * len(counts), counts, strict=True)]
        if len(right) > 1:
            self.fixed += int((~right[0] & right[1]).sum())
            self.broken += int((right[0] & ~right[1]).sum())

    def notes(self) -> list[str]:
        """Say what was left out, and what was shortened."""
        said = [f"left out {count:,} rows {why}" for why, count in self.left_out.items()]
        if self.shortened:
            said.append(f"{self.shortened:,} rows show fewer demonstrations, to fit")
        if self.unknown:
            said.append(
                f"{self.unknown:,} rows have a label that the task does not know (as it is written"
                " counts), so no accuracy counts them"
            )
        return said

    def accuracy(self) -> list[str]:
        """Say how many of the rows with a label of their own are right; nothing if none has one."""
        if not self.labelled:
            return []
        names = (
            ("unpruned: accuracy", "clipped: accuracy") if len(self.right) > 1 else ("accuracy",)
        )
        said = []
        for name, right in zip(names, self.right, strict=True):
            low, high = wilson_interval(right, self.labelled)
            share = right / self.labelled
            said.append(
                f"{name} {share:.4f} (n = {self.labelled:,} rows with labels, 95% interval"
                f" {low:.4f} to {high:.4f})"
            )
        if len(self.right) > 1:
            both, neither = self.right[0] - self.broken, self.labelled - self.right[0] - self.fixed
            alike = [True] * both + [False] * neither
            before = alike + [True] * self.broken + [False] * self.fixed
            after = alike + [False] * self.broken + [True] * self.fixed
            said.append(f"gain: {sentence(paired_difference(before, after), 'accuracy')}")
        return said


@dataclass(frozen=True, eq=False)
class _Rowless(Task):
    """A portable task as a task of which no split has a row."""

    portable: PortableTask = field(kw_only=True)

    @classmethod
    def like(cls, task: PortableTask) -> _Rowless:
        about = task.name, task.kind, task.labels, task.format
        return cls(*about, (), (), (), (), seed=task.seed, portable=task)

    @property
    def shots(self) -> int:
        return self.portable.shots

    @property
    def full_name(self) -> str:
        return self.portable.full_name

    @cached_property
    def digest(self) -> str:
        return self.portable.digest

    def for_tokenizer(self, tokenizer: Tokenizer) -> _Rowless:
        return self

    def null_prompt(
        self, prompt: Prompt, shots: int | None = None, text: str = CONTENT_FREE
    ) -> Prompt:
        return self.portable.null_prompt(prompt, shots, text)


class Labeller(Evaluator):
    """Ranks the labels of rows that belong to no split.

    Arguments:
        model: what `load_model` returned; it is as before after every call.
        task: makes prompts, and says how labels are ranked.
        edits: what is clipped.
        compare: read by the unpruned model, too, and before.
        base: labels with the unpruned model, where that is another one than this.
        reading: the fields of `ReadingOptions`.
    """

    def __init__(
        self,
        model: LoadedModel,
        task: PortableTask,
        edits: Sequence[Edit] = (),
        *,
        compare: bool = False,
        base: Labeller | None = None,
        **reading: Any,
    ) -> None:
        task = task.for_tokenizer(needed_tokenizer(model))
        super().__init__(model, _Rowless.like(task), scoring=task.scoring, **reading)
        self.portable = task
        self.edits = self.canonical(edits)
        self.candidates: tuple[Edits, ...] = ((), self.edits) if compare else (self.edits,)
        self.base = base

    @property
    def compares(self) -> bool:
        """Whether there are the unpruned model's answers, too."""
        return self.base is not None or len(self.candidates) > 1

    def rank(self, rows: Sequence[tuple[str, Mapping[str, Any]]]) -> Ranked:
        """Return what ranks the labels of some rows, each with the name that messages call it.

        Raises:
            TaskError: a row lacks a column, is too long, or cannot be told from others by its
                scoring.
            NotANumberError: the outputs are no numbers.
        """
        read = [place for place, (_, row) in enumerate(rows) if has_input(self.portable, row)]
        kept = within(
            [self._prompt(rows[place]) for place in read],
            lambda index, shots: self._prompt(rows[read[index]], shots),
            self.portable.shots,
            self.tokenizer,
            self.window,
            truncate=self.reading.truncate_demonstrations,
            drop=self.reading.drop_long_rows,
        )
        left_out = Counter({EMPTY: len(rows) - len(read), LONG: len(read) - len(kept)})
        if not kept:
            return Ranked((), (), (), +left_out, 0)
        if len(kept) == 1 and self.scoring in OF_ALL_ROWS:
            raise TaskError(
                f"scoring '{self.scoring}' takes away the mean over the rows, and there is one row;"
                " label more at once, or choose 'contextual'"
            )
        indices, prompts, shots = zip(*kept, strict=True)
        self._fitted[NEW] = Fitted(prompts, Rows((), ()), shots)
        try:
            before = () if self.base is None else self.base.rank(rows).ranks
            ranks = (*before, *self._ranked())
        finally:
            self._let_go()
        shortened = sum(n < self.portable.shots for n in shots)
        return Ranked(tuple(read[index] for index in indices), prompts, ranks, +left_out, shortened)

    def answers(self, name: str, row: Mapping[str, Any], tokens: int) -> list[dict[str, Any]]:
        """Return what each candidate's model makes of a row, as JSON values: the probability of
        each label, and, unless no tokens are asked for, what it writes after the prompt.

        Raises:
            TaskError: the row lacks a column, is empty or too long, or its scoring needs more rows.
        """
        ranked = self.rank([(name, row)])
        if not ranked.prompts:
            raise TaskError(f"{name} cannot be read: it is {', '.join(ranked.left_out)}")
        names = ("unpruned", "clipped") if self.compares else ("model",)
        (prompt,), labels = ranked.prompts, self.portable.labels
        written = self.continued(prompt, tokens) if tokens else [None] * len(names)
        return [
            {
                "model": model,
                "prediction": labels[int(ranks[0].argmax())],
                "probabilities": dict(zip(labels, softmax(ranks[0]).tolist(), strict=True)),
                "continues": more,
            }
            for model, ranks, more in zip(names, ranked.ranks, written, strict=True)
        ]

    def continued(self, prompt: Prompt, tokens: int) -> list[str]:
        """Return what each candidate's model writes after a prompt: the likeliest tokens, so many
        or up to the end."""
        encode = Encoder(self.tokenizer, [prompt])
        read = torch.tensor(encode([prompt.context]), device=self.model.model.device)
        model: Any = self.model.model  # its own types do not say that it can write
        written = [] if self.base is None else self.base.continued(prompt, tokens)
        for edits in self.candidates:
            with self._clipped(edits), torch.inference_mode():
                found = model.generate(
                    read,
                    attention_mask=torch.ones_like(read),
                    generation_config=self._greedy(tokens),
                )
            fresh = found[0, read.shape[1] :]
            written.append(str(self.tokenizer.decode(fresh, skip_special_tokens=True)))
        return written

    def _greedy(self, tokens: int) -> GenerationConfig:
        # Made anew: a model's own may sample.
        own = self.model.model.generation_config
        end = None if own is None else own.eos_token_id
        pad = end[0] if isinstance(end, list) else end
        return GenerationConfig(
            max_new_tokens=tokens, do_sample=False, eos_token_id=end, pad_token_id=pad or 0
        )

    def _prompt(self, row: tuple[str, Mapping[str, Any]], shots: int | None = None) -> Prompt:
        name, fields = row
        return self.portable.prompt(fields, name, shots)

    def _ranked(self) -> Iterator[Ranks]:
        self.readers.trusting = True
        self.prepare(NEW)
        with self.sharing(self.candidates):
            for edits in self.candidates:
                with self._clipped(edits):
                    yield from self.ranks(edits, NEW, [self.scoring])

    def _let_go(self) -> None:
        for kept in (self._fitted, self._prepared, self._nulls, self._readables):
            kept.clear()


def has_input(task: PortableTask, row: Mapping[str, Any]) -> bool:
    """Say whether a row is not empty in all that a prompt is made of; what lacks a column is for
    the prompt to refuse."""
    columns = task.columns
    return columns.read(row) is not None or not set(columns.needed) <= set(row)
