"""New rows are labelled as a trial labels its own, whatever they come in."""

import csv
import json

import numpy as np
import pandas as pd
import pyarrow
import pyarrow.parquet
import pytest
from datasets import Dataset
from families import build, tiny_tokenizer

import eckart
from eckart import Edit, Task
from eckart.errors import EckartError
from eckart.exports import predictions
from eckart.scoring.evaluator import Evaluator
from eckart.weights.models import load_model

OWN = {"text_column": "review", "label_column": "verdict", "shots": 4}
EDIT = Edit(0, "mlp", 0.75)


@pytest.fixture(scope="module")
def task(table) -> Task:
    return Task.load(data=table, **OWN)


@pytest.fixture(scope="module")
def rows(table) -> list[dict[str, str]]:
    with table.open() as file:
        return list(csv.DictReader(file))


def of_split(task: Task, rows: list[dict], split: str = "test") -> list[dict]:
    return [rows[int(example.id.partition(":")[2])] for example in task.examples(split)]


def unlabelled(rows: list[dict]) -> list[dict]:
    return [{name: row[name] for name in row if name != "verdict"} for row in rows]


def said(labelled, prefix: str = "") -> list[str]:
    return [row[f"{prefix}prediction"] for row in labelled]


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3", "gpt_neox"])
@pytest.mark.parametrize("scoring", ["sum", "contextual", "batch"])
def test_predictions_are_the_trials(family, scoring, task, rows):
    live = load_model(build(family), tokenizer=tiny_tokenizer())
    made = Evaluator(live, task, scoring=scoring)
    trials = {trial.edits: trial.labelled for trial in made.score([(), [EDIT]], "test")}
    new = unlabelled(of_split(task, rows))
    found = list(eckart.predict(live, new, task, EDIT, compare=True, scoring=scoring))
    alone = list(eckart.predict(live, new, task, EDIT, scoring=scoring))
    for trial, predicted in (
        (trials[()], said(found, "unpruned_")),
        (trials[EDIT,], said(found)),
        (trials[EDIT,], said(alone)),
    ):
        assert predicted == [task.labels[i] for i in trial.predictions]
    values = np.exp(np.array(trials[EDIT,].log_likelihoods))
    shares = np.array([[row[f"probability_{label}"] for label in task.labels] for row in alone])
    assert np.allclose(shares, values / values.sum(axis=1, keepdims=True), atol=1e-5)


def test_chunks_change_nothing_and_the_model_is_as_before(model, task, rows, monkeypatch):
    live = load_model(model)
    before = live.fingerprint
    whole = list(eckart.predict(live, rows, task, EDIT, compare=True))
    monkeypatch.setattr(predictions, "CHUNK", 7)
    pieces = eckart.predict(live, rows, task, EDIT, compare=True)
    assert said(pieces) == said(whole)
    assert pieces.tally.labelled == len(rows)
    assert live.fingerprint == before


def test_whatever_rows_come_in(model, task, rows, tmp_path):
    live = load_model(model)
    expected = said(eckart.predict(live, rows, task))
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "new.parquet")
    (tmp_path / "new.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for each in (
        iter(rows),
        pd.DataFrame(rows),
        Dataset.from_list(rows),
        [row["review"] for row in rows],
        tmp_path / "new.parquet",
        str(tmp_path / "new.jsonl"),
    ):
        assert said(eckart.predict(live, each, task)) == expected


def test_labels_that_are_there_are_counted(model, task, rows):
    live = load_model(model)
    found = eckart.predict(live, [*rows[:20], *unlabelled(rows[20:])], task, EDIT, compare=True)
    right = [row["prediction"] == row.get("verdict") for row in found]
    assert found.tally.right[1] == sum(right)
    assert found.tally.labelled == 20
    unpruned, clipped, gain = found.tally.accuracy()
    assert f"clipped: accuracy {sum(right) / 20:.4f} (n = 20 rows with labels" in clipped
    assert unpruned.startswith("unpruned: accuracy")
    assert f"{found.tally.fixed} fixed, {found.tally.broken} broken" in gain
    bare = eckart.predict(live, unlabelled(rows), task)
    list(bare)
    assert bare.tally.accuracy() == []


def test_labels_that_the_task_does_not_know_are_said(model, task, rows):
    odd = [{**rows[0], "verdict": rows[0]["verdict"].upper()}, *rows[1:4], *unlabelled(rows[4:6])]
    found = eckart.predict(load_model(model), odd, task)
    assert len(list(found)) == 6
    assert (found.tally.labelled, found.tally.unknown) == (3, 1)
    (said,) = found.tally.notes()
    assert said.startswith("1 rows have a label that the task does not know")


def test_rows_that_are_left_out_are_counted(model, task, rows):
    live = load_model(model)
    odd = [rows[0], {"review": " "}, {"review": "the food " * 4000}, rows[1]]
    with pytest.raises(EckartError, match=r"row row:2 is \d+ tokens long"):
        list(eckart.predict(live, odd, task))
    found = eckart.predict(live, odd, task, drop_long_rows=True)
    assert [row["review"] for row in found] == [rows[0]["review"], rows[1]["review"]]
    assert found.tally.notes() == [
        "left out 1 rows without an input",
        "left out 1 rows longer than the model reads",
    ]


def test_a_run_and_an_export_label_as_the_trial_does(model, table, task, rows, tmp_path):
    run = tmp_path / "run"
    result = eckart.search(str(model), task, layer=0, rates=[0.25, 0.5, 0.75, 0.9], out=run)
    new = of_split(task, rows)
    trial = result.clipped.trials[0].labelled
    expected = [task.labels[i] for i in trial.predictions]
    assert said(eckart.predict(run, new)) == expected
    assert result.edits
    folder = tmp_path / "exported"
    eckart.export(result, folder, str(model), task)
    assert said(eckart.predict(folder, new)) == expected
    with pytest.raises(EckartError, match=r"the base model .* lies neither here nor beside"):
        eckart.predict(folder, new, compare=True)


BAD = {
    "no rows": ([], {}, "no rows to label"),
    "a column is missing": ([{"text": "a"}], {}, "row:0 has no column 'review'"),
    "a row of no kind": ([5], {}, "a row is 5"),
    "one dict": ({"review": ["a"]}, {}, "one dict"),
    "nothing to compare": ([{"review": "a"}], {"compare": True}, "nothing to compare"),
    "taken": ([{"review": "a", "prediction": "b"}], {}, "have a column 'prediction' already"),
    "one row under batch": ([{"review": "a"}], {"scoring": "batch"}, "there is one row"),
    "no such scoring": ([{"review": "a"}], {"scoring": "best"}, "no scoring 'best'"),
    "no file": ("nothing.csv", {}, "no rows at 'nothing.csv'"),
}


@pytest.mark.parametrize(("given", "options", "words"), BAD.values(), ids=BAD)
def test_what_cannot_be_labelled_is_refused_in_a_line(model, task, given, options, words):
    with pytest.raises(EckartError, match=words) as refused:
        list(eckart.predict(load_model(model), given, task, **options))
    assert "\n" not in str(refused.value)


def test_without_a_task_there_are_no_prompts(model, rows):
    with pytest.raises(EckartError, match="nothing makes prompts of new rows"):
        eckart.predict(str(model), rows)
