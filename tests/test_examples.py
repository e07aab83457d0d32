"""The examples run, each on the embedded model; and what a notebook shows of results."""

import ast
import csv
import json
import runpy
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

import eckart
from eckart import Edit, Task, evaluate
from eckart.demo import MODEL
from eckart.demo.corpus import rows

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture
def desk(tmp_path, monkeypatch):
    """A folder to work in, with a table of the embedded model's own kind."""
    monkeypatch.chdir(tmp_path)
    with (tmp_path / "moods.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["text", "label"])
        writer.writeheader()
        writer.writerows(rows("mood", "test", 40))
    return tmp_path / "moods.csv"


def ran(monkeypatch, capsys, name: str, *arguments: object) -> str:
    monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
    runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
    return capsys.readouterr().out


def test_a_better_model(desk, monkeypatch, capsys, tmp_path):
    said = ran(monkeypatch, capsys, "better_model", MODEL, desk, "text", "label", "better")
    assert "no clipping does better" in said
    noisy = list(rows("topic", "test", 200))  # where a label in four is another row's, one does
    for row, other in zip(noisy[::4], noisy[1::4], strict=True):
        row["label"] = other["label"]
    with (tmp_path / "topics.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["text", "label"])
        writer.writeheader()
        writer.writerows(noisy)
    said = ran(monkeypatch, capsys, "better_model", MODEL, "topics.csv", "text", "label", "other")
    assert "saved:" in said
    assert (tmp_path / "other" / "config.json").is_file()
    assert "on test" in said


def test_figure_1(desk, monkeypatch, capsys, tmp_path):
    said = ran(monkeypatch, capsys, "figure1", MODEL, desk, "text", "label", "figure1")
    assert "page: figure1/report.html" in said
    assert list((tmp_path / "figure1" / "figures").glob("*.png"))


def test_a_live_model(desk, monkeypatch, capsys):
    assert "unpruned:" in ran(monkeypatch, capsys, "live_model", MODEL, "the food was")


def test_the_notebook(desk):
    """Its cells in order in one namespace, each showing what its last line is."""
    cells = json.loads((EXAMPLES / "first_look.ipynb").read_text(encoding="utf-8"))["cells"]
    space: dict[str, object] = {}
    shown = []
    for cell in cells:
        if cell["cell_type"] == "code":
            *rest, last = ast.parse("".join(cell["source"])).body
            assert isinstance(last, ast.Expr)
            exec(compile(ast.Module(rest, []), "cell", "exec"), space)  # its own code, no input
            shown.append(eval(compile(ast.Expression(last.value), "cell", "eval"), space))
    task, evaluation, result, grid, cut = shown
    for each in (evaluation, result, grid):
        assert "<p><b>" in each._repr_html_()
        assert len(repr(each)) < 300, repr(each)
    assert "<caption>" in result._repr_html_()
    assert len(repr(task)) < 2000
    assert [type(each).__name__ for each in cut] == ["Clipped"] * len(cut)
    assert cut


def test_a_notebook_shows_a_result_once(table, monkeypatch, capsys):
    """Rich shows whatever it writes by itself where it takes its place for a notebook."""
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    task = Task.load(data=table, text_column="review", label_column="verdict")
    found = eckart.search(MODEL, task, rates=[0.5], dtype="float32")
    capsys.readouterr()
    assert "*4:" in found._repr_html_()  # the condition numbers are no table
    assert capsys.readouterr().out == ""


def test_bars_of_rows_and_of_trials(table, tmp_path, capsys):
    task = Task.load(data=table, text_column="review", label_column="verdict")
    cut, seen = [Edit(0, "mlp", 0.5)], []

    @contextmanager
    def counting(what, rows):
        seen.append([what, rows, 0])
        yield lambda done: seen[-1].__setitem__(2, seen[-1][2] + done)

    evaluate(MODEL, task, cut, dtype="float32", progress=eckart.progress)
    assert "validation 0:mlp:0.5" in capsys.readouterr().err
    asked = {"layers": [0], "parts": "mlp", "rates": [0, 0.5], "out": tmp_path / "run"}
    eckart.sweep(MODEL, task, **asked, dtype="float32", progress=counting)
    ((what, expected, done),) = seen
    assert what == "trials"
    assert 2 < done <= expected


def test_what_is_shown_is_escaped_and_short(table):
    task = Task.load(
        data=table, text_column="review", label_column="verdict", labels={"good": "<b>", "bad": "x"}
    )
    found = evaluate(MODEL, task, [Edit(0, "mlp", 0.5)], dtype="float32")
    assert '<td style="text-align: left">&lt;b&gt;</td>' in found._repr_html_()
    assert str(found) in repr(found)
    assert len(repr(found.score)) < 400
    assert len(repr(found.trial)) < 1500
