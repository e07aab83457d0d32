"""A search over several draws of demonstrations, and several prompts: a candidate's merit is its
mean over them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product

from eckart.algorithm1 import Scored
from eckart.errors import TaskError
from eckart.records import Edits, Rows, Split, Trial
from eckart.scoring.evaluator import scorer_like
from eckart.scoring.scorer import Candidates, Scorer
from eckart.selection.drawn import Drawn, sealed_seeds
from eckart.selection.recorded import Ledger, Recorded
from eckart.tasks.task import AnyTask, Task, no_task

OWN = "own"
"""A task's own prompts, among its variants."""


def drawn_tasks(
    task: AnyTask, seeds: Sequence[int] = (), templates: Sequence[str] = ()
) -> tuple[AnyTask, ...]:
    """Return a task once for each of its prompts and draws of demonstrations.

    Arguments:
        task: as it was loaded.
        seeds: draw the demonstrations; the task's own where there are none.
        templates: variants of its prompts, `own` for those without a name, `all` for every one;
            the task's where there are none.

    Raises:
        TaskError: the seeds draw nothing, there is no such variant, or two cannot be averaged.
    """
    if not isinstance(task, AnyTask):
        raise no_task(task)
    if len(seeds) > 1 and not task.shots:
        said = ", ".join(map(str, seeds))
        raise TaskError(
            f"with 0 shots there are no demonstrations to draw, and seeds {said} ask the very same;"
            " leave out --seeds, or give --shots"
        )
    prompts = _reworded(task, templates) if templates else [task]
    return tuple(
        prompt if prompt.seed == seed else prompt.redrawn(seed=seed)
        for prompt in prompts
        for seed in seeds or (task.seed,)
    )


def _reworded(task: AnyTask, templates: Sequence[str]) -> list[AnyTask]:
    if not isinstance(task, Task):
        raise TaskError(f"task '{task.name}' asks for numbers, so it has no --templates")
    if not task.variants:
        raise TaskError(
            f"task '{task.name}' has its own prompts alone; for --templates name others under"
            " variants in a task file"
        )
    every = (OWN, *task.variants)
    named = (name for said in templates for name in (every if said == "all" else (said,)))
    found: list[AnyTask] = []
    for name in dict.fromkeys(named):
        prompt = task.reworded(None if name == OWN else name)
        if len(prompt.labels) != len(task.labels):
            raise TaskError(
                f"template '{name}' of task '{task.name}' has {len(prompt.labels)} labels, and"
                f" '{task.variant or OWN}' has {len(task.labels)}: a mean over both says nothing;"
                " search them one by one, with --variant"
            )
        if any(prompt.digest == other.digest for other in found):
            raise TaskError(
                f"template '{name}' of task '{task.name}' makes the same prompts as another of"
                " --templates; name each once, and leave out --template"
            )
        found.append(prompt)
    return found


def _sealed(task: AnyTask, chose: Sequence[AnyTask]) -> AnyTask:
    if not isinstance(task, Task):
        return task  # each of its draws makes rows of its own
    return task.sealed_from(other for other in chose if isinstance(other, Task))


def alike(tasks: Iterable[AnyTask]) -> list[str]:
    """Say which seeds draw the same demonstrations: their results are one result, not several."""
    seeds: dict[tuple[str, str], list[int]] = defaultdict(list)
    for task in tasks:
        seeds[task.full_name, task.digest].append(task.seed)
    return [
        f"seeds {', '.join(map(str, same))} draw the same demonstrations, so theirs is one result"
        " and not several"
        for same in seeds.values()
        if len(same) > 1
    ]


