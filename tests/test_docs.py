"""The README and the pages are true: every command in them runs as it is written, on a small
model."""

import re
import shlex
import shutil
from pathlib import Path

import gguf_files
import pytest

from eckart import Task, export, search
from eckart.cli.app import app
from eckart.cli.console import run
from eckart.exports.card import USE

ROOT = Path(__file__).parents[1]
PAGES = [
    ROOT / "README.md",
    ROOT / "docs" / "reports.md",
    ROOT / "docs" / "tasks.md",
    ROOT / "docs" / "spectrum.md",
    ROOT / "docs" / "gguf.md",
    ROOT / "docs" / "deployment.md",
    ROOT / "docs" / "theory.md",
    ROOT / "docs" / "functions.md",
]


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(
        rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL
    )


def commands() -> list[str]:
    lines = [line for page in PAGES for block in blocks(page, "sh") for line in block.splitlines()]
    return [line for line in lines if line.startswith("eckart ")]


@pytest.fixture
def desk(table, tmp_path, monkeypatch):
    """A folder with what the pages speak of: a table of reviews, the task file, a GGUF file."""
    shutil.copy(table, tmp_path / "reviews.csv")
    content = (
        (tmp_path / "reviews.csv").read_text().replace(",good,", ",1,").replace(",bad,", ",0,")
    )
    (tmp_path / "reviews.csv").write_text(content)
    (tmp_path / "verdicts.yaml").write_text(blocks(ROOT / "README.md", "yaml")[0])
    gguf_files.write(tmp_path / "MODEL.gguf", kind="Q8_0")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("command", commands())
def test_every_command_runs(command, desk, model, request, monkeypatch):
    arguments = shlex.split(command, comments=True)[1:]
    arguments = [str(model) if a in ("MODEL", "EleutherAI/gpt-j-6b") else a for a in arguments]
    arguments = [a.replace("26:", "1:").replace("0..4", "0..1") for a in arguments]
    if "sst2" in arguments:
        arguments += [
            "--data",
            str(request.getfixturevalue("some_rows") / "sst2"),
            "--split-sizes",
            "20,20",
        ]
        arguments += [] if "--shots" in arguments else ["--shots", "2"]
    if arguments[0] == "functions":
        arguments = small(arguments, desk)
    if arguments[0] == "explore":  # tests/cli/test_explore.py serves pages
        monkeypatch.setattr("uvicorn.Server.run", lambda server, sockets: None)
    if arguments[0] == "apply":
        export(model, "clipped", edits=["1:mlp:0.5"])
    if arguments[:2] == ["export", "runs/mine"]:
        own = Task.load(data="reviews.csv", text_column="review", label_column="verdict", shots=2)
        search(model, own, layer=1, rates=[0.5], out="runs/mine")
    assert run(lambda: app(arguments, standalone_mode=False)) == 0


def small(arguments: list[str], desk: Path) -> list[str]:
    """Return a verb of `functions` with little to do, on a training such as the pages' own commands
    leave behind."""
    from eckart.paper.functions.loading import shipped_models
    from eckart.paper.functions.training import Training, train

    if arguments[1] == "train":
        return [
            *arguments,
            "--steps",
            "4",
            "--batch",
            "2",
            "--checkpoints",
            "0,2",
            "--curriculum",
            "0",
        ]  # what is said last counts
    if arguments[2] not in shipped_models():
        kind = "linear" if arguments[1] == "trajectory" else "gpt2"
        train(Training(steps=2, batch=2, layers=1, model=kind), desk / arguments[2], device="cpu")
    if arguments[1] == "clip":
        return [*arguments, "--rows", "10", "--seeds", "0,1", "--rates", "0.5"]
    return [*arguments, "--prompts", "20"]


def test_there_are_commands_to_run():
    assert len(commands()) >= 8


def test_every_key_of_a_study_stands_on_its_page():
    from eckart.sweeps.grid import Sweep

    page = (ROOT / "docs" / "studies.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`([a-z_]+)`", page)) | set(re.findall(r"^([a-z_]+):", page, re.M))
    named |= set(re.findall(r"`([a-z_]+): ", page))
    assert set(Sweep.model_fields) <= named


@pytest.mark.parametrize(
    "page", sorted(ROOT.glob("docs/*.md")) + PAGES[:1], ids=lambda page: page.name
)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_python_of_the_readme_runs(desk, model, monkeypatch):
    import eckart
    from eckart.weights.models import load_model

    (code,) = blocks(ROOT / "README.md", "python")
    load = eckart.Task.load
    small = {
        "data": "reviews.csv",
        "text_column": "review",
        "label_column": "verdict",
        "labels": {"0": "bad", "1": "good"},
    }
    monkeypatch.setattr(eckart.Task, "load", lambda name, **options: load(**small, **options))
    names = {"model": load_model(model).model}
    exec(code.replace("EleutherAI/gpt-j-6b", str(model)).replace("layer=26", "layer=1"), names)
    assert (desk / "gpt-j-6b-sst2" / "config.json").is_file()
    assert (desk / "runs" / "gpt-j-sst2" / "result.json").is_file()


@pytest.mark.parametrize("page", [*sorted((ROOT / "docs").glob("*.md")), ROOT / "CONTRIBUTING.md"])
def test_every_file_that_a_page_names_is_there(page):
    if page.name == "log.md":  # of what was tried, as it was called then
        return
    folders = ("src", "tests", "benchmarks", "scripts")
    files = {str(path.relative_to(ROOT)) for of in folders for path in (ROOT / of).rglob("*.py")}
    named = set(re.findall(r"`([\w/.-]+\.py)`", page.read_text(encoding="utf-8"))) - {USE}
    lost = {name for name in named if not any(f"/{file}".endswith(f"/{name}") for file in files)}
    assert lost == set()
