"""The dual forms beyond linear attention: softmax through its kernel (Appendix B.2), the MLP
(Appendix B.3)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.special import logsumexp

from eckart.paper.theory.arrays import Keys, Numbers, Values, root, shaped, transposed

LogGram = Float[np.ndarray, "*batch n n"]
WOut = Float[np.ndarray, "*batch d p"]
WIn = Float[np.ndarray, "*batch p m"]
Update = Float[np.ndarray, "*batch m e"]


@dataclass(frozen=True, eq=False)
class SoftmaxDual:
    """Softmax attention of one query as one step of implicit gradient descent in the kernel's
    feature space, Eq. (12).

    Arguments:
        update: Delta W'_icl phi(W_Q h), what the demonstrations add to the token.
        log_normaliser: log D'.
        log_norm: log of |Delta W'_icl|, the Hilbert-Schmidt norm in the feature space; minus
            infinity where it is zero.
        log_query_norm: log of |phi(W_Q h)|. The two norms' product is no less than the update's
            norm.
    """

    update: Float[np.ndarray, "*batch m"]
    log_normaliser: Numbers
    log_norm: Numbers
    log_query_norm: Numbers


@shaped
def log_kernel(
    x: Float[np.ndarray, "*batch k m"], y: Keys, d_scale: float = 1.0
) -> Float[np.ndarray, "*batch m n"]:
    """Return the log of the softmax kernel's Gram matrix, Eq. (10): x_i^T y_j / sqrt(d_scale).

    The kernel itself, exp of it, overflows for the keys of real models.

    Arguments:
        x, y: points as columns.
        d_scale: 1 in Appendix B.2, which leaves the scale out; a head's width in a model. An
            EckartError where it is not positive.

    >>> log_kernel([[1], [2]], [[3], [4]])
    array([[11.]])
    """
    return transposed(x) @ y / root(d_scale)


@shaped
def softmax_dual(
    values: Values,
    keys: Keys,
    query: Float[np.ndarray, "*batch k"],
    others: Float[np.ndarray, "*batch k o"],
    d_scale: float = 1.0,
) -> SoftmaxDual:
    """Return the dual form of softmax attention for one query, from Gram matrices alone: exact, no
    features are drawn.

    What the demonstrations add is Delta W' phi(q) with Delta W' = (1 / D') sum_i v_i ⊗ phi(k_i),
    Eq. (12). Its squared norm is `sum_ij (v_i · v_j) exp(k_i · k_j) / D'^2`. A constant that is
    added to every key changes this norm and not the attention: compare norms within one layer, not
    between models.

    Arguments:
        values, keys: of the demonstrations.
        query: W_Q h_(N+1).
        others: keys beside them that share the softmax: in the paper the test token's own (o = 1).
        d_scale: scores are divided by its root; an EckartError where it is not positive.

    >>> dual = softmax_dual([[1, 3]], [[0, 0]], [5], [[0]])
    >>> dual.update.round(9)
    array([1.33333333])
    >>> [float(np.exp(value).round(9)) for value in (dual.log_normaliser, dual.log_norm)]
    [3.0, 1.333333333]
    """
    column = query[..., None]
    scores = log_kernel(keys, column, d_scale)[..., 0]
    rest = log_kernel(others, column, d_scale)[..., 0]
    log_normaliser = logsumexp(np.concatenate([scores, rest], axis=-1), axis=-1)
    shares = np.exp(scores - log_normaliser[..., None])
    return SoftmaxDual(
        update=(values @ shares[..., None])[..., 0],
        log_normaliser=log_normaliser,
        log_norm=_log_norm(values, log_kernel(keys, keys, d_scale)) - log_normaliser,
        log_query_norm=log_kernel(column, column, d_scale)[..., 0, 0] / 2,
    )


def _log_norm(values: Values, log_gram: LogGram) -> Numbers:
    kernel, largest = _scaled(log_gram)
    square = np.maximum(((transposed(values) @ values) * kernel).sum(axis=(-1, -2)), 0)
    with np.errstate(divide="ignore"):  # values that cancel have norm zero
        return (np.log(square) + largest) / 2


def _scaled(log_gram: LogGram) -> tuple[np.ndarray, np.ndarray]:
    """Return a kernel's Gram matrix divided by its largest entry, and the log of that."""
    largest = np.asarray(log_gram.max(axis=(-1, -2), initial=-np.inf))
    return np.exp(log_gram - largest[..., None, None]), largest


@shaped
def log_singular_values(values: Values, log_gram: LogGram) -> Float[np.ndarray, "*batch m"]:
    """Return the logs of the singular values of `sum_i v_i ⊗ phi(k_i)`, D' Delta W'_icl of Eq.
    (12), descending; minus infinity for zero.

    Their squares are the eigenvalues of V K V^T, with V the values and K the kernel's Gram matrix:
    those of K^(1/2) V^T V K^(1/2), too, but m x m. Those below sqrt(m eps) of the largest, about
    1e-7, are rounding, and so are all but N.

    >>> np.exp(log_singular_values([[3, 0], [0, 4]], [[0, -800], [-800, 0]])).round(9)
    array([4., 3.])
    """
    kernel, largest = _scaled(log_gram)
    squares = np.linalg.eigvalsh(values @ kernel @ transposed(values))[..., ::-1]
    with np.errstate(divide="ignore"):
        return (np.log(np.maximum(squares, 0)) + largest[..., None]) / 2


@shaped
def mlp_update(
    w_mlp: Float[np.ndarray, "*batch d m"], update: Update
) -> Float[np.ndarray, "*batch d e"]:
    """Return Delta W''_icl = W_MLP Delta W_icl, the implicit gradient behind an MLP W_out W_in
    without activation (Appendix B.3).

    >>> mlp_update([[2]], [[1, 3]])
    array([[2., 6.]])
    """
    return w_mlp @ update


class Relaxation(NamedTuple):
    """An MLP with its activation, W_out activation(W_in x), and without, W_out W_in x (Appendix
    B.3); the error is what leaving it out adds."""

    exact: Float[np.ndarray, "*batch d"]
    relaxed: Float[np.ndarray, "*batch d"]

    @property
    def error(self) -> Float[np.ndarray, "*batch d"]:
        return self.relaxed - self.exact


def relu(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, 0.0)


@shaped
def mlp_relaxation(
    w_out: WOut,
    w_in: WIn,
    x: Float[np.ndarray, "*batch m"],
    activation: Callable[[np.ndarray], np.ndarray] = relu,
) -> Relaxation:
    """Return an MLP's output with an elementwise activation and without it; x is what attention
    hands to the MLP, in the paper Delta W_icl h_(N+1).

    >>> found = mlp_relaxation([[1, 1]], [[1], [-1]], [2])
    >>> found.relaxed, found.exact
    (array([0.]), array([2.]))
    """
    hidden = w_in @ x[..., None]
    return Relaxation((w_out @ activation(hidden))[..., 0], (w_out @ hidden)[..., 0])


@shaped
def gated_update(
    w_out: WOut, w_in: WIn, update: Update, token: Float[np.ndarray, "*batch e"]
) -> Float[np.ndarray, "*batch d e"]:
    """Return the implicit gradient behind an MLP *with* relu, exact at one token and in the region
    around it.

    relu multiplies by 0 or 1, so W_out relu(W_in Delta W h) = (W_out D W_in Delta W) h with D the
    gates that h opens.

    >>> gated_update([[1, 1]], [[1], [-1]], [[3]], [2])
    array([[3.]])
    """
    gates = (w_in @ update @ token[..., None]) > 0
    return w_out @ (gates * (w_in @ update))
