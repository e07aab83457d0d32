"""A statement of the paper as something that can be computed, and the random instances that it is
computed on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Float

from eckart.paper.theory.attention import Trajectory, implicit_update, trajectory, update_terms
from eckart.paper.theory.bound import LayerTerm, demonstration_gram, layer_term

Matrices = Float[np.ndarray, "batch _ _"]
Residuals = Float[np.ndarray, " batch"]
F = TypeVar("F", bound=Callable[..., Any])

LAYERS = 3


@dataclass(frozen=True, eq=False)
class Instances:
    """Random stacks of linear attention blocks with their demonstrations, all of one size.

    Arguments:
        h: the tokens, the test token last.
        w_v, w_k, w_q: the projections; k = d + 1.
        w_in, w_out: an MLP; p = 2 d.
        shots: b, at least 1 and below N.
        floor: the variance that Theorem 2's noise is given in every direction.
        scale: numbers in (0, 1).
        law: a distribution of three tokens.
        learner: for each sample of two such tokens a distribution of three hypotheses.
        loss: in (0, 1), of each hypothesis on each token.
    """

    h: Float[np.ndarray, "batch d tokens"]
    w_v: Float[np.ndarray, "batch layers d d"]
    w_k: Float[np.ndarray, "batch layers k d"]
    w_q: Float[np.ndarray, "batch layers k d"]
    w_in: Float[np.ndarray, "batch p d"]
    w_out: Float[np.ndarray, "batch d p"]
    shots: int
    floor: float
    scale: Float[np.ndarray, " batch"]
    law: Float[np.ndarray, "batch 3"]
    learner: Float[np.ndarray, "batch 9 3"]
    loss: Float[np.ndarray, "batch 3 3"]

    @classmethod
    def draw(cls, random: np.random.Generator, batch: int, d: int, n: int) -> Instances:
        """Draw Gaussian instances in which every matrix, and that of the tokens, has norm 1: no
        layer explodes."""

        def unit(*shape: int) -> np.ndarray:
            matrices = random.standard_normal((batch, *shape))
            return matrices / np.linalg.norm(matrices, 2, axis=(-2, -1), keepdims=True)

        return cls(
            h=unit(d, n + 1),
            w_v=unit(LAYERS, d, d),
            w_k=unit(LAYERS, d + 1, d),
            w_q=unit(LAYERS, d + 1, d),
            w_in=unit(2 * d, d),
            w_out=unit(d, 2 * d),
            shots=max(1, n // 2),
            floor=10.0 ** random.uniform(-4, 0),
            scale=random.uniform(0, 1, batch),
            law=random.dirichlet(np.ones(3), batch),
            learner=random.dirichlet(np.full(3, 0.3), (batch, 9)),
            loss=random.uniform(0, 1, (batch, 3, 3)),
        )

    @property
    def demonstrations(self) -> Matrices:
        """H_s."""
        return self.h[..., :-1]

    @property
    def test(self) -> Matrices:
        """h_(N+1), as a matrix of one column."""
        return self.h[..., -1:]

    @property
    def update(self) -> Matrices:
        """Delta W_icl of the first layer."""
        return implicit_update(*self.lemma)

    @property
    def first(self) -> tuple[Matrices, Matrices, Matrices]:
        """W_V, W_K and W_Q of the first layer."""
        return self.w_v[:, 0], self.w_k[:, 0], self.w_q[:, 0]

    @property
    def lemma(self) -> tuple[Matrices, Matrices, Matrices]:
        """Values, keys and W_Q, as Lemma 1 takes them."""
        w_v, w_k, w_q = self.first
        return w_v @ self.demonstrations, w_k @ self.demonstrations, w_q

    @cached_property
    def path(self) -> Trajectory:
        """The implicit gradient descent of all layers."""
        return trajectory(self.demonstrations, self.w_v, self.w_k, self.w_q)

    @cached_property
    def gram(self) -> Matrices:
        """The Gram matrix of the first layer's demonstrations; its sum is |G_1|^2."""
        return demonstration_gram(self.path.values[:, 0], self.path.inputs[:, 0])

    @cached_property
    def term(self) -> LayerTerm:
        """The first layer's part of Theorem 2, with |G_1|^2."""
        squared = self.gram.sum(axis=(1, 2))
        return layer_term(self.gram, squared, self.shots, self.gradients.shape[1], self.floor)

    @cached_property
    def gradients(self) -> Matrices:
        """grad_i = N g_i of the first layer, flattened to columns: (batch, d * d, N)."""
        terms = update_terms(*self.lemma)
        return np.moveaxis(terms.reshape(*terms.shape[:2], -1), 1, 2) * terms.shape[1]


def difference(found: np.ndarray, expected: np.ndarray) -> Residuals:
    """Return |found - expected| of every instance, relative to |expected|."""
    over, size = (
        np.linalg.norm(np.reshape(a, (len(a), -1)), axis=1) for a in (found - expected, expected)
    )
    return over / _at_least_median(size)


def excess(smaller: np.ndarray, larger: np.ndarray) -> Residuals:
    """Return by how much what is to be smaller exceeds what is to be larger, relative to that."""
    over = (smaller - larger) / _at_least_median(np.abs(larger))
    return np.reshape(over, (len(over), -1)).max(axis=1)


def _at_least_median(sizes: np.ndarray) -> np.ndarray:
    """Measure an instance whose terms happen to cancel by its like: what is left of it is mostly
    rounding."""
    return np.maximum(np.maximum(sizes, np.median(sizes, axis=0)), np.finfo(float).tiny)


def falls(rising: np.ndarray) -> Residuals:
    """Return the deepest fall of what is not to fall along its last axis, as a share of its last
    entry."""
    return (-np.diff(rising, axis=-1) / rising[..., -1:]).max(axis=-1, initial=-np.inf)


@dataclass(frozen=True)
class Claim:
    """A statement that can be checked: on random instances, or by one counter-example.

    Arguments:
        statement, reference: what is said, and where in the paper.
        kind: identity, inequality, or slip: what the paper prints or suggests and what is false.
        compute: of an identity, the relative differences of the two sides for each of some
            instances; of an inequality, by how much the smaller side exceeds the larger, relative
            to it; of a slip, by how much the statement fails on its counter-example.
    """

    statement: str
    reference: str
    kind: str
    compute: Callable[..., Any]


class Claims(list[Claim]):
    """The claims of one kind, in the order in which their functions, which it decorates, stand."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def __call__(self, statement: str, reference: str) -> Callable[[F], F]:
        def keep(compute: F) -> F:
            self.append(Claim(statement, reference, self.kind, compute))
            return compute

        return keep
