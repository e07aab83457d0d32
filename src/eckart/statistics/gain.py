"""The gain: what counts as one, and how it is said. One rule, one vocabulary, one sentence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Literal, get_args

from eckart.statistics.crossed import Estimate
from eckart.statistics.paired import PairedDifference
from eckart.statistics.scores import SQUARED_ERROR, Score, SquaredErrors

Verdict = Literal["gain", "loss", "cannot tell"]
LEVEL = 0.05
NUMBERED = {
    "gain": ("gain", "gains"),
    "loss": ("loss", "losses"),
    "nothing clipped": ("clips nothing", "clip nothing"),
}
"""Verdicts after 1 and after other numbers, where they are not the verdict itself."""


def verdict(
    found: Estimate | PairedDifference, p: float | None = None, level: float = LEVEL
) -> Verdict:
    """Say in one word what an estimate shows.

    A gain or a loss needs both: a p value at the level, adjusted for everything that was tried, and
    an interval on one side of 0. All else is "cannot tell", which is not "no difference":
    `Design.smallest` says what could have been seen.

    Arguments:
        found: of the gain.
        p: two-sided and adjusted for multiplicity; its own where nothing else was tried.
        level: the error rate that is accepted.

    >>> verdict(PairedDifference(92, 0.3, (0.19, 0.41), 1e-6, fixed=30, broken=2))
    'gain'
    """
    if (found.p_value if p is None else p) > level:
        return "cannot tell"
    low, high = found.interval
    return "gain" if low > 0 else "loss" if high < 0 else "cannot tell"


def counted(verdicts: Iterable[str], words: Iterable[str] = get_args(Verdict)) -> str:
    """Say how many of each verdict there are; of those that nobody has, nothing.

    >>> counted(["gain", "cannot tell", "gain"])
    '2 gains, 1 cannot tell'
    """
    counts = Counter(verdicts)
    return ", ".join(f"{counts[w]} {_agreed(w, counts[w])}" for w in words if counts[w])


def numbered(number: int, noun: str) -> str:
    """Write how many there are of something.

    >>> numbered(1, "edit"), numbered(1200, "edit")
    ('1 edit', '1,200 edits')
    """
    return f"{number:,} {noun}{'s' * (number != 1)}"


def _agreed(word: str, number: int) -> str:
    """Return a verdict as it follows a number."""
    one, more = NUMBERED.get(word, (word, word))
    return one if number == 1 else more


def mean_text(value: float, metric: str) -> str:
    """Write a mean: of errors, which may be tiny, four digits instead of four decimals.

    >>> mean_text(0.25, "accuracy"), mean_text(0.00123456, "squared_error")
    ('0.2500', '0.001235')
    """
    return f"{value:.4g}" if metric == SQUARED_ERROR else f"{value:.4f}"


def sentence(
    found: Estimate | PairedDifference,
    metric: str,
    *facts: str,
    p: float | None = None,
) -> str:
    """Say what was gained, how surely, and by which test; above 0 is better, of labels and of
    errors.

    Arguments:
        found: the gain.
        metric: what was measured: `squared_error`, or one of labels.
        facts: what else a reader should know, such as n.
        p: adjusted for everything that was tried; where it is given, it is told instead of the
            test's own.

    >>> found = PairedDifference(92, 0.3, (0.19, 0.41), 1e-6, fixed=30, broken=2)
    >>> sentence(found, "accuracy")
    '+30.00 points (95% interval +19.00 to +41.00; exact McNemar p = 1e-06; 30 fixed, 2 broken)'
    """
    change, told = parts(found, metric, p)
    return f"{change} ({'; '.join([*told, *facts])})"


def parts(
    found: Estimate | PairedDifference, metric: str, p: float | None = None
) -> tuple[str, list[str]]:
    """Return the parts of `sentence`: what was gained, and how surely.

    >>> parts(PairedDifference(92, 0.3, (0.19, 0.41), 1e-6, fixed=30, broken=2), "accuracy")[0]
    '+30.00 points'
    """
    labels = metric != SQUARED_ERROR
    change, low, high = (
        f"{100 * value:+.2f}" if labels else f"{value:+.3g}"
        for value in (found.mean, *found.interval)
    )
    told = [f"95% interval {low} to {high}"]
    kind = Score if labels else SquaredErrors
    if p is not None:
        told.append(f"adjusted p = {p:.2g}")
    else:
        test = f"{kind.test} " if isinstance(found, PairedDifference) else ""
        told.append(f"{test}p = {found.p_value:.3g}")
    if isinstance(found, PairedDifference):
        told.append(f"{found.fixed} {kind.turned[0]}, {found.broken} {kind.turned[1]}")
    return f"{change} {'points' if labels else 'smaller'}", told
