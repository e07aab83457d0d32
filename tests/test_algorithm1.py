"""Algorithm 1 as it is written, on executors whose answers are known."""

import math
from dataclasses import replace

import pytest
from samples import score, trial

from eckart.algorithm1 import score_test, search_rate
from eckart.errors import EditError, RunError
from eckart.records import Edit, select_layer
from eckart.weights.conditioning import MatrixSpectrum, check_rates, layer_condition_numbers


class Known:
    """Answers validation from a table of accuracies by rate, and counts looks at the test set."""

    def __init__(self, accuracies):
        self.accuracies = accuracies
        self.seen = []

    def key(self, edits, split):
        return "k"

    def __call__(self, edits, split):
        self.seen.append((split, tuple(edits)))
        accuracy = self.accuracies[edits[0].rate if edits else 0.0]
        if accuracy is None:
            return trial(split=split, score=None, status="failed", error="NaN")
        return trial(split=split, edits=tuple(edits), score=score(accuracy))


@pytest.mark.parametrize(
    ("accuracies", "best"),
    [
        ({0.0: 0.5, 0.5: 0.6, 0.9: 0.7}, 0.9),
        ({0.0: 0.5, 0.5: 0.7, 0.9: 0.6}, 0.5),
        ({0.0: 0.7, 0.5: 0.7, 0.9: 0.7}, 0.0),  # a tie goes to the smaller rate
        ({0.0: 0.5, 0.5: 0.7, 0.9: 0.7}, 0.5),
        ({0.0: 0.8, 0.5: 0.7, 0.9: 0.1}, 0.0),  # not to clip is an answer
        ({0.0: 0.0, 0.5: 0.0, 0.9: 0.0}, 0.0),
        ({0.0: 0.5, 0.5: 0.6, 0.9: 0.6000000000000001}, 0.5),  # a tie but for the rounding of a sum
        ({0.0: 0.5, 0.5: None, 0.9: 0.6}, 0.9),  # a failed candidate is passed over
    ],
)
def test_the_best_rate_on_validation(accuracies, best):
    executor = Known(accuracies)
    rate, trials = search_rate(executor, 3, "mlp", reversed(accuracies))
    assert rate == best
    assert executor.seen == [("validation", (Edit(3, "mlp", r),)) for r in sorted(accuracies)]
    assert [t.score and t.score.accuracy for t in trials] == [
        accuracies[r] for r in sorted(accuracies)
    ]


def test_another_metric_can_be_searched():
    class ByF1(Known):
        def __call__(self, edits, split):
            found = super().__call__(edits, split)
            return replace(found, score=replace(found.score, macro_f1=1 - found.score.accuracy))

    assert search_rate(ByF1({0.0: 0.9, 0.5: 0.2}), 0, "mlp", [0.0, 0.5], "macro_f1")[0] == 0.5


def test_an_unpruned_model_that_fails_ends_the_search():
    with pytest.raises(RunError, match="the unpruned model cannot be scored: NaN"):
        search_rate(Known({0.0: None, 0.5: 0.9}), 0, "mlp", [0.0, 0.5])


def test_the_test_set_is_looked_at_once_for_each_model():
    executor = Known({0.0: 0.5, 0.9: 0.6})
    baseline, clipped = score_test(executor, Edit(1, "attn", 0.9))
    assert executor.seen == [("test", ()), ("test", (Edit(1, "attn", 0.9),))]
    assert (baseline.score.accuracy, clipped.score.accuracy) == (0.5, 0.6)


def test_a_test_set_that_cannot_be_scored_is_an_error():
    with pytest.raises(RunError, match="the test set cannot be scored"):
        score_test(Known({0.0: 0.5, 0.9: None}), Edit(1, "attn", 0.9))


@pytest.mark.parametrize(("top_k", "layer"), [(1, 1), (2, 2), (3, 2), (4, 4), (5, 4), (99, 4)])
def test_the_deepest_of_the_k_worst_conditioned(top_k, layer):
    assert select_layer({0: 30.0, 1: 90.0, 2: 80.0, 3: 1.0, 4: 20.0}, top_k) == layer


def test_equal_condition_numbers_take_the_deeper_layer():
    assert select_layer({0: 5.0, 1: 5.0, 2: 5.0}, 1) == 2
    assert select_layer({0: math.inf, 1: 1e9, 2: 2.0}, 1) == 0


@pytest.mark.parametrize("top_k", [0, -1])
def test_no_layer_at_all(top_k):
    with pytest.raises(EditError, match="selects no layer"):
        select_layer({0: 1.0}, top_k)


def spectrum(layer: int, name: str, condition: float) -> MatrixSpectrum:
    return MatrixSpectrum(
        layer=layer,
        name=name,
        path=name,
        shape=(4, 4),
        sigma_max=condition,
        sigma_min=1.0,
        rank=3 if math.isinf(condition) else 4,
    )


@pytest.mark.parametrize(
    ("combine", "value"), [("geometric", 20.0), ("mean", 50.5), ("max", 100.0), ("min", 1.0)]
)
def test_how_matrices_combine(combine, value):
    middle = 20.0**3 / 100
    found = [
        spectrum(0, "up", 100.0),
        spectrum(0, "down", 1.0),
        spectrum(0, "gate", middle if combine == "geometric" else 50.5),
    ]
    assert layer_condition_numbers(found, combine) == pytest.approx({0: value})


def test_a_singular_matrix_makes_its_layer_the_worst():
    found = [
        spectrum(0, "up", math.inf),
        spectrum(0, "down", 1.0),
        spectrum(1, "up", 1e12),
        spectrum(1, "down", 1e12),
    ]
    assert layer_condition_numbers(found)[0] == math.inf
    assert MatrixSpectrum.from_json(found[0].to_json()) == found[0]
    assert found[0].to_json()["condition_number"] is None


def test_no_such_combination():
    with pytest.raises(EditError, match="the combinations are geometric, mean, max, min"):
        layer_condition_numbers([], "median")


def test_rates_are_sorted_single_and_hold_zero():
    assert check_rates([0.9, 0.5, 0.9]) == (0.0, 0.5, 0.9)
    with pytest.raises(EditError):
        check_rates([0.5, 1.0])
