"""Power: which gains some rows and draws can show, before anything is scored on them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from scipy.optimize import brentq
from scipy.special import nctdtr, stdtrit
from scipy.stats import binom

from eckart.errors import EckartError
from eckart.statistics.crossed import satterthwaite
from eckart.statistics.gain import LEVEL
from eckart.statistics.paired import wilson_interval

POWER = 0.8
GAINS = (0.01, 0.02, 0.05)
"""For which the rows that they need are said."""
SHARES = (0.05, 0.1, 0.2)
"""For which it is said what can be seen, where the share of rows that turn is not known."""
RESTLESS = 0.5
"""By how much draws' gains are taken to differ where nobody knows, as a share of what turns."""
SHARED = np.linspace(0, 1, 5)
"""How much of a row's gain may be the row's under every draw, as shares of its variance."""
LEAST_GAIN = 0.002
MOST_ROWS = 2**24


@dataclass(frozen=True)
class Design:
    """How a gain is to be tested, but for the number of rows.

    Of the rows a share turns: they are right before and wrong after, or the other way round. A gain
    g makes a row that turns a fixed one with probability (1 + g / turns) / 2.

    One draw: the exact McNemar test, for new rows under these demonstrations. The power sums over
    how many rows turn, which is binomial, and how many of those are fixed.

    Several draws: the t test of `seed_and_row_mean`, for new rows and new demonstrations, of a mean
    with the variance

        V = between^2 / draws + (turns - g^2) / rows.

    All draws are taken to turn the same rows; where they turn others, more draws make up for fewer
    rows, and there is more power than is said.

    Arguments:
        turns: the share of rows that turn, in (0, 1].
        draws: of demonstrations.
        between: the standard deviation of the gain between draws, all rows scored; where nobody
            knows, half of `turns`: docs/statistics.md has what was measured.
        level: of the two-sided test.

    Raises:
        EckartError: a value is out of range, or one draw differs from itself.
    """

    turns: float
    draws: int = 1
    between: float | None = None
    level: float = LEVEL

    def __post_init__(self) -> None:
        _inside("share of rows that turn", self.turns, self.turns == 1)
        _inside("level", self.level)
        if self.draws < 1:
            raise EckartError(f"{self.draws} draws test nothing; one is the least")
        if self.between is not None and self.draws == 1:
            raise EckartError(
                f"gains that differ by {100 * self.between:g} points between draws, and there is"
                " one draw, which differs from no other; give more draws, or leave it out"
            )
        if self.between is not None and not 0 <= self.between <= self.turns:
            raise EckartError(
                f"gains do not differ by {100 * self.between:g} points between draws where"
                f" {self.turns:.1%} of the rows turn; give 0 to {100 * self.turns:g}"
            )

    @property
    def spread(self) -> float:
        """By how much draws' gains differ: as known, or as taken."""
        return RESTLESS * self.turns if self.between is None else self.between

    def power(self, gain: float, rows: int) -> float:
        """Return the probability that a true gain is told from none, on so many rows."""
        return self._of_one(gain, rows) if self.draws == 1 else self._of_several(gain, rows)

    def smallest(self, rows: int, power: float = POWER) -> float:
        """Return the smallest true gain that is told with this power; infinity where even changes
        for the better alone would not be.

        Raises:
            EckartError: no rows, or no power.
        """
        _inside("power", power)
        if not 1 <= rows <= MOST_ROWS:
            raise EckartError(f"{rows:,} rows make no test; give 1 to {MOST_ROWS:,}")

        def lack(gain: float) -> float:
            return power - self.power(gain, rows)

        return math.inf if lack(self.turns) > 0 else float(brentq(lack, 0.0, self.turns))

    def rows(self, gain: float, power: float = POWER) -> float:
        """Return the fewest rows on which a true gain is told with this power; infinity where no
        number of rows tells it: the draws are too few, or fewer rows turn than it needs.

        Raises:
            EckartError: the gain is no share from 0.002 on, or no power.
        """
        _inside("power", power)
        if not LEAST_GAIN <= gain <= 1:
            raise EckartError(
                f"a gain of {100 * gain:g} points is not from {100 * LEAST_GAIN:g} to 100"
            )
        return _fewest(lambda rows: gain <= self.turns and self.power(gain, rows) >= power)

    def _of_one(self, gain: float, rows: int) -> float:
        low, high = binom.ppf([1e-14, 1 - 1e-14], rows, self.turns)
        turned = np.arange(low, high + 1)
        least_fixed = binom.isf(self.level / 2, turned, 0.5) + 1
        told = binom.sf(least_fixed - 1, turned, (1 + gain / self.turns) / 2)
        return float(binom.pmf(turned, rows, self.turns) @ told)

    def _of_several(self, gain: float, rows: int) -> float:
        n = rows + 2  # the test adds a row of each kind
        seen = gain * rows / n
        of_row = (self.turns * rows + 2) / n - seen**2
        alike = SHARED * of_row / n
        apart = (of_row / n - alike + (self.spread * rows / n) ** 2) / self.draws
        of_rows = alike + (of_row / n - alike) / self.draws
        variance = alike + apart
        freedom = satterthwaite(variance, apart, self.draws, of_rows, n)
        least = stdtrit(freedom, 1 - self.level / 2)
        return float(1 - nctdtr(freedom, seen / np.sqrt(variance), least).max())


