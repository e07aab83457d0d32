"""Theorem 2 computed as it is printed, with d x d matrices: slow, and what the N x N way is checked
against."""

from __future__ import annotations

import numpy as np

from eckart.paper.theory.arrays import squared_norm, transposed
from eckart.paper.theory.attention import update_terms
from eckart.paper.theory.claims import Instances, Matrices, Residuals


def covariance(gradients: Matrices, shots: int) -> Matrices:
    """Return C_t as Section 3.3 prints it, d x d, from the columns of gradients."""
    n = gradients.shape[-1]
    mean = gradients.mean(axis=-1, keepdims=True)
    spread = gradients @ transposed(gradients) / n - mean @ transposed(mean)
    return (n - shots) / (shots * (n - 1)) * spread


def printed_bound(x: Instances, subgaussian: float) -> Residuals:
    """Return the bound of Theorem 2 over all layers, with the floor in C_t."""
    batch, width, n = x.demonstrations.shape
    d, past, total = (
        width**2,
        np.broadcast_to(np.eye(width), (batch, width, width)),
        np.zeros(batch),
    )
    for t in range(x.w_v.shape[1]):
        terms = update_terms(
            x.w_v[:, t] @ past @ x.demonstrations,
            x.w_k[:, t] @ past @ x.demonstrations,
            x.w_q[:, t],
        )
        gradients = n * (terms @ past[:, None]).reshape(batch, n, d)
        noise = covariance(transposed(gradients), x.shots) + x.floor * np.eye(d)
        squared = squared_norm(terms.sum(axis=1)) * squared_norm(past)
        trace, log_determinant = np.trace(noise, axis1=1, axis2=2), np.linalg.slogdet(noise)[1]
        total += d * np.log((squared + trace) / d) - log_determinant
        past = past + terms.sum(axis=1) @ past
    return np.sqrt(subgaussian**2 / n * total)


def gaussians(x: Instances) -> tuple[np.ndarray, Matrices, Residuals]:
    """Return a step G_t, a positive definite C_t and the variance of a prior."""
    d = x.gradients.shape[1]
    noise = covariance(x.gradients, x.shots) + x.floor * np.eye(d)
    return x.gradients.mean(axis=-1), noise, 0.01 + x.scale


def squared_size(step: np.ndarray, noise: Matrices) -> Residuals:
    """Return A_1 = |G_t|^2 + tr C_t."""
    return np.square(step).sum(axis=-1) + np.trace(noise, axis1=1, axis2=2)


def objective(step: np.ndarray, noise: Matrices, variance: Residuals) -> Residuals:
    """Return what Eq. (17) minimises over the prior's variance."""
    d = step.shape[1]
    log_determinant = np.linalg.slogdet(noise)[1]
    return (squared_size(step, noise) / variance + d * np.log(variance) - d - log_determinant) / 2


def term_of(step: np.ndarray, noise: Matrices) -> Residuals:
    """Return a term of Theorem 2 from a d x d covariance, as printed."""
    d = step.shape[1]
    return d * np.log(squared_size(step, noise) / d) - np.linalg.slogdet(noise)[1]
