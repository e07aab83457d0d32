"""Rows into packs: one batch without padding, where rows that begin alike share what they begin
with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from eckart.scoring.encoding import Tokens, common_prefix

PADDED = 4
"""How many places the padded rows of a pack may have for each of its tokens: own attention is
computed on those."""


@dataclass(frozen=True, eq=False)
class Pack:
    """Token rows as a forest: every token once, however many rows it stands in.

    Arguments:
        tokens: (tokens,), every node of the forest.
        depths: (tokens,), the place of each in its row.
        paths: (rows, places), which token stands where in each row; padded with the last.
        owners: (tokens,), for each token a place in the flattened `paths` where it stands.
        ends: (scored,), the tokens whose outputs are scored.
        end_rows: (scored,), a row of `paths` that each of these stands in.
    """

    tokens: Int[Tensor, " tokens"]
    depths: Int[Tensor, " tokens"]
    paths: Int[Tensor, "rows places"]
    owners: Int[Tensor, " tokens"]
    ends: Int[Tensor, " scored"]
    end_rows: Int[Tensor, " scored"]

    def visible(self) -> Bool[Tensor, "tokens places"]:
        """Say which places of its row each token sees: its own and those before it."""
        return torch.arange(self.paths.shape[1], device=self.depths.device) <= self.depths[:, None]


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
