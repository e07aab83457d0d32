"""The run store: every trial is kept for good in one SQLite file, one transaction each."""

from __future__ import annotations

import json
import re
import sqlite3
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from eckart.errors import NotANumberError, RunError
from eckart.records import Edit, Trial

APPLICATION_ID = 0x65636B72  # "eckr"
SCHEMA_VERSION = 1
_SCHEMA = """
CREATE TABLE settings (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE trials (key TEXT PRIMARY KEY, split TEXT NOT NULL, status TEXT NOT NULL, trial TEXT NOT NULL);
CREATE TABLE spectra (matrix TEXT PRIMARY KEY, spectrum TEXT NOT NULL);
"""


class Executor(Protocol):
    """Whatever scores edits on a split; selection does not know where."""

    def key(self, edits: Sequence[Edit], split: str) -> str:
        """Return the hash of everything that the outcome depends on."""
        ...

    def __call__(self, edits: Sequence[Edit], split: str) -> Trial:
        """Score the edits on a split."""
        ...


class RunStore:
    """A run's folder: its settings, its trials, its spectra.

    One process at a time may hold it. A process that is killed leaves every finished trial behind.

    Arguments:
        folder: made where it does not exist.
        settings: what the run is about, JSON values. A folder that holds a run with other settings is refused.

    Raises:
        RunError: the folder cannot be written, is in use, is damaged, or holds another run.
    """

    def __init__(self, folder: str | Path, settings: dict[str, Any]) -> None:
        self.folder = Path(folder)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(
                f"run folder '{folder}' cannot be made ({error.strerror}); choose another with --out"
            ) from error
        with self._explained():
            # The lock belongs to the process and ends with it, however it ends; FULL outlives a power failure too.
            self._database = sqlite3.connect(self.folder / "run.sqlite", isolation_level=None, timeout=1)
            self._database.execute("PRAGMA locking_mode = EXCLUSIVE")
            self._database.execute("PRAGMA synchronous = FULL")
            try:
                self._open(settings)
            except BaseException:
                self._database.close()
                raise

    def __enter__(self) -> RunStore:
        return self

    def __exit__(self, *_: object) -> None:
        self._database.close()

    def trial(self, key: str) -> Trial | None:
        """Return the trial with this key, if it was ever finished."""
        row = self._fetch("SELECT trial FROM trials WHERE key = ?", key)
        return None if row is None else Trial.from_json(json.loads(row))

    def keep(self, trial: Trial) -> None:
        """Write a trial, in a transaction of its own."""
        self._write(
            "INSERT OR REPLACE INTO trials VALUES (?, ?, ?, ?)",
            trial.key,
            trial.split,
            trial.status,
            json.dumps(trial.to_json()),
        )

    def spectrum(self, matrix: str) -> dict[str, Any] | None:
        """Return what is known of a matrix's spectrum."""
        row = self._fetch("SELECT spectrum FROM spectra WHERE matrix = ?", matrix)
        return None if row is None else json.loads(row)

    def keep_spectrum(self, matrix: str, spectrum: dict[str, Any]) -> None:
        """Write a matrix's spectrum."""
        self._write("INSERT OR REPLACE INTO spectra VALUES (?, ?)", matrix, json.dumps(spectrum))

    def write(self, name: str, text: str) -> Path:
        """Write a file into the run's folder, whole or not at all."""
        path = self.folder / name
        write_whole(path, text.encode())
        return path

    def _open(self, settings: dict[str, Any]) -> None:
        self._database.execute("BEGIN IMMEDIATE")
        identity = self._fetch("PRAGMA application_id")
        if identity == 0 and self._fetch("SELECT count(*) FROM sqlite_master") == 0:
            self._create(settings)
        elif identity != APPLICATION_ID:
            raise RunError(
                f"'{self.folder / 'run.sqlite'}' is no run of eckart; choose another folder with --out"
            )
        elif self._fetch("PRAGMA user_version") != SCHEMA_VERSION:
            raise RunError(f"run '{self.folder}' was made by another version of eckart; choose another --out")
        self._database.execute("COMMIT")
        self._refuse_other(settings)

    def _create(self, settings: dict[str, Any]) -> None:
        for statement in _SCHEMA.strip().split(";\n"):
            self._database.execute(statement)
        self._database.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        self._database.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        self._database.executemany(
            "INSERT INTO settings VALUES (?, ?)",
            [(name, json.dumps(value)) for name, value in settings.items()],
        )

    def _refuse_other(self, settings: dict[str, Any]) -> None:
        kept = {name: json.loads(value) for name, value in self._database.execute("SELECT * FROM settings")}
        wanted = json.loads(json.dumps(settings))
        other = [name for name in {**kept, **wanted} if kept.get(name) != wanted.get(name)]
        if other:
            changes = "; ".join(
                f"{name} {_short(kept.get(name))}, now {_short(wanted.get(name))}" for name in other
            )
            raise RunError(
                f"run '{self.folder}' was made with other settings ({changes}); choose another --out"
            )

    def _fetch(self, query: str, *values: Any) -> Any:
        with self._explained():
            row = self._database.execute(query, values).fetchone()
        return None if row is None else row[0]

    def _write(self, statement: str, *values: Any) -> None:
        with self._explained():
            self._database.execute(statement, values)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            if "locked" in str(error):
                raise RunError(
                    f"run '{self.folder}' is in use by another process; wait for it, or choose another --out"
                ) from error
            raise RunError(
                f"run '{self.folder}' cannot be read or written ({error}); what was finished is kept"
            ) from error
        except sqlite3.DatabaseError as error:
            raise RunError(
                f"run '{self.folder}' has a damaged run.sqlite ({error}); restore it, or choose another --out"
            ) from error


class Recorded:
    """An executor that asks the store first, and keeps what it had to compute.

    A trial that fails because the clipped model's outputs are not numbers is kept with its cause: it would fail again.
    Whatever else goes wrong (a full memory, say) is not kept.

    Arguments:
        executor: what scores.
        store: where trials are kept.
    """

    def __init__(self, executor: Executor, store: RunStore) -> None:
        self._executor = executor
        self._store = store

    def key(self, edits: Sequence[Edit], split: str) -> str:
        """Return the executor's key."""
        return self._executor.key(edits, split)

    def __call__(self, edits: Sequence[Edit], split: str) -> Trial:
        """Return the kept trial, or score, keep and return a new one."""
        key = self.key(edits, split)
        kept = self._store.trial(key)
        if kept is not None:
            return kept
        try:
            trial = self._executor(edits, split)
        except NotANumberError as error:
            trial = Trial(key=key, split=split, edits=tuple(edits), status="failed", error=str(error))
        self._store.keep(trial)
        return trial


def folder_name(model: str) -> str:
    """Return a hub id or path as a part of a folder's name.

    >>> folder_name("EleutherAI/gpt-j-6b"), folder_name("models/my model")
    ('gpt-j-6b', 'my-model')
    """
    return re.sub(r"[^\w.-]+", "-", Path(model).name)


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that a reader sees the old one or the new one, never a part.

    A link stays a link, and what is no file (a terminal, a pipe) is written to as it is.

    Raises:
        RunError: it cannot be written.
    """
    target = path.resolve()
    try:
        if target.exists() and not target.is_file():
            target.write_bytes(content)
            return
        with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as folder:
            draft = Path(folder) / target.name
            draft.write_bytes(content)
            draft.replace(target)
    except OSError as error:
        raise RunError(
            f"'{path}' cannot be written ({error.strerror}); check space and permissions"
        ) from error


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
