"""Greedy composition: one edit after another, each taken once a paired test says that the model
does better with it than without."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from eckart.algorithm1 import Scored, ScoreEdits, arms_together, compared, score_test
from eckart.errors import EditError, RunError
from eckart.records import PARTS, Edit, Edits, Split
from eckart.selection.alike import alike_rates, apart
from eckart.selection.course import (
    ALPHA,
    UNLIMITED,
    Budget,
    Course,
    Look,
    Step,
    listed,
    log10_threshold,
)
from eckart.selection.draws import Draws
from eckart.selection.order import Order, Place
from eckart.selection.plan import Plan
from eckart.selection.power import foretell
from eckart.selection.racing import Tell, nobody, plan_looks
from eckart.selection.result import GreedyResult
from eckart.statistics.paired import log10_e_value
from eckart.weights.anatomy import Anatomy
from eckart.weights.edits import droppable, parameters

MOST = 1.0
"""A row's gain in log-loss counts up to so many nats, and so does its loss: bets are on bounded
gains."""

CLEARLY = math.log10(1 / ALPHA)
"""From which decimal log of an e-value on a candidate is dropped."""

Values = Float[np.ndarray, " rows"]


@runtime_checkable
class RowValued(Protocol):
    """What knows each row's part in a metric: an outcome, or several draws together."""

    def row_values(self, metric: str) -> Any:
        """Return a value a row; with several draws an array [draws, rows]."""


def compose(
    plan: Plan,
    draws: Draws,
    order: Order | None,
    settings: dict[str, Any],
    tell: Tell,
) -> GreedyResult:
    """Search greedily, and look at the test rows once.

    Arguments:
        order: a screen's of all places; None for the plan's layer, or the deepest first.
        settings: the run's.
        tell: is told of every look.

    Raises:
        EditError: the plan's budget allows no look.
    """
    anatomy = draws.first.anatomy
    proposed = propose(plan, anatomy, tuple(order.scores) if order else ())
    candidates = apart(anatomy, proposed)
    rows = min(len(own.rows) for own in draws.rows("validation"))  # draws may differ by a few
    first = plan_looks(rows)[0]
    least = first * (1 + len(candidates))
    if plan.evaluations is not None and plan.evaluations < least:
        raise EditError(
            f"--evaluations {plan.evaluations} allows no look: the first reads {first} rows by"
            f" {len(candidates)} candidates and the unpruned model, {least:,} row passes; give"
            " more, or fewer --places or --rates"
        )
    deepest = sorted(candidates, key=lambda e: (-e.layer, -e.rate))
    foretell(tell, draws, deepest, rows, step="how long a step takes")
    if len({edit.layer for edit in candidates}) > 1:
        tell("both go by the deepest candidate: others may turn more rows, and take longer")
    course = greedy(
        draws.score,
        candidates,
        rows,
        settings["metric"],
        Budget(plan.evaluations, plan.minutes),
        tell,
    )
    arms = arms_together(course.edits, droppable(anatomy)) if plan.controls else ()
    unpruned, clipped, *tested = score_test(draws.score, course.edits, arms)
    return GreedyResult(
        settings=settings,
        labels=tuple(draws.first.task.labels),
        baseline=unpruned,
        clipped=clipped,
        controls=tuple(tested),
        notes=(*draws.notes(), *alike_rates(anatomy, proposed)),
        rows=(*draws.rows("validation"), *draws.rows("test")),
        order=order,
        course=course,
        parameters=parameters(anatomy, course.edits),
    )


def propose(plan: Plan, anatomy: Anatomy, places: Sequence[Place] = ()) -> list[Edit]:
    """Return a greedy search's candidates: the rates at each of the first places.

    Raises:
        EditError: the model has no such layer or part.
    """
    if isinstance(plan.layer, int):
        places = [Place(anatomy.layer_index(plan.layer), plan.part)]
    deepest = (Place(layer, plan.part) for layer in reversed(range(len(anatomy.layers))))
    first = [place for place in places or deepest if _has(anatomy, *place)][: plan.places]
    return [Edit(*place, rate) for place in first for rate in sorted(plan.tried) if rate]


