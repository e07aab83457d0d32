"""The run store: every trial is kept for good in one SQLite file, one transaction each."""

from __future__ import annotations

import json
import os
import platform
import re
import sqlite3
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass, field, replace
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from eckart import __version__
from eckart.errors import NotANumberError, RunError
from eckart.records import Edit, Rows, Setting, Trial

APPLICATION_ID = 0x65636B72  # "eckr"
SCHEMA_VERSION = 3
ORIGIN = "origin"
"""The row of the settings that says what made a run, and is no setting of it."""
_SCHEMA = """
CREATE TABLE settings (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE trials (key TEXT PRIMARY KEY, trial TEXT NOT NULL, log_likelihoods BLOB);
CREATE TABLE rows (digest TEXT PRIMARY KEY, rows TEXT NOT NULL);
CREATE TABLE spectra (matrix TEXT PRIMARY KEY, spectrum TEXT NOT NULL);
CREATE TABLE models (name TEXT PRIMARY KEY, facts TEXT NOT NULL);
"""
_COLUMNS = {
    "settings": "name, value",
    "trials": "key, trial",
    "rows": "digest, rows",
    "spectra": "matrix, spectrum",
    "models": "name, facts",
}


class Executor(Protocol):
    """Whatever scores edits on a split; selection does not know where."""

    @property
    def setting(self) -> Setting:
        """What is scored before anything is clipped."""
        ...

    def key(self, edits: Sequence[Edit], split: str) -> str:
        """Return the hash of everything that the outcome depends on."""
        ...

    def rows(self, split: str) -> Rows:
        """Return the rows of a split; of the whole one, if only some of its rows are named."""
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
        command: what the user typed; a new run notes it, and the versions of the programs that made it.

    Raises:
        RunError: the folder cannot be written, is in use, is damaged, or holds another run.
    """

    def __init__(self, folder: str | Path, settings: dict[str, Any], command: str | None = None) -> None:
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
                self._open(settings, command)
            except BaseException:
                self._database.close()
                raise

    def __enter__(self) -> RunStore:
        return self

    def __exit__(self, *_: object) -> None:
        self._database.close()

    def trial(self, key: str) -> Trial | None:
        """Return the trial with this key, if it was ever finished."""
        with self._explained():
            row = self._database.execute(
                "SELECT trial, log_likelihoods FROM trials WHERE key = ?", [key]
            ).fetchone()
        return None if row is None else _unpacked(*row)

    def trials(self) -> Iterator[Trial]:
        """Yield every trial, without its log-likelihoods."""
        with self._explained():
            for (text,) in self._database.execute("SELECT trial FROM trials ORDER BY key"):
                yield Trial.from_json(json.loads(text))

    def keep(self, trial: Trial) -> None:
        """Write a trial, in a transaction of its own."""
        self._write("INSERT OR REPLACE INTO trials VALUES (?, ?, ?)", trial.key, *_packed(trial))

    def row_digests(self) -> list[str]:
        """Return the digests of the rows that are kept."""
        with self._explained():
            return [digest for (digest,) in self._database.execute("SELECT digest FROM rows")]

    def keep_rows(self, rows: Rows) -> None:
        """Write the rows of a split."""
        self._write("INSERT OR REPLACE INTO rows VALUES (?, ?)", rows.digest, json.dumps(rows.to_json()))

    def spectrum(self, matrix: str) -> dict[str, Any] | None:
        """Return what is known of a matrix's spectrum."""
        row = self._fetch("SELECT spectrum FROM spectra WHERE matrix = ?", matrix)
        return None if row is None else json.loads(row)

    def keep_spectrum(self, matrix: str, spectrum: dict[str, Any]) -> None:
        """Write a matrix's spectrum."""
        self._write("INSERT OR REPLACE INTO spectra VALUES (?, ?)", matrix, json.dumps(spectrum))

    def spectra(self) -> dict[str, dict[str, Any]]:
        """Return what is known of every matrix's spectrum."""
        with self._explained():
            return {
                matrix: json.loads(text)
                for matrix, text in self._database.execute("SELECT matrix, spectrum FROM spectra")
            }

    def model(self, name: str) -> dict[str, Any] | None:
        """Return what was noted of a model of this run."""
        row = self._fetch("SELECT facts FROM models WHERE name = ?", name)
        return None if row is None else json.loads(row)

    def keep_model(self, name: str, facts: dict[str, Any]) -> None:
        """Write what is to be noted of a model."""
        self._write("INSERT OR REPLACE INTO models VALUES (?, ?)", name, json.dumps(facts))

    def write(self, name: str, text: str) -> Path:
        """Write a file into the run's folder, whole or not at all."""
        path = self.folder / name
        write_whole(path, text.encode())
        return path

    def _open(self, settings: dict[str, Any], command: str | None) -> None:
        self._database.execute("BEGIN IMMEDIATE")
        if self._fetch("SELECT count(*) FROM sqlite_master") == 0:
            self._create({**settings, ORIGIN: {"versions": _versions(), "command": command}})
        _check_kind(self._database, self.folder)
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
        kept.pop(ORIGIN, None)
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

    def _explained(self) -> AbstractContextManager[None]:
        return _explained(self.folder)


