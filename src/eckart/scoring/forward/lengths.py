"""What a forward decides by the length of its batch, decided by the length of each row instead.

Rotary embeddings of some models (longrope, dynamic NTK) take their frequencies by the longest
position that they are shown, and some keep those of the longest batch so far. Which lengths are
read alike is found by asking the module itself, so it holds for any module that is asked for
positions.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn

from eckart.scoring.forward.trunk import Forward, replace_forward
from eckart.weights.models import Model

Regime = bytes
"""What a model's rotary embeddings are at rows of a length: rows of one regime may be read
together."""


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
