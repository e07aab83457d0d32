"""What every benchmark shares: a fair clock, the machine beside the numbers, and a table."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import torch
from rich import box
from rich.console import Console
from rich.table import Table

TOLERANCE = {"float32": 1e-3, "float16": 0.03, "bfloat16": 0.25}
"""How far, in nats a token, two readings may be from each other and still be called the same, by
dtype."""


def best_of(function: Callable[[], object], repeats: int = 3) -> float:
    """Return the shortest wall-clock time in seconds of several calls, a GPU's queued work
    included."""
    times = []
    for _ in range(repeats):
        synchronise()
        start = time.perf_counter()
        function()
        synchronise()
        times.append(time.perf_counter() - start)
    return min(times)


def matmul_rate(device: str | torch.device = "cpu", dtype: torch.dtype = torch.float64) -> float:
    """Return the flop/s that a large square matrix product reaches on a device: the ceiling of
    every other number."""
    size = 2048 if torch.device(device).type == "cpu" else 8192
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    a @ b  # the first product also pays for loading the library
    return 2 * size**3 / best_of(lambda: a @ b, repeats=5)


def machine() -> str:
    """Return one line that says what the numbers were measured on."""
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return f"{_processor()}, {torch.get_num_threads()} threads{gpu}, torch {torch.__version__}"


def show(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table on standard output."""
    table = Table(box=box.SIMPLE, title=title, title_justify="left")
    for column in columns:
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(*row)
    Console(width=None if Console().is_terminal else 160).print(table)


def synchronise() -> None:
    """Wait for what a GPU has been given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
