"""The harm that an edit does elsewhere: how far it moves a model on a text, and whether it makes it
worse at another task by more than a margin."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.stats import norm, t

from eckart.errors import EckartError
from eckart.statistics.paired import PairedDifference
from eckart.statistics.power import POWER
from eckart.statistics.scores import TextReading

Harm = Literal["not worse", "worse", "cannot tell"]
Interval = tuple[float, float]

CONFIDENCE = 0.95


def harm(found: PairedDifference, margin: float) -> Harm:
    """Say in one or two words whether a model does worse on rows that did not choose it.

    With the two-sided 95% interval (low, high) of the paired change in accuracy, and the margin as
    a share: *not worse* where low > -margin, a one-sided test of non-inferiority at 2.5%, nominally
    (of an edit whose true loss is the margin it is said wrongly up to one time in thirty in the
    simulations of the tests); *worse* where it is not that, and high < 0; *cannot tell* otherwise.
    A loss that is there, but surely smaller than the margin, is *not worse*.

    Arguments:
        found: the change in accuracy, clipped less unpruned.
        margin: the largest loss that does not matter, in points.

    >>> harm(PairedDifference(800, 0.0, (-0.004, 0.004), 1.0, fixed=1, broken=1), margin=1)
    'not worse'
    >>> harm(PairedDifference(800, -0.05, (-0.07, -0.03), 1e-6, fixed=0, broken=40), margin=1)
    'worse'
    """
    low, high = found.interval
    if low > -margin / 100:
        return "not worse"
    return "worse" if high < 0 else "cannot tell"


def rows_needed(found: PairedDifference, margin: float) -> int | None:
    """Return with how many rows *not worse* would be found four times in five, were there no
    change.

    As many rows are taken to turn as were seen to, with one of each kind added, as in the interval:
    n = s (z_0.975 + z_0.8)^2 / margin^2 with s = (fixed + broken + 2) / (n + 2).

    Returns:
        None where the margin is 0: no number of rows would do; and where there are as many already,
        which did not tell because the accuracy fell.

    >>> rows_needed(PairedDifference(200, 0.0, (-0.02, 0.02), 1.0, fixed=1, broken=1), margin=1)
    1555
    """
    if margin == 0:
        return None
    turned = (found.fixed + found.broken + 2) / (found.n + 2)
    z = float(norm.ppf((1 + CONFIDENCE) / 2) + norm.ppf(POWER))
    needed = math.ceil(turned * z**2 / (margin / 100) ** 2)
    return needed if needed > found.n else None


def clustered_mean(sums: Sequence[float], sizes: Sequence[int]) -> tuple[float, Interval | None]:
    """Return the mean over all that clusters hold, and its 95% interval for new clusters like
    these.

    The ratio estimator of sampling in clusters (Cochran 1977, Sampling Techniques, section 6.3):
    with the mean r = sum(sums) / sum(sizes), its variance is k / (k - 1) sum((sums - r sizes)^2) /
    sum(sizes)^2 for k clusters, and Student's t has k - 1 degrees of freedom.

    Arguments:
        sums: of each cluster's values.
        sizes: how many values each holds.

    Returns:
        no interval for a single cluster.

    >>> clustered_mean([1.0, 2.0, 3.0], [2, 2, 2])[0]
    1.0
    """
    values, n = np.asarray(sums, dtype=float), np.asarray(sizes, dtype=float)
    mean, k = float(values.sum() / n.sum()), len(values)
    if k < 2:
        return mean, None
    error = math.sqrt(k / (k - 1) * float(((values - mean * n) ** 2).sum())) / float(n.sum())
    margin = float(t.ppf((1 + CONFIDENCE) / 2, k - 1)) * error
    return mean, (mean - margin, mean + margin)


@dataclass(frozen=True)
class TextHarm:
    """How far an edit moves a model's predictions on a text.

    Arguments:
        windows, tokens: how many of each were predicted in; a window is the unit of the intervals.
        divergence: the mean of KL(unpruned || clipped) of the next token, in nats a token.
        divergence_interval: of it; None where there is one window.
        ratio: the clipped model's perplexity over the unpruned one's.
        ratio_interval: of it.
        unpruned, clipped: the two perplexities.
    """

    windows: int
    tokens: int
    divergence: float
    divergence_interval: Interval | None
    ratio: float
    ratio_interval: Interval | None
    unpruned: float
    clipped: float

    @classmethod
    def of(cls, unpruned: TextReading, clipped: TextReading) -> TextHarm:
        """Compare two readings of the same windows.

        Raises:
            EckartError: the windows are not the same.
        """
        if unpruned.tokens != clipped.tokens:
            raise EckartError("two readings of a text are of other windows; read both again")
        tokens = clipped.tokens
        changes = [b - a for a, b in zip(unpruned.losses, clipped.losses, strict=True)]
        change, around = clustered_mean(changes, tokens)
        # Rounding makes a divergence of nothing a little less than nothing.
        divergence, spread = clustered_mean([max(0.0, d) for d in clipped.divergences], tokens)
        return cls(
            windows=clipped.n,
            tokens=sum(tokens),
            divergence=divergence,
            divergence_interval=spread and (max(0.0, spread[0]), spread[1]),
            ratio=_exp(change),
            ratio_interval=around and (_exp(around[0]), _exp(around[1])),
            unpruned=_exp(unpruned.log_loss),
            clipped=_exp(clipped.log_loss),
        )


def _exp(value: float) -> float:
    return math.exp(value) if value < 700 else math.inf
