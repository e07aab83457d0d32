"""The README and the pages are true: every command in them runs as it is written, on a small
model."""

import re
import shlex
from pathlib import Path

import gguf_files
import pytest
import typer.main

from eckart import Task, export, search
from eckart.cli.app import app
from eckart.cli.console import run
from eckart.exports.card import USE

ROOT = Path(__file__).parents[1]
DOCS = sorted((ROOT / "docs").rglob("*.md"))
IN_ORDER = [
    ROOT / "README.md",
    ROOT / "docs" / "tutorial.md",
    *sorted((ROOT / "docs" / "howto").glob("*.md")),
]
"""Pages whose commands go on from each other."""
ONE_BY_ONE = [
    ROOT / "docs" / page
    for page in (
        *("reports.md", "tasks.md", "spectrum.md", "gguf.md", "deployment.md"),
        *("theory.md", "functions.md", "predict.md", "search.md", "explore.md"),
    )
]


def blocks(page: Path, language: str) -> list[str]:
    """Return a page's listings in a language, also those inside a list, at the left margin."""
    found = re.findall(
        rf"^( *)```{language}\n(.*?)^ *```", page.read_text(encoding="utf-8"), re.DOTALL | re.M
    )
    return [re.sub(rf"^{indent}", "", block, flags=re.M) for indent, block in found]


def commands(page: Path) -> list[str]:
    lines = [line for block in blocks(page, "sh") for line in block.splitlines()]
    return [line for line in lines if line.startswith("eckart ")]


def said_in_passing() -> list[str]:
    """Return the README's commands that stand in its sentences."""
    return re.findall(r"`(eckart [^`]+)`", (ROOT / "README.md").read_text(encoding="utf-8"))


def in_helps() -> list[str]:
    """Return the examples below the verbs' helps."""
    verbs = typer.main.get_command(app).commands.values()
    lines = [line for verb in verbs for line in (verb.epilog or "").splitlines()]
    return [line for line in lines if line.startswith("eckart ")]


@pytest.fixture
def desk(table, tmp_path, monkeypatch):
    """A folder with what the pages speak of: a table of reviews, new rows, the task files, a GGUF
    file, and the package's own files as they lie in a clone."""
    text = table.read_text().replace(",good,", ",1,").replace(",bad,", ",0,")
    (tmp_path / "reviews.csv").write_text(text)
    new = [line.split(",")[0] for line in text.splitlines()[:6]]
    (tmp_path / "new.csv").write_text("\n".join(new) + "\n")
    for page in (*IN_ORDER[1:], ROOT / "docs" / "tasks.md"):
        for block in blocks(page, "yaml"):
            if name := re.match("name: (\\w+)\n", block):
                (tmp_path / f"{name[1]}.yaml").write_text(block)
    gguf_files.write(tmp_path / "MODEL.gguf", kind="Q8_0")
    (tmp_path / "src").symlink_to(ROOT / "src")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def small(command: str, model: Path, request) -> list[str]:
    """Return a command's arguments, on a small model, draws and rows."""
    arguments = shlex.split(command, comments=True)[1:]
    places = {"MODEL": str(model), "RUN": "runs/mine", "FOLDER": "clipped", "DIR": "written"}
    arguments = [places.get(argument, argument) for argument in arguments]
    arguments = [re.sub(r"^0\.\.[24]$", "0..1", a) for a in arguments]
    if "sst2" in arguments:
        rows = request.getfixturevalue("some_rows") / "sst2"
        arguments += ["--data", str(rows), "--split-sizes", "8,8"]
        arguments += [] if "--shots" in arguments else ["--shots", "2"]
    return arguments


def carried_out(arguments: list[str]) -> int:
    return run(lambda: app(arguments, standalone_mode=False))


@pytest.mark.parametrize("page", IN_ORDER, ids=lambda page: page.stem)
def test_the_commands_of_a_page_run_in_their_order(page, desk, model, request):
    for command in commands(page):
        assert carried_out(small(command, model, request)) == 0, command


@pytest.mark.parametrize(
    "command",
    dict.fromkeys(
        [*(c for page in ONE_BY_ONE for c in commands(page)), *said_in_passing(), *in_helps()]
    ),
)
def test_every_command_runs(command, desk, model, request, monkeypatch):
    arguments = small(command, model, request)
    if arguments[0] == "explore":  # tests/cli/test_explore.py serves pages
        monkeypatch.setattr("uvicorn.Server.run", lambda server, sockets: None)
    if arguments[0] == "functions":
        arguments = few_functions(arguments, desk)
    if {"clipped", "clipped/eckart.json"} & {*arguments[:3]}:
        own = Task.load("verdicts.yaml", shots=2)
        export(model, "clipped", task=own, edits=["1:mlp:0.5"])
    if "runs/mine" in arguments[:2]:
        own = Task.load("verdicts.yaml", shots=2)
        found = search(model, own, layer=1, rates=[0.5], out="runs/mine")
        arguments += ["--unclipped"] if arguments[0] == "export" and not found.edits else []
    assert carried_out(arguments) == 0


def test_what_is_not_run_says_so():
    """The tests run a listing in `sh`; the site says of one in `console` that they do not."""
    run_here = {*IN_ORDER, *ONE_BY_ONE}
    for page in (*DOCS, ROOT / "README.md", ROOT / "CONTRIBUTING.md"):
        lines = [line for block in blocks(page, "sh") for line in block.splitlines() if line]
        known = "eckart |#|make " if page in run_here else "make "
        assert [line for line in lines if not re.match(known, line)] == [], page.name
        assert not re.search(r"^```(text)?\n(\$ )?(eckart|python|pip) ", page.read_text(), re.M)


def few_functions(arguments: list[str], desk: Path) -> list[str]:
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


def test_every_key_of_a_study_stands_on_its_page():
    from eckart.sweeps.grid import Sweep

    page = (ROOT / "docs" / "studies.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`([a-z_]+)`", page)) | set(re.findall(r"^([a-z_]+):", page, re.M))
    named |= set(re.findall(r"`([a-z_]+): ", page))
    assert set(Sweep.model_fields) <= named


@pytest.mark.parametrize(
    "page", [*DOCS, ROOT / "README.md", ROOT / "CONTRIBUTING.md"], ids=lambda page: page.name
)
def test_links_lead_somewhere(page):
    made = {"contributing.md", "reference/commands.md"}
    for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
        assert target in made or (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_python_of_the_pages_runs(desk, model, monkeypatch):
    import eckart
    from eckart.weights.models import load_model

    (code,) = blocks(ROOT / "docs" / "howto" / "python.md", "python")
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


@pytest.mark.parametrize("page", [*DOCS, ROOT / "CONTRIBUTING.md"])
def test_every_file_that_a_page_names_is_there(page):
    if page.name == "log.md":  # of what was tried, as it was called then
        return
    folders = ("src", "tests", "benchmarks", "scripts")
    files = {str(path.relative_to(ROOT)) for of in folders for path in (ROOT / of).rglob("*.py")}
    named = set(re.findall(r"`([\w/.-]+\.py)`", page.read_text(encoding="utf-8"))) - {USE}
    lost = {name for name in named if not any(f"/{file}".endswith(f"/{name}") for file in files)}
    assert lost == set()
