"""The labeller: an evaluator of rows that come as they come, with labels or without."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from eckart.errors import TaskError
from eckart.records import Edit, Edits, Rows, Split
from eckart.scoring.evaluator import Evaluator
from eckart.scoring.fitting import Fitted, within
from eckart.scoring.methods import OF_ALL_ROWS, Ranks
from eckart.tasks.portable import PortableTask
from eckart.tasks.prompts import Prompt
from eckart.tasks.task import Task
from eckart.weights.models import LoadedModel

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


class Labeller(Evaluator):
    """Ranks the labels of rows that belong to no split.

    Arguments:
        model: what `load_model` returned; it is as before after every call.
        task: makes prompts, and says how labels are ranked.
        edits: what is clipped.
        compare: read by the unpruned model, too, and before.
        reading: the fields of `ReadingOptions`.
    """

    def __init__(
        self,
        model: LoadedModel,
        task: PortableTask,
        edits: Sequence[Edit] = (),
        *,
        compare: bool = False,
        **reading: Any,
    ) -> None:
        # It is asked for prompts without content and for its name, never for rows of its own.
        super().__init__(model, cast("Task", task), scoring=task.scoring, **reading)
        self.portable = task
        self.edits = self.canonical(edits)
        self.candidates: tuple[Edits, ...] = ((), self.edits) if compare else (self.edits,)

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
            ranks = tuple(self._ranked())
        finally:
            self._let_go()
        shortened = sum(n < self.portable.shots for n in shots)
        return Ranked(tuple(read[index] for index in indices), prompts, ranks, +left_out, shortened)

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
