"""`eckart power`, and what a search and a sweep say before they begin."""

import json
import subprocess
import sys

import pytest
from results import refused

from eckart.runs import read_run

SEEN = "validation rows at "


def test_numbers_of_ones_own(eckart):
    ended = eckart("power", "--turns", "0.08", "--rows", "400")
    assert ended.status == 0, ended.err
    said = " ".join(ended.out.split())
    assert "a gain of 4.1 points or more is told with 80% power at level 0.05" in said
    assert "1 point needs 6,457 rows, 2 points needs 1,645 rows, 5 points needs 264 rows" in said
    assert "on 400 rows a gain of 1 point with 7% power" in said


def test_one_document(eckart):
    asked = ["power", "--turns", "0.1", "--draws", "5", "--between", "1", "--gain", "3", "--json"]
    found = json.loads(eckart(*asked, "--rows", "500", "--power", "0.9", "--level", "0.01").out)
    assert (found["draws"], found["between"], found["level"], found["power"]) == (
        5,
        0.01,
        0.01,
        0.9,
    )
    assert [each["gain"] for each in found["gains"]] == [0.03]
    assert found["smallest_gain"] > 0.03


def test_it_answers_without_torch():
    said = (
        "import sys; from eckart.cli.app import app; app(['power', '--turns', '0.1'],"
        " standalone_mode=False); print(sorted({'torch', 'transformers'} & {*sys.modules}))"
    )
    ended = subprocess.run([sys.executable, "-c", said], capture_output=True, text=True, check=True)
    assert ended.stdout.splitlines()[-1] == "[]"


BAD = {
    "no share": ([], "--turns"),
    "a share of nothing": (["--turns", "0"], "share of rows that turn 0"),
    "a share in points": (["--turns", "5"], "share of rows that turn 5"),
    "no number": (["--turns", "nan"], "share of rows that turn nan"),
    "one draw that differs": (["--turns", "0.1", "--between", "1"], "there is one draw"),
    "draws that differ by too much": (
        ["--turns", "0.1", "--draws", "3", "--between", "20"],
        "do not differ by 20 points",
    ),
    "draws that differ by less than nothing": (
        ["--turns", "0.1", "--draws", "3", "--between", "-1"],
        "do not differ by -1 points",
    ),
    "a gain that is none": (["--turns", "0.1", "--gain", "0"], "a gain of 0 points"),
    "gains that are no numbers": (["--turns", "0.1", "--gain", "1,x"], "--gain '1,x'"),
    "a power that is none": (["--turns", "0.1", "--power", "80"], "power 80"),
    "a level that is none": (["--turns", "0.1", "--level", "5"], "level 5"),
    "no rows": (["--turns", "0.1", "--rows", "0"], "--rows"),
    "more rows than there are": (["--turns", "0.1", "--rows", "99999999999"], "make no test"),
    "no draws": (["--turns", "0.1", "--draws", "0"], "--draws"),
}


@pytest.mark.parametrize(("arguments", "words"), BAD.values(), ids=BAD)
def test_bad_input_is_one_line(eckart, arguments, words):
    refused(eckart("power", *arguments), words)


def test_a_search_begins_by_saying_it(eckart, model, own_task):
    line = ["search", model, *own_task, "--layer", "1", "--rates", "0.5,0.9", "--out", "run"]
    ended = eckart(*line)
    assert ended.status == 0, ended.err
    said = " ".join(ended.err.split())
    assert "what can be seen: with" in said
    assert f"{SEEN}1:mlp:0.9" in said
    assert "what can be seen: with" in " ".join(eckart(*line).err.split())


def test_a_search_that_is_not_run_costs_and_keeps_nothing(eckart, model, own_task, tmp_path):
    line = ["search", model, *own_task, "--rates", "0.5,0.9", "--out", "run"]
    ended = eckart(*line, "--dry-run")
    assert ended.status == 0, ended.err
    assert "up to 5 trials, 0 of them kept already" in ended.out
    assert SEEN in " ".join(ended.out.split())
    found = json.loads(eckart(*line, "--dry-run", "--json").out)
    assert found["trials"] == 5
    assert found["power"][0]["measured"]["looked"] > 0
    assert list(tmp_path.iterdir()) == []
    refused(eckart(*line, "--layer", "99", "--dry-run"), "99")
    assert eckart(*line).status == 0
    kept = len(read_run("run").trials)
    assert f"5 trials, {kept} of them kept" in eckart(*line, "--dry-run").out


@pytest.mark.parametrize(
    "more",
    [["--seeds", "0..2"], ["--race"], ["--strategy", "greedy", "--places", "1"], ["--layer", "1"]],
)
def test_every_search_can_be_foreseen(eckart, model, own_task, tmp_path, more):
    ended = eckart("search", model, *own_task, "--rates", "0.5,0.9", *more, "--dry-run", "--json")
    assert ended.status == 0, ended.err
    found = json.loads(ended.out)
    assert found["power"][0]["draws"] == (3 if "--seeds" in more else 1)
    assert list(tmp_path.iterdir()) == []


def test_a_sweep_says_it_of_each_question(eckart, model, own_task):
    line = ["sweep", model, *own_task[:-2], "--shots", "0,2", "--seeds", "0,1", "--layers", "0,1"]
    line += ["--parts", "mlp", "--rates", "0.9", "--out", "run"]
    ended = eckart(*line)
    assert ended.status == 0, ended.err
    said = [part.split(";")[0] for part in " ".join(ended.err.split()).split(": with ")[1:]]
    assert len(said) == 2
    assert "one draw" in said[0]
    assert "2 draws" in said[1]
    assert all(f"{SEEN}1:mlp:0.9" in each for each in said)
    assert "at level 0.025" in ended.err.replace("\n", " ")
    found = json.loads(eckart(*line, "--dry-run", "--json").out)
    assert [each["draws"] for each in found["power"]] == [1, 2]
