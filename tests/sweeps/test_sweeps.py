"""A sweep is the same trials as one evaluation after the other, and computes none of them twice."""

from collections import Counter
from dataclasses import replace

import pytest
import torch
from families import save_family

from eckart import Edit, Task, evaluate, sweep
from eckart.algorithm1 import best_edit
from eckart.errors import EckartError, RunError, StudyError, about
from eckart.records import Setting, Trial
from eckart.runs import RunStore, read_run
from eckart.scoring.evaluator import Evaluator
from eckart.scoring.methods import SCORING_VERSION
from eckart.statistics.paired import paired_difference
from eckart.sweeps.grid import Sweep
from eckart.sweeps.result import Line
from eckart.sweeps.sweep import locally
from eckart.weights.models import load_model

RATES = [0.5, 0.9]


@pytest.fixture
def task(table) -> dict:
    return {"data": str(table), "text_column": "review", "label_column": "verdict"}


@pytest.fixture
def passes(monkeypatch) -> list:
    """What evaluators are asked to read, in order."""
    seen, real = [], Evaluator.outcomes

    def counted(self, edits, split, scorings):
        seen.append(
            (self.model.name, self.task.shots, self.task.seed, split, edits, tuple(scorings))
        )
        return real(self, edits, split, scorings)

    monkeypatch.setattr(Evaluator, "outcomes", counted)
    return seen


def timeless(trials):
    return {key: replace(trial, seconds=0) for key, trial in trials.items()}


@pytest.mark.parametrize(
    ("family", "layers", "part"), [("gptj", [-1], "fc_in"), ("qwen2", [0, -1], "down")]
)
def test_trials_are_those_of_evaluate(family, layers, part, task, tmp_path):
    model = str(save_family(family, tmp_path / family))
    task = {**task, "split_sizes": "8,8"}
    grid = {
        "layers": layers,
        "parts": ["attn", part],
        "rates": [0.9],
    }
    result = sweep(
        model,
        task,
        **grid,
        shots=[2],
        seeds=[1],
        scorings=["sum", "contextual", "batch"],
        test="all",
        out=tmp_path / "run",
        dtype="float32",
    )
    assert len(result.run.trials) == (1 + len(layers) * 2) * 3 * 2
    drawn = Task.load(**task, shots=2, seed=1)
    loaded = load_model(model, dtype="float32")
    for trial in result.run.trials.values():
        found = evaluate(
            loaded,
            drawn,
            trial.edits,
            split=trial.split,
            dtype="float32",
            scoring=trial.setting.scoring,
        ).trial
        assert (found.key, found.setting, found.edits) == (trial.key, trial.setting, trial.edits)
        assert found.score.predictions == trial.score.predictions
        assert found.score.log_loss == pytest.approx(trial.score.log_loss, abs=1e-4)


def test_units_share_one_reading_and_each_model_is_loaded_once(
    model, task, tmp_path, passes, monkeypatch
):
    loads, real = [], load_model
    monkeypatch.setattr(
        "eckart.sweeps.sources.load_model",
        lambda name, **options: loads.append(name) or real(name, **options),
    )
    other = str(save_family("gpt2", tmp_path / "other"))
    result = sweep(
        [str(model), other],
        task,
        layers=[0, 1],
        parts="attn",
        rates=RATES,
        shots=[0, 2],
        seeds="0..1",
        scorings="sum,batch",
        test="none",
        out=tmp_path / "run",
    )
    assert loads == [str(model), other]
    units = list(dict.fromkeys(read[:3] for read in passes))
    assert [(shots, seed) for _, shots, seed in units] == [(0, 0), (2, 0), (2, 1)] * 2
    assert max(Counter(read[:5] for read in passes).values()) == 1, "a reading serves all scorings"
    first = [edits for *unit, _, edits, _ in passes if tuple(unit) == units[0]]
    assert first == [(), *((Edit(layer, "attn", rate),) for layer in (1, 0) for rate in RATES)]
    assert len(result.run.trials) == 2 * 3 * 5 * 2
    assert not any(trial.split == "test" for trial in result.run.trials.values())


def test_a_finished_sweep_computes_nothing(model, task, tmp_path, passes):
    options = {"layers": "auto", "rates": RATES, "shots": [2], "out": tmp_path / "run"}
    first = sweep(str(model), task, **options)
    assert passes
    passes.clear()
    again = sweep(str(model), task, **options)
    assert passes == []
    assert again.run == first.run
    assert str(again) == str(first)


