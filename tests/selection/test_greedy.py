"""Greedy composition: what is planted is found and no more, what is promised of errors holds, and a
search that was stopped ends as if it had not been."""

import json
import math
import random
from pathlib import Path

import numpy as np
import pytest
from planted import save_planted
from results import without_timings
from samples import trial
from scipy.stats import binom

from eckart import Task, export, search
from eckart.errors import EckartError, EditError, RunError
from eckart.records import RATES, Edit, Split
from eckart.reports.page import read_report
from eckart.reports.sentences import UNENDED
from eckart.scoring.evaluator import Evaluator
from eckart.selection.controls import WORDS
from eckart.selection.course import ALPHA, Budget, log10_threshold
from eckart.selection.greedy import greedy
from eckart.selection.plan import GREEDY_RATES, Plan
from eckart.selection.racing import plan_looks
from eckart.selection.search import run_plan
from eckart.selection.settings import describe
from eckart.statistics.paired import accuracy_interval, log10_e_value
from eckart.weights.models import load_model

CANDIDATES = tuple(Edit(layer, "mlp", rate) for layer in (3, 2, 1, 0) for rate in (0.5, 0.9, 0.99))
HARM = {edit: -0.3 for edit in CANDIDATES if edit.rate == 0.99}
PLANTED = HARM | {Edit(2, "mlp", 0.9): 0.6, Edit(0, "mlp", 0.5): 0.6}


class Margins:
    """The outcome of rows that are right where their margin is above 0."""

    def __init__(self, margins):
        self.margins = margins

    def row_values(self, metric):
        right, log_loss = self.margins > 0, -np.logaddexp(0, -2 * self.margins)
        return right.astype(float) if metric == "accuracy" else log_loss


class World:
    """Rows whose margin each edit moves by an effect of its own, and by noise of its own; an edit
    whose effect is None fails."""

    def __init__(self, effects, rows, seed=0, noise=0.3):
        self.effects, self.rows, self.noise = effects, rows, noise
        self.draw = np.random.default_rng(seed)
        self.margins = self.draw.normal(0.4, 1.0, rows)
        self.moves = {edit: self.draw.normal(0, noise, rows) for edit in CANDIDATES}
        self.asked = []

    def __call__(self, candidates, split):
        part = Split(split)
        self.asked += [(edits, split) for edits in candidates]
        for edits in candidates:
            effects = [self.effects.get(edit, 0.0) for edit in edits]
            outcome = {"score": None, "status": "failed", "error": "NaN"}
            if None not in effects:
                moves = sum((self.moves[edit] for edit in edits), np.zeros(self.rows))
                margins = (self.margins + moves + sum(effects))[part.slice]
                outcome = {"score": Margins(margins)}
            yield trial(f"{split} {edits}", split=split, edits=edits, seconds=60.0, **outcome)


def planted(effects):
    return tuple(sorted(edit for edit, effect in effects.items() if effect and effect > 0))


@pytest.mark.parametrize("metric", ["accuracy", "log_loss"])
@pytest.mark.parametrize("effects", [{}, HARM, PLANTED], ids=["nothing", "harm alone", "two"])
def test_what_is_planted_is_found_and_no_more(effects, metric):
    found = [
        greedy(World(effects, 400, seed), CANDIDATES, 400, metric).edits for seed in range(100)
    ]
    assert sum(edits == planted(effects) for edits in found) >= 95


def test_of_edits_that_only_turn_rows_at_random_one_is_seldom_taken():
    """The edge of the hypothesis: rows turn often, and as often for the better."""
    even = [World({}, 300, seed, noise=2.0) for seed in range(100)]
    for world in even:
        world.margins[:] = 0.0
        world.margins += np.random.default_rng(1).choice([-1e-9, 1e-9], 300)
    errs = sum(bool(greedy(world, CANDIDATES, 300).edits) for world in even)
    assert errs <= binom.ppf(0.999, len(even), ALPHA)


def test_what_a_search_says_of_itself():
    world, told = World(PLANTED, 400), []
    found = greedy(world, CANDIDATES, 400, tell=told.append)
    first, second, last = found.steps
    assert {first.taken, second.taken} == set(planted(PLANTED))
    assert last.taken is None
    assert found.ended == "no candidate is told to be better than the composition"
    assert len(told) == found.looks + 1
    assert f"taken: {first.taken}" in told[len(first.looks) - 1]
    assert [look.rows for look in first.looks] == list(plan_looks(400))[: len(first.looks)]
    read = sum(Split(split).stop - Split(split).start for _, split in world.asked)
    assert read == found.passes
    assert len({*world.asked}) == len(world.asked), "no composition reads a row twice"
    assert first.log10_threshold == pytest.approx(math.log10(2 * 12 / ALPHA))
    assert second.log10_threshold == pytest.approx(math.log10(4 * 12 * 11 / ALPHA))
    n = last.turned_rows
    assert log10_e_value(np.ones(n - 1)) < last.log10_threshold <= log10_e_value(np.ones(n))
    assert f"{last.turned_rows} turned rows" in found.sight()
    assert json.loads(json.dumps(found.to_json()))["row_passes"] == found.passes


