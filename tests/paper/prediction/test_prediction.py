"""Theory against practice: the numbers are those of a plain loop, planted effects are found, none
is found in noise."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from families import save_family
from made_runs import Made

from eckart.analysis.claims import whole_layers
from eckart.analysis.findings import find
from eckart.errors import EckartError, ModelError, RunError
from eckart.paper.prediction import (
    PredictedCell,
    Prediction,
    Predictor,
    ProbeOptions,
    predict,
    predictors,
)
from eckart.paper.prediction.agreement import agreements, within
from eckart.paper.prediction.screens import ALGORITHM_1, LayerChoice, Screened, screened, units
from eckart.paper.prediction.study import study_of
from eckart.paper.prediction.views import answer, draw_prediction, strongest
from eckart.paper.probe import Prober
from eckart.records import Edit
from eckart.runs import Run, read_run
from eckart.sweeps.sweep import sweep
from eckart.tasks import Task
from eckart.weights.models import load_model

TASKS = ("one", "two", "three")
HOW = ProbeOptions(prompts=2, seeds=2, floors=(0.01, 1.0))
GRID = {"layers": "all", "parts": ["attn", "mlp"], "rates": [0.5, 0.9], "shots": 2, "seeds": [0, 1]}


def entry(table: Path, name: str) -> dict[str, object]:
    said = {"data": str(table), "text_column": "review", "label_column": "verdict", "name": name}
    return {**said, "split_seed": TASKS.index(name), "split_sizes": "16,20"}


@pytest.fixture(scope="module")
def run(model: Path, table: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("run")
    tasks = [entry(table, name) for name in TASKS]
    return sweep(str(model), tasks, **GRID, dtype="float32", test="all", out=folder).run


@pytest.fixture(scope="module")
def found(run: Run) -> Prediction:
    return predict([run], HOW)


# ---------------------------------------------------------------- the numbers


def test_there_is_a_cell_for_every_edit(found: Prediction) -> None:
    assert len(found.cells) == 3 * 3 * 2 * 2
    assert [task for _, task in found.groups] == sorted(TASKS)
    assert all(set(cell.gains) == {"validation", "test"} for cell in found.cells)


@pytest.mark.parametrize(
    "edit", [Edit(1, "attn", 0.9), Edit(0, "mlp", 0.5), Edit(2, "mlp", 0.9)], ids=str
)
def test_what_is_said_of_an_edit_is_that_of_a_plain_loop(
    found: Prediction, model: Path, table: Path, edit: Edit
) -> None:
    expected: dict[str, list[float]] = {}
    for seed in (0, 1):
        for name, value in by_hand(model, table, edit, seed).items():
            expected.setdefault(name, []).append(value)
    (cell,) = [c for c in found.cells if c.condition.task == "two" and c.edit == edit]
    for name, values in expected.items():
        assert cell.said[name] == pytest.approx(np.mean(values), rel=1e-6, abs=1e-9), name
    assert (cell.said["clipping rate"], cell.said["depth"]) == (edit.rate, edit.layer)


def by_hand(model: Path, table: Path, edit: Edit, seed: int) -> dict[str, float]:
    live = load_model(model, dtype="float32", device="cpu")
    task = Task.load(**entry(table, "two"), shots=2, seed=seed)
    width = live.model.config.hidden_size // live.model.config.num_attention_heads
    layers = Prober(live, task, prompts=2)().layers
    scale = np.mean([found.sum(axis=1) / width**2 for layer in layers for found in layer.variances])
    said = {}
    for share in (0.01, 1.0):
        prober = Prober(live, task, prompts=2, floor=share * scale)
        before, after = prober().layers, prober(edit).layers
        first = edit.layer + (edit.part == "mlp")
        softmax = [(b.log_norm - a.log_norm).mean() for a, b in zip(before, after, strict=True)]
        linear = [
            (np.log(b.linear_norm) - np.log(a.linear_norm)).mean()
            for a, b in zip(before, after, strict=True)
        ]
        said |= {
            "softmax norm, its layer": softmax[first] if first < 3 else 0.0,
            "softmax norm, all layers": sum(softmax),
            "linear norm, its layer": linear[first] if first < 3 else 0.0,
            "linear norm, all layers": sum(linear),
            "trajectory": (np.log(after[-1].path_norm) - np.log(before[-1].path_norm)).mean(),
        }
        pairs = list(zip(before, after, strict=True))
        halves = [sum((b.norm_term - a.norm_term).mean() for a, b in pairs)]
        halves.append(-sum((b.log_determinant - a.log_determinant).mean() for a, b in pairs))
        for half, value in zip(
            ("norm term", "-log det", "bound"), (*halves, sum(halves)), strict=True
        ):
            said[f"{half}, floor {share:g}"] = value
    block = live.model.model.layers[edit.layer]
    of_part = {"attn": block.self_attn, "mlp": block.mlp}[edit.part]
    ends = [
        np.linalg.svd(p.detach().double().numpy(), compute_uv=False)
        for p in of_part.parameters()
        if p.ndim == 2
    ]
    said["condition number"] = math.exp(np.mean([math.log(s[0] / s[-1]) for s in ends]))
    return said


def test_the_gain_is_right_after_less_right_before(found: Prediction, run: Run) -> None:
    for cell in found.cells[::5]:
        for split, gain in cell.gains.items():
            right = {
                (trial.edits, trial.setting.seed): trial.score.accuracy
                for trial in run.trials.values()
                if (trial.setting.task, trial.split) == (cell.condition.task, split)
            }
            expected = np.mean([right[(cell.edit,), seed] - right[(), seed] for seed in (0, 1)])
            assert gain == pytest.approx(expected)


def test_the_model_is_as_it_was_and_so_is_the_run(found: Prediction, run: Run) -> None:
    assert predict([read_run(run.folder)], HOW).to_json() == found.to_json()


def test_every_predictor_of_every_cell_is_known(found: Prediction) -> None:
    names = {predictor.name for predictor in predictors(HOW.floors)}
    assert all(set(cell.said) == names for cell in found.cells)
    assert {a.predictor.name for a in found.agreements} == names
    assert len(found.agreements) == 2 * 2 * len(names)


# ---------------------------------------------------------------- the correlations

PLANTED = Predictor("planted", 1)
REVERSED = Predictor("reversed", -1)
NOISE = Predictor("noise", 1)
FLAT = Predictor("flat", 1)
CONDITION = Predictor("condition number", 1)


def gain_by_layer(setting: object, edit: Edit) -> float:
    return {0: -0.3, 1: -0.1, 6: 0.0, 7: 0.25}[edit.layer]


def made(gain: object = gain_by_layer, spread: float = 0.0) -> tuple[Run, list[PredictedCell]]:
    """Return a run in which a planted predictor is the gain, in a unit of its task, give or take;
    others are not."""
    tasks = (*TASKS, "four")
    run, noise = Made(tasks=tasks, gain=gain).run(), np.random.default_rng(11)
    scale = {task: 10.0**place for place, task in enumerate(tasks)}
    cells = []
    for (where, edit), cell in find(run).cells.items():
        if edit is not None:
            planted = scale[where.task] * (gain_by_layer(None, edit) + spread * noise.normal() + 1)
            said = {"planted": planted, "reversed": -planted, "noise": noise.random(), "flat": 1.0}
            said["condition number"] = float(edit.layer)
            gains = {split: found.gain.mean for split, found in cell.measured.items() if found.gain}
            cells.append(PredictedCell("made", where, edit, said, gains))
    return run, cells


def test_a_planted_effect_has_the_sign_that_it_was_planted_with() -> None:
    _, cells = made(spread=0.15)
    names = [PLANTED, REVERSED, Predictor("planted", -1), NOISE, FLAT]
    for split in ("validation", "test"):
        found = agreements(cells, names, split)
        layers = [a for a in found if a.among == "layers"]
        ranks = [a.rank for a in layers]
        assert ranks[0].interval[0] > 0.3
        assert layers[0].p_holm < 0.05
        assert ranks[1] == ranks[0], "the claimed sign turns it"
        assert ranks[2].value == pytest.approx(-ranks[0].value)
        assert ranks[3].interval[0] < 0 < ranks[3].interval[1]
        assert ranks[4] is None, "what is the same for all ranks nothing"


def test_what_differs_between_tasks_is_no_evidence() -> None:
    _, cells = made()
    lifted = [
        replace(
            c,
            said={"task": float(len(c.condition.task))},
            gains={"test": len(c.condition.task) / 10},
        )
        for c in cells
    ]
    overall, layers = agreements(lifted, [Predictor("task", 1)], "test")
    assert overall.rank is None
    assert layers.rank is None


def test_only_the_theory_is_corrected_for_its_number() -> None:
    _, cells = made(spread=0.15)
    names = [NOISE, PLANTED, replace(NOISE, theory=False)]
    found = {a.predictor: a for a in agreements(cells, names, "test") if a.among == "layers"}
    planted, baseline = found[PLANTED], found[replace(NOISE, theory=False)]
    assert planted.p_holm == pytest.approx(2 * planted.rank.p_value)
    assert baseline.p_holm == baseline.rank.p_value


def test_a_predictor_that_one_model_lacks_is_not_ranked() -> None:
    _, cells = made()
    cells[0] = replace(cells[0], said={**cells[0].said, "planted": math.nan})
    assert [a.rank for a in agreements(cells, [PLANTED], "test")] == [None, None]


def test_ranks_are_about_the_mean_of_their_stratum() -> None:
    ranks = within(np.array([5.0, 5.0, 9.0, 1.0]), ["a", "a", "b", "b"])
    assert ranks.tolist() == [0, 0, 0.25, -0.25]


# ---------------------------------------------------------------- the screens


def judged(
    run: Run, cells: list[PredictedCell], names: list[Predictor]
) -> tuple[list[LayerChoice], dict[str, Screened]]:
    chosen = list(units(list(whole_layers(find(run))), cells, names, top_k=1))
    return chosen, {screen.screen: screen for screen in screened(chosen, names)}


def by_edit(unit: LayerChoice) -> np.ndarray:
    """Return mean test gains, a row a layer, a column a rate."""
    return np.array(
        [np.nanmean(unit.layers.gains(edits), axis=2).mean(axis=1) for edits in unit.layers.grid]
    )


def test_a_screen_that_knows_the_layer_beats_a_random_one_and_one_that_shuns_it_does_not() -> None:
    run, cells = made()
    shuns = Predictor("reversed", 1)
    chosen, found = judged(run, cells, [PLANTED, shuns, CONDITION])
    assert [unit.layers.layers[unit.choice("planted")] for unit in chosen] == [7] * 4
    assert [unit.layers.layers[unit.choice("reversed")] for unit in chosen] == [0] * 4
    planted, shunning = found["planted"], found["reversed"]
    assert planted.in_search.beats_random
    assert (planted.better, planted.below_best) == (4, 0)
    assert not shunning.in_search.beats_random
    assert shunning.in_search.estimate.interval[1] < 0
    gains = [np.nanmean(u.layers.gains(u.layers.picks), axis=2).mean(axis=1) for u in chosen]
    assert planted.in_search.estimate.mean == pytest.approx(
        np.mean([g[3] - g.mean() for g in gains])
    )
    assert planted.gain == pytest.approx(np.mean([g[3] for g in gains]))
    assert shunning.learned.mean == pytest.approx(planted.in_search.estimate.mean), (
        "the others say: the other way round"
    )
    for name, screen in (
        ("planted", planted),
        ("reversed", shunning),
        (ALGORITHM_1, found[ALGORITHM_1]),
    ):
        index = 0 if name == "reversed" else 3
        by_rate = [by_edit(unit) for unit in chosen]
        leads = [np.mean(gains[index] - gains.mean(axis=0)) for gains in by_rate]
        assert screen.each_rate.estimate.mean == pytest.approx(np.mean(leads)), name
    assert planted.each_rate.beats_random
    assert not shunning.each_rate.beats_random
    blind = [unit.blind("planted") for unit in chosen]
    assert planted.blind.mean == pytest.approx(np.mean([lead for _, lead in blind]))
    assert min(lead for _, lead in blind) > 0.1
    assert found[ALGORITHM_1].in_search.estimate == found["condition number"].in_search.estimate


def test_no_screen_beats_a_random_layer_where_no_layer_is_better() -> None:
    run, cells = made(gain=lambda setting, edit: 0.0)
    _, found = judged(run, cells, [PLANTED, NOISE, CONDITION])
    assert not any(screen.in_search.beats_random for screen in found.values())


def test_of_equal_layers_the_deepest_is_chosen() -> None:
    run, cells = made()
    chosen, found = judged(run, cells, [FLAT, CONDITION])
    assert {unit.choice("flat") for unit in chosen} == {3}
    assert "flat" not in found, "what cannot tell layers apart is no screen"


def test_the_answer_names_what_beats_a_random_layer_and_what_does_not(found: Prediction) -> None:
    run, cells = made()
    chosen, _ = judged(run, cells, [PLANTED, CONDITION])
    some = replace(found, screens=tuple(screened(chosen, [PLANTED, CONDITION])))
    assert (
        "3 of the theory's 3 screens beats a random layer: planted, condition number, Algorithm"
        in answer(some)
    )
    chosen, _ = judged(run, cells, [Predictor("reversed", 1), Predictor("condition number", -1)])
    none = replace(found, screens=tuple(screened(chosen, [Predictor("reversed", 1)])))
    assert (
        answer(none).count("none of the theory's 2 screens beats a random layer. The best, ") == 2
    )
    assert "no screen can be judged" in answer(replace(found, screens=()))


def test_the_figure_draws_the_predictor_that_ranks_best(found: Prediction) -> None:
    theory = [a for a in found.agreement("test", "layers") if a.rank and a.predictor.theory]
    best = max(theory, key=lambda a: abs(a.rank.value))
    assert strongest(found, "test") == best
    ranks, leads, cells = draw_prediction(found).axes
    assert cells.get_xlabel().startswith(f"{best.predictor.name} (theory: ")
    points = {
        (line.get_xdata()[0], line.get_ydata()[0]) for line in cells.lines if line.get_alpha()
    }
    assert points == {
        (cell.said[best.predictor.name], 100 * cell.gains["test"]) for cell in found.cells
    }
    assert {tick.get_text() for tick in leads.get_yticklabels()} == {
        screen.screen for screen in found.screens
    }
    known = [a.predictor.name for a in found.agreement("test", "layers") if a.rank]
    assert [tick.get_text() for tick in ranks.get_yticklabels()] == known


# ---------------------------------------------------------------- what is refused


def test_runs_that_cannot_be_asked(run: Run, model: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="is no sweep's, so its edits lie in one layer"):
        study_of(replace(run, settings={"kind": "search"}))
    spectra = sweep(str(model), spectra=True, layers="all", out=tmp_path / "spectra").run
    with pytest.raises(RunError, match="holds no scored edits; give a sweep"):
        predict([spectra])
    bare = {k: replace(t, setting=replace(t.setting, shots=0)) for k, t in run.trials.items()}
    with pytest.raises(RunError, match="holds edits without demonstrations alone"):
        predict([replace(run, trials=bare)])
    two = {k: t for k, t in run.trials.items() if t.setting.task != "three"}
    with pytest.raises(RunError, match="2 pairs of a model and a task allow no interval"):
        predict([replace(run, trials=two)])


def test_models_and_data_that_changed_or_are_gone(table: Path, tmp_path: Path) -> None:
    folder, data = save_family("llama", tmp_path / "model"), tmp_path / "reviews.csv"
    data.write_bytes(table.read_bytes())
    grid = {**GRID, "layers": [0], "rates": [0.5], "seeds": [0]}
    tasks = [entry(data, name) for name in TASKS]
    run = sweep(str(folder), tasks, **grid, dtype="float32", test="none", out=tmp_path / "run").run
    lines = data.read_text().splitlines()
    data.write_text("\n".join([*lines[:-20], *(f"new {line}" for line in lines[-20:])]))
    with pytest.raises(RunError, match="no longer has the rows of run"):
        predict([run], HOW)
    data.unlink()
    with pytest.raises(EckartError, match=r"reviews\.csv"):
        predict([run], HOW)
    save_family("llama", folder, seed=1)
    with pytest.raises(RunError, match="is no longer the one of run"):
        predict([run], HOW)
    folder.rename(tmp_path / "elsewhere")
    with pytest.raises(ModelError, match="no model folder"):
        predict([run], HOW)
