"""The fastest reader that agrees with the plain forward, for every set of requests.

A reader can be wrong by its making: an architecture is built otherwise than it expects. That is
looked at in float32, whatever the run's dtype, where nothing hides behind rounding. Or its rounding
goes too far, which is measured by how far the plain forward's own goes. Where a reader does not
agree, the next slower kind is tried; the last is the plain forward itself, a row at a time, so no
check ends a run.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float

from eckart.scoring.forward.packed import Packed, can_pack
from eckart.scoring.forward.padded import Padded, can_share
from eckart.scoring.forward.patches import Lengths, Regime
from eckart.scoring.forward.plain import (
    Alone,
    Plain,
    close,
    half_tolerance,
    neighbours,
    noise_of,
    read_plainly,
    sample_of,
    sizes,
    tolerance,
)
from eckart.scoring.forward.reader import Advance, Reader, is_out_of_memory, release_memory
from eckart.scoring.forward.states import StateStore
from eckart.scoring.forward.trunk import LayerPoint, Trunk
from eckart.scoring.requests import Requests
from eckart.weights.hooks import HALF, in_float32
from eckart.weights.models import Model

BOTTOM = LayerPoint(0)

SHOWS = 10
"""How many tolerances an edit must move the plain forward by, for a reader that ignored it to be
found out."""

MISFITS = (RuntimeError, TypeError, ValueError, AttributeError, LookupError)
"""What a model raises that is built otherwise than a reader expects."""

Sums = Float[np.ndarray, "measures prompts labels"]


@dataclass(frozen=True)
class ReaderKind:
    """A kind of reader.

    Arguments:
        said: what is said of rows that are read so; nothing of the fastest.
        make: makes a reader of requests that leaves states in a store.
        certain: it is the plain forward itself.
    """

    said: str
    make: Callable[[Requests, StateStore], Reader]
    certain: bool = False


def reader_kinds(
    model: Model, budget: int, trunk: Trunk | None, lengths: Lengths
) -> list[ReaderKind]:
    """Return how a model's rows can be read, fastest first.

    Arguments:
        model: a causal language model.
        budget: the most tokens in a batch.
        trunk: None for a model that cannot be taken apart.
        lengths: the model's.
    """

    def packed(requests: Requests, states: StateStore) -> Reader:
        return Packed(model, requests, budget, trunk, states, lengths)

    def padded(requests: Requests, states: StateStore) -> Reader:
        return Padded(model, requests, budget, trunk, states, lengths)

    def alone(requests: Requests, states: StateStore) -> Reader:
        return Alone(model, requests.without_prefix(), 1, lengths=lengths)

    sharing = [ReaderKind("", packed)] if trunk is not None and can_pack(trunk) else []
    if can_share(model):
        sharing.append(ReaderKind("padded" if sharing else "", padded))
    apart = "without sharing their demonstrations"
    return [
        *sharing,
        ReaderKind(apart, lambda requests, states: padded(requests.without_prefix(), states)),
        ReaderKind("one by one", alone, certain=True),
    ]


@dataclass(eq=False)
class Readers:
    """The kinds of readers of a model, and what was seen of them.

    Arguments:
        model: a causal language model.
        budget: the most tokens in a batch.
        trunk: None for a model that cannot be taken apart.
        states: where readers leave states.
        probes: where the readers of checks leave theirs.
        first: the fastest kind that was not found wrong.
        noise: how far, in nats a token, half precision was seen to move the plain forward.
        trusting: rows no longer than some that agreed are not compared again: one stream of rows,
            in several sets of requests.
        right: the points from which readings of edited models were seen to agree.
    """

    model: Model
    budget: int
    trunk: Trunk | None
    states: StateStore
    probes: StateStore
    first: int = 0
    noise: float = 0.0
    trusting: bool = False
    right: set[LayerPoint] = field(default_factory=set)
    _agreed: dict[int, set[Regime]] = field(default_factory=dict)
    _longest: dict[int, int] = field(default_factory=dict)
    _told: bool = False

    def __post_init__(self) -> None:
        self.lengths = Lengths(self.model)
        self.kinds = reader_kinds(self.model, self.budget, self.trunk, self.lengths)

    @property
    def half(self) -> bool:
        """Whether the model computes in half precision."""
        return self.model.dtype in HALF

    def agreed(self, kind: int, requests: Requests) -> bool:
        """Say whether rows of such lengths were seen to agree in float32, read by one kind."""
        lengths, regimes = self._reach(requests)
        return max(lengths) <= self._longest.get(kind, 0) and regimes <= self._agreed.get(
            kind, set()
        )

    def note_agreement(self, kind: int, requests: Requests) -> None:
        """Note that these rows agree in float32, read by one kind."""
        lengths, regimes = self._reach(requests)
        self._longest[kind] = max(self._longest.get(kind, 0), *lengths)
        self._agreed[kind] = self._agreed.get(kind, set()) | regimes

    def wide(self) -> AbstractContextManager[None]:
        """Let the model compute in float32 at least, while a `with` block runs."""
        return in_float32(self.model, self.trunk.blocks if self.trunk else ())

    def leave_unchecked(self) -> None:
        """Go on although a check found no room in memory, and say so once."""
        release_memory()
        if not self._told:
            self._told = True
            warnings.warn(
                "not every reading is compared with the plain forward: memory is full", stacklevel=5
            )

    def _reach(self, requests: Requests) -> tuple[set[int], set[Regime]]:
        lengths = {requests.length(row) for row in range(len(requests.rows))}
        return lengths, {self.lengths.regime(length) for length in lengths}


class CheckedReader:
    """Reads requests by the fastest kind of reader that agrees with the plain forward.

    Arguments:
        readers: those of the model, which is unedited now.
        requests: what is read.
        what: names the requests in messages.
    """

    def __init__(self, readers: Readers, requests: Requests, what: str) -> None:
        self.readers = readers
        self.requests = requests
        self.what = what
        self.tails = True  # passes may begin above the bottom
        self._chosen, self._longest = sample_of(requests, readers.lengths)
        self._sample = requests.subset(self._chosen)
        self._tokens = sizes(self._sample)[0]
        self._checked: set[LayerPoint] = set()
        self._unedited: Plain | None = None
        self._use(readers.first)
        self._trusted = readers.trusting and readers.agreed(self._number, requests)
        while not (self._trusted or self._kind.certain or self._agrees()):
            self._use(self._number + 1)
        readers.first = self._number
        if self._kind.said:
            said = (
                f"{what} rows are read {self._kind.said}: faster ways do not agree with the plain"
                " forward"
            )
            warnings.warn(said, stacklevel=3)

    def sums(
        self,
        start: LayerPoint | None,
        keep: frozenset[LayerPoint],
        advance: Advance,
        logits: bool = False,
    ) -> Sums:
        """Read the requests through the model as it is now; see `Reader.sums`."""
        return self.reader.sums(*self.settled(start, keep), advance, logits)

    def part(self, prompts: Sequence[int]) -> CheckedPart:
        """Return some of the prompts, which are read as all are."""
        return CheckedPart(self, prompts)

    def forget(self) -> None:
        """Let go of the states that checks left."""
        self._left: frozenset[LayerPoint] = frozenset()

    def settled(
        self, start: LayerPoint | None, keep: Iterable[LayerPoint]
    ) -> tuple[LayerPoint | None, frozenset[LayerPoint]]:
        """Return where a reading of the model as it is now begins, and at which points it leaves
        states.

        Before the first that begins at a point, it is made sure that it may; where it may not, a
        slower kind is used.

        Arguments:
            start: the lowest point at which the weights differ from the unedited model's; None:
                nowhere.
            keep: the points that readings are to begin at.
        """
        while True:
            begin = start if self.tails or start is None else BOTTOM
            kept = frozenset(keep) if self.tails else frozenset[LayerPoint]()
            if self._kind.certain or self._reads_right_from(begin, kept):
                return begin, kept
            self._fall_back()

    def _use(self, number: int) -> None:
        """Read by this kind from now on."""
        self._number = number
        self._kind = self.readers.kinds[number]
        self.reader = self._kind.make(self.requests, self.readers.states)
        self._prober = self._kind.make(self._sample, self.readers.probes)
        self.forget()

    def _fall_back(self) -> None:
        """Give up sharing the lower layers, or else this kind: an edited model's rows do not
        agree."""
        if self.tails:
            self.tails = False
            said = "candidates run through all layers: sharing the lower ones fails here"
        else:
            self._use(self._number + 1)
            said = (
                f"{self.what} rows are read {self._kind.said}: clipped, the model does not agree"
                " otherwise"
            )
        self._checked.clear()
        warnings.warn(said, stacklevel=4)

    def _agrees(self) -> bool:
        """Say whether this kind agrees on the unedited model."""
        known = self.readers.half and self.readers.agreed(self._number, self.requests)
        if not known and not self._tried(self._made_right):
            return False
        return not self.readers.half or self._tried(self._rounds_right)

    def _tried(self, check: Callable[[], bool]) -> bool:
        try:
            return check()
        except (*MISFITS, MemoryError) as error:
            if is_out_of_memory(error):
                self.readers.leave_unchecked()
                return True
            return False

    def _made_right(self) -> bool:
        """Say whether the unedited model is read right in float32.

        The sample's rows are read in one batch, so that whatever a forward decides by the length of
        its batch shows, and with a whole batch of others, so that places far into a batch are
        looked at.
        """
        near = sorted({*neighbours(self.reader, self._longest), *self._chosen})
        reader = self._kind.make(self.requests.subset(near), StateStore(0))
        reader.together = True
        with self.readers.wide():
            self._unedited = plain = self._unedited or self._plain()
            found = reader.log_likelihoods()[[near.index(prompt) for prompt in self._chosen]]
        if not close(found, plain, tolerance(plain, self._tokens)):
            return False
        self.readers.note_agreement(self._number, self._sample)
        return True

    def _rounds_right(self) -> bool:
        """Say whether the unedited model is read in half precision as near to float32 as the plain
        forward is."""
        plain = self._plain()
        if self._unedited is not None:
            self.readers.noise = max(
                self.readers.noise, noise_of(plain, self._unedited, self._tokens)
            )
        found = self._kind.make(self._sample, StateStore(0)).log_likelihoods()
        return close(
            found, plain, half_tolerance(self.readers.noise, self._tokens, self.readers.model.dtype)
        )

    def _reads_right_from(self, begin: LayerPoint | None, kept: frozenset[LayerPoint]) -> bool:
        """Say whether the model as it is now may be read from a point on; of the unedited one,
        leave states there.

        An edited model that is read from the bottom is read as the unedited one is, unless a check
        has failed before.
        """
        if self._trusted and (kept if begin is None else {begin}) <= self.readers.right:
            return True
        if begin is None:
            return kept <= self._left or self._tried(lambda: self._leave(kept))
        whole = begin not in kept and self.tails
        return (
            whole or begin in self._checked or self._tried(lambda: self._edited_right(begin, kept))
        )

    def _leave(self, kept: frozenset[LayerPoint]) -> bool:
        """Leave the unedited model's states for checks to come."""
        with self.readers.wide():
            self._unedited = self._unedited or self._plain()
            self._prober.log_likelihoods(None, kept)
        self._left |= kept
        return True

    def _edited_right(self, begin: LayerPoint, kept: frozenset[LayerPoint]) -> bool:
        """Say whether the model as it is now is read right in float32 by a pass that begins at a
        point."""
        with self.readers.wide():
            plain = self._plain()
            if begin in kept - self._left:
                self._prober.log_likelihoods(begin, kept)
                self._left |= {point for point in kept if point <= begin}
            found = self._prober.log_likelihoods(begin, kept)
        allowed = tolerance(plain, self._tokens)
        if not close(found, plain, allowed):
            return False
        before = plain if self._unedited is None else self._unedited
        if (np.abs(plain.values - before.values) > SHOWS * allowed).any():
            # a reader that ignored the edit would have been found out
            self._checked.add(begin)
            self.readers.right.add(begin)
        return True

    def _plain(self) -> Plain:
        return read_plainly(self.readers.model, self._sample.without_prefix(), self.readers.lengths)


class CheckedPart:
    """Reads some of the prompts of requests, as all are read.

    Arguments:
        whole: all of them.
        prompts: which.
    """

    def __init__(self, whole: CheckedReader, prompts: Sequence[int]) -> None:
        self.whole = whole
        self.requests = whole.requests.subset(prompts)
        self._prompts = prompts
        self._whole: Reader | None = None

    def sums(
        self,
        start: LayerPoint | None,
        keep: frozenset[LayerPoint],
        advance: Advance,
        logits: bool = False,
    ) -> Sums:
        """Read them through the model as it is now; see `Reader.sums`."""
        settled = self.whole.settled(start, keep)
        if self._whole is not self.whole.reader:
            self._whole = self.whole.reader
            self.reader = self._whole.part(self._prompts)
        return self.reader.sums(*settled, advance, logits)
