"""A choice at other precisions: clipped first, quantised after, on the same rows, and kept apart
from what was searched."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from families import tiny_tokenizer
from gguf_files import build
from typer.testing import CliRunner

from eckart import Edit, Task, evaluate, search
from eckart.cli.app import app
from eckart.errors import ModelError
from eckart.reports.page import Report
from eckart.runs import RunStore, read_run
from eckart.scoring.evaluator import Evaluator
from eckart.scoring.scorer import storing
from eckart.selection.deployed import Deployed
from eckart.selection.draws import Draws
from eckart.selection.free import deployed
from eckart.weights.anatomy import Anatomy
from eckart.weights.edits import clip_
from eckart.weights.models import load_model
from eckart.weights.quantised import GgufType, quantised

EDITS = (Edit(1, "mlp", 0.5),)


@pytest.fixture(scope="module")
def task(table) -> Task:
    return Task.load(data=table, text_column="review", label_column="verdict", shots=4)


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """A tiny random Llama, whose rows are whole blocks."""
    folder = tmp_path_factory.mktemp("models") / "llama"
    build("llama").save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def values(trial) -> np.ndarray:
    return np.array(trial.labelled.log_likelihoods)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_clipped_first_and_quantised_after(family, task):
    loaded = load_model(build(family), tokenizer=tiny_tokenizer())
    scorer = Evaluator(loaded, task)
    stored = storing(scorer, "q4_0")
    at = {trial.edits: trial for trial in stored.score([(), EDITS], "test")}
    for edits in ((), EDITS):
        plain = build(family)
        clip_(plain, edits)
        with quantised(Anatomy.of(plain), GgufType("q4_0")):
            made = load_model(plain, tokenizer=tiny_tokenizer())
            expected = Evaluator(made, task)((), "test")
            assert np.abs(values(at[edits]) - values(expected)).max() < 1e-4
        assert np.abs(values(at[edits]) - values(scorer(edits, "test"))).max() > 1e-3


def test_a_trial_says_its_type_and_has_a_key_of_its_own(task):
    loaded = load_model(build("llama"), tokenizer=tiny_tokenizer())
    scorer = Evaluator(loaded, task)
    stored = storing(scorer, "Q4_0")
    keys = {each.key(EDITS, "test") for each in (scorer, stored, storing(scorer, "q8_0"))}
    assert len(keys) == 3
    plain, trial = scorer(EDITS, "test"), stored(EDITS, "test")
    assert "stored_as" not in plain.to_json()
    assert trial.to_json()["stored_as"] == "q4_0"
    assert type(trial).from_json(trial.to_json()) == trial
    notes = stored.notes("test")
    assert "clipped, quantised to Q4_0 and dequantised" in notes[0]
    half = Evaluator(load_model(build("llama").bfloat16(), tokenizer=tiny_tokenizer()), task)
    assert any("rounded to bfloat16" in note for note in storing(half, "q8_0").notes("test"))


def test_evaluate_compares_at_that_precision(model, table, task):
    found = evaluate(model, task, EDITS, split="test", stored_as="q4_0", dtype="float32")
    assert found.trial.stored_as == found.unpruned.stored_as == "q4_0"
    said = [
        *("evaluate", str(model), "--data", str(table), "--text-column", "review"),
        *("--label-column", "verdict", "--shots", "4", "--split", "test", "--dtype", "float32"),
        *("--edit", "1:mlp:0.5", "--json"),
    ]
    done = CliRunner().invoke(app, [*said, "--as", "q4_0"])
    document = json.loads(done.stdout)
    assert document["as"] == "q4_0"
    assert document["accuracy"] == found.score.accuracy
    assert "as" not in json.loads(CliRunner().invoke(app, said).stdout)
    for wrong, words in {
        ("--as", "q4_k"): "no GGUF type",
        ("--as", "q8_0", "--guard"): "guard",
    }.items():
        refused = CliRunner().invoke(app, [*said, *wrong])
        assert isinstance(refused.exception, ModelError)
        assert words in str(refused.exception)
        assert "\n" not in str(refused.exception)


def test_a_search_looks_at_its_choice_at_other_precisions(model, task, tmp_path):
    asked = {"rates": [0.5, 0.9], "layer": 1, "out": tmp_path / "run", "dtype": "float32"}
    before = search(model, task, **asked)
    study = search(model, task, **asked, also="q4_0,q8_0")
    assert study.settings == before.settings
    run = read_run(tmp_path / "run")
    assert {trial.stored_as for trial in run.trials.values()} == {None}
    assert bool(study.edits) == bool(study.deployed) == bool(run.deployed)
    with pytest.raises(ModelError, match="no GGUF type 'q3'"):
        search(model, task, **asked, also=["q3"])


def chosen(model, task, seeds):
    """Return a search's result that chose to clip, as a random model need not."""
    loaded = load_model(model, dtype="float32")
    study = search(loaded, task, rates=[0.5], layer=1, seeds=seeds)
    draws = Draws.of(Evaluator(loaded, task), seeds)
    (clipped,) = draws.score([EDITS], "test")
    return replace(study, rate=0.5, clipped=clipped), draws


