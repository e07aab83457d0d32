"""A table of separated values: which separator, which columns, which quotation marks."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from eckart.errors import TaskError

Row = dict[str, Any]
"""A row: a column's name -> its value."""

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}


@dataclass(frozen=True, eq=False)
class Table:
    """What one file holds.

    Arguments:
        rows: in the file's order.
        classes: a column -> the names of its classes, where the file gives names to the numbers in
            it.
        notes: how it was read, where that is not what its name says.
    """

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


def read_table(text: str, separator: str) -> Table:
    """Read a table whose values are separated by `separator`, or by another mark if that one makes
    no table of it.

    Raises:
        TaskError: no separator makes a table of it; the message begins with the line.
    """
    said = re.match(r"sep=(.)\r?\n", text)  # Excel's own way to name a separator
    if said:
        separator, text = said[1], text[said.end() :]
    rows, failure = _reading(text, separator)
    if rows is not None and (len(rows) == 0 or len(rows[0]) > 1):
        return Table(rows)
    others = {
        mark: found
        for mark in SEPARATORS
        if mark != separator and (found := _reading(text, mark)[0])
    }
    wide = [mark for mark, found in others.items() if len(found[0]) > 1]
    if len(wide) == 1:
        return Table(others[wide[0]], notes=(f"read as separated by {SEPARATORS[wide[0]]}",))
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
    return Table(rows)


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
