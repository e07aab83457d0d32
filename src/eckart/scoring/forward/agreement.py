"""Whether a way of reading agrees with the plain forward: on which prompts that is seen, and how
far is too far."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from eckart.scoring.forward.lengths import Lengths
from eckart.scoring.forward.plain import Plain
from eckart.scoring.forward.reader import Reader
from eckart.scoring.requests import Requests

ROUNDINGS = 256
"""How many roundings of the largest logit, a token, two ways may differ by in float32."""

SMALLEST = 4.0
"""The least that the largest logit is taken for: sums inside of a model with small logits are
larger."""

HALVES = 32
"""How many roundings of 1, a token, two ways may differ by in half precision, besides what rounding
is seen to do."""

NOISE = 8
"""How many times as far from float32 as the plain forward a way may be in half precision."""

Values = Float[np.ndarray, "prompts labels"]
Counts = Int[np.ndarray, "prompts labels"]


def sizes(requests: Requests) -> tuple[Counts, Counts]:
    """Return the number of tokens, and of bytes, of every continuation."""
    tokens = [[len(c.tokens) for c in choices] for choices in requests.continuations]
    lengths = [[c.bytes for c in choices] for choices in requests.continuations]
    return np.array(tokens), np.array(lengths)


def sample_of(requests: Requests, lengths: Lengths) -> tuple[list[int], int]:
    """Return some prompts, and which of them has the longest row.

    They are the one with the shortest row and the one with the longest, and where the model reads
    rows of some lengths otherwise than others, those on either side of the first switch, and of the
    last one.
    """
    longest = [max(requests.length(c.row) for c in choices) for choices in requests.continuations]
    order = sorted(range(len(longest)), key=longest.__getitem__)
    regimes = [lengths.regime(longest[prompt]) for prompt in order]
    switches = [
        place for place, pair in enumerate(pairwise(regimes), start=1) if pair[0] != pair[1]
    ]
    near = [order[place - step] for place in (*switches[:1], *switches[-1:]) for step in (0, 1)]
    return sorted({order[0], *near, order[-1]}), order[-1]


def neighbours(reader: Reader, prompt: int) -> list[int]:
    """Return the prompts that are read in one batch with one of them, and that one."""
    found = reader.requests.continuations
    rows = {c.row for c in found[prompt]}
    together = {row for batch in reader.batches() if not rows.isdisjoint(batch) for row in batch}
    return [
        number for number, choices in enumerate(found) if any(c.row in together for c in choices)
    ]


def tolerance(plain: Plain, tokens: Counts) -> Values:
    """Return how far, in nats, a way may be from the plain forward where both compute in
    float32."""
    return ROUNDINGS * torch.finfo(torch.float32).eps * max(plain.scale, SMALLEST) * tokens


def half_tolerance(noise: float, tokens: Counts, dtype: torch.dtype) -> Values:
    """Return how far, in nats, a way may be from the plain forward in half precision.

    Arguments:
        noise: how far the plain forward in half precision is from itself in float32, a token, at
            the most.
        tokens: of every continuation.
        dtype: bfloat16 or float16.
    """
    return (HALVES * torch.finfo(dtype).eps + NOISE * noise) * tokens


def noise_of(half: Plain, wide: Plain, tokens: Counts) -> float:
    """Return how far the plain forward in half precision is from itself in float32, a token, at the
    most."""
    far = np.abs(half.values - wide.values) / tokens
    return float(far[np.isfinite(far)].max(initial=0.0))


def close(found: Values, plain: Plain, allowed: Values) -> bool:
    """Say whether two readings agree: everywhere within what is allowed, and no number only where
    both have none."""
    return bool(_near(found, plain.values, allowed).all())


def _near(found: Values, plain: Values, allowed: Values) -> Bool[np.ndarray, "prompts labels"]:
    numbers = np.isfinite(found) & np.isfinite(plain)
    apart = np.abs(np.where(numbers, found - plain, 0.0))
    return np.where(numbers, apart <= allowed, ~np.isfinite(found) & ~np.isfinite(plain))