def test_a_stopped_sweep_computes_the_rest(model, task, tmp_path, passes):
    class StopError(Exception):
        pass

    def stopping(job):
        trials = []

        def watch(event):
            if isinstance(event, Trial):
                trials.append(event)
            if len(trials) == 7:
                raise StopError

        locally(replace(job, watch=watch))

    options = {"layers": "all", "rates": RATES, "shots": [2], "scorings": ["sum", "batch"]}
    with pytest.raises(StopError):
        sweep(str(model), task, **options, out=tmp_path / "run", execute=stopping)
    kept = len(read_run(tmp_path / "run").trials)
    assert kept == 7, "what is told of is kept"
    whole = sweep(str(model), task, **options, out=tmp_path / "whole")
    passes.clear()
    result = sweep(str(model), task, **options, out=tmp_path / "run")
    assert sum(len(methods) for *_, methods in passes) == len(result.run.trials) - kept
    assert timeless(result.run.trials) == timeless(whole.run.trials)


def test_only_the_best_on_validation_is_tested(model, task, tmp_path):
    result = sweep(
        str(model),
        task,
        layers="all",
        rates=[0.3, *RATES],
        shots=[4],
        seeds="0..1",
        scorings="sum,batch",
        out=tmp_path / "run",
    )
    tested = [trial for trial in result.run.trials.values() if trial.split == "test"]
    assert {t.setting for t in tested} == {line.setting for line in result.lines}
    chosen = {(line.setting, (line.edit,)) for line in result.lines if line.edit}
    assert {(t.setting, t.edits) for t in tested if t.edits} == chosen
    assert chosen, "some edit did better"
    for line in result.lines:
        assert (line.test is None) == (line.edit is None)
        assert line.edit is None or line.best > line.unpruned


def test_ties_go_to_the_smaller_rate_then_the_deeper_layer():
    edits = {Edit(layer, "mlp", rate): 0.8 for layer in (0, 2) for rate in RATES}
    assert best_edit(edits, 0.7) == Edit(2, "mlp", 0.5)
    assert best_edit(edits, 0.8) is None
    assert best_edit({}, 0.1) is None
    by_rounding = {Edit(0, "mlp", 0.5): 0.6, Edit(0, "mlp", 0.9): 0.6000000000000001}
    assert best_edit(by_rounding, 0.1) == Edit(0, "mlp", 0.5)
    assert best_edit({Edit(0, "mlp", 0.9): 0.6000000000000001}, 0.6) is None


def test_layers_are_chosen_by_condition_number_once(model, task, tmp_path, monkeypatch):
    from eckart.weights import spectrum

    measured, real = [], spectrum._measure
    monkeypatch.setattr(
        spectrum, "_measure", lambda weight, *a: measured.append(weight.key) or real(weight, *a)
    )
    options = {"rates": RATES, "shots": [2], "top_k": 1}
    first = sweep(str(model), task, **options, seeds=[0, 1], out=tmp_path / "run")
    assert len(measured) == len(set(measured)) == 21
    sweep(str(model), task, **options, seeds=[0, 1], out=tmp_path / "run")
    assert len(measured) == 21
    facts = first.run.models[str(model)]
    for part, (layer,) in facts["layers"].items():
        values = facts["condition_numbers"][part]
        assert max(values, key=values.get) == str(layer)
    assert set(facts["spectra"]) == set(first.run.spectra)
    edited = {(edit.part, edit.layer) for t in first.run.trials.values() for edit in t.edits}
    assert edited == {(part, layer) for part, (layer,) in facts["layers"].items()}


def test_spectra_alone(model, tmp_path):
    result = sweep(str(model), spectra=True, layers="all", out=tmp_path / "run")
    assert (len(result.run.trials), len(result.run.spectra), result.lines) == (0, 21, ())


def test_live_models_and_tasks(model, task, tmp_path):
    live, own = load_model(model), Task.load(**task, shots=2, seed=3)
    result = sweep(live.model, own, layers=[0], rates=RATES, out=tmp_path / "run")
    assert {(t.setting.shots, t.setting.seed) for t in result.run.trials.values()} == {(2, 3)}
    assert not (tmp_path / "run" / "study.yaml").exists()
    drawn = sweep(
        live, own, layers=[0], rates=RATES, shots=[0, 2], seeds=[3, 4], out=tmp_path / "more"
    )
    assert {(t.setting.shots, t.setting.seed) for t in drawn.run.trials.values()} == {
        (0, 3),
        (2, 3),
        (2, 4),
    }
    assert set(result.run.trials) < set(drawn.run.trials)


