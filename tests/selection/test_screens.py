"""Screens: each puts every place in order, by what it says it goes by, and the run keeps it."""

import json
from collections.abc import Sequence
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from families import bits, build, same_bits, tiny_tokenizer
from samples import trial

from eckart import Task, report, search
from eckart.algorithm1 import worst_layer
from eckart.errors import EditError, RunError, TaskError
from eckart.records import Edit, Split
from eckart.scoring.evaluator import Evaluator
from eckart.scoring.methods import score
from eckart.selection.order import Order, Place
from eckart.selection.plan import Plan
from eckart.selection.recorded import Recorded
from eckart.selection.screens import SCREENS, Screening, check_screen, screened, spare_rows
from eckart.selection.search import run_plan
from eckart.selection.settings import describe
from eckart.weights.linalg import Factor
from eckart.weights.models import load_model

LAYERS = 3
RATES = (0.0, 0.5, 0.9)
MLPS = [Place(layer, "mlp") for layer in range(LAYERS)]
MATRICES = [Place(layer, part) for layer in range(LAYERS) for part in ("q", "gate", "up", "down")]


@pytest.fixture
def task(table) -> Task:
    """Of 60 rows, 8 are shown or tested on, 24 chosen by, and the others are spare."""
    own = {"text_column": "review", "label_column": "verdict"}
    return Task.load(data=table, **own, shots=2, split_sizes=(24, 6))


def evaluator(task: Task, family: str = "llama") -> Evaluator:
    return Evaluator(load_model(build(family), tokenizer=tiny_tokenizer()), task)


def screening(scorer: Evaluator, places: Sequence[Place] = MLPS, **said) -> Screening:
    asked = Recorded(scorer, None).score
    return Screening([scorer], asked, places, **{"rates": RATES, "metric": "accuracy", **said})


@pytest.mark.parametrize("places", [MLPS, MATRICES, MLPS + MATRICES], ids=["parts", "each", "both"])
@pytest.mark.parametrize("name", SCREENS)
def test_every_place_is_put_in_order_and_the_model_left_as_it_was(task, name, places):
    scorer = evaluator(task)
    before = bits(scorer.model.model)
    order = screened("random:1" if name == "random" else name, screening(scorer, places))
    assert sorted(order.scores) == sorted(places)
    assert same_bits(scorer.model.model, before)
    assert Order.from_json(json.loads(json.dumps(order.to_json()))).scores == order.scores


def test_the_first_by_condition_number_is_algorithm_1s(task):
    scorer = evaluator(task)
    for top_k in (1, 2, 3):
        order = screened("condition-number", screening(scorer, top_k=top_k))
        numbers = {place.layer: number for place, number in order.scores.items()}
        assert order.first.layer == worst_layer(numbers, top_k)
        assert list(numbers.values())[top_k:] == sorted(list(numbers.values())[top_k:])[::-1]


def test_last_and_random(task):
    scorer = evaluator(task)
    assert [p.layer for p in screened("last", screening(scorer)).scores] == [2, 1, 0]
    drawn = [tuple(screened(f"random:{seed}", screening(scorer)).scores) for seed in range(20)]
    assert drawn[3] == tuple(screened("random:3", screening(scorer)).scores)
    assert {order[0] for order in drawn} == {*MLPS}


# ---------------------------------------------------------------- gradient


def test_a_gradient_is_taken_on_rows_that_nothing_else_is_made_of(task):
    other = task.redrawn(seed=1)
    for drawn in (task, other):
        used = {*drawn.demonstrations, *drawn.validation, *drawn.test}
        spare = {row.id for row in drawn.spare}
        assert not spare & {row.id for row in used}
        assert len(spare) + len(used) == 60
    assert len({row.id for row in task.spare} & {row.id for row in other.spare}) >= 20
    order = screened("gradient", screening(evaluator(task), rows=7))
    assert "on 7 rows that are no demonstration, validation or test row" in order.by


