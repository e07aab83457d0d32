"""What a run shows, on runs whose truth is known or can be computed plainly."""

import math
from dataclasses import replace

import numpy as np
import pytest
from made_runs import Made

from eckart.analysis.calibration import CALIBRATED, PLAIN, crossings
from eckart.analysis.findings import find, pick
from eckart.analysis.flips import flips
from eckart.analysis.outcomes import Condition, blocks
from eckart.errors import RunError
from eckart.records import Edit, Rows
from eckart.reports.page import Report
from eckart.reports.tables import (
    calibration_table,
    cells_table,
    choices_table,
    failures_table,
    seeds_table,
)
from eckart.runs import Run
from eckart.scoring.methods import METHODS
from eckart.statistics.multiplicity import holm, selected_gain
from eckart.statistics.paired import mcnemar_exact, paired_difference

BEST = Edit(6, "mlp", 0.9)


def planted(setting, edit):
    return 0.2 if edit == BEST else 0.0


def right(run: Run, seed: int, split: str, edit: Edit | None) -> dict[str, bool]:
    """Return on which rows a trial was right, read off the trials one by one."""
    (trial,) = (
        t
        for t in run.trials.values()
        if (t.setting.seed, t.split, t.edits) == (seed, split, (edit,) if edit else ())
    )
    return dict(zip((row.id for row in run.rows[trial.rows].rows), trial.score.right, strict=True))


def without(run: Run, unwanted) -> Run:
    return replace(run, trials={k: t for k, t in run.trials.items() if not unwanted(t)})


def only(found):
    (choice,) = found.choices
    return choice


def test_rows_are_aligned_by_id_where_seeds_differ():
    run = Made().run()
    found = find(run)
    (condition,) = found.conditions
    for edit in (BEST, Edit(0, "mlp", 0.5)):
        gains = []
        for seed in (0, 1, 2):
            before, after = (right(run, seed, "test", which) for which in (None, edit))
            assert before.keys() == after.keys()
            gains.append(np.mean([after[i] - before[i] for i in before]))
        measured = found.measured(condition, edit, "test")
        assert measured.gain.mean == pytest.approx(np.mean(gains))
        assert (measured.rows, measured.seeds) == (80, 3)
        assert measured.by_seed[1] == pytest.approx(
            np.mean(list(right(run, 1, "test", edit).values()))
        )


def test_a_planted_gain_is_chosen_and_called_a_gain():
    choice = only(find(Made(rows=400, gain=planted).run()))
    assert (choice.edit, choice.conclusion, choice.basis) == (BEST, "gain", "test")
    assert choice.gain.interval[0] > 0
    assert choice.tried == 12


def test_nothing_is_claimed_of_noise():
    choices = [only(find(Made(draws=draw).run())) for draw in range(20)]
    assert sum(choice.conclusion in ("gain", "loss") for choice in choices) <= 2


def test_one_seed_is_told_with_the_numbers_of_a_search():
    run = Made(seeds=(4,), gain=planted).run()
    choice = only(find(run))
    before, after = (right(run, 4, "test", edit) for edit in (None, choice.edit))
    paired = paired_difference(list(before.values()), list(after.values()))
    assert (choice.gain.mean, choice.gain.interval) == (paired.difference, paired.interval)
    assert (choice.gain.p_value, choice.fixed, choice.broken) == (
        paired.p_value,
        paired.fixed,
        paired.broken,
    )
    assert choice.gain.seeds == 1


def test_p_values_are_corrected_for_every_cell_and_every_choice():
    found = find(Made(parts=("mlp", "attn"), tasks=("moods", "topics")).run())
    measured = [cell.measured["test"] for cell in found.cells.values() if cell.edit]
    expected = holm([m.gain.p_value for m in measured])
    assert [m.p_holm for m in measured] == pytest.approx(expected)
    choices = [c.gain.p_value if c.gain else 1.0 for c in found.choices]
    assert [c.p_adjusted for c in found.choices] == pytest.approx(holm(choices))
    assert len(choices) == 4


def test_without_a_test_the_gain_is_corrected_for_the_choice():
    found = find(Made(test="none", draws=3).run())
    choice = only(found)
    assert (choice.basis, choice.fixed, choice.broken) == ("cross-validated", 0, 0)
    assert choice.naive > choice.gain.mean
    assert found.split(choice) == "validation"
    assert (
        choice.gain == selected_gain(found.blocks[choice.condition, "validation"].gains).corrected
    )


