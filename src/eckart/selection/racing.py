"""Racing over the rates: what is clearly beaten on the first validation rows is not read to the
end."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np

from eckart.algorithm1 import ScoreEdits, Searched, candidate, checked_unpruned, rate_of
from eckart.errors import RunError
from eckart.records import Edits, Split, Trial, fingerprint
from eckart.scoring.methods import join_scores
from eckart.statistics.paired import log10_e_value

ALPHA = 0.05
"""With at most this probability a race ends in another choice than Algorithm 1 on all rows."""

FIRST_LOOK = 64
"""The fewest rows after which a candidate may be dropped."""

Tell = Callable[[str], None]


def nobody(line: str) -> None:
    """Hear nothing."""


@dataclass(frozen=True)
class Drop:
    """A candidate that was dropped, and the rival that it was clearly worse than.

    Arguments:
        candidate, rival: what each clips.
        rows: after how many rows.
        worse, better: on how many of them only the rival was right, and only the candidate.
        log10_e: the decimal logarithm of the e-value; see `log10_e_value`.
    """

    candidate: Edits
    rival: Edits
    rows: int
    worse: int
    better: int
    log10_e: float

    @property
    def rate(self) -> float:
        """The candidate's rate."""
        return rate_of(self.candidate)

    def __str__(self) -> str:
        return self.says(lambda edits: f"rate {rate_of(edits):g}")

    def says(self, name: Callable[[Edits], str]) -> str:
        """Return what happened in words, each of the two by its name."""
        return (
            f"{name(self.candidate)} dropped after {self.rows} rows: {self.worse} worse,"
            f" {self.better} better than {name(self.rival)}, e = 10^{self.log10_e:.1f}"
        )

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "rate": self.rate,
            "rival": rate_of(self.rival),
            "rows": self.rows,
            "worse": self.worse,
            "better": self.better,
            "log10_e": self.log10_e,
        }


@dataclass(frozen=True)
class Race(Searched):
    """Rates that were searched by a race, and what it read.

    Arguments:
        best, trials: as of `Searched`; each trial is on the rows that its rate saw.
        looks: the numbers of rows after which candidates were compared; the last is that of all
            rows, unless one candidate alone was left before.
        seen: how many rows each candidate was scored on, by ascending rate.
        rows_without: how many rows Algorithm 1 would have read, all candidates together.
        drops: in the order in which they happened.
        alpha: the error rate that holds for the whole race.
    """

    looks: tuple[int, ...]
    seen: tuple[int, ...]
    rows_without: int
    drops: tuple[Drop, ...]
    alpha: float = ALPHA

    @property
    def rows_read(self) -> int:
        """How many rows were read, all candidates together."""
        return sum(self.seen)

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "alpha": self.alpha,
            "looks": list(self.looks),
            "rows_read": self.rows_read,
            "rows_without": self.rows_without,
            "drops": [drop.to_json() for drop in self.drops],
        }


def race_rates(
    score: ScoreEdits,
    layer: int,
    part: str,
    rates: Iterable[float],
    rows: int,
    tell: Tell = nobody,
) -> Race:
    """Search the rates as Algorithm 1 does, but stop reading one once it is clearly beaten.

    The rows are read in looks; each look of each candidate is a trial of its own. After a look a
    candidate is dropped if its e-value against a rival that is still in the race reaches
    (K - 1) / alpha, with K candidates. The candidate that is best on all rows faces K - 1 rivals,
    each of which outdoes it so clearly with probability at most alpha / (K - 1); so with
    probability at least 1 - alpha, over the random order of the rows, the race ends in the choice
    that Algorithm 1 makes on all rows. The same holds for the candidate of the highest true
    accuracy: with probability at least 1 - alpha it is never dropped. Not to clip (rate 0) races
    like any other rate.

    Arguments:
        score: scores candidates on rows of a split, such as `validation[0:64]`, which are in random
            order.
        layer, part: what is clipped.
        rates: the candidates; of equal scores at the end the smaller rate stays.
        rows: the number of validation rows.
        tell: is told of every drop as it happens.

    Returns:
        the best rate, the trial of each on the rows that it saw, and what was read. A candidate
        that fails in a look is out, with that look's cause.

    Raises:
        RunError: the unpruned model itself, or every rate that was left, could not be scored.
    """
    candidates = {rate: candidate(layer, part, rate) for rate in sorted(rates)}
    raced = run_race(score, [*candidates.values()], rows, lambda drop: tell(str(drop)))
    if not raced.left:
        failed = next(look[-1].error for look in raced.looks.values() if look[-1].score is None)
        raise RunError(
            f"no rate is left in the race: {failed}; search without --race, or without these rates"
        )
    trials = {rate: _whole(raced, edits, rows) for rate, edits in candidates.items()}
    best = max(raced.left, key=lambda edits: (raced.right(edits), -rate_of(edits)))
    seen = tuple(map(raced.seen, candidates.values()))
    return Race(rate_of(best), trials, raced.ends, seen, rows * len(trials), raced.drops)