@dataclass(frozen=True)
class Run:
    """A run's folder as it was found.

    Arguments:
        folder: where it lies.
        settings: what it is about.
        trials: every trial, by key, without log-likelihoods.
        rows: the rows of every split that was scored, by digest.
        spectra: what is known of each matrix's spectrum.
        models: of a sweep, what is known of each model: its fingerprint, dtype, layers and spectra.
        origin: the command and the versions that began it, where they were noted.
    """

    folder: Path
    settings: dict[str, Any]
    trials: dict[str, Trial]
    rows: dict[str, Rows]
    spectra: dict[str, dict[str, Any]]
    models: dict[str, dict[str, Any]]
    origin: dict[str, Any] = field(default_factory=dict)


def read_run(folder: str | Path) -> Run:
    """Read a run without holding or changing it.

    Raises:
        RunError: there is none, or it is damaged or in use.
    """
    path = Path(folder) / "run.sqlite"
    if not path.is_file():
        raise RunError(
            f"'{folder}' holds no run (no run.sqlite); give the folder that a search or sweep wrote"
        )
    # A process that was killed while it wrote leaves a journal; who reads next takes the unfinished write back.
    mode = "rw" if path.with_name("run.sqlite-journal").exists() else "ro"
    with _explained(path.parent):
        database = sqlite3.connect(f"{path.resolve().as_uri()}?mode={mode}", uri=True, timeout=1)
        with closing(database):
            _check_kind(database, path.parent)
            tables = {
                table: dict(database.execute(f"SELECT {columns} FROM {table} ORDER BY 1"))
                for table, columns in _COLUMNS.items()
            }
    read = {table: {key: json.loads(text) for key, text in rows.items()} for table, rows in tables.items()}
    trials = {key: Trial.from_json(values) for key, values in read["trials"].items()}
    rows = {digest: Rows.from_json(values) for digest, values in read["rows"].items()}
    origin = read["settings"].pop(ORIGIN, {})
    return Run(path.parent, read["settings"], trials, rows, read["spectra"], read["models"], origin)


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

    @property
    def setting(self) -> Setting:
        """What the executor scores."""
        return self._executor.setting

    def key(self, edits: Sequence[Edit], split: str) -> str:
        """Return the executor's key."""
        return self._executor.key(edits, split)

    def rows(self, split: str) -> Rows:
        """Return the executor's rows."""
        return self._executor.rows(split)

    def __call__(self, edits: Sequence[Edit], split: str) -> Trial:
        """Return the kept trial, or score, keep and return a new one."""
        key = self.key(edits, split)
        kept = self._store.trial(key)
        if kept is not None:
            return kept
        try:
            trial = self._executor(edits, split)
        except NotANumberError as error:
            rows = self.rows(split).digest
            trial = Trial(key, self.setting, split, rows, tuple(edits), status="failed", error=str(error))
        if trial.rows not in self._store.row_digests():
            self._store.keep_rows(self.rows(split))
        self._store.keep(trial)
        return trial


def folder_name(model: str) -> str:
    """Return a hub id or path as a part of a folder's name.

    >>> folder_name("EleutherAI/gpt-j-6b"), folder_name("models/my model")
    ('gpt-j-6b', 'my-model')
    """
    return re.sub(r"[^\w.-]+", "-", Path(model).name)


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


def _versions() -> dict[str, str]:
    """Return the versions of what makes a run's numbers."""
    packages = {name: metadata.version(name) for name in ("torch", "transformers")}
    return {"eckart": __version__, **packages, "python": platform.python_version()}


def _packed(trial: Trial) -> tuple[str, bytes | None]:
    """Return a trial as JSON without its log-likelihoods, and these as float64."""
    values = trial.to_json()
    if trial.score is None:
        return json.dumps(values), None
    values["score"]["log_likelihoods"] = []
    return json.dumps(values), np.array(trial.score.log_likelihoods, dtype="<f8").tobytes()


def _unpacked(text: str, content: bytes | None) -> Trial:
    """Return the trial that `_packed` wrote."""
    trial = Trial.from_json(json.loads(text))
    if trial.score is None or content is None:
        return trial
    values = np.frombuffer(content, dtype="<f8").reshape(trial.score.n, -1)
    return replace(trial, score=replace(trial.score, log_likelihoods=tuple(map(tuple, values.tolist()))))


def _check_kind(database: sqlite3.Connection, folder: Path) -> None:
    """Refuse a database that is no run, or another version's."""
    if database.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
        raise RunError(f"'{folder / 'run.sqlite'}' is no run of eckart; choose another folder with --out")
    if database.execute("PRAGMA user_version").fetchone()[0] != SCHEMA_VERSION:
        raise RunError(f"run '{folder}' was made by another version of eckart; choose another --out")


@contextmanager
def _explained(folder: Path) -> Iterator[None]:
    """Say in one line what is wrong with a run's database."""
    try:
        yield
    except sqlite3.OperationalError as error:
        if "locked" in str(error):
            raise RunError(
                f"run '{folder}' is in use by another process; wait for it, or choose another --out"
            ) from error
        raise RunError(
            f"run '{folder}' cannot be read or written ({error}); what was finished is kept"
        ) from error
    except sqlite3.DatabaseError as error:
        raise RunError(
            f"run '{folder}' has a damaged run.sqlite ({error}); restore it, or choose another --out"
        ) from error
