"""The verb that labels new rows: what it reads, what it writes, where it goes on, what it
refuses."""

import csv
import io
import json
import sys

import pytest
from results import refused

from eckart.cli import predict as cli
from eckart.exports import predictions

EDIT = ["--edit", "0:mlp:0.75"]


@pytest.fixture
def piped(monkeypatch):
    """Put a text on standard input."""

    def pipe(text: str | bytes) -> None:
        content = text if isinstance(text, bytes) else text.encode()
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))

    return pipe


@pytest.fixture
def label(eckart, model, own_task):
    def command(*arguments: object):
        return eckart("predict", model, *arguments, *own_task)

    return command


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_a_table_comes_back_with_predictions(label, table, tmp_path):
    ended = label(table, *EDIT, "--compare")
    assert ended.status == 0
    rows = rows_of(ended.out)
    assert len(rows) == 60
    for row in rows:
        shares = [float(row[f"probability_{name}"]) for name in ("bad", "good")]
        assert sum(shares) == pytest.approx(1, abs=1e-5)
        assert row["prediction"] == ("bad" if shares[0] >= shares[1] else "good")
        assert row["unpruned_prediction"] in ("bad", "good")
    assert "clipped: accuracy" in ended.err
    assert "n = 60 rows with labels" in ended.err
    assert label(table, *EDIT, "--compare", "--out", "o.csv").status == 0
    assert (tmp_path / "o.csv").read_text() == ended.out
    assert {path.name for path in tmp_path.iterdir()} == {"o.csv"}


def test_the_formats_say_the_same(label, table):
    lines = label(table, "--format", "jsonl").out.splitlines()
    by_csv = rows_of(label(table).out)
    document = json.loads(label(table, "--json").out)
    assert [json.loads(line)["prediction"] for line in lines] == [r["prediction"] for r in by_csv]
    assert [row["prediction"] for row in document["predictions"]] == [
        row["prediction"] for row in by_csv
    ]
    assert document["labelled"] == document["read"] == 60
    shown = label("--text", "the food is good", "--format", "table").out
    assert "probability_good" in shown


@pytest.mark.parametrize(
    "text",
    [
        "the food is good\nthe town is bad\n",
        "review,more\nthe food is good,1\nthe town is bad,2\n",
        '{"review": "the food is good"}\n{"review": "the town is bad"}\n',
    ],
)
def test_standard_input(label, piped, text):
    expected = [
        row["prediction"]
        for row in rows_of(label("--text", "the food is good", "--text", "the town is bad").out)
    ]
    piped(text)
    assert [row["prediction"] for row in rows_of(label("-").out)] == expected


def test_a_first_line_that_may_be_a_heading_is_said_to_be_one(label, piped):
    piped("review, the plot\na great film, it is\n")
    ended = label("-")
    assert "note: read as a table, whose columns are review, the plot" in ended.err
    assert [row["review"] for row in rows_of(ended.out)] == ["a great film"]


def test_own_columns_come_back_as_they_were(label, tmp_path):
    own = {"review": "the food is good", "price": 1.23456789e-7, "n": 1234567.123456789}
    (tmp_path / "new.jsonl").write_text(json.dumps(own) + "\n")
    found = json.loads(label("new.jsonl", "--format", "jsonl").out)
    assert {name: found[name] for name in own} == own
    with (tmp_path / "new.jsonl").open("a") as file:
        file.write(json.dumps({**own, "prediction": "mine"}) + "\n")
    refused(label("new.jsonl"), "have a column 'prediction' already")


def stopped_after(chunks: int, patch: pytest.MonkeyPatch) -> None:
    """Interrupt a command that has written so many chunks."""
    add = cli.Growing.add
    done = []

    def adding(file, text, state):
        if len(done) == chunks:
            file._file.write(b"half a ro")
            raise KeyboardInterrupt
        done.append(text)
        add(file, text, state)

    patch.setattr(cli.Growing, "add", adding)


