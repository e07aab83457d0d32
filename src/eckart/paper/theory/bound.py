"""The generalisation bound of Theorem 2, with its noise covariance C_t kept as an N x N Gram
matrix.

What the paper leaves to the reader, and how it is read here (docs/theory.md has a check of each):

- Theorem 1's G_t is a *sum* over demonstrations, G_t = sum_i g_i with g_i = v_i ⊗ u_i; the G_t of
  Section 3.3 is a *mean*, (1/N) sum_i grad_i. Both hold with grad_i = N g_i, which is what is used.
- C_t is the covariance of the mean of b gradients drawn from N without replacement. Its rank is N -
  1 at most; and at most w (w + 1) / 2 for tokens of w numbers, since v_i and u_i are both linear in
  h_i. The latter is less than d = w^2, the number of entries of W: C_t is not positive definite for
  any N, and the bound as printed is infinite. Here the noise has a floor: C_t + floor * I takes
  C_t's place in both of the bound's terms.
- The prior's variance may not depend on the demonstrations: the expectation over them stands
  *inside* the logarithm.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from eckart.errors import EckartError
from eckart.paper.theory.arrays import Keys, Numbers, Values, shaped, squared_norm, transposed
from eckart.paper.theory.attention import (
    Demonstrations,
    Trajectory,
    WKeys,
    WValues,
    descend,
)

Gram = Float[np.ndarray, "*batch n n"]
Squares = Float[np.ndarray, "*batch"]
Variances = Float[np.ndarray, "*batch r"]


@shaped
def demonstration_gram(values: Values, inputs: Keys) -> Gram:
    """Return the inner products `(v_i · v_j) (u_i · u_j)` of the demonstrations' gradients g_i =
    v_i ⊗ u_i, without forming one of them.

    The sum of all entries is |G_t|^2; `Trajectory` has v_i and u_i.

    >>> demonstration_gram([[1, 2]], [[3, 4]])
    array([[ 9., 24.],
           [24., 64.]])
    """
    return (transposed(values) @ values) * (transposed(inputs) @ inputs)


@shaped
def noise_gram(gram: Gram, shots: int) -> Gram:
    """Return the N x N matrix that shares its nonzero eigenvalues with C_t (Section 3.3, before
    Assumption 1): `(N - b) / (b (N - 1)) * N * J gram J` with J = 1 - 1/N the centring matrix.

    Arguments:
        gram: of `demonstration_gram`.
        shots: b, how many of the N demonstrations are shown, from 1 to N; at N there is no noise.

    Raises:
        EckartError: fewer than two demonstrations, or shots out of range.

    >>> noise_gram([[1, 0], [0, 1]], shots=1)
    array([[ 1., -1.],
           [-1.,  1.]])
    """
    n = gram.shape[-1]
    centring = np.eye(n) - 1 / n
    return _spread(n, shots) * (centring @ gram @ centring)


def _spread(n: int, shots: int) -> float:
    """Return by what C_t exceeds the sum of squares of the centred g_i."""
    if n < 2 or not 1 <= shots <= n:
        raise EckartError(
            f"{shots} shots of {n} demonstrations leave no noise covariance; give two"
            " demonstrations or more, and shots from 1 to their number"
        )
    return (n - shots) / (shots * (n - 1)) * n


@shaped
def noisy_trajectory(
    demonstrations: Demonstrations,
    w_v: WValues,
    w_k: WKeys,
    w_q: WKeys,
    shots: int,
    floor: float,
    seed: int,
) -> Trajectory:
    """Return a descent with the noise of Assumption 1, which the seed draws, in every step: the one
    that Theorem 2 bounds.

    W_t = W_(t-1) + G_t + (C_t + floor I)^(1/2) N_t with N_t from N(0, I). The result's steps hold
    their noise, and the gradients and C_t of a layer are those at the noisy W_(t-1) before it.
    Other arguments and errors are those of `trajectory` and `layer_term`.

    >>> one = [[[0.1]]]
    >>> noisy_trajectory([[1, 2, 3]], one, one, one, shots=3, floor=0, seed=0).steps.round(9)
    array([[[0.014]]])
    """
    if floor < 0:
        raise EckartError(f"floor {floor}: give a variance of 0 or more")
    spread, random = _spread(demonstrations.shape[-1], shots), np.random.default_rng(seed)

    def noise(values: np.ndarray, inputs: np.ndarray) -> np.ndarray:
        """Draw (C_t + floor I)^(1/2) N_t: demonstrations with random weights, and every entry a
        little."""
        weights = random.standard_normal((*values.shape[:-2], 1, values.shape[-1]))
        weights -= weights.mean(axis=-1, keepdims=True)
        drawn = np.sqrt(spread) * (values * weights) @ transposed(inputs)
        return drawn + np.sqrt(floor) * random.standard_normal(drawn.shape)

    return descend(demonstrations, w_v, w_k, w_q, noise)


@dataclass(frozen=True, eq=False)
class LayerTerm:
    """One layer's part of Theorem 2, `d log((squared_norm + trace) / d) - log_determinant`, never
    negative.

    Arguments:
        dimension: d, the number of entries of W.
        squared_norm: |Delta W_t|^2 |1 + sum_j G_j|^2, or |G_t|^2.
        trace: tr(C_t + floor I).
        log_determinant: tr log(C_t + floor I); minus infinity where that is singular.
    """

    dimension: int
    squared_norm: Numbers
    trace: Numbers
    log_determinant: Numbers

    @property
    def norm_term(self) -> Numbers:
        """The first half: d log of the mean squared size of a noisy step, an entry."""
        return self.dimension * np.log((self.squared_norm + self.trace) / self.dimension)

    @property
    def value(self) -> Numbers:
        """Twice the bound on what this layer's step tells of the demonstrations, in nats."""
        return self.norm_term - self.log_determinant

    def expected(self) -> LayerTerm:
        """Return the term over draws of the demonstrations, the first axis: means of A_1 and A_2
        (Lemma 6)."""
        parts = (self.squared_norm, self.trace, self.log_determinant)
        return LayerTerm(self.dimension, *(np.mean(part, axis=0) for part in parts))


