"""Edits, scores and trials: valid, hashable, JSON both ways."""

import json

import pytest
from samples import score, trial

from eckart.errors import EditError
from eckart.records import PARTS, Edit, Trial


@pytest.mark.parametrize(
    "text",
    [
        *("26:mlp:0.95", "-1:attn:0", "0:all:0.5", "3:fc_in:0.1", "1:mlp:0.50000001"),
        *("0:q:0.9999999", "26:mlp:0.95:random", "-1:q:0.5:random3", "3:all:0.1:largest"),
        *("0:attn:drop", "-1:mlp:drop", "2:all:drop"),
    ],
)
def test_an_edit_is_what_it_says(text):
    edit = Edit.parse(text)
    assert str(edit) == text
    assert Edit.parse(str(edit)) == edit
    assert hash(edit) == hash(Edit(edit.layer, edit.part, edit.rate, edit.cut))
    assert eval(repr(edit)) == edit
    assert Edit(**json.loads(json.dumps(edit.to_json()))) == edit


def test_the_papers_cut_is_the_edit_without_a_word():
    said = Edit.parse("26:mlp:0.95:smallest")
    assert said == Edit(26, "mlp", 0.95)
    assert str(said) == "26:mlp:0.95"
    assert said.to_json() == {"layer": 26, "part": "mlp", "rate": 0.95}


def test_edits_that_cut_otherwise_are_others():
    cuts = ("smallest", "largest", "random", "random1", "random2")
    edits = {Edit(1, "mlp", 0.5, cut) for cut in cuts} | {Edit(1, "mlp", cut="drop")}
    assert len(edits) == len({str(edit) for edit in edits}) == len(cuts) + 1
    assert sorted(edits)[-1] == Edit(1, "mlp", cut="drop")


@pytest.mark.parametrize(
    ("text", "words"),
    {
        "26:mlp:0.5:1": "no cut '1'",
        "26:mlp:0.5:randomish": "no cut 'randomish'",
        "26:mlp:0.5:random-1": "no cut 'random-1'",
        "26:mlp:0.5:random01": "no cut 'random01'",
        "26:mlp:0.5:random0": "no cut 'random0'",
        "26:mlp:0.5:random1234567890": "no cut 'random1234567890'",
        "26:mlp:0.5:Largest": "no cut 'Largest'",
        "26:mlp:0.5:": "no cut ''",
        "26:mlp:random": "is not LAYER:PART:RATE",
        "26:mlp:largest": "is not LAYER:PART:RATE",
        "26:mlp:random:0.5": "is not LAYER:PART:RATE",
        "26:mlp:0.5:random:3": "is not LAYER:PART:RATE",
        "26:mlp:0.5:largest:drop": "is not LAYER:PART:RATE",
        "26:mlp:drop:0.5": "is not LAYER:PART:RATE",
        "26:drop": "is not LAYER:PART:RATE",
        "26:mlp:0.5:drop": "drop takes no rate: write 26:mlp:drop",
        "26:mlp:0:drop": "drop takes no rate: write 26:mlp:drop",
        "26:mlp:0:largest": "rate 0 cuts nothing, 'largest' or not",
        "26:mlp:0:random": "rate 0 cuts nothing",
        "26:mlp:1:random": r"outside \[0, 1\)",
        "26:mlp:nan:largest": r"outside \[0, 1\)",
        "26:q:drop": "'q' is one matrix",
        "26:o:drop": "'o' is one matrix",
        "26:fc_out:drop": "'fc_out' is one matrix",
        "26:ffn:drop": "no part 'ffn'",
    }.items(),
)
def test_what_is_no_cut(text, words):
    with pytest.raises(EditError, match=words) as caught:
        Edit.parse(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "26", "26:mlp", "a:mlp:0.5", "26:mlp:x", "1.5:mlp:0.5"])
def test_what_is_no_edit(text):
    with pytest.raises(EditError, match="is not LAYER:PART:RATE"):
        Edit.parse(text)


@pytest.mark.parametrize("rate", [1, -0.1, 2, float("nan"), float("inf")])
def test_rates_outside_the_range(rate):
    with pytest.raises(EditError, match=r"outside \[0, 1\)"):
        Edit(0, "mlp", rate)


def test_a_part_that_does_not_exist_lists_those_that_do():
    with pytest.raises(EditError, match=f"no part 'ffn'; the parts are {', '.join(PARTS)}"):
        Edit(0, "ffn", 0.5)


@pytest.mark.parametrize(
    "edits",
    [(), (Edit(3, "mlp", 0.5),), (Edit(3, "attn", cut="drop"), Edit(3, "mlp", 0.5, "random7"))],
)
def test_a_trial_survives_json(edits):
    kept = trial(edits=edits)
    assert Trial.from_json(json.loads(json.dumps(kept.to_json()))) == kept
    assert hash(kept) == hash(Trial.from_json(json.loads(json.dumps(kept.to_json()))))


def test_a_score_knows_which_rows_are_right():
    assert score().right == [True, False]
    assert not {"labels", "predictions", "log_likelihoods"} & set(score().summary())
