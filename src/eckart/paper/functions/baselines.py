"""The estimators of Garg et al. (2022), by name: what a model that learns from examples is held
against."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from eckart.errors import TaskError, how_to_install
from eckart.paper.functions.classes import DEPTH, NOISE, Prompts, find_class

PENALTY = 0.01
"""The Lasso's: the best of those that Garg et al. try (Section 4)."""
NEIGHBOURS = 3

Points = Float[np.ndarray, "prompts k d"]
Values = Float[np.ndarray, "prompts k"]
Asked = Float[np.ndarray, "prompts d"]
Answers = Float[np.ndarray, " prompts"]


@dataclass(frozen=True)
class Baseline:
    """An estimator that predicts the values of points that are asked for from the points and values
    of k >= 1 examples; from none, every one says 0."""

    name: str
    predict: Callable[[Points, Values, Asked], Answers]
    needs_sklearn: bool = False


def least_squares(x: Points, y: Values, asked: Asked) -> Answers:
    """Predict by the least-squares weights of the smallest norm (Garg et al., Section 3)."""
    weights = np.linalg.pinv(x, rcond=max(x.shape[1:]) * np.finfo(np.float64).eps) @ y[..., None]
    return np.einsum("pd,pd->p", weights[..., 0], asked)


def ridge(x: Points, y: Values, asked: Asked, penalty: float = NOISE**2) -> Answers:
    """Predict by the weights with the least squared error plus penalty |w|^2 (Garg et al., Appendix
    B).

    For w from N(0, I) and noise of variance `penalty` they are the mean of w given the examples: no
    estimator has a smaller squared error on average.
    """
    xt = x.transpose(0, 2, 1)
    weights = np.linalg.solve(xt @ x + penalty * np.eye(x.shape[2]), xt @ y[..., None])
    return np.einsum("pd,pd->p", weights[..., 0], asked)


def averaging(x: Points, y: Values, asked: Asked) -> Answers:
    """Predict by the weights w = mean of y_i x_i (Garg et al., Section 3): one step of gradient
    descent from 0."""
    return np.einsum("pk,pkd,pd->p", y, x, asked) / x.shape[1]


def nearest_neighbours(x: Points, y: Values, asked: Asked) -> Answers:
    """Predict the mean value of the 3 nearest points (Garg et al., Section 3), of all where there
    are fewer."""
    order = np.square(x - asked[:, None]).sum(axis=2).argsort(axis=1, kind="stable")
    return np.take_along_axis(y, order[:, :NEIGHBOURS], axis=1).mean(axis=1)


def lasso(x: Points, y: Values, asked: Asked) -> Answers:
    """Predict by the Lasso: the least |y - x w|^2 / 2k + penalty |w|_1 (Garg et al., Section 4)."""
    linear_model = _sklearn("lasso", "linear_model")
    return _fitted(linear_model.Lasso(PENALTY, fit_intercept=False), x, y, asked)


def tree(x: Points, y: Values, asked: Asked) -> Answers:
    """Predict by a regression tree that is grown greedily (Garg et al., Section 4), as deep as the
    class's own."""
    trees = _sklearn("tree", "tree")
    return _fitted(trees.DecisionTreeRegressor(max_depth=DEPTH, random_state=0), x, y, asked)


BASELINES = {
    baseline.name: baseline
    for baseline in (
        Baseline("least-squares", least_squares),
        Baseline("ridge", ridge),
        Baseline("lasso", lasso, needs_sklearn=True),
        Baseline("tree", tree, needs_sklearn=True),
        Baseline("3-nn", nearest_neighbours),
        Baseline("averaging", averaging),
    )
}
"""Every baseline by its name."""

USUAL = {
    "linear": ("least-squares", "3-nn", "averaging"),
    "sparse-linear": ("least-squares", "lasso", "3-nn", "averaging"),
    "noisy-linear": ("least-squares", "ridge", "3-nn", "averaging"),
    "decision-tree": ("tree", "3-nn", "averaging"),
    "relu-network": ("least-squares", "3-nn", "averaging"),
}
"""The baselines of each class of functions, if nobody asks for others."""
REFERENCES = {"noisy-linear": "ridge", "decision-tree": "3-nn"}
"""What a model's excess is over where least squares is a poor guess: it fits the noise, and lines
to trees."""


def reference(function: str) -> Baseline:
    """Return the baseline that a model's excess on a class of functions is over."""
    return BASELINES[REFERENCES.get(find_class(function).name, "least-squares")]


def choose_baselines(function: str, names: Collection[str] | None = None) -> tuple[Baseline, ...]:
    """Return baselines by their names, or those that are usual for a class of functions; a
    TaskError where there is no such class or baseline, or scikit-learn is needed and not
    installed."""
    usual = USUAL[find_class(function).name]
    asked = dict.fromkeys(usual if names is None else names)
    for name in asked:
        if name not in BASELINES:
            raise TaskError(f"no baseline '{name}'; the baselines are {', '.join(BASELINES)}")
    chosen = tuple(BASELINES[name] for name in asked)
    for baseline in chosen:
        if baseline.needs_sklearn:
            _sklearn(baseline.name, "base")
    return chosen


def predict(baseline: Baseline, prompts: Prompts, count: int) -> Answers:
    """Predict the value of point `count` (from 0) of every prompt from the examples before it, in
    float64."""
    x, y = prompts.x.double().numpy(), prompts.y.double().numpy()
    if count == 0:
        return np.zeros(len(x))
    return baseline.predict(x[:, :count], y[:, :count], x[:, count])


def _fitted(estimator: Any, x: Points, y: Values, asked: Asked) -> Answers:
    """Fit one of scikit-learn's estimators to each prompt, and let it answer."""
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        # The last of 1,000 rounds is near enough.
        warnings.simplefilter("ignore", ConvergenceWarning)
        answers = [
            estimator.fit(a, b).predict(c[None])[0] for a, b, c in zip(x, y, asked, strict=True)
        ]
    return np.asarray(answers, dtype=np.float64)


def _sklearn(baseline: str, module: str) -> Any:
    try:
        return importlib.import_module(f"sklearn.{module}")
    except ImportError:
        raise TaskError(
            f"baseline '{baseline}' needs scikit-learn: {how_to_install('functions')}, or choose"
            " other --baselines"
        ) from None
