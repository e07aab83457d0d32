"""What can be seen is said first, costs a look that is kept, and changes nothing that is found."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from eckart import Task
from eckart.errors import NotANumberError
from eckart.records import Edit
from eckart.runs import RunStore, read_run
from eckart.scoring.evaluator import Evaluator
from eckart.selection.plan import Plan
from eckart.selection.power import largest_first, outlook
from eckart.selection.recorded import Recorded
from eckart.selection.search import run_plan
from eckart.statistics.power import Design
from eckart.weights.models import load_model

PLAN = Plan(rates=(0.5, 0.9), layer=1)


class Counted(Evaluator):
    """Notes what it reads; fails at the rates in `broken`."""

    broken = ()

    def outcomes(self, edits, split, scorings):
        self.__dict__.setdefault("read", []).append((str(split), *map(str, edits)))
        if any(edit.rate in self.broken for edit in edits):
            raise NotANumberError("no numbers")
        return super().outcomes(edits, split, scorings)


@pytest.fixture(scope="module")
def loaded(model):
    return load_model(model)


@pytest.fixture(scope="module")
def draw(tmp_path_factory):
    """Return a task with so many validation rows."""
    path = tmp_path_factory.mktemp("data") / "many.csv"
    words = ["good", "bad"]
    lines = [f"the {words[i % 2]} view {i} of town {i * i},{words[i % 2]}" for i in range(140)]
    path.write_text("review,verdict\n" + "\n".join(lines) + "\n")
    columns = {"text_column": "review", "label_column": "verdict"}
    return lambda rows: Task.load(data=path, **columns, shots=2, split_sizes=(rows, 30))


@pytest.fixture(scope="module")
def many(draw) -> Task:
    return draw(100)


def read_by(scorer):
    return scorer.__dict__.get("read", [])


def result(folder: Path) -> dict:
    found = json.loads((folder / "result.json").read_text())
    # What the clock says, and which other runs lie beside it, are no part of what is found.
    return {k: v for k, v in found.items() if k not in ("seconds", "looked_at_before")}


def test_it_is_what_the_first_rows_show(loaded, many):
    scorer = Counted(loaded, many)
    found = outlook(
        Recorded(scorer, None), largest_first(scorer.anatomy, 1, "mlp", (0.0, 0.5, 0.99))
    )
    assert read_by(scorer) == [("validation[0:64]",), ("validation[0:64]", "1:mlp:0.99")]
    before, after = scorer([], "validation").score, scorer([Edit(1, "mlp", 0.99)], "validation")
    pairs = list(zip(before.right, after.score.right, strict=True))[:64]
    turned = sum(was != now for was, now in pairs)
    assert (found.turned.rows, found.turned.looked, found.turned.edit) == (turned, 64, "1:mlp:0.99")
    assert found.rows == 30
    share = (turned or 3) / 64
    assert found.design.smallest(30) == Design(share).smallest(30)


def test_a_rate_that_fails_is_passed_over(loaded, many):
    scorer = Counted(loaded, many)
    scorer.broken = (0.99,)
    edits = largest_first(scorer.anatomy, 1, "mlp", (0.5, 0.99))
    assert outlook(Recorded(scorer, None), edits).turned.edit == "1:mlp:0.5"
    scorer.broken = (0.5, 0.99)
    assert outlook(Recorded(scorer, None), edits) is None


def test_a_scoring_of_all_rows_reads_all(loaded, many):
    scorer = Counted(loaded, many, scoring="batch")
    found = outlook(Recorded(scorer, None), [Edit(1, "mlp", 0.9)])
    assert read_by(scorer) == [("validation",), ("validation", "1:mlp:0.9")]
    assert found.turned.looked == 64


def test_it_is_told_first_and_read_once(loaded, many, tmp_path):
    told, scorer = [], Counted(loaded, many)
    run_plan(PLAN, scorer, tmp_path, tell=told.append)
    assert told[0].startswith("what can be seen: with 30 test rows and one draw, where ")
    looked = [split for split, *_ in read_by(scorer)]
    assert looked[:3] == ["validation[0:64]", "validation[0:64]", "validation"]
    again = Counted(loaded, many)
    run_plan(PLAN, again, tmp_path, tell=told.append)
    assert read_by(again) == []
    assert told[2:] == told[:1], "what is kept takes no time"


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.01, "about 9 seconds"), (1.0, "about 15 minutes")]
)
def test_how_long_it_takes_follows_from_the_first_rows(loaded, many, seconds, said):
    """100 rows of validation by the unpruned model and two edits, 30 of test by two and 5 arms."""

    class Timed(Evaluator):
        def answer(self, missing, split):
            for trial in super().answer(missing, split):
                yield replace(trial, seconds=seconds * (1 + bool(trial.edits)) * trial.score.n)

    told = []
    run_plan(PLAN.model_copy(update={"controls": True}), Timed(loaded, many), tell=told.append)
    assert told[1] == (
        f"how long it takes: up to {said} on this machine, going by these rows: 2 edits on"
        " validation, and the choice on test"
    )


def test_it_changes_nothing_that_is_found(loaded, many, tmp_path):
    run_plan(PLAN, Evaluator(loaded, many), tmp_path / "one" / "silent")
    run_plan(PLAN, Evaluator(loaded, many), tmp_path / "other" / "told", tell=lambda line: None)
    assert result(tmp_path / "one" / "silent") == result(tmp_path / "other" / "told")
    looks = {
        t.split for t in read_run(tmp_path / "other" / "told").trials.values() if t.split.is_part
    }
    assert looks == {"validation[0:64]"}
    assert not any(t.split.is_part for t in read_run(tmp_path / "one" / "silent").trials.values())


def test_a_run_that_was_begun_before_there_was_a_look_needs_none(loaded, many, tmp_path):
    run_plan(PLAN, Evaluator(loaded, many), tmp_path)
    told, scorer = [], Counted(loaded, many)
    run_plan(PLAN, scorer, tmp_path, tell=told.append)
    assert read_by(scorer) == []
    assert "of the first 64 validation rows at 1:mlp:0.9" in told[0]


def test_a_race_shares_its_first_look(loaded, many, tmp_path):
    plan = PLAN.model_copy(update={"race": True})
    calm, scorer = Counted(loaded, many), Counted(loaded, many)
    run_plan(plan, calm)
    run_plan(plan, scorer, tmp_path, tell=lambda line: None)
    assert sorted(read_by(scorer)) == sorted(read_by(calm))


def test_few_rows_are_read_once(loaded, draw, tmp_path):
    scorer = Counted(loaded, draw(40))
    run_plan(PLAN, scorer, tmp_path, tell=lambda line: None)
    validation = [what for what in read_by(scorer) if what[0] != "test"]
    assert sorted(validation) == [
        ("validation",),
        ("validation", "1:mlp:0.5"),
        ("validation", "1:mlp:0.9"),
    ]


def test_a_ledger_has_what_it_has_all_of(loaded, many, tmp_path):
    scorer = Evaluator(loaded, many)
    asked = [(), (Edit(1, "mlp", 0.5),)]
    with RunStore(tmp_path, {}) as store:
        recorded = Recorded(scorer, store)
        list(recorded.score(asked[:1], "validation[0:8]"))
        assert recorded.has(asked[:1], "validation[0:8]")
        assert not recorded.has(asked, "validation[0:8]")
    assert not Recorded(scorer, None).has(asked[:1], "validation[0:8]")
