"""Reports of runs that the program itself made, on a tiny random model."""

import pytest

import eckart
from eckart.reports.page import Report
from eckart.reports.provenance import progress
from eckart.runs import RunStore, read_run

NAMES = {"text_column": "review", "label_column": "verdict"}


@pytest.fixture(scope="module")
def sweep(model, table, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "sweep"
    task = {"data": str(table), "name": "reviews", "split_sizes": "16,16", **NAMES}
    grid = {
        "layers": "all",
        "parts": ["attn", "mlp"],
        "rates": [0.5, 0.9],
        "shots": [2],
        "seeds": [0, 1],
    }
    return eckart.sweep(
        str(model), [task], **grid, scorings=["sum", "contextual"], spectra=True, out=out
    )


def test_a_sweep_and_its_report_have_the_same_choices(sweep):
    report = Report.of(sweep.run)
    assert report.provenance.warnings == []
    edits = {
        (line.setting.scoring, line.setting.seed, line.part): (
            line.edit and (line.edit.layer, line.edit.rate)
        )
        for line in sweep.lines
    }
    rows = report.tables["seeds"].rows
    assert {(r["scoring"], r["seed"], r["part"]) for r in rows} == set(edits)
    compared = []
    for choice in report.tables["choices"].rows:
        if choice["basis"] != "test, seed by seed":
            continue
        for row in rows:
            if (row["scoring"], row["part"]) == (choice["scoring"], choice["part"]):
                chosen = (row["layer"], row["rate"]) if "layer" in row else None
                assert chosen == edits[row["scoring"], row["seed"], row["part"]]
                compared.append(chosen)
    assert any(compared)
    assert {"calibration", "spectra"} <= report.tables.keys()


def test_the_test_gains_are_those_that_the_sweep_tells(sweep):
    by_seed = {
        (r["scoring"], r["seed"], r["part"]): r for r in Report.of(sweep.run).tables["seeds"].rows
    }
    compared = 0
    for line in sweep.lines:
        row = by_seed[line.setting.scoring, line.setting.seed, line.part]
        if line.test is not None and (row["layer"], row["rate"]) == (
            line.edit.layer,
            line.edit.rate,
        ):
            assert (row["gain"], row["p_value"]) == (
                pytest.approx(line.test.difference),
                line.test.p_value,
            )
            compared += 1
    assert compared


def test_a_sweep_that_was_stopped_is_reported_as_unfinished(sweep, tmp_path):
    with RunStore(tmp_path, sweep.run.settings) as store:
        for name, facts in sweep.run.models.items():
            store.keep_model(name, facts)
        for rows in sweep.run.rows.values():
            store.keep_rows(rows)
        for trial in list(sweep.run.trials.values())[:20]:
            store.keep(trial)
    run = read_run(tmp_path)
    there, wanted = progress(run)
    whole = progress(sweep.run)
    assert whole[0] == whole[1] == wanted > there
    report = Report.of(run)
    assert report.summary[0].startswith("This sweep is unfinished")
    assert "cells" in report.tables


def test_a_search_and_its_report_agree(model, table, tmp_path):
    task = eckart.Task.load(data=table, shots=2, split_sizes="16,16", **NAMES)
    study = eckart.search(str(model), task, rates=[0.5, 0.9], layer=1, out=tmp_path)
    report = Report.of(read_run(tmp_path))
    (choice,) = report.tables["choices"].rows
    assert choice["tried"] == 2
    if study.rate:
        paired = study.comparison
        assert (choice["layer"], choice["rate"]) == (study.layer, study.rate)
        assert (choice["gain"], choice["interval"]) == (paired.difference, paired.interval)
        assert (choice["fixed"], choice["broken"], choice["p_value"]) == (
            paired.fixed,
            paired.broken,
            paired.p_value,
        )
    else:
        assert choice["outcome"] == "nothing clipped"
    assert report.provenance.command.startswith(f"eckart search {model} --task")
