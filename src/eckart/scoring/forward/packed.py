"""Reading without padding: packs of rows as forests, the prefix's keys held once, the last layer on
scored tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from eckart.scoring.encoding import Tokens, common_prefix
from eckart.scoring.forward.attention import Keys, Pack, Packing, View, packed_attention
from eckart.scoring.forward.reader import Places, Reader
from eckart.scoring.forward.trunk import LayerPoint, Trunk
from eckart.weights.hooks import Forward, PassEnded, replace_forward, replaceable

PADDED = 4
"""How many places the padded rows of a pack may have for each of its tokens: own attention is
computed on those."""


class Packed(Reader):
    """Rows that begin alike share what they begin with; no padding, and no copy of the prefix's
    keys and values."""

    trunk: Trunk
    _prefix: dict[nn.Module, Keys]
    _below: bool  # whether the prefix's keys are known in the layers below the start, too

    def plan(self, rows: Sequence[Tokens]) -> list[list[int]]:
        """Group rows into packs."""
        return plan_packs(rows, self.budget)

    def read_prefix(self) -> None:
        """Run the prefix, from where the rows will begin, and keep the keys and values of every
        layer above."""
        self._prefix, self._below = {}, False
        if self._start is None or self._start.unchanged < len(self.trunk.blocks):
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
        top = LayerPoint(len(self.trunk.blocks))
        with self.trunk.passing((top, (outputs[None],))), packed_attention(self.model):
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
        ends = _Ends(batch, packing, self.trunk.last_query)
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


def can_pack(trunk: Trunk) -> bool:
    """Say whether the attention of all layers can be replaced by that over a pack."""
    return all(attention is not None and replaceable(attention) for attention in trunk.attentions)


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


def plan_packs(rows: Sequence[Tokens], budget: int) -> list[list[int]]:
    """Group rows into packs of about `budget` tokens.

    Rows that begin alike are neighbours, so that they share the most, among those of about the same
    length (within a power of two), since attention within rows is computed on rows that are padded
    to the longest.

    >>> plan_packs([(7, 1), (5, 5, 5, 5), (7, 2)], budget=4)
    [[0, 2], [1]]
    """
    packs: list[list[int]] = []
    tokens = longest = 0
    previous: Tokens = ()
    for index in sorted(range(len(rows)), key=lambda i: (len(rows[i]).bit_length(), rows[i])):
        row = rows[index]
        new = len(row) - len(common_prefix([previous, row]))
        longest = max(longest, len(row))
        if not packs or tokens + new > budget or (len(packs[-1]) + 1) * longest > PADDED * budget:
            packs.append([])
            tokens, new, longest = 0, len(row), len(row)
        packs[-1].append(index)
        tokens += new
        previous = row
    return packs


def pack(
    rows: Sequence[Tokens], scored: Sequence[Sequence[int]], device: torch.device
) -> tuple[Pack, dict[tuple[int, int], int]]:
    """Lay rows out as a pack.

    Arguments:
        rows: the rows, in the order that `plan_packs` gives.
        scored: for each, the places whose outputs are scored.
        device: where the model reads.

    Returns:
        the pack, and for each (row of the pack, place) that is scored its index in `ends`.
    """
    tokens, depths, owners, paths = _forest(rows)
    width = max(map(len, paths))
    padded = [path + path[-1:] * (width - len(path)) for path in paths]
    nodes: dict[int, int] = {}
    found = {
        (row, place): nodes.setdefault(paths[row][place], len(nodes))
        for row, places in enumerate(scored)
        for place in places
    }
    rows_of = {index: row for (row, _), index in reversed(found.items())}

    def put(values: Sequence[int] | Sequence[list[int]]) -> Tensor:
        tensor = torch.tensor(values, dtype=torch.long)
        # From pinned memory nobody waits: the next pack is laid out while this one is computed.
        return (
            tensor.pin_memory().to(device, non_blocking=True)
            if device.type == "cuda"
            else tensor.to(device)
        )

    flat = [row * width + place for row, place in owners]
    ends, end_rows = list(nodes), [rows_of[i] for i in range(len(nodes))]
    return (
        Pack(put(tokens), put(depths), put(padded), put(flat), put(ends), put(end_rows)),
        found,
    )


def _forest(
    rows: Sequence[Tokens],
) -> tuple[list[int], list[int], list[tuple[int, int]], list[list[int]]]:
    """Return each distinct token, its depth and the (row, place) where it first stands, and each
    row's path."""
    tokens: list[int] = []
    depths: list[int] = []
    owners: list[tuple[int, int]] = []
    paths: list[list[int]] = []
    for number, (row, shared) in enumerate(_beginnings(rows)):
        fresh = range(shared, len(row))
        paths.append(
            (paths[-1][:shared] if paths else [])
            + list(range(len(tokens), len(tokens) + len(fresh)))
        )
        tokens += row[shared:]
        depths += fresh
        owners += [(number, place) for place in fresh]
    return tokens, depths, owners, paths


def _beginnings(rows: Sequence[Tokens]) -> Iterator[tuple[Tokens, int]]:
    """Yield each row and how many of its first tokens it has in common with the one before."""
    previous: Tokens = ()
    for row in rows:
        yield row, len(common_prefix([previous, row]))
        previous = row
