"""The trunk: the layers below an edit, which give every candidate the same states.

A pass that begins at a `LayerPoint` bypasses the layers below: their forward returns its input, and
the first layer that runs receives the states that an earlier pass left. An edit of a layer's MLP
leaves its attention as it was, so such a pass begins after that. Everything else is the model's own
forward.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from eckart.records import Edit
from eckart.weights.anatomy import Anatomy
from eckart.weights.hooks import Forward, PassEnded, replace_forward

States = tuple[Tensor, ...]


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


@dataclass(frozen=True, eq=False)
class Pass:
    """What one pass through the layers is told.

    Arguments:
        start: where it begins; None for the bottom.
        states: what an earlier pass left there.
        keep: points whose states it leaves for later ones.
        left: those states, filled while it runs: a layer's input, or what its attention's output is
            added to, and that output.
    """

    start: LayerPoint | None = None
    states: States = ()
    keep: frozenset[LayerPoint] = frozenset()
    left: dict[LayerPoint, list[Tensor]] = field(default_factory=dict)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Let the model's layers do as this pass is told while a `with` block runs."""
        before = _running.set(self)
        try:
            yield
        finally:
            _running.reset(before)

    def leave(self, point: LayerPoint, state: Tensor) -> None:
        """Leave a state, if it is wanted."""
        if point in self.keep:
            self.left.setdefault(point, []).append(state)

    def at_scored(
        self, forward: Forward, hidden: Tensor, args: Any, kwargs: Any, attends: bool
    ) -> tuple[Pass, Tensor, Any, Any] | None:
        """Return how the last layer runs on the scored tokens alone, and its inputs there; None for
        a pass that runs it on all tokens, and the head after it.

        Arguments:
            forward: the layer's own.
            hidden, args, kwargs: its inputs for all tokens.
            attends: its attention is to run, and needs the keys of all tokens.

        Raises:
            PassEnded: nothing is scored.
        """
        return None


_WHOLE = Pass()
_running: ContextVar[Pass] = ContextVar("pass", default=_WHOLE)


def running_pass() -> Pass:
    """Return what the pass that runs now is told; that of a whole one where nothing was said."""
    return _running.get()


class Trunk:
    """A model's layers, which passes may begin at any point of.

    Arguments:
        anatomy: the model's.
    """

    def __init__(self, anatomy: Anatomy) -> None:
        self.anatomy = anatomy
        self.blocks = anatomy.blocks
        self.top = LayerPoint(len(anatomy.blocks))
        self.attentions = [_attention(anatomy, layer) for layer in range(len(anatomy.blocks))]
        self.last_query = _query(anatomy)
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
    def installed(self) -> Iterator[None]:
        """Let the model's layers follow the running `Pass` while a `with` block runs."""
        with ExitStack() as undo:
            for layer, block in enumerate(self.blocks):
                replace_forward(undo, block, self._block(layer, block, block.forward))
                attention = self.attentions[layer]
                if attention is not None:
                    replace_forward(
                        undo, attention, self._attend(layer, attention, attention.forward)
                    )
            yield

    def _block(self, layer: int, block: nn.Module, forward: Forward) -> Forward:
        here = LayerPoint(layer)
        after = LayerPoint(layer, after_attention=True)
        last = layer == len(self.blocks) - 1

        def followed(hidden: Tensor, *args: Any, **kwargs: Any) -> Any:
            """Stand in for the layer's forward."""
            now = running_pass()
            # 1) Below the start nothing runs. What is handed on there are the embeddings, which
            #    nobody reads: the layer of the start takes its own states. A pass that starts at
            #    the top has no such layer, so the last one hands them to the head.
            if now.start is not None and now.start.layer > layer:
                passed = now.states[0] if last else hidden
                return (passed,) if self._gives_tuple[block] else passed
            # 2) The layer's input. Layers of a model that is spread out lie on several devices.
            if now.start == here:
                hidden = now.states[0].to(hidden.device)
            now.leave(here, hidden)
            # 3) The last layer, on the scored tokens alone. This comes before the states after the
            #    attention, which an earlier pass left of the scored tokens alone, too.
            narrowed = None
            if last:
                narrowed = now.at_scored(forward, hidden, args, kwargs, now.start != after)
            if narrowed is not None:
                now, hidden, args, kwargs = narrowed
            # 4) What the attention's output is added to: it is kept beside that output (`_attend`),
            #    since the layer adds the two up itself.
            if now.start == after:
                hidden = now.states[0].to(hidden.device)
            now.leave(after, hidden)
            with now.running():
                output = forward(hidden, *args, **kwargs)
            self._gives_tuple[block] = isinstance(output, tuple)
            if last:
                now.leave(self.top, output[0] if isinstance(output, tuple) else output)
            if narrowed is None:
                return output
            raise PassEnded

        return followed

    def _attend(self, layer: int, attention: nn.Module, forward: Forward) -> Forward:
        after = LayerPoint(layer, after_attention=True)

        def followed(*args: Any, **kwargs: Any) -> Any:
            """Stand in for the attention's forward."""
            now = running_pass()
            if now.start == after:
                attended = now.states[1]
                return (attended, None) if self._gives_tuple[attention] else attended
            output = forward(*args, **kwargs)
            self._gives_tuple[attention] = isinstance(output, tuple)
            now.leave(after, output[0] if isinstance(output, tuple) else output)
            return output

        return followed


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