@shaped
def layer_term(gram: Gram, squared: Squares, shots: int, dimension: int, floor: float) -> LayerTerm:
    """Return one layer's part of Theorem 2, from N x N matrices alone.

    `det(C_t + floor I_d) = floor^(d - N) det(A^T A + floor I_N)` where C_t = A A^T.

    Arguments:
        gram: of `demonstration_gram`.
        squared: |Delta W_t|^2 |1 + sum_j G_j|^2 as Theorem 2 has it; or the smaller |G_t|^2, the
            sum of the Gram matrix's entries, as Lemma 6 has it before Eq. (19).
        shots: b, as for `noise_gram`.
        dimension: d, the number of entries of W.
        floor: the variance of the noise in every direction beside C_t's, at least 0. At 0 the term
            is infinite where C_t is singular.

    Raises:
        EckartError: shots are out of range, or the dimension or floor is negative.

    >>> term = layer_term([[1, 0], [0, 1]], 2, shots=1, dimension=4, floor=1)
    >>> determinant = np.exp(term.log_determinant)
    >>> [float(value.round(9)) for value in (term.trace, determinant, term.norm_term)]
    [6.0, 3.0, 2.772588722]
    """
    if dimension < 1 or floor < 0:
        raise EckartError(
            f"dimension {dimension} and floor {floor}: give 1 entry or more, and a variance of 0 or"
            " more"
        )
    return floored_term(noise_variances(gram, shots, dimension), squared, dimension, floor)


@shaped
def noise_variances(gram: Gram, shots: int, dimension: int) -> Variances:
    """Return the eigenvalues of C_t that may be above 0, the largest first, with zeros for those
    that are none but for rounding; arguments and errors are those of `layer_term`.

    >>> noise_variances([[1, 0], [0, 1]], shots=1, dimension=4)
    array([2.])
    """
    noise = noise_gram(gram, shots)
    # The rank that C_t can have; its other eigenvalues are zero.
    most = min(noise.shape[-1] - 1, dimension)
    eigenvalues = np.linalg.eigvalsh(noise)[..., ::-1][..., :most]
    least = 10 * most * np.finfo(float).eps * eigenvalues[..., :1]
    return np.where(eigenvalues > least, eigenvalues, 0.0)


@shaped
def floored_term(variances: Variances, squared: Squares, dimension: int, floor: float) -> LayerTerm:
    """Return one layer's part of Theorem 2 from `noise_variances`, which several floors share;
    other arguments are those of `layer_term`."""
    rank = variances.shape[-1]
    with np.errstate(divide="ignore"):
        rest = (dimension - rank) * np.log(floor) if dimension > rank else 0.0
        log_determinant = np.log(variances + floor).sum(axis=-1) + rest
    trace = variances.sum(axis=-1) + dimension * floor
    return LayerTerm(dimension, squared, trace, log_determinant)


def trajectory_terms(trajectory: Trajectory, shots: int, floor: float) -> list[LayerTerm]:
    """Return every layer's part of Theorem 2 for a stack of linear attention blocks; see
    `layer_term`.

    >>> from eckart.paper.theory.attention import trajectory
    >>> one = [[[0.1]]]
    >>> terms = trajectory_terms(trajectory([[1, 2, 3]], one, one, one), shots=1, floor=0.01)
    >>> [(term.dimension, float(term.value.round(3))) for term in terms]
    [(1, 0.019)]
    """
    grams = demonstration_gram(trajectory.values, trajectory.inputs)
    squares = squared_norm(trajectory.updates) * squared_norm(trajectory.maps)
    dimension = trajectory.updates.shape[-1] ** 2
    return [
        layer_term(grams[..., t, :, :], squares[..., t], shots, dimension, floor)
        for t in range(grams.shape[-3])
    ]


def generalization_bound(terms: Sequence[LayerTerm], n: int, subgaussian: float = 1.0) -> Numbers:
    """Return the bound on the expected generalisation error, Theorem 2: `sqrt(R^2 / N * sum of the
    terms)`, in units of the loss; infinite where a C_t is singular.

    It is the bound for one draw of the demonstrations; over several, hand in each term's
    `expected()`.

    Arguments:
        terms: one for each layer.
        n: N, the number of demonstrations.
        subgaussian: R, in units of the loss.

    Raises:
        EckartError: n or subgaussian is not positive, or there are no terms.

    >>> term = LayerTerm(1, np.array(2.0), np.array(1.0), np.array(0.0))
    >>> float(generalization_bound([term], n=4).round(3))
    0.524
    """
    if n < 1 or subgaussian <= 0 or not terms:
        raise EckartError(
            f"{len(terms)} layers, N = {n} and R = {subgaussian} give no bound; all of them are to"
            " be positive"
        )
    return np.sqrt(subgaussian**2 / n * np.sum([term.value for term in terms], axis=0))
