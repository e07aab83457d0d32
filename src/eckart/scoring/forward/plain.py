"""Reading the slow and obvious way, which every faster one has to agree with: one row at a time,
nothing shared."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from eckart.scoring.encoding import Tokens
from eckart.scoring.forward.lengths import Lengths
from eckart.scoring.forward.reader import Places, Reader
from eckart.scoring.requests import Continuation, Requests
from eckart.weights.models import Model


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
        logits = model(input_ids=torch.tensor([row], device=model.device), use_cache=False).logits[
            0
        ]
        return logits[-longest:].double()

    def plain(c: Continuation) -> float:
        logits = last_logits(requests.rows[c.row][: c.start + len(c.tokens)])[-len(c.tokens) :]
        chosen, sums = logits[range(len(c.tokens)), list(c.tokens)], logits.logsumexp(-1)
        sizes = torch.cat([chosen, sums]).abs()
        scales.extend(sizes[sizes.isfinite()].tolist())
        return float((chosen - sums).sum())

    with (lengths or Lengths(model)).pinned(None):
        values = np.array([[plain(c) for c in choices] for choices in requests.continuations])
    return Plain(values, max(scales))


def plain_log_likelihoods(model: Model, requests: Requests) -> Float[np.ndarray, "prompts labels"]:
    """Return the values of `read_plainly`."""
    return read_plainly(model, requests).values


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
    def _within(self, length: int | None) -> Iterator[None]:
        with self.lengths.pinned(None):
            yield

    def plan(self, rows: Sequence[Tokens]) -> list[list[int]]:
        """Return each row by itself."""
        return [[row] for row in range(len(rows))]

    def read_prefix(self) -> None:
        """Do nothing: nothing is shared."""

    def forget_prefix(self) -> None:
        """Do nothing: nothing is kept."""

    def read(self, rows: list[int]) -> tuple[Float[Tensor, "scored vocabulary"], Places]:
        """Run one row; return the logits of its scored positions, and which is which."""
        (row,) = rows
        tokens = torch.tensor([self.requests.rows[row]], device=self.model.device)
        logits = self.model(input_ids=tokens, use_cache=False).logits[0]
        positions = sorted({position for _, _, position, _ in self._wanted[row]})
        return logits[positions], {(0, position): place for place, position in enumerate(positions)}

    def head(
        self, outputs: Float[Tensor, "scored vocabulary"]
    ) -> Float[Tensor, "scored vocabulary"]:
        """Return the outputs: they are logits."""
        return outputs
