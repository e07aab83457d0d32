"""Readings of the test rows beside a search's choice: its free rivals, which are the unpruned model
with fewer demonstrations and by other scorings; and both models at other precisions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from eckart.errors import EckartError, TaskError
from eckart.records import Split, Trial
from eckart.runs import Run
from eckart.scoring.evaluator import scorer_like
from eckart.scoring.scorer import Scorer, storing
from eckart.selection.deployed import Deployed
from eckart.selection.recorded import Ledger, Recorded
from eckart.selection.rivals import Rivals, ways
from eckart.tasks.task import AnyTask, Task


def check_rivalled(task: AnyTask) -> Task:
    """Return a task whose choice can be held beside what costs nothing.

    Raises:
        TaskError: it asks for numbers.
    """
    if isinstance(task, Task):
        return task
    raise TaskError(
        f"task '{task.full_name}' asks for numbers, which have no calibration and no most frequent"
        " label: it has no free rivals; leave out rivals"
    )


def read_rivals(run: Run, scorers: Sequence[Scorer], ledger: Ledger | None) -> Rivals | None:
    """Read on the test rows what costs nothing, unless the ledger knows, and set the choice beside
    it.

    Arguments:
        run: holds the choice and the unpruned model, as they were tested.
        scorers: the search's, one a draw of demonstrations.
        ledger: see `Recorded`.
    """
    rows, trials = dict(run.rows), list(run.rivals)
    undrawn: set[str] = set()
    for scorer in scorers:
        task = check_rivalled(scorer.task)
        for shots, scorings in ways(task.shots, scorer.scoring, task.kind == "choices").items():
            if not shots and task.full_name in undrawn:
                continue  # without demonstrations all draws ask the very same
            undrawn |= set() if shots else {task.full_name}
            fewer = _with_fewer(scorer, task, shots)
            trials += _read_rivals(fewer, scorings, ledger)
            rows[fewer.rows("test").digest] = fewer.rows("test")
            if fewer is not scorer:
                fewer.forget()
    return Rivals.in_run(replace(run, rows=rows, rivals=tuple(trials)))


def _with_fewer(scorer: Scorer, task: Task, shots: int) -> Scorer:
    if shots == task.shots:
        return scorer
    return scorer_like(scorer, task.with_fewer(shots))


def _read_rivals(scorer: Scorer, scorings: Sequence[str], ledger: Ledger | None) -> Iterator[Trial]:
    """Yield the unpruned model's trials by these scorings; one that cannot be read has failed, and
    the search has not."""
    readable = []
    for scoring in scorings:
        try:
            scorer.prepare("test", [scoring])
            readable.append(scoring)
        except EckartError as error:
            yield _unreadable(scorer, scoring, str(error), ledger)
    if readable:
        yield from Recorded(scorer, ledger).score({(): readable}, "test")


def _unreadable(scorer: Scorer, scoring: str, error: str, ledger: Ledger | None) -> Trial:
    key = scorer.key((), "test", scoring)
    trial = scorer.trial((), Split("test"), scoring, key, status="failed", error=error)
    if ledger is not None:
        ledger.keep_rows(scorer.rows("test"))
        ledger.keep(trial)
    return trial


def deployed(
    run: Run, scorers: Sequence[Scorer], kinds: Sequence[str], ledger: Ledger | None
) -> Deployed | None:
    """Read the unpruned model and a choice on the test rows once more, at other precisions, unless
    the ledger knows; None where nothing is clipped.

    Arguments:
        run: holds the choice and the unpruned model, as they were tested.
        scorers: the search's, one a draw of demonstrations.
        kinds: types of GGUF files.
        ledger: see `Recorded`.

    Raises:
        ModelError: a row of the model is no whole number of a type's blocks.
    """
    tested = (trial for trial in run.trials.values() if trial.split == "test")
    edits = next((t.edits for t in tested if t.edits), ())
    if not edits:
        return None
    trials: list[Trial] = []
    for kind in kinds:
        for scorer in scorers:
            stored = storing(scorer, kind)
            shared = len(scorers) > 1
            trials += Recorded(stored, ledger, shared=shared).score([(), edits], "test")
            stored.forget()
    return Deployed.in_run(replace(run, deployed=tuple(trials)))
