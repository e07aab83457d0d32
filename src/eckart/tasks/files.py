"""One file of rows, by its ending: CSV, TSV, JSON, parquet, Arrow; packed or not."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import IO, Any, cast

from eckart.errors import TaskError
from eckart.tasks.tables import (
    RECORDS,
    FileTable,
    Row,
    open_table,
    read_json,
    read_lines,
    read_table,
    rows_of_lines,
)

PACKERS = {".gz": "gzip", ".bz2": "bz2", ".xz": "lzma"}
PACKED = (*PACKERS, ".zst")
# What a text packs to is seldom a thirtieth; what is made to fill a memory, a thousandth.
MOST_UNPACKED = 30
LEAST_LIMIT = 256 * 1024**2

NO_ROWS = ("dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json")
"""What the datasets library writes beside the rows."""


@dataclass(frozen=True, eq=False)
class RowStream:
    """Rows that are read as they are asked for, once.

    Arguments:
        name: what messages call them.
        rows: them.
        size: how many they are, where that is known.
        notes: how they are read, where that is not what the file's name says.
    """

    name: str
    rows: Iterable[Row]
    size: int | None = None
    notes: tuple[str, ...] = ()


def read_file(path: Path) -> FileTable:
    """Read a file; one that has no rows or cannot be read is a TaskError, which names it."""
    suffix = _suffix(path)
    with _naming(path):
        if suffix in _TEXTS:
            table = _TEXTS[suffix](_text(path))
        elif path.suffix.lower() in _COLUMNS:
            table = _arrow_table(path, _COLUMNS[path.suffix.lower()])
        else:
            known = ", ".join((*_COLUMNS, *_TEXTS))
            raise TaskError(
                f"'{path}' ends in none of {known} (texts also packed: {', '.join(PACKED)});"
                " convert it, or rename it if it is one"
            )
        if not table.rows:
            raise _empty(path)
        return table


def open_file(path: Path) -> RowStream:
    """Open a file whose rows are read in constant memory, just as `read_file` reads them; one JSON
    document is read whole. The TaskErrors are the same, and come where they are met."""
    suffix = _suffix(path)
    if not path.is_file():
        raise TaskError(f"no rows at '{path}'; is the path right?")
    with _naming(path):
        if suffix in _SEPARATED:
            found = open_table(partial(_lines, path), _SEPARATED[suffix])
            return RowStream(path.name, _some(path, found), found.size, found.notes)
        if suffix in _LINES:
            return RowStream(path.name, _some(path, rows_of_lines(_lines(path))))
        if path.suffix.lower() == ".parquet":
            return RowStream(path.name, _some(path, _parquet_rows(path)))
        table = read_file(path)
        return RowStream(path.name, table.rows, len(table.rows), table.notes)


def _some(path: Path, rows: Iterable[Row]) -> Iterator[Row]:
    """Yield a file's rows; errors name the file."""
    with _naming(path):
        row = None
        for row in rows:
            yield row
        if row is None:
            raise _empty(path)


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    try:
        yield
    except TaskError as error:
        raise error if str(path) in str(error) else TaskError(f"'{path}' {error}") from None


def _empty(path: Path) -> TaskError:
    return TaskError(f"'{path}' has no rows; was it written to its end?")


def readable(path: Path) -> bool:
    """Return whether a file seems to hold rows."""
    return path.is_file() and named_like_rows(path)


def named_like_rows(path: Path) -> bool:
    """Return whether a file of that name would be taken to hold rows, were it there."""
    known = _suffix(path) in _TEXTS or path.suffix.lower() in _COLUMNS
    cached = path.name.startswith("cache-") and path.suffix == ".arrow"
    return known and path.name not in NO_ROWS and path.name[0] != "." and not cached


def bare_name(path: Path) -> str:
    """Return a file's name without the endings that say how it is written.

    >>> bare_name(Path("data/reviews.v2.csv.gz")), bare_name(Path("my.data"))
    ('reviews.v2', 'my.data')
    """
    name = path.name
    for endings in (PACKED, (*_TEXTS, *_COLUMNS)):
        ending = next((ending for ending in endings if name.lower().endswith(ending)), "")
        name = name[: len(name) - len(ending)] or name
    return name


def _suffix(path: Path) -> str:
    """Return the ending that says what a text holds, whether it is packed or not."""
    inner = path.with_suffix("") if path.suffix.lower() in PACKED else path
    return inner.suffix.lower()


def _text(path: Path) -> str:
    content = _unpacked(path) if path.suffix.lower() in PACKED else path.read_bytes()
    try:
        # Spreadsheets begin a UTF-8 file with a byte order mark, which is no part of the first
        # column's name.
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _not_text(path, 1, error) from None