def test_a_model_that_changed_is_refused_by_name(task, tmp_path):
    folder = tmp_path / "a-model"
    save_family("llama", folder)
    options = {"layers": [0], "rates": RATES, "shots": [2], "out": tmp_path / "run"}
    sweep(str(folder), task, **options)
    save_family("llama", folder, seed=1)
    with pytest.raises(RunError, match=r"a-model' has other weights"):
        sweep(str(folder), task, **options)


@pytest.fixture
def own(table, tmp_path):
    """A task of one's own, in a file, whose data a test may change."""
    (tmp_path / "rows.csv").write_bytes(table.read_bytes())
    (tmp_path / "mine.yaml").write_text(
        "name: mine\ndata: rows.csv\ntemplate: '{{ review }} is'\nlabel: verdict\n"
    )
    return tmp_path / "mine.yaml"


def add_a_row(own):
    with (own.parent / "rows.csv").open("a") as file:
        file.write("a new one,good,n0\n")


def change_the_template(own):
    own.write_text(own.read_text().replace(" is'", " was'"))


CHANGES = {
    "data": (add_a_row, "other .*rows"),
    "prompts": (change_the_template, "other .*prompts or demonstrations"),
    "scoring": (lambda own: SCORING_VERSION + 1, "other scoring version than"),
}


@pytest.mark.parametrize(("change", "words"), CHANGES.values(), ids=CHANGES)
def test_a_task_that_changed_is_refused_by_name(
    change, words, model, own, tmp_path, passes, monkeypatch
):
    options = {"layers": [0], "rates": RATES, "shots": [2], "out": tmp_path / "run"}
    first = sweep(str(model), str(own), **options)
    before = own.read_text(), (tmp_path / "rows.csv").read_text()
    passes.clear()
    version = change(own)
    if version:
        monkeypatch.setattr("eckart.sweeps.sources.SCORING_VERSION", version)
    with pytest.raises(RunError, match=rf"task 'mine, shots 2' has {words}"):
        sweep(str(model), str(own), **options)
    assert passes == []
    assert read_run(tmp_path / "run") == first.run
    own.write_text(before[0])
    (tmp_path / "rows.csv").write_text(before[1])
    monkeypatch.setattr("eckart.sweeps.sources.SCORING_VERSION", SCORING_VERSION)
    assert sweep(str(model), str(own), **options).run == first.run


def test_a_run_whose_trials_are_mixed_is_not_read(model, task, tmp_path):
    run = sweep(str(model), task, layers=[0], rates=RATES, shots=[2], out=tmp_path / "run").run
    with RunStore(run.folder, run.settings) as store:
        store.keep(
            replace(next(t for t in run.trials.values() if not t.edits), key="of other data")
        )
    with pytest.raises(
        RunError, match=r"holds two results for one trial .* shots 2, seed 0, sum, .* unpruned"
    ):
        read_run(run.folder)


def test_a_line_says_what_a_search_says():
    line = Line(
        Setting("a/m", "t", 2, 0, "sum"),
        "mlp",
        "accuracy",
        7,
        30,
        0.5,
        Edit(0, "mlp", 0.5),
        0.6,
        paired_difference([False] * 9 + [True] * 31, [True] * 40),
    )
    assert "validation accuracy 0.5000 -> 0.6000 at 0:mlp:0.5 (best" in str(line)
    assert "validation macro f1 0.5000" in str(replace(line, metric="macro_f1"))
    assert "(best of 7; n = 30); test accuracy +22.50 points (95% interval +" in str(line)
    assert "exact McNemar p = 0.00391; 9 fixed, 0 broken; n = 40)" in str(line)


def test_a_model_that_breaks_is_kept_as_failed(model, task, tmp_path):
    live = load_model(model)
    with torch.no_grad():
        live.model.model.norm.weight.fill_(torch.nan)
    result = sweep(live, task, layers=[0], rates=RATES, shots=[2], out=tmp_path / "run")
    assert {t.status for t in result.run.trials.values()} == {"failed"}
    assert {line.unpruned for line in result.lines} == {None}