def test_all_pairs_of_a_step_share_its_part_of_alpha():
    """Every composition of a step less one, and every candidate beside it: the bounds add up."""
    for k in (3, 12, 24):
        errors = (
            math.comb(k, s - 1) * (k - s + 1) / 10 ** log10_threshold(s, k) for s in range(1, k + 1)
        )
        assert sum(errors) <= ALPHA


def test_no_matrix_is_clipped_twice():
    both = {Edit(2, "mlp", 0.5): 0.8, Edit(2, "mlp", 0.9): 0.8}
    found = greedy(World(both, 400), CANDIDATES, 400)
    assert len(found.edits) == 1


def test_a_budget_ends_the_search_before_the_look_that_would_exceed_it():
    whole = greedy(World(PLANTED, 400), CANDIDATES, 400)
    for most in (whole.passes - 1, 1500, 1299, 13):
        found = greedy(World(PLANTED, 400), CANDIDATES, 400, budget=Budget(evaluations=most))
        assert found.passes <= most
        assert f"beyond {most}" in found.ended
        assert set(found.edits) <= set(whole.edits)
    found = greedy(World(PLANTED, 400), CANDIDATES, 400, budget=Budget(minutes=13))
    assert (found.looks, found.ended) == (1, "13 minutes of reading are over")


def test_a_candidate_that_fails_is_out_and_what_was_taken_may_not():
    failing = PLANTED | {Edit(1, "mlp", 0.5): None}
    found = greedy(World(failing, 400), CANDIDATES, 400)
    assert found.edits == planted(PLANTED)
    assert found.steps[0].looks[0].failed == {Edit(1, "mlp", 0.5): "NaN"}
    every = dict.fromkeys(CANDIDATES)
    assert greedy(World(every, 400), CANDIDATES, 400).edits == ()

    class Broken(World):
        def __call__(self, candidates, split):
            for found in super().__call__(candidates, split):
                gone = found.edits == () or found.edits == planted(PLANTED)[:1]
                yield trial(edits=found.edits, score=None, error="NaN") if gone else found

    with pytest.raises(RunError, match="the unpruned model cannot be scored: NaN"):
        greedy(Broken(PLANTED, 400), CANDIDATES, 400)


def test_another_row_adds_no_evidence_on_average():
    draw = np.random.default_rng(0)
    for rows in (0, 5, 100):
        seen = draw.uniform(-1, 1, rows)
        up, down = draw.uniform(0.01, 1), draw.uniform(0.01, 1)
        p = down / (up + down)  # so that the mean of the next is 0
        higher, lower, so_far = (
            10 ** log10_e_value(rows)
            for rows in (np.append(seen, up), np.append(seen, -down), seen)
        )
        assert p * higher + (1 - p) * lower == pytest.approx(so_far)


