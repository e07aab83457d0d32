"""Edits, scores and trials: valid, hashable, JSON both ways."""

import json

import pytest
from samples import score, trial

from eckart.errors import EditError
from eckart.records import PARTS, Edit, Trial


@pytest.mark.parametrize(
    "text",
    ["26:mlp:0.95", "-1:attn:0", "0:all:0.5", "3:fc_in:0.1", "1:mlp:0.50000001", "0:q:0.9999999"],
)
def test_an_edit_is_what_it_says(text):
    edit = Edit.parse(text)
    assert str(edit) == text
    assert Edit.parse(str(edit)) == edit
    assert hash(edit) == hash(Edit(edit.layer, edit.part, edit.rate))


@pytest.mark.parametrize(
    "text", ["", "26", "26:mlp", "a:mlp:0.5", "26:mlp:x", "1.5:mlp:0.5", "26:mlp:0.5:1"]
)
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


def test_a_trial_survives_json():
    kept = trial()
    assert Trial.from_json(json.loads(json.dumps(kept.to_json()))) == kept
    assert hash(kept) == hash(Trial.from_json(json.loads(json.dumps(kept.to_json()))))


def test_a_score_knows_which_rows_are_right():
    assert score().right == [True, False]
    assert not {"labels", "predictions", "log_likelihoods"} & set(score().summary())
