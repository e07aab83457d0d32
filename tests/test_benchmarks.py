"""The benchmarks run, in small sizes: their numbers are their own business."""

import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--shapes", "8x8,300x20", "--factor"], "digits agreed"),
        (["--model-shape", "gpt2", "--layers", "1", "--dtype", "bfloat16"], "peak memory"),
    ],
)
def test_the_spectrum_benchmark(arguments, says):
    ended = subprocess.run(
        [sys.executable, FOLDER / "spectrum.py", *arguments], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert says in ended.stdout
    assert "Gflop/s" in ended.stdout