def _has(anatomy: Anatomy, layer: int, part: str) -> bool:
    try:
        return bool(anatomy.select(layer, part))
    except EditError:
        return False


def greedy(
    score: ScoreEdits,
    candidates: Sequence[Edit],
    rows: int,
    metric: str = "accuracy",
    budget: Budget = UNLIMITED,
    tell: Tell = nobody,
) -> Course:
    """Compose edits on validation, starting from the unpruned model.

    In step s each candidate that touches no matrix of the composition so far is read together with
    it on the first rows, then on more, beside the composition alone. It is taken once its e-value
    reaches 2^s M / alpha, where M is the number of pairs of a composition of s - 1 candidates and
    one more: s times K over s, with K candidates. So whatever is looked at, and however often, with
    probability at least 1 - alpha every step that is taken makes the model better: the e-value of
    each such pair, on the rows in their order, is below its bound for ever with probability at
    least 1 - alpha / (2^s M) where it makes it no better, and these are all pairs there are. That
    the rows of a step have been read before makes no difference to the bound, for the pairs are
    fixed before any row is read; docs/search.md compares it with a bound on fresh rows.

    What is clearly worse than the composition, or than the best candidate, is dropped, and from
    half of the rows on what is not ahead; that can only lose a step, never make a wrong one.

    Arguments:
        score: scores candidates on rows of a split, such as `validation[0:64]`, in random order.
        candidates: edits of layers counted from the first, chosen without these rows.
        rows: the number of validation rows.
        metric: `accuracy` or `log_loss`; of the latter a row's difference counts up to a nat.
        budget: what it may cost.
        tell: is told of every look.

    Raises:
        RunError: the unpruned model, or a composition that was taken, cannot be scored.
        EditError: the metric is no mean over rows.
    """
    return _Search(score, tuple(candidates), rows, metric, budget, tell).run()


