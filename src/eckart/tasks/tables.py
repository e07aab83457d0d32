"""Tables as text: separated values, and JSON in each of the forms that pandas writes."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from eckart.errors import TaskError

Row = dict[str, Any]
"""A row: a column's name -> its value."""

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}


@dataclass(frozen=True, eq=False)
class FileTable:
    """What one file holds: rows in its order, the names that it gives to the numbers in a column,
    and how it was read, where that is not what its name says."""

    rows: list[Row]
    classes: dict[str, tuple[str, ...]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Dialect:
    separator: str
    quoting: Any = csv.QUOTE_MINIMAL
    skip_spaces: bool = False

    def records(self, text: str) -> list[tuple[int, list[str]]]:
        """Return the fields of every line that holds any, and its number."""
        reader = csv.reader(
            io.StringIO(text, newline=""),
            delimiter=self.separator,
            quoting=self.quoting,
            skipinitialspace=self.skip_spaces,
            strict=True,
        )
        try:
            with _any_field_size(len(text)):
                return [(reader.line_num, fields) for fields in reader if fields]
        except csv.Error as error:
            raise TaskError(f"line {reader.line_num}: {error}") from None


def read_table(text: str, separator: str) -> FileTable:
    """Read a table whose values are separated by `separator`, or by another mark if that one makes
    no table of it. A TaskError, if none does, begins with the line."""
    said = re.match(r"sep=(.)\r?\n", text)  # Excel's own way to name a separator
    if said:
        separator, text = said[1], text[said.end() :]
    rows, failure = _reading(text, separator)
    if rows is not None and (len(rows) == 0 or len(rows[0]) > 1):
        return FileTable(rows)
    others = {
        mark: found
        for mark in SEPARATORS
        if mark != separator and (found := _reading(text, mark)[0])
    }
    wide = [mark for mark, found in others.items() if len(found[0]) > 1]
    if len(wide) == 1:
        return FileTable(others[wide[0]], notes=(f"read as separated by {SEPARATORS[wide[0]]}",))
    if len(wide) > 1:
        marks = " or ".join(SEPARATORS[mark] for mark in wide)
        raise TaskError(
            f"line 1 can be separated by {marks}; separate the columns by commas (pandas: sep=',')"
        )
    first = text.split("\n", 1)[0]
    other = next((mark for mark in SEPARATORS if mark in first and separator not in first), None)
    if other is not None:
        _, failure = _reading(text, other)
        raise TaskError(f"{failure} (the first line is separated by {SEPARATORS[other]})")
    if rows is None:
        raise failure
    return FileTable(rows)


def _reading(text: str, separator: str) -> tuple[list[Row] | None, TaskError]:
    """Return the rows, or why there are none, under the custom of quoting that makes most sense of
    the text."""
    # Two customs share a name where tabs separate: quoted as in CSV, and not quoted at all, where a
    # lone quotation mark is text. Read as quoted, a file of the second custom does not come out
    # even, or runs lines together into one row.
    customs = [_Dialect(separator)]
    if separator == "\t":
        customs.append(_Dialect(separator, csv.QUOTE_NONE))
    found: list[list[Row]] = []
    failure = TaskError("line 1: no table")
    for custom in customs:
        try:
            found.append(_rows(custom.records(text)))
        except TaskError as error:
            failure = error
    best = max(found, key=len) if found else None
    if re.search(rf'{re.escape(separator)}[ ]+"', text) and (
        best is None or any(map(_keeps_marks, best))
    ):
        # `"text", "label"`: after a space, a quotation mark is no quotation to the csv module, and
        # would be kept.
        with suppress(TaskError):
            best = _rows(_Dialect(separator, skip_spaces=True).records(text))
    return best, failure


def _keeps_marks(row: Row) -> bool:
    return any(value[:1] == " " and value.lstrip()[:1] == '"' for value in row.values())


def _rows(records: Sequence[tuple[int, list[str]]]) -> list[Row]:
    if not records:
        return []
    head = [name.strip() for name in records[0][1]]
    # A spreadsheet writes the empty columns to the right of a table as columns without a name.
    width = max((place for place, name in enumerate(head, start=1) if name), default=0)
    cells = [_cells(fields, head, width, line) for line, fields in records[1:]]
    kept = [
        place
        for place in range(width)
        if head[place] or any(fields[place].strip() for fields in cells)
    ]
    names = _unique([head[place] for place in kept])
    return [dict(zip(names, (fields[place] for place in kept), strict=True)) for fields in cells]


def _cells(fields: list[str], head: list[str], width: int, line: int) -> list[str]:
    """Return a line's values under the columns with names."""
    fits = len(fields) == len(head) or width <= len(fields) < len(head)
    if not fits or any(field.strip() for field in fields[width:]):
        raise TaskError(
            f"line {line}: {len(fields)} fields, where the first line has {width}"
            f"{' with a name' if width < len(head) else ''}; unquoted text?"
        )
    if width > 1 and [field.strip("\ufeff \t") for field in fields[:width]] == head[:width]:
        raise TaskError(
            f"line {line}: repeats the first line; where tables were put together, take it out"
        )
    return fields[:width]


def _unique(names: list[str]) -> list[str]:
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice == "":
        raise TaskError(
            f"line 1: several columns with values have no name: {', '.join(names)}; name them"
        )
    if twice is not None:
        raise TaskError(f"line 1: two columns of one name: {', '.join(names)}; rename one of them")
    return names


@contextmanager
def _any_field_size(size: int) -> Iterator[None]:
    # The csv module refuses fields above 128 KiB, and only a limit for the whole process can be
    # set.
    before = csv.field_size_limit(max(size, csv.field_size_limit()))
    try:
        yield
    finally:
        csv.field_size_limit(before)


FORMS = (
    "a JSON file holds one array of objects, or one object a line (pandas: orient='records',"
    " lines=True)"
)

ABOUT = frozenset(
    {"schema", "metadata", "info", "features", "version", "date", "name", "description", "split"}
)
"""What stands beside the one table of a file and says something of it."""


def read_lines(text: str) -> list[Row]:
    """Read JSON Lines; a TaskError begins with the line that is no object."""
    # Not str.splitlines: a JSON text may hold U+2028, which that takes for the end of a line.
    lines = (
        (number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip()
    )
    return [_object(_parsed(line, f"line {n}"), f"line {n}") for n, line in lines]


def read_json(text: str) -> list[Row]:
    """Read JSON of any form that says which value stands in which column; a TaskError begins with
    where it is broken, or of another form."""
    try:
        whole = json.loads(text, object_pairs_hook=_named_once)
    except (ValueError, RecursionError):
        if text.lstrip().startswith("["):
            _parsed(text, "it")
        return read_lines(text)
    if isinstance(whole, list):
        return [_object(row, f"item {index}") for index, row in enumerate(whole)]
    if isinstance(whole, dict) and whole:
        return _of_object(whole)
    raise TaskError(f"it holds {_kind(whole)}; {FORMS}")


def _of_object(whole: dict[str, Any]) -> list[Row]:
    values = list(whole.values())
    if {"columns", "data"} <= set(whole) and all(
        isinstance(whole[key], list) for key in ("columns", "data")
    ):
        return _of_split(whole["columns"], whole["data"])
    tables = [name for name, value in whole.items() if _objects(value)]
    if len(tables) == 1 and {name.lower() for name in whole if name != tables[0]} <= ABOUT:
        return list(whole[tables[0]])
    if len(tables) == 1:
        raise TaskError(
            f"it holds one object, with {_names(whole)}: a table, or one row with a list? {FORMS}"
        )
    if len(tables) > 1:
        raise TaskError(
            f"it holds several tables: {_names(whole)}; write each to a file of its own"
        )
    if all(isinstance(value, dict) for value in values):
        return _of_nested(whole)
    if all(isinstance(value, list) for value in values):
        return _of_columns({name: dict(enumerate(value)) for name, value in whole.items()})
    return [whole]


def _of_split(columns: list[Any], data: list[Any]) -> list[Row]:
    names = _named_once([(str(name), None) for name in columns])
    if not all(isinstance(row, list) and len(row) == len(names) for row in data):
        raise TaskError(f"its data are not rows of {len(names)} values each; {FORMS}")
    return [dict(zip(names, row, strict=True)) for row in data]


def _of_nested(whole: Mapping[str, Mapping[str, Any]]) -> list[Row]:
    """Read objects in an object: whichever of the two levels is counted holds the rows."""
    inner = list(dict.fromkeys(key for value in whole.values() for key in value))
    by_columns = all(map(str.isdecimal, inner))
    by_rows = all(map(str.isdecimal, whole))
    if by_columns == by_rows:
        raise TaskError(f"it holds objects in an object ({_names(whole)}); {FORMS}")
    return [dict(row) for row in whole.values()] if by_rows else _of_columns(whole)


def _of_columns(columns: Mapping[str, Mapping[Any, Any]]) -> list[Row]:
    keys = list(next(iter(columns.values())))
    odd = next((name for name, values in columns.items() if list(values) != keys), None)
    if odd is not None:
        raise TaskError(
            f"its columns are not of one length: '{odd[:40]}' has {len(columns[odd]):,} values and "
            f"'{next(iter(columns))[:40]}' has {len(keys):,}; {FORMS}"
        )
    return [{name: values[key] for name, values in columns.items()} for key in keys]


def _objects(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(row, dict) for row in value)


def _object(value: Any, where: str) -> Row:
    if not isinstance(value, dict):
        raise TaskError(f'{where} is not an object such as {{"text": ..., "label": ...}}')
    return value


def _parsed(text: str, where: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_named_once)
    except (ValueError, RecursionError) as error:
        raise TaskError(
            f"{where} is not whole JSON ({getattr(error, 'msg', error)}); {FORMS}"
        ) from None
    except TaskError as error:
        raise TaskError(f"{where} {error}") from None


def _named_once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise TaskError(f"names '{twice[:40]}' twice in one row; rename one of the two columns")
    return found


def _names(whole: Mapping[str, Any]) -> str:
    return ", ".join(f"'{name[:40]}'" for name in list(whole)[:4]) + (
        ", ..." if len(whole) > 4 else ""
    )


def _kind(value: Any) -> str:
    return "an empty object" if value == {} else f"one {type(value).__name__}"
