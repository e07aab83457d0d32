"""The identities: what the paper says is equal, and is, each computed in two ways."""

from __future__ import annotations

from itertools import combinations

import numpy as np

from eckart.paper.theory.arrays import squared_norm, transposed
from eckart.paper.theory.attention import (
    forward,
    linear_attention,
    softmax_attention,
    trajectory,
    update_terms,
)
from eckart.paper.theory.bound import (
    demonstration_gram,
    generalization_bound,
    noise_gram,
    trajectory_terms,
)
from eckart.paper.theory.claims import Claims, Instances, Matrices, Residuals, difference
from eckart.paper.theory.duals import (
    SoftmaxDual,
    gated_update,
    log_kernel,
    mlp_relaxation,
    mlp_update,
    relu,
    softmax_dual,
)
from eckart.paper.theory.norms import truncate
from eckart.paper.theory.plainly import (
    covariance,
    gaussians,
    objective,
    printed_bound,
    squared_size,
    term_of,
)

claims = Claims("identity")

D_SCALE = 16.0


@claims("masked linear attention sees the demonstrations alone", "Eq. (3), (8)")
def _mask(x: Instances) -> Residuals:
    w_v, w_k, w_q = x.first
    plain = x.h + (w_v @ x.demonstrations) @ transposed(w_k @ x.demonstrations) @ (w_q @ x.h)
    return difference(linear_attention(x.h, *x.first), plain)


@claims("a linear layer's gradient step is linear attention to its errors", "Eq. (5) to (7)")
def _gradient_step(x: Instances) -> Residuals:
    weight, inputs, rate = x.w_v[:, 1], x.demonstrations, 0.1
    labels = x.w_v[:, 0] @ inputs
    gradient = (weight @ inputs - labels) @ transposed(inputs)  # of |W X - Y|^2 / 2
    errors = -rate * (weight @ inputs - labels)
    attended = (errors[..., None, :] * inputs[:, None]).sum(axis=-1) @ x.test
    return difference(weight @ x.test + attended, (weight - rate * gradient) @ x.test)


@claims("Delta W_icl as a product is the sum of outer products", "Lemma 1")
def _two_forms(x: Instances) -> Residuals:
    return difference(x.update, update_terms(*x.lemma).sum(axis=1))


@claims("h + Delta W_icl h is the layer's output", "Lemma 1")
def _output(x: Instances) -> Residuals:
    return difference(x.test + x.update @ x.test, linear_attention(x.h, *x.first)[..., -1:])


@claims("h^t = h^0 + sum_(j <= t) G_j h^0 in every layer", "Theorem 1, corrected")
def _trajectory(x: Instances) -> Residuals:
    steps = np.cumsum(x.path.steps, axis=1) @ x.test[:, None]
    return difference(x.test[:, None] + steps, forward(x.h, x.w_v, x.w_k, x.w_q)[:, 1:, :, -1:])


@claims("h^t = h^0 + W_t h^0 in every layer", "Theorem 1")
def _weights(x: Instances) -> Residuals:
    moved = x.test[:, None] + x.path.weights @ x.test[:, None]
    return difference(moved, forward(x.h, x.w_v, x.w_k, x.w_q)[..., -1:])


@claims("G_t = Delta W_t (1 + sum_(j < t) G_j), 1 the identity", "Theorem 1, Eq. (13)")
def _steps(x: Instances) -> Residuals:
    steps = x.path.steps
    before = np.stack([steps[:, :t].sum(axis=1) for t in range(steps.shape[1])], axis=1)
    return difference(x.path.updates @ (np.eye(before.shape[-1]) + before), steps)


@claims("G_t is a function of W_(t-1) and H_s: G_t = sum_i v_i ⊗ u_i", "Remark 2")
def _from_past(x: Instances) -> Residuals:
    return difference(x.path.values @ transposed(x.path.inputs), x.path.steps)


@claims("clipping layer k leaves Delta W_t as it is for t < k", "Remark 5")
def _below_an_edit(x: Instances) -> Residuals:
    edited = x.w_v.copy()
    edited[:, 1] = truncate(edited[:, 1], 1)
    after = trajectory(x.demonstrations, edited, x.w_k, x.w_q)
    return difference(after.updates[:, :1], x.path.updates[:, :1])


@claims("the softmax kernel is a Gaussian kernel between two norms", "Eq. (10)")
def _gaussian(x: Instances) -> Residuals:
    keys, queries = x.lemma[1], x.w_q[:, 0] @ x.h
    distances = np.square(keys[..., :, None] - queries[..., None, :]).sum(axis=1)
    norms = [np.exp(np.square(points).sum(axis=1) / 2) for points in (keys, queries)]
    gaussian = norms[0][..., None] * np.exp(-distances / 2) * norms[1][:, None]
    return difference(np.exp(log_kernel(keys, queries)), gaussian)


