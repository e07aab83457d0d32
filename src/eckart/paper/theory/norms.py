"""The norms of clipped implicit gradients, Examples 1 to 4 (Section 3.3, Appendix B.6).

All ranks at once: with W = sum_i sigma_i a_i b_i^T, the clipped W_r has
`|W_r x|^2 = sum_(i <= r) sigma_i^2 (b_i · x)^2`, because the parts that are kept and dropped are
orthogonal.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from eckart.errors import EckartError
from eckart.paper.theory.arrays import Numbers, shaped, squared_norm, transposed


@shaped
def truncate(w: Float[np.ndarray, "*batch m n"], rank: int) -> Float[np.ndarray, "*batch m n"]:
    """Return the closest matrix of a rank, W_r of Section 2 (Eckart-Young).

    Arguments:
        w: (m, n).
        rank: r, from 1 to min(m, n).

    Raises:
        EckartError: w is no matrix, or has no such rank.

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
def kept_energies(
    w: Float[np.ndarray, "*batch m k"], x: Float[np.ndarray, "*batch k n"]
) -> Float[np.ndarray, "*batch r n"]:
    """Return |W_r x_j|^2 for every rank r and column x_j, Example 1's first step.

    Arguments:
        w: (m, k).
        x: (k, n).

    Returns:
        (min(m, k), n): row r - 1 is that of rank r, and no row is below the one before it.

    Raises:
        EckartError: shapes do not fit.

    >>> kept_energies([[3, 0], [0, 2]], [[1, 0], [1, 1]])
    array([[ 9.,  0.],
           [13.,  4.]])
    """
    _, s, vt = np.linalg.svd(w, full_matrices=False)
    return np.cumsum(np.square(s[..., None] * (vt @ x)), axis=-2)


@shaped
def upper_bound(
    values: Float[np.ndarray, "*batch m n"],
    keys: Float[np.ndarray, "*batch k n"],
    w_q: Float[np.ndarray, "*batch k d"],
) -> Numbers:
    """Return UB of Example 1, `sum_i |W_V h_i|^2 |W_K h_i|^2 |W_Q|^2`.

    It is no bound on |Delta W_icl|^2: demonstrations that agree add up, and the square of a sum is
    up to N times the sum of squares. N times UB is one, by Cauchy and Schwarz.

    Arguments:
        values, keys, w_q: as for `implicit_update`.

    Raises:
        EckartError: shapes do not fit.

    >>> float(upper_bound([[1, 1]], [[1, 1]], [[1]]))  # and |Delta W_icl|^2 = |1 + 1|^2 = 4
    2.0
    """
    return (np.square(values).sum(axis=-2) * np.square(keys).sum(axis=-2)).sum(
        axis=-1
    ) * squared_norm(w_q)


@shaped
def qkv_bounds(
    demonstrations: Float[np.ndarray, "*batch d n"],
    w_v: Float[np.ndarray, "*batch m d"],
    w_k: Float[np.ndarray, "*batch k d"],
    w_q: Float[np.ndarray, "*batch k e"],
) -> Float[np.ndarray, "*batch ranks"]:
    """Return N times UB for W_V, W_K and W_Q clipped to the same rank, Example 1.

    Arguments:
        demonstrations: (d, N), H_s.
        w_v, w_k, w_q: (m, d), (k, d), (k, e).

    Returns:
        (R,), N UB(|Delta W_icl(r)|^2) for r = 1 to R, the largest of the three ranks: a smaller
        matrix is whole before that. It bounds the squared norm of the clipped Delta W_icl, and no
        entry is below the one before it.

    Raises:
        EckartError: shapes do not fit.

    >>> eye = [[1, 0], [0, 1]]
    >>> qkv_bounds([[1], [1]], [[2, 0], [0, 1]], eye, eye)
    array([ 4., 20.])
    """
    by_v, by_k = kept_energies(w_v, demonstrations), kept_energies(w_k, demonstrations)
    by_q = np.cumsum(np.square(np.linalg.svd(w_q, compute_uv=False)), axis=-1)[..., None]
    ranks = max(energies.shape[-2] for energies in (by_v, by_k, by_q))
    by_v, by_k, by_q = (_up_to(ranks, energies) for energies in (by_v, by_k, by_q))
    return demonstrations.shape[-1] * (by_v * by_k * by_q).sum(axis=-1)