def test_the_order_is_by_the_largest_fall_that_the_slopes_promise(task):
    scorer = evaluator(task, "gpt2")  # fused and transposed
    rows, slopes = spare_rows(scorer, 100), {}

    def take(weight, gradient):
        slopes[weight.layer, weight.name] = Factor.of(weight.read()).slopes(gradient).tolist()

    scorer.loss_gradients(rows, [w for own in scorer.anatomy.layers for w in own], take)
    places = [*MLPS, *(Place(layer, "v") for layer in range(LAYERS))]
    order = screened("gradient", screening(scorer, places))

    def fall(layer: int, name: str, kept: int) -> float:
        return sum(slopes[layer, name][kept:])

    for (layer, part), promised in order.scores.items():
        names = ("fc_in", "fc_out") if part == "mlp" else ("v",)
        # min(m, n) is 32 throughout; rates 0.5 and 0.9 keep 16 and 3.
        assert promised == pytest.approx(
            max(sum(fall(layer, name, kept) for name in names) for kept in (16, 3))
        )
    assert [*order.scores.values()] == sorted(order.scores.values(), reverse=True)


def test_the_fall_is_that_of_the_loss_where_little_is_cut(task):
    """A matrix whose smallest singular value is next to nothing: first order is all there is."""
    model = build("llama")
    (weight,) = Evaluator(load_model(model, tokenizer=tiny_tokenizer()), task).anatomy.select(
        1, "up"
    )
    u, s, vt = torch.linalg.svd(weight.read(), full_matrices=False)
    weight.write_(u @ torch.diag(torch.where(s == s.min(), 0.02, s)) @ vt)
    scorer = Evaluator(load_model(model, tokenizer=tiny_tokenizer()), task)
    rate = 1 / 32  # cuts one of 32
    order = screened("gradient", screening(scorer, [Place(1, "up")], rates=(rate,)))
    rows, losses = spare_rows(scorer, 100), []
    scorer._fitted["validation"] = rows  # the loss on the very rows of the gradient
    for edits in ((), (Edit(1, "up", rate),)):
        losses.append(scorer(edits, "validation").score.log_loss)
    promised = order.scores[Place(1, "up")]
    assert abs(promised) > 1e-5
    assert losses[0] - losses[1] == pytest.approx(promised, rel=0.05)


def test_several_draws_count_alike(task):
    draws = [evaluator(task), evaluator(task.redrawn(seed=1))]
    alone = [screened("gradient", screening(draw, rates=(0.5,))).scores for draw in draws]
    both = screened("gradient", Screening(draws, draws[0].score, MLPS, (0.5,), "accuracy")).scores
    for place in MLPS:
        assert both[place] == pytest.approx(sum(scores[place] for scores in alone) / 2)


# ---------------------------------------------------------------- validation


def test_validation_reads_half_of_the_rows_at_the_middle_rate(task):
    scorer = evaluator(task)
    order = screened("validation", screening(scorer, rates=(0.0, 0.1, 0.5, 0.9)))
    trials = {
        t.edits: t for t in scorer.score([(Edit(i, "mlp", 0.5),) for i in range(3)], "validation")
    }
    for (layer, part), merit in order.scores.items():
        right = trials[(Edit(layer, part, 0.5),)].score.right[:12]
        assert merit == sum(right) / 12
    assert [*order.scores.values()] == sorted(order.scores.values(), reverse=True)
    assert order.read == 3 * 12
    assert order.by == "accuracy at rate 0.5 on the first 12 validation rows, 36 read in all"


def test_by_another_metric_nothing_is_dropped(task):
    scorer = evaluator(task)
    order = screened("validation", screening(scorer, metric="log_loss"))
    merits = {
        t.edits[0].layer: t.score.merits["log_loss"]
        for t in scorer.score([(Edit(i, "mlp", 0.9),) for i in range(3)], "validation[0:12]")
    }
    assert {place.layer: merit for place, merit in order.scores.items()} == merits
    assert order.first.layer == max(merits, key=merits.get)