def test_each_seeds_own_choice_is_judged_where_only_that_was_tested():
    made = Made(draws=1)
    whole = made.run()
    block = blocks(whole)[Condition("made/tiny", "moods", 4, "sum"), "validation"]
    picks = {seed: pick(block, made.edits(), "accuracy", [seed]) for seed in made.seeds}
    assert len(set(picks.values())) > 1
    run = without(
        whole, lambda t: t.split == "test" and bool(t.edits) and t.edits[0] != picks[t.setting.seed]
    )
    found = find(run)
    choice = only(found)
    assert (choice.picks, choice.basis, choice.agreed) == (picks, "test, seed by seed", False)
    gains = []
    for seed, edit in picks.items():
        before, after = (right(run, seed, "test", which) for which in (None, edit))
        gains.append(np.mean([after[i] - before[i] for i in before]))
    assert choice.gain.mean == pytest.approx(np.mean(gains))
    assert [row["seed"] for row in seeds_table(found).rows] == [0, 1, 2]


def test_a_seed_whose_choice_is_not_tested_yet_says_nothing():
    made = Made(draws=1)
    run = without(made.run(), lambda t: t.split == "test" and bool(t.edits) and t.setting.seed == 2)
    lacking = only(find(run))
    assert (set(lacking.picks), lacking.gain.seeds) == ({0, 1}, 2)


def test_where_nothing_does_better_nothing_is_clipped():
    run = Made(base=1.0).run()
    choice = only(find(run))
    assert (choice.edit, choice.gain, choice.conclusion) == (None, None, "nothing clipped")


def test_of_equals_the_one_that_clips_less_then_the_deeper_is_chosen():
    run = Made(seeds=(0,), base=0.5, gain=lambda setting, edit: 0.0).run()
    block = next(iter(blocks(run).values()))
    edits = [Edit(1, "mlp", 0.9), Edit(7, "mlp", 0.5), Edit(0, "mlp", 0.5)]
    alike = replace(
        block,
        unpruned=block.unpruned * 0,
        edits=tuple(edits),
        merits=np.ones((3, 1, len(block.ids))),
    )
    assert pick(alike, edits, "accuracy", [0]) == Edit(7, "mlp", 0.5)


def test_failed_trials_are_listed_and_never_counted():
    run = Made(gain=planted).run()
    failed = {
        key: replace(t, score=None, status="failed", error="the logits are <NaN>")
        for key, t in run.trials.items()
        if t.edits == (BEST,) and t.setting.seed == 1
    }
    found = find(replace(run, trials={**run.trials, **failed}))
    choice = only(found)
    assert choice.edit != BEST
    assert found.measured(choice.condition, BEST, "test").seeds == 2
    rows = failures_table(found).rows
    assert [(row["seed"], row["split"], row["error"]) for row in rows] == [
        (1, "test", "the logits are <NaN>"),
        (1, "validation", "the logits are <NaN>"),
    ]


def test_a_race_leaves_pieces_that_are_put_together():
    run = Made(seeds=(0,), layers=(3,), rates=(0.5, 0.9)).run()
    pieces = {}
    for key, trial in run.trials.items():
        if trial.split != "validation":
            pieces[key] = trial
            continue
        for start, stop in ((0, 40), (40, 79)):
            if trial.edits == (Edit(3, "mlp", 0.9),) and start:
                continue
            score = trial.score
            cut = {name: getattr(score, name)[start:stop] for name in ("labels", "predictions")}
            piece = replace(
                trial,
                split=f"validation[{start}:{stop}]",
                score=replace(score, n=stop - start, **cut),
            )
            pieces[f"{key}{start}"] = piece
    raced, whole = find(replace(run, trials=pieces)), find(run)
    (condition,) = whole.conditions
    for edit, rows in ((Edit(3, "mlp", 0.5), 79), (Edit(3, "mlp", 0.9), 40)):
        assert raced.measured(condition, edit, "validation").rows == rows
    before, after = (
        f.measured(condition, Edit(3, "mlp", 0.5), "validation") for f in (whole, raced)
    )
    assert (before.mean, before.gain) == (after.mean, after.gain)
    assert only(raced).edit != Edit(3, "mlp", 0.9)