WRONG = {
    "no task": ({"tasks": []}, "the grid is empty: there is no task"),
    "no part": ({"parts": []}, "the grid is empty: there are no parts"),
    "no layer": ({"layers": []}, "the grid is empty: there are no layers"),
    "no such layer": ({"layers": [7]}, "no layer 7"),
    "no such part": ({"parts": ["fc_in"]}, "has no 'fc_in'"),
    "no such scoring": ({"scorings": ["best"]}, "no scoring 'best'"),
    "a rate of one": ({"rates": [1]}, "clipping rate 1 is outside"),
    "no seeds": ({"seeds": []}, "seeds: an empty list; name some, or leave seeds out"),
    "no shots": ({"shots": []}, "shots: an empty list"),
    "no scorings": ({"scorings": []}, "scorings: an empty list"),
    "no rates": ({"rates": []}, "rates: an empty list"),
    "a range that runs down": ({"seeds": "4..0"}, r"range '4\.\.0' runs down; say 0\.\.4"),
    "a range without end": ({"seeds": "0..300000000"}, "more than 100,000 numbers"),
    "an unknown option": ({"sedes": [1]}, "did you mean 'seeds'"),
    "more demonstrations than rows": ({"shots": [500]}, "500"),
    "no model": ({"models": "./nowhere"}, "no model folder"),
    "two of a model": ({"models": ["gpt2", "gpt2"]}, "stands twice"),
}


@pytest.mark.parametrize(("change", "words"), WRONG.values(), ids=WRONG)
def test_what_cannot_be_done_is_refused_first(change, words, model, task, tmp_path, passes):
    options = {
        "models": str(model),
        "tasks": [task],
        "layers": [0],
        "rates": RATES,
        "shots": [2],
        **change,
    }
    with pytest.raises(EckartError, match=words):
        sweep(**options, out=tmp_path / "run")
    assert passes == []
    assert not (tmp_path / "run").exists()


def test_a_row_that_does_not_fit_names_its_unit(task, tmp_path, passes):
    live = load_model(save_family("gpt2", tmp_path / "short"))
    live.model.config.n_positions = 50
    with pytest.raises(EckartError, match=r"short, reviews\.csv, shots 8"):
        sweep(live, {**task, "name": "reviews.csv"}, layers=[0], shots=[0, 8], out=tmp_path / "run")
    assert passes == []
    result = sweep(
        live,
        task,
        layers=[0],
        rates=RATES,
        shots=[8],
        truncate_demonstrations=True,
        out=tmp_path / "run",
    )
    assert len(result.run.trials) > 0


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("gpt2: no weights", "gpt2: no weights"),
        ("'gpt2' has no weights", "'gpt2' has no weights"),
        ("there is no gpt2.", "there is no gpt2."),
        ("'gpt2-xl' has no weights", "gpt2: 'gpt2-xl' has no weights"),
        ("no weights", "gpt2: no weights"),
    ],
)
def test_an_error_names_what_it_is_about_once_and_is_not_its_own_cause(said, expected):
    with pytest.raises(StudyError) as caught, about("gpt2"):
        raise StudyError(said)
    assert str(caught.value) == expected
    assert caught.value.__cause__ is not caught.value


def test_two_tasks_of_one_name_are_refused(model, task, tmp_path):
    with pytest.raises(StudyError, match="two tasks are called 'reviews'"):
        sweep(
            str(model),
            [task, {**task, "split_seed": 1}],
            layers=[0],
            shots=[2],
            out=tmp_path / "run",
        )


def test_a_study_says_itself():
    grid = Sweep.of(
        {"models": "gpt2", "tasks": ["sst2"], "layers": "0,-1", "seeds": "0..2", "rates": "0.5"},
        "the study",
    )
    from eckart.files import parse_yaml

    assert Sweep.of(parse_yaml(grid.to_yaml(), "x"), "x") == grid
    edits = grid.edits({"attn": [0, 3], "mlp": [3]})
    assert list(map(str, edits)) == ["0:attn:0.5", "3:attn:0.5", "3:mlp:0.5"]


def test_a_sweep_draws_only_what_it_asks_for(model, task, table, tmp_path):
    few = tmp_path / "few.csv"
    few.write_text("".join(table.read_text().splitlines(keepends=True)[:9]))
    entry = {**task, "data": str(few)}
    sweep(model, entry, shots=[2, 0], layers=[0], parts=["mlp"], rates=[0.5], out=tmp_path / "run")
    assert {trial.setting.shots for trial in read_run(tmp_path / "run").trials.values()} == {0, 2}
