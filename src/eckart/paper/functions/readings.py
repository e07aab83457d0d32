"""A trained linear-attention model's implicit gradient descent (Theorem 1), its bound (Theorem 2),
and its error.

A model of `LinearAttentionModel` is Eq. (3) and nothing else, so W_L is what it learns from a
prompt's examples: its answer at a point x is the last row of W_L times x. Three things can be set
beside each other on the same prompts: the trajectory's norms, the bound on the generalisation
error, and the generalisation error.

What stands for what in Theorem 2:

- The sample is a prompt's N examples, and the hypothesis the W_L that they lead to. The training
  loss is that of W_L on the examples themselves, each asked with its value masked; the test loss
  that on fresh points of the same function. The error of the theorem is the mean of test less
  training loss over functions and examples.
- The loss is min(1, squared error / variance), which is 1/2-sub-Gaussian whatever the prompt
  (Hoeffding's lemma). The squared error itself is not sub-Gaussian for any R: it is a polynomial of
  Gaussian points, and its degree triples with each layer. It is reported beside.
- The steps are noisy in the theorem, and exact in the model: `layer_term` says what noise is meant,
  and a stated floor is part of it. The bound is on a descent with that noise; the model's own W_L
  tells all of its examples. So the noisy descent can be read as well (`read` with a seed): its
  bound and its error are of one and the same thing.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from eckart.errors import ModelError, TaskError
from eckart.paper.functions.classes import Prompts, draw_prompts, find_class, held_out_generator
from eckart.paper.functions.loading import load_function_model
from eckart.paper.functions.models import LinearAttentionModel, tokens
from eckart.paper.theory.attention import Trajectory, trajectory
from eckart.paper.theory.bound import (
    LayerTerm,
    generalization_bound,
    noisy_trajectory,
    trajectory_terms,
)
from eckart.statistics.crossed import Estimate, seed_and_row_mean

SUBGAUSSIAN = 0.5
"""R of a loss in [0, 1]."""

ByPrompt = Float[np.ndarray, " prompts"]
ByLayer = Float[np.ndarray, " layers"]


def load_linear(folder: str | Path) -> LinearAttentionModel:
    """Load a linear-attention model; see `load_function_model`. A ModelError for any other kind."""
    model = load_function_model(folder)
    if not isinstance(model, LinearAttentionModel):
        raise ModelError(
            f"model '{folder}' is of type '{model.config.model_type}': Theorem 1 is exact for"
            " linear attention alone; train one with --architecture linear"
        )
    return model


@dataclass(frozen=True, eq=False)
class Cases:
    """Functions, N examples of each, and after them fresh points to ask for; squared errors are
    divided by the variance of their class, so that always answering 0 has the error 1."""

    prompts: Prompts
    examples: int
    variance: float

    @property
    def demonstrations(self) -> Float[np.ndarray, "prompts width examples"]:
        """H_s of every prompt: a token (x_i, y_i) a column."""
        pairs = torch.cat([self.prompts.x, self.prompts.y[..., None]], dim=2)[:, : self.examples]
        return pairs.mT.double().numpy()


def draw_cases(function: str, dimension: int, examples: int, prompts: int, seed: int = 0) -> Cases:
    """Draw functions of a class, `prompts` of them, with N = `examples` and as many fresh points
    each; a TaskError where there is no such class, or fewer than two examples or prompts."""
    if examples < 2 or prompts < 2:
        raise TaskError(
            f"{examples} examples and {prompts} prompts: a covariance and a mean need 2 of each"
        )
    kind = find_class(function)
    drawn = draw_prompts(kind, held_out_generator(seed), prompts, 2 * examples, dimension)
    return Cases(drawn, examples, kind.variance(dimension))


@dataclass(frozen=True)
class Noise:
    """The noise of Theorem 2: b of Section 3.3, from 1 to N, and the variance in every direction
    beside C_t's, the floor; a TaskError where that is not above 0, or the bound would be
    infinite."""

    shots: int = 5
    floor: float = 1e-4

    def __post_init__(self) -> None:
        if not 0 < self.floor < math.inf:
            raise TaskError(
                f"floor {self.floor:g}: C_t is never of full rank, so the bound is infinite; give a"
                " number above 0"
            )


NOISE = Noise()
"""What is meant where nothing else is said."""


def follow(
    model: LinearAttentionModel, cases: Cases, noise: Noise = NOISE, seed: int | None = None
) -> Trajectory:
    """Return Theorem 1's trajectory of a model for every prompt, in float64.

    Arguments:
        model: as it is now, clipped or not.
        cases: the prompts; their demonstrations alone are used.
        noise, seed: what the seed draws into every step, which makes the descent the one that the
            bound is on; None for the model's own, exact one.

    Raises:
        ModelError: the points have another dimension, or the examples are more than the model
            reads.
        EckartError: shots are out of range, a weight is not a number, or the trajectory overflows.
    """
    demonstrations = cases.demonstrations
    if cases.examples >= model.points:
        raise ModelError(
            f"the model reads {model.points - 1} examples and the point after them, and these are"
            f" {cases.examples}; give no more than it was trained to read"
        )
    if demonstrations.shape[1] != model.config.hidden_size:
        raise ModelError(
            f"the model's points have {model.config.dimension} coordinates, and these "
            f"{demonstrations.shape[1] - 1}; draw prompts of its own dimension"
        )
    # nn.Linear holds its weights as (out, in), as the paper writes them.
    of_layers = [
        torch.stack([getattr(block, name).weight.detach().double().cpu() for block in model.layers])
        for name in ("v_proj", "k_proj", "q_proj")
    ]
    v, k, q = (np.broadcast_to(w.numpy(), (len(demonstrations), *w.shape)) for w in of_layers)
    if seed is None:
        return trajectory(demonstrations, v, k, q)
    return noisy_trajectory(demonstrations, v, k, q, noise.shots, noise.floor, seed)


@torch.no_grad()
def residual(model: LinearAttentionModel, cases: Cases) -> float:
    """Return by how much h^t = h^0 + W_t h^0 (Theorem 1) fails against the model itself: the
    largest share of a token.

    After every block, every token is compared with the block's own output: the asked one, and each
    demonstration. What W_L makes of the asked token is compared with the answer of the model's own
    forward as well. Differences are relative to the one token that they are of, so that no small
    token hides behind a large one. The model runs in float64, on a copy.
    """
    weights = torch.from_numpy(follow(model, cases).weights)
    double = copy.deepcopy(model).double()
    x, y = cases.prompts.x.double(), cases.prompts.y.double()
    first = h = tokens(x, y, cases.examples)
    worst = 0.0
    for t, block in enumerate(double.layers, start=1):
        h = block(h)
        worst = max(worst, _difference(first + first @ weights[:, t].mT, h))
    asked = (first + first @ weights[:, -1].mT)[:, -1:]
    answers = double(x, y, [cases.examples])
    return max(worst, _difference(asked, torch.cat([h[:, -1:, :-1], answers[..., None]], dim=2)))


def _difference(one: Float[Tensor, "prompts n w"], other: Float[Tensor, "prompts n w"]) -> float:
    """Return the largest difference of two tokens, as a share of the second's length."""
    return float(((one - other).norm(dim=2) / other.norm(dim=2)).max())


