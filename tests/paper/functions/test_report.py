"""The report of a run of functions: errors, of which smaller is better."""

import csv
import io
import json

import numpy as np
import pytest

from eckart.analysis.findings import find
from eckart.analysis.flips import flips
from eckart.paper.functions.clipping import plan_clipping
from eckart.paper.functions.loading import loaded_model
from eckart.paper.functions.task import FunctionTask
from eckart.reports.figures import figure_bytes
from eckart.reports.page import FORMATS, Report, report
from eckart.runs import Run
from eckart.statistics.multiplicity import holm
from eckart.sweeps.sweep import run_sweep

TASK = FunctionTask("linear", dimension=2, shots=3, size=20)


def errors(run: Run, seed: int, split: str, edit) -> np.ndarray:
    (trial,) = (
        t
        for t in run.trials.values()
        if (t.setting.seed, t.split, t.edits) == (seed, split, (edit,) if edit else ())
    )
    return np.array(trial.score.errors)


@pytest.fixture(scope="module", params=[(0, 1), (0,)], ids=["two seeds", "one seed"])
def run(request, trained, tmp_path_factory) -> Run:
    grid, sources = plan_clipping(
        loaded_model(trained), TASK, ["attn", "mlp"], [0.2, 0.5, 0.9], "all", list(request.param)
    )
    return run_sweep(grid, tmp_path_factory.mktemp("clip") / "run", sources).run


def test_a_gain_is_by_how_much_the_error_is_smaller(run):
    findings = find(run)
    seeds = sorted({trial.setting.seed for trial in run.trials.values()})
    (condition,) = findings.conditions
    for target in findings.targets:
        for edit in findings.edits(target):
            measured = findings.measured(condition, edit, "test")
            before, after = (
                np.array([errors(run, seed, "test", which) for seed in seeds])
                for which in (None, edit)
            )
            assert measured.mean == pytest.approx(after.mean())
            assert measured.interval[0] < measured.mean < measured.interval[1]
            assert measured.by_seed[0] == pytest.approx(after[0].mean())
            assert measured.gain.mean == pytest.approx((before - after).mean())
            assert measured.fixed == (after < before).sum()
            assert measured.broken == (after > before).sum()
    cells = [cell.measured["test"] for cell in findings.cells.values() if cell.edit]
    assert [m.p_holm for m in cells] == pytest.approx(holm([m.gain.p_value for m in cells]))


def test_the_choice_has_the_smallest_error_on_validation(run):
    findings = find(run)
    seeds = sorted({trial.setting.seed for trial in run.trials.values()})
    for choice in findings.choices:
        means = {
            edit: np.mean([errors(run, seed, "validation", edit) for seed in seeds])
            for edit in [None, *findings.edits(choice.target)]
        }
        assert choice.edit == min(means, key=lambda edit: means[edit])


def test_every_format_tells_of_errors(run, tmp_path):
    made = Report.of(run)
    texts = {}
    for form in FORMATS:
        texts[form] = report(run.folder, tmp_path / f"report.{form}", format=form).read_text(
            "utf-8"
        )
    rows = list(csv.DictReader(io.StringIO(texts["csv"])))
    assert len(rows) == 7
    assert {"test_squared_error", "test_gain", "test_interval_low"} <= rows[0].keys()
    assert not any("accuracy" in name for name in rows[0])
    unpruned = next(row for row in rows if not row["layer"])
    for row in rows:
        if row is not unpruned:
            smaller = float(unpruned["test_squared_error"]) - float(row["test_squared_error"])
            assert float(row["test_gain"]) == pytest.approx(smaller)
    document = json.loads(texts["json"])
    assert document["tables"]["cells"] == json.loads(json.dumps(made.tables["cells"].to_json()))
    assert "smaller is better" in texts["html"]
    for text in (texts["html"], texts["md"]):
        assert "squared error" in text
        for word in ("accuracy", "points", "McNemar"):
            assert word not in text


def test_the_figures_are_drawn(run):
    pictures = {picture.name: picture for picture in Report.of(run).pictures}
    assert any(name.startswith("squared-error-by-rate") for name in pictures)
    for picture in pictures.values():
        assert "ccuracy" not in picture.title + picture.caption
        assert figure_bytes(picture.titled(), "png").startswith(b"\x89PNG")


def test_flips_are_the_rows_whose_errors_changed_most(run):
    findings = find(run)
    for choice in findings.choices:
        turned = flips(findings, choice, "test")
        if choice.edit is None:
            assert not turned
            continue
        changes = [float(flip.before) - float(flip.after) for flip in turned]
        signed = [
            c if flip.kind == "fixed" else -c for flip, c in zip(turned, changes, strict=True)
        ]
        assert min(signed) >= 0  # as written, to four digits
        assert [flip.kind for flip in turned] == sorted((f.kind for f in turned), reverse=True)
        better = [c for flip, c in zip(turned, changes, strict=True) if flip.kind == "fixed"]
        assert better == pytest.approx(sorted(better, reverse=True), abs=0.02)
        assert all(
            flip.text.startswith("f(") and flip.scored == len(choice.picks) for flip in turned
        )
