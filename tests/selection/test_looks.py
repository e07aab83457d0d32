"""The looks of other runs at the test rows: "once" holds for a run alone, and is said so."""

import json
import sqlite3
from dataclasses import asdict, replace

from samples import SETTING
from samples import trial as sample

from eckart import Edit, report, search
from eckart.demo import MODEL
from eckart.records import Row, Rows
from eckart.reports.results import search_report
from eckart.reports.terminal import as_text
from eckart.runs import LOOKS, RunStore
from eckart.selection.looks import Looks, looks_before

ROWS = Rows(("bad", "good"), tuple(Row(f"test:{i}", f"row {i}", 0) for i in range(4)))
CLIP = (Edit(1, "mlp", 0.5),)


def other(folder, *edits, rows=ROWS, model="m", **said):
    """Keep a run that scored these edits on some rows."""
    with RunStore(folder, {"kind": "sweep"}) as store:
        store.keep_rows(rows)
        for number, each in enumerate(edits):
            setting = replace(SETTING, model=model, scoring=f"s{number}")
            store.keep(sample(f"{number}", setting=setting, rows=rows.digest, edits=each, **said))
    return folder


def before(folder, looked=False) -> Looks:
    with RunStore(folder, {"kind": "search"}) as store:
        return looks_before(store, [ROWS], looked)


def test_nobody_beside_it(tmp_path):
    found = before(tmp_path / "runs" / "own")
    assert found == Looks()
    assert not found


def test_runs_and_distinct_edits_are_counted_and_not_to_clip_is_none(tmp_path):
    other(tmp_path / "one", (), CLIP, CLIP, (Edit(2, "mlp", 0.5),))
    other(tmp_path / "two", CLIP)
    other(tmp_path / "three", CLIP, model="another model")
    other(tmp_path / "four", ())
    found = before(tmp_path / "own")
    assert found == Looks(runs=4, edits=3, rows=4)
    assert str(found).startswith(
        "These test rows were looked at before: 4 runs beside this one scored 3 edits on 4 of them."
    )


def test_rows_are_known_by_their_texts_and_others_are_not_meant(tmp_path):
    some = Rows(("x",), (Row("train:9", "row 3", 1), Row("train:10", "no such row", 0)))
    elsewhere = Rows(("bad", "good"), (Row("test:0", "another text", 0),))
    candidates = Rows((), (Row("test:0", "row 0", 0, ("this", "that")),))
    other(tmp_path / "some", CLIP, rows=some)
    other(tmp_path / "elsewhere", CLIP, rows=elsewhere)
    other(tmp_path / "candidates", CLIP, rows=candidates)
    other(tmp_path / "nothing yet")
    assert before(tmp_path / "own") == Looks(runs=1, edits=1, rows=1)


def test_what_failed_on_the_test_rows_was_looked_at_by_nobody(tmp_path):
    other(tmp_path / "failed", (), CLIP, status="failed", score=None, error="no memory")
    assert before(tmp_path / "own") == Looks()


def test_what_cannot_be_read_is_counted_left_alone_and_no_reason_to_stop(tmp_path):
    damaged = other(tmp_path / "damaged", CLIP) / "run.sqlite"
    damaged.write_bytes(damaged.read_bytes()[:5000])
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "run.sqlite").write_bytes(b"")
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "run.sqlite").write_text("no database " * 100)
    (tmp_path / "folder" / "run.sqlite").mkdir(parents=True)
    strange = other(tmp_path / "strange", CLIP) / "run.sqlite"
    with sqlite3.connect(strange) as database:
        database.execute("UPDATE rows SET rows = '[1'")
    (tmp_path / "foreign").mkdir()
    with sqlite3.connect(tmp_path / "foreign" / "run.sqlite") as database:
        database.execute("CREATE TABLE rows (digest, rows)")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    files = sorted(tmp_path.glob("*/run.sqlite"))
    kept = {file: file.read_bytes() for file in files if file.is_file()}
    with RunStore(tmp_path / "in use", {}):
        found = before(tmp_path / "own")
    assert found == Looks(unread=len(files) + 1)
    assert str(found) == (
        "No other run beside this one is known to have scored its test rows; 7 more could not be"
        " read."
    )
    assert {file: file.read_bytes() for file in kept} == kept
    assert not list(tmp_path.glob("*/run.sqlite-journal"))


def test_a_run_under_another_name_is_itself(tmp_path):
    other(tmp_path / "runs" / "own", CLIP)
    (tmp_path / "runs" / "alias").symlink_to(tmp_path / "runs" / "own")
    with RunStore(tmp_path / "runs" / "alias", {"kind": "sweep"}) as store:
        assert looks_before(store, [ROWS], False) == Looks()


def test_others_are_counted_until_a_run_looks_itself(tmp_path):
    other(tmp_path / "one", CLIP)
    assert before(tmp_path / "own") == Looks(1, 1, rows=4)
    other(tmp_path / "two", CLIP)
    assert before(tmp_path / "own") == Looks(2, 1, rows=4)
    other(tmp_path / "three", CLIP)
    assert before(tmp_path / "own", looked=True) == Looks(2, 1, rows=4)
    # What looked before anybody counted is left as it was.
    assert before(tmp_path / "old", looked=True) == Looks()
    with RunStore(tmp_path / "old", {"kind": "search"}) as store:
        assert store.note(LOOKS) is None


def test_the_same_search_in_another_dtype_or_seed_looks_again_and_says_so(task, tmp_path):
    options = {"layer": 1, "rates": [0.9]}
    first = search(MODEL, task, dtype="float32", out=tmp_path / "first", **options)
    assert first.looks == Looks()
    assert "looked at once (n" in as_text(search_report(first))
    assert "looked_at_before" not in first.to_json()
    second = search(MODEL, task, dtype="bfloat16", out=tmp_path / "second", **options)
    assert second.looks == Looks(1, 1, rows=60)
    # Other demonstrations make other splits, most of whose rows are the same.
    third = search(MODEL, task.redrawn(seed=5), dtype="float32", out=tmp_path / "third", **options)
    assert third.looks.runs == 2
    said = " ".join(as_text(search_report(third)).split())
    assert "looked at once by this run" in said
    assert "These test rows were looked at before: 2 runs beside this one scored" in said
    assert f"looks       {third.looks}" in str(third)
    kept = json.loads((tmp_path / "third" / "result.json").read_text())
    assert kept["looked_at_before"] == asdict(third.looks)
    assert third.looks.rows > 30
    assert (
        str(third.looks)
        in json.loads(report(tmp_path / "third", format="json").read_text())["summary"]
    )
    # Whoever looks later takes nothing away from the first look.
    again = search(MODEL, task, dtype="float32", out=tmp_path / "first", **options)
    assert again.looks == Looks()


def test_where_no_run_is_kept_none_is_counted_and_once_is_not_said(task):
    found = search(MODEL, task, dtype="float32", layer=1, rates=[0.9])
    assert found.looks is None
    assert "looked at once by this run" in as_text(search_report(found))
