"""Intervals hold the truth as often as they say, and choosing the best of many is paid for.

The simulated studies are those of benchmarks/coverage.py, which prints many more of them for
docs/statistics.md. A rate from n simulations may miss its bound by three binomial standard errors.
"""

import importlib.util
import math
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binom, spearmanr, ttest_1samp

from eckart.errors import EckartError
from eckart.statistics.crossed import (
    crossed_moments,
    seed_and_row_mean,
)
from eckart.statistics.gain import verdict
from eckart.statistics.grids import layer_rule, rank_correlation, stability, winners_curse
from eckart.statistics.multiplicity import false_discovery, holm, selected_gain
from eckart.statistics.paired import paired_difference

SIMULATED = Path(__file__).parents[2] / "benchmarks" / "simulated.py"


@pytest.fixture(scope="module")
def simulated():
    """The simulations of the benchmark."""
    spec = importlib.util.spec_from_file_location("simulated", SIMULATED)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["simulated"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules["simulated"]


def error(rate: float, times: int) -> float:
    return 3 * math.sqrt(rate * (1 - rate) / times)


@pytest.fixture
def draw():
    return np.random.default_rng(0)


def gains_of(draw, shape, lost=0.1, fixed=0.1):
    return draw.choice([-1.0, 0.0, 1.0], size=shape, p=[lost, 1 - lost - fixed, fixed])


class TestSeedAndRowMean:
    @pytest.mark.parametrize(
        ("noise", "seeds", "rows", "least"),
        [
            ({"row_of_edit": 0.8, "chance": 0.2}, 5, 200, 0.95),
            ({"row_of_edit": 0.8, "chance": 0.2}, 5, 56, 0.95),
            ({"row": 0.1, "row_of_edit": 0.1, "seed": 0.5, "chance": 0.8}, 5, 200, 0.95),
            ({"row": 0.1, "row_of_edit": 0.1, "seed": 0.5, "chance": 0.8}, 3, 200, 0.93),
            ({"seed": 0.15, "chance": 0.6}, 5, 200, 0.94),
            ({"seed": 0.15, "chance": 0.6}, 3, 200, 0.93),
            ({"row": 0.0, "row_of_edit": 0.1, "chance": 1.0}, 5, 200, 0.95),
            ({}, 1, 200, 0.95),
        ],
    )
    @pytest.mark.parametrize("merit", [0.0, 0.5])
    def test_covers_new_seeds_and_new_rows(self, simulated, noise, seeds, rows, least, merit):
        rates = simulated.mean(simulated.Noise(**noise), merit, seeds, rows, times=600, draws=2)
        assert rates["coverage"] >= least - error(least, 600)
        if merit == 0:
            assert rates["called"] <= 1 - least + error(least, 600)

    def test_a_search_over_draws_covers_where_the_draws_that_chose_would_not(self, simulated):
        found = simulated.searched(simulated.Noise(seed=0.2), np.zeros(7), 5, 200, times=300)
        assert found["covers"] >= 0.95 - error(0.95, 300) > found["covers, same"]
        assert abs(found["bias"]) < 0.01 < found["bias, same"]

    def test_pooling_the_seeds_would_call_far_too_often(self, simulated):
        rates = simulated.mean(
            simulated.Noise(row_of_edit=0.8, chance=0.2), 0.0, 5, 200, times=300, draws=2
        )
        assert rates["called by pooling"] > 0.2

    def test_many_cells_at_once_are_the_cells_one_by_one(self, draw):
        gains = gains_of(draw, (6, 5, 30))
        gains[draw.random(gains.shape) < 0.2] = np.nan
        mean, error, _ = crossed_moments(gains, None)
        centre, _, freedom = crossed_moments(gains, (-1.0, 1.0))
        one = seed_and_row_mean(gains[4], bounds=None)
        assert (one.mean, one.standard_error) == pytest.approx((mean[4], error[4]), abs=1e-15)
        padded = seed_and_row_mean(gains[4])
        assert padded.degrees_of_freedom == pytest.approx(freedom[4])
        assert sum(padded.interval) / 2 == pytest.approx(centre[4])

    def test_balanced_variances_are_those_of_the_analysis_of_variance(self, draw):
        values = (
            draw.standard_normal((5, 1))
            + draw.standard_normal((1, 40))
            + draw.standard_normal((5, 40))
        )
        of_seeds, of_rows = values.mean(axis=1), values.mean(axis=0)
        rest = values - of_seeds[:, None] - of_rows + values.mean()
        error_square = (rest**2).sum() / (4 * 39)
        expected = of_seeds.var(ddof=1) / 5 + of_rows.var(ddof=1) / 40 - error_square / 200
        assert seed_and_row_mean(values, bounds=None).standard_error == pytest.approx(
            math.sqrt(expected)
        )

    def test_seeds_that_share_no_row_are_independent_samples(self, draw):
        values = np.full((4, 40), np.nan)
        for seed in range(4):
            values[seed, 10 * seed : 10 * seed + 10] = (
                5 * draw.standard_normal() + draw.standard_normal(10)
            )
        means = np.nanmean(values, axis=1)
        assert seed_and_row_mean(values, bounds=None).p_value == pytest.approx(
            ttest_1samp(means, 0).pvalue, rel=1e-6
        )

    def test_one_seed_says_so_and_is_students_interval(self, draw):
        values = draw.standard_normal((1, 30)) + 0.3
        one = seed_and_row_mean(values, bounds=None)
        student = ttest_1samp(values[0], 0)
        assert one.seeds == 1
        assert one.p_value == pytest.approx(student.pvalue)
        assert one.interval == pytest.approx(tuple(student.confidence_interval()))

    def test_one_seeds_interval_is_close_to_that_of_paired_proportions(self, draw):
        gains = gains_of(draw, (1, 300))
        paired = paired_difference((gains[0] < 0).tolist(), (gains[0] > 0).tolist())
        assert seed_and_row_mean(gains).interval == pytest.approx(paired.interval, abs=0.001)

    def test_repeating_a_seed_does_not_make_more_of_the_rows(self, draw):
        gains = gains_of(draw, (1, 100))
        one, five = seed_and_row_mean(gains), seed_and_row_mean(np.repeat(gains, 5, axis=0))
        assert five.standard_error == pytest.approx(one.standard_error)

    def test_no_change_is_no_certainty(self):
        unchanged = seed_and_row_mean(np.zeros((5, 56)))
        assert unchanged.mean == 0
        assert unchanged.interval[0] < -0.02
        assert unchanged.interval[1] == pytest.approx(-unchanged.interval[0])
        assert unchanged.p_value == 1
        assert seed_and_row_mean(np.zeros((5, 56)), bounds=None).p_value == 1

    def test_rows_that_no_seed_scored_and_the_order_do_not_matter(self, draw):
        gains = gains_of(draw, (3, 20))
        more = np.concatenate([np.full((3, 2), np.nan), gains[::-1, ::-1]], axis=1)
        one, other = seed_and_row_mean(gains), seed_and_row_mean(more)
        assert other.interval == pytest.approx(one.interval)
        assert other.rows == 20

    @pytest.mark.parametrize(
        "values", [np.zeros((0, 5)), np.zeros((2, 1)), np.array([[1.0, np.nan], [1.0, 0.0]])]
    )
    def test_refuses_seeds_without_rows(self, values):
        with pytest.raises(EckartError, match="fewer than two rows"):
            seed_and_row_mean(values)

    def test_refuses_a_confidence_that_is_none(self):
        with pytest.raises(EckartError, match="outside"):
            seed_and_row_mean(np.zeros((1, 5)), confidence=95)


class TestAdjusted:
    def test_holm_by_hand(self):
        assert holm([0.01, 0.04, 0.03, 0.005]).tolist() == pytest.approx([0.03, 0.06, 0.06, 0.02])

    def test_false_discovery_by_hand(self):
        assert false_discovery([0.01, 0.04, 0.03, 0.005]).tolist() == pytest.approx(
            [0.02, 0.04, 0.04, 0.02]
        )

    @pytest.mark.parametrize("adjust", [holm, false_discovery])
    def test_order_is_kept_and_nothing_gets_smaller(self, adjust, draw):
        p = draw.random(50)
        turned = draw.permutation(50)
        assert (adjust(p) >= p).all()
        assert (adjust(p) <= 1).all()
        assert adjust(p[turned]) == pytest.approx(adjust(p)[turned])
        assert len(adjust([])) == 0

    @pytest.mark.parametrize("adjust", [holm, false_discovery])
    @pytest.mark.parametrize("p", [[0.5, math.nan], [-0.1], [1.5]])
    def test_refuses_what_is_no_probability(self, adjust, p):
        with pytest.raises(EckartError, match="outside"):
            adjust(p)

    def test_holm_makes_a_false_finding_in_one_study_of_twenty(self, draw):
        studies = draw.random((1000, 20))
        assert np.mean([holm(p).min() <= 0.05 for p in studies]) <= 0.05 + error(0.05, 1000)


class TestMaxStatistic:
    @pytest.mark.parametrize("merit", [0.0, -0.3])
    def test_keeps_its_size_over_64_cells(self, simulated, merit):
        rates = simulated.best_of_many(simulated.Noise(), np.full(64, merit), 1, 100, times=300)
        assert rates["max-T"] <= 0.05 + error(0.05, 300)

    def test_finds_a_cell_that_gains(self, simulated):
        merits = np.r_[0.8, np.zeros(63)]
        assert simulated.best_of_many(simulated.Noise(), merits, 5, 200, times=20)["max-T"] == 1

    def test_one_cell_alone_is_the_one_sided_exact_test(self, simulated, draw):
        gains = gains_of(draw, (1, 1, 60), lost=0.1, fixed=0.3)
        fixed, broken = int((gains > 0).sum()), int((gains < 0).sum())
        exact = binom.sf(fixed - 1, fixed + broken, 0.5)
        (p,) = simulated.max_statistic_p(gains, flips=20_000)
        assert p == pytest.approx(exact, abs=error(exact, 20_000) + 1e-4)

    def test_the_same_cell_many_times_counts_once_and_holm_counts_each(self, simulated, draw):
        cell = gains_of(draw, (1, 1, 100), lost=0.05, fixed=0.2)
        (alone,) = simulated.max_statistic_p(cell)
        often = simulated.max_statistic_p(np.repeat(cell, 30, axis=0))
        assert often == pytest.approx(np.full(30, alone))
        assert often.min() < holm(np.full(30, alone)).min()


class TestSelectedGain:
    @pytest.mark.parametrize(
        ("merits", "seed", "seeds"),
        [
            (np.zeros(64), 0.0, 1),
            (np.zeros(64), 0.05, 5),
            (np.r_[np.full(4, 0.3), np.zeros(60)], 0.05, 5),
            (np.r_[np.full(4, 0.3), np.zeros(60)], 0.0, 1),
        ],
    )
    def test_is_right_on_average_and_covers(self, simulated, merits, seed, seeds):
        rates = simulated.choice(simulated.Noise(seed=seed), merits, seeds, 200, times=150)
        optimism = rates["naive"] - rates["truth"]
        assert optimism > 0.015
        assert abs(rates["corrected"] - rates["truth"]) < 0.3 * optimism
        assert rates["coverage"] >= 0.93 - error(0.93, 150)

    def test_unpruned_is_chosen_where_all_cells_lose(self, draw):
        chosen = selected_gain(gains_of(draw, (30, 5, 100), lost=0.4, fixed=0.05))
        assert chosen.cell is None
        assert (chosen.naive, chosen.corrected.mean) == (0.0, 0.0)

    def test_a_clear_winner_loses_nothing(self, draw):
        gains = gains_of(draw, (10, 3, 100), lost=0.4, fixed=0.1)
        gains[6] = gains_of(draw, (3, 100), lost=0.1, fixed=0.5)
        chosen = selected_gain(gains)
        assert (chosen.cell, chosen.cells_tried) == (6, 10)
        assert chosen.corrected.mean == pytest.approx(chosen.naive)

    def test_rows_that_a_seed_did_not_score_are_left_out(self, draw):
        gains = gains_of(draw, (4, 3, 40))
        gains[2] = np.abs(gains[2])
        gains[:, 0, :7] = np.nan
        chosen = selected_gain(gains)
        assert chosen.cell == 2
        assert chosen.corrected.mean == pytest.approx(np.nanmean(gains[2], axis=1).mean())

    @pytest.mark.parametrize(
        ("shape", "options"), [((0, 1, 9), {}), ((2, 1, 4), {}), ((2, 1, 9), {"folds": 1})]
    )
    def test_refuses_what_cannot_be_split(self, shape, options):
        with pytest.raises(EckartError, match="folds"):
            selected_gain(np.zeros(shape), **options)


class TestStability:
    @pytest.mark.parametrize(("deep", "shallow"), [(0.0, 0.0), (0.3, 0.3), (0.02, 0.3)])
    def test_covers_and_keeps_its_size(self, simulated, deep, shallow):
        rates = simulated.steadiness(simulated.Noise(seed=0.05), deep, shallow, 5, 150, times=60)
        coverages = [rates[name] for name in rates if name.startswith("coverage")]
        assert min(coverages) >= 0.9 - error(0.9, 60)
        assert abs(rates["corrected"] - rates["spread"]) < max(
            0.5 * (rates["measured"] - rates["spread"]), 0.004
        )
        assert rates["called"] == 1 if deep < shallow else rates["called"] <= 0.05 + error(0.05, 60)

    def test_without_noise_it_is_what_it_says(self):
        means = np.array([[0.0, 0.0, 0.0], [0.0, -0.5, -1.0]])
        found = stability(
            np.broadcast_to(means[:, :, None, None], (2, 3, 2, 10)).copy(), deep=[0], shallow=[1]
        )
        assert [layer.value for layer in found.spread] == pytest.approx([0.0, 0.5])
        assert [layer.mean for layer in found.worst] == pytest.approx([0.0, -1.0])
        assert found.spread_difference.value == pytest.approx(-0.5)
        assert found.worst_difference.mean == pytest.approx(1.0)

    def test_exchanging_the_groups_exchanges_the_signs(self, draw):
        gains = gains_of(draw, (4, 3, 2, 50), lost=0.3)
        one, other = stability(gains, [2, 3], [0]), stability(gains, [0], [2, 3])
        assert one.spread_difference.interval == pytest.approx(
            tuple(-x for x in other.spread_difference.interval[::-1])
        )
        assert one.worst_difference.mean == pytest.approx(-other.worst_difference.mean)
        assert one.spread_p_value == pytest.approx(other.spread_p_value)

    @pytest.mark.parametrize(("deep", "shallow"), [([], [0]), ([1], [1]), ([4], [0]), ([-1], [0])])
    def test_refuses_groups_that_are_none(self, deep, shallow):
        with pytest.raises(EckartError, match="two groups"):
            stability(np.zeros((4, 3, 2, 10)), deep, shallow)

    def test_refuses_one_rate(self):
        with pytest.raises(EckartError, match="two rates"):
            stability(np.zeros((4, 1, 2, 10)), [1], [0])


class TestLayerRule:
    @pytest.mark.parametrize("merits", [np.zeros(12), np.linspace(-0.5, 0.3, 12)])
    def test_covers(self, simulated, merits):
        rates = simulated.rule(simulated.Noise(seed=0.05), merits, 5, 5, 150, times=150)
        for name in ("over random", "below best", "rank"):
            assert rates[name] >= 0.94 - error(0.94, 150), name
        assert rates["its bias"] <= 0

    def test_a_clear_best_and_a_clear_worst(self, draw):
        gains = gains_of(draw, (6, 3, 200), lost=0.2, fixed=0.2)
        gains[4] = gains_of(draw, (3, 200), lost=0.0, fixed=0.7)
        gains[1] = gains_of(draw, (3, 200), lost=0.7, fixed=0.0)
        best, worst = layer_rule(gains, 4), layer_rule(gains, 1)
        assert (best.rank, best.rank_interval, best.below_best.interval[1]) == (1, (1, 1), 0.0)
        assert (worst.rank, worst.rank_interval) == (6, (6, 6))
        assert worst.below_best.value == pytest.approx(gains[1].mean() - gains[4].mean())
        assert best.over_random.mean == pytest.approx(gains[4].mean() - gains.mean())
        assert best.over_random.interval[0] > 0

    @pytest.mark.parametrize(("layers", "chosen"), [(1, 0), (3, 3), (3, -1)])
    def test_refuses_a_layer_that_there_is_not(self, layers, chosen):
        with pytest.raises(EckartError, match="index from 0"):
            layer_rule(np.zeros((layers, 1, 9)), chosen)


class TestWinnersCurse:
    def test_the_slope_is_the_share_of_true_variance(self, draw):
        merit = draw.standard_normal(20_000)
        validation, test = (merit + math.sqrt(3) * draw.standard_normal(20_000) for _ in range(2))
        curse = winners_curse(validation, test)
        assert curse.slope == pytest.approx(0.25, abs=0.03)
        assert curse.gap == pytest.approx(validation.max() - test[validation.argmax()])
        assert curse.cells == 20_000

    @pytest.mark.parametrize(
        ("validation", "test"),
        [([0.1], [0.1]), ([0.1, 0.1], [0, 1]), ([0, math.nan], [0, 1])],
    )
    def test_refuses_what_has_no_line(self, validation, test):
        with pytest.raises(EckartError, match="validation and test gains"):
            winners_curse(np.array(validation, dtype=float), np.array(test, dtype=float))


class TestRankCorrelation:
    def test_is_spearmans(self, draw):
        x, y = draw.standard_normal((2, 40)).round(1)
        assert rank_correlation(x, y, range(40)).value == pytest.approx(spearmanr(x, y).statistic)

    @pytest.mark.parametrize(
        ("groups", "units", "strength"), [(4, 12, 0.8), (6, 20, 0.0), (30, 1, 0.8)]
    )
    def test_covers_new_groups(self, simulated, groups, units, strength):
        rates = simulated.correlation(groups, units, 0.5, strength, times=200)
        assert rates["coverage"] >= 0.94 - error(0.94, 200)

    def test_repeated_units_are_no_more_evidence(self, draw):
        x, y = draw.standard_normal((2, 10))
        once = rank_correlation(x, y, range(10))
        often = rank_correlation(np.repeat(x, 7), np.repeat(y, 7), np.repeat(range(10), 7).tolist())
        assert often.interval == pytest.approx(once.interval, abs=0.05)

    def test_a_perfect_order_is_one(self):
        ranks = rank_correlation(np.arange(9.0), np.exp(np.arange(9.0)), list("aaabbbccc"))
        assert (ranks.value, *ranks.interval) == pytest.approx((1.0, 1.0, 1.0))

    @pytest.mark.parametrize("confidence", [0.9, 0.99])
    def test_the_p_value_is_that_of_the_interval(self, draw, confidence):
        x, y = draw.standard_normal((2, 30))
        groups = np.repeat(range(6), 5).tolist()
        p = rank_correlation(x, y + x / 2, groups).p_value
        low, high = rank_correlation(x, y + x / 2, groups, 1 - p).interval
        assert min(abs(low), abs(high)) == pytest.approx(0, abs=1e-9), (
            "the interval of 1 - p ends at 0"
        )
        low, high = rank_correlation(x, y + x / 2, groups, confidence).interval
        assert (low <= 0 <= high) == (p >= 1 - confidence)

    @pytest.mark.parametrize("groups", ["aabb", "aab", "abcde"])
    def test_refuses_few_groups(self, groups):
        with pytest.raises(EckartError, match="groups"):
            rank_correlation(np.arange(4.0), np.arange(4.0), groups)

    def test_refuses_values_without_an_order(self):
        with pytest.raises(EckartError, match="all alike"):
            rank_correlation(np.ones(6), np.arange(6.0), range(6))


class TestVerdict:
    def test_needs_the_p_value_and_the_interval(self, draw):
        gain = seed_and_row_mean(gains_of(draw, (5, 200), lost=0.0, fixed=0.3))
        loss = seed_and_row_mean(gains_of(draw, (5, 200), lost=0.3, fixed=0.0))
        unclear = seed_and_row_mean(gains_of(draw, (5, 200), lost=0.1, fixed=0.1))
        assert [verdict(e, 0.001) for e in (gain, loss, unclear)] == ["gain", "loss", "cannot tell"]
        assert verdict(gain, 0.06) == "cannot tell"


class TestDetectable:
    def test_an_estimate_tells_it_from_its_error(self, draw):
        estimate = seed_and_row_mean(gains_of(draw, (1, 1000)))
        assert estimate.detectable() == pytest.approx(2.80 * estimate.standard_error, rel=0.01)
