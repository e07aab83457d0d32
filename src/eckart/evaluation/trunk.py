"""The states that passes left behind, within a budget of memory; what exceeds it goes to a file."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import torch
from torch import Tensor

from eckart.evaluation.route import Point, States

Key = tuple[str, Point]
SHARE = 0.25
"""How much of the free memory states may take when nobody says otherwise."""


def free_memory(device: torch.device) -> int:
    """Return how many bytes states may take on a device when nobody says otherwise."""
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else psutil.virtual_memory().available
    return int(SHARE * free)


@dataclass(frozen=True)
class _Filed:
    """A tensor in a file."""

    path: Path
    dtype: torch.dtype
    shape: torch.Size
    device: torch.device

    def read(self) -> Tensor:
        values = torch.from_numpy(np.fromfile(self.path, dtype=np.uint8))
        return values.view(self.dtype).view(self.shape).to(self.device)


class Trunk:
    """States by batch and point.

    What does not fit into the budget is written to a temporary folder; what does not fit there either is not kept,
    and whoever asks for it computes it again.

    Arguments:
        budget: bytes of memory.
    """

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self.held = 0
        self.filed = 0
        self._states: dict[Key, tuple[Tensor | _Filed, ...]] = {}
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def __contains__(self, key: Key) -> bool:
        return key in self._states

    def get(self, batch: str, point: Point) -> States | None:
        """Return the states that a batch has at a point, if they were kept."""
        found = self._states.get((batch, point))
        return None if found is None else tuple(t.read() if isinstance(t, _Filed) else t for t in found)

    def put(self, batch: str, point: Point, states: Iterable[Tensor]) -> None:
        """Keep states, in memory or in a file, or not at all."""
        states = tuple(state.contiguous() for state in states)
        size = sum(state.nbytes for state in states)
        if (batch, point) in self._states:
            return
        if self.held + size <= self.budget:
            self.held += size
            self._states[batch, point] = states
            return
        try:
            filed = tuple(self._file(state) for state in states)
        except OSError:
            return
        self.filed += size
        self._states[batch, point] = filed

    def keep_only(self, points: Iterable[Point]) -> None:
        """Forget the states of all other points."""
        wanted = set(points)
        for key in [key for key in self._states if key[1] not in wanted]:
            for state in self._states.pop(key):
                if isinstance(state, _Filed):
                    self.filed -= state.path.stat().st_size
                    state.path.unlink()
                else:
                    self.held -= state.nbytes

    def _file(self, state: Tensor) -> _Filed:
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="eckart-states-")
        handle, name = tempfile.mkstemp(dir=self._folder.name)
        with os.fdopen(handle, "wb") as file:
            state.cpu().view(torch.uint8).numpy().tofile(file)
        return _Filed(Path(name), state.dtype, state.shape, state.device)
