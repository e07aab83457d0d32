"""The theory's quantities of an attention, in float64 and in logarithms.

Tokens, not whole demonstrations, are what the sums of Lemma 1 and Eq. (12) go over: N is the number
of the demonstrations' tokens that the last token of the prompt sees in this layer. Everything else
that it sees (a first special token, an instruction, the query's own text, sinks) only shares the
softmax.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy.special import logsumexp

from eckart.paper.probe.recording import Parts
from eckart.paper.theory.arrays import transposed
from eckart.paper.theory.bound import demonstration_gram, noise_variances
from eckart.paper.theory.duals import log_kernel, log_singular_values

RESOLVED = 1e-6
"""Singular values below this share of the largest are not counted: keys and values are recorded in
float32."""


@dataclass(frozen=True, eq=False)
class Update:
    """What the demonstrations make of a layer's heads whatever the query is: the numbers of
    `LayerProbe`, of one prompt, and the log norm without the normaliser: that of sum_i v_i ⊗
    phi(k_i)."""

    log_norm: Float[np.ndarray, " heads"]
    rank: Float[np.ndarray, " heads"]
    stable_rank: Float[np.ndarray, " heads"]
    linear_norm: Float[np.ndarray, " heads"]
    variances: Float[np.ndarray, "heads r"]


@dataclass(frozen=True, eq=False)
class Attended:
    """What the last token's heads do with the demonstrations: log D', their share of the attention,
    and Delta W' phi(q), what they add to each head's output."""

    log_normaliser: Float[np.ndarray, " heads"]
    share: Float[np.ndarray, " heads"]
    update: Float[np.ndarray, "heads m"]


def seen(parts: Parts, start: int, stop: int) -> Bool[np.ndarray, " tokens"]:
    """Say which tokens are the demonstrations', of those that the last token sees."""
    places = np.arange(parts.bias.shape[-1])
    return np.isfinite(parts.bias).all(axis=0) & (places >= start) & (places < stop)


def attended(parts: Parts, shown: Bool[np.ndarray, " tokens"]) -> Attended:
    """Return what the heads do with some of the tokens, by Eq. (12)."""
    scores = _scores(parts)
    sinks = np.full((len(scores), 1), -np.inf) if parts.sinks is None else parts.sinks[:, None]
    log_normaliser = logsumexp(np.concatenate([scores, sinks], axis=1), axis=1)
    shares = np.exp(scores - log_normaliser[:, None]) * shown
    update = np.einsum("hn,hnm->hm", shares, _of_query_heads(parts.values, len(scores)))
    return Attended(log_normaliser, shares.sum(axis=1), update)


def residual(parts: Parts) -> Float[np.ndarray, " heads"]:
    """Return how far the heads' outputs, computed anew from what was recorded, are from the model's
    own, relatively."""
    everything = np.ones(parts.bias.shape[-1], dtype=bool)
    error = attended(parts, everything).update - parts.output
    size = np.maximum(np.linalg.norm(parts.output, axis=1), np.finfo(float).tiny)
    return np.linalg.norm(error, axis=1) / size


def update_of(parts: Parts, shown: Bool[np.ndarray, " tokens"]) -> Update:
    """Return what some tokens make of a layer's heads.

    The softmax form is by the kernel exp(scale * k · k'), Eq. (10). A mask that adds b_i to the
    scores of token i is a feature phi(k_i) that is exp(b_i) times as long. A soft cap is no kernel:
    phi(k) · phi(q) as a function of k · q = s has a power series without negative terms, and exp(c
    tanh(s / c)), which is bounded, has not.

    The linear form is without softmax and scale, and without W_Q: g_i = v_i ⊗ k_i, with a term of
    Theorem 2 in m k dimensions and half of the tokens shown. Lemma 1's Delta W is (sum_i v_i ⊗ k_i)
    W_Q, and Theorem 2's g_i has (W_Q (1 + W_(t-1)))^T k_i in place of k_i: both of tokens before
    rotary positions and head norms, behind which no one W_Q is left. So the linear form says
    nothing of W_Q: clipping it moves nothing here in its own layer.
    """
    heads = len(parts.query)
    bias = parts.bias[:, shown]
    groups = heads if bias.any() else len(parts.keys)  # query heads may have biases of their own
    keys, values = (
        transposed(_of_query_heads(x[:, shown], groups)) for x in (parts.keys, parts.values)
    )
    numbers = _softmax_form(parts, keys, values, bias) | _linear_form(keys, values)
    return Update(**{name: _of_query_heads(found, heads) for name, found in numbers.items()})


def _scores(parts: Parts) -> Float[np.ndarray, "heads tokens"]:
    """Return the last token's scores, as the model computes them before the softmax."""
    keys = _of_query_heads(parts.keys, len(parts.query))
    scores = parts.scale * np.einsum("hk,hnk->hn", parts.query, keys)
    if parts.softcap is not None:
        scores = parts.softcap * np.tanh(scores / parts.softcap)
    return scores + parts.bias


def _of_query_heads(
    of_key_heads: Float[np.ndarray, "key_heads ..."], heads: int
) -> Float[np.ndarray, "heads ..."]:
    return np.repeat(of_key_heads, heads // len(of_key_heads), axis=0)


def _softmax_form(
    parts: Parts, keys: np.ndarray, values: np.ndarray, bias: np.ndarray
) -> dict[str, np.ndarray]:
    names = ("log_norm", "rank", "stable_rank")
    if parts.softcap is not None:
        return dict.fromkeys(names, np.full(len(keys), np.nan))
    if keys.shape[-1] == 0:
        return dict(zip(names, np.repeat([[-np.inf], [0.0], [np.nan]], len(keys), 1), strict=True))
    log_gram = log_kernel(keys, keys, parts.scale**-2) + bias[:, :, None] + bias[:, None, :]
    logs = log_singular_values(values, log_gram)
    log_norm = logsumexp(2 * logs, axis=1) / 2
    with np.errstate(invalid="ignore"):  # values that are all zero have no rank
        rank = (logs > logs[:, :1] + np.log(RESOLVED)).sum(axis=1).astype(float)
        stable_rank = np.exp(2 * (log_norm - logs[:, 0]))
    return {"log_norm": log_norm, "rank": rank, "stable_rank": stable_rank}


def _linear_form(keys: np.ndarray, values: np.ndarray) -> dict[str, np.ndarray]:
    tokens, dimension = keys.shape[-1], keys.shape[-2] * values.shape[-2]
    gram = demonstration_gram(values, keys)
    few = np.zeros((len(keys), 0))
    return {
        "linear_norm": np.sqrt(np.maximum(gram.sum(axis=(-1, -2)), 0)),
        "variances": few if tokens < 2 else noise_variances(gram, tokens // 2, dimension),
    }
