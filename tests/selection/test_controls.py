"""A choice beside its control arms: in a search and a sweep, stopped and resumed, and as it is
said."""

import json
from dataclasses import replace

import numpy as np
import pytest
from samples import score, trial
from scipy.stats import binomtest

from eckart import Edit, Task, clip, report, search, sweep
from eckart.demo import MODEL, corpus
from eckart.errors import RunError, StudyError
from eckart.reports.results import search_report
from eckart.reports.terminal import as_text
from eckart.runs import read_run
from eckart.scoring.evaluator import Evaluator
from eckart.selection.controls import against, controls_sentence
from eckart.sweeps.grid import Sweep
from eckart.weights.models import load_model


def rows(right):
    """Return a score of two-class rows whose label is always 0."""
    predictions = tuple(0 if ok else 1 for ok in right)
    n = len(right)
    return replace(
        score(sum(right) / n),
        n=n,
        labels=(0,) * n,
        predictions=predictions,
        log_likelihoods=((-1.0, -2.0),) * n,
    )


CUTS = ("random", "random1", "random2", "largest", "drop")
OPTIONS = {"layer": 1, "rates": [0.9], "dtype": "float32"}


@pytest.fixture(scope="module")
def found(task):
    return search(MODEL, task, controls=True, **OPTIONS)


# ---------------------------------------------------------------- what is computed


def test_the_arms_are_scored_as_clipping_by_hand_scores_them(task, found):
    assert found.rate == 0.9
    assert [arm.cut for arm in found.against] == list(CUTS)
    model = load_model(MODEL, dtype="float32")
    for arm, kept in zip(found.against, found.controls, strict=True):
        with clip(model.model, arm.edits):
            by_hand = Evaluator(model, task)([], "test").score
        assert np.allclose(by_hand.log_likelihoods, kept.score.log_likelihoods, atol=1e-4)
        assert arm.merit == by_hand.accuracy
        ours, theirs = np.array(found.clipped.score.right), np.array(by_hand.right)
        better, worse = int((ours & ~theirs).sum()), int((theirs & ~ours).sum())
        assert (arm.gain.fixed, arm.gain.broken) == (better, worse)
        p = binomtest(better, better + worse).pvalue if better + worse else 1.0
        assert arm.gain.p_value == pytest.approx(p)


def test_holm_corrects_over_the_arms_that_can_be_compared():
    choice = trial(edits=(Edit(1, "mlp", 0.5),), score=rows([True] * 40))
    right = {"random": 33, "random1": 30, "random2": 40, "largest": 20}
    arms = [
        trial(edits=(Edit(1, "mlp", 0.5, cut),), score=rows([True] * n + [False] * (40 - n)))
        for cut, n in right.items()
    ]
    failed = {"score": None, "status": "failed", "error": "NaN"}
    arms.append(trial(edits=(Edit(1, "mlp", cut="drop"),), **failed))
    compared = against(choice, arms)
    p = {cut: binomtest(0, 40 - n).pvalue if n < 40 else 1.0 for cut, n in right.items()}
    expected = {
        "largest": 4 * p["largest"],
        "random1": 3 * p["random1"],
        "random": 2 * p["random"],
        "random2": 1.0,
    }
    assert {a.cut: a.p_adjusted for a in compared[:4]} == pytest.approx(expected)
    assert controls_sentence(compared) == (
        "the choice beats random, random1 and largest; cannot be told from random2; is not compared"
        " with drop, which gave no numbers (paired, Holm over 4)"
    )
    (worse,) = against(arms[3], [replace(choice, edits=(Edit(1, "mlp", cut="drop"),))])
    assert controls_sentence([worse]) == "the choice is beaten by drop (paired, Holm over 1)"
    assert compared[-1].to_json()["choice"] == "not compared"
    alike = against(choice, [replace(choice, edits=arm.edits) for arm in arms[:2]])
    assert "all of them do exactly what the choice does" in controls_sentence(alike)


def test_without_controls_a_search_is_what_it_was(task, found):
    plain = search(MODEL, task, **OPTIONS)
    assert plain.controls == ()
    assert "controls" not in plain.to_json()
    assert "controls" not in plain.settings
    assert plain.against_controls() == ""
    assert plain.clipped.key == found.clipped.key
    assert "control" not in as_text(search_report(plain))


# ---------------------------------------------------------------- what is said


