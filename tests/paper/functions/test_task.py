"""Functions are a task like any other: the same search and sweep, with the squared error as the
score."""

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch

import eckart
from eckart.errors import EckartError, EditError, ModelError, NotANumberError, RunError, TaskError
from eckart.paper.functions.classes import CLASSES
from eckart.paper.functions.loading import loaded_model
from eckart.paper.functions.models import InContextModel, LinearAttentionModel
from eckart.paper.functions.task import FunctionScorer, FunctionTask
from eckart.records import Edit, Split, Trial
from eckart.reports.page import report
from eckart.runs import read_run
from eckart.scoring.evaluator import scorer_of
from eckart.statistics.scores import SquaredErrors
from eckart.sweeps.cost import estimate, expected_trials
from eckart.weights.models import LoadedModel, load_model

TASK = FunctionTask("linear", dimension=2, shots=3, size=20)
RATES = (0.0, 0.5, 0.9)


@pytest.fixture(scope="module")
def kept(trained):
    """A tiny model of linear functions of two coordinates, which reads five points."""
    return loaded_model(trained)


def by_hand(model, task, split) -> list[float]:
    """Return each row's squared error over the variance, one prompt at a time."""
    prompts, found = task.prompts(split), []
    for x, y in zip(prompts.x, prompts.y, strict=True):
        hidden = torch.cat(
            [y[:-1], torch.tensor([math.nan])]
        )  # the asked value must not be looked at
        with torch.no_grad():
            predicted = model(x[None], torch.nan_to_num(hidden)[None], [task.shots])[0, 0]
        found.append(
            float((predicted - y[-1]) ** 2) / CLASSES[task.function].variance(task.dimension)
        )
    return found


@pytest.mark.parametrize("function", CLASSES)
def test_a_task_draws_rows_and_examples_apart(function):
    task = replace(TASK, function=function)
    first, other = task.prompts("test"), task.redrawn(seed=1).prompts("test")
    assert first.x.shape == (20, 4, 2)
    assert first.y.shape == (20, 4)
    assert torch.equal(first.x[:, -1], other.x[:, -1])  # the same points are asked for,
    assert torch.equal(first.y[:, -1], other.y[:, -1])  # of the same functions,
    assert not torch.equal(first.x[:, :-1], other.x[:, :-1])  # after other examples
    assert not torch.equal(first.x, task.prompts("validation").x)
    assert not torch.equal(first.x, replace(task, split_seed=1).prompts("test").x)
    assert torch.equal(first.x, task.prompts("test").x)
    assert task.digest != task.redrawn(seed=1).digest
    assert (
        task.rows_digest("test")
        == task.redrawn(seed=1).rows_digest("test")
        != task.rows_digest("validation")
    )


def test_the_rows_say_what_is_asked():
    row = TASK.rows("test").rows[3]
    assert row.id == "3"
    assert row.text.startswith("f(")
    assert f"= {float(TASK.prompts('test').y[3, -1]):.3f}" in row.text
    assert row.label is None


@pytest.mark.parametrize(
    "model",
    [
        InContextModel.of_size(2, 5, layers=2, width=8, heads=2),
        InContextModel.of_size(2, 5, layers=1, width=8, heads=2, layout="separate"),
        LinearAttentionModel.of_size(2, 5, layers=2),
    ],
    ids=["paired", "separate", "linear"],
)
@pytest.mark.parametrize("batch_tokens", [None, 10])
def test_a_score_is_what_a_loop_over_prompts_finds(model, batch_tokens):
    scorer = scorer_of(TASK, load_model(model.eval()), batch_tokens=batch_tokens)
    outcome = scorer([], "test").score
    assert isinstance(outcome, SquaredErrors)
    assert outcome.errors == pytest.approx(by_hand(model, TASK, "test"), rel=1e-5)
    assert outcome.squared_error == pytest.approx(np.mean(outcome.errors))
    part = scorer([], Split.part("test", 5, 9)).score
    assert isinstance(part, SquaredErrors)
    assert part.errors == pytest.approx(outcome.errors[5:9], rel=1e-5)


def test_clipping_changes_the_score_and_leaves_the_model(kept):
    scorer, edit = FunctionScorer(kept, TASK), Edit(0, "mlp", 0.9)
    before = {name: tensor.clone() for name, tensor in kept.model.state_dict().items()}
    unpruned, clipped = scorer([], "test"), scorer([edit], "test")
    assert unpruned.key != clipped.key
    assert unpruned.score != clipped.score
    assert all(
        torch.equal(before[name], tensor) for name, tensor in kept.model.state_dict().items()
    )
    with eckart.clip(kept.model, edit):
        assert clipped.score.errors == pytest.approx(by_hand(kept.model, TASK, "test"), rel=1e-4)


