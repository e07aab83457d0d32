"""The run store: nothing lost, nothing computed twice, nothing mixed up."""

import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from samples import ROWS, SETTING, score, trial

from eckart.errors import ModelError, RunError
from eckart.records import Edit
from eckart.runs import RunStore, read_run, write_whole
from eckart.selection.recorded import Recorded

SETTINGS = {"model": "m", "rates": [0.0, 0.5], "layer": None}


class Counting:
    """A scorer that counts its readings."""

    setting = SETTING
    scoring = SETTING.scoring

    def __init__(self, fault: Exception | None = None):
        self.readings = 0
        self.fault = fault

    def rows(self, split):
        return ROWS

    def key(self, edits, split, scoring):
        return f"{split} {edits} {scoring}"

    def asked(self, candidates, split, scorings=()):
        wanted = scorings or [self.scoring]
        return {edits: {s: self.key(edits, split, s) for s in wanted} for edits in candidates}

    def answer(self, asked, split):
        for edits, keys in asked.items():
            self.readings += 1
            if self.fault:
                raise self.fault
            for scoring, key in keys.items():
                failed = {"score": None, "status": "failed", "error": "this one overflows"}
                outcome = failed if any(edit.rate > 0.9 for edit in edits) else {}
                setting = replace(SETTING, scoring=scoring)
                yield trial(key, split=split, edits=edits, setting=setting, **outcome)


def scored(scorer, store, *edits, shared=False):
    """The trials of one candidate on test rows."""
    return list(Recorded(scorer, store, shared=shared).score([edits], "test"))


@pytest.mark.parametrize(
    "kept", [trial(), trial(score=None, status="failed", error="NaN"), trial(edits=())]
)
def test_a_trial_comes_back_as_it_was(tmp_path, kept):
    with RunStore(tmp_path, SETTINGS) as store:
        store.keep(kept)
        assert store.trial("k") == kept
        assert store.trial("another") is None
    with RunStore(tmp_path, SETTINGS) as store:
        assert store.trial("k") == kept


def test_what_is_known_is_never_computed_again(tmp_path):
    scorer = Counting()
    for _ in range(3):
        with RunStore(tmp_path, SETTINGS) as store:
            assert [t.score for t in scored(scorer, store, Edit(0, "mlp", 0.5))] == [score()]
    assert scorer.readings == 1


def test_only_what_is_missing_is_computed_and_kept_as_it_comes(tmp_path):
    scorer, mild, told = Counting(), (Edit(0, "mlp", 0.5),), []
    with RunStore(tmp_path, SETTINGS) as store:
        recorded = Recorded(scorer, store, watch=told.append)
        list(recorded.score([mild], "test", ["sum"]))
        found = recorded.score([(), mild], "test", ["sum", "mean"])
        first = next(found)
        assert (first.edits, first.setting.scoring, scorer.readings) == (mild, "sum", 1)
        second = next(found)
        assert store.trial(second.key) == second
        assert len({(t.edits, t.setting.scoring) for t in (first, second, *found)}) == 4
        assert scorer.readings == 3
        assert len(told) == len(list(store.trials())) == 4


def test_a_setting_that_asks_the_very_same_has_the_trial_too(tmp_path):
    scorer, other = Counting(), Counting()
    other.setting = replace(SETTING, seed=7)
    with RunStore(tmp_path, SETTINGS) as store:
        scored(scorer, store)
        for _ in range(2):
            (same,) = scored(other, store, shared=True)
            assert (same.setting, same.seconds) == (other.setting, 0)
        assert other.readings == 0
        assert len(list(store.trials())) == 2


def test_a_run_of_one_setting_knows_its_trials_wherever_the_model_lies(tmp_path):
    scorer, moved = Counting(), Counting()
    moved.setting = replace(SETTING, model="elsewhere/m")
    with RunStore(tmp_path, SETTINGS) as store:
        assert scored(scorer, store) == scored(moved, store)
        assert moved.readings == 0
        assert len(list(store.trials())) == 1


