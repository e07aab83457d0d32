"""What the verbs answer on the models that come with the package: `--json` documents, and the texts
for people."""

import json
from pathlib import Path

import pytest

from frozen.door import MODEL, command
from frozen.kept import frozen, steady, wording
from frozen.made import set_desk

TASK = ["--task", "short.yaml", "--dtype", "float32"]
EDIT = ["--edit", "1:mlp:0.9"]
RACE = ["--task", "long.yaml", "--dtype", "float32", "--shots", "2", "--layer", "0", "--race"]
VERBS: dict[str, list[object]] = {
    "evaluate": ["evaluate", MODEL, *TASK, "--shots", "2", *EDIT, "--predictions", "rows.jsonl"],
    "evaluate-calibrated": [
        "evaluate",
        MODEL,
        *TASK,
        "--shots",
        "1",
        "--split",
        "test",
        "--scoring",
        "batch",
    ],
    "search": ["search", MODEL, *TASK, "--shots", "0", "--rates", "0.5,0.9", "--out"],
    "search-attn": [
        "search",
        MODEL,
        *TASK,
        "--part",
        "attn",
        "--rates",
        "0.9",
        "--top-k",
        "1",
        "--out",
        "run",
    ],
    "search-race": ["search", MODEL, *RACE, "--rates", "0.5,0.99", "--out"],
    "sweep": ["sweep", "study.yaml", "--out"],
    "spectrum": ["spectrum", MODEL, "--layers", "0,-1", "--out"],
    "inspect": ["inspect", MODEL],
    "theory-check": ["theory", "check", "--instances", "20"],
    "theory-probe": ["theory", "probe", MODEL, *TASK, "--shots", "2", "--prompts", "2", *EDIT],
    "functions-evaluate": ["functions", "evaluate", "linear-5", "--prompts", "16"],
    "functions-clip": [
        *["functions", "clip", "linear-5", "--rows", "16", "--seeds", "0", "--layers", "0,-1"],
        *["--rates", "0.5,0.9", "--out"],
    ],
}


@pytest.fixture(scope="module")
def shelf(tmp_path_factory) -> Path:
    """A folder for all runs of this file: the texts are said of what the documents were made of."""
    folder = tmp_path_factory.mktemp("outputs")
    set_desk(folder)
    return folder


@pytest.fixture
def verb(shelf, monkeypatch):
    """Run a verb, a run of that name being its folder, with no other beside it."""
    monkeypatch.chdir(shelf)
    monkeypatch.setenv("COLUMNS", "160")

    def run(name: str, *more: str) -> str:
        line = VERBS[name]
        ended = command(*line, *([f"{name}/{name}"] if line[-1] == "--out" else []), *more)
        assert ended.status == 0, ended.err
        return ended.out

    return run


@pytest.mark.parametrize("name", VERBS)
def test_documents(verb, shelf, name):
    found = {"document": steady(json.loads(verb(name, "--json")), shelf)}
    if "--predictions" in VERBS[name]:
        rows = (shelf / "rows.jsonl").read_text(encoding="utf-8")
        found["rows"] = [json.loads(line) for line in rows.splitlines()]
    run = shelf / name / name
    found["files"] = sorted(
        str(path.relative_to(run)) for path in run.glob("**/*") if path.is_file()
    )
    frozen(f"documents/{name}", found)


@pytest.mark.parametrize(
    "name", ["evaluate", "search", "search-race", "sweep", "spectrum", "inspect"]
)
def test_texts(verb, shelf, name):
    """Renew these wherever a wording was changed on purpose; the numbers are frozen above."""
    frozen(f"texts/{name}", wording(verb(name), shelf))
