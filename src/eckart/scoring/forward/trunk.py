"""Passes through a model's own forward that begin above its lower layers, and leave states for
later ones.

Layers below the lowest edited one give every candidate the same states. A pass that begins at a
`LayerPoint` bypasses them: their forward returns its input, and the first layer of the tail
receives the states that an earlier pass left. An edit of a layer's MLP leaves its attention as it was, so such a
pass begins after that.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn

from eckart.records import Edit
from eckart.weights.anatomy import Anatomy
from eckart.weights.hooks import Forward, PassEnded, replace_forward

States = tuple[Tensor, ...]


@runtime_checkable
class Ends(Protocol):
    """Runs the last layer on the scored tokens alone, and ends the pass there."""

    def narrow(
        self, forward: Forward, hidden: Tensor, args: Any, kwargs: Any, keys: bool
    ) -> tuple[Tensor, Any, Any]:
        """Return the last layer's inputs for the scored tokens.

        Arguments:
            forward: the layer's own.
            hidden, args, kwargs: its inputs for all tokens.
            keys: its attention is to run, and needs the keys of all tokens.

        Raises:
            PassEnded: nothing is scored.
        """
        ...

    def take(self, hidden: Tensor) -> None:
        """Receive the layer's output for the scored tokens."""
        ...


@dataclass(frozen=True, order=True)
class LayerPoint:
    """Where a candidate's own computation begins.

    Arguments:
        layer: 0-based; one more than the last stands for the outputs of all layers, where the head
            begins.
        after_attention: not at the layer's input, but where its attention is known.
    """

    layer: int
    after_attention: bool = False

    @property
    def unchanged(self) -> int:
        """How many of the lowest layers have the keys and values of the unedited model."""
        return self.layer + self.after_attention


class Trunk:
    """A model's layers, passed through from any point on.

    Arguments:
        anatomy: the model's.
    """

    def __init__(self, anatomy: Anatomy) -> None:
        self.anatomy = anatomy
        self.blocks = anatomy.blocks
        self.attentions = [_attention(anatomy, layer) for layer in range(len(anatomy.blocks))]
        self.last_query = _query(anatomy)
        self._ends: Ends | None = None
        self._start: tuple[LayerPoint, States] | None = None
        self._keep: frozenset[LayerPoint] = frozenset()
        self._left: dict[LayerPoint, list[Tensor]] = {}
        self._gives_tuple: dict[nn.Module, bool] = {}

    def point(self, edits: Iterable[Edit]) -> LayerPoint | None:
        """Return where the lowest of these edits takes effect; None without edits."""
        lowest = min((edit.layer for edit in edits), default=None)
        if lowest is None:
            return None
        parts = {
            weight.part
            for e in edits
            if e.layer == lowest
            for weight in self.anatomy.select(e.layer, e.part)
        }
        after = parts == {"mlp"} and self.attentions[lowest] is not None
        return LayerPoint(lowest, after)

    @contextmanager
    def laid(self) -> Iterator[None]:
        """Lead the model's layers along this trunk while a `with` block runs."""
        with ExitStack() as undo:
            for layer, block in enumerate(self.blocks):
                replace_forward(undo, block, self._block(layer, block, block.forward))
                attention = self.attentions[layer]
                if attention is not None:
                    replace_forward(
                        undo, attention, self._attend(layer, attention, attention.forward)
                    )
            yield

    @contextmanager
    def passing(
        self,
        start: tuple[LayerPoint, States] | None = None,
        keep: Iterable[LayerPoint] = (),
        ends: Ends | None = None,
    ) -> Iterator[dict[LayerPoint, list[Tensor]]]:
        """Say how the next pass goes: where it begins, with which states, and where it leaves some.

        Arguments:
            start: the point, and what an earlier pass left there; None for the whole model.
            keep: points of which the states are wanted.
            ends: runs the last layer on the scored tokens alone, and ends the pass there; None for
                a whole pass.

        Yields:
            the states left, filled by the pass.
        """
        self._start, self._keep, self._ends, self._left = start, frozenset(keep), ends, {}
        try:
            yield self._left
        finally:
            self._start, self._keep, self._ends, self._left = None, frozenset(), None, {}

    def _block(self, layer: int, block: nn.Module, forward: Forward) -> Forward:
        here, after = LayerPoint(layer), LayerPoint(layer, after_attention=True)

        def routed(hidden: Tensor, *args: Any, **kwargs: Any) -> Any:
            """Stand in for the layer's forward."""
            start, states = self._start or (LayerPoint(-1), ())
            if start.layer > layer:
                passed = states[0] if start.layer == layer + 1 == len(self.blocks) else hidden
                return (passed,) if self._gives_tuple[block] else passed
            if start == here:
                hidden = states[0].to(hidden.device)
            self._keep_state(here, hidden)
            ends = self._ends if layer == len(self.blocks) - 1 else None
            if ends is not None:
                hidden, args, kwargs = ends.narrow(forward, hidden, args, kwargs, start != after)
            if start == after:
                hidden = states[0].to(hidden.device)
            self._keep_state(after, hidden)
            output = forward(hidden, *args, **kwargs)
            self._gives_tuple[block] = isinstance(output, tuple)
            if ends is not None:
                ends.take(output[0] if isinstance(output, tuple) else output)
                raise PassEnded
            return output

        return routed

    def _attend(self, layer: int, attention: nn.Module, forward: Forward) -> Forward:
        after = LayerPoint(layer, after_attention=True)

        def routed(*args: Any, **kwargs: Any) -> Any:
            """Stand in for the attention's forward."""
            if self._start is not None and self._start[0] == after:
                attended = self._start[1][1]
                return (attended, None) if self._gives_tuple[attention] else attended
            output = forward(*args, **kwargs)
            self._gives_tuple[attention] = isinstance(output, tuple)
            self._keep_state(after, output[0] if isinstance(output, tuple) else output)
            return output

        return routed

    def _keep_state(self, point: LayerPoint, state: Tensor) -> None:
        if point in self._keep:
            self._left.setdefault(point, []).append(state)


def _attention(anatomy: Anatomy, layer: int) -> nn.Module | None:
    """Return the module that holds a layer's attention and nothing else; None where it is not one
    module."""
    paths = {
        part: [w.path for w in anatomy.layers[layer] if w.part == part] for part in ("attn", "mlp")
    }
    common = _parent(paths["attn"])
    block = _parent([w.path for w in anatomy.layers[layer]])
    apart = (
        common
        and common != block
        and not any(path.startswith(f"{common}.") for path in paths["mlp"])
    )
    return anatomy.model.get_submodule(common) if apart else None


def _query(anatomy: Anatomy) -> nn.Module | None:
    """Return the module that computes the last layer's queries and nothing else; None where it is
    fused."""
    query = next((w for w in anatomy.layers[-1] if w.name == "q" and not w.transposed), None)
    return (
        None
        if query is None or query.fused
        else anatomy.model.get_submodule(query.path.rpartition(".")[0])
    )


def _parent(paths: Sequence[str]) -> str:
    """Return the name of the smallest module that holds all these parameters."""
    common = paths[0].split(".")[:-1] if paths else []
    while not all(path.startswith(".".join([*common, ""])) for path in paths):
        common.pop()
    return ".".join(common)
