"""Reading requests through the model's own forward: the log-likelihood of every continuation."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from eckart.errors import ModelError
from eckart.scoring.encoding import Tokens
from eckart.scoring.forward.patches import Lengths, exact_logits, fused_activations
from eckart.scoring.forward.states import StateStore
from eckart.scoring.forward.trunk import Ends, LayerPoint, Trunk
from eckart.scoring.requests import Requests
from eckart.weights.models import Model

Advance = Callable[[int], None]
Wanted = list[tuple[int, int, int, int]]  # prompt, label, position in the row, token
Places = dict[
    tuple[int, int], int
]  # (row of the batch, position) -> index among the scored outputs
PREFIX = "prefix"
_IDS = itertools.count()  # tell one reader's states from another's
LOGITS = 1 << 25
"""How many logits may be held at once: the head runs on the outputs of several batches together."""


@dataclass(frozen=True, eq=False)
class _Read:
    """A batch that went through the layers, and waits for the head."""

    rows: list[int]
    outputs: Float[Tensor, "scored size"]
    places: Places


class Reader(ABC):
    """One way of reading requests, for any number of edits.

    Arguments:
        model: a causal language model.
        requests: token rows and what to score in them.
        budget: the most tokens in a batch.
        trunk: leads passes through the model's layers from any point on; None for a model that
            cannot be taken apart.
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
        self._id = next(_IDS)
        self._wanted = _wanted(requests)
        self._tokens = [
            token for found in requests.continuations for c in found for token in c.tokens
        ]
        self._head_size = max(1, LOGITS // model.config.get_text_config(decoder=True).vocab_size)
        self.prefix = PREFIX
        self.together = False  # all rows of a regime in one batch, however long
        self._start: LayerPoint | None = None
        self._keep: frozenset[LayerPoint] = frozenset()

    def part(self, prompts: Sequence[int]) -> Reader:
        """Return a reader of some of the prompts."""
        requests = self.requests.subset(prompts)
        return type(self)(self.model, requests, self.budget, self.trunk, self.states, self.lengths)

    @abstractmethod
    def plan(self, rows: Sequence[Tokens]) -> list[list[int]]:
        """Group rows, which may be read together, into batches."""

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

    @abstractmethod
    def read_prefix(self) -> None:
        """Run what all rows begin with, with the weights as they are now."""

    @abstractmethod
    def forget_prefix(self) -> None:
        """Let what `read_prefix` kept go."""

    @abstractmethod
    def read(self, rows: list[int]) -> tuple[Float[Tensor, "scored size"], Places]:
        """Run one batch; return its outputs at the scored positions, and which is which."""

    @abstractmethod
    def head(self, outputs: Float[Tensor, "scored size"]) -> Float[Tensor, "scored vocabulary"]:
        """Return the logits of outputs of any number of batches."""

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
        self._start = start
        self._keep = frozenset(p for p in keep if start is None or p <= start)
        waiting: list[_Read] = []

        def read(rows: list[int]) -> None:
            """Run a batch; where enough outputs wait for the head, score them."""
            waiting.append(_Read(rows, *self.read(rows)))
            if sum(len(batch.outputs) for batch in waiting) >= self._head_size:
                score()

        def score() -> None:
            """Score the batches that wait, and tell of the prompts that are done."""
            targets, values = self._score(waiting, logits)
            waiting.clear()
            prompts, labels = targets[:, 0], targets[:, 1]
            for measure, scores in zip(sums, values, strict=True):
                np.add.at(measure, (prompts, labels), scores)
            advance(len(set(prompts[labels == 0].tolist())))

        with self._helped():
            for length, rows in self.regimes:
                with self._within(length):
                    self.read_prefix()
                    run_halving(read, self.batches(rows), f"{len(rows)} rows")
                    if waiting:
                        score()
                    self.forget_prefix()
        return sums

    @contextmanager
    def _helped(self) -> Iterator[None]:
        """Let the model's own forward be exact where it counts, and faster, while a `with` block
        runs."""
        laid = self.trunk.laid() if self.trunk else nullcontext()
        with exact_logits(self.model, self._tokens), fused_activations(self.model), laid:
            yield

    @contextmanager
    def _within(self, length: int | None) -> Iterator[None]:
        """Read rows of one regime: what they share is computed as in rows of their length, though
        it is shorter."""
        self.prefix = PREFIX if length is None else f"{PREFIX} of {length}"
        with nullcontext() if length is None else self.lengths.pinned(length):
            yield

    def _score(
        self, batches: Sequence[_Read], with_logits: bool
    ) -> tuple[Int[np.ndarray, "targets 2"], Float[np.ndarray, "measures targets"]]:
        """Run the head on batches; return each target's prompt and label, and its measures: see
        `sums`."""
        outputs = torch.cat([batch.outputs for batch in batches])
        before = itertools.accumulate((len(batch.outputs) for batch in batches), initial=0)
        targets = [
            (prompt, label, start + batch.places[row, position], token)
            for start, batch in zip(before, batches, strict=False)
            for row, index in enumerate(batch.rows)
            for prompt, label, position, token in self._wanted[index]
        ]
        table = np.array(targets)
        values = np.zeros((1 + with_logits, len(table)))

        def score(scored: list[int]) -> None:
            """Run the head on neighbouring outputs, and fill in the values of their targets."""
            chosen = (table[:, 2] >= scored[0]) & (table[:, 2] <= scored[-1])
            logits = self.head(outputs[scored[0] : scored[-1] + 1]).float()
            places, tokens = (torch.from_numpy(table[chosen, i]).to(logits.device) for i in (2, 3))
            places = places - scored[0]
            picked = logits[places, tokens] - logits.logsumexp(-1)[places]
            values[0, chosen] = picked.double().cpu().numpy()
            if with_logits:
                values[1, chosen] = logits.mean(-1)[places].double().cpu().numpy()

        run_halving(score, [list(range(len(outputs)))], "the head")
        return table[:, :2], values

    def begins(self, batch: str) -> bool:
        """Say whether a pass over a batch can begin at the start: an earlier one left its states
        there."""
        return self._start is not None and (f"{self._id} {batch}", self._start) in self.states

    @contextmanager
    def passing(self, batch: str, ends: Ends | None = None, whole: bool = False) -> Iterator[None]:
        """Begin the next pass where an earlier one left this batch's states, if it did, and leave
        new ones.

        Arguments:
            batch: its name.
            ends: runs the last layer on the scored tokens alone.
            whole: begin at the bottom of the model all the same.
        """
        if self.trunk is None:
            yield
            return
        name = f"{self._id} {batch}"
        states = None if whole or self._start is None else self.states.get(name, self._start)
        start = None if self._start is None or states is None else (self._start, states)
        with self.trunk.passing(start, () if start else self._keep, ends) as left:
            yield
        for point, found in left.items():
            self.states.put(name, point, found)


def _wanted(requests: Requests) -> dict[int, Wanted]:
    """List for each row which token is scored where, and for whom."""
    wanted: dict[int, Wanted] = defaultdict(list)
    for prompt, choices in enumerate(requests.continuations):
        for label, choice in enumerate(choices):
            wanted[choice.row] += [
                (prompt, label, choice.start + step, token)
                for step, token in enumerate(choice.tokens)
            ]
    return wanted


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
