"""The padded reader: batches of rows alike in length, which go on from the keys and values of what
all rows begin with. Every architecture understands it."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, cast

import torch
from jaxtyping import Int
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from eckart.scoring.encoding import Tokens
from eckart.scoring.forward.patches import first_position, head_at
from eckart.scoring.forward.reader import Outputs, Places, Reader
from eckart.scoring.forward.trunk import Pass
from eckart.weights.models import Model

CACHED = 4
"""How many tokens of keys and values a batch may hold for each token that it computes."""


class Padded(Reader):
    """Rows of alike length, padded on the right, with the shared prefix's keys and values repeated
    for each.

    What every architecture understands.
    """

    def plan(self, rows: Sequence[Tokens]) -> list[list[int]]:
        return plan_batches(rows, self.budget, len(self.requests.prefix))

    def read_prefix(self, name: str, wanted: Pass) -> SharedPrefix:
        # Through all layers, whatever the start: the model takes a row's length, and so its
        # positions and masks, from the cache of its first layer.
        return SharedPrefix(self.model, self.requests.prefix)

    def read(self, rows: list[int], prefix: SharedPrefix, wanted: Pass) -> tuple[Outputs, Places]:
        """Run one batch, the head at its scored positions included; return their logits."""
        places: Places = {}
        for row, index in enumerate(rows):
            for _, _, position, _ in self.targets[index]:
                places.setdefault((row, position), len(places))
        device = self.model.device
        at = torch.tensor(list(places), device=device)
        tokens = pad([self.requests.rows[row] for row in rows], device)
        name = f"{rows[0]}+{len(rows)}"
        now = self.told(name, wanted)
        with now.running(), head_at(self.model, at[:, 0], at[:, 1]):
            output = self.model(input_ids=tokens, **prefix.for_rows(len(rows)))
        self.keep_left(name, now)
        return output.logits[0], places


def plan_batches(rows: Sequence[Tokens], budget: int, prefix: int = 0) -> list[list[int]]:
    """Group rows of alike length, longest first, so that padding is rare and memory runs out early
    or never.

    Arguments:
        rows: token rows.
        budget: the most tokens, padding included, in a batch; a longer row is a batch of its own.
        prefix: tokens before every row whose keys and values each row of a batch holds; they are
            not computed, but take memory.

    >>> plan_batches([(1,), (1, 2, 3), (4, 5, 6)], budget=6)
    [[1, 2], [0]]
    """
    batches: list[list[int]] = []
    room = 0
    for index in sorted(range(len(rows)), key=lambda i: -len(rows[i])):
        if room < 1:
            batches.append([])
            width = len(rows[index])
            room = max(1, min(budget // width, CACHED * budget // (prefix + width)))
        batches[-1].append(index)
        room -= 1
    return batches


def pad(rows: Sequence[Tokens], device: torch.device) -> Int[Tensor, "batch time"]:
    """Stack rows, padded on the right.

    A causal model's real tokens never see what stands to their right, so any token id pads; on the
    left it would shift positions and sliding windows.
    """
    width = max(map(len, rows))
    return torch.tensor([row + (0,) * (width - len(row)) for row in rows], device=device)


class SharedPrefix:
    """The keys and values of the tokens that all rows begin with, run once through the model as it
    stands.

    They depend on the weights, so a prefix is made anew for each edit.

    Arguments:
        model: the model, clipped or not.
        tokens: the prefix; may be empty.
    """

    def __init__(self, model: Model, tokens: Tokens) -> None:
        self._cache: DynamicCache | None = None
        if tokens:
            self._cache = DynamicCache(config=model.config)
            row = torch.tensor([tokens], device=model.device)
            with head_at(model, *first_position(model.device)):
                model(input_ids=row, past_key_values=self._cache, use_cache=True)

    def for_rows(self, rows: int) -> dict[str, Any]:
        """Return the arguments that make a forward pass of `rows` rows go on from the prefix."""
        if self._cache is None:
            return {"use_cache": False}
        return {"past_key_values": _expanded(self._cache, rows), "use_cache": True}


def can_share(model: Model) -> bool:
    """Say whether a model keeps plain keys and values, which any number of rows can read.

    Recurrent and linear-attention layers keep a state instead, which rows would overwrite.
    """
    layers = DynamicCache(config=model.config).layers
    return all(
        hasattr(layer, "get_mask_sizes") and not hasattr(layer, "recurrent_states")
        for layer in layers
    )


def _expanded(cache: DynamicCache, rows: int) -> DynamicCache:
    """View one row's keys and values as `rows` rows; updates concatenate, so the original is never
    written."""
    view = copy.copy(cache)
    view.layers = [copy.copy(layer) for layer in cache.layers]
    for layer in cast("list[DynamicLayer]", view.layers):
        if (
            layer.keys is not None and layer.values is not None
        ):  # a layer that shares another's keys and values has none of its own
            layer.keys = layer.keys.expand(rows, -1, -1, -1)
            layer.values = layer.values.expand(rows, -1, -1, -1)
    return view