@pytest.mark.parametrize("slow", [0.5, 0.9])
def test_a_race_that_dropped_the_unpruned_model_first_is_won_by_who_read_on(slow):
    run = Made(seeds=(0,), layers=(3,), rates=(0.5, 0.9), rows=200, gain=lambda s, e: 0.15).run()
    winner = Edit(3, "mlp", 0.5 if slow == 0.9 else 0.9)
    pieces = {}
    for key, trial in run.trials.items():
        if trial.split == "validation":
            stop = {(): 40, (winner,): trial.score.n}.get(trial.edits, 80)
            right = np.arange(stop) < (0.7 if trial.edits == (winner,) else 0.8) * stop
            labels = trial.score.labels[:stop]
            cut = {
                "labels": labels,
                "predictions": tuple(np.where(right, labels, 1 - np.array(labels)).tolist()),
            }
            score = replace(trial.score, n=stop, accuracy=float(right.mean()), **cut)
            trial = replace(trial, split=f"validation[0:{stop}]", score=score)
        elif trial.edits not in ((), (winner,)):
            continue
        pieces[key] = trial
    assert only(find(replace(run, trials=pieces))).picks == {0: winner}


def test_one_class_is_no_trap():
    found = find(Made(labels=("good",), seeds=(0, 1)).run())
    assert (only(found).conclusion, only(found).gain.seeds) == ("cannot tell", 2)
    assert found.measured(only(found).condition, None, "test").others["majority_rate"] == 1.0


def test_a_run_that_lacks_its_rows_is_damaged():
    with pytest.raises(RunError, match="lacks the rows"):
        find(replace(Made().run(), rows={}))


def test_an_empty_run_shows_nothing():
    found = find(Run(Made().run().folder, {"kind": "sweep"}, {}, {}, {}, {}))
    assert (found.choices, found.conditions) == ((), [])


def test_flips_name_what_turned():
    run = Made(gain=planted).run()
    found = find(run)
    choice = only(found)
    turned = flips(found, choice, "test")
    fixed = [flip for flip in turned if flip.kind == "fixed"]
    assert sum(len(flip.seeds) for flip in fixed) == choice.fixed
    assert sum(len(flip.seeds) for flip in turned) == choice.fixed + choice.broken
    before, after = (right(run, fixed[0].seeds[0], "test", edit) for edit in (None, choice.edit))
    assert (before[fixed[0].id], after[fixed[0].id]) == (False, True)
    assert fixed[0].after == fixed[0].label != fixed[0].before


def test_flips_of_multiple_choice_name_the_rows_own_choices():
    run = Made(seeds=(0,), gain=planted).run()
    named = {
        digest: Rows(
            (), tuple(replace(row, choices=(f"{row.id} a", f"{row.id} b")) for row in rows.rows)
        )
        for digest, rows in run.rows.items()
    }
    found = find(run)
    flip = flips(replace(found, run=replace(run, rows=named)), only(found), "test")[0]
    assert flip.label.startswith(flip.id)


def test_clipping_is_crossed_with_calibrating():
    gain = {"sum": lambda e: 0.0, "contextual": lambda e: 0.2 if e == BEST else 0.0}
    run = Made(scorings=("sum", "contextual"), rows=300, gain=lambda s, e: gain[s.scoring](e)).run()
    found = find(run)
    rows = {row["comparison"]: row for row in calibration_table(found).rows}
    alone = rows["calibrating alone (sum to contextual)"]
    plain, calibrated = (
        found.measured(c, None, "test").mean for c in sorted(found.conditions, reverse=True)
    )
    assert (alone["before"], alone["after"]) == (pytest.approx(plain), pytest.approx(calibrated))
    assert alone["gain"] == pytest.approx(calibrated - plain)
    assert rows["clipping, once calibrated (contextual)"]["interval"][0] > 0


def test_the_table_of_cells_has_the_numbers_as_they_are():
    found = find(Made(gain=planted).run())
    rows = {(row.get("layer"), row.get("rate")): row for row in cells_table(found).rows}
    (condition,) = found.conditions
    measured = found.measured(condition, BEST, "validation")
    row = rows[BEST.layer, BEST.rate]
    assert row["validation_accuracy"] == measured.mean
    assert row["validation_gain"] == measured.gain.mean
    assert row["seconds"] == pytest.approx(3 * 2 * 0.5)
    assert "validation_gain" not in rows[None, None]
    for row in seeds_table(found).rows:
        assert row["p_value"] == mcnemar_exact(row["fixed"], row["broken"])
        assert math.isclose(row["gain"], (row["fixed"] - row["broken"]) / row["rows"])


def test_every_scoring_is_either_plain_or_calibrated():
    assert sorted(PLAIN + CALIBRATED) == sorted(METHODS)


@pytest.mark.parametrize(
    ("scorings", "comparison"),
    [
        (("byte", "contextual", "sum"), "calibrating alone (sum to contextual)"),
        (("byte", "mean", "prior"), "calibrating alone (mean to prior)"),
        (("logit", "mean"), None),
    ],
)
def test_the_first_plain_scoring_is_what_calibrating_is_compared_with(scorings, comparison):
    found = crossings(find(Made(scorings=scorings).run()))
    alone = [
        crossing.comparison for crossing in found if crossing.comparison.startswith("calibrating")
    ]
    assert alone == ([comparison] if comparison else [])


