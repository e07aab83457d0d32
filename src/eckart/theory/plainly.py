"""Theorem 2 computed as it is printed, with d x d matrices: slow, and what the N x N way is checked against."""

from __future__ import annotations

import numpy as np

from eckart.theory.arrays import transposed
from eckart.theory.claims import Instances, Matrices, Residuals


def covariance(gradients: Matrices, shots: int) -> Matrices:
    """Return C_t as Section 3.3 prints it, d x d, from the columns of gradients."""
    n = gradients.shape[-1]
    mean = gradients.mean(axis=-1, keepdims=True)
    spread = gradients @ transposed(gradients) / n - mean @ transposed(mean)
    return (n - shots) / (shots * (n - 1)) * spread


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