@claims("softmax attention is h + Delta W'_icl phi(W_Q h)", "Eq. (2), (12)")
def _softmax(x: Instances) -> Residuals:
    dual = _dual(x, D_SCALE)
    return difference(
        x.test[..., 0] + dual.update, softmax_attention(x.h, *x.first, d_scale=D_SCALE)[..., -1]
    )


@claims("with explicit features of the kernel: the same update", "Eq. (12)")
def _features(x: Instances) -> Residuals:
    update, query = _explicit(x)
    return difference(_dual(x, D_SCALE).update, (update @ query)[..., 0])


@claims("with explicit features of the kernel: the same norm", "Appendix B.2")
def _feature_norm(x: Instances) -> Residuals:
    update, _ = _explicit(x)
    return difference(np.exp(_dual(x, D_SCALE).log_norm), np.linalg.norm(update, axis=(-1, -2)))


def _dual(x: Instances, d_scale: float) -> SoftmaxDual:
    values, keys, w_q = x.lemma
    return softmax_dual(values, keys, (w_q @ x.test)[..., 0], x.w_k[:, 0] @ x.test, d_scale)


def _explicit(x: Instances) -> tuple[Matrices, Matrices]:
    """Return Delta W'_icl and phi(W_Q h) in the span of the points at hand: the root of their Gram
    matrix is phi."""
    values, keys, w_q = x.lemma
    points = np.concatenate([keys, x.w_k[:, 0] @ x.test, w_q @ x.test], axis=-1) / D_SCALE**0.25
    norms = np.exp(np.square(points).sum(axis=1, keepdims=True) / 2)
    gaussian = np.exp(log_kernel(points, points)) / norms / transposed(norms)  # Eq. (10)
    squares, vectors = np.linalg.eigh(gaussian)
    phi = np.sqrt(np.maximum(squares, 0))[..., None] * transposed(vectors) * norms
    normaliser = (transposed(phi[..., :-1]) @ phi[..., -1:]).sum(axis=1, keepdims=True)
    return values @ transposed(phi[..., :-2]) / normaliser, phi[..., -1:]


@claims("without activation, MLP(attention) is Delta W''_icl h", "Appendix B.3")
def _mlp(x: Instances) -> Residuals:
    attended = linear_attention(x.h, *x.first)[..., -1] - x.test[..., 0]
    update = mlp_update(x.w_out @ x.w_in, x.update)
    return difference(mlp_relaxation(x.w_out, x.w_in, attended).relaxed, (update @ x.test)[..., 0])


@claims("what leaving relu out adds is -W_out relu(-W_in x)", "Appendix B.3")
def _relu(x: Instances) -> Residuals:
    inner = x.w_in @ x.test
    left_out = mlp_relaxation(x.w_out, x.w_in, x.test[..., 0]).error
    return difference(left_out, (-x.w_out @ relu(-inner))[..., 0])


@claims("with its gates open or shut, relu is in Delta W''_icl exactly", "Appendix B.3, corrected")
def _gates(x: Instances) -> Residuals:
    update = x.update
    gated = gated_update(x.w_out, x.w_in, update, x.test[..., 0]) @ x.test
    exact = mlp_relaxation(x.w_out, x.w_in, (update @ x.test)[..., 0]).exact
    return difference(gated[..., 0], exact)


@claims("C_t is the covariance of the mean over all choices of b of N", "Section 3.3")
def _covariance(x: Instances) -> Residuals:
    n = x.gradients.shape[-1]
    subsets = [
        x.gradients[..., list(chosen)].mean(axis=-1) for chosen in combinations(range(n), x.shots)
    ]
    noise = np.stack(subsets, axis=-1) - x.gradients.mean(axis=-1)[..., None]
    return difference(covariance(x.gradients, x.shots), noise @ transposed(noise) / len(subsets))


@claims("|G_t|^2 is the sum of the demonstrations' Gram matrix", "Theorem 2")
def _gram(x: Instances) -> Residuals:
    grams = demonstration_gram(x.path.values, x.path.inputs)
    return difference(grams.sum(axis=(-1, -2)), squared_norm(x.path.steps))


