"""`~` in every path of every verb, and outputs that would land on an input of any kind."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest
import typer
import yaml

from eckart.cli.flags import finish_verbs

OWN = [
    "--text-column",
    "review",
    "--label-column",
    "verdict",
    "--shots",
    "2",
    "--split-sizes",
    "10,10",
]


@pytest.fixture
def here(tmp_path, model, table):
    """A folder with data, a task file, a study file and a model of one's own."""
    (tmp_path / "d").mkdir()
    lines = table.read_text(encoding="utf-8").splitlines(keepends=True)
    for name, part in {"train": lines[1:31], "test": lines[31:]}.items():
        (tmp_path / "d" / f"{name}.csv").write_text("".join([lines[0], *part]), encoding="utf-8")
    (tmp_path / "alone").mkdir()
    shutil.copy(table, tmp_path / "alone" / "reviews.csv")
    shutil.copy(table, tmp_path / "reviews.csv")
    shutil.copytree(model, tmp_path / "m")
    task = {"data": "reviews.csv", "text": "review", "label": "verdict", "shots": 2}
    (tmp_path / "task.yaml").write_text(yaml.safe_dump(task))
    study = {
        "models": ["m"],
        "tasks": ["task.yaml"],
        "layers": [0],
        "parts": ["mlp"],
        "rates": [0.5],
        "test": "none",
    }
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study))
    return tmp_path


def contents(folder):
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


FILE, FOLDER = ["--task", "task.yaml", "--split-sizes", "10,10"], ["--data", "d", *OWN]
EVALUATE = ["evaluate", "m", *FILE, "--predictions"]
OVER = {
    "a task file's data": [*EVALUATE, "reviews.csv"],
    "a task file": [*EVALUATE, "task.yaml"],
    "a model's file": [*EVALUATE, "m/config.json"],
    "a folder's file": ["evaluate", "m", *FOLDER, "--predictions", "d/test.csv"],
    "a split that would be read": ["evaluate", "m", *FOLDER, "--predictions", "d/validation.jsonl"],
    "a split by a word of its name": ["evaluate", "m", *FOLDER, "--predictions", "d/my.dev.csv.gz"],
    "a second file beside the only one": [
        "evaluate",
        "m",
        "--data",
        "alone",
        *OWN,
        "--predictions",
        "alone/new.jsonl",
    ],
    "a study, by its run": ["sweep", "study.yaml", "--out", "."],
    "a study's data": ["sweep", "study.yaml", "--out", "link"],
    "a result among the data": ["search", "m", "--data", "alone", *OWN, "--out", "alone"],
    "a checkpoint over the run": ["search", "m", *FOLDER, "--out", "r", "--save", "r"],
    "a figure over a model's file": ["spectrum", "m", "--plot", "link.png"],
}


@pytest.mark.parametrize("what", OVER)
def test_no_output_lands_on_an_input(eckart, here, what):
    (here / "link.png").symlink_to(here / "m" / "model.safetensors")
    (here / "link").mkdir()
    (here / "link" / "result.json").symlink_to(here / "reviews.csv")
    before = contents(here)
    ended = eckart(*OVER[what])
    assert ended.status == 2, ended.err
    assert "name another" in ended.err
    assert ended.err.count("\n") == 1
    assert contents(here) == before


@pytest.mark.parametrize("where", ["d/predictions.jsonl", "predictions.csv", "m/predictions.jsonl"])
def test_predictions_beside_the_data_are_written_and_written_again(eckart, here, where):
    command = ["evaluate", "m", *FOLDER, "--predictions", where, "--dtype", "float32", "--json"]
    first = eckart(*command)
    kept = (here / where).read_bytes()
    again = eckart(*command)
    assert (first.status, again.status, (here / where).read_bytes()) == (0, 0, kept), (
        first.err + again.err
    )


@pytest.mark.parametrize("out", ["run.sqlite", "study.yaml", "result.json"])
def test_a_report_does_not_overwrite_its_run(eckart, here, out):
    assert eckart("sweep", "study.yaml", "--out", "r").status == 0
    before = contents(here / "r")
    ended = eckart("report", "r", "--out", f"r/{out}")
    assert ended.status == 2
    assert "is the run itself" in ended.err
    assert contents(here / "r") == before
    again = eckart("sweep", "r/study.yaml", "--out", "r")  # a run goes on from its own study
    assert again.status == 0, again.err


def test_a_search_that_is_asked_twice_ends_the_same(eckart, here):
    command = [
        "search",
        "m",
        *FOLDER,
        "--rates",
        "0.5",
        "--layer",
        "1",
        "--dtype",
        "float32",
        "--out",
        "r",
        "--json",
    ]
    first, again = eckart(*command), eckart(*command)
    assert (first.status, again.status) == (0, 0), again.err
    assert json.loads(first.out) == json.loads(again.out)


@pytest.mark.parametrize(
    ("command", "made"),
    [
        (
            ["search", "~/m", "--task=~/task.yaml", "--layer=0", "--rates=0.5", "--out=~/r"],
            "r/run.sqlite",
        ),
        (["evaluate", "~/m", "--data=~/d", *OWN, "--predictions=~/p.jsonl"], "p.jsonl"),
        (["spectrum", "~/m", "--part=q", "--plot=~/f.png", "--out=~/s"], "f.png"),
        (["sweep", "~/study.yaml", "--out=~/r"], "r/study.yaml"),
        (
            [
                "sweep",
                "--model=~/m",
                "--tasks=~/task.yaml",
                "--layers=0",
                "--rates=0.5",
                "--out=~/r",
            ],
            "r/run.sqlite",
        ),
    ],
)
def test_a_tilde_is_the_home_folder(eckart, here, tmp_path, monkeypatch, command, made):
    monkeypatch.setenv("HOME", str(here))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    ended = eckart(*command)
    assert ended.status == 0, ended.err
    assert (here / made).exists()
    assert not (tmp_path / "elsewhere" / "~").exists()
    if "--out=~/r" in command:
        assert eckart("report", "~/r", "--out=~/report.html", "--figures=~/figures").status == 0
        assert (here / "report.html").exists()
        assert (here / "figures").is_dir()


def test_paths_of_a_verb_that_is_yet_to_come_are_at_home_too(monkeypatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    app, seen = typer.Typer(), []

    @app.command()
    def verb(anything: Path, several: list[Path], text: str = "~/x") -> None:
        seen.extend([anything, *several, text])

    finish_verbs(app)
    app(["~/a", "~/b", "c"], standalone_mode=False)
    assert seen == [Path("/home/somebody/a"), Path("/home/somebody/b"), Path("c"), "~/x"]
