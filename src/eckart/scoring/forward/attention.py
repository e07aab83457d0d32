"""Attention over a pack: every token sees the shared prefix and what stands before it in its row,
nothing else.

transformers lets a model's attention be computed by a function of another's (`AttentionInterface`).
Projections, rotary positions, norms and scaling stay the model's own; this function gets its
queries, keys and values. The prefix's keys and values are held once, and never copied for each row.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any, cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from eckart.scoring.forward.trunk import Pass, running_pass
from eckart.weights.hooks import Forward, PassEnded, replace_forward, replaced_attention
from eckart.weights.models import Model

NAME = "eckart_packed"
Keys = tuple[Float[Tensor, "key_heads _ size"], Float[Tensor, "key_heads _ value_size"]]
KeysOf = dict[nn.Module, tuple[Tensor, Tensor]]  # heads may differ from layer to layer


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


@dataclass(frozen=True, eq=False)
class PackPass(Pass):
    """What a pass over a pack is told beside; it ends with the last layer, at the scored tokens.

    Arguments:
        pack: the rows.
        view: which of their tokens ask, and what they see: all, but in the last layer.
        prefix: each attention module's keys and values of the shared prefix.
        query: what computes the last layer's queries and nothing else, if there is such a module.
        noted: where every module's keys and values are noted; None for nowhere.
        known: keys and values of all the pack's tokens, of modules that only some of them ask.
        keys_only: end the pass with the next module's keys and values.
    """

    pack: Pack = field(kw_only=True)
    view: View = field(kw_only=True)
    prefix: KeysOf = field(default_factory=dict)
    query: nn.Module | None = None
    noted: KeysOf | None = None
    known: KeysOf = field(default_factory=dict)
    keys_only: bool = False

    def at_scored(
        self, forward: Forward, hidden: Tensor, args: Any, kwargs: Any, attends: bool
    ) -> tuple[Pass, Tensor, Any, Any]:
        """Note the last layer's keys of all tokens; return how it runs on the scored ones."""
        known = {} if self.noted is None else self.noted
        if attends:
            keys = replace(self, noted=known, keys_only=True)
            with ExitStack() as undo, keys.running(), suppress(PassEnded):
                if self.query is not None:
                    replace_forward(undo, self.query, _no_queries(self.query))
                forward(hidden, *args, **kwargs)
        if not len(self.pack.ends):
            raise PassEnded
        scored = replace(self, view=View.of_ends(self.pack), known=known)
        return scored, *_taken((hidden, args, kwargs), self.pack.ends, len(self.pack.tokens))

    def keys_of(self, module: nn.Module, own: Keys) -> Keys:
        """Return the keys and values that a module's queries see in their rows.

        Raises:
            PassEnded: they are noted, and the pass was to end there.
        """
        if self.noted is not None:
            self.noted.setdefault(module, own)
        if self.keys_only:
            raise PassEnded
        return self.known.get(module, own)


@contextmanager
def packed_attention(model: Model) -> Iterator[None]:
    """Let a model's attention be that of the running `PackPass` while a `with` block runs.

    transformers makes no mask for a function that it does not know, which a pack has no use for:
    one of its own would be of a single long row.
    """
    with replaced_attention(model, NAME, _gptj):
        yield


def _no_queries(query: nn.Module) -> Forward:
    """Return a forward for a projection whose output nobody reads."""
    size = cast("Tensor", query.weight).shape[0]
    return lambda hidden: hidden.new_zeros(1).expand(*hidden.shape[:-1], size)


def _taken(value: Any, index: Tensor, tokens: int) -> Any:
    """Take some of the tokens out of every tensor that has one entry for each: (1, tokens, ...) or
    (tokens,).

    A layer gets positions and rotary angles beside its hidden states; scored tokens without theirs
    would be turned by the angles of the first tokens.
    """
    if isinstance(value, Tensor):
        if value.dim() > 1 and value.shape[:2] == (1, tokens):
            return value[:, index.to(value.device)]
        return value[index.to(value.device)] if value.shape == (tokens,) else value
    if isinstance(value, dict):
        return {key: _taken(item, index, tokens) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return type(value)(_taken(item, index, tokens) for item in value)
    return value


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
    now = running_pass()
    if not isinstance(now, PackPass):
        raise TypeError(f"{type(module).__name__} attends outside of the model's layers")
    own = now.keys_of(module, (key[0], value[0]))
    view = now.view
    prefix = now.prefix.get(module)
    # Not head_dim**-0.5 for all: some models scale by another number, or not at all.
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    # A single row, all of which asks, is what torch has a kernel for; `is_causal` would line up the
    # scored tokens alone with the first keys.
    single = prefix is None and len(view.keys) == 1 and module not in now.known
    if single and not (sliding_window or softcap or s_aux is not None):
        return _causal(query, own, scale).transpose(1, 2), None
    # Query heads that share a key head lie side by side in transformers' order.
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
    # The cap comes before the masks: capped, minus infinity would be a number again.
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    # Only a row's own tokens are masked: the prefix stands before them all.
    scores[..., length:].masked_fill_(~view.visible[:, None], -torch.inf)
    # A window counts from the token's place in the whole row, and so it may leave out the prefix.
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
    # Rows padded to rectangles make one product of batches; a token in several rows is computed in
    # each and read from one (`owners`), which is cheaper than a mask over the whole pack.
    asked = query[:, view.queries]
    keys = key[:, view.keys]
    scores = _product(asked.flatten(0, 1).flatten(1, 2), keys.flatten(0, 1), scale)
    return scores.view(*asked.shape[:4], -1).flatten(1, 2)[:, view.owners]


def _own_values(
    weights: Tensor, value: Tensor, view: View
) -> Float[Tensor, "key_heads tokens group value_size"]:
    spread = weights[:, view.queries]
    values = value[:, view.keys]
    out = torch.bmm(spread.flatten(0, 1).flatten(1, 2), values.flatten(0, 1))
    return out.view(*spread.shape[:4], -1).flatten(1, 2)[:, view.owners]


def _out_of_window(view: View, length: int, window: int) -> Bool[Tensor, "tokens seen"]:
    # Places in the row count on from the prefix, as the positions do that the model is given.
    places = torch.arange(length + view.keys.shape[1], device=view.depths.device)
    return places <= (length + view.depths)[:, None] - window


def _softmax(scores: Tensor, sinks: Float[Tensor, " heads"] | None) -> Tensor:
    if sinks is None:
        return scores.softmax(-1)
    # A sink takes part in the softmax, and is cut off after it: the others add up to less than 1.
    key_heads, tokens, group, _ = scores.shape
    column = sinks.to(scores).view(key_heads, 1, group, 1).expand(-1, tokens, -1, -1)
    return torch.cat([scores, column], -1).softmax(-1)[..., :-1]
