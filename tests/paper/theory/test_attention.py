"""Eq. (1) to (3), Lemma 1 and Theorem 1 against the same in plain loops."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eckart import EckartError
from eckart.paper.theory.attention import (
    forward,
    implicit_update,
    linear_attention,
    mask,
    softmax_attention,
    trajectory,
    update_terms,
)

settings.register_profile("theory", derandomize=True, deadline=None, max_examples=30, database=None)
settings.load_profile("theory")


def close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-12)


@st.composite
def stacks(draw):
    """Tokens and the projections of some layers: (d, N + 1), (L, d, d), (L, k, d), (L, k, d)."""
    d, k, n = draw(st.integers(1, 5)), draw(st.integers(1, 5)), draw(st.integers(0, 6))
    layers = draw(st.integers(1, 4))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    projections = (
        random.standard_normal((layers, rows, d)) / math.sqrt(2 * d) for rows in (d, k, k)
    )
    return random.standard_normal((d, n + 1)) / math.sqrt(n + 1), *projections


def attended(h, w_v, w_k, w_q, weight):
    """Attend token by token: `weight` turns the scores of all keys into what each value is
    multiplied with."""
    tokens, out = h.shape[1], np.array(h)
    for j in range(tokens):
        query = w_q @ h[:, j]
        scores = [float((w_k @ h[:, i]) @ query) for i in range(tokens)]
        shares = weight(scores)
        for i in range(tokens - 1):  # the mask: no value from the test token
            out[:, j] += shares[i] * (w_v @ h[:, i])
    return out


@given(stacks(), st.floats(0.5, 9))
def test_softmax_attention(stack, d_scale):
    h, w_v, w_k, w_q = stack

    def softmax(scores):
        parts = [math.exp(score / math.sqrt(d_scale)) for score in scores]
        return [part / sum(parts) for part in parts]

    found = softmax_attention(h, w_v[0], w_k[0], w_q[0], d_scale=d_scale)
    close(found, attended(h, w_v[0], w_k[0], w_q[0], softmax))


@given(stacks())
def test_linear_attention(stack):
    h, w_v, w_k, w_q = stack
    found = linear_attention(h, w_v[0], w_k[0], w_q[0])
    close(found, attended(h, w_v[0], w_k[0], w_q[0], lambda scores: scores))


def test_the_mask_keeps_the_demonstrations():
    assert mask(3).tolist() == np.diag([1, 1, 1, 0]).tolist()


@given(stacks())
def test_the_implicit_update_is_the_sum_of_its_terms_and_moves_the_token(stack):
    h, w_v, w_k, w_q = (array if array.ndim == 2 else array[0] for array in stack)
    sample = h[:, :-1]
    update, terms = (f(w_v @ sample, w_k @ sample, w_q) for f in (implicit_update, update_terms))
    expected = np.zeros((len(h), len(h)))
    for i, term in enumerate(terms):
        outer = np.array([[v * k for k in w_k @ sample[:, i]] for v in w_v @ sample[:, i]]) @ w_q
        close(term, outer)
        expected += outer
    close(update, expected)
    close(h[:, -1] + update @ h[:, -1], linear_attention(h, w_v, w_k, w_q)[:, -1])


@given(stacks())
def test_the_forward_pass_is_layer_after_layer(stack):
    h, w_v, w_k, w_q = stack
    states = forward(h, w_v, w_k, w_q)
    assert states.shape == (len(w_v) + 1, *h.shape)
    for t in range(len(w_v)):
        close(states[t + 1], attended(states[t], w_v[t], w_k[t], w_q[t], lambda scores: scores))


@given(stacks())
def test_theorem_1(stack):
    h, w_v, w_k, w_q = stack
    found, states = trajectory(h[:, :-1], w_v, w_k, w_q), forward(h, w_v, w_k, w_q)
    total, eye = np.zeros((len(h), len(h))), np.eye(len(h))
    for t in range(len(w_v)):
        past = states[t][:, :-1]
        update = sum(
            (
                np.outer(w_v[t] @ past[:, i], w_k[t] @ past[:, i]) @ w_q[t]
                for i in range(past.shape[1])
            ),
            np.zeros_like(total),
        )
        close(found.updates[t], update)
        close(found.maps[t], eye + total)
        close(found.steps[t], update @ (eye + total))
        close(found.values[t] @ found.inputs[t].T, found.steps[t])
        total = total + update @ (eye + total)
        close(found.weights[t + 1], total)
        close(h + found.weights[t + 1] @ h, states[t + 1])
    assert not found.weights[0].any()


@given(stacks())
def test_remark_1(stack):
    h, w_v, w_k, w_q = stack
    found = trajectory(h[:, :-1], w_v, w_k, w_q)
    for matrix in (*found.updates, *found.steps):
        assert (
            np.linalg.matrix_rank(matrix, tol=1e-9 * max(1, np.abs(matrix).max())) <= h.shape[1] - 1
        )


def test_a_batch_is_one_after_the_other():
    random = np.random.default_rng(0)
    h, w = random.standard_normal((2, 3, 4, 5)), random.standard_normal((2, 3, 2, 4, 4)) / 4
    batch = trajectory(h[..., :-1], w, w, w)
    attention = softmax_attention(h, *[w[..., 0, :, :]] * 3)
    for place in np.ndindex(2, 3):
        one = trajectory(h[place][:, :-1], w[place], w[place], w[place])
        for name in ("values", "inputs", "updates", "steps", "weights", "maps"):
            close(getattr(batch, name)[place], getattr(one, name))
        close(attention[place], softmax_attention(h[place], *[w[place][0]] * 3))


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (
            lambda: softmax_attention(
                np.ones((2, 3)), np.ones((2, 2)), np.ones((4, 2)), np.ones((3, 2))
            ),
            "w_q",
        ),
        (
            lambda: linear_attention(
                np.ones((2, 3)), np.ones((3, 3)), np.ones((2, 2)), np.ones((2, 2))
            ),
            "w_v",
        ),
        (
            lambda: implicit_update(np.ones((2, 3)), np.ones((2, 4)), np.ones((2, 2))),
            "(..., k, n) beside values (2, 3)",
        ),
        (
            lambda: update_terms(np.ones(3), np.ones((2, 3)), np.ones((2, 2))),
            "values has shape (3,)",
        ),
        (lambda: forward(np.ones((2, 3)), *[np.ones((2, 2))] * 3), "w_v has shape (2, 2)"),
        (lambda: trajectory(np.ones((2, 3)), *[np.ones((1, 3, 3))] * 3), "(1, 3, 3)"),
        (lambda: trajectory(np.ones((2, 3)), *[np.ones((0, 2, 2))] * 3), "no layers"),
        (lambda: implicit_update([["a"]], np.ones((1, 1)), np.ones((1, 1))), "no array of numbers"),
        (
            lambda: implicit_update([[1], [2, 3]], np.ones((1, 1)), np.ones((1, 1))),
            "no array of numbers",
        ),
        (lambda: implicit_update([[np.nan]], np.ones((1, 1)), np.ones((1, 1))), "NaN or infinity"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(call, says):
    with pytest.raises(EckartError) as refused:
        call()
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)


def test_lists_and_tensors_are_arrays():
    torch = pytest.importorskip("torch")
    close(implicit_update(torch.ones(1, 2), [[1, 2]], np.ones((1, 1), np.float32)), [[3.0]])