def test_a_search_is_algorithm_1_by_hand(kept, tmp_path):
    study = eckart.search(kept, TASK, part="mlp", rates=RATES, out=tmp_path / "run")
    scorer = FunctionScorer(kept, TASK)
    errors = {
        rate: scorer([Edit(0, "mlp", rate)], "validation").score.squared_error for rate in RATES
    }
    assert study.rate == min(errors, key=lambda rate: (round(errors[rate], 12), rate))
    assert [c.trial.score.squared_error for c in study.candidates] == pytest.approx(
        list(errors.values())
    )
    baseline, clipped = (by_hand_test(scorer, edits) for edits in ([], [study.edit]))
    assert study.comparison.difference == pytest.approx(np.mean(baseline) - np.mean(clipped))
    assert "squared error on test, n = 20" in str(study)
    assert study.to_json()["settings"]["metric"] == "squared_error"
    again = eckart.search(kept, TASK, part="mlp", rates=RATES, out=tmp_path / "run")
    assert [c.trial for c in again.candidates] == [
        c.trial for c in study.candidates
    ]  # seconds and all: kept


def by_hand_test(scorer, edits) -> tuple[float, ...]:
    return scorer(edits, "test").score.errors


def test_a_search_never_takes_a_worse_rate(kept):
    class Worse(FunctionScorer):
        """The more is clipped, the larger every error."""

        def outcomes(self, edits, split, scorings):
            error = 0.5 + sum(edit.rate for edit in edits)
            return [SquaredErrors(3, error, (error,) * 3)]

    from eckart.selection.plan import Plan
    from eckart.selection.search import run_plan

    assert run_plan(Plan(rates=RATES), Worse(kept, TASK)).rate == 0


def test_a_sweep_is_the_same_scores_kept(kept, tmp_path):
    ask = {
        "layers": "all",
        "parts": ["attn", "mlp"],
        "rates": RATES,
        "seeds": [0, 1],
        "test": "all",
    }
    result = eckart.sweep([kept], [TASK], out=tmp_path / "run", **ask)
    trials = result.run.trials
    assert len(trials) == 2 * 2 * (1 + 2 * 2)  # seeds, splits, and edits
    for trial in trials.values():
        scorer = FunctionScorer(kept, TASK.redrawn(seed=trial.setting.seed))
        assert trial.score.errors == pytest.approx(
            scorer(trial.edits, trial.split).score.errors, rel=1e-6
        )
    assert {line.metric for line in result.lines} == {"squared_error"}
    again = eckart.sweep([kept], [TASK], out=tmp_path / "run", **ask)
    assert again.run.trials == trials


@dataclass(frozen=True)
class Helped(FunctionTask):
    """A task on which whatever is clipped halves every error."""


class HelpedScorer(FunctionScorer):
    def outcomes(self, edits, split, scorings):
        errors = tuple(
            (1 + abs(float(y)) / 10) / (2 if edits else 1) for y in self.prepare(split).y[:, -1]
        )
        return [SquaredErrors(len(errors), sum(errors) / len(errors), errors)]


@scorer_of.register
def _(task: Helped, model: LoadedModel, **options: Any) -> HelpedScorer:
    return HelpedScorer(model, task, **options)


def test_a_sweep_says_what_its_best_does_on_test(kept, tmp_path):
    task = Helped("linear", dimension=2, shots=3, size=20)
    result = eckart.sweep([kept], [task], layers="all", rates=RATES, out=tmp_path / "run")
    _, mlp = result.lines
    assert mlp.best == pytest.approx(mlp.unpruned / 2)
    assert mlp.edit == Edit(0, "mlp", 0.5)  # of equal errors the smaller rate
    assert (
        f"validation squared error {mlp.unpruned:.4g} -> {mlp.best:.4g} at 0:mlp:0.5 (best of 2; n"
        " = 20)" in str(mlp)
    )
    assert f"test {mlp.test.difference:+.3g} smaller (95% interval" in str(mlp)
    assert "paired t test" in str(mlp)
    study = eckart.search(kept, task, part="mlp", rates=RATES)
    assert "gain with n = 20 test rows" in str(study)
    assert f"; {mlp.test.fixed} closer, 0 further off)" in str(study)


def test_a_trial_of_errors_comes_back_whole(kept):
    trial = FunctionScorer(kept, TASK)([Edit(0, "attn", 0.5)], "test")
    assert Trial.from_json(trial.to_json()) == trial
    with pytest.raises(EckartError, match="'linear-2' asks for numbers"):
        _ = trial.labelled


def test_a_sweep_of_functions_has_a_report(kept, tmp_path):
    eckart.sweep([kept], [TASK], layers="all", rates=RATES, out=tmp_path / "run")
    page = report(tmp_path / "run", tmp_path / "page.html").read_text(encoding="utf-8")
    assert "squared error" in page


