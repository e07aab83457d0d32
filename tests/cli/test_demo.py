"""The demo, from the corpus to the figure."""

import json

import pytest


def test_the_demo_ends_with_a_result(eckart, tmp_path):
    ended = eckart("demo", "--task", "topic", "--json")
    found = json.loads(ended.out)
    assert found["candidates_tried"] == 7, "two of the rates leave the same rank"
    assert found["test"]["n"] == 600
    assert found["unpruned"]["10"]["accuracy"] > found["unpruned"]["0"]["accuracy"] + 0.3
    for shots in (0, 10):
        assert f"the unpruned model with {shots} demonstrations, to see" in ended.err
    run = tmp_path / "eckart-demo" / "topic-mlp-2-shots"
    assert json.loads((run / "result.json").read_text())["test"] == found["test"]
    assert (run / "validation.png").stat().st_size > 1000
    assert (tmp_path / "eckart-demo" / "condition-numbers.png").stat().st_size > 1000
    assert "test: the frozen choice" in (run / "result.txt").read_text()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--task", "love"], "mood, topic"),
        (["--part", "fc_in"], "gate"),
        (["--out", "file"], "--out"),
    ],
)
def test_demos_that_cannot_be(eckart, tmp_path, arguments, words):
    (tmp_path / "file").write_text("")
    ended = eckart("demo", *arguments)
    assert ended.status == 2
    assert words in ended.err.splitlines()[-1]