def smallest_detectable(
    n: int, discordance: float, power: float = POWER, level: float = LEVEL
) -> float:
    """Return the smallest true gain that n rows would show under one draw; see `Design`.

    It is a statement about the experiment, made from n and the discordance alone, and so is no
    restatement of the p value. The discordance that was seen is itself an estimate, and a coarse
    one where few rows turned.

    >>> [round(smallest_detectable(n, discordance=0.1), 3) for n in (56, 872)]
    [inf, 0.031]
    """
    return Design(discordance, level=level).smallest(n, power)


@dataclass(frozen=True)
class Turned:
    """How many rows turned of the few that were looked at.

    Arguments:
        rows: that turned.
        looked: that were looked at, the first of the validation rows.
        edit: under which they turned.
    """

    rows: int
    looked: int
    edit: str

    @property
    def share(self) -> float:
        """The share of rows that turn; where none did, the most that may: the rule of three."""
        return (self.rows or min(3, self.looked)) / self.looked

    def __str__(self) -> str:
        of = f"of the first {self.looked} validation rows at {self.edit}"
        if not self.rows:
            return f"where at most {self.share:.1%} of the rows turn (none {of}; rule of three)"
        low, high = wilson_interval(self.rows, self.looked)
        interval = f"95% interval {100 * low:.1f} to {high:.1%}"
        return f"where {self.share:.1%} of the rows turn ({self.rows} {of}; {interval})"


