"""What candidates and rows share, computed once: the demonstrations' keys and values."""

from __future__ import annotations

import copy
from typing import Any, cast

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from eckart.scoring.encoding import Tokens
from eckart.scoring.forward.head import first_position, head_at
from eckart.weights.models import Model


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
