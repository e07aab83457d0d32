"""Error curves: what is averaged, over what, and how sure it is."""

import json

import numpy as np
import pytest
import torch
from scipy.stats import ttest_1samp

from eckart.errors import NotANumberError, TaskError
from eckart.paper.functions.baselines import BASELINES, choose_baselines
from eckart.paper.functions.classes import CLASSES
from eckart.paper.functions.curves import error_curves, held_out, step_curves
from eckart.paper.functions.loading import load_function_model, training_models
from eckart.paper.functions.models import InContextModel
from eckart.paper.functions.training import Training
from eckart.statistics.paired import mean_interval


@pytest.fixture(scope="module")
def tiny(trained) -> InContextModel:
    return load_function_model(trained)


def test_an_error_is_a_plain_mean_over_prompts(tiny):
    on = held_out(tiny, "noisy-linear", prompts=7)
    curves = error_curves(tiny, on, choose_baselines("noisy-linear", ["ridge"]))
    x, y = on.prompts.x, on.prompts.y
    for count in range(5):
        squares = []
        for i in range(7):
            with torch.no_grad():
                answer = tiny(x[i : i + 1], y[i : i + 1], [count])[0, 0]
            squares.append((float(answer) - float(y[i, count])) ** 2 / 2)
        assert curves.model.means[count] == pytest.approx(np.mean(squares), rel=1e-5)
    assert (curves.n, curves.dimension, curves.counts) == (7, 2, (0, 1, 2, 3, 4))
    assert curves.baselines[0].means[0] == pytest.approx(
        float(y[:, 0].double().square().mean()) / 2
    )


def test_the_zero_estimator_is_near_1_for_every_class(tiny):
    for name, kind in CLASSES.items():
        on = held_out(tiny, name, prompts=4_000, points=1)
        curve = error_curves(tiny, on, [BASELINES["averaging"]]).baselines[0]
        level = 1 + kind.noise**2 / kind.variance(2)
        assert curve.lows[0] - 0.1 < level < curve.highs[0] + 0.1


def test_batches_change_nothing(tiny, monkeypatch):
    on = held_out(tiny, "linear", prompts=23)
    whole = on.of_model(tiny)
    monkeypatch.setattr("eckart.paper.functions.curves._BATCH", 5)
    np.testing.assert_allclose(on.of_model(tiny), whole, rtol=1e-4, atol=1e-7)


def test_the_interval_is_students():
    values = np.random.default_rng(0).exponential(size=(50, 3))
    mean, margin = mean_interval(values)
    for column in range(3):
        wanted = ttest_1samp(values[:, column], 0).confidence_interval(0.95)
        assert (mean - margin)[column] == pytest.approx(wanted.low)
        assert (mean + margin)[column] == pytest.approx(wanted.high)


def test_the_interval_holds_as_often_as_it_says():
    dice = np.random.default_rng(1)
    means, margins = mean_interval(dice.standard_normal((200, 4_000)) ** 2)
    assert 0.93 < (np.abs(means - 1) < margins).mean() < 0.965


def test_the_excess_is_paired(tiny):
    on = held_out(tiny, "linear", prompts=200)
    curves = error_curves(tiny, on, choose_baselines("linear", ["least-squares"]))
    own, reference = on.of_model(tiny), on.of_baseline(BASELINES["least-squares"])
    mean, margin = mean_interval(own - reference)
    np.testing.assert_allclose(curves.excess.means, mean)
    np.testing.assert_allclose(curves.excess.lows, mean - margin)
    np.testing.assert_allclose(
        np.subtract(curves.model.means, curves.baselines[0].means), curves.excess.means, atol=1e-12
    )
    unpaired = np.subtract(curves.model.highs, curves.model.means)[1]
    assert np.subtract(curves.excess.highs, curves.excess.means)[0] < 0.5 * unpaired


def test_errors_are_not_negative_and_an_excess_may_be(tiny):
    on = held_out(tiny, "noisy-linear", prompts=300)
    curves = error_curves(tiny, on, choose_baselines("noisy-linear"))
    assert all(low >= 0 for curve in (curves.model, *curves.baselines) for low in curve.lows)
    assert curves.reference == "ridge"
    assert error_curves(tiny, held_out(tiny, "decision-tree", prompts=9)).reference == "3-nn"
    of_networks = error_curves(tiny, held_out(tiny, "relu-network", prompts=300))
    assert of_networks.reference == "least-squares"
    assert of_networks.excess.lows[2] < 0


def test_prompts_are_the_seeds_and_not_the_trainings(tiny):
    first, again, other = (held_out(tiny, "linear", prompts=20, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first.prompts.x, again.prompts.x)
    assert not torch.equal(first.prompts.x, other.prompts.x)
    training = Training(dimension=2, batch=20)
    assert all(not torch.equal(first.prompts.x, training.prompts(step).x) for step in range(20))


def test_curves_by_steps(trained, tiny):
    on = held_out(tiny, "linear", prompts=50)
    models = ((step, load_function_model(path)) for step, path in training_models(trained).items())
    done = []
    found = step_curves(models, on, advance=done.append)
    assert found.steps == (0, 5, 20)
    assert [model.name for model in found.models] == ["0 steps", "5 steps", "20 steps"]
    assert found.models[-1].means == error_curves(tiny, on).model.means
    assert found.models[0].means != found.models[-1].means
    assert found.reference == error_curves(tiny, on, [BASELINES["least-squares"]]).baselines[0]
    assert done == [1, 1, 1]
    assert json.loads(json.dumps(found.to_json()))["steps"] == [0, 5, 20]


def test_a_model_that_came_apart_is_refused(trained):
    broken = load_function_model(trained)
    with torch.no_grad():
        broken.read_out.weight[:] = float("nan")
    with pytest.raises(NotANumberError, match="predicts what is not a number after 0 examples"):
        error_curves(broken, held_out(broken, "linear", prompts=5))


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"prompts": 1}, "1 prompts have no interval"),
        ({"points": 6}, "prompts of 1 to 5 points, not 6"),
        ({"points": 0}, "not 0"),
        ({"function": "cubic"}, "no function class 'cubic'"),
        ({"seed": -1}, "seed -1"),
    ],
)
def test_numbers_out_of_range_are_refused(tiny, wrong, words):
    with pytest.raises(TaskError, match=words):
        held_out(tiny, **{"function": "linear", **wrong})
