"""The store of the states that passes leave, within budgets of memory; what exceeds them goes to a
file."""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
import weakref
from collections.abc import Iterable
from dataclasses import dataclass
from typing import IO

import numpy as np
import psutil
import torch
from torch import Tensor

from eckart.scoring.forward.trunk import LayerPoint, States

Key = tuple[str, LayerPoint]
SHARE = 0.25
"""How much of the free memory states may take when nobody says otherwise, and of the free disk in
any case."""


def free_memory(device: torch.device) -> int:
    """Return how many bytes states may take on a device when nobody says otherwise."""
    free = (
        torch.cuda.mem_get_info(device)[0]
        if device.type == "cuda"
        else psutil.virtual_memory().available
    )
    return int(SHARE * free)


@dataclass(frozen=True)
class _Hosted:
    """An accelerator's tensor in the host's memory.

    That memory is pinned and the copies are not waited for: both run behind the computation, in the
    stream's order.
    """

    copy: Tensor
    device: torch.device

    @classmethod
    def of(cls, state: Tensor) -> _Hosted:
        pinned = state.device.type == "cuda"
        copy = torch.empty(state.shape, dtype=state.dtype, pin_memory=pinned)
        return cls(copy.copy_(state, non_blocking=pinned), state.device)

    def read(self) -> Tensor:
        return self.copy.to(self.device, non_blocking=self.copy.is_pinned())


@dataclass(frozen=True)
class _Filed:
    """A tensor in a file."""

    file: IO[bytes]
    start: int
    size: int
    dtype: torch.dtype
    shape: torch.Size
    device: torch.device

    def read(self) -> Tensor:
        self.file.seek(self.start)
        values = torch.from_numpy(np.fromfile(self.file, dtype=np.uint8, count=self.size))
        return values.view(self.dtype).view(self.shape).to(self.device)


class StateStore:
    """States by batch and point.

    What does not fit into the budget goes to the host's memory, if there is one of its own, and
    then to a temporary file, which vanishes with the process, however that ends, and takes at most
    a quarter of the free disk. What does not fit there either is not kept, and whoever asks for it
    computes it again.

    Arguments:
        budget: bytes of memory on the states' own device.
        host: bytes of the host's memory for states of another device.
    """

    def __init__(self, budget: int, host: int = 0) -> None:
        self.budget = budget
        self.host = host
        self.held = self.hosted = self.filed = 0
        self._states: dict[Key, tuple[Tensor | _Hosted | _Filed, ...]] = {}
        self._file: IO[bytes] | None = None
        self._disk = 0

    @classmethod
    def on(cls, device: torch.device, budget: int | None) -> StateStore:
        """Return a store for states of a device; a share of what is free there if no budget is
        given."""
        host = 0 if device.type == "cpu" else free_memory(torch.device("cpu"))
        return cls(free_memory(device) if budget is None else budget, host)

    def __contains__(self, key: Key) -> bool:
        return key in self._states

    def get(self, batch: str, point: LayerPoint) -> States | None:
        """Return the states that a batch has at a point, if they were kept."""
        found = self._states.get((batch, point))
        return (
            None
            if found is None
            else tuple(t if isinstance(t, Tensor) else t.read() for t in found)
        )

    def put(self, batch: str, point: LayerPoint, states: Iterable[Tensor]) -> None:
        """Keep states: where they are, on the host, in a file, or not at all."""
        states = tuple(state.contiguous() for state in states)
        size = sum(state.nbytes for state in states)
        if (batch, point) in self._states:
            return
        if self.held + size <= self.budget:
            self.held += size
            self._states[batch, point] = states
        elif self.hosted + size <= self.host:
            self.hosted += size
            self._states[batch, point] = tuple(map(_Hosted.of, states))
        elif (filed := self._write(states, size)) is not None:
            self.filed += size
            self._states[batch, point] = filed

    def clear(self) -> None:
        """Forget all states."""
        self._states.clear()
        self.held = self.hosted = self.filed = 0
        if self._file is not None:
            self._file.truncate(0)

    def _write(self, states: States, size: int) -> tuple[_Filed, ...] | None:
        """Append states to the file, all or none; return where they lie, or None if they do not
        fit."""
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile(prefix="eckart-states-")  # noqa: SIM115  # it lives as long as this
                weakref.finalize(self, self._file.close)
                self._disk = int(SHARE * shutil.disk_usage(tempfile.gettempdir()).free)
            file = self._file
            start = file.seek(0, os.SEEK_END)
        except OSError:
            return None
        if self.filed + size > self._disk:
            return None
        try:
            for state in states:
                state.cpu().view(torch.uint8).numpy().tofile(file)
            file.flush()
        except OSError:
            file.truncate(start)
            return None
        starts = itertools.accumulate((state.nbytes for state in states[:-1]), initial=start)
        return tuple(
            _Filed(file, place, state.nbytes, state.dtype, state.shape, state.device)
            for place, state in zip(starts, states, strict=True)
        )
