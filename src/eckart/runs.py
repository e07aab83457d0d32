"""The run store: every trial is kept for good in one SQLite file, one transaction each."""

from __future__ import annotations

import json
import platform
import re
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from eckart.errors import RunError, changes
from eckart.files import home, write_whole
from eckart.records import Asked, Rows, Setting, Trial, fingerprint
from eckart.statistics.scores import Score

APPLICATION_ID = 0x65636B72  # "eckr"
SCHEMA_VERSION = 3
NOTES = "origin", "contents", "guard", "screen", "looks", "portable"
ORIGIN, CONTENTS, GUARD, SCREEN, LOOKS, PORTABLE = NOTES
"""Rows of the settings that are none: what made the run, what a sweep's tasks held, the guard, the
screen, the other runs that had scored the test rows, and the tasks without theirs."""
SHOWN = 3
"""How many of the settings that differ a refusal names."""
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


class RunStore:
    """A run's folder: its settings, its trials, its spectra.

    One process at a time may hold it. A process that is killed leaves every finished trial behind.

    Arguments:
        folder: made where it does not exist.
        settings: what the run is about, JSON values. A folder that holds a run with other settings
            is refused.
        command: what the user typed; a new run notes it, and the versions of the programs that made
            it.

    Raises:
        RunError: the folder cannot be written, is in use, is damaged, or holds another run.
    """

    def __init__(
        self, folder: str | Path, settings: dict[str, Any], command: str | None = None
    ) -> None:
        self.folder = home(folder)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(
                f"run folder '{folder}' cannot be made ({error.strerror}); choose another with"
                " --out"
            ) from error
        with _explained(self.folder):
            # The lock belongs to the process and ends with it, however it ends; FULL outlives a
            # power failure too.
            path = self.folder / "run.sqlite"
            self._database = sqlite3.connect(path, isolation_level=None, timeout=1)
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
        kept = self._rows("SELECT trial, log_likelihoods FROM trials WHERE key = ?", key)
        with _intact(self.folder):
            return _unpacked(*kept[0]) if kept else None

    def trials(self) -> Iterator[Trial]:
        """Yield every trial, without its log-likelihoods."""
        rows = self._rows("SELECT trial FROM trials ORDER BY key")
        with _intact(self.folder):
            yield from [Trial.from_json(json.loads(text)) for (text,) in rows]

    def keep(self, trial: Trial) -> None:
        """Write a trial, in a transaction of its own; one of another setting that asks the same
        stays beside it."""
        known = self.trial(trial.key)
        other = known is not None and known.setting != trial.setting
        place = key_with_setting(trial.key, trial.setting) if other else trial.key
        self._write("INSERT OR REPLACE INTO trials VALUES (?, ?, ?)", place, *_packed(trial))

    def keep_same(self, key: str, setting: Setting) -> Trial | None:
        """Write a trial once more as another setting's, and return it; None if it is there."""
        known = self.trial(key)
        there = self._fetch("SELECT 1 FROM trials WHERE key = ?", key_with_setting(key, setting))
        if known is None or there is not None:
            return None
        same = replace(known, setting=setting, seconds=0.0)
        self.keep(same)
        return same

    def row_digests(self) -> list[str]:
        return [digest for (digest,) in self._rows("SELECT digest FROM rows")]

    def keep_rows(self, rows: Rows) -> None:
        if self._fetch("SELECT 1 FROM rows WHERE digest = ?", rows.digest) is None:
            self._write("INSERT INTO rows VALUES (?, ?)", rows.digest, json.dumps(rows.to_json()))

    def spectrum(self, matrix: str) -> dict[str, Any] | None:
        return self._value("SELECT spectrum FROM spectra WHERE matrix = ?", matrix)

    def keep_spectrum(self, matrix: str, spectrum: dict[str, Any]) -> None:
        self._write("INSERT OR REPLACE INTO spectra VALUES (?, ?)", matrix, json.dumps(spectrum))

    def spectra(self) -> dict[str, dict[str, Any]]:
        return {matrix: json.loads(text) for matrix, text in self._rows("SELECT * FROM spectra")}

    def model(self, name: str) -> dict[str, Any] | None:
        return self._value("SELECT facts FROM models WHERE name = ?", name)

    def keep_model(self, name: str, facts: dict[str, Any]) -> None:
        self._write("INSERT OR REPLACE INTO models VALUES (?, ?)", name, json.dumps(facts))

    def note(self, name: str) -> dict[str, Any] | None:
        return self._value("SELECT value FROM settings WHERE name = ?", name)

    def keep_note(self, name: str, said: dict[str, Any]) -> None:
        self._write("INSERT OR REPLACE INTO settings VALUES (?, ?)", name, json.dumps(said))

    def write(self, name: str, text: str) -> Path:
        """Write a file into the run's folder, whole or not at all."""
        path = self.folder / name
        write_whole(path, text.encode())
        return path

    def _open(self, settings: dict[str, Any], command: str | None) -> None:
        self._database.execute("BEGIN IMMEDIATE")
        if self._fetch("SELECT count(*) FROM sqlite_master") == 0:
            self._create({**settings, ORIGIN: {"versions": _versions(), "command": command}})
        check_kind(self._database, self.folder)
        self._database.execute("COMMIT")
        self._refuse_other(settings)

    def _create(self, settings: dict[str, Any]) -> None:
        for statement in _SCHEMA.strip().split(";\n"):
            self._database.execute(statement)
        self._database.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        self._database.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        values = [(name, json.dumps(value)) for name, value in settings.items()]
        self._database.executemany("INSERT INTO settings VALUES (?, ?)", values)

    def _refuse_other(self, settings: dict[str, Any]) -> None:
        rows = self._database.execute("SELECT * FROM settings")
        with _intact(self.folder):
            was = {name: json.loads(value) for name, value in rows if name not in NOTES}
        changed = list(changes(was, json.loads(json.dumps(settings))))
        if changed:
            more = f"; and {len(changed) - SHOWN} more" if len(changed) > SHOWN else ""
            raise RunError(
                f"run '{self.folder}' was made with other settings"
                f" ({'; '.join(changed[:SHOWN])}{more}); choose another --out"
            )

    def _rows(self, query: str, *values: Any) -> list[Any]:
        with _explained(self.folder):
            return self._database.execute(query, values).fetchall()

    def _fetch(self, query: str, *values: Any) -> Any:
        rows = self._rows(query, *values)
        return rows[0][0] if rows else None

    def _value(self, query: str, name: str) -> Any:
        text = self._fetch(query, name)
        with _intact(self.folder):
            return None if text is None else json.loads(text)

    def _write(self, statement: str, *values: Any) -> None:
        with _explained(self.folder):
            self._database.execute(statement, values)


