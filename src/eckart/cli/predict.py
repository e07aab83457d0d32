"""The verb that labels new rows: where they come from, where predictions go, and the loop at a
terminal."""

from __future__ import annotations

import csv
import io
import json
import os
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Any

from eckart.cli.console import (
    errors,
    note_kept,
    output,
    print_json,
    progress_bar,
    say,
    say_error,
    show,
)
from eckart.errors import RunError, TaskError, changes
from eckart.exports.predictions import Predictions, as_row
from eckart.files import check_writable, write_whole
from eckart.reports.terminal import Layout, printable
from eckart.scoring.labelling import Labeller
from eckart.scoring.methods import OF_ALL_ROWS
from eckart.tasks.files import RowStream
from eckart.tasks.portable import PortableTask
from eckart.tasks.tables import passing_table, rows_of_lines

FORMATS = ("csv", "jsonl", "table")
DIGITS = 6
"""Of a probability, behind the point, where it is written."""


def check_format(said: str | None, out: Path | None) -> str:
    """Return how predictions are written: as is said, as the file's name ends, or as suits where
    they go."""
    ending = None if out is None else out.suffix.lower().removeprefix(".")
    name = said or ending or ("table" if output.is_terminal else "csv")
    if name not in FORMATS or (out is not None and name == "table"):
        known = ", ".join(FORMATS if out is None else FORMATS[:-1])
        where = f"of '{out}' " if said is None else ""
        raise RunError(f"no format '{name}' {where}to write predictions in; --format is {known}")
    return name


def check_place(out: Path) -> None:
    """Refuse a file that is there already, or cannot be written."""
    check_writable(out)
    if out.exists():
        raise RunError(f"'{out}' exists, and nothing is written over; name another, or remove it")


def new_rows(rows: str | None, texts: Sequence[str]) -> Any:
    """Return what is to be labelled: a table's path, texts, or what makes standard input's rows
    once the task is known."""
    if (rows is None) == (not texts):
        raise TaskError(
            "nothing to label: name a table, - for standard input, or --text"
            if rows is None
            else f"'{rows}' and --text are both to be labelled; leave out one of them"
        )
    return list(texts) if rows is None else standard_input if rows == "-" else rows


def standard_input(task: PortableTask) -> RowStream:
    """Return the rows of standard input: JSON Lines; a table, whose first line names the columns
    that prompts are made of; or else a text a line."""
    text = _decoded(io.TextIOWrapper(sys.stdin.buffer, encoding="utf-8-sig", newline=""))
    first = next(text, "")
    needed = task.columns.needed
    name = "standard input"
    if first.lstrip().startswith("{"):
        return RowStream(name, rows_of_lines(chain([first], text)))
    table = passing_table(first, text, needed) if needed else None
    if table is not None:
        said = " ".join(first.split())
        return RowStream(name, table, notes=(f"read as a table, whose columns are {said}",))
    if len(needed) != 1:
        raise TaskError(
            f"the first line of standard input is no JSON object and does not name the columns"
            f" {', '.join(needed)}, which a prompt is made of; give a table, or JSON Lines"
        )
    lines = chain([first], text) if first else ()
    return RowStream(name, ({needed[0]: line.rstrip("\r\n")} for line in lines))


def _decoded(lines: Iterable[str]) -> Iterator[str]:
    try:
        yield from lines
    except UnicodeDecodeError as error:
        raise TaskError(
            f"standard input is no UTF-8 text ({error.reason}); convert it first, as iconv does"
        ) from None


