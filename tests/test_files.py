"""What leaves the program: whole, at home, never over what was read, and nothing left of a writer
that was killed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from eckart.errors import RunError
from eckart.files import Read, check_outputs, home, write_whole

KILLED = """
import os, pathlib, signal
from eckart.files import write_whole
pathlib.Path.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
write_whole(pathlib.Path("result.json"), b"half")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills processes")
def test_what_a_killed_writer_left_is_gone_after_the_next_write(tmp_path):
    subprocess.run([sys.executable, "-c", KILLED], cwd=tmp_path, check=False)
    assert len(list(tmp_path.iterdir())) == 1
    write_whole(tmp_path / "result.json", b"whole")
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]
    assert (tmp_path / "result.json").read_bytes() == b"whole"


def test_a_writer_that_is_at_work_keeps_its_draft(tmp_path):
    other = tmp_path / f".result.json.{os.getppid()}.draft"
    other.touch()
    (tmp_path / ".result.json.backup.draft").touch()
    write_whole(tmp_path / "result.json", b"whole")
    assert len(list(tmp_path.iterdir())) == 3


def test_home_is_where_a_shell_would_look(monkeypatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    assert home("~/runs") == Path("/home/somebody/runs")
    assert home("~nobody-of-this-name/x") == Path("~nobody-of-this-name/x")
    assert home("runs/~") == Path("runs/~")


@pytest.mark.parametrize("way", ["plain", "dotted", "symlink", "hard link", "linked folder"])
def test_an_input_is_known_whichever_way_it_is_named(tmp_path, way):
    folder = tmp_path / "data"
    folder.mkdir()
    data = folder / "d.csv"
    data.touch()
    link = tmp_path / "link.csv"
    (tmp_path / "there").symlink_to(folder)
    if way == "symlink":
        link.symlink_to(data)
    if way == "hard link":
        os.link(data, link)
    named = {
        "plain": data,
        "dotted": folder / ".." / "data" / "d.csv",
        "linked folder": tmp_path / "there/d.csv",
    }
    with pytest.raises(RunError, match=r"--predictions .* is the data itself"):
        check_outputs([("--predictions", named.get(way, link))], [Read("the data", data)])


def test_two_outputs_in_one_place_are_refused_and_a_terminal_takes_both(tmp_path):
    with pytest.raises(RunError, match="--plot and --out share a place"):
        check_outputs([("--plot", tmp_path / "x" / ".." / "f"), ("--out", tmp_path / "f")], [])
    with pytest.raises(RunError, match="--save and --out share a place"):
        check_outputs([("--save", tmp_path / "m"), ("--out", tmp_path / "m" / "run")], [])
    check_outputs([("--predictions", Path(os.devnull)), ("--plot", Path(os.devnull))], [])
    check_outputs([("--save", tmp_path / "run" / "m"), ("--out", tmp_path / "run")], [])
