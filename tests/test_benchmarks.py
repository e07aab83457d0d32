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
        [sys.executable, FOLDER / "spectrum.py", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert says in ended.stdout
    assert "Gflop/s" in ended.stdout


def test_the_activation_benchmark():
    ended = subprocess.run(
        [sys.executable, FOLDER / "activation.py", "--tokens", "16"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert "activation in one step" in ended.stdout


def test_the_coverage_benchmark():
    sizes = ["--times", "4", "--studies", "2"]
    ended = subprocess.run(
        [sys.executable, FOLDER / "coverage.py", *sizes],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    for name in (
        "seed_and_row_mean",
        "selected_gain",
        "stability",
        "layer_rule",
        "rank_correlation",
    ):
        assert name in ended.stdout


def test_the_theory_benchmark_draws_its_figures(tmp_path):
    arguments = [sys.executable, FOLDER / "theory.py", "--draws", "3", "--out", tmp_path]
    ended = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert "a term of Theorem 2" in ended.stdout
    assert {path.name for path in tmp_path.iterdir()} == {"theory-norms.png", "theory-bound.png"}


def test_the_trajectory_benchmark_draws_its_figure(tmp_path):
    sizes = ["--models", "3", "--layers", "1", "--steps", "20", "--prompts", "20", "--many", "30"]
    arguments = [
        sys.executable,
        FOLDER / "trajectory.py",
        *sizes,
        "--out",
        tmp_path,
        "--runs",
        tmp_path / "runs",
    ]
    ended = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    for said in (
        "rank correlation of the changes",
        "nats under the bound's root",
        "squared error / d of 30 prompts",
        "after Holm's adjustment for all 60",
    ):
        assert said in ended.stdout
    assert (tmp_path / "theory-trajectory.png").is_file()


@pytest.fixture(scope="module")
def rows(tmp_path_factory) -> Path:
    """Return a small table of rows like SST-2's."""
    data = tmp_path_factory.mktemp("rows") / "rows.parquet"
    rows = [
        (f"a {'fine' if row % 2 else 'poor'} film of {row} scenes", row % 2) for row in range(40)
    ]
    pq.write_table(
        pa.table({"sentence": [text for text, _ in rows], "label": [y for _, y in rows]}), data
    )
    return data


def run(name: str, rows: Path, *options: str) -> str:
    """Run a benchmark of the evaluator; return what it prints."""
    sizes = ["--shape", "8m", "--rows", "8", "--shots", "2", "--data", rows]
    ended = subprocess.run(
        [sys.executable, FOLDER / name, *sizes, *options],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("algorithm1.py", ["--reference-rows", "2"], "16 of 16"),
        ("limit.py", [], "one evaluation"),
        ("rates.py", ["--layers", "0,-1"], "(L - l) / L"),
        ("growth.py", ["--vary", "shots=0,2"], "peak, GiB"),
        ("probe.py", ["--layers", "0,-1"], "of the unpruned probe"),
        ("protocol.py", ["--test-rows", "20"], "test, unpruned"),
    ],
)
def test_the_evaluation_benchmarks(rows, name, options, says):
    assert says in run(name, rows, *options)


@pytest.fixture(scope="module")
def peers(rows):
    """Return what one comparison of three evaluations prints, by who."""
    out = run("peers.py", rows, "--peer-rows", "4")
    return {line.split()[0]: line for line in out.splitlines() if " of " in line and line[0] == " "}


def test_the_peers_benchmark_agrees_with_plain_transformers(peers):
    assert "4 of 4" in peers["transformers"]


def test_the_peers_benchmark_agrees_with_lm_eval(peers):
    pytest.importorskip(
        "accelerate"
    )  # lm-eval needs it for transformers, and installs it when asked: lm-eval[hf]
    pytest.importorskip("lm_eval")
    assert "4 of 4" in peers["lm-eval"]


def test_the_report_benchmark():
    command = [
        sys.executable,
        FOLDER / "report.py",
        "--trials",
        "100",
        "--rows",
        "20",
        "--seeds",
        "2",
    ]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert "the page, from the run" in ended.stdout


def test_the_study_of_the_demos_model_runs(tmp_path):
    sizes = ["--seeds", "1", "--rows", "10,10", "--rates", "0.9"]
    command = [sys.executable, FOLDER / "predicts.py", "--out", tmp_path / "run", *sizes]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert f"{5 * 2 * 11} trials" in ended.stdout