def test_looking_often_errs_as_seldom_as_promised():
    """Skewed differences of mean 0: mostly a little better, now and then much worse."""
    draw, errs = np.random.default_rng(0), 0
    for _ in range(400):
        rows = np.where(draw.random(240) < 0.9, 0.1, -0.9)
        errs += any(log10_e_value(rows[:n]) >= math.log10(20) for n in range(30, 241, 30))
    assert errs <= 400 * ALPHA
    with pytest.raises(EckartError, match="beyond -1 to 1"):
        log10_e_value(np.array([0.0, 1.5]))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A model with noise planted in two layers, and its task."""
    folder, table = save_planted(tmp_path_factory.mktemp("planted") / "model", 460)
    return load_model(folder), task_of(table)


def task_of(table: Path) -> Task:
    return Task.load(
        data=table,
        text_column="review",
        label_column="verdict",
        template="{{ review }}",
        shots=0,
        split_sizes=(340, 110),
    )


OPTIONS = {"part": "down", "strategy": "greedy", "rates": [0.5, 0.9]}
NOISE = (Edit(2, "down", 0.5), Edit(4, "down", 0.5))


@pytest.mark.parametrize("seed", [0, 1])
def test_a_real_model_is_rid_of_its_noise(tmp_path, seed):
    folder, table = save_planted(tmp_path / "noisy", 460, seed=seed)
    found = search(load_model(folder), task_of(table), **OPTIONS)
    assert found.edits == NOISE
    assert found.comparison.difference > 0.05


def test_a_real_model_without_noise_is_left_alone(tmp_path):
    folder, table = save_planted(tmp_path / "clean", 460, noisy=())
    found = search(load_model(folder), task_of(table), **OPTIONS)
    assert found.edits == ()
    assert found.comparison.difference == 0
    assert "nothing is clipped" in str(found)


def test_by_log_loss_the_same_is_found(tmp_path):
    folder, table = save_planted(tmp_path / "sure", 460, flipped=0.0)
    found = search(load_model(folder), task_of(table), **OPTIONS, metric="log_loss")
    assert found.edits == NOISE


def test_a_composition_is_tested_saved_and_reported_like_an_edit(tiny, tmp_path):
    model, task = tiny
    run = tmp_path / "run"
    found = search(model, task, **OPTIONS, controls=True, guard=True, out=run)
    assert [[edit.cut for edit in arm.edits] for arm in found.against] == [
        [cut, cut] for cut in ("random", "random1", "random2", "largest")
    ]
    assert found.guarded.edits == NOISE
    saved = export(found, tmp_path / "saved", model, task)
    assert saved.score.predictions == found.clipped.score.predictions
    document = json.loads((run / "result.json").read_text())
    assert document["edits"] == ["2:down:0.5", "4:down:0.5"]
    assert document["greedy"]["row_passes"] == found.course.passes
    assert document["controls"]["arms"][0]["edit"] == "2:down:0.5:random, 4:down:0.5:random"
    page = read_report(run, None, "html")
    assert page.summary[0].startswith(
        "Gain with n = 110 test rows and no demonstrations: clipping 2:down:0.5, 4:down"
    )
    assert len(page.tables["steps"].rows) == found.course.looks
    cells = {row["part"]: row for row in page.tables["cells"].to_json()}
    for part, look in ((None, found.baseline), ("2:down:0.5, 4:down:0.5", found.clipped)):
        assert cells[part]["test_accuracy"] == look.score.accuracy
        assert tuple(cells[part]["test_accuracy_interval"]) == accuracy_interval(look.score)
        assert cells[part]["test_macro_f1"] == look.score.macro_f1
    for row, arm in zip(page.tables["controls"].rows, found.against, strict=True):
        assert (row["arm"], row["control"], row["says"]) == (arm.cut, arm.merit, WORDS[arm.verdict])
        assert row["p_adjusted"] == pytest.approx(arm.p_adjusted)
    (choice,) = page.tables["choices"].rows
    assert choice["picks"] == "2:down:0.5, 4:down:0.5 (1 of 1)"
    assert (choice["gain"], choice["rows"]) == (found.comparison.difference, 110)
    words = "matrix 'down' of layer 2 at rate 0.5 and matrix 'down' of layer 4 at rate 0.5"
    assert page.opening.title.startswith("It got better: ")
    assert page.opening.title.endswith(f"by clipping {words}")
    assert str(found.guarded) in dict(page.opening.answers)["What else changed?"]
    assert page.opening.picture is not None
    assert page.flipped[0].fixed == found.comparison.fixed
    assert "2:down:0.5, 4:down:0.5" in page.to_html()


def test_a_composition_of_nothing_is_reported_like_a_search_that_clips_nothing(tiny, tmp_path):
    model, task = tiny
    search(model, task, **{**OPTIONS, "rates": [0.9]}, places=1, minutes=1e-9, out=tmp_path)
    page = read_report(tmp_path, None, "html")
    assert page.opening.title == "Nothing clipped"
    assert page.opening.picture is None
    assert dict(page.opening.answers)["Did it help?"].startswith("No edit was told to be better")
    assert page.summary[0].endswith("so nothing is clipped (no demonstrations).")


def test_over_several_draws_a_row_is_worth_its_mean(tiny, tmp_path):
    model, task = tiny
    task = task.redrawn(shots=2)
    found = search(model, task, **OPTIONS, seeds=[0, 1], out=tmp_path)
    assert found.edits == NOISE
    assert len(found.clipped.trials) == 2
    look = found.course.steps[0].looks[0]
    before, after = (
        next(each for each in found.course.scored if each.edits == edits)
        for edits in ((), (look.best,))
    )
    first, second = (
        {row.id: now - was for row, was, now in zip(rows, *right, strict=False)}
        for was, now in zip(before.trials, after.trials, strict=True)
        if (rows := found.run.rows[was.rows].rows[was.split.slice])
        and (right := (was.score.right, now.score.right))
    )
    shared = [(first[name] + second[name]) / 2 for name in first.keys() & second.keys()]
    assert look.gain == pytest.approx(np.mean(shared))
    page = read_report(tmp_path, None, "html")
    assert page.summary[0].startswith("Gain with n = 1")
    assert "2 draws of demonstrations" in page.summary[0]


class Killed(Evaluator):
    left = 10_000

    def outcomes(self, edits, split, scorings):
        if self.left == 0:
            raise KeyboardInterrupt
        self.left -= 1
        return super().outcomes(edits, split, scorings)


@pytest.mark.parametrize(
    ("limit", "kills"), [({}, 2), ({"evaluations": 4000}, 1), ({"minutes": 1e-9}, 1)]
)
def test_a_search_that_was_killed_anywhere_goes_on_and_ends_the_same(tiny, tmp_path, limit, kills):
    model, task = tiny
    plan = Plan(**{**OPTIONS, "rates": (0.5, 0.9)}, controls=True, **limit)
    calm = Killed(model, task)
    run_plan(plan, calm, tmp_path / "calm")
    read = 10_000 - calm.left
    for number, at in enumerate(random.Random(0).sample(range(1, read), kills)):
        killed, rest = Killed(model, task), Killed(model, task)
        killed.left = at
        with pytest.raises(KeyboardInterrupt):
            run_plan(plan, killed, tmp_path / str(number))
        if at > 1:  # an edit was read
            assert UNENDED in read_report(tmp_path / str(number), None, "html").summary
        run_plan(plan, rest, tmp_path / str(number))
        assert 10_000 - rest.left == read - at, "nothing is read twice"
        assert without_timings(tmp_path / str(number)) == without_timings(tmp_path / "calm")


def test_a_greedy_search_is_another_run_and_algorithm_1_the_run_it_always_was(tiny):
    evaluator = Evaluator(*tiny)
    assert "strategy" not in describe(Plan(), evaluator)
    settings = describe(Plan(strategy="greedy", minutes=2), evaluator)
    assert (settings["strategy"], settings["places"], settings["minutes"]) == ("greedy", 8, 2)
    assert settings["rates"] == [0, 0.5, 0.9, 0.99]


def test_greedy_by_condition_number_begins_at_the_layer_of_algorithm_1(tiny, tmp_path):
    model, task = tiny
    options = {**OPTIONS, "layer": "condition-number", "places": 2, "minutes": 1e-9}
    found = search(model, task, **options)
    numbers = search(model, task, part="down", rates=[0.5]).condition_numbers
    candidates = list(dict.fromkeys(edit.layer for edit in found.course.candidates))
    assert candidates == sorted(sorted(numbers, key=numbers.get)[-3:])[:0:-1]
    assert candidates != [5, 4]
    assert Plan(layer="condition-number") == Plan(layer="auto") == Plan()


def test_rates_that_are_named_are_tried_though_they_are_the_default_of_the_other_strategy():
    assert Plan(strategy="greedy").tried == GREEDY_RATES
    assert Plan(strategy="greedy", rates=RATES).tried == Plan().tried == RATES


def test_a_budget_that_allows_no_look_is_said(tiny, tmp_path):
    with pytest.raises(
        EditError, match=r"--evaluations 1 allows no look: the first reads \d+ rows"
    ):
        run_plan(Plan(**OPTIONS, evaluations=1), Evaluator(*tiny), tmp_path)


def test_a_result_that_is_damaged_is_none(tiny, tmp_path):
    run_plan(Plan(**OPTIONS), Evaluator(*tiny), tmp_path)
    assert UNENDED not in read_report(tmp_path, None, "html").summary
    for content in (b"{}", b'{"greedy":', b"\xff\xfe"):
        (tmp_path / "result.json").write_bytes(content)
        page = read_report(tmp_path, None, "html")
        assert UNENDED in page.summary
        assert page.opening.title == "No choice was tested yet"
        assert "choices" not in page.tables


def test_what_cannot_be_compared_row_by_row_is_refused(tiny):
    model, task = tiny
    object.__setattr__(task, "metric", "macro_f1")
    try:
        with pytest.raises(EditError, match=r"macro_f1 .*choose --metric accuracy or log_loss"):
            search(model, task, **OPTIONS)
    finally:
        object.__setattr__(task, "metric", "accuracy")