@dataclass(frozen=True)
class Run:
    """A run's folder as it was found.

    Arguments:
        folder, settings: where it lies, and what it is about.
        trials: every trial, by where it is kept, without log-likelihoods.
        rows: the rows of every split that was scored, by digest.
        spectra: what is known of each matrix's spectrum.
        models: of a sweep, what is known of each model: its fingerprint, dtype, layers and spectra.
        origin: the command and the versions that began it, where they were noted.
        margin: of the guard, in points.
        guarded, rivals, deployed: the trials of the guard, of a search's free rivals, and of
            weights that went through a type of GGUF files; none of the others.
        screen: what chose the layer, where a screen did; see `Order.to_json`.
        looks, portable: what `Looks` counted, of a search; each `PortableTask`, by its digest.

    Raises:
        RunError: two trials score the same edits on the same split of the same setting.
    """

    folder: Path
    settings: dict[str, Any]
    trials: dict[str, Trial]
    rows: dict[str, Rows]
    spectra: dict[str, dict[str, Any]]
    models: dict[str, dict[str, Any]]
    origin: dict[str, Any] = field(default_factory=dict)
    margin: float | None = None
    guarded: tuple[Trial, ...] = ()
    screen: dict[str, Any] | None = None
    rivals: tuple[Trial, ...] = ()
    looks: dict[str, int] = field(default_factory=dict)
    deployed: tuple[Trial, ...] = ()
    portable: dict[str, dict[str, Any]] = field(default_factory=dict)

    @cached_property
    def asked(self) -> Asked:
        return Asked.of(self.settings)

    def __post_init__(self) -> None:
        every = (*self.trials.values(), *self.guarded, *self.rivals)
        found = Counter((trial.setting, trial.split, trial.edits) for trial in every)
        mixed = next((place for place, trials in found.items() if trials > 1), None)
        if mixed is not None:
            setting, split, edits = mixed
            raise RunError(
                f"run '{self.folder}' holds two results for one trial ({setting.model},"
                f" {setting.task}, shots {setting.shots}, seed {setting.seed}, {setting.scoring},"
                f" {split}, {', '.join(map(str, edits)) or 'unpruned'}): its data changed between"
                " two starts; run it again with another --out"
            )


def key_with_setting(key: str, setting: Setting) -> str:
    """Return the place of a trial whose key another setting's trial has."""
    return f"{key} {fingerprint(asdict(setting))}"


