"""Where rows come from: a local file, a folder laid out like the hub's, or the hub."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from eckart.errors import TaskError

Row = dict[str, Any]
"""A row: a column's name -> its value."""

SPLIT_NAMES = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing"),
}


@dataclass(frozen=True, eq=False)
class Source:
    """Rows, by the split that they stand in.

    Arguments:
        where: the file, folder or hub id, for messages.
        splits: a split's name -> its rows in the file's order. A single file is one split, called like the file.
        single: whether it is one file, that is, nobody has divided the rows yet.
    """

    where: str
    splits: dict[str, list[Row]]
    single: bool = False

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of all columns, in the order in which they are met."""
        return tuple(dict.fromkeys(name for rows in self.splits.values() for row in rows for name in row))

    def only(self, names: Collection[str]) -> Source:
        """Return the splits with these names.

        Raises:
            TaskError: one of them is not there.
        """
        missing = [name for name in names if name not in self.splits]
        if missing:
            raise TaskError(
                f"the task wants a split '{missing[0]}', and {self.where} has {', '.join(self.splits)}; "
                "give one file as the data, or say in a task file which split serves as what"
            )
        return replace(self, splits={name: rows for name, rows in self.splits.items() if name in names})


def read_local(path: Path, config: str | None = None) -> Source:
    """Read a file, or a folder with a file or more for each split.

    Text stays text: 'NA', 'null' and '1e5' are not made into anything else.

    Arguments:
        path: a parquet, JSON Lines, JSON, CSV or TSV file; or a folder with, say, `train.parquet` or
            `data/train-00000-of-00002.parquet` (`dev`, `val`, `valid` and `validation` are one split).
        config: the folder's subfolder to look in first, where there is one: a data set's configuration on the hub.

    Raises:
        TaskError: there is nothing to read, or it cannot be read.
    """
    try:
        if not path.exists():
            raise TaskError(f"no data at '{path}'; is the path right?")
        if path.is_dir():
            return _read_folder(path, config)
        return Source(str(path), {path.stem: _read_file(path)}, single=True)
    except OSError as error:
        raise TaskError(f"cannot read '{path}': {' '.join(str(error).split())}") from None


def read_hub(hub: str, config: str | None) -> Source:
    """Read a data set from the Hugging Face hub, or from its local cache.

    Raises:
        TaskError: the hub cannot be reached, or has no such data set.
    """
    import datasets  # takes two seconds, and is not needed for local data

    try:
        loaded = datasets.load_dataset(hub, config)
    # The hub's client raises a dozen unrelated kinds of error; each means that the data could not be had.
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise TaskError(
            f"cannot load '{hub}' from the hub ({reason[:200]}); with the data on this machine, give it as --data"
        ) from None
    return Source(hub, {str(name): split.to_list() for name, split in loaded.items()})


def _read_file(path: Path) -> list[Row]:
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise TaskError(
            f"'{path}' ends in none of {', '.join(_READERS)}; convert it, or rename it if it is one"
        )
    rows = reader(path)
    if not rows:
        raise TaskError(f"'{path}' has no rows; was it written to its end?")
    return rows


def _parquet(path: Path) -> list[Row]:
    import pyarrow
    from pyarrow import parquet

    try:
        return parquet.ParquetFile(path).read().to_pylist()
    except (pyarrow.ArrowException, ValueError) as error:
        raise TaskError(
            f"'{path}' is no whole parquet file ({' '.join(str(error).split())[:120]}); was it copied to its end?"
        ) from None


def _text(path: Path) -> str:
    content = path.read_bytes()
    try:
        # Spreadsheets begin a UTF-8 file with a byte order mark, which is no part of the first column's name.
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise TaskError(
            f"'{path}' line {line} is not UTF-8 (byte {content[error.start]:#04x}); save the file as UTF-8"
        ) from None


def _csv(path: Path) -> list[Row]:
    return _table(path, _text(path), delimiter=",")


def _tsv(path: Path) -> list[Row]:
    # Two customs share the name: quoted as in CSV, and not quoted at all, where a lone quotation mark is text. Read
    # as CSV, a file of the second custom does not come out even, or runs several lines together into one row.
    text = _text(path)
    readings, failures = [], []
    for quoting in (csv.QUOTE_MINIMAL, csv.QUOTE_NONE):
        try:
            readings.append(_table(path, text, delimiter="\t", quoting=quoting))
        except TaskError as error:
            failures.append(error)
    if not readings:
        raise failures[0]
    return max(readings, key=len)


def _table(path: Path, text: str, *, delimiter: str, quoting: Any = csv.QUOTE_MINIMAL) -> list[Row]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, quoting=quoting, strict=True)
    rows: list[Row] = []
    header: list[str] = []
    try:
        with _any_field_size(len(text)):
            for fields in reader:
                if not header:
                    header = _header(path, fields)
                elif len(fields) == len(header):
                    rows.append(dict(zip(header, fields, strict=True)))
                elif fields:
                    raise csv.Error(
                        f"{len(fields)} fields, where the first line has {len(header)}; unquoted text?"
                    )
    except csv.Error as error:
        raise TaskError(f"'{path}' line {reader.line_num}: {error}") from None
    return rows


def _header(path: Path, fields: list[str]) -> list[str]:
    names = [field.strip() for field in fields]
    if len(set(names)) < len(names):
        raise TaskError(f"'{path}' has two columns of one name: {', '.join(names)}")
    return names


@contextmanager
def _any_field_size(size: int) -> Iterator[None]:
    # The csv module refuses fields above 128 KiB, and only a limit for the whole process can be set.
    before = csv.field_size_limit(max(size, csv.field_size_limit()))
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _json(path: Path) -> list[Row]:
    text = _text(path)
    if not text.lstrip().startswith("["):
        return _json_lines(path, text)
    rows = _parsed(text, f"'{path}'")
    return [_object(row, f"'{path}' item {index}") for index, row in enumerate(rows)]


def _json_lines(path: Path, text: str) -> list[Row]:
    # Not str.splitlines: a JSON text may hold U+2028, which that takes for the end of a line.
    lines = ((number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip())
    return [_object(_parsed(line, f"'{path}' line {n}"), f"'{path}' line {n}") for n, line in lines]


def _parsed(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        hint = "a JSON file holds one array of objects, or one object a line"
        raise TaskError(f"{where} is not whole JSON ({getattr(error, 'msg', error)}); {hint}") from None


def _object(value: Any, where: str) -> Row:
    if not isinstance(value, dict):
        raise TaskError(f'{where} is not an object such as {{"text": ..., "label": ...}}')
    return value


_READERS: dict[str, Callable[[Path], list[Row]]] = {
    ".parquet": _parquet,
    ".csv": _csv,
    ".tsv": _tsv,
    ".jsonl": lambda path: _json_lines(path, _text(path)),
    ".ndjson": lambda path: _json_lines(path, _text(path)),
    ".json": _json,
}


def _read_folder(folder: Path, config: str | None) -> Source:
    places = [folder / config] if config and (folder / config).is_dir() else []
    for place in (*places, folder, folder / "data"):
        files = _files_by_split(place)
        if files:
            return Source(
                str(place),
                {
                    name: [row for file in shards for row in _read_file(file)]
                    for name, shards in files.items()
                },
            )
    alone = [file for file in folder.iterdir() if _readable(file)]
    if len(alone) == 1:
        return read_local(alone[0])
    seen = ", ".join(sorted(file.name for file in folder.iterdir())[:8]) or "nothing"
    raise TaskError(
        f"'{folder}' has no file called like a split, such as train.csv or test.parquet; it holds {seen}"
    )


def _files_by_split(folder: Path) -> dict[str, list[Path]]:
    """Return the files of each split, in the order of their names: `train-*`, or all in a folder `train`."""
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        split = _split_name(path.stem)
        files = sorted(path.iterdir()) if path.is_dir() else [path]
        if split and any(map(_readable, files)):
            found.setdefault(split, []).extend(filter(_readable, files))
    for split, files in found.items():
        _check_shards(split, files)
    return {name: found[name] for name in SPLIT_NAMES if name in found}


def _readable(path: Path) -> bool:
    return path.is_file() and path.suffix.lower() in _READERS and not path.name.startswith(".")


def _split_name(stem: str) -> str | None:
    words = re.split(r"[^a-z]+", stem.lower())
    return next((name for name, synonyms in SPLIT_NAMES.items() if not set(synonyms).isdisjoint(words)), None)


def _check_shards(split: str, files: list[Path]) -> None:
    """Refuse what is not one whole set of numbered files: a copy beside the original would be read twice."""
    of_total = [match for file in files if (match := re.search(r"-(\d+)-of-(\d+)$", file.stem))]
    numbered = (
        all(re.search(r"\d$", file.stem) for file in files) and len({file.suffix for file in files}) == 1
    )
    if len(files) > 1 and not numbered:
        names = ", ".join(file.name for file in files)
        raise TaskError(
            f"more than one file is the {split} split: {names}; keep one, or give one file as the data"
        )
    total = int(of_total[0][2]) if of_total else len(files)
    if len(files) != total:
        raise TaskError(f"the {split} split has {len(files)} of its {total} files; fetch the others too")