def test_what_is_clearly_beaten_is_read_no_further_and_stands_behind():
    rows = SimpleNamespace(rows=lambda split: SimpleNamespace(rows=range(400)))

    def score_edits(candidates, split):
        """Layer 0 is always right, layer 1 never, layer 2 mostly, layer 3 fails."""
        for edits in candidates:
            layer, split = edits[0].layer, Split(split)
            right = {0: 1.0, 1: 0.0, 2: 0.98}.get(layer)
            labels = [int(row % 50 >= 50 * (right or 0)) for row in range(split.stop)[split.slice]]
            outcome = score(np.array([[0.0, -1.0]] * len(labels)), labels, ["a"] * len(labels))
            yield trial(edits=edits, split=split, score=None if right is None else outcome)

    told: list[str] = []
    places = [Place(layer, "mlp") for layer in range(4)]
    asked = Screening([rows], score_edits, places, RATES, "accuracy", tell=told.append)
    order = screened("validation", asked)
    assert [(place.layer, merit) for place, merit in order.scores.items()] == [
        *[(0, 1.0), (2, 0.98)],
        *[(1, 0.0), (3, None)],
    ]
    assert order.read == 200 + 200 + 100 + 100
    assert len(told) == 1
    assert told[0].startswith("layer 1, mlp dropped after 100 rows: 100 worse, 0 better than layer")


# ---------------------------------------------------------------- a search


@pytest.mark.parametrize("layer", ["gradient", "validation"])
def test_a_search_over_several_draws(task, tmp_path, layer, monkeypatch):
    """No gradient is taken on a row that any draw validates or tests."""
    taken = []
    real = Evaluator.loss_gradients

    def noted(self, rows, *rest):
        taken.extend(prompt.id for prompt in rows.prompts)
        real(self, rows, *rest)

    monkeypatch.setattr(Evaluator, "loss_gradients", noted)
    loaded = load_model(build("llama"), tokenizer=tiny_tokenizer())
    said = {"rates": RATES, "layer": layer, "seeds": "0..2", "out": tmp_path / "run"}
    result = search(loaded, task, **said)
    assert result.layer == result.order.first.layer
    used = {row.id for rows in result.rows for row in rows.rows}
    assert bool(taken) == (layer == "gradient")
    assert not used & {*taken}
    if layer == "validation":
        assert result.order.read == 3 * 3 * 12
    assert search(loaded, task, **said).to_json() == result.to_json()
    assert f"Screen {layer} puts" in report(tmp_path / "run", format="md").read_text()


@pytest.mark.parametrize("layer", ["gradient", "validation", "last", "random:2"])
def test_a_search_clips_the_first_layer_of_the_screen(task, tmp_path, layer, monkeypatch):
    loaded = load_model(build("llama"), tokenizer=tiny_tokenizer())
    result = search(loaded, task, rates=RATES, layer=layer, out=tmp_path / "run")
    said = json.loads((tmp_path / "run" / "result.json").read_text())
    assert said["screen"]["name"] == layer
    assert next(p["layer"] for p in said["screen"]["places"]) == result.layer == said["layer"]
    assert said["condition_numbers"] == {}
    assert said["settings"]["layer"] == layer
    assert f"{layer} puts layer {result.layer}, mlp first of 3, by " in str(result)
    page = report(tmp_path / "run", format="md").read_text()
    assert f"Screen {layer} puts layer {result.layer}, mlp first of 3" in page
    assert f"Where to clip: screen {layer}" in page

    # Once more: nothing is computed, and the end is the same.
    monkeypatch.setattr(Evaluator, "loss_gradients", None)
    monkeypatch.setattr(Evaluator, "outcomes", None)
    again = search(loaded, task, rates=RATES, layer=layer, out=tmp_path / "run")
    assert again.to_json() == result.to_json()


