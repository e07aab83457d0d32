"""Theorem 2 against the same with d x d matrices, from gradients that are formed one by one."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eckart import EckartError
from eckart.paper.theory.attention import trajectory
from eckart.paper.theory.bound import (
    LayerTerm,
    demonstration_gram,
    generalization_bound,
    layer_term,
    noise_gram,
    trajectory_terms,
)


def close(found, expected, rtol=1e-10):
    np.testing.assert_allclose(found, expected, rtol=rtol, atol=1e-12)


@st.composite
def samples(draw):
    """Values (m, N), inputs (k, N) and how many of the N are shown."""
    m, k, n = draw(st.integers(1, 4)), draw(st.integers(1, 4)), draw(st.integers(2, 7))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    return random.standard_normal((m, n)), random.standard_normal((k, n)), draw(st.integers(1, n))


def gradients(values, inputs):
    """Return grad_i = N g_i, flat, one a row."""
    n = values.shape[1]
    return [n * np.outer(values[:, i], inputs[:, i]).ravel() for i in range(n)]


def covariance(grads, shots):
    """C_t of Section 3.3, d x d, term by term."""
    n, mean = len(grads), sum(grads) / len(grads)
    spread = sum(np.outer(g, g) for g in grads) / n - np.outer(mean, mean)
    return (n - shots) / (shots * (n - 1)) * spread


@given(samples())
def test_the_gram_matrix_is_that_of_the_gradients(sample):
    values, inputs, _ = sample
    grads = [g / len(gradients(values, inputs)) for g in gradients(values, inputs)]
    found = demonstration_gram(values, inputs)
    close(found, [[a @ b for b in grads] for a in grads])
    close(found.sum(), sum(grads) @ sum(grads))


@given(samples())
def test_the_noise_has_the_covariance_s_eigenvalues(sample):
    values, inputs, shots = sample
    dense = np.linalg.eigvalsh(covariance(gradients(values, inputs), shots))[::-1]
    small = np.linalg.eigvalsh(noise_gram(demonstration_gram(values, inputs), shots))[::-1]
    both = min(len(dense), len(small))
    close(small[:both], dense[:both], rtol=1e-8)
    assert np.abs(np.concatenate([dense[both:], small[both:]])).max(initial=0) < 1e-10 * max(
        1, dense.max()
    )


@given(samples(), st.floats(1e-4, 10))
def test_a_layer_s_term_is_that_of_the_dense_covariance(sample, floor):
    values, inputs, shots = sample
    grads = gradients(values, inputs)
    d, step = len(grads[0]), sum(grads) / len(grads)
    noise = covariance(grads, shots) + floor * np.eye(d)
    found = layer_term(demonstration_gram(values, inputs), step @ step, shots, d, floor)
    close(found.trace, np.trace(noise))
    close(found.log_determinant, np.linalg.slogdet(noise)[1], rtol=1e-8)
    close(found.norm_term, d * math.log((step @ step + np.trace(noise)) / d))
    close(found.value, found.norm_term - found.log_determinant)
    assert found.value >= -1e-9 * max(1, abs(found.norm_term))


def a_stack(n=9, d=2, layers=3, seed=0):
    random = np.random.default_rng(seed)
    weights = (random.standard_normal((layers, d, d)) / 2 for _ in range(3))
    return trajectory(random.standard_normal((d, n)) / 3, *weights)


def test_theorem_2_as_printed():
    path, shots, floor, n = a_stack(), 4, 1e-3, 9
    total, before = 0.0, np.zeros((2, 2))
    for t in range(3):
        noise = covariance(gradients(path.values[t], path.inputs[t]), shots) + floor * np.eye(4)
        squared = np.sum(path.updates[t] ** 2) * np.sum((np.eye(2) + before) ** 2)
        total += (
            4 * math.log((squared + np.trace(noise)) / 4) - np.log(np.linalg.eigvalsh(noise)).sum()
        )
        before = before + path.steps[t]
    bound = generalization_bound(trajectory_terms(path, shots, floor), n, subgaussian=2.0)
    close(bound, math.sqrt(2.0**2 / n * total), rtol=1e-8)


def test_without_a_floor_the_bound_is_finite_where_the_noise_fills_the_space():
    random = np.random.default_rng(0)
    gram = demonstration_gram(random.standard_normal((2, 9)), random.standard_normal((2, 9)))
    noise = layer_term(gram, gram.sum(), shots=4, dimension=4, floor=0.0)
    assert 0 < generalization_bound([noise], 9) < 10


def test_noise_that_is_small_is_not_taken_for_none():
    gram = np.diag([1.0, 1e-6, 1e-12])
    term = layer_term(gram, 1.0, shots=1, dimension=2, floor=0.0)
    close(
        term.log_determinant, np.log(np.linalg.eigvalsh(noise_gram(gram, 1))[1:]).sum(), rtol=1e-6
    )


@pytest.mark.parametrize(
    ("n", "shots"), [(4, 2), (9, 9), (50, 25)]
)  # with 50, C_t still has rank 3 of 4
def test_without_a_floor_the_bound_is_infinite_where_it_does_not(n, shots):
    path = a_stack(n)
    assert generalization_bound(trajectory_terms(path, shots, floor=0), n) == math.inf


def test_the_bound_falls_as_the_floor_rises():
    path = a_stack(n=4)
    bounds = [
        generalization_bound(trajectory_terms(path, 2, floor), 4)
        for floor in (1e-9, 1e-6, 1e-3, 1, 1e3, 1e9)
    ]
    assert bounds == sorted(bounds, reverse=True)
    assert bounds[-1] < 1e-3 < 4 < bounds[0]


def test_a_lower_floor_costs_as_many_nats_as_there_are_directions_without_noise():
    path = a_stack(n=3)  # d = 4, rank 2: two directions without noise
    high, low = (trajectory_terms(path, 1, floor)[0].value for floor in (1e-9, 1e-12))
    close(low - high, 2 * math.log(1e3), rtol=1e-5)


def test_over_draws_the_mean_stands_inside_the_logarithm():
    squares, traces = np.array([1.0, 9.0]), np.array([1.0, 3.0])
    term = LayerTerm(2, squares, traces, np.array([-1.0, 1.0])).expected()
    close(term.value, 2 * math.log((5 + 2) / 2) - 0)


def test_a_batch_is_one_after_the_other():
    random = np.random.default_rng(0)
    h, w = random.standard_normal((3, 2, 5)), random.standard_normal((3, 2, 2, 2))
    batch = generalization_bound(trajectory_terms(trajectory(h, w, w, w), 2, 0.1), 5)
    one = [
        generalization_bound(trajectory_terms(trajectory(h[i], *[w[i]] * 3), 2, 0.1), 5)
        for i in range(3)
    ]
    close(batch, one)


def test_no_matrix_of_the_weight_s_size_is_formed():
    wide, n = 4096, 6  # d x d would have 2.8e14 entries
    random = np.random.default_rng(0)
    gram = demonstration_gram(*(random.standard_normal((wide, n)) / 64 for _ in range(2)))
    term = layer_term(gram, gram.sum(), shots=3, dimension=wide**2, floor=1e-3)
    assert math.isfinite(generalization_bound([term], n))


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: demonstration_gram(np.ones((2, 3)), np.ones((2, 4))), "inputs has shape"),
        (lambda: noise_gram(np.ones((2, 3)), 1), "gram has shape"),
        (lambda: noise_gram(np.ones((1, 1)), 1), "1 shots of 1 demonstrations"),
        (lambda: noise_gram(np.eye(3), 4), "4 shots of 3"),
        (lambda: noise_gram(np.eye(3), 0), "0 shots of 3"),
        (lambda: layer_term(np.eye(3), 1.0, 1, 4, -1.0), "floor -1"),
        (lambda: layer_term(np.eye(3), 1.0, 1, 0, 1.0), "dimension 0"),
        (lambda: layer_term(np.eye(3), np.ones(2), 1, 4, 1.0), "squared has shape"),
        (lambda: generalization_bound([], 3), "0 layers"),
        (lambda: generalization_bound(trajectory_terms(a_stack(), 1, 1.0), 0), "N = 0"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(call, says):
    with pytest.raises(EckartError, match=says) as refused:
        call()
    assert "\n" not in str(refused.value)
