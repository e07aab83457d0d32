"""Appendix B.2 and B.3 against attention itself, against explicit features, and against plain
loops."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eckart import EckartError
from eckart.paper.theory.attention import implicit_update, softmax_attention
from eckart.paper.theory.duals import (
    gated_update,
    log_kernel,
    log_singular_values,
    mlp_relaxation,
    mlp_update,
    relu,
    softmax_dual,
)


def close(found, expected, rtol=1e-10):
    np.testing.assert_allclose(found, expected, rtol=rtol, atol=1e-12)


@st.composite
def heads(draw, least=0):
    """Values (m, N), keys (k, N), a query (k,), other keys (k, o)."""
    m, k, n, o = (draw(st.integers(low, 5)) for low in (1, 1, least, 0 if least else 1))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    return tuple(random.standard_normal(shape) for shape in ((m, n), (k, n), (k,), (k, o)))


@given(heads(), st.floats(0.5, 9))
def test_the_dual_is_attention(head, d_scale):
    values, keys, query, others = head
    scores = [math.exp(key @ query / math.sqrt(d_scale)) for key in (*keys.T, *others.T)]
    expected = sum(
        (s / sum(scores) * v for s, v in zip(scores, values.T, strict=False)), np.zeros(len(values))
    )
    dual = softmax_dual(values, keys, query, others, d_scale)
    close(dual.update, expected)
    close(dual.log_normaliser, math.log(sum(scores)))
    close(dual.log_query_norm, query @ query / math.sqrt(d_scale) / 2)


@given(heads(least=1))
def test_the_norm_is_that_of_the_sum_over_pairs(head):
    values, keys, query, others = head
    dual, n = softmax_dual(*head), keys.shape[1]
    total = sum(
        (values[:, i] @ values[:, j]) * math.exp(keys[:, i] @ keys[:, j])
        for i in range(n)
        for j in range(n)
    )
    normaliser = sum(math.exp(key @ query) for key in (*keys.T, *others.T))
    close(math.exp(2 * dual.log_norm), total / normaliser**2, rtol=1e-8)
    assert np.linalg.norm(dual.update) <= math.exp(dual.log_norm + dual.log_query_norm) * (1 + 1e-9)


def features(x, degree=30):
    """The softmax kernel's own features of a number: x^p / sqrt(p!), from the series of exp(x
    y)."""
    return np.array([x**p / math.sqrt(math.factorial(p)) for p in range(degree)])


def test_the_norm_is_that_of_the_matrix_of_explicit_features():
    values, keys, query, other = (
        np.array([[1.0, -2.0, 0.5]]),
        np.array([[0.3, -1.1, 0.7]]),
        0.9,
        -0.4,
    )
    phi = np.stack([features(key) for key in keys[0]], axis=1)
    normaliser = phi.sum(axis=1) @ features(query) + features(other) @ features(query)
    update = values @ phi.T / normaliser
    dual = softmax_dual(values, keys, [query], [[other]])
    close(dual.update, update @ features(query))
    close(math.exp(dual.log_norm), np.linalg.norm(update))
    close(math.exp(dual.log_query_norm), np.linalg.norm(features(query)))


def test_the_singular_values_are_those_of_the_matrix_of_explicit_features():
    values, keys = np.array([[1.0, -2.0, 0.5], [0.5, 1.0, 2.0]]), np.array([[0.5, -1.0, 2.0]])
    phi = np.stack([features(key) for key in keys[0]], axis=1)
    found = np.exp(log_singular_values(values, log_kernel(keys, keys)))
    close(found, np.linalg.svd(values @ phi.T)[1])


@given(heads(least=1))
def test_the_squared_singular_values_add_up_to_the_squared_norm(head):
    values, keys, query, others = head
    logs, dual = (
        log_singular_values(values, log_kernel(keys, keys)),
        softmax_dual(values, keys, query, others),
    )
    assert len(logs) == len(values)
    assert sorted(logs, reverse=True) == logs.tolist()
    if np.isfinite(dual.log_norm) and logs[0] > np.log(1e-5):
        close(np.log(np.exp(2 * logs).sum()) / 2, dual.log_norm + dual.log_normaliser, rtol=1e-6)


def test_there_are_no_more_singular_values_than_demonstrations():
    values, keys = np.random.default_rng(0).standard_normal((2, 6, 3))
    logs = log_singular_values(values, log_kernel(keys, keys))
    assert (logs > logs[0] + np.log(1e-6)).sum() == 3


def test_eq_2_is_the_last_column_of_eq_1():
    random = np.random.default_rng(1)
    h, w_v, w_k, w_q = random.standard_normal((3, 5)), *random.standard_normal((3, 3, 3))
    sample, token = h[:, :-1], h[:, -1]
    dual = softmax_dual(w_v @ sample, w_k @ sample, w_q @ token, (w_k @ token)[:, None], d_scale=3)
    close(token + dual.update, softmax_attention(h, w_v, w_k, w_q, d_scale=3)[:, -1])


def test_keys_of_real_models_do_not_overflow():
    keys = np.full((4, 3), 40.0)  # exp(6,400)
    dual = softmax_dual(np.eye(3), keys, np.full(4, 40.0), keys[:, :1])
    close(dual.update, [0.25] * 3)
    close(dual.log_norm, (math.log(3) + 6400) / 2 - (math.log(4) + 6400))


def test_what_is_added_to_every_key_changes_the_norm_and_not_the_attention():
    random = np.random.default_rng(2)
    values, keys, query, others = (
        random.standard_normal(shape) for shape in ((2, 3), (2, 3), 2, (2, 1))
    )
    before, after = (softmax_dual(values, keys + c, query, others + c) for c in (0.0, 1.5))
    close(before.update, after.update)
    assert abs(before.log_norm - after.log_norm) > 0.1


def test_without_demonstrations_nothing_is_added():
    dual = softmax_dual(np.ones((2, 0)), np.ones((3, 0)), np.ones(3), np.ones((3, 1)))
    assert dual.update.tolist() == [0, 0]
    assert dual.log_norm == -math.inf


@pytest.mark.parametrize("activation", [relu, np.tanh])
def test_the_mlp_with_and_without_activation(activation):
    random = np.random.default_rng(3)
    w_out, w_in, x = (random.standard_normal(shape) for shape in ((3, 7), (7, 4), 4))
    exact, relaxed = np.zeros(3), np.zeros(3)
    for unit in range(7):
        inner = sum(w_in[unit, j] * x[j] for j in range(4))
        exact += w_out[:, unit] * activation(np.array([inner]))
        relaxed += w_out[:, unit] * inner
    found = mlp_relaxation(w_out, w_in, x, activation)
    close(found.exact, exact)
    close(found.relaxed, relaxed)
    close(found.error, relaxed - exact)


@given(heads(least=1))
def test_the_mlp_duals(head):
    values, keys, _, _ = head
    random = np.random.default_rng(len(values))
    w_q, token = random.standard_normal((len(keys), 3)), random.standard_normal(3)
    w_in, w_out = random.standard_normal((6, len(values))), random.standard_normal((2, 6))
    update = implicit_update(values, keys, w_q)
    hidden = [row @ (update @ token) for row in w_in]
    close(mlp_update(w_out @ w_in, update) @ token, w_out @ hidden)
    close(gated_update(w_out, w_in, update, token) @ token, w_out @ [max(0.0, z) for z in hidden])


def test_the_log_kernel_of_points():
    close(log_kernel([[1, 2], [0, 1]], [[3], [4]], d_scale=4), [[1.5], [5.0]])


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (
            lambda: softmax_dual(np.ones((2, 3)), np.ones((2, 4)), np.ones(2), np.ones((2, 1))),
            "keys",
        ),
        (
            lambda: softmax_dual(
                np.ones((2, 3)), np.ones((2, 3)), np.ones((2, 1)), np.ones((2, 1))
            ),
            "query",
        ),
        (lambda: log_kernel(np.ones((2, 3)), np.ones((2, 3)), d_scale=0), "d_scale 0"),
        (lambda: log_kernel(np.ones((2, 3)), np.ones((3, 3))), "y has shape (3, 3)"),
        (lambda: mlp_update(np.ones((2, 3)), np.ones((2, 3))), "update"),
        (lambda: mlp_relaxation(np.ones((2, 3)), np.ones((3, 4)), np.ones(3)), "x has shape (3,)"),
        (
            lambda: gated_update(np.ones((2, 3)), np.ones((3, 4)), np.ones((4, 2)), np.ones(3)),
            "token",
        ),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(call, says):
    with pytest.raises(EckartError, match=says.replace("(", r"\(").replace(")", r"\)")) as refused:
        call()
    assert "\n" not in str(refused.value)
