"""The course of a greedy search: what it may cost, its steps, and the looks of each."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from eckart.algorithm1 import Scored
from eckart.records import Edit, Edits
from eckart.statistics.paired import log10_e_value

ALPHA = 0.05
"""With at most this probability a greedy search takes any step that makes the model no better."""


@dataclass(frozen=True)
class Budget:
    """What a greedy search may cost; a look that would go beyond is not begun.

    Arguments:
        evaluations: row passes: a validation row read through one composition is one.
        minutes: of reading, as the trials keep them: a run that goes on counts what it has spent.
    """

    evaluations: int | None = None
    minutes: float | None = None


UNLIMITED = Budget()


@dataclass(frozen=True)
class Look:
    """The candidates of a step after some rows.

    Arguments:
        rows: how many validation rows each of them has been read on.
        read: the candidates, in the order in which they stand in the list of all.
        passes: how many rows were read for this look, all compositions together.
        best: the candidate with the strongest evidence; None where none could be scored.
        gain: its mean gain a row: of the share that is right, or in nats.
        log10_e: the decimal logarithm of its e-value.
        dropped: what is not read further in this step.
        failed: why candidates could not be scored.
    """

    rows: int
    read: Edits
    passes: int = 0
    best: Edit | None = None
    gain: float = 0.0
    log10_e: float = 0.0
    dropped: Edits = ()
    failed: Mapping[Edit, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {
            "rows": self.rows,
            "row_passes": self.passes,
            "read": list(map(str, self.read)),
            "best": self.best and str(self.best),
            "gain": self.gain,
            "log10_e": self.log10_e,
            "dropped": list(map(str, self.dropped)),
            "failed": {str(edit): cause for edit, cause in self.failed.items()},
        }


@dataclass(frozen=True)
class Step:
    """What was compared with a composition.

    Arguments:
        number: from 1.
        log10_threshold: the decimal logarithm of the e-value from which a candidate is taken.
        looks: in their order.
        taken: the candidate that was added; None where none was.
    """

    number: int
    log10_threshold: float
    looks: tuple[Look, ...] = ()
    taken: Edit | None = None

    @property
    def turned_rows(self) -> int:
        """How many rows a candidate must turn to be taken, all of them for the better."""
        return next(
            n for n in itertools.count(1) if log10_e_value(np.ones(n)) >= self.log10_threshold
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "step": self.number,
            "log10_threshold": self.log10_threshold,
            "turned_rows": self.turned_rows,
            "taken": self.taken and str(self.taken),
            "looks": [look.to_json() for look in self.looks],
        }


@dataclass(frozen=True)
class Course:
    """What a greedy search did on validation.

    Arguments:
        candidates: in the order in which they were proposed.
        metric: what was compared.
        steps: the last one took nothing, unless no candidate was left.
        ended: why, in words.
        scored: everything that was read.
    """

    candidates: Edits
    metric: str
    steps: tuple[Step, ...]
    ended: str
    scored: tuple[Scored, ...] = field(repr=False)

    @property
    def edits(self) -> Edits:
        """The composition."""
        return tuple(sorted(step.taken for step in self.steps if step.taken))

    @property
    def passes(self) -> int:
        """How many rows were read, all compositions together."""
        return sum(look.passes for step in self.steps for look in step.looks)

    @property
    def looks(self) -> int:
        """How often candidates were compared."""
        return sum(len(step.looks) for step in self.steps)

    def read(self) -> str:
        """Say how much was compared, and read."""
        return (
            f"{len(self.candidates)} candidates, {self.looks} looks, {self.passes:,} row passes on"
            f" validation; {self.ended}"
        )

    def sight(self) -> str:
        """Say what the last step could have seen."""
        if not self.looks:
            return f"nothing: no candidate was compared; {self.ended}"
        last = self.steps[-1]
        return (
            f"step {last.number} is taken from e = 10^{last.log10_threshold:.1f} on, which takes"
            f" {last.turned_rows} turned rows if all turn for the better"
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "alpha": ALPHA,
            "metric": self.metric,
            "candidates": list(map(str, self.candidates)),
            "row_passes": self.passes,
            "looks": self.looks,
            "ended": self.ended,
            "could_see": self.sight(),
            "steps": [step.to_json() for step in self.steps],
        }


def log10_threshold(step: int, candidates: int) -> float:
    """Return the decimal logarithm of the e-value from which a step is taken.

    >>> round(10 ** log10_threshold(1, 24)), round(10 ** log10_threshold(2, 24))
    (960, 44160)
    """
    return math.log10(2**step * step * math.comb(candidates, step) / ALPHA)


def listed(edits: Edits) -> str:
    """Write edits in a row; none are the unpruned model.

    >>> listed((Edit(3, "mlp", 0.5), Edit(7, "q", 0.9))), listed(())
    ('3:mlp:0.5, 7:q:0.9', 'nothing')
    """
    return ", ".join(map(str, edits)) or "nothing"