def test_without_a_ledger_everything_is_computed():
    scorer = Counting()
    assert [t.edits for t in Recorded(scorer, None).score([()], "test")] == [()]
    assert scorer.readings == 1


def test_a_failed_trial_is_kept_with_its_cause(tmp_path):
    scorer = Counting()
    for _ in range(2):
        with RunStore(tmp_path, SETTINGS) as store:
            (failed,) = scored(scorer, store, Edit(0, "mlp", 0.95))
            assert (failed.status, failed.score) == ("failed", None)
            assert failed.error == "this one overflows"
    assert scorer.readings == 1


@pytest.mark.parametrize("error", [ZeroDivisionError("ours"), ModelError("memory is full")])
def test_what_may_go_well_another_time_is_not_kept(tmp_path, error):
    with RunStore(tmp_path, SETTINGS) as store:
        with pytest.raises(type(error)):
            scored(Counting(error), store)
        assert list(store.trials()) == []


def test_another_setting_is_refused_by_name(tmp_path):
    RunStore(tmp_path, SETTINGS).__exit__()
    with pytest.raises(
        RunError,
        match=r"other settings \(model \"m\", now \"n\"; layer null, now 3\); choose another --out",
    ):
        RunStore(tmp_path, {**SETTINGS, "model": "n", "layer": 3})
    RunStore(tmp_path, SETTINGS).__exit__()


def test_a_nested_setting_is_named_and_not_its_surroundings(tmp_path):
    study = {
        "rates": [0, 0.5, 0.9],
        "models": [{"name": "m" * 80, "dtype": "auto"}],
        "seeds": list(range(99)),
    }
    RunStore(tmp_path, {"study": study}).__exit__()
    with pytest.raises(RunError, match=r"\(study\.rates \[0, 0\.5, 0\.9\], now \[0, 0\.3\]\)"):
        RunStore(tmp_path, {"study": {**study, "rates": [0, 0.3]}})
    with pytest.raises(RunError, match=r'\(study\.models\.1\.dtype "auto", now "float32"\)'):
        RunStore(tmp_path, {"study": {**study, "models": [{"name": "m" * 80, "dtype": "float32"}]}})
    with pytest.raises(RunError, match=r"97, 98\], now \[.*98, 99\]\)"):
        RunStore(tmp_path, {"study": {**study, "seeds": list(range(100))}})


@pytest.mark.parametrize("text", ["{broken", "[]", "null", '{"key": "k"}'])
def test_a_damaged_trial_in_a_sound_store_is_refused(tmp_path, text):
    with RunStore(tmp_path, SETTINGS) as store:
        store.keep(trial())
    with closing(sqlite3.connect(tmp_path / "run.sqlite")) as database, database:
        database.execute("UPDATE trials SET trial = ?", [text])
    with pytest.raises(RunError, match=r"damaged run\.sqlite"):
        read_run(tmp_path)
    with RunStore(tmp_path, SETTINGS) as store:
        with pytest.raises(RunError, match=r"damaged run\.sqlite"):
            list(store.trials())
        with pytest.raises(RunError, match=r"damaged run\.sqlite"):
            store.trial("k")


def test_two_processes_do_not_share_a_run(tmp_path):
    with RunStore(tmp_path, SETTINGS), pytest.raises(RunError, match="in use by another process"):
        RunStore(tmp_path, SETTINGS)


def test_a_damaged_store_is_refused(tmp_path):
    (tmp_path / "run.sqlite").write_bytes(b"not a database at all" * 100)
    with pytest.raises(RunError, match=r"damaged run\.sqlite"):
        RunStore(tmp_path, SETTINGS)


def test_a_store_damaged_in_the_middle_is_refused(tmp_path):
    with RunStore(tmp_path, SETTINGS) as store:
        for i in range(200):
            store.keep(trial(str(i)))
    path = tmp_path / "run.sqlite"
    content = bytearray(path.read_bytes())
    content[4096:] = b"\xff" * (len(content) - 4096)
    path.write_bytes(content)
    with (
        pytest.raises(RunError, match=r"damaged run\.sqlite"),
        RunStore(tmp_path, SETTINGS) as store,
    ):
        store.trial("7")