def test_a_model_that_predicts_no_number_fails_that_trial_alone(trained, tmp_path):
    model = loaded_model(trained)

    class Broken(FunctionScorer):
        """Whatever is clipped predicts no number."""

        def outcomes(self, edits, split, scorings):
            if edits:
                raise NotANumberError("the model predicts no number for 20 of 20 functions")
            return super().outcomes(edits, split, scorings)

    from eckart.selection.plan import Plan
    from eckart.selection.search import run_plan

    study = run_plan(Plan(rates=RATES), Broken(model, TASK), tmp_path / "run")
    assert study.rate == 0
    failed = [
        trial for trial in read_run(tmp_path / "run").trials.values() if trial.status == "failed"
    ]
    assert len(failed) == 2
    with torch.no_grad():
        model.model.read_out.bias.fill_(math.nan)
    with pytest.raises(NotANumberError, match="predicts no number for 20 of 20 functions"):
        FunctionScorer(model, TASK)([], "test")


def test_a_run_refuses_other_weights_and_other_rows(kept, trained, tmp_path):
    ask = {"layers": "all", "rates": RATES, "out": tmp_path / "run"}
    eckart.sweep([kept], [TASK], **ask)
    other = replace(loaded_model(trained), name=kept.name)
    with torch.no_grad():
        other.model.read_out.bias += 1
    with pytest.raises(RunError, match="other weights, configuration, tokenizer or code"):
        eckart.sweep([other], [TASK], **ask)
    with pytest.raises(RunError, match="has other validation rows, test rows than when"):
        eckart.sweep([kept], [replace(TASK, size=30)], **ask)


def test_what_a_sweep_costs_is_counted(kept, tmp_path):
    from eckart.paper.functions.clipping import plan_clipping

    grid, sources = plan_clipping(kept, TASK, ["mlp"], RATES, "all", [0, 1])
    cost = estimate(grid, tmp_path, sources)
    assert cost.trials == expected_trials(grid, tmp_path, sources) == 2 * 2 * (1 + 2)
    assert cost.tokens == 2 * 2 * 20 * (2 * 3 + 1)


@pytest.mark.parametrize(
    ("task", "words"),
    [
        ({"function": "cubic"}, "no function class 'cubic'; the classes are linear"),
        (
            {"dimension": 0},
            "dimension 0 of function class 'linear': give a whole number, 1 or more",
        ),
        ({"shots": -1}, "shots -1"),
        ({"size": 1}, "size 1"),
    ],
)
def test_a_task_that_cannot_be_is_refused(task, words):
    with pytest.raises(TaskError, match=words):
        FunctionTask(**task)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"dimension": 3},
            "points of 3 numbers, and model '.*' reads points of 2; choose --dimension 2",
        ),
        ({"shots": 5}, "5 shots and the point that is asked for are more than the 5 points"),
    ],
)
def test_a_model_that_cannot_read_a_task_is_refused(kept, change, words):
    with pytest.raises(TaskError, match=words):
        eckart.search(kept, replace(TASK, **change))
    with pytest.raises(TaskError, match=words):
        eckart.sweep([kept], [replace(TASK, **change)])


def test_what_does_not_go_together_is_refused(kept, model, table):
    text = load_model(model)
    with pytest.raises(ModelError, match="was loaded as one that reads text"):
        eckart.search(text, TASK)
    labels = eckart.Task.load(data=table, text_column="review", label_column="verdict", shots=2)
    with pytest.raises(ModelError, match="reads numbers and no text"):
        eckart.search(kept, labels)
    with pytest.raises(TaskError, match="a list is no task"):
        eckart.search(kept, [1])
    with pytest.raises(TaskError, match="functions are read without 'cache_memory'"):
        eckart.search(kept, TASK, cache_memory=1)
    with pytest.raises(TaskError, match="no scoring 'sum' of functions"):
        eckart.sweep([kept], [TASK], scorings=["sum"])
    with pytest.raises(EditError, match="no metric 'accuracy'; known: squared_error"):
        eckart.search(kept, TASK, metric="accuracy")
    with pytest.raises(EditError, match="says nothing sure of squared_error"):
        eckart.search(kept, TASK, race=True)
    with pytest.raises(ModelError, match="reads numbers and no text"):
        eckart.export(eckart.search(kept, TASK, rates=RATES), "out", kept, TASK)


def test_a_text_task_has_no_squared_error(model, table):
    labels = eckart.Task.load(data=table, text_column="review", label_column="verdict", shots=2)
    with pytest.raises(EditError, match="no metric 'squared_error'; known: accuracy"):
        eckart.search(model, labels, metric="squared_error")


def test_a_folder_of_a_function_model_is_no_language_model(trained, table):
    from eckart.paper.functions.training import kept_models
    from eckart.weights.models import empty_model

    folder = kept_models(trained)[20]
    labels = eckart.Task.load(data=table, text_column="review", label_column="verdict", shots=2)
    for refused in (lambda: eckart.search(folder, labels), lambda: empty_model(str(folder))):
        with pytest.raises(
            ModelError, match="reads numbers and no text; measure it with eckart functions evaluate"
        ):
            refused()


def test_a_report_says_that_a_training_is_none(trained, tmp_path):
    with pytest.raises(
        RunError, match="holds a training, which eckart functions evaluate measures"
    ):
        report(trained, tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()