@dataclass(frozen=True)
class Outlook:
    """What can be seen, said before it is looked for.

    Arguments:
        design: how a gain is tested.
        rows: of the test; None where nobody says.
        gains: those of which it is said how many rows they need.
        chance: the power with which they are told.
        turned: where the share of rows that turn was measured.
    """

    design: Design
    rows: int | None = None
    gains: tuple[float, ...] = GAINS
    chance: float = POWER
    turned: Turned | None = None

    @classmethod
    def after(cls, turned: Turned, rows: int, draws: int = 1, level: float = LEVEL) -> Outlook:
        """Return what so many test rows can show, where a few validation rows were looked at."""
        return cls(Design(turned.share, draws, level=level), rows, turned=turned)

    @property
    def alike(self) -> Outlook | None:
        """The same if all draws gain alike, where nobody knows by how much they differ."""
        if self.design.draws == 1 or self.design.between is not None:
            return None
        return replace(self, design=replace(self.design, between=0.0))

    def to_json(self) -> dict[str, Any]:
        """Return plain values; null stands for no gain and for no number of rows."""
        design, alike = self.design, self.alike
        return {
            "rows": self.rows,
            "draws": design.draws,
            "turns": design.turns,
            "measured": None if self.turned is None else asdict(self.turned),
            "level": design.level,
            "power": self.chance,
            **self._seen(),
            **({"if_draws_gain_alike": alike._seen()} if alike else {}),
        }

    def _seen(self) -> dict[str, Any]:
        rows, design = self.rows, self.design
        return {
            "between": design.spread if design.draws > 1 else None,
            "smallest_gain": _finite(design.smallest(rows, self.chance)) if rows else None,
            "gains": [
                {
                    "gain": gain,
                    "power": design.power(gain, rows) if rows and gain <= design.turns else None,
                    "rows_needed": _finite(design.rows(gain, self.chance)),
                }
                for gain in self.gains
            ],
        }

    def __str__(self) -> str:
        design, alike = self.design, self.alike
        surely = f"with {self.chance:.0%} power at level {design.level:.2g}"
        turns = self.turned or f"where {design.turns:.1%} of the rows turn"
        needs = ", ".join(f"{_points(gain)} {self._needs(gain)}" for gain in self.gains)
        if self.rows is None:
            return f"with {_draws(design)}, {turns}, and {surely}: a gain of {needs}"
        told = f"{_told(design.smallest(self.rows, self.chance))} {surely}"
        if alike is not None:
            told += (
                f" if the draws' gains differ by {_points(design.spread)}, half of what turns, and"
                f" {_told(alike.design.smallest(self.rows, self.chance))} if they do not"
            )
        given = f"with {self.rows:,} test rows and {_draws(design)}, {turns}, {told}"
        return f"{given}; a gain of {needs}"

    def had(self) -> str:
        """Say with which power each gain is told on the rows there are."""
        rows, turns = self.rows, self.design.turns
        told = [
            f"{_points(gain)} with {self.design.power(gain, rows):.0%} power"
            for gain in self.gains
            if rows is not None and gain <= turns
        ]
        return f"on {rows:,} rows a gain of {', '.join(told)}" if told else ""

    def _needs(self, gain: float) -> str:
        if gain > self.design.turns:
            return "is more than turned" if self.turned else "is more than turns"
        rows = (self.alike or self).design.rows(gain, self.chance)
        least = "at least " * (self.alike is not None)
        return "needs more draws" if math.isinf(rows) else f"needs {least}{rows:,.0f} rows"


def unmeasured(rows: int, draws: int = 1, level: float = LEVEL, *, why: str) -> str:
    """Say what so many test rows can show at best where it is not known, and why not, how many of
    them turn."""
    between = 0.0 if draws > 1 else None
    designs = [Design(share, draws, between, level) for share in SHARES]
    told = (f"{_told(d.smallest(rows))} where {d.turns:.0%} of the rows turn" for d in designs)
    alike = " that gain alike" * (draws > 1)
    return (
        f"with {rows:,} test rows, {draws} draw{'s' * (draws > 1)}{alike} and {POWER:.0%} power at"
        f" level {level:.2g}: {', '.join(told)}; {why}"
    )


def _draws(design: Design) -> str:
    if design.draws == 1:
        return "one draw"
    if design.between is None:
        return f"{design.draws} draws"
    return f"{design.draws} draws whose gains differ by {_points(design.between)}"


def _told(smallest: float) -> str:
    none = math.isinf(smallest)
    return "no gain is told" if none else f"a gain of {_points(smallest)} or more is told"


def _points(gain: float) -> str:
    size = f"{100 * gain:.1f}".removesuffix(".0")
    return f"{size} point{'s' * (size != '1')}"


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _inside(what: str, value: float, or_is: bool = False) -> None:
    if not (0 < value < 1 or or_is):
        raise EckartError(f"{what} {value:g} is not inside (0, 1); give a share, such as 0.05")


def _fewest(enough: Callable[[int], bool]) -> float:
    """Return the smallest number that is enough, where larger ones are too; infinity where none
    is."""
    high = 1
    while not enough(high):
        high *= 2
        if high > MOST_ROWS:
            return math.inf
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high
