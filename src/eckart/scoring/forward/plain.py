"""The plain forward: the slow and obvious reading, one row at a time with nothing shared, and how
far a faster one may be from it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from eckart.scoring.encoding import Tokens
from eckart.scoring.forward.patches import Lengths
from eckart.scoring.forward.reader import Outputs, Places, Reader
from eckart.scoring.forward.trunk import Pass
from eckart.scoring.requests import Continuation, Requests
from eckart.weights.models import Model

ROUNDINGS = 256
"""How many roundings of the largest logit, a token, a reader may differ by in float32."""

SMALLEST = 4.0
"""The least that the largest logit is taken for: sums inside of a model with small logits are
larger."""

HALVES = 32
"""How many roundings of 1, a token, a reader may differ by in half precision, besides what rounding
is seen to do."""

NOISE = 8
"""How many times as far from float32 as the plain forward a reader may be in half precision."""

Values = Float[np.ndarray, "prompts labels"]
Counts = Int[np.ndarray, "prompts labels"]


@dataclass(frozen=True, eq=False)
class Plain:
    """What the plain forward says.

    Arguments:
        values: the summed log-likelihood, in nats, of every continuation of every prompt.
        scale: the largest size that a scored token's logit has, or the log of the sum that it is
            compared with. Other tokens' logits do not count: masked ones are minus infinity.
    """

    values: Float[np.ndarray, "prompts labels"]
    scale: float


@torch.inference_mode()
def read_plainly(model: Model, requests: Requests, lengths: Lengths | None = None) -> Plain:
    """Compute what `Reader` does, a continuation at a time: the whole row, all logits, no cache, no
    batch.

    Arguments:
        model: a causal language model.
        requests: token rows, written out in full.
        lengths: the model's, if they are at hand.
    """
    longest = max(len(c.tokens) for found in requests.continuations for c in found)
    scales = [0.0]

    @cache
    def last_logits(row: Tokens) -> Float[Tensor, "last vocabulary"]:
        tokens = torch.tensor([row], device=model.device)
        logits = model(input_ids=tokens, use_cache=False).logits[0]
        return logits[-longest:].double()

    def plain(c: Continuation) -> float:
        logits = last_logits(requests.rows[c.row][: c.start + len(c.tokens)])[-len(c.tokens) :]
        chosen = logits[range(len(c.tokens)), list(c.tokens)]
        sums = logits.logsumexp(-1)
        sizes = torch.cat([chosen, sums]).abs()
        scales.extend(sizes[sizes.isfinite()].tolist())
        return float((chosen - sums).sum())

    with (lengths or Lengths(model)).pinned(None):
        values = np.array([[plain(c) for c in choices] for choices in requests.continuations])
    return Plain(values, max(scales))


class Alone(Reader):
    """Rows written out in full, each in a plain pass of its own: what is left where nothing faster
    agrees."""

    @cached_property
    def regimes(self) -> list[tuple[int | None, list[int]]]:
        """All rows: each is a pass of its own, which decides by its own length."""
        return [(None, list(range(len(self.requests.rows))))]

    @contextmanager
    def _helped(self) -> Iterator[None]:
        yield

    @contextmanager
    def _pinned(self, length: int | None) -> Iterator[None]:
        with self.lengths.pinned(None):
            yield

    def plan(self, rows: Sequence[Tokens]) -> list[list[int]]:
        return [[row] for row in range(len(rows))]

    def read_prefix(self, name: str, wanted: Pass) -> None:
        return None

    def read(self, rows: list[int], prefix: None, wanted: Pass) -> tuple[Outputs, Places]:
        """Run one row; return the logits of its scored positions."""
        (row,) = rows
        tokens = torch.tensor([self.requests.rows[row]], device=self.model.device)
        logits = self.model(input_ids=tokens, use_cache=False).logits[0]
        positions = sorted({position for _, _, position, _ in self.targets[row]})
        return logits[positions], {(0, position): place for place, position in enumerate(positions)}


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
    """Return how far, in nats, a reader may be from the plain forward where both compute in
    float32."""
    return ROUNDINGS * torch.finfo(torch.float32).eps * max(plain.scale, SMALLEST) * tokens


def half_tolerance(noise: float, tokens: Counts, dtype: torch.dtype) -> Values:
    """Return how far, in nats, a reader may be from the plain forward in half precision.

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
    """Say whether a reader agrees with the plain forward: everywhere within what is allowed, and no
    number only where both have none."""
    return bool(_near(found, plain.values, allowed).all())


def _near(found: Values, plain: Values, allowed: Values) -> Bool[np.ndarray, "prompts labels"]:
    numbers = np.isfinite(found) & np.isfinite(plain)
    apart = np.abs(np.where(numbers, found - plain, 0.0))
    return np.where(numbers, apart <= allowed, ~np.isfinite(found) & ~np.isfinite(plain))