@claims("tr C_t from N x N is that from d x d", "Theorem 2")
def _trace(x: Instances) -> Residuals:
    traced = np.trace(covariance(x.gradients, x.shots), axis1=1, axis2=2)
    return difference(np.trace(noise_gram(x.gram, x.shots), axis1=1, axis2=2), traced)


@claims("tr log(C_t + floor) from N x N is that from d x d", "Theorem 2")
def _determinant(x: Instances) -> Residuals:
    d = x.gradients.shape[1]
    floored = covariance(x.gradients, x.shots) + x.floor * np.eye(d)
    return difference(np.asarray(x.term.log_determinant), np.linalg.slogdet(floored)[1])


@claims("the bound from N x N is that as printed, from d x d, over all layers", "Theorem 2")
def _bound(x: Instances) -> Residuals:
    terms = trajectory_terms(x.path, x.shots, x.floor)
    found = generalization_bound(terms, x.demonstrations.shape[-1], subgaussian=2.0)
    return difference(np.asarray(found), printed_bound(x, subgaussian=2.0))


@claims("the divergence of the noisy step from its prior is Eq. (17)", "Eq. (16), (17)")
def _divergence(x: Instances) -> Residuals:
    step, noise, variance = gaussians(x)
    d = step.shape[1]
    inverse = np.linalg.inv(variance[:, None, None] * np.eye(d))
    general = (
        d * np.log(variance)
        - np.linalg.slogdet(noise)[1]
        - d
        + np.einsum("bi,bij,bj->b", step, inverse, step)
        + np.trace(inverse @ noise, axis1=1, axis2=2)
    ) / 2
    return difference(objective(step, noise, variance), general)


@claims("at sigma^2 = A_1 / d it is (d log(A_1 / d) - A_2) / 2", "Appendix B.5")
def _optimum(x: Instances) -> Residuals:
    step, noise, _ = gaussians(x)
    d, size = step.shape[1], squared_size(step, noise)
    least = (d * np.log(size / d) - np.linalg.slogdet(noise)[1]) / 2
    return difference(objective(step, noise, size / d), least)


@claims("a term of Theorem 2 is the same for c G_t and c^2 C_t, whatever c", "Theorem 2")
def _scale_free(x: Instances) -> Residuals:
    step, noise, _ = gaussians(x)
    factor = 0.01 + x.scale
    return difference(
        term_of(factor[:, None] * step, np.square(factor)[:, None, None] * noise),
        term_of(step, noise),
    )


@claims("|A|^2 is the sum of the squared singular values", "Example 1 (**), corrected")
def _frobenius(x: Instances) -> Residuals:
    values = np.linalg.svd(x.w_in, compute_uv=False)
    return difference(np.square(values).sum(axis=-1), squared_norm(x.w_in))


@claims("|W_V h|^2 = |W_Vr h|^2 + |delta_V h|^2 for the SVD's split", "Example 1")
def _split_vector(x: Instances) -> Residuals:
    kept, dropped = _split(x.w_v[:, 0])
    return difference(
        squared_norm(kept @ x.test) + squared_norm(dropped @ x.test),
        squared_norm(x.w_v[:, 0] @ x.test),
    )


@claims(
    "|z W_Q|^2 = |z W_Qr|^2 + |z delta_Q|^2: Eq. (20) for the SVD's split, an equality", "Example 2"
)
def _split_query(x: Instances) -> Residuals:
    z = x.lemma[0] @ transposed(x.lemma[1])
    kept, dropped = _split(x.w_q[:, 0])
    return difference(
        squared_norm(z @ kept) + squared_norm(z @ dropped), squared_norm(z @ x.w_q[:, 0])
    )


@claims("|W_MLP z|^2 = |W_MLPr z|^2 + |delta_MLP z|^2, likewise", "Example 4")
def _split_mlp(x: Instances) -> Residuals:
    w_mlp, z = x.w_out @ x.w_in, x.update
    kept, dropped = _split(w_mlp)
    return difference(squared_norm(kept @ z) + squared_norm(dropped @ z), squared_norm(w_mlp @ z))


def _split(w: Matrices) -> tuple[Matrices, Matrices]:
    kept = truncate(w, max(1, min(w.shape[-2:]) // 2))
    return kept, w - kept


@claims("|a ⊗ b| is |a| |b|, and its largest singular value", "Eq. (18)")
def _outer(x: Instances) -> Residuals:
    a, b = x.h[..., 0], x.test[..., 0]
    outer = a[:, :, None] * b[:, None]
    product = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    largest = np.linalg.svd(outer, compute_uv=False)[:, 0]
    return np.maximum(
        difference(largest, product), difference(np.sqrt(squared_norm(outer)), product)
    )
