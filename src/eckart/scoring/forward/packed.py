"""The packed reader: packs of rows without padding, in which rows share what they begin with, and
the last layer runs on the scored tokens alone."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from eckart.scoring.encoding import Tokens, common_prefix
from eckart.scoring.forward.attention import KeysOf, Pack, PackPass, View, packed_attention
from eckart.scoring.forward.reader import Outputs, Places, Reader
from eckart.scoring.forward.trunk import Pass, Trunk
from eckart.weights.hooks import PassEnded, replaceable

PADDED = 4
"""How many places the padded rows of a pack may have for each of its tokens: own attention is
computed on those."""


@dataclass(eq=False)
class _Prefix:
    """The keys and values of what all rows begin with.

    Arguments:
        name: of the states that a pass over it leaves.
        keys: each attention module's, in the layers that were run.
        whole: those are all layers, so that rows may begin at the bottom.
    """

    name: str
    keys: KeysOf = field(default_factory=dict)
    whole: bool = False


class Packed(Reader):
    """Rows that begin alike share what they begin with; no padding, and no copy of the prefix's
    keys and values.

    Its passes end below the head, which runs on the scored tokens of several packs at once.
    """

    trunk: Trunk

    def plan(self, rows: Sequence[Tokens]) -> list[list[int]]:
        return plan_packs(rows, self.budget)

    def read_prefix(self, name: str, wanted: Pass) -> _Prefix:
        prefix = _Prefix(name)
        # Where the last layer's MLP alone is edited, rows begin after all attention.
        if wanted.start is None or wanted.start.unchanged < len(self.trunk.blocks):
            prefix.whole = not self.has_states(name, wanted)
            self._run_prefix(prefix, wanted)
        return prefix

    def read(self, rows: list[int], prefix: _Prefix, wanted: Pass) -> tuple[Outputs, Places]:
        """Run one pack; return the last layer's output at its scored tokens."""
        name = f"{rows[0]}+{len(rows)}"
        if not prefix.whole and not self.has_states(name, wanted):
            # The pack's states were not kept, so it runs from the bottom. The prefix began above:
            # of the layers below it has no keys.
            prefix.whole = True
            self._run_prefix(prefix, wanted)
        scored = [[position for _, _, position, _ in self.targets[row]] for row in rows]
        batch, places = pack([self.requests.rows[row] for row in rows], scored, self.model.device)
        told = self.told(name, wanted)
        (output,) = self._run(batch, name, told, len(self.requests.prefix), prefix.keys)
        return output[0], places

    def logits(self, outputs: Outputs) -> Float[Tensor, "scored vocabulary"]:
        """Run what the model's own forward does above its layers."""
        tokens = torch.zeros(1, len(outputs), dtype=torch.long, device=self.model.device)
        above = Pass(self.trunk.top, (outputs[None],))
        with above.running(), packed_attention(self.model):  # no attention runs, nor is a mask made
            return self.model(input_ids=tokens, position_ids=tokens, use_cache=False).logits[0]

    def _run_prefix(self, prefix: _Prefix, wanted: Pass) -> None:
        if self.requests.prefix:
            row, _ = pack([self.requests.prefix], [[]], self.model.device)
            told = Pass(keep=wanted.keep) if prefix.whole else self.told(prefix.name, wanted)
            noted: KeysOf = {}
            self._run(row, prefix.name, told, 0, noted=noted)
            prefix.keys = noted

    def _run(
        self,
        batch: Pack,
        name: str,
        told: Pass,
        first: int,
        prefix: KeysOf | None = None,
        noted: KeysOf | None = None,
    ) -> list[Float[Tensor, "1 scored size"]]:
        """Run the layers on a pack; return the last one's output at the scored tokens, if any are.

        Arguments:
            batch: the pack.
            name: of the states that are left.
            told: where the pass begins, and what it leaves.
            first: the position of a row's first token: packs go on where the prefix ends.
            prefix: keys and values that all tokens see.
            noted: where keys and values are noted.
        """
        now = PackPass(
            told.start,
            told.states,
            told.keep | {self.trunk.top},
            pack=batch,
            view=View.of_all(batch),
            prefix=prefix or {},
            query=self.trunk.last_query,
            noted=noted,
        )
        positions = batch.depths[None] + first
        with now.running(), packed_attention(self.model), suppress(PassEnded):
            self.model(input_ids=batch.tokens[None], position_ids=positions, use_cache=False)
        output = now.left.pop(self.trunk.top, [])
        self.keep_left(name, now)
        return output


def can_pack(trunk: Trunk) -> bool:
    """Say whether the attention of all layers can be replaced by that over a pack."""
    return all(attention is not None and replaceable(attention) for attention in trunk.attentions)


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
            tokens = 0
            new = longest = len(row)
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
    # 1) The rows as a forest. A row's path is padded with its last token, which is not seen there:
    #    a token sees the places up to its own alone.
    tokens, depths, owners, paths = _forest(rows)
    width = max(map(len, paths))
    padded = [path + path[-1:] * (width - len(path)) for path in paths]

    # 2) The scored tokens, each once, however many rows score it; the first of these rows serves
    #    to see what stands before it.
    ends: dict[int, int] = {}
    places = {
        (row, place): ends.setdefault(paths[row][place], len(ends))
        for row, scored_places in enumerate(scored)
        for place in scored_places
    }
    end_rows = {end: row for (row, _), end in reversed(places.items())}

    # 3) To the device. From pinned memory nobody waits: the next pack is laid out while this one is
    #    computed.
    def put(values: Sequence[int] | Sequence[list[int]]) -> Tensor:
        tensor = torch.tensor(values, dtype=torch.long)
        if device.type == "cuda":
            return tensor.pin_memory().to(device, non_blocking=True)
        return tensor.to(device)

    laid_out = Pack(
        tokens=put(tokens),
        depths=put(depths),
        paths=put(padded),
        owners=put([row * width + place for row, place in owners]),
        ends=put(list(ends)),
        end_rows=put([end_rows[end] for end in range(len(ends))]),
    )
    return laid_out, places


def _forest(
    rows: Sequence[Tokens],
) -> tuple[list[int], list[int], list[tuple[int, int]], list[list[int]]]:
    """Return each distinct token, its depth and the (row, place) where it first stands, and each
    row's path."""
    tokens: list[int] = []
    depths: list[int] = []
    owners: list[tuple[int, int]] = []
    paths: list[list[int]] = []
    previous: Tokens = ()
    path: list[int] = []
    for number, row in enumerate(rows):
        shared = len(common_prefix([previous, row]))
        fresh = range(shared, len(row))
        path = path[:shared] + list(range(len(tokens), len(tokens) + len(fresh)))
        paths.append(path)
        tokens += row[shared:]
        depths += fresh
        owners += [(number, place) for place in fresh]
        previous = row
    return tokens, depths, owners, paths