@dataclass(frozen=True, eq=False)
class TrajectoryReading:
    """What a model does on prompts, beside what the theory says of it.

    Arguments:
        updates, steps, weights: |Delta W_t|, |G_t| and |W_t| for t = 1 to L, medians over prompts.
        terms: Theorem 2's, over prompts (`LayerTerm.expected`), one for each layer.
        examples: N.
        tested: a prompt's mean squared error / variance on its fresh points.
        trained_loss, tested_loss: its mean of min(1, squared error / variance) on its examples, and
            on fresh points.
    """

    updates: ByLayer
    steps: ByLayer
    weights: ByLayer
    terms: list[LayerTerm]
    examples: int
    tested: ByPrompt
    trained_loss: ByPrompt
    tested_loss: ByPrompt

    @property
    def norm_terms(self) -> ByLayer:
        """The first half of each layer's term, nats."""
        return np.array([term.norm_term for term in self.terms])

    @property
    def log_determinants(self) -> ByLayer:
        """What each layer's term subtracts from its first half, nats."""
        return np.array([term.log_determinant for term in self.terms])

    @cached_property
    def bound(self) -> float:
        """Theorem 2's for the loss in [0, 1]."""
        return float(generalization_bound(self.terms, self.examples, SUBGAUSSIAN))

    @property
    def error(self) -> float:
        """The mean squared error / variance on fresh points; a rare prompt can be most of it."""
        return float(self.tested.mean())

    @cached_property
    def loss(self) -> Estimate:
        """The mean loss in [0, 1] on fresh points."""
        return seed_and_row_mean(self.tested_loss[None], bounds=(0.0, 1.0))

    @cached_property
    def gap(self) -> Estimate:
        """The generalisation error: the loss on fresh points less that on the examples."""
        return seed_and_row_mean((self.tested_loss - self.trained_loss)[None])

    def to_json(self) -> dict[str, Any]:
        by_layer = ("updates", "steps", "weights", "norm_terms", "log_determinants")
        return {
            **{name: getattr(self, name).tolist() for name in by_layer},
            "bound": self.bound,
            "error": self.error,
            "median_error": float(np.median(self.tested)),
            "largest_error": float(self.tested.max()),
            "training_loss": float(self.trained_loss.mean()),
            "loss": {"mean": self.loss.mean, "interval": list(self.loss.interval)},
            "gap": {"mean": self.gap.mean, "interval": list(self.gap.interval)},
        }


def read(
    model: LinearAttentionModel, cases: Cases, noise: Noise = NOISE, seed: int | None = None
) -> TrajectoryReading:
    """Return a model's trajectory, bound and error on prompts; arguments and errors are those of
    `follow`."""
    path = follow(model, cases, noise, seed)
    # W_L's answer at every point, asked as (x, 0) after the same demonstrations.
    x, y = cases.prompts.x.double().numpy(), cases.prompts.y.double().numpy()
    answers = (x @ path.weights[:, -1, -1, :-1, None])[..., 0]
    errors = np.square(answers - y) / cases.variance
    losses = np.minimum(errors, 1.0)
    n = cases.examples
    return TrajectoryReading(
        updates=_norms(path.updates),
        steps=_norms(path.steps),
        weights=_norms(path.weights[..., 1:, :, :]),
        terms=[term.expected() for term in trajectory_terms(path, noise.shots, noise.floor)],
        examples=n,
        tested=errors[:, n:].mean(axis=1),
        trained_loss=losses[:, :n].mean(axis=1),
        tested_loss=losses[:, n:].mean(axis=1),
    )


def _norms(matrices: Float[np.ndarray, "prompts layers d d"]) -> ByLayer:
    return np.median(np.linalg.norm(matrices, axis=(-1, -2)), axis=0)