def read_run(folder: str | Path) -> Run:
    """Read a run without holding or changing it.

    Raises:
        RunError: there is none, or it is damaged or in use.
    """
    path = home(folder) / "run.sqlite"
    if not path.is_file():
        raise RunError(
            f"'{folder}' holds no run (no run.sqlite); give the folder that a search or sweep wrote"
        )
    # A process that was killed leaves a journal; who reads next takes its unfinished write back.
    mode = "rw" if path.with_name("run.sqlite-journal").exists() else "ro"
    with _explained(path.parent):
        database = sqlite3.connect(f"{path.resolve().as_uri()}?mode={mode}", uri=True, timeout=1)
        with closing(database):
            check_kind(database, path.parent)
            tables = {
                table: dict(database.execute(f"SELECT {columns} FROM {table} ORDER BY 1"))
                for table, columns in _COLUMNS.items()
            }
    with _intact(path.parent):
        read = {
            table: {key: json.loads(text) for key, text in rows.items()}
            for table, rows in tables.items()
        }
        trials = {key: Trial.from_json(values) for key, values in read["trials"].items()}
        rows = {digest: Rows.from_json(values) for digest, values in read["rows"].items()}
    settings = read["settings"]
    notes = {name: settings.pop(name, None) or {} for name in NOTES}
    rivals: dict[str, Trial] = {}
    if settings.get("kind") == "search":  # of one model, which may have been moved since
        name = min((t.setting.model for t in trials.values()), default="")
        moved = (replace(t, setting=replace(t.setting, model=name)) for t in trials.values())
        trials = {key_with_setting(trial.key, trial.setting): trial for trial in moved}
        own = settings.get("shots"), settings.get("scoring")
        rivals = {k: t for k, t in trials.items() if (t.setting.shots, t.setting.scoring) != own}
    names = notes[GUARD].get("names", ())
    guarded = {key: trial for key, trial in trials.items() if trial.setting.task in names}
    deployed = {key: trial for key, trial in trials.items() if trial.stored_as}
    return Run(
        path.parent,
        settings,
        trials={k: t for k, t in trials.items() if k not in {*guarded, *rivals, *deployed}},
        rows=rows,
        spectra=read["spectra"],
        models=read["models"],
        origin=notes[ORIGIN],
        margin=notes[GUARD].get("margin"),
        guarded=tuple(guarded.values()),
        screen=notes[SCREEN] or None,
        rivals=tuple(trial for key, trial in rivals.items() if key not in guarded),
        looks=notes[LOOKS],
        deployed=tuple(deployed.values()),
        portable=notes[PORTABLE],
    )


def folder_name(model: str) -> str:
    """Return a hub id or path as a part of a folder's name.

    >>> folder_name("EleutherAI/gpt-j-6b"), folder_name("models/my model")
    ('gpt-j-6b', 'my-model')
    """
    return re.sub(r"[^\w.-]+", "-", Path(model).name)


def _versions() -> dict[str, str]:
    packages = {name: metadata.version(name) for name in ("torch", "transformers")}
    return {"eckart": metadata.version("eckart"), **packages, "python": platform.python_version()}


def _packed(trial: Trial) -> tuple[str, bytes | None]:
    """Return a trial as JSON without its log-likelihoods, and these as float64."""
    values = trial.to_json()
    if not isinstance(trial.score, Score):
        return json.dumps(values), None
    values["score"]["log_likelihoods"] = []
    return json.dumps(values), np.array(trial.score.log_likelihoods, dtype="<f8").tobytes()


def _unpacked(text: str, content: bytes | None) -> Trial:
    trial = Trial.from_json(json.loads(text))
    if not isinstance(trial.score, Score) or content is None:
        return trial
    values = np.frombuffer(content, dtype="<f8").reshape(trial.score.n, -1)
    score = replace(trial.score, log_likelihoods=tuple(map(tuple, values.tolist())))
    return replace(trial, score=score)


def check_kind(database: sqlite3.Connection, folder: Path) -> None:
    """Refuse a database that is no run, or another version's."""
    if database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0:
        raise RunError(
            f"run '{folder}' is empty: it was ended before it kept anything; the command that"
            " began it begins it again"
        )
    if database.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
        raise RunError(
            f"'{folder / 'run.sqlite'}' is no run of eckart; choose another folder with --out"
        )
    if database.execute("PRAGMA user_version").fetchone()[0] != SCHEMA_VERSION:
        raise RunError(
            f"run '{folder}' was made by another version of eckart; choose another --out"
        )


@contextmanager
def _intact(folder: Path) -> Iterator[None]:
    """Say in one line that what a sound database holds is no trial, no rows or no setting."""
    try:
        yield
    except (ValueError, KeyError, TypeError) as error:
        raise RunError(
            f"run '{folder}' has a damaged run.sqlite: something in it cannot be read ({error!r});"
            " restore it, or choose another --out"
        ) from error


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
            f"run '{folder}' has a damaged run.sqlite ({error}); restore it, or choose another"
            " --out"
        ) from error
