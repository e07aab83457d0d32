"""Two small decoders that read points and values: GPT-2's blocks, and linear attention as in Eq.
(3)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import (
    GPT2Config,
    GPT2Model,
    GPT2PreTrainedModel,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.utils import logging

Points = Float[Tensor, "prompts points d"]
Values = Float[Tensor, "prompts points"]
Tokens = Float[Tensor, "prompts tokens width"]


class InContextModel(GPT2PreTrainedModel):
    """GPT-2's blocks on continuous tokens (Garg et al. 2022): x_1, y_1, x_2, y_2, ...; y_i is read
    off at x_i.

    Arguments:
        config: GPT-2's, with `dimension`, the length d of a point, and `layout`: what the token of
            a value holds beside it, its point (`paired`) or nothing (`separate`, as in Garg et al.,
            which takes far longer to train).
    """

    main_input_name = "x"

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.transformer = GPT2Model(config)
        self.read_in = nn.Linear(config.dimension + 1, config.n_embd)
        self.read_out = nn.Linear(config.n_embd, 1)
        self.post_init()  # type: ignore[no-untyped-call]

    @classmethod
    def of_size(
        cls,
        dimension: int,
        points: int,
        layers: int,
        width: int,
        heads: int,
        layout: str = "paired",
    ) -> InContextModel:
        """Return an untrained model that reads up to so many points of d = `dimension`."""
        config = GPT2Config(  # type: ignore[call-arg]
            vocab_size=1,
            n_positions=2 * points,
            n_embd=width,
            n_layer=layers,
            n_head=heads,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            activation_function="gelu_pytorch_tanh",
            use_cache=False,
            bos_token_id=0,
            eos_token_id=0,
            dimension=dimension,
            layout=layout,
        )
        return cls(config)

    @property
    def points(self) -> int:
        """The most points of a prompt."""
        return self.config.n_positions // 2

    def forward(
        self, x: Points, y: Values, counts: Sequence[int]
    ) -> Float[Tensor, "prompts counts"]:
        """Predict values from the examples before them.

        Arguments:
            x, y: points and values; a value is not seen where it, or one before it, is predicted.
            counts: how many examples each prediction sees: count k predicts the value of point k,
                from 0.
        """
        point = x if self.config.layout == "paired" else torch.zeros_like(x)
        asked = torch.cat([x, torch.zeros_like(y)[..., None]], dim=2)
        told = torch.cat([point, y[..., None]], dim=2)
        tokens = torch.stack([asked, told], dim=2).flatten(1, 2)[:, : 2 * max(counts) + 1]
        hidden = self.transformer(inputs_embeds=self.read_in(tokens)).last_hidden_state
        return self.read_out(hidden[:, [2 * count for count in counts]])[..., 0]


class LinearAttentionConfig(PreTrainedConfig):
    """The sizes of a linear attention model: d, L, and the most points of a prompt."""

    model_type = "linear_attention"

    def __init__(
        self, dimension: int = 5, num_hidden_layers: int = 2, points: int = 11, **rest: Any
    ) -> None:
        super().__init__(**rest)
        self.dimension = dimension
        self.hidden_size = dimension + 1
        self.num_hidden_layers = num_hidden_layers
        self.points = points


class LinearAttention(nn.Module):
    """One block of Eq. (3): h + W_V H M (W_K H)^T W_Q h, where M leaves the last token out."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.q_proj = nn.Linear(width, width, bias=False)
        self.k_proj = nn.Linear(width, width, bias=False)
        self.v_proj = nn.Linear(width, width, bias=False)

    def forward(self, h: Tokens) -> Tokens:
        """Return the tokens after the block; rows are tokens here, columns in the paper."""
        seen = h[:, :-1]
        return h + self.q_proj(h) @ self.k_proj(seen).mT @ self.v_proj(seen)


class LinearAttentionModel(PreTrainedModel):
    """A stack of linear attention blocks on tokens (x_i, y_i) and (x_query, 0), for which Theorem 1
    holds exactly: there is no norm, no MLP and nothing else.

    The answer is the last number of the last token.
    """

    config_class = LinearAttentionConfig
    main_input_name = "x"

    def __init__(self, config: LinearAttentionConfig) -> None:
        super().__init__(config)
        blocks = (LinearAttention(config.hidden_size) for _ in range(config.num_hidden_layers))
        self.layers = nn.ModuleList(blocks)
        self.post_init()  # type: ignore[no-untyped-call]

    @classmethod
    def of_size(cls, dimension: int, points: int, layers: int) -> LinearAttentionModel:
        """Return an untrained model, its blocks near the identity, so that products of many do not
        overflow."""
        model = cls(LinearAttentionConfig(dimension, layers, points))
        for parameter in model.parameters():
            nn.init.normal_(parameter, std=0.1)
        return model

    @property
    def points(self) -> int:
        return self.config.points

    def forward(
        self, x: Points, y: Values, counts: Sequence[int]
    ) -> Float[Tensor, "prompts counts"]:
        """Predict values from the examples before them; arguments as for `InContextModel`."""
        return torch.stack([self._last(tokens(x, y, count)) for count in counts], dim=1)

    def _last(self, h: Tokens) -> Float[Tensor, " prompts"]:
        for block in self.layers:
            h = block(h)
        return h[:, -1, -1]


def tokens(x: Points, y: Values, count: int) -> Tokens:
    """Return `count` examples as tokens (x_i, y_i), and the point after them as (x, 0)."""
    values = torch.cat([y[:, :count], y.new_zeros(len(y), 1)], dim=1)
    return torch.cat([x[:, : count + 1], values[..., None]], dim=2)


FunctionModel: TypeAlias = InContextModel | LinearAttentionModel


@contextmanager
def without_bars() -> Iterator[None]:
    """Keep the model library's own progress bars off while it saves or loads."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