def run_predict(predictions: Predictions, out: Path | None, form: str, as_json: bool) -> None:
    """Label all rows, write them a chunk at a time, and say what came of it.

    Arguments:
        predictions: what labels them.
        out: a file, which stands there once it is whole, and on which a stopped command goes on;
            None for standard output.
        form: how they are written.
        as_json: print one JSON document; with the predictions where there is no file.
    """
    for note in predictions.stream.notes:
        say(f"note: {note}")
    kept: list[dict[str, Any]] = []
    if out is not None:
        _write(predictions, out, form)
    else:
        writer = _Writer(form, predictions.added)
        for rows in _watched(predictions):
            if as_json:
                kept += rows
            elif form == "table":
                if rows:
                    show(_table(rows))
            else:
                sys.stdout.write(writer.text(rows))
                sys.stdout.flush()
    for note in predictions.tally.notes():
        say(f"note: {note}")
    if as_json:
        made = {"predictions": kept} if out is None else {"out": str(out)}
        print_json({**predictions.to_json(), **made})
        return
    for sentence in predictions.tally.accuracy():
        say(sentence)
    if out is not None:
        say(f"predictions: {out}")


def _watched(predictions: Predictions) -> Iterator[list[dict[str, Any]]]:
    """Yield chunks, and show how far they are."""
    with progress_bar("predict", predictions.stream.size) as advance:
        done = 0
        for rows in predictions.chunks():
            yield rows
            advance(predictions.tally.read - done)
            done = predictions.tally.read


def _write(predictions: Predictions, out: Path, form: str) -> None:
    settings = {**predictions.settings, "rows": predictions.stream.name, "format": form}
    with Growing(out, settings) as file:
        note_kept(file.about, out)
        if file.state:
            predictions.pass_over(file.state["tally"])
            say(f"going on behind the first {predictions.tally.read:,} rows")
        writer = _Writer(form, predictions.added, file.state.get("columns"))
        for rows in _watched(predictions):
            text = writer.text(rows)
            file.add(text, {"tally": asdict(predictions.tally), "columns": writer.columns})
        file.finish()


def run_interactive(labeller: Labeller, tokens: int, as_json: bool) -> None:
    """Read texts until the input ends, or an empty one comes, and for each say what the models make
    of it: the probability of each label, and what they write after it.

    Arguments:
        labeller: what reads them.
        tokens: the most that a continuation has; none are written at 0.
        as_json: print one JSON object a line.

    Raises:
        TaskError: labels are ranked by the mean over many rows, or a prompt is made of more than a
            text.
    """
    if labeller.scoring in OF_ALL_ROWS:
        raise TaskError(
            f"scoring '{labeller.scoring}' needs all rows together, and here they come one by one;"
            " choose --scoring contextual"
        )
    task = labeller.portable
    as_row("", task)  # refused before anything is typed
    for number, text in enumerate(_texts()):
        try:
            said = labeller.answers(f"text:{number}", as_row(text, task), tokens)
        except TaskError as error:  # the next text may be a better one
            say_error(str(error))
            continue
        if as_json:
            sys.stdout.write(json.dumps({"text": text, "models": said}, ensure_ascii=False) + "\n")
            sys.stdout.flush()
            continue
        show(_table([_flat(one) for one in said]))
        for one in said if tokens else ():
            show(f"{one['model']} continues: {one['continues']!r}")


def _flat(said: Mapping[str, Any]) -> dict[str, Any]:
    shares = {f"probability_{label}": share for label, share in said["probabilities"].items()}
    return {"model": said["model"], "prediction": said["prediction"], **shares}


def _texts() -> Iterator[str]:
    """Yield what is typed, or stands on standard input a line each, up to an empty line."""
    while True:
        try:
            text = errors.input("text: ") if sys.stdin.isatty() else sys.stdin.readline()
        except EOFError:
            return
        if not text.strip():
            return
        yield text.rstrip("\r\n")


