"""What leaves the program: whole, at home, never over what was read, and nothing left of a writer
that was killed."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from eckart import files
from eckart.errors import RunError
from eckart.files import Read, check_outputs, clear_drafts, drafted, home, write_whole

WRITER = """
import os, pathlib, random, signal, sys, time
from eckart.files import drafted
with drafted(pathlib.Path(sys.argv[1])) as draft:
    if sys.argv[2] == "folder":
        draft.mkdir()
        draft = draft / "part"
    draft.write_text("whole")
    {then}
"""
KILLED = WRITER.format(then="os.kill(os.getpid(), signal.SIGKILL)")
AT_WORK = WRITER.format(then="print(flush=True); input()")


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_a_killed_writer_left_is_gone_after_the_next_one(tmp_path, kind):
    target = tmp_path / "result"
    ended = subprocess.run([sys.executable, "-c", KILLED, target, kind], check=False)
    assert ended.returncode == -signal.SIGKILL
    assert [path.name.startswith(".result.draft-") for path in tmp_path.iterdir()] == [True]
    with drafted(target) as draft:
        draft.write_bytes(b"whole")
    assert [path.name for path in tmp_path.iterdir()] == ["result"]
    assert target.read_bytes() == b"whole"


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_writer_that_is_at_work_keeps_its_draft(tmp_path, kind):
    target = tmp_path / "result"
    with subprocess.Popen(
        [sys.executable, "-c", AT_WORK, target, kind],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as other:
        assert other.stdout is not None
        other.stdout.readline()
        clear_drafts(target)
        (draft,) = tmp_path.iterdir()
        assert draft.name.startswith(".result.draft-")
        other.communicate(b"\n")
    assert other.returncode == 0
    assert [path.name for path in tmp_path.iterdir()] == ["result"]


def test_a_writer_whose_draft_is_taken_before_its_lock_makes_another(tmp_path, monkeypatch):
    """The gap between making a folder and locking it: whoever clears then finds nobody in it."""
    real = files._locked
    gaps = iter(range(2))

    def late(file, *, wait):
        if wait and next(gaps, None) is not None:
            clear_drafts(tmp_path / "result")
        return real(file, wait=wait)

    monkeypatch.setattr(files, "_locked", late)
    write_whole(tmp_path / "result", b"whole")
    assert next(gaps, None) is None
    assert [path.name for path in tmp_path.iterdir()] == ["result"]


@pytest.mark.parametrize("name", [".result.draft-thesis", ".result.part", ".result.backup.draft"])
def test_what_somebody_else_put_there_is_left_alone(tmp_path, name):
    (tmp_path / name).mkdir()
    (tmp_path / name / "thesis.txt").write_text("years of work")
    write_whole(tmp_path / "result", b"whole")
    assert (tmp_path / name / "thesis.txt").read_text() == "years of work"


def test_a_block_that_fails_leaves_what_was_there(tmp_path):
    write_whole(tmp_path / "result", b"old")
    with pytest.raises(NotADirectoryError), drafted(tmp_path / "result") as draft:
        draft.mkdir()
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"old"]


def test_a_pipe_is_written_to_as_it_is():
    reader, writer = os.pipe()  # named, as /dev/stdout is, by a link that leads nowhere
    named = Path(f"/dev/fd/{writer}")
    if not named.exists():
        pytest.skip("no /dev/fd on this system")
    write_whole(named, b"whole")
    os.close(writer)
    with os.fdopen(reader, "rb") as read:
        assert read.read() == b"whole"


def test_without_locks_files_are_written_all_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_locked", lambda file, wait: False)
    write_whole(tmp_path / "result", b"whole")
    assert [path.name for path in tmp_path.iterdir()] == ["result"]


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
