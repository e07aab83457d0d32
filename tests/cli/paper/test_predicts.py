"""The verb `theory predicts`: its tables, its document, its figure, and what it refuses."""

import json

import pytest

from eckart.sweeps.sweep import sweep


@pytest.fixture(scope="module")
def swept(model, table, tmp_path_factory):
    """A small sweep over three tasks."""
    folder = tmp_path_factory.mktemp("swept")
    columns = {
        "data": str(table),
        "text_column": "review",
        "label_column": "verdict",
        "split_sizes": "12,12",
    }
    tasks = [
        {**columns, "name": name, "split_seed": place} for place, name in enumerate(("a", "b", "c"))
    ]
    sweep(
        str(model),
        tasks,
        layers="all",
        parts="attn",
        rates=[0.5, 0.9],
        shots=2,
        seeds=0,
        test="all",
        dtype="float32",
        out=folder,
    )
    return folder


@pytest.fixture
def predicts(eckart, swept):
    return lambda *options: eckart(
        "theory", "predicts", swept, "--prompts", "1", "--floors", "0.1", *options
    )


def test_the_tables(predicts):
    ended = predicts()
    assert ended.status == 0, ended.err
    for word in (
        "18 cells of 3 models and tasks: tiny-llama a, tiny-llama b, tiny-llama c",
        "rank correlation with the gain on validation rows",
        "rank correlation with the gain on test rows",
        "as a screen for the layer: 3 choices in 3 models and tasks",
        "bound, floor 0.1",
        "Algorithm 1's layer",
        "baseline: depth",
        "of the theory's 10 screens",
    ):
        assert word in ended.out
    assert "a, 2 shots, edits probed: 6 done" in ended.err


def test_the_document_and_the_figure(predicts, tmp_path):
    ended = predicts("--json", "--plot", "predicts.png", "--draws", "1")
    document = json.loads(ended.out)
    assert ended.status == 0, ended.err
    assert (document["prompts"], document["seeds"], document["floors"]) == (1, 1, [0.1])
    assert len(document["cells"]) == 18
    assert {"predictor", "correlation", "interval", "p_holm"} <= set(document["agreements"][0])
    named = [s["screen"] for s in document["screens"] if s["theory"] and s["beats_random"]]
    assert document["screens_that_beat_random"] == named
    assert (tmp_path / "predicts.png").read_bytes().startswith(b"\x89PNG")


WRONG = {
    "no run": (["nowhere"], "'nowhere' holds no run"),
    "floors that are none": (["--floors", "small"], "--floors 'small' are not numbers above 0"),
    "a floor of nothing": (["--floors", "0,1"], "--floors '0,1' are not numbers above 0"),
    "no prompts": (["--prompts", "0"], "--prompts"),
    "a figure of no format": (["--plot", "predicts.gif"], "figure 'predicts.gif' ends in none of"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_refused_in_one_line(predicts, case):
    options, says = WRONG[case]
    ended = predicts(*options)
    assert ended.status == 2
    assert says in ended.err
    assert ended.err.count("\n") == 1