@dataclass(frozen=True, eq=False)
class Draws:
    """Scores candidates under several draws: the verb of a scorer, and of one draw the very same.

    A choice suits the demonstrations that made it, as it suits the rows that made it: the test rows
    are read under others. Under the same ones an interval for new demonstrations covers too little
    (docs/search.md).

    Arguments:
        choosing, testing: the scorers of one model for the test rows, and for all others: the same
            task as each draw has it. They share factorisations.
        ledger: where trials are kept, one by one; None keeps nothing.
    """

    choosing: tuple[Scorer, ...]
    testing: tuple[Scorer, ...]
    ledger: Ledger | None = None

    @classmethod
    def of(cls, scorer: Scorer, seeds: Sequence[int] = (), templates: Sequence[str] = ()) -> Draws:
        """Return the draws of a search, read as this scorer reads.

        Raises:
            TaskError: as `drawn_tasks`; or several draws are tested on a single row.
        """

        show = scorer.progress

        def scores(task: AnyTask) -> Scorer:
            if task is scorer.task and len(seeds) < 2:
                return scorer
            other = scorer_like(scorer, task)
            other.share_factors(scorer)
            if len(seeds) > 1:
                other.progress = lambda what, rows: show(f"seed {task.seed}: {what}", rows)
            return other

        choosing = tuple(map(scores, drawn_tasks(scorer.task, seeds, templates)))
        if len(seeds) < 2:
            testing = choosing
        else:
            chose = [each.task for each in choosing]
            prompts = [task for task in chose if task.seed == seeds[0]]
            drawn = (t.redrawn(seed=seed) for t, seed in product(prompts, sealed_seeds(seeds)))
            testing = tuple(scores(_sealed(task, chose)) for task in drawn)
        if len(testing) > 1 and any(len(each.rows("test").rows) < 2 for each in testing):
            raise TaskError(
                "one test row has no spread, so several draws cannot be compared on it; give more"
            )
        return cls(choosing, testing)

    @property
    def first(self) -> Scorer:
        """What scores the first of the draws that choose."""
        return self.choosing[0]

    @property
    def every(self) -> tuple[Scorer, ...]:
        """All scorers, each once."""
        return tuple(dict.fromkeys((*self.choosing, *self.testing)))

    def on(self, split: str) -> tuple[Scorer, ...]:
        """Return what scores a split."""
        return self.testing if Split(split).name == "test" else self.choosing

    def score(self, candidates: Candidates, split: str) -> Iterator[Scored]:
        """Yield what each candidate scored: the trial itself of one draw, and of several a `Drawn`.

        One draw is read after the other, each once for all candidates, so that these share the
        states below their edits.

        Raises: as `Scorer.score`.
        """
        several = len(self.every) > 1
        recorded = [Recorded(scorer, self.ledger, shared=several) for scorer in self.on(split)]
        if len(recorded) == 1:
            yield from recorded[0].score(candidates, split)
            return
        asked, found = list(candidates), defaultdict[Edits, list[Trial]](list)
        for each in recorded:
            for trial in each.score(asked, split):
                found[trial.edits].append(trial)
        part = Split(split)
        ids = tuple(tuple(r.id for r in rows.rows[part.slice]) for rows in self.rows(part.name))
        for trials in found.values():
            yield Drawn(tuple(trials), ids)

    def rows(self, split: str) -> tuple[Rows, ...]:
        """Return a split's rows under each draw."""
        return tuple(scorer.rows(split) for scorer in self.on(split))

    def size(self, split: str) -> int:
        """Return how many rows a split has, whatever the number of draws."""
        return len({row.id for rows in self.rows(split) for row in rows.rows})

    def notes(self) -> tuple[str, ...]:
        """Return what a reader should know about the rows and the draws."""
        splits = ("validation", "test")
        if len(self.every) == 1:
            return self.first.notes(*splits)
        said = [note for split in splits for each in self.on(split) for note in each.notes(split)]
        told = (*alike(each.task for each in self.every), *self._who(), *self._sizes())
        return tuple(dict.fromkeys([*said, *told]))

    def _who(self) -> Iterator[str]:
        chose, tested = (
            ", ".join(dict.fromkeys(str(scorer.task.seed) for scorer in scorers))
            for scorers in (self.choosing, self.testing)
        )
        if chose != tested:
            yield f"seeds {chose} chose; seeds {tested}, which chose nothing, tested the choice"

    def _sizes(self) -> Iterator[str]:
        for split in ("validation", "test"):
            sizes = {len(rows.rows) for rows in self.rows(split)}
            if self.size(split) > max(sizes):
                of_each = " or ".join(map(str, sorted(sizes)))
                yield (
                    f"{split} has {self.size(split)} rows over all draws and {of_each} under each:"
                    " what one draw shows or leaves out is a row of another"
                )

    def prepare(self) -> None:
        """Do what need be done once, whatever is scored.

        Raises:
            TaskError: a row does not fit, or cannot be told from its label.
        """
        for split in ("validation", "test"):
            for scorer in self.on(split):
                scorer.prepare(split)

    def forget(self) -> None:
        """Let go of whatever was made of the model's weights."""
        for scorer in self.every:
            scorer.forget()
