"""Racing over the rates: what is clearly beaten on the first validation rows is not read to the
end."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from typing import Any

from eckart.algorithm1 import ScoreEdits, Searched, candidate, checked_unpruned, rate_of
from eckart.errors import RunError
from eckart.records import Split, Trial, fingerprint
from eckart.scoring.methods import check_method, join_scores
from eckart.selection.plan import check_raceable
from eckart.statistics.paired import log_e_value

ALPHA = 0.05
"""With at most this probability a race ends in another choice than Algorithm 1 on all rows."""

FIRST_LOOK = 64
"""The fewest rows after which a candidate may be dropped."""

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Drop:
    """A candidate that was dropped, and the rival that it was clearly worse than.

    Arguments:
        rate, rival: the candidate's clipping rate, and the rival's.
        rows: after how many rows.
        worse, better: on how many of them only the rival was right, and only the candidate.
        log10_e: the decimal logarithm of the e-value; see `log_e_value`.
    """

    rate: float
    rival: float
    rows: int
    worse: int
    better: int
    log10_e: float

    def __str__(self) -> str:
        return (
            f"rate {self.rate:g} dropped after {self.rows} rows: {self.worse} worse, {self.better}"
            f" better than rate {self.rival:g}, e = 10^{self.log10_e:.1f}"
        )


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
            "drops": [asdict(drop) for drop in self.drops],
        }


def race_rates(
    score: ScoreEdits,
    layer: int,
    part: str,
    rates: Iterable[float],
    rows: int,
    tell: Tell = lambda line: None,
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
    looks: dict[float, list[Trial]] = {rate: [] for rate in sorted(rates)}
    seen = dict.fromkeys(looks, 0)
    drops: list[Drop] = []
    ends: list[int] = []
    racing = list(looks)
    for start, stop in pairwise((0, *(plan_looks(rows) if len(looks) > 1 else (rows,)))):
        candidates = [candidate(layer, part, rate) for rate in racing]
        for scored in score(candidates, Split.part("validation", start, stop)):
            (trial,) = checked_unpruned(scored).trials
            looks[rate_of(trial.edits)].append(trial)
        seen.update(dict.fromkeys(racing, stop))
        ends.append(stop)
        racing = _scored(racing, looks)
        if stop < rows:
            beaten = _beaten({rate: _right(looks[rate]) for rate in racing}, len(looks))
            for drop in beaten:
                tell(str(drop))
                racing.remove(drop.rate)
            drops += beaten
        if len(racing) == 1:
            break
    trials = {rate: _whole(looks[rate], seen[rate], rows) for rate in looks}
    best = max(racing, key=lambda rate: (sum(_right(looks[rate])), -rate))
    return Race(best, trials, tuple(ends), tuple(seen.values()), rows * len(looks), tuple(drops))


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


def check_race(metric: str, scoring: str) -> None:
    """Refuse to race by anything but accuracy, or by a scoring that needs all rows at once.

    Raises:
        EditError: the metric is another.
        TaskError: the scoring cannot read a split in parts.
    """
    check_raceable(metric)
    check_method(scoring, split=Split.part("validation", 0, FIRST_LOOK))


def _beaten(right: Mapping[float, Sequence[bool]], candidates: int) -> list[Drop]:
    """Return the candidates that a rival outdoes clearly, each with the rival that does so most
    clearly."""
    pairs = {
        rate: [_compare(rate, rival, right) for rival in right if rival != rate] for rate in right
    }
    clearest = [max(drops, key=lambda drop: drop.log10_e) for drops in pairs.values() if drops]
    return [drop for drop in clearest if drop.log10_e >= math.log10((candidates - 1) / ALPHA)]


def _compare(rate: float, rival: float, right: Mapping[float, Sequence[bool]]) -> Drop:
    pairs = list(zip(right[rate], right[rival], strict=True))
    worse, better = pairs.count((False, True)), pairs.count((True, False))
    return Drop(rate, rival, len(pairs), worse, better, log_e_value(worse, better) / math.log(10))


def _scored(racing: Sequence[float], looks: Mapping[float, Sequence[Trial]]) -> list[float]:
    """Return the candidates whose last look gave a score."""
    last = {rate: looks[rate][-1] for rate in racing}
    scored = [rate for rate, trial in last.items() if trial.score is not None]
    if not scored:
        raise RunError(
            f"no rate is left in the race: {last[racing[0]].error}; search without --race, or"
            " without these rates"
        )
    return scored


def _right(looks: Iterable[Trial]) -> list[bool]:
    return [
        right for trial in looks if trial.labelled is not None for right in trial.labelled.right
    ]


def _whole(looks: Sequence[Trial], seen: int, rows: int) -> Trial:
    """Join a candidate's looks into one trial on the rows that it saw, known by all their keys."""
    last = looks[-1]
    scores = [trial.labelled for trial in looks if trial.labelled is not None]
    return replace(
        last,
        key=fingerprint([trial.key for trial in looks]),
        split=Split("validation") if seen == rows else Split.part("validation", 0, seen),
        score=None if last.score is None else join_scores(scores),
        seconds=sum(trial.seconds for trial in looks),
    )