class _Search:
    """A greedy search under way: what was read, and what is not worth reading again."""

    def __init__(
        self,
        score: ScoreEdits,
        candidates: Edits,
        rows: int,
        metric: str,
        budget: Budget,
        tell: Tell,
    ) -> None:
        self.score, self.candidates, self.rows = score, candidates, rows
        self.metric, self.budget, self.tell = metric, budget, tell
        self.values: dict[Edits, list[Values]] = {}
        self.scored: list[Scored] = []
        self.passes = 0
        self.hopeless: set[Edit] = set()

    def run(self) -> Course:
        steps: list[Step] = []
        taken: Edits = ()
        ended = ""
        while not ended:
            free = [edit for edit in self.candidates if not _overlaps(edit, taken)]
            possible = [edit for edit in free if edit not in self.hopeless]
            if not possible:
                ended = "no candidate is left"
                break
            number = len(steps) + 1
            step = Step(number, log10_threshold(number, len(self.candidates)))
            step, ended = self._step(step, taken, possible)
            steps.append(step)
            if step.taken:
                taken = _with(taken, step.taken)
        self.tell(f"the search ends: {ended}")
        return Course(self.candidates, self.metric, tuple(steps), ended, tuple(self.scored))

    def _step(self, step: Step, base: Edits, reading: list[Edit]) -> tuple[Step, str]:
        """Return what a step came to, and why the search ends with it; nothing if it goes on."""
        looks = itertools.pairwise((0, *plan_looks(self.rows)))
        for number, (start, stop) in enumerate(looks, start=1):
            known = len(self.values.get(base, ())) >= number
            asked = [*([] if known else [base]), *(_with(base, edit) for edit in reading)]
            passes = len(asked) * (stop - start)
            spent = self._spent(passes)
            if spent:
                return step, spent
            self.passes += passes
            failed = self._read(base, asked, Split.part("validation", start, stop))
            causes = {e: failed[_with(base, e)] for e in reading if _with(base, e) in failed}
            look = Look(stop, tuple(reading), passes, dropped=tuple(causes), failed=causes)
            look = self._compared(look, base, number)
            told = look.best if look.log10_e >= step.log10_threshold else None
            step = replace(step, looks=(*step.looks, look), taken=told)
            self.tell(_line(step))
            if told:
                return step, ""
            reading = [edit for edit in reading if edit not in look.dropped]
            if not reading:
                break
        return step, "no candidate is told to be better than the composition"

    def _spent(self, passes: int) -> str:
        """Say which budget another look would exceed, if it would."""
        most, minutes = self.budget.evaluations, self.budget.minutes
        if most is not None and self.passes + passes > most:
            return f"the next look would take the row passes from {self.passes} beyond {most}"
        if minutes is not None and sum(each.seconds for each in self.scored) >= 60 * minutes:
            return f"{minutes:g} minutes of reading are over"
        return ""

    def _read(self, base: Edits, asked: Sequence[Edits], split: Split) -> dict[Edits, str]:
        """Read compositions on some rows; return which could not be scored, and why."""
        failed = {}
        for scored in self.score(asked, split):
            self.scored.append(scored)
            if scored.score is None:
                failed[scored.edits] = str(scored.error)
            else:
                self.values.setdefault(scored.edits, []).append(row_values(scored, self.metric))
        if base in failed:
            name = f"what was taken, {listed(base)}," if base else "the unpruned model"
            raise RunError(f"{name} cannot be scored: {failed[base]}")
        return failed

    def _compared(self, look: Look, base: Edits, number: int) -> Look:
        """Return a look with its best candidate, and what is dropped after it."""
        read = [edit for edit in look.read if edit not in look.failed]
        if not read:
            return look
        values = {edit: self._values(_with(base, edit), number) for edit in read}
        gains = {edit: _gains(own, self._values(base, number)) for edit, own in values.items()}
        logs = {edit: log10_e_value(own) for edit, own in gains.items()}
        best = max(read, key=lambda edit: (compared(logs[edit]), -edit.rate, edit.layer))
        late = 2 * look.rows >= self.rows
        worse = {edit for edit in read if log10_e_value(-gains[edit]) >= CLEARLY}
        behind = {edit for edit in read if late and gains[edit].sum() <= 0}
        beaten = {
            edit for edit in read if log10_e_value(_gains(values[best], values[edit])) >= CLEARLY
        }
        self.hopeless |= worse
        dropped = {*look.failed, *worse, *behind, *beaten}
        return replace(
            look,
            best=best,
            gain=float(gains[best].mean()),
            log10_e=logs[best],
            dropped=tuple(edit for edit in look.read if edit in dropped),
        )

    def _values(self, edits: Edits, looks: int) -> Values:
        return np.concatenate(self.values[edits][:looks])


def row_values(scored: Scored, metric: str) -> Values:
    """Return what each row adds to a metric; of several draws the mean, of the rows that all of
    them have.

    Raises:
        EditError: the outcome is of no rows with labels, or the metric is no mean over them.
    """
    source: object = scored if isinstance(scored, RowValued) else scored.score
    if not isinstance(source, RowValued):
        raise EditError("a greedy search compares rows with labels, and here are none")
    draws = np.atleast_2d(np.asarray(source.row_values(metric)))
    return np.asarray(draws[:, ~np.isnan(draws).any(axis=0)].mean(axis=0))


def _gains(after: Values, before: Values) -> Values:
    """Return by how much each row is better after, as far as it counts."""
    return np.clip(after - before, -MOST, MOST)


def _with(taken: Edits, edit: Edit) -> Edits:
    return tuple(sorted((*taken, edit)))


def _overlaps(edit: Edit, taken: Edits) -> bool:
    """Whether an edit touches a matrix that is clipped already."""
    return any(
        other.layer == edit.layer and not {*PARTS[other.part]}.isdisjoint(PARTS[edit.part])
        for other in taken
    )


def _line(step: Step) -> str:
    look = step.looks[-1]
    where = f"step {step.number}, {look.rows} rows, {len(look.read)} candidates"
    if look.best is None:
        return f"{where}: none could be scored"
    evidence = f"e = 10^{look.log10_e:.1f} of 10^{step.log10_threshold:.1f}"
    fate = f"taken: {step.taken}" if step.taken else f"{len(look.dropped)} dropped"
    return f"{where}: best {look.best}, {look.gain:+.4f} a row, {evidence}; {fate}"