def test_a_stopped_command_goes_on(label, table, tmp_path, monkeypatch):
    monkeypatch.setattr(predictions, "CHUNK", 8)
    whole = label(table, *EDIT, "--compare", "--out", "whole.csv")
    with monkeypatch.context() as patch:
        stopped_after(3, patch)
        ended = label(table, *EDIT, "--compare", "--out", "o.csv")
    assert ended.status == 130
    assert "goes on from there" in ended.err
    assert not (tmp_path / "o.csv").exists()
    refused(label(table, "--out", "o.csv"), "of another command", "edits")
    again = label(table, *EDIT, "--compare", "--out", "o.csv")
    assert "going on behind the first 24 rows" in again.err
    assert (tmp_path / "o.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
    assert [line for line in again.err.splitlines() if "accuracy" in line] == [
        line for line in whole.err.splitlines() if "accuracy" in line
    ]
    assert {path.name for path in tmp_path.iterdir()} == {"o.csv", "whole.csv"}


def test_other_rows_are_no_rows_to_go_on_with(label, table, tmp_path, monkeypatch):
    monkeypatch.setattr(predictions, "CHUNK", 8)
    new = tmp_path / "new.csv"
    new.write_text(table.read_text())
    with monkeypatch.context() as patch:
        stopped_after(2, patch)
        label(new, "--out", "o.csv")
    new.write_text(table.read_text().replace("food", "view"))
    refused(label(new, "--out", "o.csv"), "the first 16 rows are not those")


def test_a_run_labels_by_its_own_prompt(eckart, model, own_task, table):
    search = ["search", model, *own_task, "--layer", "0", "--rates", "0,0.75", "--out", "run"]
    assert eckart(*search).status == 0
    ended = eckart("predict", "run", table)
    assert len(rows_of(ended.out)) == 60
    refused(eckart("predict", "run", table, *EDIT), "is a run, whose choice is what is clipped")


def test_the_loop_answers_line_by_line(label, piped):
    piped("the food is good\nthe town is bad\n\nnever read\n")
    ended = label("--interactive", *EDIT, "--continue", "3", "--json")
    answers = [json.loads(line) for line in ended.out.splitlines()]
    assert [answer["text"] for answer in answers] == ["the food is good", "the town is bad"]
    expected = rows_of(label("--text", "the food is good", *EDIT, "--compare").out)[0]
    unpruned, clipped = answers[0]["models"]
    assert unpruned["prediction"] == expected["unpruned_prediction"]
    assert clipped["probabilities"]["good"] == pytest.approx(
        float(expected["probability_good"]), abs=1e-5
    )
    assert clipped["continues"]
    piped("the food is good\n")
    shown = label("--interactive", *EDIT, "--continue", "3").out
    assert "unpruned" in shown
    assert "clipped continues: " in shown


BAD = {
    "nothing": ([], "nothing to label"),
    "both": (["new.csv", "--text", "a"], "leave out one"),
    "no file": (["new.csv"], "no rows at 'new.csv'"),
    "an unknown ending": (["--text", "a", "--out", "new.xlsx"], "no format 'xlsx'"),
    "an unknown format": (["--text", "a", "--format", "xml"], "no format 'xml'"),
    "a table in a file": (["--text", "a", "--out", "a.csv", "--format", "table"], "no format"),
    "no folder": (["--text", "a", "--out", "no/a.csv"], "no folder 'no'"),
    "what is read": (["there.csv", "--out", "there.csv"], "is the rows itself"),
    "there": (["--text", "a", "--out", "there.csv"], "exists, and nothing is written over"),
    "not ours": (["--text", "a", "--out", "b.csv"], "not as a stopped command left it"),
    "no such column": (["there.csv"], "has no column 'review'"),
    "batch alone": (["--interactive", "--scoring", "batch"], "here they come one by one"),
}


@pytest.mark.parametrize(("arguments", "words"), BAD.values(), ids=BAD)
def test_what_is_refused(label, tmp_path, arguments, words):
    (tmp_path / "there.csv").write_text("a,b\n1,2\n")
    (tmp_path / "b.csv.part").write_text("mine")
    refused(label(*arguments), words)
    assert {path.name for path in tmp_path.iterdir()} == {"there.csv", "b.csv.part"}


def test_empty_input_is_refused(label, piped):
    piped("")
    refused(label("-"), "no rows to label")
    piped(b"the food is good\nh\xe9llo\n")
    refused(label("-"), "standard input is no UTF-8 text", "convert it")


def test_a_folder_without_a_recipe_needs_a_task(eckart, model):
    refused(eckart("predict", model, "--text", "a"), "nothing makes prompts of new rows", "--task")