class Growing:
    """A file that grows beside its place by whole pieces, and stands there once it is whole.

    Arguments:
        path: its place.
        settings: what it is made by, JSON values; one that others began is refused.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        check_place(path)
        self.path = path
        self.part = path.with_name(f"{path.name}.part")
        self.about = path.with_name(f"{path.name}.part.json")
        self.settings = json.loads(json.dumps(settings))
        self.state: dict[str, Any] = {}

    def __enter__(self) -> Growing:
        begun = self._begun()
        self._file = self.part.open("r+b" if self.part.exists() else "x+b")
        try:
            _lock(self._file.fileno(), self.part)
            self._file.truncate(begun.get("bytes", 0))
            self._file.seek(0, os.SEEK_END)
            self.state = begun.get("state", {})
            self._note()
        except BaseException:
            self._file.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, text: str, state: dict[str, Any]) -> None:
        """Write a piece, and what is needed to go on behind it."""
        self._file.write(text.encode())
        self._file.flush()
        os.fsync(self._file.fileno())
        self.state = state
        self._note()

    def finish(self) -> None:
        """Put the file in its place."""
        self.part.replace(self.path)
        self.about.unlink()

    def _note(self) -> None:
        said = {"settings": self.settings, "bytes": self._file.tell(), "state": self.state}
        write_whole(self.about, json.dumps(said).encode())

    def _begun(self) -> dict[str, Any]:
        """Return what a stopped command left; nothing where there was none."""
        if not self.part.exists():
            return {}
        try:
            found = json.loads(self.about.read_text(encoding="utf-8"))
            was, size = found["settings"], found["bytes"]
            whole = self.part.stat().st_size >= size
        except (OSError, ValueError, KeyError, TypeError):
            whole, was = False, None
        if not whole:
            raise RunError(
                f"'{self.part}' is there, and not as a stopped command left it; remove it, or name"
                " another --out"
            )
        other = list(changes(was, self.settings))
        if other:
            raise RunError(
                f"'{self.part}' is of another command ({'; '.join(other[:3])}); run that one again"
                " to its end, or name another --out"
            )
        return dict(found)


def _lock(file: int, path: Path) -> None:
    """Hold a file for as long as it is open, where the system has locks."""
    with suppress(ImportError):
        import fcntl

        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise RunError(
                f"'{path}' is in use by another command; wait for it, or name another --out"
            ) from None


class _Writer:
    """Turns rows into lines of a format.

    Arguments:
        form: `csv` or `jsonl`.
        added: which columns are predictions'; all others stay as they are.
        columns: those of the lines that stand there already; None where there are none.
    """

    def __init__(
        self, form: str, added: Collection[str], columns: Sequence[str] | None = None
    ) -> None:
        self.form = form
        self.added = added
        self.columns = columns

    def text(self, rows: Sequence[Mapping[str, Any]]) -> str:
        """Return the lines of some rows; the first ones' stand under a heading, where the format
        has one."""
        plain = [{name: self._written(name, row[name]) for name in row} for row in rows]
        if self.form == "jsonl":
            lines = (json.dumps(row, ensure_ascii=False, default=str) for row in plain)
            return "".join(f"{line}\n" for line in lines)
        if not plain:
            return ""
        text = io.StringIO()
        begun = self.columns is not None
        self.columns = self.columns or list(plain[0])
        writer = csv.DictWriter(text, self.columns, lineterminator="\n")
        if not begun:
            writer.writeheader()
        try:
            writer.writerows({name: _cell(value) for name, value in row.items()} for row in plain)
        except ValueError:
            strange = next(name for row in plain for name in row if name not in self.columns)
            raise TaskError(
                f"a row has a column '{strange}', which the first row has not, and CSV gives all"
                " rows the same; use --format jsonl"
            ) from None
        return text.getvalue()

    def _written(self, name: str, value: Any) -> Any:
        rounded = name in self.added and isinstance(value, float)
        return round(value, DIGITS) if rounded else value


def _cell(value: Any) -> Any:
    nested = isinstance(value, list | dict)
    return json.dumps(value, ensure_ascii=False, default=str) if nested else value


SHOWN = 60
"""Characters of a cell that a terminal shows."""


def _table(rows: Sequence[Mapping[str, Any]]) -> Layout:
    names = list(rows[0])
    cells = [[_short(row.get(name, "")) for row in rows] for name in names]
    texts = [any(isinstance(row.get(name), str) for row in rows) for name in names]
    return Layout(names, cells, texts)


def _short(value: Any) -> str:
    text = f"{value:.4f}" if isinstance(value, float) else printable(" ".join(str(value).split()))
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 3]}..."
