"""The benchmarks run, in small sizes: their numbers are their own business."""

import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
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


@pytest.fixture(scope="module")
def peers(tmp_path_factory):
    """Return what one comparison of three evaluations prints."""
    data = tmp_path_factory.mktemp("peers") / "rows.parquet"
    rows = [(f"a {'fine' if row % 2 else 'poor'} film of {row} scenes", row % 2) for row in range(40)]
    pq.write_table(pa.table({"sentence": [text for text, _ in rows], "label": [y for _, y in rows]}), data)
    sizes = ["--shape", "8m", "--rows", "8", "--peer-rows", "4", "--shots", "2"]
    ended = subprocess.run(
        [sys.executable, FOLDER / "peers.py", *sizes, "--data", data],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return {line.split()[0]: line for line in ended.stdout.splitlines() if " of " in line and line[0] == " "}


def test_the_peers_benchmark_agrees_with_plain_transformers(peers):
    assert "4 of 4" in peers["transformers"]


def test_the_peers_benchmark_agrees_with_lm_eval(peers):
    pytest.importorskip(
        "accelerate"
    )  # lm-eval needs it for transformers, and installs it when asked: lm-eval[hf]
    pytest.importorskip("lm_eval")
    assert "4 of 4" in peers["lm-eval"]
