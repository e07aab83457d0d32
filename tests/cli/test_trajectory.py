"""The verb `functions trajectory`: what it prints, its document, and what it refuses."""

import json

import pytest
import torch

from eckart.functions.cells import agreement, clip_cells, matrices
from eckart.functions.models import InContextModel, LinearAttentionModel
from eckart.functions.trajectory import Noise, draw_cases, load_linear, read


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
        "|Delta W_t|, t = 2",
        "norm half, nats, t = 1",
        "unclipped, noisy",
        "1:k:0.75",
        "exact: gap",
    ):
        assert word in ended.out
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")
    document = json.loads(eckart("functions", "trajectory", folder, *options, "--json").out)
    live, cases, noise = load_linear(folder), draw_cases("linear", 3, 6, 20, seed=1), Noise(3)
    assert document["residual"] < 1e-10
    assert document["readings"]["unclipped"] == read(live, cases, noise).to_json()
    assert set(document["readings"]) == {"unclipped", "unclipped, noisy"}
    cells = clip_cells(live, cases, [0.5, 0.75], noise)
    assert document["cells"] == [cell.to_json() for cell in cells]
    assert (
        document["agreement"]["exact"]["bound"]["gap"]["value"]
        == agreement(cells, matrices(cells))["bound"]["gap"].value
    )


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (["--function", "cubic"], "no function class 'cubic'"),
        (["--floor", "0"], "floor 0"),
        (["--shots", "11"], "11 shots of 10 demonstrations"),
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