def test_the_metric_is_that_of_the_very_task():
    tasks = [
        {"name": "sst2", "variant": "released", "metric": "macro_f1"},
        {"name": "sst2", "variant": None, "metric": "balanced_accuracy"},
    ]
    run = replace(Made().run(), settings={"kind": "sweep", "study": {"tasks": tasks}})
    assert run.asked.metric("sst2") == "balanced_accuracy"
    assert run.asked.metric("sst2:released") == "macro_f1"
    searched = replace(run, settings={"kind": "search", "metric": "macro_f1"})
    assert searched.asked.metric("sst2") == "macro_f1"


def test_seeds_that_chose_differently_are_crossed_by_their_own_choices():
    made = Made(draws=1, scorings=("sum", "prior"))
    whole = made.run()
    gathered = blocks(whole)

    def own(trial):
        block = gathered[Condition.of(trial), "validation"]
        return pick(block, made.edits(), "accuracy", [trial.setting.seed])

    run = without(whole, lambda t: t.split == "test" and bool(t.edits) and t.edits[0] != own(t))
    found = find(run)
    assert not all(choice.agreed for choice in found.choices)
    rows = {row["comparison"]: row for row in calibration_table(found).rows}
    for choice in found.choices:
        name = (
            "clipping alone (sum)"
            if choice.condition.scoring == "sum"
            else "clipping, once calibrated (prior)"
        )
        assert rows[name]["seeds"] == 3
        assert rows[name]["gain"] == pytest.approx(choice.gain.mean)
        assert rows[name]["interval"] == pytest.approx(choice.gain.interval)


@pytest.mark.parametrize("keep", [1, 2, 5, 13, 14, 20, 40, 41, 60, 77])
def test_whatever_is_there_of_an_interrupted_run_is_told(keep):
    run = Made(scorings=("sum", "prior"), gain=planted).run()
    keys = np.random.default_rng(keep).permutation(list(run.trials))[:keep]
    report = Report.of(replace(run, trials={key: run.trials[key] for key in keys}))
    assert len(report.tables["cells"].rows) > 0
    assert report.to_markdown()
    for picture in report.pictures:
        picture.draw()


def test_the_spread_over_seeds_is_that_of_the_unpruned_model():
    run = Made().run()
    found = find(run)
    choice = only(found)
    split = found.split(choice)
    accuracies = [np.mean(list(right(run, seed, split, None).values())) for seed in (0, 1, 2)]
    (row,) = choices_table(found).rows
    assert row["seed_spread"] == pytest.approx(np.std(accuracies, ddof=1))
    assert choices_table(find(Made(seeds=(4,)).run())).rows[0]["seed_spread"] is None


def failed(run: Run, which) -> Run:
    gone = {
        key: replace(trial, score=None, status="failed", error="not finite")
        for key, trial in run.trials.items()
        if which(trial)
    }
    return replace(run, trials={**run.trials, **gone})


@pytest.mark.parametrize("test", ["all", "none"])
@pytest.mark.parametrize(
    ("which", "missing"),
    [
        (lambda t: True, "the unpruned model has no validation score"),
        (lambda t: not t.edits, "the unpruned model has no validation score"),
        (lambda t: bool(t.edits), "no edit was scored on validation under each of the 3 seeds"),
    ],
)
def test_what_was_never_found_out_is_not_known(which, missing, test):
    lacking = failed(Made(test=test).run(), which)
    choice, said = only(find(lacking)), Report.of(lacking).summary
    assert (choice.conclusion, choice.missing, choice.edit) == ("not known", missing, None)
    assert any(missing in sentence for sentence in said)
    assert not any("did better on validation" in sentence for sentence in said)
    assert not seeds_table(find(lacking)).rows


def test_an_unpruned_model_that_is_missing_leaves_the_choice_unknown():
    choice = only(find(without(Made().run(), lambda t: not t.edits)))
    assert (choice.conclusion, choice.picks) == ("not known", {})


def test_only_what_every_seed_scored_was_tried():
    run = Made(base=1.0).run()  # nothing can do better
    few = without(run, lambda t: t.setting.seed == 2 and t.edits not in ((), (BEST,)))
    choice = only(find(few))
    assert (choice.conclusion, choice.tried) == ("nothing clipped", 1)
    assert (
        only(find(without(run, lambda t: t.setting.seed == 2 and bool(t.edits)))).conclusion
        == "not known"
    )
