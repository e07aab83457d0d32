"""`--guard` as it is typed: what it prints, and what it refuses."""

import json
from pathlib import Path

import pytest

EDIT = ["--edit", "1:mlp:0.9"]


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "some.txt"
    path.write_text("The good food is in the town, and the view is the best. " * 12)
    return path


@pytest.fixture(scope="module")
def notes(table, tmp_path_factory):
    path = tmp_path_factory.mktemp("task") / "notes.yaml"
    path.write_text(f"name: notes\ndata: {table}\ntext: review\nlabel: note\nshots: 2\n")
    return path


def test_evaluate_says_what_else_an_edit_does(eckart, model, own_task, text, notes):
    guard = ["--guard", "--guard-text", text, "--guard-task", notes, "--guard-margin", 5]
    ended = eckart("evaluate", model, *own_task, *EDIT, *guard, "--json")
    assert ended.status == 0, ended.err
    found = json.loads(ended.out)
    assert found["guard"]["text"]["name"] == "some.txt"
    assert found["guard"]["text"]["divergence"] > 0
    assert found["guard"]["margin"] == 5
    (task,) = found["guard"]["tasks"]
    assert (task["task"], task["shots"]) == ("notes", 2)
    assert task["change"]["n"] > 0
    assert found["comparison"]["n"] == found["unpruned"]["n"] == found["n"]
    assert found["comparison"]["difference"] == pytest.approx(
        found["accuracy"] - found["unpruned"]["accuracy"]
    )


def test_the_package_brings_a_text(eckart, model, own_task):
    ended = eckart("evaluate", model, *own_task, *EDIT, "--guard")
    assert ended.status == 0, ended.err
    assert "on the text 'neutral' (" in " ".join(ended.out.split())
    assert "Unpruned, on the same rows:" in " ".join(ended.out.split())


def test_search_and_sweep_say_it_too(eckart, model, own_task, text):
    guard = ["--guard", "--guard-text", text]
    ended = eckart(
        *["search", model, *own_task, "--rates", "0.6,0.9", "--layer", 2, *guard, "--out", "run"]
    )
    assert ended.status == 0, ended.err
    chosen = json.loads(Path("run/result.json").read_text())
    said = " ".join(Path("run/result.txt").read_text().split())
    assert ("What else" in said) == (chosen["rate"] > 0) == ("guard" in chosen)
    cut = ["--layers", "0,1,2", "--parts", "mlp", "--rates", "0.6,0.9"]
    ended = eckart("sweep", model, *own_task, *cut, *guard, "--out", "grid", "--json")
    assert ended.status == 0, ended.err
    (line,) = json.loads(ended.out)["lines"]
    assert line["guard"]["edits"] == [line["edit"]]
    assert "guard_text:" in Path("grid/study.yaml").read_text()


def test_no_output_lands_on_what_guards(eckart, model, own_task, text, notes):
    for written, guard in ((text, ["--guard-text", text]), (notes, ["--guard-task", notes])):
        before = written.read_bytes()
        asked = ["evaluate", model, *own_task, *EDIT, "--guard", *guard, "--predictions", written]
        ended = eckart(*asked)
        assert ended.status == 2
        assert "--predictions" in ended.err
        assert written.read_bytes() == before


REFUSED = {
    "no edit": (["--guard"], "there is none; add --edit"),
    "a text and no guard": ([*EDIT, "--guard-text", "some.txt"], "add --guard"),
    "a task and no guard": ([*EDIT, "--guard-task", "sst2"], "add --guard"),
    "a margin and no guard": ([*EDIT, "--guard-margin", "2"], "add --guard"),
    "no such text": ([*EDIT, "--guard", "--guard-text", "no.txt"], "no guard text 'no.txt'"),
    "a folder": ([*EDIT, "--guard", "--guard-text", "."], "is a folder"),
    "an empty text": ([*EDIT, "--guard", "--guard-text", "empty.txt"], "is empty"),
    "white space": ([*EDIT, "--guard", "--guard-text", "white.txt"], "is empty"),
    "no text": ([*EDIT, "--guard", "--guard-text", "binary.txt"], "cannot read guard text"),
    "one token": ([*EDIT, "--guard", "--guard-text", "one.txt"], "1 token(s) long"),
    "no such task": ([*EDIT, "--guard", "--guard-task", "nothing"], "guard task 'nothing'"),
    "no such file": ([*EDIT, "--guard", "--guard-task", "no.yaml"], "guard task 'no.yaml'"),
    "other columns": ([*EDIT, "--guard", "--guard-task", "columns.yaml"], "no column 'words'"),
    "no labels": ([*EDIT, "--guard", "--guard-task", "labels.yaml"], "guard task 'labels.yaml'"),
    "the task itself": ([*EDIT, "--guard", "--guard-task", "same.yaml"], "are chosen for"),
    "a task twice": (
        [*EDIT, "--guard", *["--guard-task", "notes.yaml"] * 2],
        "named twice",
    ),
    "a margin below 0": ([*EDIT, "--guard", "--guard-margin", "-1"], "guard margin -1"),
    "no number": ([*EDIT, "--guard", "--guard-margin", "nan"], "guard margin nan"),
    "more than all": ([*EDIT, "--guard", "--guard-margin", "101"], "guard margin 101"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_bad_input_is_one_line(eckart, model, table, own_task, tmp_path, name):
    arguments, said = REFUSED[name]
    for file, content in {
        "empty.txt": b"",
        "white.txt": b" \n\n ",
        "binary.txt": b"\x89PNG\xff\xfe",
        "one.txt": b"a",
    }.items():
        (tmp_path / file).write_bytes(content)
    rows = f"data: {table}\nshots: 2\n"
    for file, task in {
        "columns.yaml": f"name: c\n{rows}text: words\nlabel: verdict\n",
        "labels.yaml": f"name: l\n{rows}text: review\nlabel: nothing\n",
        "same.yaml": f"name: reviews\n{rows}text: review\nlabel: verdict\n",
        "notes.yaml": f"name: notes\n{rows}text: review\nlabel: note\n",
    }.items():
        (tmp_path / file).write_text(task)
    ended = eckart("evaluate", model, *own_task, *arguments)
    assert ended.status == 2, ended.err
    (error,) = [line for line in ended.err.splitlines() if line.startswith("error: ")]
    assert said in error
    assert ended.out == ""
    assert "Traceback" not in ended.err
