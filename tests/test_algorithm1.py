"""Algorithm 1 as it is written, on scores that are known."""

import math
from dataclasses import replace

import pytest
from samples import score, trial

from eckart.algorithm1 import (
    algorithm1,
    candidate,
    control_arms,
    rate_of,
    score_test,
    search_all,
    worst_layer,
)
from eckart.errors import EditError, RunError
from eckart.records import Edit, check_rates
from eckart.weights.conditioning import MatrixSpectrum, layer_condition_numbers


class Known:
    """Answers validation from a table of accuracies by rate, and notes what it was asked."""

    def __init__(self, accuracies):
        self.accuracies = accuracies
        self.asked = []

    def __call__(self, candidates, split):
        self.asked.append((split, candidates))
        for edits in reversed(candidates):  # the order is the scorer's own
            accuracy = self.accuracies[rate_of(edits)]
            if accuracy is None:
                yield trial(split=split, edits=edits, score=None, status="failed", error="NaN")
            else:
                yield trial(split=split, edits=edits, score=score(accuracy))


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
    known, rates = Known(accuracies), sorted(accuracies)
    searched = search_all(known, 3, "mlp", list(reversed(rates)), "accuracy")
    assert searched.best == best
    assert known.asked == [("validation", [candidate(3, "mlp", rate) for rate in rates])]
    found = {rate: t.score and t.score.accuracy for rate, t in searched.trials.items()}
    assert list(found.items()) == [(rate, accuracies[rate]) for rate in rates]


def test_another_metric_can_be_searched():
    def by_f1(candidates, split):
        for found in Known({0.0: 0.9, 0.5: 0.2})(candidates, split):
            yield replace(found, score=replace(found.score, macro_f1=1 - found.score.accuracy))

    assert search_all(by_f1, 0, "mlp", [0.0, 0.5], "macro_f1").best == 0.5


def test_of_log_losses_the_smallest_is_best():
    def by_loss(candidates, split):
        for edits in candidates:
            loss = 0.4 if edits else 0.6
            yield trial(edits=edits, split=split, score=replace(score(), log_loss=loss))

    assert search_all(by_loss, 0, "mlp", [0.0, 0.5], "log_loss").best == 0.5


def test_an_unpruned_model_that_fails_ends_the_search():
    with pytest.raises(RunError, match="the unpruned model cannot be scored: NaN"):
        search_all(Known({0.0: None, 0.5: 0.9}), 0, "mlp", [0.0, 0.5], "accuracy")


def test_nothing_more_is_scored_once_the_unpruned_model_failed():
    scored = []

    def one_by_one(candidates, split):
        for edits in candidates:
            scored.append(edits)
            failed = {"score": None, "status": "failed", "error": "NaN"}
            yield trial(split=split, edits=edits, **({} if edits else failed))

    with pytest.raises(RunError, match="the unpruned model cannot be scored: NaN"):
        search_all(one_by_one, 0, "mlp", [0.0, 0.5, 0.9], "accuracy")
    assert scored == [()]


def test_the_test_set_is_looked_at_once_for_each_model():
    known, choice = Known({0.0: 0.5, 0.9: 0.6}), (Edit(1, "attn", 0.9),)
    unpruned, clipped = score_test(known, choice)
    assert known.asked == [("test", [(), choice])]
    assert (unpruned.score.accuracy, clipped.score.accuracy) == (0.5, 0.6)


def test_where_nothing_is_clipped_the_test_set_is_looked_at_once():
    known = Known({0.0: 0.5})
    unpruned, clipped = score_test(known, ())
    assert known.asked == [("test", [()])]
    assert unpruned is clipped


def test_a_test_set_that_cannot_be_scored_is_an_error():
    with pytest.raises(RunError, match="the test set cannot be scored"):
        score_test(Known({0.0: 0.5, 0.9: None}), (Edit(1, "attn", 0.9),))


def test_the_whole_algorithm():
    known = Known({0.0: 0.5, 0.5: 0.4, 0.9: 0.6})
    found = algorithm1(known, {0: 90.0, 1: 40.0, 2: 5.0}, "mlp", [0.0, 0.5, 0.9], top_k=2)
    assert (found.layer, found.rates.best) == (1, 0.9)
    assert (found.unpruned.score.accuracy, found.clipped.score.accuracy) == (0.5, 0.6)
    assert [split for split, _ in known.asked] == ["validation", "test"]


def arms_of(choice):
    return control_arms(choice, droppable=True)


def test_control_arms_are_scored_in_the_one_look_at_the_test_set():
    known = Known({0.0: 0.5, 0.9: 0.6, 1.0: 0.3})
    found = algorithm1(known, {1: 40.0}, "mlp", [0.0, 0.9], arms=arms_of)
    arms = ("0.9:random", "0.9:random1", "0.9:random2", "0.9:largest", "drop")
    asked = ["1:mlp:0.9", *(f"1:mlp:{arm}" for arm in arms)]
    split, candidates = known.asked[-1]
    assert (split, len(known.asked)) == ("test", 2)
    assert candidates == [(), *((Edit.parse(text),) for text in asked)]
    assert [str(trial.edits[0]) for trial in (found.clipped, *found.controls)] == asked


def test_an_arm_may_fail_and_the_choice_may_not():
    known = Known({0.0: 0.5, 0.9: 0.6, 1.0: None})
    found = algorithm1(known, {1: 40.0}, "mlp", [0.0, 0.9], arms=arms_of)
    assert [trial.status for trial in found.controls] == ["done"] * 4 + ["failed"]


def test_where_nothing_is_clipped_there_are_no_arms():
    known = Known({0.0: 0.5, 0.9: 0.4})
    assert algorithm1(known, {1: 40.0}, "mlp", [0.0, 0.9], arms=arms_of).controls == ()
    assert known.asked[-1] == ("test", [()])


def test_what_cannot_be_dropped_has_one_arm_less():
    cuts = ["random", "random1", "random2", "largest"]
    for choice, droppable in ((Edit(1, "q", 0.5), True), (Edit(1, "mlp", 0.5), False)):
        assert [arm.cut for arm in control_arms(choice, droppable)] == cuts


@pytest.mark.parametrize(("top_k", "layer"), [(1, 1), (2, 2), (3, 2), (4, 4), (5, 4), (99, 4)])
def test_the_deepest_of_the_k_worst_conditioned(top_k, layer):
    assert worst_layer({0: 30.0, 1: 90.0, 2: 80.0, 3: 1.0, 4: 20.0}, top_k) == layer


def test_equal_condition_numbers_take_the_deeper_layer():
    assert worst_layer({0: 5.0, 1: 5.0, 2: 5.0}, 1) == 2
    assert worst_layer({0: math.inf, 1: 1e9, 2: 2.0}, 1) == 0


@pytest.mark.parametrize("top_k", [0, -1])
def test_no_layer_at_all(top_k):
    with pytest.raises(EditError, match="selects no layer"):
        worst_layer({0: 1.0}, top_k)


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
