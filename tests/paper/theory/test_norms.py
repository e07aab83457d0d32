"""Examples 1 to 4 against truncations that are formed one by one."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eckart import EckartError
from eckart.paper.theory.attention import implicit_update
from eckart.paper.theory.norms import (
    kept_energies,
    mlp_norms,
    projection_bounds,
    q_norms,
    qkv_bounds,
    truncate,
    upper_bound,
)


def close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


def cut(w, rank):
    """Return the sum of a matrix's leading singular parts; whole, where it has no more."""
    u, s, vt = np.linalg.svd(w)
    return sum(s[i] * np.outer(u[:, i], vt[i]) for i in range(min(rank, len(s))))


def rising(values):
    return bool((np.diff(values) >= -1e-12 * values[-1]).all())


@st.composite
def layers(draw):
    """Demonstrations (d, N), W_V (m, d), W_K and W_Q (k, d), W_MLP (p, m)."""
    d, m, k, n, p = (draw(st.integers(1, 5)) for _ in range(5))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    return tuple(
        random.standard_normal(shape) for shape in ((d, n), (m, d), (k, d), (k, d), (p, m))
    )


@given(layers())
def test_truncation_and_what_it_keeps(layer):
    h, w, *_ = layer
    energies = kept_energies(w, h)
    assert len(energies) == min(w.shape)
    for rank in range(1, min(w.shape) + 1):
        close(truncate(w, rank), cut(w, rank))
        close(energies[rank - 1], [np.sum((cut(w, rank) @ column) ** 2) for column in h.T])


def bound_of(h, w_v, w_k, w_q):
    """Return UB of Example 1, token by token."""
    return sum(np.sum(np.outer(w_v @ x, w_k @ x) ** 2) for x in h.T) * np.sum(w_q**2)


@given(layers())
def test_example_1(layer):
    h, w_v, w_k, w_q, _ = layer
    found, n = qkv_bounds(h, w_v, w_k, w_q), h.shape[1]
    close(upper_bound(w_v @ h, w_k @ h, w_q), bound_of(h, w_v, w_k, w_q))
    assert len(found) == max(min(w.shape) for w in (w_v, w_k, w_q))
    assert rising(found)
    for rank, bound in enumerate(found, start=1):
        clipped = [cut(w, rank) for w in (w_v, w_k, w_q)]
        close(bound, n * bound_of(h, *clipped))
        update = implicit_update(clipped[0] @ h, clipped[1] @ h, clipped[2])
        assert np.sum(update**2) <= bound * (1 + 1e-9)


@given(layers())
def test_example_2(layer):
    h, w_v, w_k, w_q, _ = layer
    found = q_norms(w_v @ h, w_k @ h, w_q)
    assert rising(found)
    z = (w_v @ h) @ (w_k @ h).T
    for rank, norm in enumerate(found, start=1):
        close(norm, np.sum((z @ cut(w_q, rank)) ** 2))
        close(norm + np.sum((z @ (w_q - cut(w_q, rank))) ** 2), np.sum((z @ w_q) ** 2))


@given(layers())
def test_example_3(layer):
    h, w_v, w_k, w_q, _ = layer
    of_values, of_keys = (
        projection_bounds(w_v, h, w_k @ h, w_q),
        projection_bounds(w_k, h, w_v @ h, w_q),
    )
    assert rising(of_values)
    assert rising(of_keys)
    for rank, bound in enumerate(of_values, start=1):
        close(bound, h.shape[1] * bound_of(h, cut(w_v, rank), w_k, w_q))
    for rank, bound in enumerate(of_keys, start=1):
        close(bound, h.shape[1] * bound_of(h, w_v, cut(w_k, rank), w_q))


@given(layers())
def test_example_4(layer):
    h, w_v, w_k, w_q, w_mlp = layer
    update = implicit_update(w_v @ h, w_k @ h, w_q)
    found = mlp_norms(w_mlp, update)
    assert rising(found)
    for rank, norm in enumerate(found, start=1):
        close(norm, np.sum((cut(w_mlp, rank) @ update) ** 2))


def test_ub_alone_is_no_bound():
    h = np.ones((1, 3))
    one = np.ones((1, 1))
    assert np.sum(implicit_update(h, h, one) ** 2) == 9
    assert upper_bound(h, h, one) == 3
    assert qkv_bounds(h, one, one, one)[-1] == pytest.approx(9)


def test_a_batch_is_one_after_the_other():
    random = np.random.default_rng(0)
    h, w_v, w_k, w_q = (
        random.standard_normal((2, *shape)) for shape in ((3, 4), (2, 3), (3, 3), (3, 3))
    )
    batch = qkv_bounds(h, w_v, w_k, w_q)
    close(batch, [qkv_bounds(h[i], w_v[i], w_k[i], w_q[i]) for i in range(2)])
    close(
        projection_bounds(w_v, h, w_k @ h, w_q)[1],
        projection_bounds(w_v[1], h[1], w_k[1] @ h[1], w_q[1]),
    )


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: truncate(np.ones((2, 3)), 3), "rank 3 of a 2 x 3 matrix"),
        (lambda: truncate(np.ones((2, 3)), 0), "rank 0"),
        (lambda: truncate(np.ones(3), 1), "w has shape"),
        (lambda: kept_energies(np.ones((2, 3)), np.ones((2, 3))), "x has shape"),
        (lambda: upper_bound(np.ones((2, 3)), np.ones((2, 3)), np.ones((3, 2))), "w_q has shape"),
        (
            lambda: qkv_bounds(np.ones((2, 3)), np.ones((2, 3)), np.eye(2), np.eye(2)),
            "w_v has shape",
        ),
        (lambda: q_norms(np.ones((2, 3)), np.ones((2, 2)), np.eye(2)), "keys has shape"),
        (
            lambda: projection_bounds(np.eye(2), np.ones((2, 3)), np.ones((2, 4)), np.eye(2)),
            "partners has",
        ),
        (lambda: mlp_norms(np.ones((2, 3)), np.ones((2, 3))), "update has shape"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(call, says):
    with pytest.raises(EckartError, match=says) as refused:
        call()
    assert "\n" not in str(refused.value)
