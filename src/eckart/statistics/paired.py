"""Intervals and paired tests of one evaluation, under one draw of demonstrations."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.special import logsumexp
from scipy.stats import binomtest, norm, t, ttest_rel

from eckart.errors import EckartError
from eckart.statistics.scores import Outcome, Score, SquaredErrors


def wilson_interval(successes: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return Wilson's score interval for a proportion (Wilson 1927).

    It speaks of new rows drawn like these, under the same demonstrations. The validation score of a
    candidate that was selected for it is optimistic, and so is this interval around it.

    Arguments:
        successes: how many of the n rows succeeded.
        n: number of independent rows, at least 1.
        confidence: the coverage aimed at, in (0, 1).

    Returns:
        (low, high), in [0, 1].

    Raises:
        EckartError: no rows, more successes than rows, or a confidence outside (0, 1).

    >>> low, high = wilson_interval(45, 56)
    >>> f"{low:.3f} to {high:.3f}"
    '0.682 to 0.887'
    """
    _check_confidence(confidence)
    if not 0 <= successes <= n or n == 0:
        raise EckartError(
            f"{successes} successes of {n} rows is no proportion; score at least one row"
        )
    interval = binomtest(successes, n).proportion_ci(confidence, method="wilson")
    return float(interval.low), float(interval.high)


def accuracy_interval(score: Score) -> tuple[float, float]:
    """Return Wilson's 95% interval for a score's accuracy."""
    return wilson_interval(sum(score.right), score.n)


def outcome_interval(outcome: Outcome) -> tuple[float, float]:
    """Return the 95% interval of the accuracy (Wilson's), or of the mean error (Student's)."""
    if isinstance(outcome, Score):
        return accuracy_interval(outcome)
    mean, margin = mean_interval(-np.asarray(outcome.row_merits))
    return float(mean - margin), float(mean + margin)


def mean_interval(
    values: Float[np.ndarray, "rows ..."], confidence: float = 0.95
) -> tuple[Float[np.ndarray, "*rest"], Float[np.ndarray, "*rest"]]:
    """Return the mean over the first axis, and half the width of Student's interval for it.

    >>> mean, margin = mean_interval(np.array([1.0, 2.0, 3.0]))
    >>> round(float(mean), 3), round(float(margin), 3)
    (2.0, 2.484)
    """
    n = len(values)
    spread = values.std(axis=0, ddof=1) / np.sqrt(n)
    return np.asarray(values.mean(axis=0)), np.asarray(t.ppf((1 + confidence) / 2, n - 1) * spread)


def mcnemar_exact(fixed: int, broken: int) -> float:
    """Return the two-sided p value of the exact McNemar test (McNemar 1947; binomial form).

    Under the hypothesis that an edit changes nothing, each row on which the two models disagree is
    as likely to have been fixed as broken. Rows on which they agree say nothing of a difference,
    and do not count.

    Arguments:
        fixed: rows that were wrong before and are right after.
        broken: rows that were right before and are wrong after.

    Returns:
        A probability in (0, 1]; 1 where no row changed.

    Raises:
        EckartError: a count is negative.

    >>> mcnemar_exact(fixed=6, broken=0), mcnemar_exact(fixed=0, broken=0)
    (0.03125, 1.0)
    """
    if min(fixed, broken) < 0:
        raise EckartError(f"{fixed} fixed and {broken} broken rows: counts are at least 0")
    if fixed + broken == 0:
        return 1.0
    return float(binomtest(fixed, fixed + broken, 0.5).pvalue)


def log10_e_value(differences: Float[np.ndarray, " rows"]) -> float:
    """Return the decimal log of the evidence that a mean of bounded differences is above 0, at any
    number of looks.

    The hypothesis is that each row's difference is at most 0 on average, given those before it.
    Against it stands a gambler who bets the same share b of all that there is on every row:
    product over rows of (1 + b d), which is never negative, and 1 on average or less. So is the
    mean over b, uniform in [0, 1]; it bets what pays best as soon as it shows (Waudby-Smith and
    Ramdas 2024, J. R. Stat. Soc. B 86, 1-27, section 4; arXiv 2010.09686). It starts at 1, and by
    Ville's inequality the probability that it *ever* reaches 1 / alpha is at most alpha, however
    often one looks. Where d is -1, 0 or 1 that holds, for alpha <= 1/2, of a finite set of rows in
    random order too: docs/algorithm1.md has the closed form and the proof.

    The mean is taken over the nodes of Gauss and Legendre: exactly the integral up to 511 rows
    that differ, and such a mean of bets, with the same guarantee, beyond.

    Arguments:
        differences: a row's, in [-1, 1].

    Returns:
        log10 e; the hypothesis may be rejected at level alpha once it reaches log10(1 / alpha).

    Raises:
        EckartError: a difference is outside [-1, 1], or no number.

    >>> round(10 ** log10_e_value(np.array([1.0] * 10 + [0.0] * 90)), 2)
    186.09
    """
    if not (np.abs(differences) <= 1).all():
        raise EckartError("differences reach beyond -1 to 1, where a bet could lose more than all")
    bets, shares = _bets()
    values, counts = np.unique(differences, return_counts=True)
    wealth = np.log1p(bets[:, None] * values) @ counts
    return float(logsumexp(wealth, b=shares)) / math.log(10)


@cache
def _bets() -> tuple[Float[np.ndarray, " bets"], Float[np.ndarray, " bets"]]:
    """Return the nodes of [0, 1] and their weights."""
    nodes, weights = np.polynomial.legendre.leggauss(256)
    return (1 + nodes) / 2, weights / 2