@pytest.mark.parametrize("seeds", [(), (0, 1)])
def test_what_is_said_of_a_choice(model, task, seeds):
    study, draws = chosen(model, task, seeds)
    found = deployed(study.run, draws.testing, ["bf16", "q4_0"], None)
    assert [one.name for one in (found.searched, *found.each)] == ["as searched", "BF16", "Q4_0"]
    assert found.searched.gain == study.comparison
    study = replace(study, deployed=found)
    document = study.to_json()["deployed"]
    assert [one["as"] for one in document["each"]] == ["as searched", "BF16", "Q4_0"]
    assert (
        document["each"][2]["gain"]["n"] == document["each"][0]["gain"]["n"] if not seeds else True
    )
    assert "deployed    there is no gain to lose" in str(study) or "gain" in str(study)
    trials = tuple(
        t for one in found.each for look in (one.unpruned, one.clipped) for t in look.trials
    )
    page = Report.of(replace(study.run, deployed=trials))
    assert [row["as"] for row in page.tables["deployed"].rows] == ["as searched", "BF16", "Q4_0"]
    assert str(found) in page.summary
    assert Deployed.in_run(study.run) is None


def test_what_was_looked_at_is_kept_and_not_looked_at_again(model, task, tmp_path, monkeypatch):
    study, draws = chosen(model, task, ())
    settings = {"kind": "search", "shots": 4, "scoring": "sum"}
    with RunStore(tmp_path / "run", settings) as store:
        for trial in study.run.trials.values():
            store.keep(trial)
        store.keep_rows(study.rows[-1])
        found = deployed(study.run, draws.testing, ["q4_0"], store)
        monkeypatch.setattr(Evaluator, "outcomes", None)
        again = deployed(study.run, draws.testing, ["q4_0"], store)
    assert str(again) == str(found)
    run = read_run(tmp_path / "run")
    assert sorted(len(trial.edits) for trial in run.deployed) == [0, 1]
    assert {trial.stored_as for trial in run.trials.values()} == {None}
    assert str(Deployed.in_run(run)) == str(found)


def test_a_failed_look_is_said(model, task):
    study, draws = chosen(model, task, ())
    found = deployed(study.run, draws.testing, ["q4_0"], None)
    broken = replace(found.each[0].clipped, score=None, status="failed", error="NaN")
    failed = replace(found.each[0], clipped=broken)
    assert str(failed) == "Q4_0: not scored (NaN)"
    assert failed.to_json() == {"as": "Q4_0", "error": "NaN"}


def test_nothing_clipped_is_not_looked_at(model, task):
    study, draws = chosen(model, task, ())
    nothing = replace(study, rate=0.0, clipped=study.baseline)
    assert deployed(nothing.run, draws.testing, ["q4_0"], None) is None


def test_the_model_is_as_it_was(task):
    live = build("llama")
    before = {name: tensor.clone() for name, tensor in live.state_dict().items()}
    scorer = Evaluator(load_model(live, tokenizer=tiny_tokenizer()), task)
    fingerprint = scorer.model.fingerprint
    storing(scorer, "q4_0")(EDITS, "validation")
    assert all(torch.equal(before[name], tensor) for name, tensor in live.state_dict().items())
    assert scorer.model.fingerprint == fingerprint
