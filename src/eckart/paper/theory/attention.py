"""Attention as implicit gradient descent: Eq. (1) to (3), Lemma 1, Theorem 1.

"1" beside a matrix is the identity, as in the paper.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.special import softmax

from eckart.errors import EckartError
from eckart.paper.theory.arrays import Keys, Values, WQuery, root, shaped, transposed

Tokens = Float[np.ndarray, "*batch d tokens"]
WValue = Float[np.ndarray, "*batch d d"]
Demonstrations = Float[np.ndarray, "*batch d n"]
WValues = Float[np.ndarray, "*batch layers d d"]
WKeys = Float[np.ndarray, "*batch layers k d"]
"""W_V, and W_K or W_Q, of every layer of a stack."""


def mask(n: int) -> Float[np.ndarray, "tokens tokens"]:
    """Return M of Section 3.1: the identity on n demonstrations, zero on the test token.

    >>> mask(2).diagonal().tolist()
    [1.0, 1.0, 0.0]
    """
    return np.diag([1.0] * n + [0.0])


@shaped
def softmax_attention(
    h: Tokens, w_v: WValue, w_k: WQuery, w_q: WQuery, d_scale: float = 1.0
) -> Tokens:
    """Return softmax attention with residual connection and mask, Eq. (1); its last column, that of
    the test token, is Eq. (2).

    Scores are divided by the root of d_scale, as in `log_kernel`.

    >>> softmax_attention([[1, 1]], [[1]], [[0]], [[1]])
    array([[1.5, 1.5]])
    """
    scores = transposed(w_k @ h) @ (w_q @ h) / root(d_scale)
    return h + w_v @ h @ mask(h.shape[-1] - 1) @ softmax(scores, axis=-2)


@shaped
def linear_attention(h: Tokens, w_v: WValue, w_k: WQuery, w_q: WQuery) -> Tokens:
    """Return attention without softmax and scale for every token; the last column is Eq. (3).

    >>> linear_attention([[1, 2, 3]], [[1]], [[1]], [[0.1]])
    array([[1.5, 3. , 4.5]])
    """
    return h + w_v @ h @ mask(h.shape[-1] - 1) @ transposed(w_k @ h) @ w_q @ h


@shaped
def implicit_update(values: Values, keys: Keys, w_q: WQuery) -> Float[np.ndarray, "*batch m d"]:
    """Return the implicit gradient Delta W_icl of a linear layer, `W_V H_s (W_K H_s)^T W_Q` (Lemma
    1), of rank N at most (Remark 1).

    >>> implicit_update([[1, 2]], [[3, 4]], [[1, 10]])
    array([[ 11., 110.]])
    """
    return values @ transposed(keys) @ w_q


@shaped
def update_terms(values: Values, keys: Keys, w_q: WQuery) -> Float[np.ndarray, "*batch n m d"]:
    """Return what each demonstration adds to Delta W_icl, `(W_V h_i ⊗ W_K h_i) W_Q` (Lemma 1).

    >>> update_terms([[1, 2]], [[3, 4]], [[1, 10]])[:, 0]
    array([[ 3., 30.],
           [ 8., 80.]])
    """
    return np.einsum("...mi,...ki,...kd->...imd", values, keys, w_q)


@shaped
def forward(
    h: Tokens, w_v: WValues, w_k: WKeys, w_q: WKeys
) -> Float[np.ndarray, "*batch states d tokens"]:
    """Return h^0 to h^L, the tokens after each layer of a stack of linear attention blocks.

    >>> forward([[1, 1]], [[[1]], [[1]]], [[[1]], [[1]]], [[[1]], [[1]]])[:, 0].tolist()
    [[1.0, 1.0], [2.0, 2.0], [10.0, 10.0]]
    """
    states = [h]
    for t in range(w_v.shape[-3]):
        states.append(linear_attention(states[-1], *(w[..., t, :, :] for w in (w_v, w_k, w_q))))
    return np.stack(states, axis=-3)


@dataclass(frozen=True, eq=False)
class Trajectory:
    """The implicit gradient descent of a stack of L layers (Theorem 1), one layer along the axis
    before the last two.

    Arguments:
        values: v_i = W_V^t h_i^(t-1).
        inputs: u_i = `(1 + W_(t-1))^T (W_Q^t)^T W_K^t h_i^(t-1)`; v_i ⊗ u_i is what demonstration i
            adds to G_t.
        updates: Delta W_t.
        steps: G_t.
    """

    values: Float[np.ndarray, "*batch layers d n"]
    inputs: Float[np.ndarray, "*batch layers d n"]
    updates: WValues
    steps: WValues

    @property
    def weights(self) -> Float[np.ndarray, "*batch states d d"]:
        """W_0 = 0 to W_L, W_t = W_(t-1) + G_t: one more than there are layers."""
        return np.cumsum(
            np.concatenate([0 * self.steps[..., :1, :, :], self.steps], axis=-3), axis=-3
        )

    @property
    def maps(self) -> WValues:
        """1 + W_(t-1), from the input to the input of layer t, for t = 1 to L."""
        return np.eye(self.weights.shape[-1]) + self.weights[..., :-1, :, :]


@shaped
def trajectory(demonstrations: Demonstrations, w_v: WValues, w_k: WKeys, w_q: WKeys) -> Trajectory:
    """Return the implicit gradient descent of a stack of linear attention blocks, Theorem 1.

    From the demonstrations and W_(t-1) alone, as Remark 2 says: h_i^(t-1) = (1 + W_(t-1)) h_i^0,
    the layer's Delta W_t is that of Lemma 1 at these, G_t = Delta W_t (1 + W_(t-1)) and W_t =
    W_(t-1) + G_t. For any test token h, h^t = h^0 + W_t h^0. Raises an EckartError where there are
    no layers.

    >>> found = trajectory([[1]], [[[1]], [[1]]], [[[1]], [[1]]], [[[1]], [[1]]])
    >>> found.updates.ravel(), found.steps.ravel(), found.weights.ravel()
    (array([1., 4.]), array([1., 8.]), array([0., 1., 9.]))
    """
    return descend(demonstrations, w_v, w_k, w_q, lambda values, inputs: 0.0)


def descend(
    demonstrations: Demonstrations,
    w_v: WValues,
    w_k: WKeys,
    w_q: WKeys,
    noise: Callable[[np.ndarray, np.ndarray], np.ndarray | float],
) -> Trajectory:
    """Return Theorem 1's descent, as `trajectory`, with noise added to every layer's step, given
    its v_i and u_i; later layers start from where it leads."""
    if w_v.shape[-3] == 0:
        raise EckartError(
            "trajectory: w_v has no layers; give at least one layer's projections, as (L, d, d)"
        )
    past = np.broadcast_to(np.eye(demonstrations.shape[-2]), w_v[..., 0, :, :].shape)
    layers = []
    for t in range(w_v.shape[-3]):
        v, k, q = (w[..., t, :, :] for w in (w_v, w_k, w_q))
        values, keys = v @ past @ demonstrations, k @ past @ demonstrations
        inputs, update = transposed(q @ past) @ keys, implicit_update(values, keys, q)
        step = update @ past + noise(values, inputs)
        layers.append((values, inputs, update, step))
        past = past + step
    return Trajectory(*(np.stack(parts, axis=-3) for parts in zip(*layers, strict=True)))