def test_a_search_says_it_in_words_tables_and_json(task, tmp_path):
    found = search(MODEL, task, controls=True, out=tmp_path / "run", **OPTIONS)
    said = as_text(search_report(found))
    assert f"control arms: layer 1, mlp, on the same test rows (n = {found.comparison.n})" in said
    assert f"{found.against_controls()[4:20]}" in said
    assert found.against_controls() in str(found)
    kept = json.loads((tmp_path / "run" / "result.json").read_text())["controls"]
    assert kept["says"] == found.against_controls()
    assert [arm["cut"] for arm in kept["arms"]] == list(CUTS)
    page = json.loads(report(tmp_path / "run", format="json").read_text())
    rows = page["tables"]["controls"]
    assert {row["arm"] for row in rows} == set(CUTS)
    by_cut = {arm.cut: arm for arm in found.against}
    for row in rows:
        arm = by_cut[row["arm"]]
        assert row["control"] == arm.merit
        assert row["gain"] == pytest.approx(arm.gain.difference)
        assert row["p_value"] == pytest.approx(arm.gain.p_value)
        assert row["p_adjusted"] == pytest.approx(arm.p_adjusted)
    # Nothing is chosen among arms, and no table of cells or figure holds one.
    assert len(page["tables"]["cells"]) == 2
    html = report(tmp_path / "run").read_text()
    assert "Does the choice beat its control arms?" in html
    # That rows are too few to tell is no finding about the edit.
    assert "gains by doing something there" not in html


def test_where_nothing_is_clipped_that_is_said(task):
    found = search(MODEL, task, controls=True, layer=1, rates=[0.0], dtype="float32")
    assert found.rate == 0
    assert found.to_json()["controls"]["arms"] == []
    said = " ".join(as_text(search_report(found)).split())
    assert "Nothing is clipped, so there is nothing to hold control arms beside." in said


# ---------------------------------------------------------------- stopped, and gone on with


def test_a_search_that_stops_among_its_arms_goes_on_from_there(task, found, tmp_path, monkeypatch):
    real, read = Evaluator.outcomes, []

    def one_more(self, edits, split, scorings):
        if room.pop() == 0:
            raise KeyboardInterrupt
        read.append((split, edits))
        return real(self, edits, split, scorings)

    monkeypatch.setattr(Evaluator, "outcomes", one_more)
    for stops in range(8):
        room = [0, 1]
        with pytest.raises(KeyboardInterrupt):
            search(MODEL, task, controls=True, out=tmp_path / "run", **OPTIONS)
        assert len(read) == stops + 1
    room = [1]
    resumed = search(MODEL, task, controls=True, out=tmp_path / "run", **OPTIONS)
    assert len(read) == len(set(read)) == 2 + 2 + len(CUTS)
    before, after = found.to_json(), resumed.to_json()
    assert before | {"seconds": 0} == after | {"seconds": 0}


def test_a_run_that_was_begun_without_is_another(task, tmp_path):
    search(MODEL, task, out=tmp_path / "run", **OPTIONS)
    with pytest.raises(RunError, match="controls"):
        search(MODEL, task, controls=True, out=tmp_path / "run", **OPTIONS)


# ---------------------------------------------------------------- a sweep


def entry(task, tmp_path):
    return Task.load(
        data=corpus.write(tmp_path / "data")["mood"],
        template=corpus.TEMPLATE,
        label_column="label",
        shots=2,
        split_sizes=(80, 60),
    )


@pytest.mark.parametrize("test", ["selected", "all"])
def test_a_sweep_holds_every_choice_beside_its_arms(task, found, tmp_path, test):
    grid = {"layers": [1], "parts": ["mlp", "v"], "rates": [0.9], "dtype": "float32"}
    result = sweep(
        str(MODEL), task, controls=True, test=test, seeds=[0, 1], out=tmp_path / "run", **grid
    )
    first = next(line for line in result.lines if line.part == "mlp" and line.setting.seed == 0)
    assert [arm.edits for arm in first.controls] == [arm.edits for arm in found.against]
    assert [arm.gain for arm in first.controls] == [arm.gain for arm in found.against]
    assert controls_sentence(first.controls) in str(first)
    assert len(first.to_json()["controls"]) == len(CUTS)
    for line in result.lines:
        cuts = [arm.cut for arm in line.controls]
        expected = CUTS if line.part == "mlp" else CUTS[:-1]
        assert cuts == (list(expected) if line.edit else [])
    page = json.loads(report(tmp_path / "run", format="json").read_text())
    of_mlp = [row for row in page["tables"]["controls"] if row["part"] == "mlp"]
    assert {row["arm"] for row in of_mlp} == set(CUTS)
    clipping = [line for line in result.lines if line.edit and line.part == "mlp"]
    assert {row["seeds"] for row in of_mlp} == {len(clipping)}
    assert {trial.split for trial in read_run(tmp_path / "run").trials.values() if trial.edits
            and trial.edits[0].cut != "smallest"} == {"test"}  # fmt: skip


def test_a_study_asks_for_controls_and_a_sweep_without_is_what_it_was():
    asked = {"models": ["m"], "tasks": ["sst2"]}
    plain, controlled = (
        Sweep.of(asked, "the study"),
        Sweep.of(asked | {"controls": True}, "the study"),
    )
    assert "controls" not in plain.settings["study"]
    assert "controls" not in plain.to_yaml()
    assert controlled.settings["study"]["controls"] is True
    assert "controls: true" in controlled.to_yaml()
    with pytest.raises(StudyError, match="controls need test rows, and test is none"):
        Sweep.of(asked | {"controls": True, "test": "none"}, "the study")
    with pytest.raises(StudyError, match="controls"):
        Sweep.of(asked | {"controls": "random"}, "the study")
