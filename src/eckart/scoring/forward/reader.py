"""Readers: the log-likelihood of every continuation of requests, through the model's own
forward."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from eckart.errors import ModelError
from eckart.scoring.encoding import Tokens
from eckart.scoring.forward.patches import Lengths, exact_logits, fused_activations
from eckart.scoring.forward.states import StateStore
from eckart.scoring.forward.trunk import LayerPoint, Pass, Trunk
from eckart.scoring.requests import Requests
from eckart.weights.models import Model

Advance = Callable[[int], None]
Targets = list[tuple[int, int, int, int]]  # prompt, label, position in the row, token
Outputs = Float[Tensor, "scored _"]
Places = dict[tuple[int, int], int]  # (row of the batch, position) -> index among the outputs
PREFIX = "prefix"
_IDS = itertools.count()  # tell one reader's states from another's
LOGITS = 1 << 25
"""How many logits may be held at once: the head runs on the outputs of several batches together."""


@dataclass(frozen=True, eq=False)
class _Batch:
    """A batch that went through the layers, and waits for the head."""

    rows: list[int]
    outputs: Outputs
    places: Places


class Reader(ABC):
    """Reads requests, for any number of edits.

    Arguments:
        model: a causal language model.
        requests: token rows and what to score in them.
        budget: the most tokens in a batch.
        trunk: lets passes begin at any point of the model; None for one that cannot be taken apart.
        states: where passes leave states for later ones.
        lengths: the model's, if they are at hand.
    """

    def __init__(
        self,
        model: Model,
        requests: Requests,
        budget: int,
        trunk: Trunk | None = None,
        states: StateStore | None = None,
        lengths: Lengths | None = None,
    ) -> None:
        self.model = model
        self.requests = requests
        self.budget = budget
        self.trunk = trunk
        self.states = states or StateStore(0)
        self.lengths = lengths or Lengths(model)
        self.targets = _targets(requests)
        self.together = False  # all rows of a regime in one batch, however long
        self._id = next(_IDS)
        self._scored_tokens = [
            token for found in requests.continuations for c in found for token in c.tokens
        ]
        self._head_size = max(1, LOGITS // model.config.get_text_config(decoder=True).vocab_size)

    @abstractmethod
    def plan(self, rows: Sequence[Tokens]) -> list[list[int]]:
        """Group rows, which may be read together, into batches."""

    @abstractmethod
    def read_prefix(self, name: str, wanted: Pass) -> Any:
        """Run what all rows begin with, with the weights as they are now; return what `read` needs
        of it.

        Arguments:
            name: of the states that are left.
            wanted: where passes begin if states are there, and what they leave.
        """

    @abstractmethod
    def read(self, rows: list[int], prefix: Any, wanted: Pass) -> tuple[Outputs, Places]:
        """Run one batch; return its outputs at the scored positions, which `logits` takes, and
        which is which."""

    def logits(self, outputs: Outputs) -> Float[Tensor, "scored vocabulary"]:
        """Return the logits of outputs of any number of batches; of whole passes they are that
        already."""
        return outputs

    def part(self, prompts: Sequence[int]) -> Reader:
        """Return a reader of some of the prompts."""
        requests = self.requests.subset(prompts)
        return type(self)(self.model, requests, self.budget, self.trunk, self.states, self.lengths)

    @cached_property
    def regimes(self) -> list[tuple[int | None, list[int]]]:
        """The rows that may be read together, by ascending length.

        Each with the length of one of them where the model reads other lengths otherwise, and None
        where none does.
        """
        lengths = [self.requests.length(row) for row in range(len(self.requests.rows))]
        if not self.lengths.several(lengths):
            return [(None, list(range(len(lengths))))]
        found: dict[bytes, list[int]] = {}
        for row in sorted(range(len(lengths)), key=lengths.__getitem__):
            found.setdefault(self.lengths.regime(lengths[row]), []).append(row)
        return [(lengths[rows[0]], rows) for rows in found.values()]

    def batches(self, rows: Sequence[int] | None = None) -> list[list[int]]:
        """Return the rows of each batch: of all, or of these, which may be read together."""
        if rows is None:
            return [batch for _, together in self.regimes for batch in self.batches(together)]
        if self.together:
            return [list(rows)]
        planned = self.plan([self.requests.rows[row] for row in rows])
        return [[rows[place] for place in batch] for batch in planned]

    def log_likelihoods(
        self,
        start: LayerPoint | None = None,
        keep: Iterable[LayerPoint] = (),
        advance: Advance = lambda prompts: None,
    ) -> Float[np.ndarray, "prompts labels"]:
        """Return the summed log-likelihood, in nats, of every continuation of every prompt; see
        `sums`."""
        return self.sums(start, keep, advance)[0]

    @torch.inference_mode()
    def sums(
        self,
        start: LayerPoint | None = None,
        keep: Iterable[LayerPoint] = (),
        advance: Advance = lambda prompts: None,
        logits: bool = False,
    ) -> Float[np.ndarray, "measures prompts labels"]:
        """Return the summed log-likelihood, in nats, of every continuation of every prompt.

        Arguments:
            start: the lowest point at which the weights differ from the unedited model's; below it,
                states that earlier calls left are used. None: they differ nowhere.
            keep: points whose states to leave for later calls; of one above `start` they would be
                of this edit alone.
            advance: told of prompts done.
            logits: also return, after the log-likelihoods, the sum over a continuation's positions
                of the mean over the vocabulary of the logits there.
        """
        found = self.requests.continuations
        sums = np.zeros((1 + logits, len(found), max(map(len, found), default=0)))
        wanted = Pass(start, keep=frozenset(p for p in keep if start is None or p <= start))
        waiting: list[_Batch] = []

        def run(prefix: Any, rows: list[int]) -> None:
            """Run a batch; where enough outputs wait for the head, measure them."""
            waiting.append(_Batch(rows, *self.read(rows, prefix, wanted)))
            if sum(len(batch.outputs) for batch in waiting) >= self._head_size:
                measure()

        def measure() -> None:
            """Add up what the waiting batches give, and tell of the prompts that are done."""
            owners, values = self._measured(waiting, logits)
            waiting.clear()
            prompts = owners[:, 0]
            labels = owners[:, 1]
            for total, measured in zip(sums, values, strict=True):
                np.add.at(total, (prompts, labels), measured)
            advance(len(set(prompts[labels == 0].tolist())))

        with self._helped():
            for length, rows in self.regimes:
                # What rows share is computed as in rows of their own length, though it is shorter:
                # so each regime has a prefix of its own, and states of its own.
                name = PREFIX if length is None else f"{PREFIX} of {length}"
                with self._pinned(length):
                    prefix = self.read_prefix(name, wanted)
                    run_halving(partial(run, prefix), self.batches(rows), f"{len(rows)} rows")
                    if waiting:
                        measure()
                    del prefix  # before the next regime's
        return sums

    @contextmanager
    def _helped(self) -> Iterator[None]:
        """Let the model's own forward be exact where it counts, and faster, while a `with` block
        runs."""
        trunk = self.trunk.installed() if self.trunk else nullcontext()
        with exact_logits(self.model, self._scored_tokens), fused_activations(self.model), trunk:
            yield

    @contextmanager
    def _pinned(self, length: int | None) -> Iterator[None]:
        """Read rows of one regime while a `with` block runs."""
        with nullcontext() if length is None else self.lengths.pinned(length):
            yield

    def _measured(
        self, batches: Sequence[_Batch], with_logits: bool
    ) -> tuple[Int[np.ndarray, "targets 2"], Float[np.ndarray, "measures targets"]]:
        """Run the head on batches; return each target's prompt and label, and its measures: see
        `sums`."""
        # 1) A line for each target: prompt, label, index among all outputs, token.
        outputs = torch.cat([batch.outputs for batch in batches])
        before = itertools.accumulate((len(batch.outputs) for batch in batches), initial=0)
        targets = [
            (prompt, label, start + batch.places[row, position], token)
            for start, batch in zip(before, batches, strict=False)
            for row, index in enumerate(batch.rows)
            for prompt, label, position, token in self.targets[index]
        ]
        table = np.array(targets)
        values = np.zeros((1 + with_logits, len(table)))

        # 2) Logits are the largest thing of all, so the head is halved by itself: a batch that went
        #    through the layers is not run again for want of memory above them.
        def fill(scored: list[int]) -> None:
            """Run the head on neighbouring outputs, and fill in the values of their targets."""
            chosen = (table[:, 2] >= scored[0]) & (table[:, 2] <= scored[-1])
            logits = self.logits(outputs[scored[0] : scored[-1] + 1]).float()
            places, tokens = (torch.from_numpy(table[chosen, i]).to(logits.device) for i in (2, 3))
            places = places - scored[0]
            picked = logits[places, tokens] - logits.logsumexp(-1)[places]
            values[0, chosen] = picked.double().cpu().numpy()
            if with_logits:
                values[1, chosen] = logits.mean(-1)[places].double().cpu().numpy()

        run_halving(fill, [list(range(len(outputs)))], "the head")
        return table[:, :2], values

    def has_states(self, batch: str, wanted: Pass) -> bool:
        """Say whether a pass over a batch can begin where it is wanted: an earlier one left its
        states there."""
        return wanted.start is not None and (self._key(batch), wanted.start) in self.states

    def told(self, batch: str, wanted: Pass) -> Pass:
        """Return what a pass over a batch is told: to begin where an earlier one left states, or
        else at the bottom, and leave what is wanted."""
        if wanted.start is not None:
            states = self.states.get(self._key(batch), wanted.start)
            if states is not None:
                # It leaves nothing: below its start it computes nothing, and above it, states would
                # be of this edit alone.
                return Pass(wanted.start, states)
        return Pass(keep=wanted.keep)

    def keep_left(self, batch: str, done: Pass) -> None:
        """Keep the states that a pass over a batch left."""
        for point, states in done.left.items():
            self.states.put(self._key(batch), point, states)

    def _key(self, batch: str) -> str:
        return f"{self._id} {batch}"


def _targets(requests: Requests) -> dict[int, Targets]:
    """List for each row which token is scored where, and for whom."""
    targets: dict[int, Targets] = defaultdict(list)
    for prompt, choices in enumerate(requests.continuations):
        for label, choice in enumerate(choices):
            targets[choice.row] += [
                (prompt, label, choice.start + step, token)
                for step, token in enumerate(choice.tokens)
            ]
    return targets


def run_halving(run: Callable[[list[int]], None], batches: Sequence[list[int]], what: str) -> None:
    """Run batches in order; where memory runs out, halve that batch and all that follow, and go on.

    Arguments:
        run: computes one batch of row indices; leaves nothing behind when it raises.
        batches: row indices.
        what: names the job in the error.

    Raises:
        ModelError: a single row does not fit.
    """
    waiting = list(reversed(batches))
    largest = max(map(len, batches), default=1)
    while waiting:
        batch = waiting.pop()
        if len(batch) > largest:
            waiting.extend(batch[i : i + largest] for i in reversed(range(0, len(batch), largest)))
            continue
        try:
            run(batch)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if len(batch) == 1:
                raise ModelError(
                    f"{what}: not even one row fits into memory; use fewer --shots or a smaller"
                    " dtype"
                ) from error
            largest = len(batch) // 2
            waiting.append(batch)
            release_memory()


def is_out_of_memory(error: BaseException) -> bool:
    """Say whether an error means that the device's or the machine's memory is full."""
    text = str(error).lower()
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        "out of memory" in text or "can't allocate memory" in text or "not enough memory" in text
    )


def release_memory() -> None:
    """Give cached device memory back."""
    if torch.accelerator.is_available():
        torch.get_device_module(torch.accelerator.current_accelerator()).empty_cache()
