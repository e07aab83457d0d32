"""The verb `functions trajectory`: what it prints, its document, and what it refuses."""

import json

import pytest
import torch

from eckart.paper.functions.cells import clip_cells, correlations
from eckart.paper.functions.models import InContextModel, LinearAttentionModel
from eckart.paper.functions.readings import Noise, draw_cases, load_linear, read
from eckart.statistics.multiplicity import holm


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A linear model's folder."""
    out = tmp_path_factory.mktemp("linear")
    torch.manual_seed(0)
    LinearAttentionModel.of_size(dimension=3, points=7, layers=2).save_pretrained(out)
    return out


def test_the_verb_prints_what_was_read(eckart, folder, tmp_path):
    options = ["--prompts", 20, "--examples", 6, "--shots", 3, "--rates", "0.5,0.75", "--seed", 1]
    ended = eckart(
        "functions", "trajectory", folder, *options, "--edit", "1:attn:0.5", "--plot", "figure.png"
    )
    assert ended.status == 0, ended.err
    for word in (
        "Theorem 1 against",
        "in brackets: 95% intervals of the mean over the prompts",
        "|Delta W_t|, t = 2",
        "norm half, nats, t = 1",
        "unclipped, noisy",
        "1:k:0.75",
        "exact: gap",
        "its p (Holm)",
        "adjusted for 16 cells",
        "of this one model",
        "no interval",
    ):
        assert word in ended.out
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")
    document = json.loads(eckart("functions", "trajectory", folder, *options, "--json").out)
    live, cases, noise = load_linear(folder), draw_cases("linear", 3, 6, 20, seed=1), Noise(3)
    assert document["residual"] < 1e-10
    assert document["readings"]["unclipped"] == read(live, cases, noise).to_json()
    assert set(document["readings"]) == {"unclipped", "unclipped, noisy"}
    cells = clip_cells(live, cases, [0.5, 0.75], noise)
    adjusted = [cell.pop("adjusted_p") for cell in document["cells"]]
    assert document["cells"] == [cell.to_json() for cell in cells]
    assert adjusted == holm([cell.loss.p_value for cell in cells]).tolist()
    assert document["correlations"]["exact"] == correlations(cells)


def test_the_function_and_the_examples_are_the_models_own(eckart, tmp_path):
    """Without options: the class that it was trained on, and all examples that it reads."""
    torch.manual_seed(0)
    model = LinearAttentionModel.of_size(dimension=3, points=6, layers=1)
    model.config.function = "relu-network"
    model.save_pretrained(tmp_path / "relu")
    document = json.loads(eckart("functions", "trajectory", "relu", "--prompts", 20, "--json").out)
    assert [document[name] for name in ("function", "examples", "shots")] == ["relu-network", 5, 2]
    cases = draw_cases("relu-network", 3, 5, 20)
    assert document["readings"]["unclipped"] == read(model.eval(), cases, Noise(2)).to_json()


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (["--function", "cubic"], "no function class 'cubic'"),
        (["--floor", "0"], "floor 0"),
        (["--shots", "11"], "11 shots of 6 demonstrations"),
        (["--shots", "6"], "6 shots of 6 demonstrations leave C_t no noise"),
        (
            ["--examples", "7"],
            "the model reads 6 examples and the point after them, and these are 7",
        ),
        (["--rates", "0"], "no rate above 0"),
        (["--edit", "9:attn:0.5"], "no layer 9"),
        (["--edit", "0:mlp:0.5"], "has no 'mlp'"),
        (["--rates", "0.5,1.5"], "clipping rate 1.5"),
        (["--plot", "figure.jpg"], "ends in none of"),
        (["--prompts", "1"], "--prompts"),
    ],
)
def test_the_verb_refuses_in_one_line(eckart, folder, tmp_path, wrong, says):
    ended = eckart("functions", "trajectory", folder, *wrong)
    assert ended.status == 2, ended.err
    assert says in ended.err
    assert ended.err.count("error: ") == 1
    assert ended.out == ""
    assert list(tmp_path.iterdir()) == []


def test_the_verb_refuses_a_gpt2_model(eckart, tmp_path):
    InContextModel.of_size(3, 7, 1, 8, 2).save_pretrained(tmp_path / "gpt2")
    ended = eckart("functions", "trajectory", "gpt2")
    assert ended.status == 2
    assert "of type 'gpt2': Theorem 1 is exact for linear attention alone" in ended.err