@dataclass(frozen=True)
class PairedDifference:
    """How much one model beats another on the same rows.

    Arguments:
        n: number of rows.
        difference: share right after less share right before, in [-1, 1]; of errors, by how much
            they are smaller.
        interval: (low, high) of the difference.
        p_value: of the exact McNemar test; of errors, of the paired t test.
        fixed: rows that were wrong before and are right after; whose error is smaller.
        broken: rows that were right before and are wrong after; whose error is larger.
    """

    n: int
    difference: float
    interval: tuple[float, float]
    p_value: float
    fixed: int
    broken: int

    @property
    def mean(self) -> float:
        """The difference: the mean over the rows."""
        return self.difference

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "interval": list(self.interval)}


def paired_difference(
    before: Sequence[bool], after: Sequence[bool], confidence: float = 0.95
) -> PairedDifference:
    """Compare two models on the same rows: difference in accuracy, its interval, and an exact test.

    The interval is the adjusted Wald interval of Bonett and Price (2012, J. Educ. Behav. Stat. 37,
    479-488): with d = (fixed - broken) / (n + 2) and s = (fixed + broken + 2) / (n + 2) it is
    d +- z sqrt((s - d^2) / (n + 2)). The row of each kind that it adds keeps it from shrinking to a
    point where none changed. The exact test is the stricter: near the edge a 95% interval may leave
    out 0 while p > 0.05, never the reverse.

    The interval and the p value are conditional on the demonstrations that were drawn: they say how
    the two models would differ on more rows under this prompt, not under another one; repeat over
    several seeds for that. They are for a pair that was chosen before these rows were seen. The
    validation score of a selected candidate is optimistic, however small its p value; only rows
    that did not select it are evidence.

    Arguments:
        before, after: one value a row, in the same order: whether the model was right on it.
        confidence: the coverage aimed at, in (0, 1).

    Raises:
        EckartError: no rows, two different numbers of rows, or a confidence outside (0, 1).

    >>> paired_difference([True, False, False, True], [True, True, True, True]).difference
    0.5
    """
    _check_confidence(confidence)
    if len(before) != len(after) or len(before) == 0:
        raise EckartError(
            f"{len(before)} rows before and {len(after)} after make no pairs; score both on the"
            " same split"
        )
    was = np.asarray(before, dtype=bool)
    is_now = np.asarray(after, dtype=bool)
    n = len(was)
    fixed = int((~was & is_now).sum())
    broken = int((was & ~is_now).sum())
    return PairedDifference(
        n=n,
        difference=(fixed - broken) / n,
        interval=_bonett_price(fixed, broken, n, confidence),
        p_value=mcnemar_exact(fixed, broken),
        fixed=fixed,
        broken=broken,
    )


def paired_errors(
    before: Sequence[float], after: Sequence[float], confidence: float = 0.95
) -> PairedDifference:
    """Compare two models' squared errors on the same rows: the mean of the differences, with
    Student's t.

    Squared errors have long tails: with few rows the interval covers less than it says.

    Arguments:
        before, after: one error a row, in the same order.
        confidence: the coverage aimed at, in (0, 1).

    Raises:
        EckartError: fewer than two rows, two different numbers of rows, or a confidence outside (0,
            1).

    >>> found = paired_errors(before=[1.0, 2.0, 3.0], after=[0.5, 1.0, 2.5])
    >>> round(found.difference, 3), found.fixed, round(found.p_value, 3)
    (0.667, 3, 0.057)
    """
    _check_confidence(confidence)
    if len(before) != len(after) or len(before) < 2:
        raise EckartError(
            f"{len(before)} rows before and {len(after)} after make no pairs; score both on the"
            " same split of two rows or more"
        )
    was = np.asarray(before, dtype=float)
    now = np.asarray(after, dtype=float)
    same = bool((was == now).all())
    test = None if same else ttest_rel(was, now)
    low, high = (0.0, 0.0) if test is None else test.confidence_interval(confidence)
    return PairedDifference(
        n=len(was),
        difference=float((was - now).mean()),
        interval=(float(low), float(high)),
        p_value=1.0 if test is None else float(test.pvalue),
        fixed=int((now < was).sum()),
        broken=int((now > was).sum()),
    )


def compare(before: Outcome, after: Outcome) -> PairedDifference:
    """Compare two models' outcomes on the same rows; see `paired_difference` and
    `paired_errors`."""
    if isinstance(before, SquaredErrors) and isinstance(after, SquaredErrors):
        return paired_errors(before.errors, after.errors)
    if isinstance(before, Score) and isinstance(after, Score):
        return paired_difference(before.right, after.right)
    raise EckartError("labels and numbers cannot be compared; score both models on the same task")


def predictions_turned(before: Score, after: Score) -> int:
    """Return on how many of the same rows two models predict otherwise, whether either is right or
    not."""
    return sum(a != b for a, b in zip(before.predictions, after.predictions, strict=True))


def _bonett_price(fixed: int, broken: int, n: int, confidence: float) -> tuple[float, float]:
    centre = (fixed - broken) / (n + 2)
    variance = (fixed + broken + 2) / (n + 2) - centre**2
    margin = float(norm.ppf((1 + confidence) / 2)) * math.sqrt(variance / (n + 2))
    return max(-1.0, centre - margin), min(1.0, centre + margin)


def _check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise EckartError(f"confidence {confidence:g} is outside (0, 1); 0.95 is usual")
