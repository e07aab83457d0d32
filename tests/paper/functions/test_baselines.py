"""The baselines: each equals scikit-learn's, or a plain loop, on every number of examples."""

import sys

import numpy as np
import pytest
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import Lasso, LinearRegression, Ridge
from sklearn.neighbors import KNeighborsRegressor
from sklearn.tree import DecisionTreeRegressor

from eckart.errors import TaskError
from eckart.paper.functions.baselines import BASELINES, USUAL, choose_baselines, predict
from eckart.paper.functions.classes import CLASSES, DEPTH, NOISE, Prompts, draw_prompts

D, POINTS = 4, 12


class Mean:
    """w = mean of y_i x_i, an example at a time."""

    def fit(self, x, y):
        self.w = np.zeros(x.shape[1])
        for point, value in zip(x, y, strict=True):
            self.w += value * point / len(x)
        return self

    def predict(self, x):
        return x @ self.w


PLAIN = {
    "least-squares": lambda k: LinearRegression(fit_intercept=False, tol=1e-14),
    "ridge": lambda k: Ridge(NOISE**2, fit_intercept=False),
    "lasso": lambda k: Lasso(0.01, fit_intercept=False),
    "tree": lambda k: DecisionTreeRegressor(max_depth=DEPTH, random_state=0),
    "3-nn": lambda k: KNeighborsRegressor(min(k, 3)),
    "averaging": lambda k: Mean(),
}


@pytest.fixture(scope="module")
def prompts() -> Prompts:
    return draw_prompts(CLASSES["noisy-linear"], torch.Generator().manual_seed(0), 8, POINTS, D)


def test_every_baseline_has_a_twin():
    assert set(PLAIN) == set(BASELINES)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("name", PLAIN)
def test_a_baseline_answers_as_its_twin(name, prompts):
    x, y = prompts.x.double().numpy(), prompts.y.double().numpy()
    for count in range(1, POINTS):
        twin = [
            PLAIN[name](count).fit(a[:count], b[:count]).predict(a[count : count + 1])[0]
            for a, b in zip(x, y, strict=True)
        ]
        answers = predict(BASELINES[name], prompts, count)
        assert answers.dtype == np.float64
        np.testing.assert_allclose(answers, twin, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("name", BASELINES)
def test_without_examples_every_baseline_says_0(name, prompts):
    assert (predict(BASELINES[name], prompts, 0) == 0).all()


@pytest.mark.parametrize("name", BASELINES)
def test_what_is_asked_for_and_what_follows_is_not_looked_at(name, prompts):
    later = Prompts(prompts.x.clone(), prompts.y.clone())
    later.y[:, 5:] += 9
    later.x[:, 6:] += 9
    before, after = (predict(BASELINES[name], each, 5) for each in (prompts, later))
    assert (before == after).all()


def test_least_squares_has_the_smallest_norm_and_is_exact_from_d_examples_on():
    made = draw_prompts(CLASSES["linear"], torch.Generator().manual_seed(0), 50, POINTS, D)
    for count in range(D, POINTS):
        # x is stored to 24 bits and y rounded to as many, which an ill-conditioned prompt makes
        # larger
        errors = np.abs(
            predict(BASELINES["least-squares"], made, count) - made.y[:, count].double().numpy()
        )
        assert np.median(errors) < 1e-5
    x, y = made.x[0, :2].double().numpy(), made.y[0, :2].double().numpy()
    smallest = x.T @ np.linalg.solve(x @ x.T, y)
    assert predict(BASELINES["least-squares"], made, 2)[0] == pytest.approx(
        made.x[0, 2].double().numpy() @ smallest
    )


def test_ridge_is_better_than_least_squares_on_noisy_functions_and_the_lasso_on_sparse_ones():
    def error(function: str, baseline: str, d: int, count: int) -> float:
        made = draw_prompts(CLASSES[function], torch.Generator().manual_seed(0), 200, count + 1, d)
        return float(
            np.square(predict(BASELINES[baseline], made, count) - made.y[:, count].numpy()).mean()
        )

    assert error("noisy-linear", "ridge", D, 6) < error("noisy-linear", "least-squares", D, 6)
    assert error("sparse-linear", "lasso", 20, 12) < 0.5 * error(
        "sparse-linear", "least-squares", 20, 12
    )


def test_a_lasso_that_does_not_settle_says_nothing(prompts, recwarn):
    predict(BASELINES["lasso"], prompts, POINTS - 1)
    assert not [w for w in recwarn if issubclass(w.category, ConvergenceWarning)]


def test_every_class_has_its_usual_baselines():
    assert set(USUAL) == set(CLASSES)
    assert [b.name for b in choose_baselines("sparse-linear")] == [
        "least-squares",
        "lasso",
        "3-nn",
        "averaging",
    ]
    assert "ridge" in USUAL["noisy-linear"]
    assert "tree" in USUAL["decision-tree"]
    assert all("averaging" in usual for usual in USUAL.values())
    assert [b.name for b in choose_baselines("linear", ["tree", "ridge", "tree"])] == [
        "tree",
        "ridge",
    ]
    assert choose_baselines("linear", []) == ()


def test_an_unknown_baseline_lists_those_there_are():
    with pytest.raises(
        TaskError, match="no baseline 'svm'; the baselines are least-squares, ridge, lasso"
    ):
        choose_baselines("linear", ["ridge", "svm"])


def test_without_scikit_learn_one_line_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.base", None)
    with pytest.raises(
        TaskError, match=r"'lasso' needs scikit-learn: pip install 'eckart\[functions\]'"
    ):
        choose_baselines("sparse-linear")
    assert choose_baselines("linear")[0].name == "least-squares"
