"""Patches: what a model does otherwise while rows are read. The head runs on the scored positions
alone, and is exact where it counts; activations run in one step; rotary embeddings go by the length
of each row.

Rotary embeddings of some models (longrope, dynamic NTK) take their frequencies by the longest
position that they are shown, and some keep those of the longest batch so far: by the length of the
batch, then. Which lengths are read alike is found by asking the module itself, so it holds for any
module that is asked for positions.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import gelu, linear
from transformers.activations import FastGELUActivation, NewGELUActivation

from eckart.errors import ModelError
from eckart.weights.hooks import HALF, Forward, replace_forward
from eckart.weights.models import Model

STEPWISE = (NewGELUActivation, FastGELUActivation)
"""Both are the tanh approximation of GELU (Hendrycks and Gimpel 2016), which torch computes in one
pass over memory."""

Regime = bytes
"""What a model's rotary embeddings are at rows of a length: rows of one regime may be read
together."""


@contextmanager
def head_at(
    model: Model, rows: Int[Tensor, " scored"], positions: Int[Tensor, " scored"]
) -> Iterator[None]:
    """Let the head read only the given positions; the model's logits become (1, scored,
    vocabulary).

    The selection happens where the hidden states enter the head, so whatever the model's own
    forward does to its logits afterwards (scaling, soft-capping) still happens, on every
    architecture.

    Arguments:
        model: a causal language model.
        rows, positions: index of the row and of the token for each scored position.

    Raises:
        ModelError: the model has no output embeddings.
    """

    def select(_: Any, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        hidden, *rest = inputs
        return hidden[rows.to(hidden.device), positions.to(hidden.device)].unsqueeze(0), *rest

    hook = _head(model).register_forward_pre_hook(select)
    try:
        yield
    finally:
        hook.remove()


@contextmanager
def exact_logits(model: Model, tokens: Sequence[int]) -> Iterator[None]:
    """Let a half-precision model's head give its logits in float32, those of some tokens exactly,
    in a `with` block.

    With 8 bits of mantissa, logits near 16 are multiples of 1/8: labels tie, and ties go to the
    first. So the columns of the scored tokens are computed in float32. The others count only in the
    sum over the vocabulary, where their rounding averages out, and which is the same for all
    labels: they are computed in the model's dtype, which is fast.

    Arguments:
        model: a causal language model.
        tokens: the ids that are scored.

    Raises:
        ModelError: the model has no output embeddings.
    """
    head = _head(model)
    if type(head) is not nn.Linear or head.weight.dtype not in HALF or head.weight.is_meta:
        yield
        return
    columns = torch.tensor(sorted(set(tokens)), device=head.weight.device)
    weight = head.weight.detach()[columns].float()
    bias = None if head.bias is None else head.bias.detach()[columns].float()

    def forward(hidden: Float[Tensor, "... size"]) -> Float[Tensor, "... vocabulary"]:
        hidden = hidden.to(weight.device)  # this stands in for what accelerate put there, too
        logits = linear(hidden, head.weight, head.bias).float()
        logits[..., columns] = linear(hidden.float(), weight, bias)
        return logits

    with ExitStack() as undo:
        replace_forward(undo, head, forward)
        yield


def first_position(device: torch.device) -> tuple[Int[Tensor, " one"], Int[Tensor, " one"]]:
    """Return the selection that costs the head least, for a pass whose logits nobody reads."""
    zero = torch.zeros(1, dtype=torch.long, device=device)
    return zero, zero


def _head(model: Model) -> nn.Module:
    head = model.get_output_embeddings()
    if head is None:
        raise ModelError(
            f"{type(model).__name__} has no language-model head, so it gives no probabilities to"
            " score"
        )
    return head


@contextmanager
def fused_activations(model: nn.Module) -> Iterator[None]:
    """Compute a model's activations in one step each while a `with` block runs; they differ by
    rounding alone."""
    with ExitStack() as undo:
        for module in model.modules():
            if isinstance(module, STEPWISE):
                replace_forward(undo, module, partial(gelu, approximate="tanh"))
        yield


class Lengths:
    """A model's rotary embeddings, as functions of a row's length.

    Arguments:
        model: with its weights; one on the meta device has no regimes.
    """

    def __init__(self, model: Model) -> None:
        self._model = model
        self._rotary = (
            [] if model.device.type == "meta" else [m for m in model.modules() if _is_rotary(m)]
        )
        self._regimes: dict[int, Regime] = {}
        self._short = 1  # up to this length, rows are in the regime of the shortest

    def regime(self, length: int) -> Regime:
        """Return the regime of rows of a length, in tokens.

        Where a length is read as the shortest row is, all lengths up to it are: no model goes back
            and forth.
        """
        length = 1 if length <= self._short else length
        if length not in self._regimes:
            found = (_angles(module, length, self._model.device) for module in self._rotary)
            self._regimes[length] = b"".join(found)
            if self._regimes[length] == self.regime(1):
                self._short = length
        return self._regimes[length]

    def several(self, lengths: Iterable[int]) -> bool:
        """Say whether some rows of these lengths are read otherwise than the shortest row is."""
        return self.regime(max(lengths, default=1)) != self.regime(1)

    @contextmanager
    def pinned(self, length: int | None) -> Iterator[None]:
        """Let the rotary embeddings be those of rows of a length while a `with` block runs,
        whatever it shows them.

        Arguments:
            length: None lets each pass decide by its own length, forgetting those before it.
        """
        with ExitStack() as undo:
            for module in self._rotary:
                undo.callback(_forget, module, self._model.device)
                replace_forward(undo, module, _pinned(module.forward, length))
            yield


def _is_rotary(module: nn.Module) -> bool:
    """Say whether a module turns positions into angles: it is asked for positions, and has learned
    nothing."""
    return "position_ids" in _arguments(module)[:2] and next(module.parameters(), None) is None


def _arguments(module: nn.Module) -> list[str]:
    return list(inspect.signature(module.forward).parameters)


def _pinned(forward: Forward, length: int | None) -> Forward:
    def rotated(
        x: Tensor, position_ids: Int[Tensor, "... tokens"], *args: Any, **kwargs: Any
    ) -> Any:
        """Stand in for the module's forward."""
        first = torch.zeros_like(position_ids[..., :1])
        forward(x, first, *args, **kwargs)  # what a longer batch left behind is gone
        if length is None:
            return forward(x, position_ids, *args, **kwargs)
        shown = torch.cat([position_ids, first + length - 1], -1)
        return _without_last(forward(x, shown, *args, **kwargs))

    return rotated


