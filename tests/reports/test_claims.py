"""The paper's claims on runs where they are true, false, or cannot be judged."""

from dataclasses import replace

import numpy as np
import pytest
from made_runs import Made

from eckart.analysis.claims import steadiness
from eckart.analysis.findings import find
from eckart.records import Edit
from eckart.reports.claims import curse_table, rule_table, steadiness_table
from eckart.reports.page import Report

CONDITIONS = {"mlp": {"0": 10.0, "1": None, "6": 20.0, "7": 90.0}}


def shallow_collapses(setting, edit):
    return -0.25 if edit.layer < 2 and edit.rate > 0.9 else 0.0


def layer_six_gains(setting, edit):
    return 0.2 if edit.layer == 6 else 0.0


def with_conditions(run):
    return replace(run, models={"made/tiny": {"condition_numbers": CONDITIONS, "spectra": []}})


def test_deep_layers_that_are_steadier_are_found_to_be():
    (steady,) = steadiness(find(Made(gain=shallow_collapses, rows=150).run()))
    assert (steady.shallow, steady.deep, steady.split) == ((0, 1), (6, 7), "test")
    assert steady.measured.spread_difference.interval[1] < 0
    assert steady.measured.worst_difference.interval[0] > 0
    assert steady.measured.worst[0].mean < -0.1


def test_layers_that_are_alike_are_not_told_apart():
    (steady,) = steadiness(find(Made(rows=150).run()))
    low, high = steady.measured.spread_difference.interval
    assert low <= 0 <= high


def test_a_table_of_layers_ends_in_their_comparison():
    rows = steadiness_table(find(Made(layers=(0, 3, 7), gain=shallow_collapses).run())).rows
    assert [row["layer"] for row in rows] == ["0", "3", "7", "deep less shallow: 7 less 0"]


def test_without_test_cells_steadiness_is_read_off_validation():
    (steady,) = steadiness(find(Made(test="none").run()))
    assert steady.split == "validation"


def test_a_grid_with_a_hole_is_not_judged():
    run = Made().run()
    hole = {
        key: trial
        for key, trial in run.trials.items()
        if trial.edits != (Edit(0, "mlp", 0.5),) or trial.setting.seed != 1
    }
    assert not list(steadiness(find(replace(run, trials=hole))))


@pytest.mark.parametrize(("top_k", "chosen"), [(1, 1), (2, 7)])
def test_the_rule_is_judged_on_the_layer_that_it_chooses(top_k, chosen):
    run = with_conditions(Made(gain=layer_six_gains, rows=150).run())
    run = replace(run, settings={"kind": "sweep", "study": {"top_k": top_k}})
    (row,) = rule_table(find(run)).rows
    assert (row["chosen_layer"], row["layers"]) == (chosen, 4)
    assert row["below_best"] < -0.04  # 6 is where a gain of 10 points is
    assert row["rank"] > 1


def test_a_rule_that_chooses_the_best_layer_has_rank_one():
    run = Made(gain=layer_six_gains, rows=150).run()
    conditions = {"mlp": {"0": 10.0, "1": 20.0, "6": 90.0, "7": 30.0}}
    run = replace(run, settings={"kind": "sweep", "study": {"top_k": 1}})
    run = replace(run, models={"made/tiny": {"condition_numbers": conditions}})
    (row,) = rule_table(find(run)).rows
    assert (row["chosen_layer"], row["rank"]) == (6, 1)
    assert row["over_random_interval"][0] > 0
    assert row["below_best"] >= -1e-12


@pytest.mark.parametrize("made", [Made(test="none"), Made(layers=(6,))])
def test_the_rule_is_not_judged_without_test_rows_or_other_layers(made):
    run = with_conditions(made.run())
    assert not rule_table(find(run)).rows


def test_the_rule_is_not_judged_where_nothing_was_measured():
    run = Made().run()
    assert not rule_table(find(run)).rows


def test_noise_shrinks_and_a_gain_stays():
    (noise,) = curse_table(find(Made(rows=100).run())).rows
    (true,) = curse_table(find(Made(gain=layer_six_gains, rows=400).run())).rows
    assert true["slope"] > 0.7 > noise["slope"]
    assert true["cells"] == 12
    assert noise["gap"] == pytest.approx(noise["validation"] - noise["test"])


def test_a_report_holds_the_claims():
    run = with_conditions(Made().run())
    report = Report.of(run)
    assert {"steadiness", "rule", "curse"} <= report.tables.keys()
    page = report.to_html()
    assert "Are deep layers steadier?" in page
    assert "deep less shallow: 6, 7 less 0, 1" in report.to_markdown()
    assert np.isfinite(report.to_json()["tables"]["steadiness"][0]["spread"])


def test_what_was_measured_stands_beside_what_was_held_out():
    found = find(Made(layers=(0, 3, 7), gain=shallow_collapses).run())
    table = steadiness_table(found)
    (target,) = found.targets
    for row, layer in zip(table.rows, (0, 3, 7), strict=False):
        edits = [edit for edit in found.edits(target) if edit.layer == layer]
        gains = [found.measured(target.condition, edit, "test").gain.mean for edit in edits]
        assert row["plain_worst"] == pytest.approx(min(gains))
        assert row["plain_spread"] == pytest.approx(np.std(gains, ddof=1))
        assert (row["rows"], row["seeds"]) == (80, 3)
    last = table.rows[-1]
    assert last["plain_worst"] == pytest.approx(
        table.rows[2]["plain_worst"] - table.rows[0]["plain_worst"]
    )
    assert "Layer 3 is the middle one" in table.note
    assert "middle one" not in steadiness_table(find(Made().run())).note
