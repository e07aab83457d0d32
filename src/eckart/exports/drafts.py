"""A folder that appears only when it is done, and leaves nothing behind, however its making
ends."""

from __future__ import annotations

import fcntl
import glob
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LOCK = "lock"


@contextmanager
def drafted(target: Path) -> Iterator[Path]:
    """Give a new folder that becomes the target once the block has ended well.

    It lies beside the target, so that the last step is a rename, and has a name of its own, so that
    nobody else's is touched. Drafts of processes that were killed are removed: the system has let
    go of their locks.

    Arguments:
        target: a path that does not exist yet, or an empty folder.

    Raises:
        OSError: it cannot be written.
    """
    remove_abandoned(target)
    with (
        tempfile.TemporaryDirectory(prefix=_prefix(target), dir=target.parent) as folder,
        Path(folder, LOCK).open("w") as lock,
    ):
        fcntl.flock(lock, fcntl.LOCK_EX)
        draft = Path(folder) / target.name
        draft.mkdir()
        yield draft
        if target.exists():
            target.rmdir()
        draft.rename(target)


def remove_abandoned(target: Path) -> None:
    """Remove what a killed process left of the same target."""
    for folder in target.parent.glob(f"{glob.escape(_prefix(target))}*"):
        if _abandoned(folder):
            shutil.rmtree(folder, ignore_errors=True)


def _prefix(target: Path) -> str:
    return f".{target.name}.draft-"


def _abandoned(folder: Path) -> bool:
    try:
        with (folder / LOCK).open("r+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
    except FileNotFoundError:
        return folder.is_dir() and not any(folder.iterdir())
    except OSError:  # a living process holds it
        return False