@shaped
def q_norms(
    values: Float[np.ndarray, "*batch m n"],
    keys: Float[np.ndarray, "*batch k n"],
    w_q: Float[np.ndarray, "*batch k d"],
) -> Float[np.ndarray, "*batch ranks"]:
    """Return |Delta W_icl|^2 itself with W_Q clipped to every rank, Example 2.

    Arguments:
        values, keys, w_q: as for `implicit_update`.

    Returns:
        (min(k, d),), `|z W_(Q_r)|^2` with z = W_V H_s (W_K H_s)^T; no entry is below the one before
        it. Eq. (20) holds
        here, with equality: `|z W_Q|^2 = |z W_(Q_r)|^2 + |z delta_Q|^2`.

    Raises:
        EckartError: shapes do not fit.

    >>> q_norms([[1]], [[1], [1]], [[3, 0], [0, 2]])
    array([ 9., 13.])
    """
    z = values @ transposed(keys)
    return kept_energies(transposed(w_q), transposed(z)).sum(axis=-1)


@shaped
def projection_bounds(
    w: Float[np.ndarray, "*batch m d"],
    demonstrations: Float[np.ndarray, "*batch d n"],
    partners: Float[np.ndarray, "*batch k n"],
    w_q: Float[np.ndarray, "*batch e f"],
) -> Float[np.ndarray, "*batch ranks"]:
    """Return N times UB with W_V clipped to every rank, or with W_K clipped, Example 3.

    Arguments:
        w: (m, d), the one that is clipped.
        demonstrations: (d, N), H_s.
        partners: (k, N), what the other one makes of H_s: keys where W_V is clipped, values where
            W_K is.
        w_q: W_Q; only its norm counts.

    Returns:
        (min(m, d),), `N sum_i |W_r h_i|^2 |partner_i|^2 |W_Q|^2`; no entry is below the one before
        it. With W_V clipped |Delta W_icl| falls as well; with W_K clipped it may rise.

    Raises:
        EckartError: shapes do not fit.

    >>> projection_bounds([[3, 0], [0, 2]], [[1], [1]], [[1]], [[1]])
    array([ 9., 13.])
    """
    shares = kept_energies(w, demonstrations) * np.square(partners).sum(axis=-2)[..., None, :]
    return demonstrations.shape[-1] * shares.sum(axis=-1) * squared_norm(w_q)[..., None]


@shaped
def mlp_norms(
    w_mlp: Float[np.ndarray, "*batch d m"], update: Float[np.ndarray, "*batch m e"]
) -> Float[np.ndarray, "*batch ranks"]:
    """Return |Delta W''_icl|^2 itself with W_MLP clipped to every rank, Example 4.

    Arguments:
        w_mlp: (d, m), or W_V, to which the same applies.
        update: (m, e), z of Example 4: what the matrix multiplies from the left.

    Returns:
        (min(d, m),), `|W_(MLP_r) z|^2`; no entry is below the one before it.

    Raises:
        EckartError: shapes do not fit.

    >>> mlp_norms([[3, 0], [0, 2]], [[1], [1]])
    array([ 9., 13.])
    """
    return kept_energies(w_mlp, update).sum(axis=-1)


def _up_to(ranks: int, energies: np.ndarray) -> np.ndarray:
    """Repeat the last rank's row, where a matrix is whole before the others."""
    return np.take(energies, np.minimum(np.arange(ranks), energies.shape[-2] - 1), axis=-2)
