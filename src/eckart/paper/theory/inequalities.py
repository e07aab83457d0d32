"""The inequalities: what the paper says is no larger than something else, and is not."""

from __future__ import annotations

import numpy as np
from scipy.special import rel_entr

from eckart.paper.theory.arrays import squared_norm, transposed
from eckart.paper.theory.attention import implicit_update
from eckart.paper.theory.bound import LayerTerm, layer_term, noise_gram
from eckart.paper.theory.claims import Claims, Instances, Matrices, Residuals, excess, falls
from eckart.paper.theory.duals import mlp_relaxation, softmax_dual
from eckart.paper.theory.norms import (
    mlp_norms,
    projection_bounds,
    q_norms,
    qkv_bounds,
    truncate,
    upper_bound,
)
from eckart.paper.theory.plainly import covariance, gaussians, objective, squared_size

claims = Claims("inequality")


@claims("rank(Delta W_icl) <= rank(H_s) <= N", "Remark 1")
def _rank(x: Instances) -> Residuals:
    n = x.demonstrations.shape[-1]
    of_sample = _ranks(x.demonstrations)
    return np.maximum(
        excess(_ranks(x.update), of_sample),
        excess(of_sample, np.full(len(x.h), n)),
    )


def _ranks(matrices: Matrices) -> Residuals:
    values = np.linalg.svd(matrices, compute_uv=False)
    return (values > 1e-10 * values[:, :1]).sum(axis=1).astype(float)


@claims("|Delta W'_icl phi(q)| <= |Delta W'_icl| |phi(q)|", "Appendix B.2")
def _kernel_norms(x: Instances) -> Residuals:
    values, keys, w_q = x.lemma
    dual = softmax_dual(values, keys, (w_q @ x.test)[..., 0], x.w_k[:, 0] @ x.test)
    return excess(np.linalg.norm(dual.update, axis=1), np.exp(dual.log_norm + dual.log_query_norm))


@claims("what leaving relu out adds is at most |W_out|_2 |W_in x|", "Appendix B.3")
def _relaxation(x: Instances) -> Residuals:
    most = np.linalg.norm(x.w_out, 2, axis=(1, 2)) * np.linalg.norm(x.w_in @ x.test, axis=(1, 2))
    return excess(
        np.linalg.norm(mlp_relaxation(x.w_out, x.w_in, x.test[..., 0]).error, axis=1), most
    )


@claims("|A B| <= |A| |B|", "Eq. (19)")
def _product(x: Instances) -> Residuals:
    return excess(squared_norm(x.w_out @ x.w_in), squared_norm(x.w_out) * squared_norm(x.w_in))


@claims("|G_t|^2 <= |Delta W_t|^2 |1 + sum_(j < t) G_j|^2", "Appendix B.5")
def _steps(x: Instances) -> Residuals:
    return excess(
        squared_norm(x.path.steps), squared_norm(x.path.updates) * squared_norm(x.path.maps)
    )


@claims("no other variance of the prior makes Eq. (17) smaller", "Appendix B.5")
def _optimum(x: Instances) -> Residuals:
    step, noise, variance = gaussians(x)
    best = squared_size(step, noise) / step.shape[1]
    return excess(objective(step, noise, best), objective(step, noise, variance))


@claims("a term of Theorem 2 is never negative", "Theorem 2")
def _never_negative(x: Instances) -> Residuals:
    return -x.term.value / np.maximum(np.abs(x.term.norm_term), 1)


@claims(
    "the expectation outside the logarithm is the smaller: the bound has it inside",
    "Lemma 6, corrected",
)
def _jensen(x: Instances) -> Residuals:
    gram, squared = x.gram, x.gram.sum(axis=(1, 2))
    two_draws = np.stack([gram, gram[::-1]]), np.stack([squared, squared[::-1]])
    term = layer_term(*two_draws, x.shots, x.gradients.shape[1], x.floor)
    return excess(term.value.mean(axis=0), np.asarray(term.expected().value))


@claims("tr C_t <= (N - b) / (b (N - 1)) * mean of |grad_i|^2", "Remark 4")
def _trace(x: Instances) -> Residuals:
    n = x.gradients.shape[-1]
    traced = np.trace(noise_gram(x.gram, x.shots), axis1=1, axis2=2)
    factor = (n - x.shots) / (x.shots * (n - 1))
    return excess(traced, factor * np.square(x.gradients).sum(axis=1).mean(axis=1))


