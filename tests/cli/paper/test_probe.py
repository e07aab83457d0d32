"""The verb `theory probe`: its tables, its document, its figure, and what it refuses."""

import json
import math

import pytest
from families import save_family

from eckart.paper.probe.reading import OF_HEADS, QUANTITIES
from eckart.paper.probe.views import draw_probe


@pytest.fixture
def probed(eckart, model, own_task, monkeypatch):
    """Probe the tiny model on the tiny task, and show what was found wide enough for one table."""
    monkeypatch.setenv("COLUMNS", "240")
    return lambda *options, of=model: eckart(
        "theory", "probe", of, *own_task, "--prompts", "2", *options
    )


def test_the_table_of_a_model(probed):
    ended = probed()
    assert ended.status == 0, ended.err
    for word in (
        "4 shots, 2 validation prompts, float32",
        "noise floor 0.001",
        "unpruned",
        *QUANTITIES.values(),
    ):
        assert word in ended.out
    assert "clipped" not in ended.out


def test_the_tables_of_an_edit_and_remark_5(probed):
    ended = probed("--edit", "1:mlp:0.9")
    assert ended.status == 0, ended.err
    assert "clipped: 1:mlp:0.9" in ended.out
    assert "Remark 5: layers 0 to 1, below what was clipped, moved by 0 at most" in ended.out
    changes = ended.out.split("clipped less unpruned")[1].splitlines()
    rows = [line.split() for line in changes if line[:8].strip().isdigit()]
    assert [row[0] for row in rows] == ["0", "1", "2"]
    assert all(cell == "0" for row in rows[:2] for cell in row[2:])
    assert rows[2][2] != "0"


@pytest.mark.parametrize(
    ("edit", "says"),
    [("0:q:0.5", "no layer is below the clipped one"), ("-2:v:0.5", "layer 0, below")],
)
def test_remark_5_in_words(probed, edit, says):
    assert f"Remark 5: {says}" in probed("--edit", edit).out


def test_the_document(probed):
    ended = probed(
        "--edit", "1:v:0.5", "--edit", "2:q:0.5", "--json", "--floor", "0.1", "--seed", "1"
    )
    document = json.loads(ended.out)
    assert ended.status == 0
    assert (document["floor"], document["shots"], document["prompts"]) == (0.1, 4, 2)
    assert document["clipped"]["edits"] == ["1:v:0.5", "2:q:0.5"]
    assert document["residual"] < 1e-5
    assert document["moved_below"] == 0
    layer, clipped = document["layers"][2], document["clipped"]["layers"][2]
    assert set(layer["heads"][0]) == {"head", *OF_HEADS}
    assert len(layer["heads"]) == 4
    assert document["change"]["log_norm"][2] == pytest.approx(
        clipped["log_norm"] - layer["log_norm"]
    )


def test_a_soft_capped_model_has_dashes_for_what_is_not_defined(probed, tmp_path):
    capped = save_family("gemma2", tmp_path / "gemma2")
    ended = probed(of=capped)
    assert ended.status == 0, ended.err
    row = next(line.split() for line in ended.out.splitlines() if line[:8].strip() == "1")
    assert [row[i] for i in (4, 5, 6)] == ["-"] * 3
    document = json.loads(probed("--json", "--edit", "1:mlp:0.5", of=capped).out)
    assert document["change"]["log_norm"] == [None] * 3
    figure = probed("--plot", "capped.png", of=capped)
    assert figure.status == 0, figure.err


def test_the_figure(probed, tmp_path):
    ended = probed("--edit", "1:mlp:0.9", "--plot", "probe.png")
    assert ended.status == 0, ended.err
    assert "figure: probe.png" in ended.err
    assert (tmp_path / "probe.png").read_bytes().startswith(b"\x89PNG")


def test_what_the_figure_draws(model, table):
    from eckart.paper.probe import Prober
    from eckart.records import Edit
    from eckart.tasks import Task
    from eckart.weights.models import load_model

    task = Task.load(data=table, text_column="review", label_column="verdict", shots=2)
    prober = Prober(load_model(model, dtype="float32", device="cpu"), task, prompts=2)
    before, after = prober(), prober(Edit(1, "v", 0.5))
    figure = draw_probe(before.compare(after))
    assert figure.get_suptitle() == "tiny-llama, reviews, 2 shots, 2 prompts"
    heads, path = figure.axes
    assert [line.get_label() for line in heads.lines if line.get_linestyle() != "None"] == [
        "unpruned, mean",
        "1:v:0.5, mean",
    ]
    clipped = [line for line in heads.lines if line.get_marker() == "s"]
    assert clipped[1].get_ydata()[2] == pytest.approx(after.layers[1].log_norm[:, 2].mean())
    paths = [line.get_ydata() for line in path.lines[:4]]
    assert paths[0][2] == pytest.approx(before.layers[2].path_norm.mean())
    assert not math.isclose(paths[1][1], paths[3][1])


WRONG = {
    "an edit that is none": (["--edit", "1:mlp"], "edit '1:mlp' is not LAYER:PART:RATE"),
    "no such layer": (["--edit", "9:mlp:0.5"], "no layer 9"),
    "no demonstrations": (["--shots", "0"], "shows no demonstrations"),
    "no prompts": (["--prompts", "0"], "--prompts"),
    "no floor": (["--floor", "0"], "floor 0: both are to be positive"),
    "no such split": (["--split", "train"], "no split 'train'"),
    "no such dtype": (["--dtype", "float8"], "no dtype 'float8'"),
    "a figure of no format": (["--plot", "probe.gif"], "figure 'probe.gif' ends in none of"),
    "a figure in no folder": (["--plot", "none/probe.png"], "there is no folder 'none'"),
}


@pytest.mark.parametrize(("options", "says"), WRONG.values(), ids=WRONG)
def test_wrong_options_are_refused_in_one_line(probed, tmp_path, options, says):
    ended = probed(*options)
    errors = [line for line in ended.err.splitlines() if line.startswith("error: ")]
    assert ended.status == 2
    assert len(errors) == 1
    assert says in errors[0]
    assert ended.out == ""
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_cannot_be_recorded_is_refused_in_one_line(probed, tmp_path):
    ended = probed(of=save_family("bloom", tmp_path / "bloom"))
    assert ended.status == 2
    assert "a 'bloom' model computes the attention of layer 0 by itself" in ended.err
    assert ended.err.count("error: ") == 1
