"""The greedy strategy of a search: its candidates, and its result."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from eckart.algorithm1 import Scored, arms_together, score_test
from eckart.errors import EditError
from eckart.records import Edit, Edits
from eckart.selection.course import Budget, Course, listed
from eckart.selection.draws import Draws
from eckart.selection.greedy import greedy
from eckart.selection.order import Order, Place
from eckart.selection.plan import Plan
from eckart.selection.power import foretell
from eckart.selection.racing import plan_looks
from eckart.selection.tested import Tested
from eckart.statistics.gain import sentence
from eckart.weights.anatomy import Anatomy
from eckart.weights.edits import droppable
from eckart.weights.linalg import factored_size


@dataclass(frozen=True, kw_only=True, repr=False)
class Composed(Tested):
    """A choice of any number of edits, all at once.

    Arguments:
        parameters: of the clipped matrices: `dense`, and `factored` when each is stored as two
            factors wherever that is smaller.
    """

    parameters: dict[str, int]

    @property
    def place(self) -> str:
        return "the same of every edit, all at once"

    @abstractmethod
    def course_json(self) -> dict[str, Any]:
        """Return how the choice was made, under a name of its own."""

    @abstractmethod
    def read(self) -> list[str]:
        """Say what was read to choose."""

    def to_json(self) -> dict[str, Any]:
        return {
            "says": self.sentences(),
            "edits": list(map(str, self.edits)),
            **self.course_json(),
            "parameters": self.parameters,
            **super().to_json(),
        }

    def sentences(self) -> list[str]:
        """Say what was found and what it is worth, and what was read for it."""
        said = self.verdict()
        if self.edits:
            gain = sentence(self.comparison, "accuracy")
            said += f": clipping {listed(self.edits)} changes test accuracy by {gain}"
        return [*filter(None, [self.caution()]), f"{said[0].upper()}{said[1:]}.", *self.read()]


@dataclass(frozen=True, kw_only=True, repr=False)
class GreedyResult(Composed):
    """A finished greedy search.

    Arguments:
        course: what it did on validation.
    """

    course: Course

    @property
    def compared(self) -> tuple[Scored, ...]:
        return self.course.scored

    @property
    def stays(self) -> str:
        if not self.course.looks:
            return "no candidate was compared with the unpruned model, so nothing is clipped"
        return "no candidate was told to be better than the unpruned model, so nothing is clipped"

    def course_json(self) -> dict[str, Any]:
        return {"greedy": self.course.to_json()}

    def choice(self) -> str:
        return f"{listed(self.edits)} ({self.course.read()})"

    def read(self) -> list[str]:
        return [f"Read: {self.course.read()}.", f"It could see: {self.course.sight()}."]

    def __str__(self) -> str:
        return "\n".join([super().__str__(), f"  could see   {self.course.sight()}"])


def compose(
    plan: Plan,
    draws: Draws,
    order: Order | None,
    settings: dict[str, Any],
    tell: Callable[[str], None],
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
    candidates = propose(plan, anatomy, tuple(order.scores) if order else ())
    rows = min(len(own.rows) for own in draws.rows("validation"))  # draws may differ by a few
    first = plan_looks(rows)[0]
    least = first * (1 + len(candidates))
    if plan.evaluations is not None and plan.evaluations < least:
        raise EditError(
            f"--evaluations {plan.evaluations} allows no look: the first reads {first} rows by"
            f" {len(candidates)} candidates and the unpruned model, {least:,} row passes; give"
            " more, or fewer --places or --rates"
        )
    foretell(tell, draws, sorted(candidates, key=lambda e: (-e.layer, -e.rate)), rows)
    if len({edit.layer for edit in candidates}) > 1:
        tell("that is of the deepest candidate: where another turns more rows, more can be seen")
    course = greedy(
        draws.score,
        candidates,
        rows,
        settings["metric"],
        Budget(plan.evaluations, plan.minutes),
        tell,
    )
    arms = arms_together(course.edits, droppable(anatomy)) if plan.controls else ()
    unpruned, clipped, *beside = score_test(draws.score, course.edits, arms)
    return GreedyResult(
        settings=settings,
        labels=tuple(draws.first.task.labels),
        baseline=unpruned,
        clipped=clipped,
        controls=tuple(beside),
        notes=draws.notes(),
        rows=(*draws.rows("validation"), *draws.rows("test")),
        order=order,
        course=course,
        parameters=parameters(anatomy, course.edits),
    )


def propose(plan: Plan, anatomy: Anatomy, places: Sequence[Place] = ()) -> Edits:
    """Return a greedy search's candidates: the rates at each of the first places.

    Raises:
        EditError: the model has no such layer or part.
    """
    if isinstance(plan.layer, int):
        places = [Place(anatomy.layer_index(plan.layer), plan.part)]
    deepest = (Place(layer, plan.part) for layer in reversed(range(len(anatomy.layers))))
    first = [place for place in places or deepest if _has(anatomy, *place)][: plan.places]
    return tuple(Edit(*place, rate) for place in first for rate in plan.tried if rate)


def parameters(anatomy: Anatomy, edits: Edits) -> dict[str, int]:
    """Count the parameters of what edits clip, dense and with each matrix as two factors wherever
    that is smaller."""
    shapes = [
        (weight.shape, edit.rate)
        for edit in edits
        for weight in anatomy.select(edit.layer, edit.part)
    ]
    dense = sum(m * n for (m, n), _ in shapes)
    factored = sum(min(m * n, factored_size(rate, (m, n))) for (m, n), rate in shapes)
    return {"dense": dense, "factored": factored, "saved": dense - factored}


def _has(anatomy: Anatomy, layer: int, part: str) -> bool:
    try:
        return bool(anatomy.select(layer, part))
    except EditError:
        return False