def _not_text(path: Path, first: int, error: UnicodeDecodeError) -> TaskError:
    """Say where a text is none; the decoder was given it from this line on."""
    line = first + error.object.count(b"\n", 0, error.start)
    return TaskError(
        f"'{path}' line {line} is not UTF-8 (byte {error.object[error.start]:#04x}); save the file"
        " as UTF-8"
    )


def _lines(path: Path) -> Iterator[str]:
    """Yield a text's lines with the breaks that they end in."""
    line = 0
    packed = path.suffix.lower() in PACKED
    with _damaged(path), _opened(path) if packed else path.open("rb") as file:
        text = io.TextIOWrapper(file, encoding="utf-8-sig", newline="")
        try:
            for content in text:
                line += 1
                yield content
        except UnicodeDecodeError as error:
            raise _not_text(path, line + 1, error) from None


def _unpacked(path: Path) -> bytes:
    limit = max(LEAST_LIMIT, MOST_UNPACKED * path.stat().st_size)
    with _damaged(path), _opened(path) as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise TaskError(
            f"'{path}' unpacks to more than {limit // 1024**2:,} MB, {MOST_UNPACKED} times its"
            " size; if you trust it, unpack it yourself"
        )
    return content


@contextmanager
def _damaged(path: Path) -> Iterator[None]:
    try:
        yield
    except TaskError:
        raise
    # Each of the packers raises errors of its own, and OSError and EOFError too, for a file that is
    # cut or damaged.
    except Exception as error:
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise TaskError(
            f"'{path}' cannot be unpacked ({reason}); was it copied to its end?"
        ) from None


def _opened(path: Path) -> IO[bytes]:
    packer = PACKERS.get(path.suffix.lower())
    if packer is not None:
        return cast("IO[bytes]", import_module(packer).open(path))
    import pyarrow

    return cast("IO[bytes]", pyarrow.input_stream(str(path), compression="zstd"))


def _arrow_table(path: Path, read: Callable[[Path], Any]) -> FileTable:
    with _cut_short(path):
        table = read(path)
        _check_names(table.column_names)
        return FileTable(table.to_pylist(), _class_names(path, table.schema.metadata or {}))


def _check_names(names: Sequence[str]) -> None:
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise TaskError(f"has two columns of one name: {', '.join(names)}; rename one '{twice}'")


@contextmanager
def _cut_short(path: Path) -> Iterator[None]:
    import pyarrow

    try:
        yield
    except (pyarrow.ArrowException, ValueError, OSError) as error:
        raise TaskError(
            f"is no whole {path.suffix[1:].lower()} file ({' '.join(str(error).split())[:120]});"
            " was it copied to its end?"
        ) from None


def _parquet_rows(path: Path) -> Iterator[Row]:
    from pyarrow import parquet

    with _cut_short(path), parquet.ParquetFile(path) as file:
        _check_names(file.schema_arrow.names)
        for batch in file.iter_batches(batch_size=RECORDS):
            yield from batch.to_pylist()


def _parquet(path: Path) -> Any:
    from pyarrow import parquet

    return parquet.ParquetFile(path).read()


def _arrow(path: Path) -> Any:
    """Read an Arrow file, or the stream that the datasets library writes under the same ending."""
    from pyarrow import ipc

    with path.open("rb") as file:
        opened = ipc.open_file if file.read(6) == b"ARROW1" else ipc.open_stream
        file.seek(0)
        return opened(file).read_all()


def _class_names(path: Path, metadata: dict[bytes, bytes]) -> dict[str, tuple[str, ...]]:
    """Return what the datasets library says of the numbers in a file: in it, or else in a file
    beside it."""
    try:
        if b"huggingface" in metadata:
            features = json.loads(metadata[b"huggingface"])["info"]["features"]
        else:
            features = json.loads((path.parent / "dataset_info.json").read_bytes())["features"]
        return {
            str(column): tuple(map(str, feature["names"]))
            for column, feature in features.items()
            if isinstance(feature, dict)
            and feature.get("_type") == "ClassLabel"
            and feature.get("names")
        }
    # What others write there is no promise; rows without names for their numbers are rows all the
    # same.
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}


_COLUMNS: dict[str, Callable[[Path], Any]] = {
    ".parquet": _parquet,
    ".arrow": _arrow,
    ".feather": _arrow,
}
_SEPARATED = {".csv": ",", ".tsv": "\t"}
_LINES = (".jsonl", ".ndjson")
_TEXTS: dict[str, Callable[[str], FileTable]] = {
    **{end: partial(read_table, separator=mark) for end, mark in _SEPARATED.items()},
    **dict.fromkeys(_LINES, lambda text: FileTable(read_lines(text))),
    ".json": lambda text: FileTable(read_json(text)),
}


def split_words(path: Path) -> set[str]:
    """Return the words of a file's name, by which a split is known."""
    return set(re.split(r"[^a-z]+", bare_name(path).lower()))