def test_somebody_elses_database_is_not_touched(tmp_path):
    with sqlite3.connect(tmp_path / "run.sqlite") as database:
        database.execute("CREATE TABLE theirs (x)")
    database.close()
    before = (tmp_path / "run.sqlite").read_bytes()
    with pytest.raises(RunError, match="is no run of eckart"):
        RunStore(tmp_path, SETTINGS)
    assert (tmp_path / "run.sqlite").read_bytes() == before


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot be made"):
        RunStore(tmp_path / "file" / "run", SETTINGS)


def test_a_run_is_read_as_it_was_kept(tmp_path):
    with RunStore(tmp_path, SETTINGS) as store:
        scored(Counting(), store, Edit(0, "mlp", 0.5))
        store.keep_spectrum("q", {"sigma_max": 2.0})
    run = read_run(tmp_path)
    (kept,) = run.trials.values()
    assert (kept.setting, kept.edits, kept.score.predictions) == (
        SETTING,
        (Edit(0, "mlp", 0.5),),
        (0, 0),
    )
    assert kept.score.log_likelihoods == ()
    assert run.rows == {kept.rows: ROWS}
    assert (run.settings, run.spectra) == (SETTINGS, {"q": {"sigma_max": 2.0}})


def test_reading_changes_nothing(tmp_path):
    with RunStore(tmp_path, SETTINGS) as store:
        store.keep(trial())
    before = (tmp_path / "run.sqlite").read_bytes()
    read_run(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["run.sqlite"]
    assert (tmp_path / "run.sqlite").read_bytes() == before


def test_a_run_that_was_killed_before_it_began_says_so_and_begins_again(tmp_path):
    (tmp_path / "run.sqlite").touch()
    with pytest.raises(RunError, match="is empty: it was ended before it kept anything"):
        read_run(tmp_path)
    with RunStore(tmp_path, SETTINGS) as store:
        store.keep(trial())
    assert len(read_run(tmp_path).trials) == 1


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(RunError, match=r"holds no run \(no run\.sqlite\)"):
        read_run(tmp_path)
    (tmp_path / "run.sqlite").write_bytes(b"not a database at all" * 100)
    with pytest.raises(RunError, match=r"damaged run\.sqlite"):
        read_run(tmp_path)


def test_a_run_in_use_is_not_read(tmp_path):
    with RunStore(tmp_path, SETTINGS), pytest.raises(RunError, match="in use by another process"):
        read_run(tmp_path)


def test_spectra_are_kept(tmp_path):
    with RunStore(tmp_path, SETTINGS) as store:
        assert store.spectrum("q") is None
        store.keep_spectrum("q", {"sigma_max": 2.0})
        assert store.spectrum("q") == {"sigma_max": 2.0}


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "result.json"
    write_whole(path, b"old")
    write_whole(path, b"new")
    assert path.read_bytes() == b"new"
    assert [p.name for p in tmp_path.iterdir()] == ["result.json"]
    with pytest.raises(RunError, match="cannot be written"):
        write_whole(tmp_path / "absent" / "result.json", b"x")


def test_a_link_stays_a_link_and_a_device_a_device(tmp_path):
    (tmp_path / "real.jsonl").write_text("old")
    (tmp_path / "link.jsonl").symlink_to("real.jsonl")
    write_whole(tmp_path / "link.jsonl", b"new")
    assert (tmp_path / "link.jsonl").is_symlink()
    assert (tmp_path / "real.jsonl").read_text() == "new"
    write_whole(Path("/dev/null"), b"nothing")
    assert not Path("/dev/null").is_file()


def test_a_run_says_what_made_it_and_is_the_same_run_under_another_command(tmp_path):
    RunStore(tmp_path, SETTINGS, "eckart search m").__exit__()
    RunStore(tmp_path, SETTINGS, "eckart search ./m").__exit__()
    run = read_run(tmp_path)
    assert run.settings == SETTINGS
    assert run.origin["command"] == "eckart search m"
    assert set(run.origin["versions"]) == {"eckart", "torch", "transformers", "python"}
