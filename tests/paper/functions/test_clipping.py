"""What a sweep of clipped function models comes to, and how it is shown."""

from dataclasses import replace

import numpy as np
import pytest

from eckart.errors import RunError
from eckart.paper.functions.clipping import gather, judged, plan_clipping
from eckart.paper.functions.loading import loaded_model
from eckart.paper.functions.task import FunctionScorer, FunctionTask
from eckart.paper.functions.views import clipping_panels, draw_clipping
from eckart.records import Edit
from eckart.reports.figures.base import figure_bytes
from eckart.sweeps.sweep import run_sweep

TASK = FunctionTask("linear", dimension=2, shots=3, size=20)


@pytest.fixture(scope="module")
def found(trained, tmp_path_factory):
    """A sweep's cells, of two seeds."""
    grid, sources = plan_clipping(
        loaded_model(trained), TASK, ["attn", "mlp"], [0.5, 0.9], "all", [0, 1]
    )
    return gather(run_sweep(grid, tmp_path_factory.mktemp("clip") / "run", sources).run, TASK)


def test_cells_are_means_of_paired_errors(found, trained):
    scorers = [FunctionScorer(loaded_model(trained), TASK.redrawn(seed=seed)) for seed in (0, 1)]
    unpruned = np.array([scorer([], "test").score.errors for scorer in scorers])
    assert found.unpruned.mean == pytest.approx(unpruned.mean())
    assert list(map(str, found.cells)) == ["0:attn:0.5", "0:attn:0.9", "0:mlp:0.5", "0:mlp:0.9"]
    for edit, cell in found.cells.items():
        clipped = np.array([scorer([edit], "test").score.errors for scorer in scorers])
        assert cell.mean == pytest.approx(clipped.mean())
        assert cell.gain.mean == pytest.approx((unpruned - clipped).mean())
        assert cell.gain.interval[0] <= cell.gain.mean <= cell.gain.interval[1]
        assert cell.p_holm >= cell.gain.p_value
    document = found.to_json()
    assert document["unpruned"]["mean"] == pytest.approx(unpruned.mean())
    assert document["unpruned"]["interval"] == pytest.approx(found.unpruned.interval)
    for said, cell in zip(document["cells"], found.cells.values(), strict=True):
        assert said["error"]["mean"] == pytest.approx(cell.mean)
        assert said["error"]["interval"] == pytest.approx(cell.interval)


def test_what_is_sure_survives_the_correction(found):
    cell = next(iter(found.cells.values()))
    for sign, word in ((1, "gain"), (-1, "loss")):
        gain = replace(cell.gain, interval=(0.1 * sign - 0.05, 0.1 * sign + 0.05))
        assert judged(replace(cell, gain=gain, p_holm=0.04)) == word
        assert judged(replace(cell, gain=gain, p_holm=0.06)) == "cannot tell"


def test_seeds_are_paired_where_a_trial_failed(found, trained, tmp_path):
    """Seed 0 failed clipped, so what is left of that edit is seed 1's gain, not a mean over other
    seeds."""
    grid, sources = plan_clipping(loaded_model(trained), TASK, ["mlp"], [0.5, 0.9], "all", [0, 1])
    run = run_sweep(grid, tmp_path / "run", sources).run

    def broken(trial, edits, seed):
        return trial.split == "test" and trial.edits == edits and trial.setting.seed in seed

    def without(edits, *seeds):
        trials = {
            key: (
                replace(trial, score=None, status="failed", error="no number")
                if broken(trial, edits, seeds)
                else trial
            )
            for key, trial in run.trials.items()
        }
        return gather(replace(run, trials=trials), TASK)

    half, edit = (Edit(0, "mlp", 0.5),), Edit(0, "mlp", 0.5)
    whole = gather(run, TASK)
    by_seed = {
        trial.setting.seed: np.array(trial.score.errors)
        for trial in run.trials.values()
        if trial.split == "test" and trial.edits == half
    }
    unpruned = {
        trial.setting.seed: np.array(trial.score.errors)
        for trial in run.trials.values()
        if trial.split == "test" and not trial.edits
    }
    cell = without(half, 0).cells[edit]
    assert cell.gain.seeds == 1
    assert cell.gain.mean == pytest.approx((unpruned[1] - by_seed[1]).mean())
    gone = without(half, 0, 1)
    assert [cell.rate for cell in gone.cells] == [0.9]
    assert gone.failed == ("0:mlp:0.5, seed 0: no number", "0:mlp:0.5, seed 1: no number")
    assert whole.failed == ()
    baseline = without((), 0)
    assert baseline.unpruned.seeds == 1
    assert all(cell.gain.seeds == 1 for cell in baseline.cells.values())
    with pytest.raises(RunError, match="holds no test score of the unpruned model"):
        without((), 0, 1)


def test_a_cell_that_is_missing_leaves_a_gap(found):
    mlp = {e: cell for e, cell in found.parts["mlp"].items() if e != Edit(0, "mlp", 0.5)}
    panels = clipping_panels(replace(found, parts={**found.parts, "mlp": mlp}))
    figure = draw_clipping(panels, "linear")
    axes = figure.axes[1]
    line = next(line for line in axes.lines if line.get_label() == "layer 0")
    ticks = dict(
        zip([text.get_text() for text in axes.get_xticklabels()], axes.get_xticks(), strict=True)
    )
    assert list(line.get_xdata()) == [ticks["0"], ticks["0.9"]]


def test_noise_moves_the_line_of_always_0(found):
    panels = clipping_panels(replace(found, task=replace(TASK, function="noisy-linear")))
    assert panels[0].reference[0] == pytest.approx(1 + 1 / TASK.dimension)


def test_the_figure_has_a_line_a_layer_and_begins_unpruned(found):
    attn, mlp = clipping_panels(found)
    assert (attn.title, mlp.title) == ("attn", "mlp")
    assert [line.layer for line in mlp.lines] == [0]
    assert mlp.lines[0].rates == (0.0, 0.5, 0.9)
    assert mlp.lines[0].means[0] == found.unpruned.mean == mlp.unpruned
    assert mlp.lines[0].means[2] == found.cells[Edit(0, "mlp", 0.9)].mean
    assert figure_bytes(draw_clipping([attn, mlp], "linear"), "png").startswith(b"\x89PNG")
