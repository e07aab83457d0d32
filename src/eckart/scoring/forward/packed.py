"""Reading without padding: packs of rows as forests, the prefix's keys held once, the last layer on
scored tokens."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from eckart.scoring.encoding import Tokens
from eckart.scoring.forward.attention import Keys, Packing, View, packed_attention, replaceable
from eckart.scoring.forward.packing import Pack, pack, plan_packs
from eckart.scoring.forward.reader import Places, Reader
from eckart.scoring.forward.trunk import Forward, PassEnded, Point, Route, replace_forward


class Packed(Reader):
    """Rows that begin alike share what they begin with; no padding, and no copy of the prefix's
    keys and values."""

    route: Route
    _prefix: dict[nn.Module, Keys]
    _below: bool  # whether the prefix's keys are known in the layers below the start, too

    def plan(self, rows: Sequence[Tokens]) -> list[list[int]]:
        """Group rows into packs."""
        return plan_packs(rows, self.budget)

    def read_prefix(self) -> None:
        """Run the prefix, from where the rows will begin, and keep the keys and values of every
        layer above."""
        self._prefix, self._below = {}, False
        if self._start is None or self._start.unchanged < len(self.route.blocks):
            self._below = not self.begins(self.prefix)
            self._run_prefix()

    def forget_prefix(self) -> None:
        """Let the prefix's keys and values go."""
        self._prefix = {}

    def read(self, rows: list[int]) -> tuple[Float[Tensor, "scored size"], Places]:
        """Run one pack; return the last layer's output at its scored tokens, and which is which."""
        name = f"{rows[0]}+{len(rows)}"
        if not self._below and not self.begins(name):
            # Its states were not kept, so it runs through all layers.
            self._below = True
            self._run_prefix()
        scored = [[position for _, _, position, _ in self._wanted[row]] for row in rows]
        batch, places = pack([self.requests.rows[row] for row in rows], scored, self.model.device)
        ends = self._run(batch, Packing(View.of_all(batch), self._prefix), name)
        assert ends is not None
        return ends[0], places

    def head(self, outputs: Float[Tensor, "scored size"]) -> Float[Tensor, "scored vocabulary"]:
        """Run what the model's own forward does above its layers, on the scored tokens of several
        packs at once."""
        tokens = torch.zeros(1, len(outputs), dtype=torch.long, device=self.model.device)
        top = Point(len(self.route.blocks))
        with self.route.passing((top, (outputs[None],))), packed_attention(self.model):
            return self.model(input_ids=tokens, position_ids=tokens, use_cache=False).logits[0]

    def _run_prefix(self) -> None:
        if self.requests.prefix:
            row, _ = pack([self.requests.prefix], [[]], self.model.device)
            packing = Packing(View.of_all(row), record=True)
            self._run(row, packing, self.prefix, whole=self._below)
            self._prefix = packing.known

    def _run(
        self, batch: Pack, packing: Packing, name: str, whole: bool = False
    ) -> Float[Tensor, "1 scored size"] | None:
        """Run the layers on a pack, down to the last one's output at the scored tokens; None if
        none are."""
        positions = batch.depths[None] + (0 if name == self.prefix else len(self.requests.prefix))
        ends = _Ends(batch, packing, self.route.last_query)
        with (
            self.passing(name, ends, whole),
            packed_attention(self.model, packing),
            suppress(PassEnded),
        ):
            self.model(input_ids=batch.tokens[None], position_ids=positions, use_cache=False)
        return ends.hidden


@dataclass(eq=False)
class _Ends:
    """Runs the last layer of a pass over a pack on its scored tokens; of all others only keys and
    values are needed."""

    batch: Pack
    packing: Packing
    query: nn.Module | None
    hidden: Float[Tensor, "1 scored size"] | None = None

    def narrow(
        self, forward: Forward, hidden: Tensor, args: Any, kwargs: Any, keys: bool
    ) -> tuple[Tensor, Any, Any]:
        """Let the layer's attention know its keys; return its inputs for the scored tokens."""
        if keys:
            self.packing.stop = True
            with ExitStack() as undo, suppress(PassEnded):
                if self.query is not None:
                    replace_forward(undo, self.query, _no_queries(self.query))
                forward(hidden, *args, **kwargs)
            self.packing.stop = False
        if not len(self.batch.ends):
            raise PassEnded
        self.packing.ends = View.of_ends(self.batch)
        return _take((hidden, args, kwargs), self.batch.ends, len(self.batch.tokens))

    def take(self, hidden: Float[Tensor, "1 scored size"]) -> None:
        """Receive the layer's output for the scored tokens."""
        self.hidden = hidden


def _no_queries(query: nn.Module) -> Forward:
    """Return a forward for a projection whose output nobody reads."""
    size = cast("Tensor", query.weight).shape[0]
    return lambda hidden: hidden.new_zeros(1).expand(*hidden.shape[:-1], size)


def can_pack(route: Route) -> bool:
    """Say whether the attention of all layers can be replaced by that over a pack."""
    return all(attention is not None and replaceable(attention) for attention in route.attentions)


def _take(value: Any, index: Tensor, tokens: int) -> Any:
    """Take some of the tokens out of every tensor that has one entry for each: (1, tokens, ...) or
    (tokens,)."""
    if isinstance(value, Tensor):
        if value.dim() > 1 and value.shape[:2] == (1, tokens):
            return value[:, index.to(value.device)]
        return value[index.to(value.device)] if value.shape == (tokens,) else value
    if isinstance(value, dict):
        return {key: _take(item, index, tokens) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return type(value)(_take(item, index, tokens) for item in value)
    return value