@claims(
    "rank(C_t) <= min(N - 1, w (w + 1) / 2), of d = w^2, for tokens of w numbers",
    "Theorem 2, corrected",
)
def _noise_rank(x: Instances) -> Residuals:
    width, n = x.demonstrations.shape[1:]
    most = min(n - 1, width * (width + 1) // 2)
    return excess(_ranks(covariance(x.gradients, x.shots)), np.full(len(x.h), float(most)))


@claims("with a floor, shrinking all gradients alike shrinks the term", "Remark 4, corrected")
def _shrink(x: Instances) -> Residuals:
    gram, squared = x.gram, x.gram.sum(axis=(1, 2))
    factor, d = np.square(x.scale), x.gradients.shape[1]
    after = layer_term(factor[:, None, None] * gram, factor * squared, x.shots, d, x.floor)
    return (after.value - x.term.value) / np.maximum(np.abs(x.term.norm_term), 1)


@claims("|Delta W_icl|^2 <= N UB", "Example 1, corrected")
def _upper_bound(x: Instances) -> Residuals:
    n = x.demonstrations.shape[-1]
    return excess(squared_norm(x.update), n * upper_bound(*x.lemma))


@claims("UB never falls with r: W_Q, W_K and W_V clipped", "Example 1")
def _clip_all(x: Instances) -> Residuals:
    return falls(qkv_bounds(x.demonstrations, *x.first))


@claims(
    "... and bounds the clipped |Delta W_icl(r)|^2, times N, for every r", "Example 1, corrected"
)
def _clipped_is_bounded(x: Instances) -> Residuals:
    bounds = qkv_bounds(x.demonstrations, *x.first)
    clipped = [implicit_update(*_clipped_lemma(x, rank)) for rank in range(1, bounds.shape[-1] + 1)]
    return excess(np.stack([squared_norm(update) for update in clipped], axis=-1), bounds)


def _clipped_lemma(x: Instances, rank: int) -> tuple[Matrices, Matrices, Matrices]:
    w_v, w_k, w_q = (truncate(w, min(rank, *w.shape[1:])) for w in x.first)
    return w_v @ x.demonstrations, w_k @ x.demonstrations, w_q


@claims("|Delta W_icl(r)| itself never falls with r: W_Q clipped", "Example 2")
def _clip_query(x: Instances) -> Residuals:
    return falls(q_norms(*x.lemma))


@claims("UB never falls with r: W_V clipped", "Example 3")
def _clip_value(x: Instances) -> Residuals:
    w_v, _, w_q = x.first
    return falls(projection_bounds(w_v, x.demonstrations, x.lemma[1], w_q))


@claims("UB never falls with r: W_K clipped", "Example 3")
def _clip_key(x: Instances) -> Residuals:
    _, w_k, w_q = x.first
    return falls(projection_bounds(w_k, x.demonstrations, x.lemma[0], w_q))


@claims("|Delta W_icl(r)| itself never falls with r: W_V clipped", "Example 3")
def _clip_value_norm(x: Instances) -> Residuals:
    return falls(mlp_norms(x.first[0], x.demonstrations @ transposed(x.lemma[1]) @ x.lemma[2]))


@claims("|Delta W''_icl(r)| itself never falls with r: W_MLP clipped", "Example 4")
def _clip_mlp(x: Instances) -> Residuals:
    return falls(mlp_norms(x.w_out @ x.w_in, x.update))


@claims("the solution of W x = b moves by at most Cond(W) times what b moves, relatively", "Case 1")
def _condition(x: Instances) -> Residuals:
    w, b, moved = x.w_v[:, 0], x.test, x.h[..., :1]
    before, shift = np.linalg.solve(w, b), np.linalg.solve(w, moved)
    relative = np.linalg.norm(moved, axis=1) / np.linalg.norm(b, axis=1)
    condition = np.linalg.cond(w)
    return excess(
        np.linalg.norm(shift, axis=1) / np.linalg.norm(before, axis=1),
        condition[:, None] * relative,
    )


# What Theorem 2 says of information, on cases where it can be computed exactly.

LEFT, RIGHT = (places.ravel() for places in np.indices((3, 3)))
"""The two tokens of each of the nine samples."""


@claims(
    "|expected generalisation error| <= sqrt(2 R^2 / N I(W; H_s)), R = 1/2 for a loss in [0, 1]",
    "Lemma 2",
)
def _mutual_information(x: Instances) -> Residuals:
    population = (x.loss @ x.law[..., None])[:, None, :, 0]
    empirical = transposed(x.loss[..., LEFT] + x.loss[..., RIGHT]) / 2
    error = (_samples(x)[..., None] * x.learner * (population - empirical)).sum(axis=(1, 2))
    return excess(np.abs(error), np.sqrt(2 * 0.5**2 / 2 * _divergence(x, _marginal(x))))


@claims("I(W; H_s) is the least mean divergence from a prior", "Lemma 4, Lemma 5")
def _variational(x: Instances) -> Residuals:
    return excess(_divergence(x, _marginal(x)), _divergence(x, x.law))


def _samples(x: Instances) -> np.ndarray:
    """Return the probability of each sample of two independent tokens."""
    return x.law[:, LEFT] * x.law[:, RIGHT]


def _marginal(x: Instances) -> np.ndarray:
    return (_samples(x)[..., None] * x.learner).sum(axis=1)


def _divergence(x: Instances, prior: np.ndarray) -> Residuals:
    return (_samples(x) * rel_entr(x.learner, prior[:, None]).sum(axis=-1)).sum(axis=1)


@claims(
    "2 I(G_t + C_t^(1/2) N_t; H_s) is at most a term of Theorem 2, for Gaussian G_t", "Appendix B.5"
)
def _gaussian_step(x: Instances) -> Residuals:
    mean, noise, _ = gaussians(x)
    spread = x.gradients @ transposed(x.gradients)
    log_determinant = np.linalg.slogdet(noise)[1]
    squared = np.square(mean).sum(axis=1) + np.trace(spread, axis1=1, axis2=2)
    term = LayerTerm(mean.shape[1], squared, np.trace(noise, axis1=1, axis2=2), log_determinant)
    return excess(np.linalg.slogdet(spread + noise)[1] - log_determinant, np.asarray(term.value))
