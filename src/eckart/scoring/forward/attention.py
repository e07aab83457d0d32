"""Attention over a pack: every token sees the shared prefix and what stands before it in its row,
nothing else.

transformers lets a model's attention be computed by a function of another's (`AttentionInterface`).
Projections, rotary positions, norms and scaling stay the model's own; this function gets its
queries, keys and values. The prefix's keys and values are held once, and never copied for each row.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from eckart.weights.hooks import PassEnded, replaced_attention
from eckart.weights.models import Model

NAME = "eckart_packed"
Keys = tuple[Float[Tensor, "key_heads _ size"], Float[Tensor, "key_heads _ value_size"]]


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


@dataclass(frozen=True, eq=False)
class View:
    """Which tokens ask, and what each of them sees of its row.

    Arguments:
        keys: (rows, places), tokens whose keys each row has.
        queries: (rows, asked), tokens that ask in each row.
        owners: (tokens,), where each token that asks stands in the flattened `queries`.
        visible: (tokens, places), which of its row's keys each sees.
        depths: (tokens,), each token's place in its row.
    """

    keys: Int[Tensor, "rows places"]
    queries: Int[Tensor, "rows asked"]
    owners: Int[Tensor, " tokens"]
    visible: Bool[Tensor, "tokens places"]
    depths: Int[Tensor, " tokens"]

    @classmethod
    def of_all(cls, pack: Pack) -> View:
        """Every token of a pack asks."""
        return cls(pack.paths, pack.paths, pack.owners, pack.visible(), pack.depths)

    @classmethod
    def of_ends(cls, pack: Pack) -> View:
        """Only the scored tokens ask."""
        each = torch.arange(len(pack.ends), device=pack.ends.device)
        return cls(
            pack.paths[pack.end_rows],
            each[:, None],
            each,
            pack.visible()[pack.ends],
            pack.depths[pack.ends],
        )

    def to(self, device: torch.device) -> View:
        """Return the view where a layer's tensors are."""
        if device == self.keys.device:
            return self
        return View(*(getattr(self, name).to(device) for name in self.__dataclass_fields__))


@dataclass(eq=False)
class Packing:
    """What the attention of a pass over a pack needs beside its queries, keys and values.

    Arguments:
        view: who sees whom.
        prefix: each attention module's keys and values of the shared prefix.
        ends: where set, the modules whose queries are the scored tokens only; their keys are in
            `known`.
        known: keys and values of all the pack's tokens, of modules that were asked for these first.
        record: keep every module's keys and values in `known`.
        stop: end the pass at the first module's keys and values.
    """

    view: View
    prefix: dict[nn.Module, Keys] = field(default_factory=dict)
    ends: View | None = None
    known: dict[nn.Module, Keys] = field(default_factory=dict)
    record: bool = False
    stop: bool = False

    def seen(self, module: nn.Module, own: Keys) -> tuple[Keys, View]:
        """Return the keys and values that a module's queries see in their rows, and which is whose.

        Raises:
            PassEnded: they are known, and the pass was to end there.
        """
        if self.record or self.stop:
            self.known.setdefault(module, own)
        if self.stop:
            raise PassEnded
        if self.ends is not None and module in self.known:
            return self.known[module], self.ends
        return own, self.view


_packing: ContextVar[Packing] = ContextVar("packing")


@contextmanager
def packed_attention(model: Model, packing: Packing | None = None) -> Iterator[None]:
    """Let a model's attention be that over a pack while a `with` block runs; without one, no
    attention may run."""
    with ExitStack() as undo:
        if packing is not None:
            undo.callback(_packing.reset, _packing.set(packing))
        undo.enter_context(replaced_attention(model, NAME, _gptj))
        yield


def _gptj(module: Any, query: Tensor, key: Tensor, value: Tensor, *_: Any) -> tuple[Tensor, None]:
    """Stand in for GPT-J's own attention, which is in no registry."""
    attended, none = _forward(module, query, key, value, None, scaling=1 / float(module.scale_attn))
    return attended.transpose(1, 2), none


