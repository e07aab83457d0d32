"""What every outcome promises, on labels and on numbers."""

import json
from dataclasses import asdict

import numpy as np
import pytest
from made_runs import score

from eckart.errors import EckartError, EditError
from eckart.scoring import methods
from eckart.statistics.crossed import seed_and_row_mean
from eckart.statistics.paired import compare, outcome_interval
from eckart.statistics.scores import ALL_METRICS, Outcome, Score, SquaredErrors, read_outcome, shown


def labels(draw: int) -> Score:
    rng = np.random.default_rng(draw)
    return score(rng.integers(2, size=40), rng.integers(2, size=40))


def numbers(draw: int) -> SquaredErrors:
    errors = np.random.default_rng(draw).exponential(size=40)
    return SquaredErrors(len(errors), float(errors.mean()), tuple(errors.tolist()))


KINDS = pytest.mark.parametrize("made", [labels, numbers])


@KINDS
def test_it_is_the_same_after_json(made):
    outcome = made(0)
    assert read_outcome(json.loads(json.dumps(asdict(outcome)))) == outcome


@KINDS
def test_the_headline_is_the_mean_of_what_the_rows_are_worth(made):
    outcome = made(0)
    assert len(outcome.row_merits) == outcome.n
    assert np.mean(outcome.row_merits) == pytest.approx(outcome.merits[outcome.headline])
    assert set(outcome.merits) <= set(ALL_METRICS)


@KINDS
def test_what_is_shown_is_the_field_of_that_name(made):
    outcome = made(0)
    for metric, merit in outcome.merits.items():
        assert shown(metric, merit) == getattr(outcome, metric)


@pytest.mark.parametrize("metric", ["accuracy", "log_loss"])
def test_a_metric_is_the_mean_of_its_rows_values(metric):
    rng = np.random.default_rng(0)
    found = methods.score(
        rng.normal(-300, 30, (40, 3)), rng.integers(3, size=40).tolist(), [""] * 40
    )
    assert np.mean(found.row_values(metric)) == pytest.approx(found.merits[metric])
    assert shown(metric, found.merits[metric]) == getattr(found, metric) > 0


def test_a_metric_that_is_no_mean_has_no_rows_values():
    with pytest.raises(EditError, match=r"macro f1 is no mean over rows.*accuracy or log_loss"):
        labels(0).row_values("macro_f1")


@KINDS
def test_the_bounds_hold_every_row(made):
    outcome = made(0)
    low, high = outcome.bounds or (-np.inf, 0.0)
    assert all(low <= merit <= high for merit in outcome.row_merits)


@KINDS
def test_a_summary_is_plain_and_leaves_out_the_rows(made):
    outcome = made(0)
    summary = outcome.summary()
    assert {"n", outcome.headline, *outcome.others} <= summary.keys()
    assert len(json.dumps(summary)) < 400


@KINDS
def test_a_gain_is_larger_merits_after(made):
    """Means, signs and counts of a comparison are those of the rows' merits."""
    before, after = made(0), made(1)
    gains = np.subtract(after.row_merits, before.row_merits)
    paired = compare(before, after)
    assert paired.difference == pytest.approx(gains.mean())
    assert paired.interval[0] < paired.difference < paired.interval[1]
    assert (paired.fixed, paired.broken) == ((gains > 0).sum(), (gains < 0).sum())
    assert compare(after, before).difference == pytest.approx(-paired.difference)
    assert compare(before, before).p_value == 1.0


@KINDS
def test_the_interval_holds_the_headline(made):
    outcome = made(0)
    low, high = outcome_interval(outcome)
    assert low < getattr(outcome, outcome.headline) < high


def test_numbers_under_one_seed_are_told_alike_by_both_tests():
    """The paired t test is the crossed model's with one seed."""
    before, after = numbers(0), numbers(1)
    paired = compare(before, after)
    crossed = seed_and_row_mean(np.subtract(after.row_merits, before.row_merits)[None], bounds=None)
    assert paired.p_value == pytest.approx(crossed.p_value)
    assert paired.interval == pytest.approx(crossed.interval)


def test_labels_and_numbers_are_never_compared():
    pairs: list[tuple[Outcome, Outcome]] = [(labels(0), numbers(0)), (numbers(0), labels(0))]
    for before, after in pairs:
        with pytest.raises(EckartError, match="labels and numbers cannot be compared"):
            compare(before, after)
