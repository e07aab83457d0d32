"""A choice beside what costs nothing: what is read, what is said, and what a run keeps of it."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from samples import SETTING, score
from samples import trial as sample

from eckart import Edit, report, search
from eckart.demo import MODEL
from eckart.errors import TaskError
from eckart.paper.functions.task import FunctionTask
from eckart.records import Row, Rows
from eckart.reports.page import Report
from eckart.reports.results import search_report
from eckart.reports.terminal import as_text
from eckart.runs import Run, RunStore, read_run
from eckart.scoring.evaluator import Evaluator
from eckart.selection.free import read_rivals
from eckart.selection.plan import Plan
from eckart.selection.rivals import MAJORITY, NOT_READ, UNPRUNED, Rival, Rivals, ways
from eckart.selection.search import run_plan
from eckart.statistics.crossed import Estimate, seed_and_row_mean
from eckart.statistics.multiplicity import holm
from eckart.statistics.paired import compare
from eckart.weights.models import load_model

OPTIONS = {"layer": 1, "rates": [0.9], "dtype": "float32"}
CLIP = (Edit(1, "mlp", 0.9),)


@pytest.fixture(scope="module")
def found(task, tmp_path_factory):
    return search(MODEL, task, rivals=True, out=tmp_path_factory.mktemp("r") / "run", **OPTIONS)


# ---------------------------------------------------------------- what is read


def test_the_rivals_are_what_plain_evaluation_scores(task, found):
    model = load_model(MODEL, dtype="float32")
    by_name = {each.name: each for each in found.rivals.each}
    assert len(by_name) == 1 + 8 + 1
    for shots in (2, 1, 0):
        for scoring in ("sum", "contextual", "batch"):
            fewer = [f"{shots} demonstration{'s' * (shots != 1)}"] * (shots != 2)
            name = " with ".join(fewer + [f"{scoring} calibration"] * (scoring != "sum"))
            plain = Evaluator(model, task.redrawn(shots=shots), scoring=scoring)([], "test").score
            rival = by_name[name or UNPRUNED]
            assert rival.accuracy == pytest.approx(plain.accuracy)
            paired = compare(plain, found.clipped.score)
            assert rival.gain.mean == pytest.approx(paired.difference)
            assert (rival.gain.p_value, rival.gain.interval) == (paired.p_value, paired.interval)
            assert rival.gain.rows == plain.n
    majority = by_name[MAJORITY]
    assert majority.accuracy == pytest.approx(found.baseline.score.majority_rate)
    free = [each for each in found.rivals.each if each.free]
    assert [each.p_adjusted for each in free] == pytest.approx(
        holm([each.gain.p_value for each in free]).tolist()
    )


def test_half_of_none_and_of_one_demonstration_is_none():
    assert list(ways(1, "sum", choices=False)) == [1, 0]
    assert ways(0, "sum", choices=False) == {0: ("contextual", "batch")}
    assert ways(4, "contextual", choices=True) == {
        4: ("mean",),
        2: ("contextual", "mean"),
        0: ("contextual", "mean"),
    }


def test_plain_scores_are_a_rival_of_calibrated_ones(task):
    found = search(MODEL, task, scoring="contextual", rivals=True, **OPTIONS)
    by_name = {each.name: each for each in found.rivals.each}
    own = Evaluator(load_model(MODEL, dtype="float32"), task)((), "test")
    assert by_name["plain scores"].accuracy == pytest.approx(own.score.merits["accuracy"])
    assert {"batch calibration", "0 demonstrations with plain scores"} <= set(by_name)


def test_a_rival_that_is_told_to_be_better_is_named_before_one_that_is_not():
    clear = Estimate(-0.07, (-0.1, -0.04), 0.015, 399.0, 1e-5, 1, 400)
    wide = Estimate(-0.1, (-0.3, 0.1), 0.1, 399.0, 0.3, 1, 400)
    told = Rival("told", True, 0.87, 0.8, gain=clear, p_adjusted=1e-4)
    more = Rival("more", True, 0.90, 0.8, gain=wide, p_adjusted=0.6)
    said = str(Rivals(True, 400, (more, told)))
    assert "use told" in said
    assert "do not tell the two apart" not in said


def test_without_rivals_a_search_is_what_it_was(task, found):
    plain = search(MODEL, task, **OPTIONS)
    assert plain.rivals is None
    assert plain.settings == found.settings
    assert "rivals" not in plain.to_json()
    assert "  rivals  " not in str(plain)
    assert "what costs nothing" not in as_text(search_report(plain))


def test_numbers_have_no_rivals():
    with pytest.raises(TaskError, match=r"'linear-5' asks for numbers.*no free rivals"):
        run_plan(Plan(rivals=True), SimpleNamespace(task=FunctionTask("linear", 5)))


def test_a_rival_that_cannot_be_read_is_named_and_the_search_goes_on(
    task, tmp_path, monkeypatch, found
):
    real = Evaluator.prepare

    def prepare(self, split, scorings=()):
        if not self.task.shots and "contextual" in scorings:
            raise TaskError("the prompt is empty")
        return real(self, split, scorings)

    monkeypatch.setattr(Evaluator, "prepare", prepare)
    result = search(MODEL, task, rivals=True, out=tmp_path / "run", **OPTIONS)
    name = "0 demonstrations with contextual calibration"
    errors = {each.name: each.error for each in result.rivals.each if each.error}
    assert errors == {name: "the prompt is empty"}
    assert f"not compared with {name} (the prompt is empty)" in str(result.rivals)
    assert Rivals.in_run(read_run(tmp_path / "run")) == result.rivals
    rest = [each.accuracy for each in found.rivals.each if each.name != name]
    assert [each.accuracy for each in result.rivals.each if not each.error] == rest


# ---------------------------------------------------------------- what is said


def planted(own, rivals, edits=CLIP, seeds=(0,), unpruned=None, labels=None):
    """Return a run whose choice is right on the rows of `own`, and whose rivals on theirs.

    Arguments:
        own: of the choice, by seed, whether each row is right.
        rivals: the same of each way; None for one that failed.
    """
    n = len(own[0])
    rows = Rows(("bad", "good"), tuple(Row(f"test:{i}", f"row {i}", 0) for i in range(n)))
    labels = labels or tuple(i % 2 for i in range(n))

    def trial(right, seed, shots, scoring, edits=()):
        predictions = tuple(
            label if ok else 1 - label for label, ok in zip(labels, right, strict=True)
        )
        made = replace(score(sum(right) / n), n=n, labels=labels, predictions=predictions)
        setting = replace(SETTING, shots=shots, scoring=scoring, seed=seed)
        key = f"{seed} {shots} {scoring} {edits}"
        return sample(key, setting=setting, rows=rows.digest, edits=edits, score=made)

    trials = [trial(own[i], seed, 2, "sum", edits) for i, seed in enumerate(seeds)]
    if edits:
        before = unpruned or [[False] * n for _ in seeds]
        trials += [trial(before[i], seed, 2, "sum") for i, seed in enumerate(seeds)]
    beside = []
    for (shots, scoring), right in rivals.items():
        for i, seed in enumerate(seeds if shots else seeds[:1]):
            beside.append(trial(right[i], seed, shots, scoring))
    return Run(
        Path(),
        {"kind": "search", "shots": 2, "scoring": "sum"},
        {each.key: each for each in trials},
        {rows.digest: rows},
        spectra={},
        models={},
        rivals=tuple(beside),
    )


def right(count, n=40):
    return [[i < count for i in range(n)]]


def every(count, n=40, seeds=1):
    found = {(s, way): right(count, n) * seeds for s in (2, 1, 0) for way in ("sum", *CALIBRATED)}
    del found[2, "sum"]
    return found


CALIBRATED = ("contextual", "batch")


def test_it_helps_only_where_it_beats_each_of_them():
    found = Rivals.in_run(planted(right(40), every(20)))
    assert found.helps
    assert str(found).startswith(
        "Clipping helps: it beats 8 free rivals, the unpruned model and the most frequent label;"
    )
    assert found.to_json()["helps"] is True


def test_one_rival_that_does_better_is_named_with_what_to_do():
    rivals = every(10) | {(0, "sum"): right(36)}
    found = Rivals.in_run(planted(right(24), rivals))
    assert not found.helps
    assert found.nearest.verdict == "loss"
    assert str(found).startswith(
        "Clipping is not shown to help: use 0 demonstrations: 0.9000 against 0.6000"
    )
    assert "tell the two apart" not in str(found)


def test_an_equal_rival_is_enough_to_say_no_and_is_not_advised():
    found = Rivals.in_run(planted(right(24), every(10) | {(1, "batch"): right(24)}))
    assert "highest here comes 1 demonstration with batch calibration" in str(found)
    assert ": use " not in str(found)
    assert "these rows do not tell the two apart" in str(found)


def test_one_rival_that_is_worse_but_cannot_be_told_apart_is_enough_to_say_no():
    found = Rivals.in_run(planted(right(38), every(5) | {(1, "sum"): right(36)}))
    assert not found.helps
    assert "it does best here, but cannot be told from 1 demonstration, which cost nothing" in str(
        found
    )


def test_the_most_frequent_label_and_the_unpruned_model_count_too():
    labels = (0,) * 38 + (1,) * 2
    found = Rivals.in_run(planted(right(38), every(5), labels=labels))
    assert not found.helps
    assert "nothing is learned, for the most frequent label alone does as well" in str(found)
    found = Rivals.in_run(planted(right(30), every(5), unpruned=right(31)))
    assert "leave the model unpruned: 0.7750 against 0.7500" in str(found)


def test_where_nothing_is_clipped_the_unpruned_model_is_the_choice():
    found = Rivals.in_run(planted(right(20), every(10) | {(0, "sum"): right(36)}, edits=()))
    assert not found.helps
    assert "Nothing is clipped: use 0 demonstrations: 0.9000 against 0.5000" in str(found)
    assert UNPRUNED not in {each.name for each in found.each}
    found = Rivals.in_run(planted(right(30), every(10), edits=()))
    assert "nothing that is free does better than the unpruned model" in str(found)


def test_what_is_not_read_yet_may_still_do_better():
    rivals = every(5)
    del rivals[0, "batch"]
    found = Rivals.in_run(planted(right(40), rivals))
    assert {each.name for each in found.each if each.error == NOT_READ} == {
        "0 demonstrations with batch calibration"
    }
    assert not found.helps


def test_rows_that_a_rival_was_not_asked_are_left_out_and_counted():
    run = planted(right(40), every(20))
    part = Rows(("bad", "good"), next(iter(run.rows.values())).rows[10:])
    cut = run.rivals[0].score
    shorter = replace(cut, n=30, labels=cut.labels[10:], predictions=cut.predictions[10:])
    first = replace(run.rivals[0], rows=part.digest, score=shorter)
    run = replace(run, rivals=(first, *run.rivals[1:]), rows=run.rows | {part.digest: part})
    (rival,) = (each for each in Rivals.in_run(run).each if each.gain.rows == 30)
    assert rival.accuracy == pytest.approx(10 / 30)
    assert rival.choice == 1
    run = replace(run, rivals=tuple(t for t in run.rivals if t is not first))
    nearest = replace(first, score=replace(shorter, predictions=shorter.labels))
    run = replace(run, rivals=(nearest, *run.rivals))
    assert "on the 30 rows that both were asked" in str(Rivals.in_run(run))


def test_several_draws_are_compared_for_new_draws():
    random = np.random.default_rng(0)
    own = (random.random((3, 40)) < 0.9).tolist()
    rivals = {way: (random.random((3, 40)) < 0.4).tolist() for way in every(0)}
    found = Rivals.in_run(planted(own, rivals, seeds=(0, 1, 2), unpruned=[[False] * 40] * 3))
    by_name = {each.name: each for each in found.each}
    several = by_name["1 demonstration"]
    gains = np.array(own, dtype=float) - np.array(rivals[1, "sum"], dtype=float)
    assert several.gain == seed_and_row_mean(gains)
    assert several.accuracy == pytest.approx(np.mean(rivals[1, "sum"]))
    # Without demonstrations there is one draw, against which each of the choice's stands.
    alone = by_name["0 demonstrations"]
    gains = np.array(own, dtype=float) - np.array(rivals[0, "sum"][0], dtype=float)
    assert alone.gain == seed_and_row_mean(gains)
    assert isinstance(alone.gain, Estimate)
    assert found.helps


# ---------------------------------------------------------------- what is kept


def test_a_search_says_it_in_words_and_a_table(found):
    assert f"rivals      {found.rivals}" in str(found)
    said = " ".join(as_text(search_report(found)).split())
    assert "Does clipping beat what costs nothing?" in said
    assert " ".join(str(found.rivals).split()) in said


def test_a_run_keeps_them_apart_and_computes_nothing_twice(task, tmp_path, monkeypatch):
    plain = search(MODEL, task, out=tmp_path / "run", **OPTIONS)
    before = json.loads(report(tmp_path / "run", format="json").read_text())
    real, read = Evaluator.outcomes, []

    def counted(self, edits, split, scorings):
        read.append((edits, split, self.task.shots, tuple(scorings)))
        return real(self, edits, split, scorings)

    monkeypatch.setattr(Evaluator, "outcomes", counted)
    found = search(MODEL, task, rivals=True, out=tmp_path / "run", **OPTIONS)
    assert read == [
        ((), "test", shots, scorings) for shots, scorings in ways(2, "sum", choices=False).items()
    ]
    again = search(MODEL, task, rivals=True, out=tmp_path / "run", **OPTIONS)
    assert len(read) == 3
    assert again.rivals == found.rivals
    run = read_run(tmp_path / "run")
    assert {t.key for t in run.trials.values()} == {
        t.key for look in (*plain.compared, plain.baseline, plain.clipped) for t in look.trials
    }
    assert len(run.rivals) == 8
    assert Rivals.in_run(run) == found.rivals
    kept = json.loads((tmp_path / "run" / "result.json").read_text())
    assert kept["rivals"] == json.loads(json.dumps(found.rivals.to_json()))
    page = Report.of(run)
    assert str(found.rivals) in page.summary
    assert [row["rival"] for row in page.tables["rivals"].rows] == [
        each.name for each in found.rivals.each
    ]
    after = json.loads(report(tmp_path / "run", format="json").read_text())
    del after["tables"]["rivals"]
    after["summary"].remove(str(found.rivals))
    assert after.pop("command") == f"{before.pop('command')} --rivals"
    assert after == before
    assert "Does clipping beat what costs nothing?" in report(tmp_path / "run").read_text()


def test_a_search_of_several_draws_reads_the_prompts_without_demonstrations_once(task, tmp_path):
    model = load_model(MODEL, dtype="float32")
    scorers = [Evaluator(model, task.redrawn(seed=seed)) for seed in (0, 1)]
    tested = [trial for each in scorers for trial in each.score([(), CLIP], "test")]
    rows = {each.rows("test").digest: each.rows("test") for each in scorers}
    settings = {"kind": "search", "shots": 2, "scoring": "sum"}
    run = Run(Path(), settings, {t.key: t for t in tested}, rows, spectra={}, models={})
    with RunStore(tmp_path / "run", settings) as store:
        found = read_rivals(run, scorers, store)
        kept = list(store.trials())
    assert sum(trial.setting.shots == 0 for trial in kept) == 3
    assert len(kept) == 2 * 5 + 3
    assert all(isinstance(each.gain, Estimate) for each in found.each)
