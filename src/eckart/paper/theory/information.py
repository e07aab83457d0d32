"""The information-theoretic half of Theorem 2, on cases where the information can be computed
exactly."""

from __future__ import annotations

import numpy as np
from scipy.special import rel_entr

from eckart.paper.theory.arrays import transposed
from eckart.paper.theory.bound import LayerTerm
from eckart.paper.theory.claims import Claims, Instances, Residuals, excess
from eckart.paper.theory.plainly import gaussians

claims = Claims()

LEFT, RIGHT = (places.ravel() for places in np.indices((3, 3)))
"""The two tokens of each of the nine samples."""


@claims.inequality(
    "|expected generalisation error| <= sqrt(2 R^2 / N I(W; H_s)), R = 1/2 for a loss in [0, 1]",
    "Lemma 2",
)
def _mutual_information(x: Instances) -> Residuals:
    population = (x.loss @ x.law[..., None])[:, None, :, 0]
    empirical = transposed(x.loss[..., LEFT] + x.loss[..., RIGHT]) / 2
    error = (_samples(x)[..., None] * x.learner * (population - empirical)).sum(axis=(1, 2))
    return excess(np.abs(error), np.sqrt(2 * 0.5**2 / 2 * _divergence(x, _marginal(x))))


@claims.inequality("I(W; H_s) is the least mean divergence from a prior", "Lemma 4, Lemma 5")
def _variational(x: Instances) -> Residuals:
    return excess(_divergence(x, _marginal(x)), _divergence(x, x.law))


def _samples(x: Instances) -> np.ndarray:
    """Return the probability of each sample of two independent tokens."""
    return x.law[:, LEFT] * x.law[:, RIGHT]


def _marginal(x: Instances) -> np.ndarray:
    return (_samples(x)[..., None] * x.learner).sum(axis=1)


def _divergence(x: Instances, prior: np.ndarray) -> Residuals:
    return (_samples(x) * rel_entr(x.learner, prior[:, None]).sum(axis=-1)).sum(axis=1)


@claims.inequality(
    "2 I(G_t + C_t^(1/2) N_t; H_s) is at most a term of Theorem 2, for Gaussian G_t", "Appendix B.5"
)
def _gaussian_step(x: Instances) -> Residuals:
    mean, noise, _ = gaussians(x)
    spread = x.gradients @ transposed(x.gradients)
    log_determinant = np.linalg.slogdet(noise)[1]
    squared = np.square(mean).sum(axis=1) + np.trace(spread, axis1=1, axis2=2)
    term = LayerTerm(mean.shape[1], squared, np.trace(noise, axis1=1, axis2=2), log_determinant)
    return excess(np.linalg.slogdet(spread + noise)[1] - log_determinant, np.asarray(term.value))
