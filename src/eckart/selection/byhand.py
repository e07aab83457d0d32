"""A choice by hand: edits that somebody looked at on validation, and the one look at the test rows
that such a choice needs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from eckart.algorithm1 import Scored, score_test
from eckart.errors import EditError, RunError, numbered
from eckart.records import Edit, Edits, Trial
from eckart.runs import PORTABLE, RunStore
from eckart.scoring.scorer import Scorer
from eckart.selection.course import listed
from eckart.selection.guard import Guard, keep_guard
from eckart.selection.looks import looks_before
from eckart.selection.recorded import Recorded
from eckart.selection.result import Composed
from eckart.selection.settings import by_hand
from eckart.tasks.portable import portable
from eckart.weights.edits import parameters


@dataclass(frozen=True, kw_only=True, repr=False)
class HandResult(Composed):
    """A choice that somebody made by looking, on the test rows.

    Arguments:
        seen: what was scored on validation before.
    """

    seen: tuple[Trial, ...]

    @property
    def compared(self) -> tuple[Scored, ...]:
        return self.seen

    @property
    def tried(self) -> int:
        """How many edits were looked at."""
        return sum(bool(trial.edits) for trial in self.seen)

    @property
    def stays(self) -> str:
        return "nothing was chosen, so nothing is clipped"

    def course_json(self) -> dict[str, Any]:
        return {"by_hand": {"looks": self.tried}}

    def choice(self) -> str:
        return f"{listed(self.edits)} ({self._chosen})"

    def read(self) -> list[str]:
        return [f"The choice was {self._chosen}; the test rows chose nothing."]

    @property
    def _chosen(self) -> str:
        return (
            f"made by hand, after {numbered(self.tried, 'edit')} had been looked at on validation"
        )


def seen(store: RunStore, scorer: Scorer, split: str) -> tuple[Trial, ...]:
    """Return the trials of a scorer's task that a run holds of a split, without log-likelihoods:
    each edit once, whatever the model was called."""
    found = {
        trial.edits: trial
        for trial in store.trials()
        if trial.split.name == split and trial.setting.task == scorer.task.full_name
    }
    return tuple(found[edits] for edits in sorted(found))


def begun(store: RunStore, scorer: Scorer) -> tuple[Edits, ...]:
    """Return the choices whose test rows were looked at; nobody saw those of one that failed."""
    tested = seen(store, scorer, "test")
    return tuple(trial.edits for trial in tested if trial.edits and trial.status == "done")


def tested_once(scorer: Scorer, edits: Sequence[Edit], guard: Guard, store: RunStore) -> HandResult:
    """Look at the test rows of a run, once, for a choice that was made by hand, and keep the
    result.

    Arguments:
        scorer: of the model and the task.
        edits: the choice; asked again it is what was found before.
        guard: reads what else the choice does.
        store: the run's, with the settings `by_hand`.

    Raises:
        EditError: nothing is clipped.
        RunError: the test rows were looked at for another choice, or cannot be scored.
    """
    choice = scorer.canonical(edits)
    if not choice:
        raise EditError("nothing is clipped, so there is nothing to test; choose an edit first")
    tested = begun(store, scorer)
    if tested and tested != (choice,):
        raise RunError(
            f"the test rows were looked at already, for {listed(tested[0])}; they are for one"
            " choice: whoever wants to test another needs other rows (--split-seed and --out)"
        )
    looks = looks_before(store, [scorer.rows("test")], bool(tested))
    store.keep_note(PORTABLE, portable([scorer.task], scorer.scoring))
    known = seen(store, scorer, "validation")
    unpruned, clipped, *_ = score_test(Recorded(scorer, store).score, choice)
    keep_guard(store, guard.margin, guard.read)
    result = HandResult(
        settings=by_hand(scorer),
        labels=tuple(scorer.task.labels),
        baseline=unpruned,
        clipped=clipped,
        notes=scorer.notes("validation", "test"),
        rows=(scorer.rows("validation"), scorer.rows("test")),
        parameters=parameters(scorer.anatomy, choice),
        guarded=guard.look(choice, store),
        seen=known,
        looks=looks,
    )
    store.write("result.json", json.dumps(result.to_json(), indent=2) + "\n")
    return result
