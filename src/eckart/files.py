"""Files that leave the program: whole or not at all, where they were asked for, and never over what
was read."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from eckart.errors import RunError

KEPT = ("run.sqlite", "study.yaml", "result.json")
"""The files of a run's folder that no other command makes again."""
DRAFT = re.compile(r"\.(?P<name>.+)\.(?P<process>\d+)\.draft")


def home(path: str | Path) -> Path:
    """Return a path in which `~` is the home folder, as a shell would have it.

    >>> home("~/runs/x") == Path.home() / "runs/x", home("runs/x")
    (True, PosixPath('runs/x'))
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:  # there is no user of that name, so it is one
        return Path(path)


def same_file(one: Path, other: Path) -> bool:
    """Return whether two paths mean one file, whatever links or letters' case they are written
    with."""
    try:
        return one.samefile(other)
    except OSError:  # one of them is not there yet
        return one.resolve() == other.resolve()


@dataclass(frozen=True)
class Read:
    """What a command reads.

    Arguments:
        what: it is, for messages: `the data`.
        path: a file, or a folder of which some files are read.
        files: whether a file of that name in the folder is read, whether or not it is there yet;
            none by default.
    """

    what: str
    path: Path
    files: Callable[[str], bool] = lambda name: False

    def is_at(self, path: Path) -> bool:
        """Say whether writing to a path would change what is read."""
        return same_file(path, self.path) or (
            self.files(path.name) and same_file(path.parent, self.path)
        )


def check_outputs(outputs: Sequence[tuple[str, Path]], inputs: Sequence[Read]) -> None:
    """Refuse to write over what is read, and two outputs in one place; whatever is no file (a
    terminal) takes both.

    Arguments:
        outputs: by the option that names each.
        inputs: what the command reads.

    Raises:
        RunError: an output is an input, or another output.
    """
    places = [
        (option, path)
        for option, path in outputs
        if path.is_file() or path.is_dir() or not path.exists()
    ]
    for number, (option, path) in enumerate(places):
        over = next((read for read in inputs if not path.is_dir() and read.is_at(path)), None)
        if over is not None:
            raise RunError(
                f"{option} '{path}' is {over.what} itself, or would be read as part of it; name"
                " another"
            )
        twice = next(
            (other for other, place in places[:number] if _clash(path, place, other)), None
        )
        if twice is not None:
            raise RunError(
                f"{twice} and {option} share a place, '{path}'; name another for one of them"
            )


def _clash(path: Path, other: Path, option: str) -> bool:
    """Say whether two outputs cannot both be written; the folder of a checkpoint holds nothing
    else."""
    return same_file(path, other) or (
        option == "--save" and other.resolve() in path.resolve().parents
    )


def check_writable(path: Path) -> None:
    """Refuse a file that could not be written, before anything is computed.

    Raises:
        RunError: it is a folder, or it or its folder is absent or read-only.
    """
    if path.is_dir() or not path.parent.is_dir():
        raise RunError(
            f"'{path}' cannot be written: it is a folder, or there is no folder '{path.parent}'"
        )
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise RunError(f"'{path}' cannot be written: it or its folder is read-only; name another")


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that a reader sees the old one or the new one, never a part.

    A link stays a link, and what is no file (a terminal, a pipe) is written to as it is. What a
    process that was killed left of it is cleared away.

    Raises:
        RunError: it cannot be written.
    """
    target = path.resolve()
    draft = target.with_name(f".{target.name}.{os.getpid()}.draft")
    try:
        if target.exists() and not target.is_file():
            target.write_bytes(content)
            return
        for left in _abandoned(target):
            left.unlink(missing_ok=True)
        try:
            draft.write_bytes(content)
            draft.replace(target)
        finally:
            draft.unlink(missing_ok=True)
    except OSError as error:
        raise RunError(
            f"'{path}' cannot be written ({error.strerror}); check space and permissions"
        ) from error


def _abandoned(target: Path) -> Iterator[Path]:
    """Yield the drafts of a file whose writers are gone."""
    for path in target.parent.iterdir():
        found = DRAFT.fullmatch(path.name)
        if found and found["name"] == target.name and not psutil.pid_exists(int(found["process"])):
            yield path
