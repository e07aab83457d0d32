"""The guard: an edit that was chosen for one task is read on a text and on other tasks, none of
which chose it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from eckart.errors import RunError, TaskError, about
from eckart.records import Edit, Edits, Trial, fingerprint
from eckart.runs import GUARD, RunStore
from eckart.scoring.evaluator import scorer_of
from eckart.scoring.scorer import Scorer
from eckart.scoring.text import GuardText, TextScorer
from eckart.selection.guarded import Guarded
from eckart.selection.plan import MARGIN, check_margin
from eckart.selection.recorded import Ledger, Recorded
from eckart.tasks.prompts import Example
from eckart.tasks.splits import letters
from eckart.tasks.task import AnyTask, Task

SPLIT = "test"
"""Which rows of a guard's tasks are read: those that nobody chooses with."""


class Guard:
    """Reads edits on a text and on tasks that did not choose them.

    Arguments:
        scorer: of the model and the task that edits are chosen for; the others are read as it
            reads.
        text: a file of plain text; None for the one that comes with the package.
        tasks: what `Task.load` returned or takes, each with demonstrations of its own.
        margin: by how many points of accuracy the model may do worse at a task.

    Raises:
        EckartError: the text, a task or the margin is not usable, a task is the one that edits are
            chosen for, or the model cannot read their rows.
    """

    def __init__(
        self,
        scorer: Scorer,
        text: str | Path | None = None,
        tasks: Sequence[Task | str | Path] = (),
        margin: float = MARGIN,
    ) -> None:
        self.margin = check_margin(margin)
        self._text = TextScorer(
            scorer.model,
            GuardText.load(text),
            batch_tokens=scorer.reading.batch_tokens,
            cache_memory=scorer.reading.cache_memory,
            progress=scorer.progress,
        )
        self._tasks: list[Scorer] = []
        for said in tasks:
            with about(f"guard task '{said.full_name if isinstance(said, Task) else said}'"):
                self._tasks.append(_scorer(said, scorer, self._tasks))
        for each in (self._text, *self._tasks):
            each.share_factors(scorer)

    @property
    def read(self) -> tuple[AnyTask, ...]:
        """The text and the tasks."""
        return tuple(each.task for each in (self._text, *self._tasks))

    def refuse_sealed(self, task: Task) -> None:
        """Refuse a guard that would read, before the choice, rows that are kept for one look after
        it. A search need not ask: its guard looks at nothing but the choice.

        Raises:
            TaskError: a guard's task draws its rows where some of this task's test rows lie.
        """
        sealed = list(_marks(task, task.test))
        for other in self.read:
            if not isinstance(other, Task):
                continue
            origin = other.source
            pool = origin.examples[origin.plan.test.source] if origin else other.test
            met = set().union(*_marks(other, pool))
            shared = sum(bool(marks & met) for marks in sealed)
            if shared:
                raise TaskError(
                    f"guard task '{other.full_name}' has {shared:,} of the {len(sealed):,} test"
                    f" rows of '{task.full_name}' among its own, and every look would read them"
                    " before the sealed test; give it a file of other rows, or leave it out"
                )

    def look(
        self, edits: Sequence[Edit], ledger: Ledger | None = None, *, shared: bool = False
    ) -> Guarded | None:
        """Read the unpruned model and these edits, unless the ledger knows, and say what they did;
        nothing where nothing is clipped.

        Arguments:
            edits: what is clipped together.
            ledger, shared: see `Recorded`.

        Raises:
            RunError: the unpruned model cannot be scored.
        """
        chosen = self._text.canonical(edits)
        if not chosen:
            return None
        return Guarded.of(chosen, self.trials(chosen, ledger, shared=shared), self.margin)

    def trials(
        self, edits: Edits, ledger: Ledger | None = None, *, shared: bool = False
    ) -> Iterator[Trial]:
        """Yield the trials that `look` compares."""
        for each, split in ((self._text, "all"), *((task, SPLIT) for task in self._tasks)):
            recorded = Recorded(each, ledger, shared=shared)
            yield from recorded.score(list(dict.fromkeys([(), edits])), split)

    def forget(self) -> None:
        """Let go of whatever was made of the model's weights."""
        for each in (self._text, *self._tasks):
            each.forget()


def keep_guard(store: RunStore, margin: float, read: Sequence[AnyTask]) -> None:
    """Keep by which margin a run's choices are guarded, and what guards them now or did before.

    Arguments:
        store: the run's.
        margin: in points.
        read: the text and the tasks.

    Raises:
        RunError: one of them held something else before: the trials of the two would be taken for
            each other's.
    """
    kept = store.note(GUARD) or {}
    held = kept.get("contents", {})
    contents = {_drawn(each): fingerprint([each.digest, each.rows_digest(SPLIT)]) for each in read}
    for name, digest in contents.items():
        if held.get(name, digest) != digest:
            raise RunError(
                f"'{name}' holds something else than when it guarded run '{store.folder}' before;"
                " bring the old back, give the new another name, or choose another --out"
            )
    names = dict.fromkeys([*kept.get("names", ()), *(each.full_name for each in read)])
    store.keep_note(GUARD, {"margin": margin, "names": [*names], "contents": held | contents})


def _marks(task: Task, rows: Iterable[Example]) -> Iterator[set[tuple[str, str]]]:
    """Yield what a row is known by under any template: its place, and the longest of its texts."""
    where = task.source.where if task.source else task.name
    for row in rows:
        longest = max(_texts(row.fields), key=len, default=row.text)
        yield {(where, row.id), ("", letters(longest))}


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        value = value.values()
    elif isinstance(value, str) or not isinstance(value, Iterable):
        yield str(value)
        return
    for each in value:
        yield from _texts(each)


def _drawn(task: AnyTask) -> str:
    """Return what tells a guard's trials apart: the name, and the draw of demonstrations."""
    if not task.shots:
        return task.full_name
    return f"{task.full_name}, {task.shots} shots, seed {task.seed}"


def _scorer(said: Task | str | Path, scorer: Scorer, others: Sequence[Scorer]) -> Scorer:
    """Return what scores a guard's task, once it is sure that its rows can be read."""
    task = said if isinstance(said, Task) else Task.load(said)
    if task.full_name == scorer.task.full_name or task.digest == scorer.task.digest:
        raise TaskError(
            f"'{task.full_name}' is the task that edits are chosen for, whose gain stands beside"
            " the guard anyway; name another"
        )
    if any(task.full_name == other.task.full_name for other in others):
        raise TaskError(f"'{task.full_name}' is named twice; name it once")
    found = scorer_of(task, scorer.model, progress=scorer.progress, **dict(scorer.reading))
    found.tokens(SPLIT, [found.scoring])
    return found
