"""kill -9 at 20 random moments: nothing finished is lost, and the end is the same to the byte."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


def without_timings(path: Path) -> str:
    result = json.loads((path / "result.json").read_text())
    del result["seconds"]
    return json.dumps(result)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forked processes")
def test_twenty_kills_end_where_an_undisturbed_run_ends(model, table, tmp_path):
    driver = Path(__file__).with_name("kills.py")
    ended = subprocess.run(
        [sys.executable, driver, model, table, tmp_path], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout)
    assert found["landed"] == 20
    for number, history in enumerate(found["history"], start=1):
        assert history == sorted(history), "something that was finished was lost"
        assert without_timings(tmp_path / "killed" / str(number)) == without_timings(tmp_path / "calm")
    assert any(0 < n < found["calm"] for history in found["history"] for n in history), (
        "a kill fell in the middle"
    )


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forked processes")
def test_a_kill_costs_at_most_the_spectrum_under_way(model, tmp_path):
    driver = Path(__file__).with_name("spectrum_kills.py")
    ended = subprocess.run(
        [sys.executable, driver, model, tmp_path], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout)
    assert found["kills"] > 2
    assert found["calm"] == 21
    assert 21 < found["begun"] <= 21 + found["kills"]
    assert (tmp_path / "killed" / "found.json").read_text() == (tmp_path / "calm" / "found.json").read_text()
