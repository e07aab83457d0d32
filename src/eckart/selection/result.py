"""The results of searches: Algorithm 1's choice with every candidate, a greedy composition with its
course."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from eckart.algorithm1 import Scored
from eckart.errors import numbered
from eckart.records import Edit, or_null
from eckart.selection.course import Course, listed
from eckart.selection.drawn import summary
from eckart.selection.tested import Tested
from eckart.statistics.gain import sentence

if TYPE_CHECKING:
    from eckart.selection.racing import Race


@dataclass(frozen=True)
class Candidate:
    """One clipping rate that was tried.

    Arguments:
        rate: the clipping rate.
        ranks: the rank that is left of each matrix.
        trial: its outcome on validation.
        seen: on how many validation rows: all, unless a race dropped it or it failed.
    """

    rate: float
    ranks: dict[str, int]
    trial: Scored
    seen: int

    def to_json(self) -> dict[str, Any]:
        failed = self.trial.score is None
        validation = {"error": self.trial.error} if failed else summary(self.trial)
        return {"rate": self.rate, "ranks": self.ranks, "seen": self.seen, "validation": validation}


@dataclass(frozen=True, kw_only=True, repr=False)
class SearchResult(Tested):
    """A finished search by Algorithm 1.

    Arguments:
        part, layer, rate: the choice. A rate of 0 means that no clipping did better on validation.
        condition_numbers: by layer; empty when the layer was given.
        candidates: by ascending rate.
        published: rows of the paper's tables and the authors' logs about the same model, task and
            part.
        race: what a race read; None where every rate was read to the end.
    """

    part: str
    layer: int
    rate: float
    condition_numbers: dict[int, float]
    candidates: tuple[Candidate, ...]
    published: tuple[dict[str, Any], ...]
    race: Race | None = None

    @property
    def chosen(self) -> Candidate:
        """The candidate of the chosen rate; none has seen more validation rows."""
        return next(candidate for candidate in self.candidates if candidate.rate == self.rate)

    @property
    def edit(self) -> Edit:
        """The choice as a place and a rate, which may be 0."""
        return Edit(self.layer, self.part, self.rate)

    @property
    def place(self) -> str:
        return f"layer {self.layer}, {self.part}"

    @property
    def stays(self) -> str:
        return "no clipping rate did better than not clipping, so nothing is clipped"

    @property
    def compared(self) -> tuple[Scored, ...]:
        screened = self.order.looks if self.order else ()
        return (*(candidate.trial for candidate in self.candidates), *screened)

    def to_json(self) -> dict[str, Any]:
        return {
            "layer": self.layer,
            "part": self.part,
            "rate": self.rate,
            "condition_numbers": {str(k): or_null(v) for k, v in self.condition_numbers.items()},
            "candidates": [candidate.to_json() for candidate in self.candidates],
            "candidates_tried": len(self.candidates),
            "race": self.race.to_json() if self.race else None,
            "published": list(self.published),
            **super().to_json(),
        }

    def choice(self) -> str:
        return (
            f"layer {self.layer}, {self.part}, rate {self.rate:g} ({self.tried()} tried beside the"
            f" unpruned model, on n = {self.chosen.seen} validation rows)"
        )

    def tried(self) -> str:
        """Say how many candidates there were; not to clip is none of them."""
        clipped = sum(candidate.rate > 0 for candidate in self.candidates)
        return numbered(clipped, "clipping rate")


@dataclass(frozen=True, kw_only=True, repr=False)
class Composed(Tested):
    """A choice of any number of edits, all at once."""

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
