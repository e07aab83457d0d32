"""Intervals cover what they promise, and tests keep their size."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from samples import score
from scipy.stats import binom, multinomial, ttest_1samp

from eckart.errors import EckartError
from eckart.statistics.paired import (
    PairedDifference,
    accuracy_interval,
    compare,
    mcnemar_exact,
    outcome_interval,
    paired_difference,
    paired_errors,
    wilson_interval,
)
from eckart.statistics.scores import SquaredErrors

deterministic = settings(derandomize=True, deadline=None, max_examples=100, database=None)
CB, RTE = 56, 277  # the two smallest test sets of the paper's tables


def pairs(n: int, fixed: int, broken: int) -> PairedDifference:
    before = [False] * fixed + [True] * broken + [True] * (n - fixed - broken)
    after = [True] * fixed + [False] * broken + [True] * (n - fixed - broken)
    return paired_difference(before, after)


def bonett_price(fixed, broken, n):
    """The 95% interval as Bonett and Price print it, for whole arrays of counts."""
    p12, p21 = (fixed + 1) / (n + 2), (broken + 1) / (n + 2)
    margin = 1.959963984540054 * np.sqrt((p12 + p21 - (p12 - p21) ** 2) / (n + 2))
    return np.maximum(p12 - p21 - margin, -1), np.minimum(p12 - p21 + margin, 1)


class TestWilson:
    def test_agrees_with_the_published_example(self):
        # Newcombe (1998), Statistics in Medicine 17, 857-872, Table I, method 3.
        assert wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
        assert wilson_interval(15, 148) == pytest.approx((0.0624, 0.1605), abs=5e-5)
        assert wilson_interval(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)
        assert wilson_interval(1, 29) == pytest.approx((0.0061, 0.1718), abs=5e-5)

    @pytest.mark.parametrize("n", [20, CB, 100, RTE, 1000])
    def test_covers_the_truth_as_often_as_it_says(self, n):
        intervals = np.array([wilson_interval(k, n) for k in range(n + 1)])
        truths = np.linspace(
            0.1, 0.9, 161
        )  # by enumeration: every outcome, with its exact probability
        covers = (intervals[:, :1] <= truths) & (truths <= intervals[:, 1:])
        coverage = (covers * binom.pmf(np.arange(n + 1)[:, None], n, truths)).sum(axis=0)
        assert coverage.mean() >= 0.945
        assert coverage.min() >= 0.92

    def test_widens_with_confidence_and_mirrors(self):
        low, high = wilson_interval(7, 56, confidence=0.9)
        wider = wilson_interval(7, 56, confidence=0.99)
        assert 0 <= wider[0] < low < 7 / 56 < high < wider[1] <= 1
        assert wilson_interval(49, 56, confidence=0.9) == pytest.approx((1 - high, 1 - low))

    @pytest.mark.parametrize(("successes", "n"), [(0, 0), (3, 2), (-1, 5)])
    def test_refuses_what_is_no_proportion(self, successes, n):
        with pytest.raises(EckartError, match="is no proportion"):
            wilson_interval(successes, n)

    @pytest.mark.parametrize("confidence", [0.0, 1.0, 95.0, math.nan])
    def test_refuses_what_is_no_confidence(self, confidence):
        with pytest.raises(EckartError, match=r"outside \(0, 1\)"):
            wilson_interval(1, 2, confidence)
        with pytest.raises(EckartError, match=r"outside \(0, 1\)"):
            paired_difference([True], [True], confidence)


class TestMcNemar:
    def test_known_values(self):
        assert mcnemar_exact(0, 5) == 2 / 32
        assert mcnemar_exact(10, 2) == pytest.approx(2 * (1 + 12 + 66) / 4096)
        assert mcnemar_exact(4, 4) == 1.0
        assert mcnemar_exact(0, 0) == 1.0

    @deterministic
    @given(st.integers(0, 300), st.integers(0, 300))
    def test_is_a_probability_and_the_same_both_ways(self, fixed, broken):
        assert 0 < mcnemar_exact(fixed, broken) <= 1
        assert mcnemar_exact(fixed, broken) == mcnemar_exact(broken, fixed)

    def test_finds_a_difference_where_there_is_none_in_at_most_five_of_a_hundred(self):
        # Exact: given how many rows changed, the number fixed is binomial with probability 1/2. A
        # size that holds for every number of changed rows holds for every mixture of them, so for
        # every n and model.
        for changed in (*range(50), 80, 120, 200):
            found = [k for k in range(changed + 1) if mcnemar_exact(k, changed - k) <= 0.05]
            assert binom.pmf(found, changed, 0.5).sum() <= 0.05 + 1e-12

    def test_finds_a_difference_that_is_there(self):
        found = [k for k in range(61) if mcnemar_exact(k, 60 - k) <= 0.05]
        assert binom.pmf(found, 60, 0.75).sum() > 0.9

    def test_refuses_negative_counts(self):
        with pytest.raises(EckartError, match="at least 0"):
            mcnemar_exact(-1, 3)


class TestPairedDifference:
    def test_counts_what_changed(self):
        before = [True, True, True, False, False, False, False, True]
        after = [True, True, False, True, True, True, False, True]
        result = paired_difference(before, after)
        assert (result.n, result.fixed, result.broken, result.difference) == (8, 3, 1, 2 / 8)
        assert result.p_value == mcnemar_exact(3, 1)

    @pytest.mark.parametrize(("n", "step"), [(1, 1), (20, 1), (CB, 3), (RTE, 23)])
    def test_is_the_formula_of_bonett_and_price(self, n, step):
        for fixed in range(0, n + 1, step):
            for broken in range(0, n + 1 - fixed, step):
                assert pairs(n, fixed, broken).interval == pytest.approx(
                    bonett_price(fixed, broken, n)
                )

    @pytest.mark.parametrize("n", [20, CB, RTE])
    def test_covers_the_truth_as_often_as_it_says(self, n):
        # By enumeration: every (fixed, broken), with its exact probability under each pair of true
        # rates.
        outcomes = np.array([(b, c, n - b - c) for b in range(n + 1) for c in range(n + 1 - b)])
        low, high = bonett_price(outcomes[:, 0], outcomes[:, 1], n)
        coverages = []
        for p, q in itertools.product((0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4), repeat=2):
            probability = multinomial.pmf(outcomes, n, [p, q, 1 - p - q])
            coverages.append(probability[(low <= p - q) & (p - q <= high)].sum())
        assert np.mean(coverages) >= 0.94
        assert min(coverages) >= 0.92

    def test_leaves_out_zero_wherever_the_exact_test_finds_a_difference(self):
        for fixed, broken in itertools.product(range(CB + 1), repeat=2):
            if fixed + broken <= CB and mcnemar_exact(fixed, broken) <= 0.05:
                low, high = bonett_price(fixed, broken, CB)
                assert low > 0 or high < 0

    @deterministic
    @given(
        st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60),
        st.floats(0.5, 0.999),
    )
    def test_swapping_the_models_swaps_the_sign_and_nothing_else(self, rows, confidence):
        before, after = zip(*rows, strict=True)
        forward = paired_difference(before, after, confidence)
        backward = paired_difference(after, before, confidence)
        assert backward.difference == -forward.difference
        assert backward.interval == (-forward.interval[1], -forward.interval[0])
        assert (backward.p_value, backward.fixed, backward.broken) == (
            forward.p_value,
            forward.broken,
            forward.fixed,
        )

    @deterministic
    @given(st.integers(1, 60).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n))))
    def test_the_interval_holds_the_difference_and_stays_in_range(self, sizes):
        n, fixed = sizes
        for broken in range(n - fixed + 1):
            low, high = pairs(n, fixed, broken).interval
            assert -1 <= low < high <= 1
            assert low <= (fixed - broken) / n <= high

    @pytest.mark.parametrize("n", [1, CB, RTE, 8000])
    def test_no_change_is_not_certainty(self, n):
        result = pairs(n, 0, 0)
        assert (result.difference, result.p_value) == (0.0, 1.0)
        assert result.interval[0] == -result.interval[1]
        assert result.interval[1] == pytest.approx(1.96 * math.sqrt(2) / (n + 2), rel=1e-4)

    def test_everything_fixed_reaches_one_and_not_beyond(self):
        assert pairs(3, 3, 0).interval[1] == 1.0
        assert pairs(3, 0, 3).interval[0] == -1.0

    @pytest.mark.parametrize(("before", "after"), [([], []), ([True], [True, False])])
    def test_refuses_rows_without_partners(self, before, after):
        with pytest.raises(EckartError, match="make no pairs"):
            paired_difference(before, after)


def test_paired_errors_are_students_test_of_the_differences():
    generator = np.random.default_rng(0)
    before = generator.exponential(size=40)
    after = before * generator.uniform(0.5, 1.2, size=40)
    found = paired_errors(before.tolist(), after.tolist())
    plain = ttest_1samp(before - after, 0)
    assert found.difference == pytest.approx((before - after).mean())
    assert found.p_value == pytest.approx(plain.pvalue)
    assert found.interval == pytest.approx(tuple(plain.confidence_interval(0.95)))
    assert (found.fixed, found.broken) == (int((after < before).sum()), int((after > before).sum()))


def test_errors_that_do_not_change_are_no_difference():
    found = paired_errors([1.0, 2.0], [1.0, 2.0])
    assert (found.difference, found.interval, found.p_value, found.fixed, found.broken) == (
        0.0,
        (0.0, 0.0),
        1.0,
        0,
        0,
    )


@pytest.mark.parametrize("rows", [([1.0], [1.0]), ([1.0, 2.0], [1.0])])
def test_errors_without_pairs_are_refused(rows):
    with pytest.raises(EckartError, match="make no pairs"):
        paired_errors(*rows)


def test_an_outcome_is_compared_with_its_kind():
    errors = SquaredErrors(3, 2.0, (1.0, 2.0, 3.0))
    better = SquaredErrors(3, 1.0, (0.5, 1.5, 1.0))
    assert compare(errors, better) == paired_errors(errors.errors, better.errors)
    low, high = outcome_interval(errors)
    assert low == pytest.approx(ttest_1samp(errors.errors, 0).confidence_interval(0.95).low)
    assert (low + high) / 2 == pytest.approx(2.0)
    assert outcome_interval(score()) == accuracy_interval(score())
    assert compare(score(), score()) == paired_difference(score().right, score().right)
    with pytest.raises(EckartError, match="labels and numbers cannot be compared"):
        compare(errors, score())