def _forward(
    module: nn.Module,
    query: Float[Tensor, "1 heads tokens size"],
    key: Float[Tensor, "1 key_heads tokens size"],
    value: Float[Tensor, "1 key_heads tokens value_size"],
    attention_mask: Tensor | None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Float[Tensor, " heads"] | None = None,
    **_: Any,
) -> tuple[Float[Tensor, "1 tokens heads value_size"], None]:
    """Compute the attention of one layer, as transformers' own functions do."""
    packing = _packing.get()
    own, view = packing.seen(module, (key[0], value[0]))
    prefix = packing.prefix.get(module)
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    if (
        prefix is None
        and len(view.keys) == 1
        and view is packing.view
        and not (sliding_window or softcap or s_aux is not None)
    ):
        return _causal(query, own, scale).transpose(1, 2), None
    grouped = query[0].unflatten(0, (len(own[0]), -1)).transpose(1, 2).contiguous()
    attended = attend(
        grouped,
        own,
        prefix,
        view.to(query.device),
        scale=scale,
        window=sliding_window,
        softcap=softcap,
        sinks=s_aux,
    )
    return attended.transpose(0, 1).flatten(1, 2)[None], None


def _causal(query: Tensor, own: Keys, scale: float) -> Float[Tensor, "1 heads tokens value_size"]:
    """Attend within a single row, as the prefix is: what torch has a kernel for."""
    key, value = (tensor[None] for tensor in own)
    grouped = key.shape[1] < query.shape[1]
    return scaled_dot_product_attention(
        query, key, value, is_causal=True, scale=scale, enable_gqa=grouped
    )


AttentionInterface.register(NAME, _forward)


def attend(
    query: Float[Tensor, "key_heads tokens group size"],
    own: Keys,
    prefix: Keys | None,
    view: View,
    *,
    scale: float,
    window: int | None = None,
    softcap: float | None = None,
    sinks: Float[Tensor, " heads"] | None = None,
) -> Float[Tensor, "key_heads tokens group value_size"]:
    """Attend to the prefix and to the tokens before in the same row.

    Arguments:
        query: contiguous; the `group` query heads that share a key head side by side.
        own: keys and values of the pack's tokens.
        prefix: keys and values of the shared prefix, which every token sees.
        view: which tokens ask, and what they see.
        scale: scores are `scale * query . key`.
        window: how many tokens back a token sees, itself included; None for all.
        softcap: scores become `softcap * tanh(score / softcap)`.
        sinks: a score for each query head that takes its share of the attention and gives nothing.
    """
    length = 0 if prefix is None else prefix[0].shape[1]
    scores = query.new_empty(*query.shape[:3], length + view.keys.shape[1])
    if prefix is not None:
        _product(query.flatten(1, 2), prefix[0], scale, out=scores.flatten(1, 2)[..., :length])
    scores[..., length:] = _own_scores(query, own[0], view, scale)
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    scores[..., length:].masked_fill_(~view.visible[:, None], -torch.inf)
    if window is not None and window < scores.shape[-1]:
        scores.masked_fill_(_out_of_window(view, length, window)[:, None], -torch.inf)
    weights = _softmax(scores, sinks)
    out = _own_values(weights[..., length:], own[1], view)
    if prefix is not None:
        out += torch.bmm(weights[..., :length].flatten(1, 2), prefix[1]).view_as(out)
    return out


def _product(query: Tensor, key: Tensor, scale: float, out: Tensor | None = None) -> Tensor:
    """Return `scale * query key^T` of batches of matrices; the scale costs nothing there."""
    out = query.new_empty(*query.shape[:2], key.shape[1]) if out is None else out
    return torch.baddbmm(out, query, key.transpose(1, 2), beta=0, alpha=scale, out=out)


def _own_scores(
    query: Tensor, key: Tensor, view: View, scale: float
) -> Float[Tensor, "key_heads tokens group places"]:
    asked, keys = query[:, view.queries], key[:, view.keys]
    scores = _product(asked.flatten(0, 1).flatten(1, 2), keys.flatten(0, 1), scale)
    return scores.view(*asked.shape[:4], -1).flatten(1, 2)[:, view.owners]


def _own_values(
    weights: Tensor, value: Tensor, view: View
) -> Float[Tensor, "key_heads tokens group value_size"]:
    spread, values = weights[:, view.queries], value[:, view.keys]
    out = torch.bmm(spread.flatten(0, 1).flatten(1, 2), values.flatten(0, 1))
    return out.view(*spread.shape[:4], -1).flatten(1, 2)[:, view.owners]


def _out_of_window(view: View, length: int, window: int) -> Bool[Tensor, "tokens seen"]:
    places = torch.arange(length + view.keys.shape[1], device=view.depths.device)
    return places <= (length + view.depths)[:, None] - window


def _softmax(scores: Tensor, sinks: Float[Tensor, " heads"] | None) -> Tensor:
    if sinks is None:
        return scores.softmax(-1)
    key_heads, tokens, group, _ = scores.shape
    column = sinks.to(scores).view(key_heads, 1, group, 1).expand(-1, tokens, -1, -1)
    return torch.cat([scores, column], -1).softmax(-1)[..., :-1]
