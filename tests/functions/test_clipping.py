"""What a sweep of clipped function models comes to, and how it is shown."""

import numpy as np
import pytest

from eckart.functions.clipping import gather, plan_clipping
from eckart.functions.loading import loaded_model
from eckart.functions.task import FunctionScorer, FunctionTask
from eckart.records import Edit
from eckart.reports.figures.base import figure_bytes
from eckart.reports.figures.clipping import clipping_panels, draw_clipping
from eckart.selection.sweeps import run_sweep

TASK = FunctionTask("linear", dimension=2, shots=3, size=20)


@pytest.fixture(scope="module")
def found(trained, tmp_path_factory):
    """A sweep's cells, of two seeds."""
    grid, sources = plan_clipping(loaded_model(trained), TASK, ["attn", "mlp"], [0.5, 0.9], "all", [0, 1])
    return gather(run_sweep(grid, tmp_path_factory.mktemp("clip") / "run", sources).run, TASK)


def test_cells_are_means_of_paired_errors(found, trained):
    scorers = [FunctionScorer(loaded_model(trained), TASK.redrawn(seed=seed)) for seed in (0, 1)]
    unpruned = np.array([scorer([], "test").score.errors for scorer in scorers])
    assert found.unpruned.mean == pytest.approx(unpruned.mean())
    assert [str(cell.edit) for cell in found.cells] == ["0:attn:0.5", "0:attn:0.9", "0:mlp:0.5", "0:mlp:0.9"]
    for cell in found.cells:
        clipped = np.array([scorer([cell.edit], "test").score.errors for scorer in scorers])
        assert cell.error.mean == pytest.approx(clipped.mean())
        assert cell.gain.mean == pytest.approx((unpruned - clipped).mean())
        assert cell.gain.interval[0] <= cell.gain.mean <= cell.gain.interval[1]
        assert cell.adjusted >= cell.gain.p_value


def test_findings_need_to_survive_the_correction(found):
    better, worse = found.findings(level=1.0)
    assert {cell.edit for cell in better} == {cell.edit for cell in found.cells if cell.gain.mean > 0}
    assert {cell.edit for cell in worse} == {cell.edit for cell in found.cells if cell.gain.mean < 0}
    assert found.findings(level=0.0) == ([], [])


def test_the_figure_has_a_line_a_layer_and_begins_unpruned(found):
    attn, mlp = clipping_panels(found)
    assert (attn.part, mlp.part) == ("attn", "mlp")
    assert [line.layer for line in mlp.lines] == [0]
    assert mlp.lines[0].rates == (0.0, 0.5, 0.9)
    assert mlp.lines[0].errors[0] == found.unpruned.mean == mlp.unpruned
    cell = next(cell for cell in found.cells if cell.edit == Edit(0, "mlp", 0.9))
    assert mlp.lines[0].errors[2] == cell.error.mean
    assert figure_bytes(draw_clipping([attn, mlp], "linear"), "png").startswith(b"\x89PNG")
