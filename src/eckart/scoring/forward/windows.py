"""The reader of a text's windows: of every token the loss, and how far an edit moves the whole
distribution of the next one.

The unpruned model's pass leaves its states where edits begin, and where the head does. A clipped
model's pass begins at the first; its predictions are compared with those that the head, which no
edit touches, makes of the second, so that the vocabulary is never held for more than a window.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby

import torch
from jaxtyping import Float
from torch import Tensor

from eckart.scoring.encoding import Tokens
from eckart.scoring.forward.fastest import MISFITS
from eckart.scoring.forward.patches import Lengths, exact_logits, first_position, head_at
from eckart.scoring.forward.plain import ROUNDINGS, SMALLEST
from eckart.scoring.forward.reader import (
    Advance,
    is_out_of_memory,
    release_memory,
    run_halving,
)
from eckart.scoring.forward.states import StateStore
from eckart.scoring.forward.trunk import LayerPoint, Pass, Trunk
from eckart.weights.hooks import in_float32
from eckart.weights.models import Model

Predictions = Float[Tensor, "tokens vocabulary"]
"""The log-probability of every token, after each of a window's but the last."""
APART = "parts of the model by themselves do not agree with its forward"


class WindowReader:
    """Reads windows of a text through a model, unpruned and then clipped.

    Arguments:
        model: a causal language model.
        windows: token rows of two tokens or more; those of one length are read together.
        budget: the most tokens in a batch.
        trunk: the model's.
        states: where the unpruned model's pass leaves its states.
    """

    def __init__(
        self,
        model: Model,
        windows: Sequence[Tokens],
        budget: int,
        trunk: Trunk,
        states: StateStore,
    ) -> None:
        self.model = model
        self.windows = windows
        self.trunk = trunk
        self.states = states
        self._lengths = Lengths(model)
        self._batches = [
            numbers[start : start + room]
            for numbers in _by_length(windows)
            for room in [max(1, budget // len(windows[numbers[0]]))]
            for start in range(0, len(numbers), room)
        ]
        self.clear()

    def clear(self) -> None:
        """Forget the unpruned model."""
        self.states.clear()
        self._outputs: dict[int, Tensor] = {}
        self._probes: dict[LayerPoint, list[Tensor]] = {}
        self._parted = True  # layers and head may run by themselves

    @torch.inference_mode()
    def unpruned(self, points: frozenset[LayerPoint], advance: Advance) -> list[float]:
        """Read the unpruned model; return each window's loss, in nats, summed over its tokens.

        Arguments:
            points: where clipped models' passes are to begin.
            advance: told of windows done.
        """
        self.clear()
        losses = [0.0] * len(self.windows)
        self._parted = self._tried(lambda: self._parts_right(points))
        if not self._parted:
            self._warn(f"the unpruned model's predictions are held whole: {APART}")

        def run(batch: list[int]) -> None:
            now = Pass(keep=points | {self.trunk.top})
            for number, (output, predicted) in zip(batch, self._read(batch, now), strict=True):
                self._outputs[number] = output.cpu()
                losses[number] = self._loss(number, predicted)
            for point in points & now.left.keys():
                self.states.put(_name(batch), point, now.left[point])

        self._run(run, advance)
        return losses

    @torch.inference_mode()
    def clipped(self, start: LayerPoint, advance: Advance) -> tuple[list[float], list[float]]:
        """Read the model as it is clipped now; return each window's loss, and KL(unpruned ||
        clipped), in nats, summed over its tokens.

        Arguments:
            start: the lowest point at which its weights differ from the unpruned model's.
            advance: told of windows done.
        """
        losses, divergences = [0.0] * len(self.windows), [0.0] * len(self.windows)
        unchecked = not self._probes  # memory was full, which is said by then
        shares = self._parted and (unchecked or self._tried(lambda: self._begins_right(start)))
        if self._parted and not shares:
            self._warn(f"a clipped model runs through all layers: {APART}")

        def run(batch: list[int]) -> None:
            states = self.states.get(_name(batch), start) if shares else None
            begun = Pass() if states is None else Pass(start, states)
            now = Pass(begun.start, begun.states, frozenset({self.trunk.top}))
            for number, (_, predicted) in zip(batch, self._read(batch, now), strict=True):
                before = self._outputs[number].to(self.model.device)
                before = self._predicted(before) if self._parted else before
                losses[number] = self._loss(number, predicted)
                divergences[number] = divergence(before, predicted)

        self._run(run, advance)
        return losses, divergences

    def _run(self, run: Callable[[list[int]], None], advance: Advance) -> None:
        with self._helped():
            for batch in self._batches:
                run_halving(run, [batch], "the text")
                advance(len(batch))

    def _read(self, batch: list[int], now: Pass) -> Iterator[tuple[Tensor, Predictions]]:
        """Yield for each window what is held of it, and its predictions."""
        if self._parted:
            outputs = self._through_layers(batch, now)
            yield from ((output, self._predicted(output)) for output in outputs)
        else:
            yield from ((found, found) for found in map(self._plainly, batch))

    @contextmanager
    def _helped(self) -> Iterator[None]:
        """Let every length be read as it is alone, and the head be exact in half precision, while a
        `with` block runs."""
        everything = range(len(self.model.get_output_embeddings().weight))
        with self._lengths.pinned(None), exact_logits(self.model, everything):
            yield

    def _through_layers(self, batch: list[int], now: Pass) -> Float[Tensor, "batch tokens size"]:
        """Run the layers alone; return what the last one gives."""
        rows = [self.windows[number][:-1] for number in batch]
        tokens = torch.tensor(rows, device=self.model.device)
        unread = first_position(self.model.device)
        with self.trunk.installed(), now.running(), head_at(self.model, *unread):
            self.model(input_ids=tokens, use_cache=False)
        (output,) = now.left[self.trunk.top]
        return output

    def _predicted(self, output: Float[Tensor, "tokens size"]) -> Predictions:
        """Run what the model's own forward does above its layers."""
        tokens = torch.zeros(1, len(output), dtype=torch.long, device=self.model.device)
        with self.trunk.installed(), Pass(self.trunk.top, (output[None],)).running():
            logits = self.model(input_ids=tokens, use_cache=False).logits[0]
        return logits.float().log_softmax(-1)

    def _plainly(self, number: int) -> Predictions:
        """Run the whole model on one window."""
        tokens = torch.tensor([self.windows[number][:-1]], device=self.model.device)
        return self.model(input_ids=tokens, use_cache=False).logits[0].float().log_softmax(-1)

    def _loss(self, number: int, predicted: Predictions) -> float:
        after = torch.tensor(self.windows[number][1:], device=predicted.device)
        return -float(predicted.gather(-1, after[:, None]).double().sum())

    def _parts_right(self, points: frozenset[LayerPoint]) -> bool:
        """Say whether layers and head by themselves do what they do together, on the first window
        and in float32; leave states for the checks of clipped models."""
        now = Pass(keep=points | {self.trunk.top})
        with in_float32(self.model, self.trunk.blocks), self._lengths.pinned(None):
            agrees = _close(self._predicted(self._through_layers([0], now)[0]), self._plainly(0))
        self._probes = now.left
        return agrees

    def _begins_right(self, start: LayerPoint) -> bool:
        """Say whether a pass of the clipped model may begin at a point."""
        now = Pass(start, tuple(self._probes[start]), frozenset({self.trunk.top}))
        with in_float32(self.model, self.trunk.blocks), self._lengths.pinned(None):
            return _close(self._predicted(self._through_layers([0], now)[0]), self._plainly(0))

    def _tried(self, check: Callable[[], bool]) -> bool:
        try:
            return check()
        except (*MISFITS, MemoryError) as error:
            if not is_out_of_memory(error):
                return False
            release_memory()
            self._warn("parts of the model are not compared with its forward: memory is full")
            return True

    def _warn(self, said: str) -> None:
        warnings.warn(f"text: {said}", stacklevel=4)


def divergence(before: Predictions, after: Predictions) -> float:
    """Return KL(before || after), in nats, summed over tokens; what neither gives any probability
    counts nothing."""
    terms = before.exp() * (before - after)
    return float(torch.where(before.isneginf(), 0.0, terms).sum(-1).double().sum())


def _by_length(windows: Sequence[Tokens]) -> list[list[int]]:
    """Group windows by their length, so that none is padded."""
    order = sorted(range(len(windows)), key=lambda number: -len(windows[number]))
    return [list(group) for _, group in groupby(order, key=lambda n: len(windows[n]))]


def _name(batch: list[int]) -> str:
    return f"{batch[0]}+{len(batch)}"


def _close(found: Predictions, plain: Predictions) -> bool:
    """Say whether predictions agree but for rounding."""
    numbers = found.isfinite() & plain.isfinite()
    scale = max(float(plain[numbers].abs().max()), SMALLEST) if numbers.any() else SMALLEST
    apart = torch.where(numbers, (found - plain).abs(), 0.0).max()
    alike = bool((found.isfinite() == plain.isfinite()).all())
    return alike and float(apart) <= ROUNDINGS * torch.finfo(torch.float32).eps * scale
