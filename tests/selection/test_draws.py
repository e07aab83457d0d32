"""A search over several draws and prompts: what it chooses by, what tests it, and that it can be
stopped."""

import csv
import random
from contextlib import nullcontext
from dataclasses import asdict, replace

import numpy as np
import pytest
from families import build, save_family, tiny_tokenizer

from eckart import Task, export, report, search
from eckart.algorithm1 import algorithm1
from eckart.analysis.findings import find
from eckart.analysis.flips import flips
from eckart.demo import MODEL, corpus
from eckart.errors import EditError, NotANumberError, StudyError, TaskError
from eckart.paper.functions.models import InContextModel
from eckart.paper.functions.task import FunctionTask
from eckart.records import Edit
from eckart.reports.results import search_report
from eckart.reports.sentences import summary
from eckart.reports.terminal import as_text
from eckart.runs import RunStore, read_run
from eckart.scoring.evaluator import Evaluator
from eckart.selection.drawn import Drawn, difference
from eckart.selection.draws import Draws, drawn_tasks
from eckart.selection.power import foresee
from eckart.statistics.crossed import seed_and_row_mean
from eckart.statistics.gain import verdict
from eckart.weights.models import load_model

SEEDS = [0, 1, 2]
OTHERS = [3, 4, 5]
OPTIONS = {"layer": 1, "rates": [0.5, 0.9], "dtype": "float32"}
VARIANTS = """
name: mood
data: {data}
template: "text: {{{{ text }}}}\\nlabel:"
label: label
shots: 2
variants:
  bare: {{template: "{{{{ text }}}}\\nlabel:"}}
  input: {{template: "input: {{{{ text }}}}\\nlabel:"}}
"""


@pytest.fixture(scope="module")
def task(mood) -> Task:
    """A task on which clipping the demonstration model's second layer gains."""
    how = {"template": corpus.TEMPLATE, "label_column": "label"}
    return Task.load(data=mood, **how, shots=2, split_sizes=(60, 50))


@pytest.fixture(scope="module")
def varied(mood, tmp_path_factory) -> Task:
    file = tmp_path_factory.mktemp("variants") / "mood.yaml"
    file.write_text(VARIANTS.format(data=mood))
    return Task.load(file, split_sizes=(40, 30))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return tmp_path_factory.mktemp("runs") / "run"


@pytest.fixture(scope="module")
def found(task, run):
    return search(MODEL, task, seeds="0..2", controls=True, out=run, **OPTIONS)


@pytest.fixture(scope="module")
def by_hand(task):
    """Every trial of the search, each draw by itself, through the plain verb."""
    model = load_model(MODEL, dtype="float32")
    scorers = {seed: Evaluator(model, task.redrawn(seed=seed)) for seed in SEEDS + OTHERS}
    edits = [(), *((Edit(1, "mlp", rate),) for rate in OPTIONS["rates"])]
    return {
        (split, seed, edit): scorers[seed](edit, split).score
        for split, seeds in (("validation", SEEDS), ("test", OTHERS))
        for seed in seeds
        for edit in edits
    }


# ---------------------------------------------------------------- what is chosen, and tested


def test_a_merit_is_the_mean_over_the_draws_and_the_choice_is_made_on_it(found, by_hand):
    means = {}
    for candidate in found.candidates:
        edits = candidate.trial.edits
        own = [by_hand["validation", seed, edits] for seed in SEEDS]
        for metric in ("accuracy", "macro_f1", "log_loss"):
            mean = np.mean([score.merits[metric] for score in own])
            assert candidate.trial.score.merits[metric] == pytest.approx(mean)
        means[candidate.rate] = candidate.trial.score.merits["accuracy"]
    assert found.rate == max(means, key=lambda rate: (round(means[rate], 12), -rate)) > 0


def test_the_test_rows_are_read_under_demonstrations_that_chose_nothing(found, by_hand, task):
    assert [t.setting.seed for t in found.clipped.trials] == OTHERS
    gains = np.array(
        [
            np.subtract(*(by_hand["test", s, e].row_merits for e in (found.edits, ())))
            for s in OTHERS
        ]
    )
    by_rows = seed_and_row_mean(gains)
    assert found.comparison.mean == pytest.approx(by_rows.mean)
    assert found.comparison.interval == pytest.approx(by_rows.interval)
    assert (found.comparison.seeds, found.comparison.rows) == (3, len(task.test))
    word = verdict(by_rows)
    assert found.verdict() == f"{word} with n = 50 test rows and 3 draws of demonstrations"
    assert any("seeds 3, 4, 5, which chose nothing" in note for note in found.notes)


