"""The norms of clipped implicit gradients, Examples 1 to 4 (Section 3.3, Appendix B.6).

All ranks at once, along the last axis, rank 1 first: with W = sum_i sigma_i a_i b_i^T, the clipped
W_r has `|W_r x|^2 = sum_(i <= r) sigma_i^2 (b_i · x)^2`, because the parts that are kept and
dropped are orthogonal. So no entry is below the one before it.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from eckart.errors import EckartError
from eckart.paper.theory.arrays import (
    Keys,
    Numbers,
    Values,
    WQuery,
    shaped,
    squared_norm,
    transposed,
)

ByRank = Float[np.ndarray, "*batch ranks"]


@shaped
def truncate(w: Float[np.ndarray, "*batch m n"], rank: int) -> Float[np.ndarray, "*batch m n"]:
    """Return the closest matrix of a rank, W_r of Section 2 (Eckart-Young); an EckartError where
    the rank is not in 1 to min(m, n).

    >>> truncate([[3, 0], [0, 2]], 1)
    array([[3., 0.],
           [0., 0.]])
    """
    if not 1 <= rank <= min(w.shape[-2:]):
        raise EckartError(
            f"rank {rank} of a {w.shape[-2]} x {w.shape[-1]} matrix: give 1 to {min(w.shape[-2:])}"
        )
    u, s, vt = np.linalg.svd(w, full_matrices=False)
    return (u[..., :rank] * s[..., None, :rank]) @ vt[..., :rank, :]


@shaped
def kept_energies(w: Float[np.ndarray, "*batch m k"], x: Keys) -> Float[np.ndarray, "*batch r n"]:
    """Return |W_r x_j|^2 for every rank r, a row each, and column x_j (Example 1's first step).

    >>> kept_energies([[3, 0], [0, 2]], [[1, 0], [1, 1]])
    array([[ 9.,  0.],
           [13.,  4.]])
    """
    _, s, vt = np.linalg.svd(w, full_matrices=False)
    return np.cumsum(np.square(s[..., None] * (vt @ x)), axis=-2)


@shaped
def upper_bound(values: Values, keys: Keys, w_q: WQuery) -> Numbers:
    """Return UB of Example 1, `sum_i |W_V h_i|^2 |W_K h_i|^2 |W_Q|^2`.

    It is no bound on |Delta W_icl|^2: demonstrations that agree add up, and the square of a sum is
    up to N times the sum of squares. N times UB is one, by Cauchy and Schwarz.

    >>> float(upper_bound([[1, 1]], [[1, 1]], [[1]]))  # and |Delta W_icl|^2 = |1 + 1|^2 = 4
    2.0
    """
    squares = np.square(values).sum(axis=-2) * np.square(keys).sum(axis=-2)
    return squares.sum(axis=-1) * squared_norm(w_q)


@shaped
def qkv_bounds(
    demonstrations: Float[np.ndarray, "*batch d n"],
    w_v: Float[np.ndarray, "*batch m d"],
    w_k: Float[np.ndarray, "*batch k d"],
    w_q: Float[np.ndarray, "*batch k e"],
) -> ByRank:
    """Return N UB(|Delta W_icl(r)|^2) for W_V, W_K and W_Q clipped to the same rank, Example 1: a
    bound on the squared norm of the clipped Delta W_icl.

    Ranks end with the largest of the three; a smaller matrix is whole before that.

    >>> eye = [[1, 0], [0, 1]]
    >>> qkv_bounds([[1], [1]], [[2, 0], [0, 1]], eye, eye)
    array([ 4., 20.])
    """
    by_v, by_k = kept_energies(w_v, demonstrations), kept_energies(w_k, demonstrations)
    by_q = np.cumsum(np.square(np.linalg.svd(w_q, compute_uv=False)), axis=-1)[..., None]
    ranks = np.arange(max(energies.shape[-2] for energies in (by_v, by_k, by_q)))
    by_v, by_k, by_q = (
        np.take(energies, np.minimum(ranks, energies.shape[-2] - 1), axis=-2)
        for energies in (by_v, by_k, by_q)
    )
    return demonstrations.shape[-1] * (by_v * by_k * by_q).sum(axis=-1)


@shaped
def q_norms(values: Values, keys: Keys, w_q: WQuery) -> ByRank:
    """Return |Delta W_icl|^2 itself with W_Q clipped to every rank, Example 2: `|z W_(Q_r)|^2` with
    z = W_V H_s (W_K H_s)^T.

    Eq. (20) holds here, with equality: `|z W_Q|^2 = |z W_(Q_r)|^2 + |z delta_Q|^2`.

    >>> q_norms([[1]], [[1], [1]], [[3, 0], [0, 2]])
    array([ 9., 13.])
    """
    z = values @ transposed(keys)
    return kept_energies(transposed(w_q), transposed(z)).sum(axis=-1)


@shaped
def projection_bounds(
    w: Float[np.ndarray, "*batch m d"],
    demonstrations: Float[np.ndarray, "*batch d n"],
    partners: Keys,
    w_q: Float[np.ndarray, "*batch e f"],
) -> ByRank:
    """Return N times UB, `N sum_i |W_r h_i|^2 |partner_i|^2 |W_Q|^2`, with W_V clipped to every
    rank, or with W_K clipped, Example 3.

    With W_V clipped |Delta W_icl| falls as well; with W_K clipped it may rise.

    Arguments:
        w: the one that is clipped.
        demonstrations: H_s.
        partners: what the other one makes of H_s: keys where W_V is clipped, values where W_K is.
        w_q: W_Q; only its norm counts.

    >>> projection_bounds([[3, 0], [0, 2]], [[1], [1]], [[1]], [[1]])
    array([ 9., 13.])
    """
    shares = kept_energies(w, demonstrations) * np.square(partners).sum(axis=-2)[..., None, :]
    return demonstrations.shape[-1] * shares.sum(axis=-1) * squared_norm(w_q)[..., None]


@shaped
def mlp_norms(
    w_mlp: Float[np.ndarray, "*batch d m"], update: Float[np.ndarray, "*batch m e"]
) -> ByRank:
    """Return |Delta W''_icl|^2 itself, `|W_(MLP_r) z|^2`, with W_MLP clipped to every rank, Example
    4; or W_V, to which the same applies. z is what the matrix multiplies from the left.

    >>> mlp_norms([[3, 0], [0, 2]], [[1], [1]])
    array([ 9., 13.])
    """
    return kept_energies(w_mlp, update).sum(axis=-1)
