"""The course of a greedy search: what it may cost, its steps, and the looks of each."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from eckart.algorithm1 import Scored
from eckart.records import Edit, Edits
from eckart.statistics.paired import log_e_value

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
        spread: the root of the mean of its squared gains.
        dropped: what is not read further in this step.
        failed: why candidates could not be scored.
    """

    rows: int
    read: Edits
    passes: int = 0
    best: Edit | None = None
    gain: float = 0.0
    log10_e: float = 0.0
    spread: float = 0.0
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
            "spread": self.spread,
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
        return self._needed(0.0)

    @property
    def three_in_four(self) -> int:
        """How many rows a candidate must turn to be taken, three in four for the better."""
        return self._needed(0.25)

    def _needed(self, broken: float) -> int:
        for n in itertools.count(1):
            worse = int(broken * n)
            if log10(log_e_value(n - worse, worse)) >= self.log10_threshold:
                return n
        raise AssertionError

    @property
    def visible_gain(self) -> float | None:
        """About which mean gain a row would have been told on all rows that were read, with the
        spread of the last look's best; None where that one differed on no row.

        The best bet on a mean m with spread s is m / s^2, but at most 1, and makes about b m - b^2
        s^2 / 2 nats a row.
        """
        last = self.looks[-1] if self.looks else None
        if last is None or not last.spread:
            return None
        wanted = math.log(10) * self.log10_threshold / last.rows
        gain = last.spread * math.sqrt(2 * wanted)
        return gain if gain <= last.spread**2 else wanted + last.spread**2 / 2

    def to_json(self) -> dict[str, Any]:
        return {
            "step": self.number,
            "log10_threshold": self.log10_threshold,
            "turned_rows": self.turned_rows,
            "three_in_four": self.three_in_four,
            "visible_gain": self.visible_gain,
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
        rows = last.looks[-1].rows if last.looks else 0
        unit, scale = (" points", 100) if self.metric == "accuracy" else (" nats a row", 1)
        gain = last.visible_gain
        about = (
            ""
            if gain is None
            else f"; with {rows} rows that spread as its best candidate's did, a gain of about"
            f" {scale * gain:.2g}{unit}"
        )
        return (
            f"step {last.number} is taken from e = 10^{last.log10_threshold:.1f} on, which takes"
            f" {last.turned_rows} turned rows if all turn for the better, and"
            f" {last.three_in_four} if three in four do{about}"
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


def log10(nats: float) -> float:
    """Return a natural logarithm as a decimal one."""
    return nats / math.log(10)
