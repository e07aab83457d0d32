"""Files that leave the program: whole or not at all, where they were asked for, and never over what was read."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import psutil

from eckart.errors import RunError

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
    """Return whether two paths mean one file, whatever links or letters' case they are written with."""
    try:
        return one.samefile(other)
    except OSError:  # one of them is not there yet
        return one.resolve() == other.resolve()


def check_outputs(outputs: Sequence[tuple[str, Path]], inputs: Iterable[Path]) -> None:
    """Refuse to write over what is read, and two outputs in one place.

    Arguments:
        outputs: what each is called on the command line, and where it goes.
        inputs: the files that the command reads, each once it is there.

    Raises:
        RunError: an output is an input, or another output.
    """
    read = list(inputs)
    for number, (option, path) in enumerate(outputs):
        over = next((file for file in read if same_file(path, file)), None)
        if over is not None:
            raise RunError(
                f"{option} '{path}' would overwrite '{over}', which this command reads; name another file"
            )
        twice = next((other for other, place in outputs[:number] if same_file(path, place)), None)
        if twice is not None:
            raise RunError(f"{twice} and {option} are both '{path}'; name another file for one of them")


def check_writable(path: Path) -> None:
    """Refuse a file that could not be written, before anything is computed.

    Raises:
        RunError: it is a folder, or it or its folder is absent or read-only.
    """
    if path.is_dir() or not path.parent.is_dir():
        raise RunError(f"'{path}' cannot be written: it is a folder, or there is no folder '{path.parent}'")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise RunError(f"'{path}' cannot be written: it or its folder is read-only; name another")


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that a reader sees the old one or the new one, never a part.

    A link stays a link, and what is no file (a terminal, a pipe) is written to as it is. What a process that was killed
    left of it is cleared away.

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
