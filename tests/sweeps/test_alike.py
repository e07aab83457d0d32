"""Units of a sweep that ask the model the very same: each is shown, none is computed for nothing or
left unfinished."""

import shutil

import pytest
import torch
from families import save_family

from eckart import Task, sweep
from eckart.errors import RunError, StudyError
from eckart.reports.page import read_report
from eckart.runs import read_run
from eckart.scoring.evaluator import Evaluator
from eckart.weights.models import load_model

GRID = {"layers": [0], "parts": ["mlp"], "rates": [0.5], "dtype": "float32"}


@pytest.fixture
def few(table, tmp_path):
    """Four rows to draw from: seeds 0 and 5 draw the same demonstrations."""
    head, *lines = table.read_text(encoding="utf-8").splitlines(keepends=True)
    (tmp_path / "few").mkdir()
    for name, part in {
        "train": lines[:4],
        "validation": lines[10:14],
        "test": lines[14:20],
    }.items():
        (tmp_path / "few" / f"{name}.csv").write_text(head + "".join(part), encoding="utf-8")
    return {"data": str(tmp_path / "few"), "text_column": "review", "label_column": "verdict"}


@pytest.fixture
def readings(monkeypatch):
    """How often a model is read."""
    seen, real = [], Evaluator.outcomes
    monkeypatch.setattr(
        Evaluator, "outcomes", lambda self, *how: seen.append(how) or real(self, *how)
    )
    return seen


def of_seeds(few, tmp_path):
    return {"tasks": [few], "shots": [2], "seeds": "0..5"}, 6


def of_no_demonstrations(few, tmp_path):
    path = tmp_path / "none.yaml"
    path.write_text(f"data: {few['data']}\ntext: review\nlabel: verdict\nshots: 0\n")
    return {"tasks": [str(path)], "seeds": [0, 1]}, 2


def of_metrics(few, tmp_path):
    named = [{**few, "name": name, "metric": name} for name in ("accuracy", "macro_f1")]
    return {"tasks": named, "shots": [2]}, 2


def of_copies(few, tmp_path):
    shutil.copytree(tmp_path / "one", tmp_path / "copies" / "one")
    return {
        "models": [str(tmp_path / "one"), str(tmp_path / "copies" / "one")],
        "tasks": [few],
        "shots": [2],
    }, 2


@pytest.mark.filterwarnings("ignore:.*draw the same demonstrations")
@pytest.mark.parametrize(
    ("kind", "test"),
    [
        (of_seeds, "none"),
        (of_seeds, "selected"),
        (of_no_demonstrations, "all"),
        (of_no_demonstrations, "selected"),
        (of_metrics, "all"),
        (of_metrics, "selected"),
        (of_copies, "none"),
        (of_copies, "selected"),
    ],
)
def test_units_that_ask_the_same_are_all_shown(few, tmp_path, readings, kind, test):
    one = str(save_family("llama", tmp_path / "one"))
    asked, units = kind(few, tmp_path)
    result = sweep(**({"models": one} | asked), **GRID, test=test, out=tmp_path / "run")
    assert len(result.lines) == units
    numbers = {str(line).partition(": ")[2] for line in result.lines}
    assert kind is of_seeds or kind is of_metrics or len(numbers) == 1
    trials = read_run(tmp_path / "run").trials.values()
    assert len({trial.setting for trial in trials}) == units
    assert len(readings) <= len({trial.key for trial in trials}), "computed once"
    warnings = read_report(tmp_path / "run", None, "html").provenance.warnings
    assert [text for text in warnings if "unfinished" in text] == []

    readings.clear()
    again = sweep(**({"models": one} | asked), **GRID, test=test, out=tmp_path / "run")
    assert readings == []
    assert again.lines == result.lines


def test_seeds_that_draw_the_same_are_named(model, few, tmp_path):
    with pytest.warns(UserWarning, match=r"seeds .* draw the same demonstrations"):
        sweep(str(model), few, **GRID, shots=[2], seeds="0..5", test="none", out=tmp_path / "run")


def in_memory(table, **changed):
    how = {"text_column": "review", "label_column": "verdict", "shots": 0, "split_sizes": (10, 10)}
    return Task.load(data=table, **(how | changed))


def test_two_tasks_in_memory_with_one_template_are_two(model, table, few, tmp_path):
    one, other = (
        in_memory(table, name="one"),
        in_memory(few["data"], name="other", split_sizes=None),
    )
    assert one.digest == other.digest
    result = sweep(str(model), [one, other], **GRID, test="none", out=tmp_path / "run")
    assert {(line.setting.task, line.rows) for line in result.lines} == {("one", 10), ("other", 4)}


def test_what_lies_in_memory_under_one_name_is_refused(table, few, tmp_path):
    tasks = [in_memory(table, name="one"), in_memory(few["data"], name="one", split_sizes=None)]
    with pytest.raises(StudyError, match="two tasks are called 'one'"):
        sweep(str(save_family("llama", tmp_path / "m")), tasks, **GRID, out=tmp_path / "run")
    models = [load_model(tmp_path / "m", dtype=dtype) for dtype in ("float32", "bfloat16")]
    with pytest.raises(StudyError, match="two models are called"):
        sweep(models, tasks[0], **GRID, out=tmp_path / "run")


def test_a_model_in_memory_that_was_trained_does_not_go_on_with_the_run(model, table, tmp_path):
    loaded, task = load_model(model, dtype="float32"), in_memory(table, name="one")
    sweep(loaded, task, **GRID, test="none", out=tmp_path / "run")
    with torch.no_grad():
        loaded.model.model.layers[0].mlp.up_proj.weight.mul_(1.3)
    with pytest.raises(RunError, match="has other weights, configuration, tokenizer or code"):
        sweep(loaded, task, **GRID, test="none", out=tmp_path / "run")


def test_a_run_in_half_precision_goes_on_with_the_same_batches_alone(model, few, tmp_path):
    half = {**GRID, "dtype": "bfloat16", "shots": [2], "test": "none"}
    sweep(str(model), few, **half, batch_tokens=64, out=tmp_path / "run")
    with pytest.raises(RunError, match="--batch-tokens"):
        sweep(str(model), few, **half, batch_tokens=128, out=tmp_path / "run")
    sweep(str(model), few, **{**half, "dtype": "float32"}, batch_tokens=64, out=tmp_path / "full")
    sweep(str(model), few, **{**half, "dtype": "float32"}, batch_tokens=128, out=tmp_path / "full")
