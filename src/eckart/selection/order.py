"""The order in which a screen puts places, as a value: a report needs no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from eckart.records import Trial


class Place(NamedTuple):
    """Where an edit may be: a layer, and a part or one matrix of it."""

    layer: int
    part: str

    def __str__(self) -> str:
        return f"layer {self.layer}, {self.part}"


@dataclass(frozen=True)
class Order:
    """Places, the most promising first.

    Arguments:
        scores: of each place, what it stands there by; None where that is no number.
        by: what that is, in words.
        read: how many validation rows were read for it, all places together.
        name: the screen, as it was asked for.
        looks: those trials; the ledger keeps them.
    """

    scores: Mapping[Place, float | None]
    by: str
    read: int = 0
    name: str = ""
    looks: tuple[Trial, ...] = field(default=(), repr=False)

    @property
    def first(self) -> Place:
        """The most promising place."""
        return next(iter(self.scores))

    def __str__(self) -> str:
        return f"{self.name} puts {self.first} first of {len(self.scores)}, by {self.by}"

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        places = [
            {"layer": place.layer, "part": place.part, "score": score}
            for place, score in self.scores.items()
        ]
        return {"name": self.name, "by": self.by, "rows_read": self.read, "places": places}

    @classmethod
    def from_json(cls, said: Mapping[str, Any]) -> Order:
        """Read what `to_json` wrote."""
        scores = {Place(each["layer"], each["part"]): each["score"] for each in said["places"]}
        return cls(scores, said["by"], said["rows_read"], said["name"])