def test_what_a_screen_read_on_validation_counts_as_tried(task, tmp_path):
    loaded = load_model(build("llama"), tokenizer=tiny_tokenizer())
    result = search(loaded, task, rates=RATES, layer="validation", out=tmp_path / "run")
    page = report(tmp_path / "run", format="md").read_text()
    assert "4 edits beside the unpruned model" in page  # 2 rates, and 2 other layers
    assert len({trial.edits for trial in result.compared}) == 5


def test_the_chosen_layers_row_is_of_all_rows_alone(task, tmp_path):
    """Of the chosen layer the screen read some of the rows before: they count once."""
    loaded = load_model(build("llama"), tokenizer=tiny_tokenizer())
    result = search(loaded, task, rates=(0, 0.9), layer="validation", out=tmp_path / "run")
    cells = json.loads(report(tmp_path / "run", format="json").read_text())["tables"]["cells"]
    (row,) = (row for row in cells if row["layer"] == result.layer)
    whole = result.candidates[1].trial.score
    assert row["validation_log_loss"] == pytest.approx(whole.log_loss)


def test_the_papers_screen_has_two_names_and_needs_no_settings_of_its_own(task):
    scorer = evaluator(task)
    plans = [Plan.of(said, "") for said in ({}, {"layer": "auto"}, {"layer": "condition-number"})]
    assert plans[0] == plans[1] == plans[2]
    assert "screen_rows" not in describe(plans[0], scorer)
    assert Plan.of({"layer": "-1"}, "").layer == -1


def test_other_rows_make_another_run(task, tmp_path):
    scorer = evaluator(task)
    run_plan(Plan(layer="gradient", screen_rows=5, rates=RATES), scorer, tmp_path / "run")
    with pytest.raises(RunError, match=r"other settings.*screen_rows"):
        run_plan(Plan(layer="gradient", screen_rows=6, rates=RATES), scorer, tmp_path / "run")


# ---------------------------------------------------------------- what cannot be done


@pytest.mark.parametrize("name", ["gradiant", "random", "random:x", "last:3", "random:-1", ""])
def test_screens_that_are_none(name):
    with pytest.raises(EditError, match=f"layer '{name}' is"):
        check_screen(name)


def test_no_rows_are_left_for_a_gradient(table, tmp_path):
    own = {"text_column": "review", "label_column": "verdict"}
    task = Task.load(data=table, **own, shots=10)
    with pytest.raises(TaskError, match="none is left to take a gradient on"):
        search(
            build("llama"), task, layer="gradient", out=tmp_path / "run", tokenizer=tiny_tokenizer()
        )
    assert not (tmp_path / "run").exists()


def test_a_scoring_that_needs_all_rows(task):
    scorer = Evaluator(
        load_model(build("llama"), tokenizer=tiny_tokenizer()), task, scoring="batch"
    )
    with pytest.raises(TaskError, match="--layer validation read a split in parts"):
        run_plan(Plan(layer="validation"), scorer)


def test_a_task_that_asks_for_numbers():
    loading = pytest.importorskip("eckart.paper.functions.loading")
    tasks = pytest.importorskip("eckart.paper.functions.task")
    model = loading.loaded_model("linear-5", device="cpu")
    numbers = tasks.FunctionTask("linear", dimension=5, shots=4, size=12)
    with pytest.raises(EditError, match="log-loss of right labels"):
        search(model, numbers, layer="gradient", rates=RATES)
    assert (
        search(model, numbers, layer="last", rates=(0, 0.5)).layer
        == len(model.model.transformer.h) - 1
    )


@pytest.mark.parametrize("layer", ["gradient", "validation", "last"])
def test_rates_that_cut_nothing(layer):
    with pytest.raises(EditError, match="rate 0 cuts nothing"):
        Plan(layer=layer, rates=(0.0,))


def test_rows_for_a_gradient_that_nobody_takes():
    with pytest.raises(EditError, match=r"--screen-rows 5 .* add --layer gradient"):
        Plan(screen_rows=5)
