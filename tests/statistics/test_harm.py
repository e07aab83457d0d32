"""The harm elsewhere: the three verdicts, how often *not worse* is said wrongly, and intervals over
windows."""

import math
from functools import cache

import numpy as np
import pytest

from eckart.errors import EckartError
from eckart.statistics.harm import (
    TextHarm,
    clustered_mean,
    harm,
    rows_needed,
)
from eckart.statistics.paired import PairedDifference, paired_difference
from eckart.statistics.scores import TextReading


def change(low: float, high: float) -> PairedDifference:
    return PairedDifference(500, (low + high) / 2, (low, high), 0.5, fixed=10, broken=10)


def verdicts(n: int, margin: float):
    """Return what says the verdict on `n` rows of which so many were fixed and so many broken."""

    @cache
    def verdict(fixed: int, broken: int) -> str:
        rest = [True] * (n - fixed - broken)
        before, after = [False] * fixed + [True] * broken, [True] * fixed + [False] * broken
        return harm(paired_difference(before + rest, after + rest), margin)

    return verdict


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (-0.0099, 0.02, "not worse"),
        (-0.0099, -0.001, "not worse"),  # a loss that is there, and surely smaller than the margin
        (0.01, 0.03, "not worse"),
        (-0.01, 0.02, "cannot tell"),  # the margin itself is not ruled out
        (-0.03, 0.0, "cannot tell"),
        (-0.03, -0.0001, "worse"),
        (-0.01, -0.0001, "worse"),
    ],
)
def test_the_verdicts_exclude_one_another(low, high, verdict):
    assert harm(change(low, high), margin=1) == verdict


def test_a_margin_of_nothing_asks_for_a_gain():
    assert harm(change(-0.001, 0.02), margin=0) == "cannot tell"
    assert harm(change(0.001, 0.02), margin=0) == "not worse"
    assert rows_needed(change(-0.001, 0.02), margin=0) is None


def test_where_as_many_rows_did_not_tell_none_are_asked_for():
    fell = paired_difference([True] * 800, [False] * 4 + [True] * 796)
    assert harm(fell, margin=1) == "cannot tell"
    assert rows_needed(fell, margin=1) is None


@pytest.mark.parametrize(("n", "turned", "margin"), [(200, 0.1, 5), (600, 0.05, 2), (1000, 0.3, 3)])
def test_not_worse_is_said_wrongly_at_most_one_time_in_thirty(n, turned, margin):
    """The truth is a loss of exactly the margin: of `turned` rows, so many more are broken."""
    draw = np.random.default_rng(0)
    loss = margin / 100
    chances = [(turned - loss) / 2, (turned + loss) / 2, 1 - turned]
    said = verdicts(n, margin)
    wrong = sum(
        said(fixed, broken) == "not worse"
        for fixed, broken, _ in draw.multinomial(n, chances, size=4000)
    )
    assert wrong / 4000 <= 1 / 30
    assert wrong / 4000 > 0.005, "a verdict that is never said would prove nothing"


def test_so_many_rows_tell_four_times_in_five():
    draw = np.random.default_rng(1)
    seen = paired_difference([True] * 10 + [False] * 190, [False] * 5 + [True] * 10 + [False] * 185)
    n = rows_needed(seen, margin=3)
    share = (seen.fixed + seen.broken + 2) / (seen.n + 2)
    said = verdicts(n, margin=3)
    told = sum(
        said(fixed, broken) == "not worse"
        for fixed, broken, _ in draw.multinomial(n, [share / 2, share / 2, 1 - share], size=1000)
    )
    assert told / 1000 == pytest.approx(0.8, abs=0.06)


def test_the_interval_over_windows_covers():
    draw = np.random.default_rng(2)
    covered = 0
    for _ in range(2000):
        sizes = draw.integers(60, 128, size=20)
        own = draw.normal(0.0, 0.3, size=20)  # tokens of one window have something in common
        sums = [float(draw.normal(own[i] + 1, 1, size=n).sum()) for i, n in enumerate(sizes)]
        _, interval = clustered_mean(sums, sizes.tolist())
        covered += interval[0] <= 1 <= interval[1]
    assert covered / 2000 == pytest.approx(0.95, abs=0.02)


def reading(losses, divergences, tokens=(10, 10, 20)) -> TextReading:
    return TextReading.of(tokens, losses, divergences)


def test_ratio_and_divergence_are_of_tokens_not_of_windows():
    before, after = reading([10, 20, 60], [0, 0, 0]), reading([11, 20, 62], [1, 1, 2])
    found = TextHarm.of(before, after)
    assert found.tokens == 40
    assert found.divergence == pytest.approx(0.1)
    assert found.divergence_interval == pytest.approx((0.1, 0.1))
    assert found.ratio == pytest.approx(math.exp(3 / 40))
    assert found.ratio_interval[0] < found.ratio < found.ratio_interval[1]
    assert found.unpruned == pytest.approx(math.exp(90 / 40))


def test_one_window_has_no_interval_and_rounding_makes_no_negative_divergence():
    found = TextHarm.of(reading([10], [0], (10,)), reading([10], [-1e-7], (10,)))
    assert (found.divergence, found.divergence_interval, found.ratio_interval) == (0.0, None, None)


def test_readings_of_other_windows_are_not_compared():
    with pytest.raises(EckartError, match="other windows"):
        TextHarm.of(reading([10], [0], (10,)), reading([10], [0], (9,)))
