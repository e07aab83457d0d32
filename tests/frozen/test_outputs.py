"""What the verbs answer on the models that come with the package: `--json` documents, and the texts for people."""

import json

import pytest

from frozen.door import MODEL, command
from frozen.kept import frozen, steady, wording

TASK = ["--task", "short.yaml", "--dtype", "float32"]
EDIT = ["--edit", "1:mlp:0.9"]
RACE = ["--task", "long.yaml", "--dtype", "float32", "--shots", "2", "--layer", "0", "--race"]
VERBS = {
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
    "search": ["search", MODEL, *TASK, "--shots", "0", "--rates", "0.5,0.9", "--out", "run"],
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
    "search-race": ["search", MODEL, *RACE, "--rates", "0.5,0.99", "--out", "run"],
    "sweep": ["sweep", "study.yaml", "--out", "run"],
    "spectrum": ["spectrum", MODEL, "--layers", "0,-1", "--out", "run"],
    "inspect": ["inspect", MODEL],
    "theory-check": ["theory", "check", "--instances", "20"],
    "theory-probe": ["theory", "probe", MODEL, *TASK, "--shots", "2", "--prompts", "2", *EDIT],
    "functions-evaluate": ["functions", "evaluate", "linear-5", "--prompts", "16"],
    "functions-clip": [
        *["functions", "clip", "linear-5", "--rows", "16", "--seeds", "0", "--layers", "0,-1"],
        *["--rates", "0.5,0.9", "--out", "run"],
    ],
}


@pytest.mark.parametrize("name", VERBS)
def test_documents(desk, name):
    ended = command(*VERBS[name], "--json")
    assert ended.status == 0, ended.err
    found = {"document": steady(json.loads(ended.out), desk)}
    rows = desk / "rows.jsonl"
    if rows.exists():
        found["rows"] = [json.loads(line) for line in rows.read_text(encoding="utf-8").splitlines()]
    found["files"] = sorted(str(p.relative_to(desk)) for p in desk.glob("run/**/*") if p.is_file())
    frozen(f"documents/{name}", found)


@pytest.mark.parametrize("name", ["evaluate", "search", "search-race", "sweep", "spectrum", "inspect"])
def test_texts(desk, name):
    """Renew these wherever a wording was changed on purpose; the numbers are frozen above."""
    ended = command(*VERBS[name])
    assert ended.status == 0, ended.err
    frozen(f"texts/{name}", wording(ended.out, desk))
