"""kill -9 at 20 random moments: nothing finished is lost, and the end is the same to the byte."""

import json
import sqlite3
from collections import Counter
from pathlib import Path

import pytest
from drivers import driven, needs_fork
from results import without_timings


@needs_fork
@pytest.mark.parametrize(
    ("layer", "kills", "seeds"),
    [("auto", 20, "0"), ("gradient", 4, "0"), ("validation", 4, "0"), ("auto", 6, "0..2")],
)
def test_kills_end_where_an_undisturbed_run_ends(model, table, tmp_path, layer, kills, seeds):
    found = driven("search_kills.py", model, table, tmp_path, layer, kills, seeds)
    assert found["landed"] == kills
    result = json.loads((tmp_path / "calm" / "result.json").read_text())
    assert layer != "auto" or seeds != "0" or result["guard"]["tasks"]
    assert ("screen" in result) == (layer != "auto")
    for number, history in enumerate(found["history"], start=1):
        assert history == sorted(history), "something that was finished was lost"
        assert without_timings(tmp_path / "killed" / str(number)) == without_timings(
            tmp_path / "calm"
        )
    assert any(0 < n < found["calm"] for history in found["history"] for n in history), (
        "a kill fell in the middle"
    )


@needs_fork
def test_a_kill_costs_at_most_the_spectrum_under_way(model, tmp_path):
    found = driven("spectrum_kills.py", model, tmp_path)
    assert found["kills"] > 2
    assert found["calm"] == 21
    assert 21 < found["begun"] <= 21 + found["kills"]
    assert (tmp_path / "killed" / "found.json").read_text() == (
        tmp_path / "calm" / "found.json"
    ).read_text()


@needs_fork
def test_labels_that_are_killed_end_as_undisturbed_ones(model, table, tmp_path):
    found = driven("predict_kills.py", model, table, tmp_path)
    calm = (tmp_path / "calm.csv").read_bytes()
    for number in range(1, found["files"] + 1):
        assert (tmp_path / f"{number}.csv").read_bytes() == calm
        history = found["history"][number - 1]
        assert history == sorted(history), "something that was finished was lost"
    assert any(0 < read < 60 for history in found["history"] for read in history)
    assert not list(tmp_path.glob("*.part*"))


@needs_fork
def test_a_sweep_that_is_killed_twenty_times_ends_where_an_undisturbed_one_ends(
    model, table, tmp_path
):
    found = driven("sweep_kills.py", model, table, tmp_path)
    assert found["landed"] == 20
    calm = timeless(tmp_path / "calm")
    for number in range(1, found["runs"] + 1):
        assert timeless(tmp_path / "killed" / str(number)) == calm
        history = found["history"][number - 1]
        assert history == sorted(history), "something that was finished was lost"
        computed = Counter((tmp_path / f"{number}.log").read_text().split())
        assert sum(n - 1 for n in computed.values()) <= len(history), (
            "at most the trial that was under way, twice"
        )
    assert any(0 < n < found["trials"] for history in found["history"] for n in history)


@needs_fork
def test_a_kill_leaves_nothing_of_an_export_but_a_draft_that_the_next_one_clears(model, tmp_path):
    found = driven("export_kills.py", model, tmp_path, 8)
    assert found["ended"] == 0
    assert found["left"] == ["out"]
    assert [".out.draft"] in found["seen"], "a kill fell in the middle"
    assert all(set(names) <= {".out.draft", "out"} for names in found["seen"])
    whole = files(tmp_path / "calm")
    assert all(files(path) == whole for path in [*tmp_path.glob("done-*"), tmp_path / "desk/out"])


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def timeless(folder: Path) -> str:
    """Return a run's trials by key as they lie in the store, but for their timings."""
    with sqlite3.connect(folder / "run.sqlite") as database:
        kept = database.execute(
            "SELECT key, trial, hex(log_likelihoods) FROM trials ORDER BY key"
        ).fetchall()
    return json.dumps(
        [(key, json.loads(trial) | {"seconds": 0}, values) for key, trial, values in kept]
    )
