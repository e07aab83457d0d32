"""The slips: what the paper prints or suggests and is not so, with one small example each.

Each function returns by how much the statement fails on its example. What is true instead stands
among the identities and inequalities.
"""

from __future__ import annotations

import numpy as np

from eckart.paper.theory.arrays import squared_norm
from eckart.paper.theory.attention import (
    forward,
    implicit_update,
    softmax_attention,
    trajectory,
    update_terms,
)
from eckart.paper.theory.bound import LayerTerm, demonstration_gram, layer_term, noise_gram
from eckart.paper.theory.claims import Claims
from eckart.paper.theory.duals import log_kernel
from eckart.paper.theory.norms import truncate, upper_bound

claims = Claims("slip")

ONE = np.eye(1)
TWO = np.eye(2)
SIX = np.array([[1.0, 0.0, 1.0, 1.0, 2.0, 1.0], [0.0, 1.0, 1.0, -1.0, 1.0, 2.0]])
"""Six demonstrations of two numbers each."""


@claims(
    "h = h + Delta W_icl h: the left side is the layer's output, and lacks its hat", "Eq. (3), B.3"
)
def _hat() -> float:
    return float(np.abs(implicit_update(ONE, ONE, ONE) @ ONE).max())


@claims("A = D^(-1) A_u with D = diag(A_u 1): this norms each key over the queries", "Eq. (9)")
def _normaliser() -> float:
    h = np.array([[0.0, 1.0, 2.0]])
    unnormed = np.exp(log_kernel(h, h))
    printed = h + h @ np.diag([1.0, 1.0, 0.0]) @ (unnormed / unnormed.sum(axis=1, keepdims=True))
    return _apart(printed, softmax_attention(h, ONE, ONE, ONE))


@claims("A_u(i, j) = phi(W_K h_i)^T phi(W_Q h_i): the query is h_j", "Eq. (11)")
def _index() -> float:
    h = np.array([[1.0, 2.0]])
    kernel = np.exp(log_kernel(h, h))
    return _apart(np.broadcast_to(kernel.diagonal()[:, None], kernel.shape), kernel)


@claims("h^t = h^0 + sum_(j <= t) G_t h^0: the sum is of G_j", "Theorem 1")
def _summand() -> float:
    stack, h = np.ones((2, 1, 1)), np.ones((1, 2))
    path = trajectory(h[:, :1], stack, stack, stack)
    printed = h[:, -1:] + 2 * path.steps[-1] @ h[:, -1:]
    return _apart(printed, forward(h, stack, stack, stack)[-1][:, -1:])


@claims("W_t = W_(t-1) - G_t with Theorem 1's G_t: there the step is added", "Eq. (4)")
def _sign() -> float:
    stack = np.ones((1, 1, 1))
    path = trajectory(ONE, stack, stack, stack)
    return _apart(path.weights[0] - path.steps[0], path.weights[1])


@claims("Theorem 1's G_t is the mean of the demonstrations' terms: it is their sum", "Section 3.3")
def _mean() -> float:
    stack, sample = np.ones((1, 1, 1)), np.ones((1, 2))
    terms = update_terms(sample, sample, ONE)
    return _apart(terms.mean(axis=0), trajectory(sample, stack, stack, stack).steps[0])


@claims("C_t is positive definite: here d = 4 and N = 6, and its rank is 3", "Theorem 2")
def _definite() -> float:
    return float(4 - np.linalg.matrix_rank(noise_gram(demonstration_gram(SIX, SIX), shots=1)))


@claims("C_t is positive definite with all N demonstrations shown: then it is zero", "Theorem 2")
def _all_shown() -> float:
    return float(noise_gram(TWO, shots=1).trace() - noise_gram(TWO, shots=2).trace())


@claims("the expectation may stand outside the logarithm", "Lemma 6, Theorem 2")
def _expectation() -> float:
    squares = np.array([1.0, 9.0])
    draws = LayerTerm(1, squares, np.zeros(2), np.zeros(2))
    return float(draws.expected().value - draws.value.mean())


@claims("a smaller norm of G_t and a smaller tr C_t make the bound smaller", "Remark 4")
def _smaller() -> float:
    """Flatten the noise in one of two directions: both fall, and the term rises, for its
    determinant falls further."""

    def term(deviation: float) -> LayerTerm:
        sizes = np.array([1.0, deviation**2])
        return LayerTerm(2, sizes.sum() / 2, sizes.sum(), np.log(sizes).sum())

    return float(term(0.1).value - term(1.0).value)


@claims(
    "clipping W_V makes the bound smaller: here it takes a direction from the noise", "Remark 4"
)
def _clipped() -> float:
    """Unclipped, C_t has rank 3 of 4; clipped, 2. The floor of the noise is far below it."""
    w_v = np.diag([2.0, 1.0])
    return _term(truncate(w_v, 1)) - _term(w_v)


def _term(w_v: np.ndarray) -> float:
    path = trajectory(SIX, w_v[None], TWO[None], TWO[None])
    gram = demonstration_gram(path.values[0], path.inputs[0])
    return float(
        layer_term(gram, squared_norm(path.updates[0]), shots=1, dimension=4, floor=1e-6).value
    )


@claims("UB bounds |Delta W_icl|^2: two equal demonstrations double it", "Example 1")
def _upper_bound() -> float:
    equal = np.ones((1, 2))
    return float(squared_norm(implicit_update(equal, equal, ONE)) - upper_bound(equal, equal, ONE))


@claims("|A|^2 is the sum of the singular values: of their squares", "Example 1 (**)")
def _frobenius() -> float:
    matrix = np.array([[2.0]])
    return float(squared_norm(matrix) - np.linalg.svd(matrix, compute_uv=False).sum())


@claims("|A + B|^2 <= |A|^2 + |B|^2 for any A and B", "Eq. (20)")
def _sum() -> float:
    return float(squared_norm(ONE + ONE) - squared_norm(ONE) - squared_norm(ONE))


@claims("clipping W_K makes |Delta W_icl| smaller, and not only its bound", "Example 3")
def _clip_key() -> float:
    """What W_K's smaller direction adds may cancel what the larger one adds."""
    w_k, h, w_q = np.diag([2.0, 1.0]), np.ones((2, 1)), np.array([[1.0, 0.0], [-1.9, 0.0]])
    norms = [squared_norm(implicit_update(h, w @ h, w_q)) for w in (truncate(w_k, 1), w_k)]
    return float(norms[0] - norms[1])


@claims("clipping layer 1 makes the later |Delta W_t| smaller", "Remark 4, Remark 5")
def _later_layers() -> float:
    """Layer 1 shrinks the tokens; clipped, it shrinks them less, and layer 2 meets larger ones."""
    w_v = np.stack([np.diag([-0.9, -0.8]), TWO])
    clipped = np.stack([truncate(w_v[0], 1), TWO])
    norms = [
        squared_norm(trajectory(TWO, w, np.stack([TWO, TWO]), np.stack([TWO, TWO])).updates[1])
        for w in (clipped, w_v)
    ]
    return float(norms[0] - norms[1])


def _apart(printed: np.ndarray, true: np.ndarray) -> float:
    return float(np.abs(printed - true).max())