def test_one_seed_is_one_draw_whichever_way_it_is_said(task):
    said = search(MODEL, task, seeds=[1], **OPTIONS)
    plain = search(MODEL, task.redrawn(seed=1), **OPTIONS)
    assert said.settings == plain.settings
    assert "draws" not in said.settings
    assert said.comparison == plain.comparison
    assert "one draw of demonstrations, seed 1" in said.verdict()


def test_control_arms_are_compared_over_the_draws(found):
    assert len(found.against) == 5
    for arm, tested in zip(found.against, found.controls, strict=True):
        assert arm.gain == difference(tested, found.clipped)
        assert arm.gain.seeds == 3
        assert arm.merit == pytest.approx(tested.score.merits["accuracy"])
    assert found.against_controls().endswith("(paired, Holm over 5)")


def test_what_failed_under_one_draw_is_not_chosen(found, task, monkeypatch):
    assert found.rate == 0.9  # which would be chosen
    real = Evaluator.outcomes

    def failing(scorer, edits, split, scorings):
        if edits and edits[0].rate == 0.9 and scorer.task.seed == 1:
            raise NotANumberError("its outputs are NaN")
        return real(scorer, edits, split, scorings)

    monkeypatch.setattr(Evaluator, "outcomes", failing)
    result = search(MODEL, task, seeds=SEEDS, **OPTIONS)
    lost = result.candidates[-1]
    assert (lost.rate, lost.trial.score) == (0.9, None)
    assert result.rate < 0.9
    assert lost.to_json()["validation"]["error"] == "mood, seed 1: its outputs are NaN"


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox", "qwen3"])
def test_draws_that_share_factors_and_states_are_the_draws_one_by_one(family, table):
    loaded = load_model(build(family), tokenizer=tiny_tokenizer(), dtype="float32")
    how = {"text_column": "review", "label_column": "verdict", "shots": 2}
    task = Task.load(data=table, **how, split_sizes=(12, 8))
    draws = Draws.of(Evaluator(loaded, task), [4, 5])
    edits = [(), (Edit(0, "all", 0.5),), (Edit(2, "mlp", 0.9),)]
    for split, seeds in (("validation", [4, 5]), ("test", [6, 7])):
        assert [scorer.task.seed for scorer in draws.on(split)] == seeds
        for drawn in draws.score(edits, split):
            alone = [Evaluator(loaded, each.task)(drawn.edits, split) for each in draws.on(split)]
            assert [t.key for t in drawn.trials] == [t.key for t in alone]
            for shared, own in zip(drawn.trials, alone, strict=True):
                for a, b in zip(
                    shared.score.log_likelihoods, own.score.log_likelihoods, strict=True
                ):
                    assert a == pytest.approx(b, abs=1e-4)


