"""The benchmarks run, in small sizes: their numbers are their own business."""

import io
import runpy
import sys
from contextlib import redirect_stdout
from functools import cache
from pathlib import Path
from timeit import timeit
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from eckart import Edit
from eckart.demo import MODEL, corpus
from eckart.demo.corpus import TEMPLATE, write

FOLDER = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(scope="module", autouse=True)
def once():
    """What they time is run once, and the speed of a product, their ceiling, is measured once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(FOLDER)
        import common

        patch.setattr(common, "best_of", lambda function, repeats=1: timeit(function, number=1))
        patch.setattr(common, "matmul_rate", cache(common.matmul_rate))
        yield


def run(name: str, *arguments: object) -> str:
    """Run a benchmark as a script is run, but for a process of its own; return what it prints."""
    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(printed):
        patch.setattr(sys, "argv", [str(FOLDER / name), *map(str, arguments)])
        runpy.run_path(str(FOLDER / name), run_name="__main__")
    return printed.getvalue()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--shapes", "8x8,300x20", "--factor"], "digits agreed"),
        (["--model-shape", "gpt2", "--layers", "1", "--dtype", "bfloat16"], "peak memory"),
    ],
)
def test_the_spectrum_benchmark(arguments, says):
    out = run("spectrum.py", *arguments)
    assert says in out
    assert "Gflop/s" in out


def test_the_activation_benchmark():
    assert "activation in one step" in run("activation.py", "--tokens", "16")


def test_the_coverage_benchmark():
    out = run("coverage.py", "--times", "4", "--studies", "2")
    for name in (
        "seed_and_row_mean",
        "selected_gain",
        "stability",
        "layer_rule",
        "rank_correlation",
    ):
        assert name in out


def test_the_predict_benchmark():
    printed = " ".join(run("predict.py", "--rows", "60", "--dtype", "float32").split())
    assert "predict's time by evaluate's" in printed
    assert "60 rows" in printed


def test_the_draws_benchmark():
    assert "covers, same draws" in " ".join(run("draws.py", "--times", "4", "--rows", "60").split())


def test_the_theory_benchmark_draws_its_figures(tmp_path):
    assert "a term of Theorem 2" in run("theory.py", "--draws", "3", "--out", tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"theory-norms.png", "theory-bound.png"}


def test_the_trajectory_benchmark_draws_its_figure(tmp_path):
    sizes = ["--models", "3", "--layers", "1", "--steps", "20", "--prompts", "20", "--many", "30"]
    out = run("trajectory.py", *sizes, "--out", tmp_path, "--runs", tmp_path / "runs")
    for said in (
        "rank correlation of the changes",
        "nats under the bound's root",
        "squared error / d of 30 prompts",
        "after Holm's adjustment for all 60",
    ):
        assert said in out
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


def evaluated(name: str, rows: Path, *options: str) -> str:
    """Run a benchmark of the evaluator; return what it prints."""
    return run(name, "--shape", "8m", "--rows", 8, "--shots", 2, "--data", rows, *options)


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("algorithm1.py", ["--reference-rows", "2"], "16 of 16"),
        ("limit.py", [], "one evaluation"),
        ("rates.py", ["--layers", "0,-1"], "(L - l) / L"),
        ("probe.py", ["--layers", "0,-1"], "of the unpruned probe"),
        ("protocol.py", ["--test-rows", "20"], "test, unpruned"),
    ],
)
def test_the_evaluation_benchmarks(rows, name, options, says):
    assert says in evaluated(name, rows, *options)


def test_the_growth_benchmark(rows, monkeypatch):
    """What are processes of their own, so that each has its own peak, is run in this one."""

    def alone(command, **how):
        return SimpleNamespace(stdout=run("growth.py", *command[2:]))

    monkeypatch.setattr("subprocess.run", alone)
    assert "peak, GiB" in evaluated("growth.py", rows, "--vary", "shots=0")


@pytest.fixture(scope="module")
def peers(rows):
    """Return what one comparison of three evaluations prints, by who."""
    out = evaluated("peers.py", rows, "--peer-rows", "4")
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
    out = run("report.py", "--trials", "100", "--rows", "20", "--seeds", "2")
    assert "the page, from the run" in out


def test_the_study_of_the_demos_model_runs(tmp_path, monkeypatch):
    """On two of its five tasks."""
    monkeypatch.setattr(corpus, "write", lambda folder: dict([*write(folder).items()][:2]))
    sizes = ["--seeds", "1", "--rows", "10,10", "--rates", "0.9"]
    assert f"{2 * 2 * 11} trials" in run("predicts.py", "--out", tmp_path / "run", *sizes)


@pytest.fixture(scope="module")
def sorting(tmp_path_factory) -> tuple[Path, Path]:
    """Return a task file, and the rows of one of the demo's tasks."""
    folder = tmp_path_factory.mktemp("sorting")
    name, data = next(iter(write(folder / "data").items()))
    said = {"name": name, "data": str(data), "template": TEMPLATE, "label": "label"}
    task = folder / "task.yaml"
    task.write_text(yaml.safe_dump(said))
    return task, data


def test_the_benchmark_of_searches_prints_its_table_again_and_draws_its_figure(sorting, tmp_path):
    task, data = sorting
    sizes = ["--rows", 64, "--test-rows", 20, "--repeats", 1, "--rates", "0.9", "--orders", 1]
    said = ["--data", data, "--draws", 2, "--shots", 2, *sizes, "--budgets", "one,3"]
    first, again = (
        run("searches.py", "run", MODEL, "--task", task, *said, "--out", tmp_path / "run")
        for _ in range(2)
    )
    assert "greedy, gradient" in first
    assert first == again
    run("searches.py", "draw", tmp_path / "run", "--figure", tmp_path / "search.png")
    assert (tmp_path / "search.png").is_file()


def test_what_a_search_reads_is_counted_with_its_trunk_reused():
    from metered import products

    deep, shallow = (Edit(3, "mlp", 0.5),), (Edit(1, "mlp", 0.5), Edit(3, "q", 0.9))
    assert products([(), deep, deep], rows=10, depth=4) == 10 * (4 + 1 + 1)
    assert products([deep, shallow], rows=10, depth=4) == 10 * (4 + 3)
    assert products([], rows=10, depth=4) == 0


def test_the_benchmark_of_looks(sorting):
    task, _ = sorting
    printed = " ".join(run("explore.py", "--task", task, "--rows", 20, "--layers", 2).split())
    assert "further rates, s" in printed
    assert "20 rows" in printed