@dataclass(frozen=True)
class Raced:
    """What a race among any candidates read.

    Arguments:
        left: those that were not dropped, and did not fail.
        looks: the trials of each, a look a trial.
        ends: the numbers of rows after which candidates were compared.
        drops: in the order in which they happened.
    """

    left: tuple[Edits, ...]
    looks: Mapping[Edits, Sequence[Trial]]
    ends: tuple[int, ...]
    drops: tuple[Drop, ...]

    def seen(self, edits: Edits) -> int:
        """Return how many rows a candidate was scored on."""
        return self.ends[len(self.looks[edits]) - 1]

    def right(self, edits: Edits) -> int:
        """Return how many of them it was right on."""
        return sum(_right(self.looks[edits]))


def run_race(
    score: ScoreEdits, candidates: Sequence[Edits], rows: int, tell: Callable[[Drop], None]
) -> Raced:
    """Read the first validation rows of candidates, but stop reading one once it is clearly beaten.

    Arguments:
        score, tell: see `race_rates`.
        candidates: different ones.
        rows: how many validation rows are read to the end.

    Raises:
        RunError: the unpruned model itself could not be scored.
    """
    looks: dict[Edits, list[Trial]] = {edits: [] for edits in candidates}
    drops: list[Drop] = []
    ends: list[int] = []
    racing = list(candidates)
    for start, stop in pairwise((0, *(plan_looks(rows) if len(looks) > 1 else (rows,)))):
        for scored in score(racing, Split.part("validation", start, stop)):
            (trial,) = checked_unpruned(scored).trials
            looks[trial.edits].append(trial)
        ends.append(stop)
        racing = [edits for edits in racing if looks[edits][-1].score is not None]
        if stop < rows:
            beaten = _beaten({edits: _right(looks[edits]) for edits in racing}, len(looks))
            for drop in beaten:
                tell(drop)
                racing.remove(drop.candidate)
            drops += beaten
        if len(racing) <= 1:
            break
    return Raced(tuple(racing), looks, tuple(ends), tuple(drops))


def plan_looks(rows: int) -> tuple[int, ...]:
    """Return after how many rows candidates are compared: all of them, half, a quarter, and so on.

    Doubling keeps the looks few, and a candidate is read at most twice as far as it had to be. The
    first look has at least 64 rows and at least a sixteenth of all.

    >>> plan_looks(1000)
    (125, 250, 500, 1000)
    """
    ends = [rows]
    while ends[-1] // 2 >= max(FIRST_LOOK, rows // 16):
        ends.append(ends[-1] // 2)
    return tuple(reversed(ends))


def _beaten(right: Mapping[Edits, Sequence[bool]], candidates: int) -> list[Drop]:
    """Return the candidates that a rival outdoes clearly, each with the rival that does so most
    clearly."""
    pairs = {
        edits: [_compare(edits, rival, right) for rival in right if rival != edits]
        for edits in right
    }
    clearest = [max(drops, key=lambda drop: drop.log10_e) for drops in pairs.values() if drops]
    return [drop for drop in clearest if drop.log10_e >= math.log10((candidates - 1) / ALPHA)]


def _compare(edits: Edits, rival: Edits, right: Mapping[Edits, Sequence[bool]]) -> Drop:
    pairs = list(zip(right[edits], right[rival], strict=True))
    worse, better = pairs.count((False, True)), pairs.count((True, False))
    evidence = log10_e_value(np.repeat([1.0, -1.0], [worse, better]))
    return Drop(edits, rival, len(pairs), worse, better, evidence)


def _right(looks: Iterable[Trial]) -> list[bool]:
    return [
        right for trial in looks if trial.labelled is not None for right in trial.labelled.right
    ]


def _whole(raced: Raced, edits: Edits, rows: int) -> Trial:
    """Join a candidate's looks into one trial on the rows that it saw, known by all their keys."""
    looks, seen = raced.looks[edits], raced.seen(edits)
    last = looks[-1]
    scores = [trial.labelled for trial in looks if trial.labelled is not None]
    return replace(
        last,
        key=fingerprint([trial.key for trial in looks]),
        split=Split("validation") if seen == rows else Split.part("validation", 0, seen),
        score=None if last.score is None else join_scores(scores),
        seconds=sum(trial.seconds for trial in looks),
    )