def test_rows_that_only_some_draws_have_are_missing_under_the_others(tmp_path):
    """All rows are in one file: what one draw shows as a demonstration, another asks about."""
    rows = random.Random(0)
    with (tmp_path / "few.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        writer.writerows([f"w{rows.randrange(10**6)}", "ab"[i % 2]] for i in range(24))
    task = Task.load(
        data=tmp_path / "few.csv", template="{{ text }}", label_column="label", shots=4
    )
    loaded = load_model(build("llama"), tokenizer=tiny_tokenizer(), dtype="float32")
    jobs = []

    def noted(what, rows):
        jobs.append(what)
        return nullcontext(lambda done: None)

    scorer = Evaluator(loaded, task, progress=noted)
    draws = Draws.of(scorer, [0, 1])
    assert scorer.progress is noted
    (unpruned,) = draws.score([()], "test")
    assert isinstance(unpruned, Drawn)
    values = unpruned.row_values("accuracy")
    assert values.shape == (2, draws.size("test"))
    assert np.isnan(values).any()
    assert {job.partition(":")[0] for job in jobs} == {"seed 2", "seed 3"}
    assert any(note.startswith(f"test has {values.shape[1]} rows") for note in draws.notes())
    means = np.nanmean(values, axis=1)
    assert means.mean() == pytest.approx(unpruned.score.merits["accuracy"])
    losses = np.nanmean(unpruned.row_values("log_loss"), axis=1).mean()
    assert losses == pytest.approx(unpruned.score.merits["log_loss"])


def test_of_one_file_no_row_is_tested_that_a_draw_chose_with(tmp_path):
    """Each draw sets its own demonstrations apart, so that the border between validation and test
    moves."""
    table = tmp_path / "one.csv"
    table.write_text("text,label\n" + "".join(f"row {i},{'ab'[i % 2]}\n" for i in range(300)))
    how = {"template": "{{ text }}", "label_column": "label"}
    task = Task.load(data=table, **how, shots=10)
    loaded = load_model(build("llama"), tokenizer=tiny_tokenizer(), dtype="float32")
    draws = Draws.of(Evaluator(loaded, task), [0, 1, 2])
    chose = {
        row.id
        for scorer in draws.choosing
        for row in (*scorer.task.demonstrations, *scorer.task.validation)
    }
    bare = {row.id for seed in OTHERS for row in task.redrawn(seed=seed).test}
    assert bare & chose
    for scorer in draws.testing:
        assert scorer.task.test
        assert chose.isdisjoint(row.id for row in scorer.task.test)
        again = scorer.task.redrawn(shots=4)
        assert chose.isdisjoint(row.id for row in again.test)


def test_several_prompts_of_one_draw_are_one_draw_to_what_can_be_seen(varied):
    draws = Draws.of(
        Evaluator(load_model(MODEL, dtype="float32"), varied), templates=["own", "bare", "input"]
    )
    found = foresee(draws, [Edit(1, "mlp", 0.99)])
    assert len(draws.testing) == 3
    assert found.to_json()["draws"] == 1


def test_functions_are_searched_over_draws_of_examples():
    model = load_model(InContextModel.of_size(2, 5, layers=2, width=8, heads=2).eval())
    task = FunctionTask("linear", dimension=2, shots=4, size=20)
    result = search(model, task, part="mlp", layer=0, rates=[0.5], seeds=[0, 1])
    assert "n = 20" in str(result)
    assert [t.setting.seed for t in result.baseline.trials] == [2, 3]
    with pytest.raises(TaskError, match="asks for numbers"):
        search(model, task, templates=["all"])


# ---------------------------------------------------------------- prompts


def test_a_row_under_several_prompts_is_their_mean(varied, tmp_path):
    out = tmp_path / "run"
    result = search(MODEL, varied, templates="all", out=out, **OPTIONS)
    assert result.settings["templates"] == ["own", "bare", "input"]
    assert [t.setting.task for t in result.baseline.trials] == ["mood", "mood:bare", "mood:input"]
    model = load_model(MODEL, dtype="float32")
    tested = [
        [Evaluator(model, varied.reworded(name))(edits, "test").score.row_merits for name in names]
        for names in [(None, "bare", "input")]
        for edits in [(), result.edits]
    ]
    gains = np.mean(tested[1], axis=0) - np.mean(tested[0], axis=0)
    assert result.edits
    assert result.comparison.mean == pytest.approx(gains.mean())
    assert result.comparison.interval == pytest.approx(seed_and_row_mean(gains[None]).interval)
    assert "one draw of demonstrations, seed 0, in 3 prompts" in result.verdict()
    (choice,) = find(read_run(out)).choices
    assert (choice.edit, choice.paired) == (result.edit, None)
    assert choice.gain.interval == pytest.approx(result.comparison.interval)
    assert "exact McNemar" not in str(result) + " ".join(summary(find(read_run(out))))
    assert report(out).exists()
    by_row = dict(zip((row.id for row in result.rows[-1].rows), gains, strict=True))
    turned = flips(find(read_run(out)), choice, "test")
    assert {flip.id for flip in turned} >= {row for row, gain in by_row.items() if gain}
    assert {flip.scored for flip in turned} == {3}


def test_prompts_and_draws_are_crossed(varied, tmp_path):
    out = tmp_path / "run"
    result = search(MODEL, varied, templates=["bare", "own"], seeds=[0, 1], out=out, **OPTIONS)
    draws = [(t.setting.task, t.setting.seed) for t in result.clipped.trials]
    assert draws == [("mood:bare", 2), ("mood:bare", 3), ("mood", 2), ("mood", 3)]
    (choice,) = find(read_run(out)).choices
    assert choice.gain.mean == pytest.approx(result.comparison.mean)
    assert choice.gain.interval == pytest.approx(result.comparison.interval)
    assert result.comparison.seeds == 2
    assert "2 draws of demonstrations, each in 2 prompts" in result.verdict()
    assert result.verdict()[1:] in " ".join(summary(find(read_run(out))))


# ---------------------------------------------------------------- what is kept, and said


def test_a_report_of_the_run_says_what_the_result_says(found, run, tmp_path):
    kept = read_run(run)
    said = " ".join(summary(find(kept)))
    assert said == " ".join(summary(find(found.run)))
    assert found.verdict()[1:] in said
    (choice,) = find(kept).choices
    assert choice.gain.interval == pytest.approx(found.comparison.interval)
    assert choice.naive == pytest.approx(
        found.chosen.trial.score.merits["accuracy"]
        - found.candidates[0].trial.score.merits["accuracy"]
    )
    page = report(run, tmp_path / "page.md", format="md").read_text()
    assert "unfinished" not in page
    assert "Seed by seed" in page
    assert "Does the choice beat its control arms?" in page
    shown = as_text(search_report(found))
    assert "means over 3 draws" in shown
    assert found.to_json()["test"]["draws"] == 3


def test_a_search_that_is_stopped_four_times_goes_on_where_it_was(
    found, task, run, tmp_path, monkeypatch
):
    kept, keep, stops = [], RunStore.keep, [1, 4, 8, 13]

    def stopping(store, trial):
        if len(kept) in stops:
            stops.remove(len(kept))
            raise KeyboardInterrupt
        keep(store, trial)
        kept.append(trial.key)

    how = {"seeds": SEEDS, "controls": True, "out": tmp_path / "run", **OPTIONS}
    monkeypatch.setattr(RunStore, "keep", stopping)
    while stops:
        with pytest.raises(KeyboardInterrupt):
            search(MODEL, task, **how)
        assert "unfinished" in report(tmp_path / "run", format="md").read_text()
    assert report(tmp_path / "run").exists()
    again = search(MODEL, task, **how)
    assert len(kept) == len(set(kept)), "nothing is computed twice"
    assert again.comparison == found.comparison
    assert timeless(read_run(tmp_path / "run")) == timeless(read_run(run))


def timeless(run):
    return {key: asdict(replace(trial, seconds=0)) for key, trial in run.trials.items()}


def test_seeds_that_draw_the_same_are_kept_apart_and_named(tmp_path):
    """With four rows of each class to show and all of them shown, draws differ by order alone."""
    with (tmp_path / "few.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        writer.writerows([f"word {i}", "ab"[i % 2]] for i in range(30))
    save_family("llama", tmp_path / "here")
    task = Task.load(
        data=tmp_path / "few.csv", template="{{ text }}", label_column="label", shots=1
    )
    seeds = list(range(12))
    digests = [task.redrawn(seed=seed).digest for seed in seeds]
    same = next(s for s in seeds[1:] if digests[s] in digests[:s])
    seeds = [digests.index(digests[same]), same]
    how = {"seeds": seeds, "layer": 0, "rates": [0.5], "dtype": "float32", "out": tmp_path / "run"}
    result = search(tmp_path / "here", task, **how)
    assert any("draw the same demonstrations" in note for note in result.notes)
    trials = read_run(tmp_path / "run").trials
    assert {t.setting.seed for t in trials.values() if t.split == "validation"} == set(seeds)
    # A model that was moved in between is the same one, and each of its trials is there once.
    (tmp_path / "here").rename(tmp_path / "there")
    again = search(tmp_path / "there", task, **how)
    assert again.comparison == result.comparison
    assert len(read_run(tmp_path / "run").trials) == len(trials)


def test_the_clipped_model_is_saved_and_scored_again(found, task, tmp_path):
    saved = export(found, tmp_path / "saved", MODEL, task)
    first = found.clipped.trials[0].labelled
    assert (saved.score.accuracy, saved.changed) == (first.accuracy, 0)


# ---------------------------------------------------------------- what cannot be


def test_draws_that_draw_nothing_are_refused(task, varied):
    with pytest.raises(TaskError, match="0 shots there are no demonstrations to draw"):
        drawn_tasks(task.redrawn(shots=0), [0, 1])
    assert len(drawn_tasks(task.redrawn(shots=0), [1])) == 1
    with pytest.raises(TaskError, match="no variant 'none'; it has bare, input"):
        drawn_tasks(varied, templates=["none"])
    with pytest.raises(TaskError, match="its own prompts alone"):
        drawn_tasks(task, templates=["all"])
    typed = varied.said.model_copy(update={"template": "{{ text }}"})
    with pytest.raises(TaskError, match="makes the same prompts"):
        drawn_tasks(replace(varied, said=typed), templates=["bare", "input"])


def test_a_race_is_of_one_draw(task):
    with pytest.raises(EditError, match="leave out --race"):
        search(MODEL, task, seeds=[0, 1], race=True, **OPTIONS)
    with pytest.raises(StudyError, match="runs down"):
        search(MODEL, task, seeds="4..0", **OPTIONS)
    assert search(MODEL, task, seeds=[0], race=True, **OPTIONS).race


def test_one_test_row_is_refused_before_anything_is_read(mood):
    how = {"template": corpus.TEMPLATE, "label_column": "label"}
    lonely = Task.load(data=mood, **how, shots=2, split_sizes=(60, 1))
    loaded = load_model(MODEL, dtype="float32")
    with pytest.raises(TaskError, match="one test row has no spread"):
        Draws.of(Evaluator(loaded, lonely), [0, 1])


def test_algorithm_1_takes_whatever_scores(found, task):
    """The procedure itself knows nothing of draws."""
    draws = Draws.of(Evaluator(load_model(MODEL, dtype="float32"), task), SEEDS)
    again = algorithm1(draws.score, {1: 1.0}, "mlp", [0.0, 0.5, 0.9])
    assert (again.layer, again.rates.best) == (found.layer, found.rate)
