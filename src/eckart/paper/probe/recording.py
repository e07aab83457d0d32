"""The recording of what a model's own attention computes with, for a prompt's last token.

transformers hands every attention's queries, keys and values to a function that it looks up by
name, after projections, head norms, rotary positions and caches. The one registered here notes them
and has the model's own eager function compute: nothing in the pass is replaced. The mask is the
model's own too, so sliding windows are as the model has them. What attention hands to its output
projection is noted apart, to check the notes against.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, Cache, DynamicCache
from transformers.masking_utils import eager_mask

from eckart.errors import ModelError
from eckart.weights.anatomy import Anatomy, Weight
from eckart.weights.hooks import PassEnded, replaceable, replaced_attention

NAME = "eckart_recorded"


@dataclass(frozen=True, eq=False)
class Parts:
    """What one layer's attention computes with for the last token of a prompt, in float64.

    Arguments:
        query: of the last token.
        keys, values: of all tokens; consecutive query heads share one.
        bias: for all heads or each, what the mask adds to the last token's scores; minus infinity
            for a hidden token.
        scale: scores are `scale * query . key`.
        softcap: scores become `softcap * tanh(score / softcap)`, before the bias; None for no cap.
        sinks: a score that takes its share of the attention and gives nothing; None for none.
        output: what the last token's heads hand to the output projection, by the model's own
            forward.
    """

    query: Float[np.ndarray, "heads k"]
    keys: Float[np.ndarray, "key_heads tokens k"]
    values: Float[np.ndarray, "key_heads tokens m"]
    bias: Float[np.ndarray, "_ tokens"]
    scale: float
    softcap: float | None
    sinks: Float[np.ndarray, " heads"] | None
    output: Float[np.ndarray, "heads m"]


class Recorder:
    """Records every layer's attention; a ModelError where the model computes it by itself."""

    def __init__(self, anatomy: Anatomy) -> None:
        self.anatomy = anatomy
        self.outputs = [anatomy.select(layer, "o")[0] for layer in range(len(anatomy.layers))]
        self._layers = {
            m: layer for layer, block in enumerate(anatomy.blocks) for m in block.modules()
        }
        self._noted: list[dict[str, Any]] = []
        for layer, output in enumerate(self.outputs):
            if not self._is_recordable(output):
                raise self._refusal(layer)

    def __call__(self, tokens: Sequence[int], beginning: Cache | None = None) -> list[Parts]:
        """Read a prompt with the model as it is now, as far as its last attention, and return one
        recording a layer; after a beginning that `begin` has read, which stays as it is.

        A ModelError where a layer's attention did not come by.
        """
        self._read(tokens, copy.deepcopy(beginning))
        return [self._parts(layer) for layer in range(len(self.outputs))]

    def begin(self, tokens: Sequence[int]) -> Cache:
        """Return the keys and values of what several prompts begin with, by the model as it is
        now."""
        # Not the model's own kind of cache: that may drop what has left a sliding window.
        cache = DynamicCache()
        self._read(tokens, cache)
        return cache

    @torch.no_grad()
    def _read(self, tokens: Sequence[int], cache: Cache | None) -> None:
        model = self.anatomy.model
        self._noted = [{} for _ in self.outputs]
        row = torch.tensor([list(tokens)], device=model.device)
        with ExitStack() as undo:
            undo.callback(_recorder.reset, _recorder.set(self))
            undo.enter_context(replaced_attention(model, NAME, _gptj))
            for layer, output in enumerate(self.outputs):
                owner = model.get_submodule(output.path.rpartition(".")[0])
                hook = owner.register_forward_pre_hook(self._output_hook(layer))
                undo.callback(hook.remove)
            with suppress(PassEnded):
                model(input_ids=row, past_key_values=cache, use_cache=cache is not None)

    def note(
        self,
        module: nn.Module,
        query: Float[Tensor, "1 heads asked k"],
        key: Float[Tensor, "1 key_heads tokens k"],
        value: Float[Tensor, "1 key_heads tokens m"],
        mask: Tensor | None,
        options: dict[str, Any],
    ) -> None:
        """Keep what a module's attention is given, where it is one of the decoder's."""
        layer = self._layers.get(module)
        if layer is None:
            return
        scaling, softcap, sinks = (options.get(name) for name in ("scaling", "softcap", "s_aux"))
        self._noted[layer] |= {
            "query": _exact(query[0, :, -1]),
            "keys": _exact(key[0]),
            "values": _exact(value[0]),
            "bias": _bias(mask, key.shape[2]),
            "scale": query.shape[-1] ** -0.5 if scaling is None else float(scaling),
            "softcap": None if softcap is None else float(softcap),
            "sinks": None if sinks is None else _exact(sinks),
        }

    def _output_hook(self, layer: int) -> Any:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            self._noted[layer]["output"] = _exact(inputs[0].reshape(-1, inputs[0].shape[-1])[-1])
            if layer == len(self.outputs) - 1:
                raise PassEnded

        return hook

    def _parts(self, layer: int) -> Parts:
        noted = self._noted[layer]
        if "query" in noted and "output" in noted:
            heads, width = len(noted["query"]), noted["values"].shape[-1]
            if noted["output"].size == heads * width:
                return Parts(**noted | {"output": noted["output"].reshape(heads, width)})
        raise self._refusal(layer)

    def _is_recordable(self, output: Weight) -> bool:
        parent = output.path.rpartition(".")[0].rpartition(".")[0]
        attention = self.anatomy.model.get_submodule(parent)
        return replaceable(attention) and (
            hasattr(sys.modules[type(attention).__module__], "eager_attention_forward")
            or hasattr(attention, "scale_attn")
        )

    def _refusal(self, layer: int) -> ModelError:
        return ModelError(
            f"a '{self.anatomy.model_type}' model computes the attention of layer {layer} by"
            " itself, not through transformers' AttentionInterface, so its queries and keys cannot"
            " be recorded; probe another model type"
        )


_recorder: ContextVar[Recorder] = ContextVar("recorder")


def _exact(tensor: Tensor) -> np.ndarray:
    return tensor.detach().cpu().double().numpy()


def _forward(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    **options: Any,
) -> Any:
    """Note what a layer attends with, and let its model's own eager function attend."""
    _recorder.get().note(module, query, key, value, attention_mask, options)
    own = sys.modules[type(module).__module__].eager_attention_forward
    return own(module, query, key, value, attention_mask, **options)


def _gptj(
    module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None, *_: Any
) -> Any:
    """Stand in for GPT-J's own attention, which is in no registry."""
    scaling = {"scaling": 1 / float(module.scale_attn)}
    _recorder.get().note(module, query, key, value, mask, scaling)
    return type(module)._attn(module, query, key, value, mask)


def _bias(mask: Tensor | None, tokens: int) -> Float[np.ndarray, "_ tokens"]:
    """Return the last row of a mask, with minus infinity for the least number of its dtype, which
    stands for it."""
    if mask is None:
        return np.zeros((1, tokens))
    bias = _exact(mask[0, :, -1, :tokens])
    return np.where(bias <= torch.finfo(mask.dtype).min / 2, -np.inf, bias)


AttentionInterface.register(NAME, _forward)
AttentionMaskInterface.register(NAME, eager_mask)
