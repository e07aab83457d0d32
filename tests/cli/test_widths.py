"""What every verb prints fits a terminal: at any width no number is cut and no sentence is broken
inside a word."""

import re
from types import SimpleNamespace

import pytest
import torch
from samples import score

from eckart.cli.results import saved_sentences
from eckart.paper.functions.models import LinearAttentionModel
from eckart.reports.terminal import as_text
from eckart.tasks import Task


def numbers(text: str) -> set[str]:
    return set(re.findall(r"[-+]?\d[\d.,:]*(?:e[-+]?\d+)?", text))


@pytest.fixture
def printed(eckart, monkeypatch):
    """Run a verb, and return what it showed and said, before a terminal gave it its form."""
    shown = []
    monkeypatch.setattr("eckart.cli.console.print_on", lambda console, what: shown.append(what))

    def command(*arguments):
        ended = eckart(*arguments)
        assert ended.status == 0, ended.err
        return shown

    return command


@pytest.fixture(scope="session")
def linear(tmp_path_factory):
    """A linear model's folder."""
    out = tmp_path_factory.mktemp("linear")
    torch.manual_seed(0)
    LinearAttentionModel.of_size(dimension=3, points=7, layers=2).save_pretrained(out)
    return out


GRID = (
    "--layers",
    "0,1",
    "--rates",
    "0.5,0.9",
    "--seeds",
    "0,1",
    "--split-sizes",
    "12,12",
    "--test",
    "all",
)
TASK = "OWN"
FEW = {"split_sizes": (20, 20)}
"""Of the demo, whose numbers are looked at elsewhere."""
VERBS = {
    "inspect": ("inspect", "MODEL"),
    "spectrum": ("spectrum", "MODEL"),
    "evaluate": ("evaluate", "MODEL", TASK, "--edit", "1:attn:0.3333333333333333"),
    "search": ("search", "MODEL", TASK, "--rates", "0.5,0.99", "--save", "saved"),
    "race": ("search", "MODEL", TASK, "--race"),
    "sweep": ("sweep", "--model", "MODEL", TASK, *GRID),
    "demo": ("demo",),
    "functions evaluate": ("functions", "evaluate", "linear-5", "--prompts", "20"),
    "functions clip": (
        "functions",
        "clip",
        "linear-5",
        "--rows",
        "10",
        "--seeds",
        "0,1",
        "--rates",
        "0.5",
    ),
    "functions trajectory": (
        "functions",
        "trajectory",
        "LINEAR",
        "--prompts",
        "20",
        "--rates",
        "0.5",
    ),
    "theory check": ("theory", "check", "--instances", "10"),
    "theory probe": ("theory", "probe", "MODEL", TASK, "--edit", "1:attn:0.5", "--prompts", "2"),
    "report published": ("report", "published"),
}


@pytest.mark.filterwarnings("ignore:Ill-conditioned matrix")
@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_fits_every_width(verb, printed, model, own_task, linear, monkeypatch):
    load = Task.load
    monkeypatch.setattr("eckart.cli.demo.Task.load", lambda **said: load(**said, **FEW))
    names = {"MODEL": [model], TASK: own_task, "LINEAR": [linear]}
    shown = printed(*(word for said in VERBS[verb] for word in names.get(said, [said])))
    assert shown
    for what in shown:
        there = numbers(as_text(what, 10_000))
        for width in (60, 80, 120):
            said = as_text(what, width)
            assert "…" not in said
            assert there <= numbers(said)
            assert [
                line for line in said.splitlines() if len(line) > width and "/" not in line
            ] == []


@pytest.mark.parametrize("changed", [0, 2, 15])
def test_what_rounding_turned_is_told_apart_from_what_clipping_turned(changed):
    study = SimpleNamespace(
        turned=7,
        settings={"dtype": "bfloat16"},
        clipped=SimpleNamespace(trials=(None,)),
    )
    said = saved_sentences(
        SimpleNamespace(
            path="out",
            dtype="float16",
            score=score(),
            changed=changed,
            largest_change=0.25,
            before=False,
        ),
        study,
    )
    clipping = "clipping turned 7 of 2 (unpruned against clipped, both in bfloat16)"
    assert clipping in said
    assert (
        f"apart from that, rounding to float16 turned {changed} of 2 (as scored against as stored"
        in said
    )