def _without_last(angles: Any) -> Any:
    """Leave out the last position of (..., tokens, size), or of several such tensors."""
    return angles[..., :-1, :] if isinstance(angles, Tensor) else tuple(map(_without_last, angles))


def _angles(module: nn.Module, length: int, device: torch.device) -> Regime:
    """Return what position 1 is turned into in rows of a length."""
    found = b""
    for kind in _kinds(module):
        _ask(module, [0], kind, device)  # what a longer row left behind is gone
        angles = _ask(module, [1, max(length - 1, 1)], kind, device)
        for tensor in (angles,) if isinstance(angles, Tensor) else angles or ():
            first = tensor[..., 0, :]
            real = torch.view_as_real(first) if first.is_complex() else first
            found += real.float().cpu().numpy().tobytes()
    _forget(module, device)
    return found


def _forget(module: nn.Module, device: torch.device) -> None:
    """Leave a module as short rows leave it."""
    for kind in _kinds(module):
        _ask(module, [0], kind, device)


def _kinds(module: nn.Module) -> list[dict[str, str]]:
    """Return the arguments that choose among a module's embeddings: those of each kind of layer,
    where they differ."""
    kinds = sorted(set(getattr(getattr(module, "config", None), "layer_types", None) or ()))
    return [{"layer_type": kind} for kind in kinds] if "layer_type" in _arguments(module) else [{}]


def _ask(
    module: nn.Module, positions: list[int], kind: dict[str, str], device: torch.device
) -> Any:
    """Return a module's angles of positions; None where it wants more than positions to tell."""
    try:
        with torch.inference_mode():
            return module.forward(
                torch.zeros(1, 1, 1, device=device),
                torch.tensor([positions], device=device),
                **kind,
            )
    except (RuntimeError, TypeError, ValueError, LookupError, AttributeError):
        return None
