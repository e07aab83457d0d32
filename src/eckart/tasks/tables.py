"""Tables as text: separated values, and JSON in each of the forms that pandas writes."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain, islice
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


Lines = Callable[[], Iterable[str]]
"""Opens a text anew: its lines, each with the line break that it ends in."""

RECORDS = 1024
"""Lines that are split at a time."""


@dataclass(frozen=True)
class _Dialect:
    separator: str
    quoting: Any = csv.QUOTE_MINIMAL
    skip_spaces: bool = False

    def records(self, lines: Iterable[str]) -> Iterator[tuple[int, list[str]]]:
        """Yield the fields of every line that holds any, and its number."""
        reader = csv.reader(
            lines,
            delimiter=self.separator,
            quoting=self.quoting,
            skipinitialspace=self.skip_spaces,
            strict=True,
        )
        while True:
            try:
                with _any_field_size():
                    found = [(reader.line_num, fields) for fields in islice(reader, RECORDS)]
            except csv.Error as error:
                raise TaskError(f"line {reader.line_num}: {error}") from None
            if not found:
                return
            yield from (record for record in found if record[1])


@dataclass(frozen=True, eq=False)
class Separated:
    """A text of separated values, whose rows are read as they are asked for.

    Arguments:
        lines: opens it.
        head: what its first line says, of as many columns as have a name, or a value.
        kept: which of these they are.
        size: the number of rows.
        marks: whether a value holds the quotation marks that stood around it.
        notes: how it is read, where that is not what its name says.
    """

    lines: Lines
    dialect: _Dialect
    head: tuple[str, ...] = ()
    kept: tuple[int, ...] = ()
    size: int = 0
    marks: bool = False
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, lines: Lines, dialect: _Dialect) -> Separated:
        """Look through a text once; a TaskError, which begins with the line, where it is no
        table."""
        records = dialect.records(lines())
        first = next(records, None)
        if first is None:
            return cls(lines, dialect)
        head = [name.strip() for name in first[1]]
        # A spreadsheet writes the empty columns to the right of a table as columns without a name.
        width = max((place for place, name in enumerate(head, start=1) if name), default=0)
        held = [bool(name) for name in head[:width]]
        nameless = [place for place in range(width) if not head[place]]
        size, marks = 0, False
        for line, fields in records:
            cells = _cells(fields, head, width, line)
            size += 1
            marks = marks or any(c[:1] == " " and c.lstrip()[:1] == '"' for c in cells)
            for place in nameless:
                held[place] = held[place] or bool(cells[place].strip())
        kept = tuple(place for place in range(width) if held[place])
        _unique([head[place] for place in kept])
        return cls(lines, dialect, tuple(head), kept, size, marks)

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the columns."""
        return tuple(self.head[place] for place in self.kept)

    def __iter__(self) -> Iterator[Row]:
        names, width = self.columns, max(self.kept, default=-1) + 1
        for line, fields in islice(self.dialect.records(self.lines()), 1, None):
            cells = _cells(fields, self.head, width, line)
            yield dict(zip(names, (cells[place] for place in self.kept), strict=True))


def read_table(text: str, separator: str) -> FileTable:
    """Read a table whose values are separated by `separator`; see `open_table`."""
    table = open_table(lambda: io.StringIO(text, newline=""), separator)
    return FileTable(list(table), notes=table.notes)


def open_table(lines: Lines, separator: str) -> Separated:
    """Look through a table whose values are separated by `separator`, or by another mark if that
    one makes no table of it. A TaskError, if none does, begins with the line."""
    first = next(iter(lines()), "")
    said = re.match(r"sep=(.)\r?\n", first)  # Excel's own way to name a separator
    if said:
        whole = lines

        def lines() -> Iterable[str]:
            return islice(whole(), 1, None)

        separator, first = said[1], next(iter(lines()), "")
    table, failure = _reading(lines, separator)
    if table is not None and (not table.size or len(table.kept) > 1):
        return table
    others = {
        mark: found
        for mark in SEPARATORS
        if mark != separator and (found := _reading(lines, mark)[0]) and found.size
    }
    wide = [mark for mark, found in others.items() if len(found.kept) > 1]
    if len(wide) == 1:
        return replace(others[wide[0]], notes=(f"read as separated by {SEPARATORS[wide[0]]}",))
    if len(wide) > 1:
        marks = " or ".join(SEPARATORS[mark] for mark in wide)
        raise TaskError(
            f"line 1 can be separated by {marks}; separate the columns by commas (pandas: sep=',')"
        )
    other = next((mark for mark in SEPARATORS if mark in first and separator not in first), None)
    if other is not None:
        _, failure = _reading(lines, other)
        raise TaskError(f"{failure} (the first line is separated by {SEPARATORS[other]})")
    if table is None:
        raise failure
    return table


def passing_table(first: str, rest: Iterable[str], needed: Collection[str]) -> Separated | None:
    """Return the table whose first line names these columns, read but once, as it passes by; None
    where the line does not name them."""
    for mark in SEPARATORS:
        dialect = _Dialect(mark)
        names = [name.strip() for _, fields in dialect.records([first]) for name in fields]
        if set(needed) <= set(names):
            _unique(names)
            passing = partial(chain, [first], rest)
            return Separated(passing, dialect, tuple(names), tuple(range(len(names))))
    return None


def _reading(lines: Lines, separator: str) -> tuple[Separated | None, TaskError]:
    """Return the table, or why there is none, under the custom of quoting that makes most sense of
    the text."""
    # Two customs share a name where tabs separate: quoted as in CSV, and not quoted at all, where a
    # lone quotation mark is text. Read as quoted, a file of the second custom does not come out
    # even, or runs lines together into one row.
    customs = [_Dialect(separator)]
    if separator == "\t":
        customs.append(_Dialect(separator, csv.QUOTE_NONE))
    found: list[Separated] = []
    failure = TaskError("line 1: no table")
    for custom in customs:
        try:
            found.append(Separated.of(lines, custom))
        except TaskError as error:
            failure = error
    best = max(found, key=lambda table: table.size) if found else None
    spaced = re.compile(rf'{re.escape(separator)}[ ]+"')
    if (best is None or best.marks) and any(map(spaced.search, lines())):
        # `"text", "label"`: after a space, a quotation mark is no quotation to the csv module, and
        # would be kept.
        with suppress(TaskError):
            best = Separated.of(lines, _Dialect(separator, skip_spaces=True))
    return best, failure


def _cells(fields: list[str], head: Sequence[str], width: int, line: int) -> list[str]:
    """Return a line's values under the columns with names."""
    fits = len(fields) == len(head) or width <= len(fields) < len(head)
    if not fits or any(field.strip() for field in fields[width:]):
        raise TaskError(
            f"line {line}: {len(fields)} fields, where the first line has {width}"
            f"{' with a name' if width < len(head) else ''}; unquoted text?"
        )
    if width > 1 and [field.strip("\ufeff \t") for field in fields[:width]] == [*head[:width]]:
        raise TaskError(
            f"line {line}: repeats the first line; where tables were put together, take it out"
        )
    return fields[:width]


def _unique(names: list[str]) -> None:
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice == "":
        raise TaskError(
            f"line 1: several columns with values have no name: {', '.join(names)}; name them"
        )
    if twice is not None:
        raise TaskError(f"line 1: two columns of one name: {', '.join(names)}; rename one of them")


@contextmanager
def _any_field_size() -> Iterator[None]:
    # The csv module refuses fields above 128 KiB, and only a limit for the whole process can be
    # set.
    before = csv.field_size_limit(2**31 - 1)
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
    return list(rows_of_lines(text.split("\n")))


def rows_of_lines(lines: Iterable[str]) -> Iterator[Row]:
    """Yield the object of every line that is not empty; see `read_lines`."""
    for number, line in enumerate(lines, start=1):
        if line.strip():
            yield _object(_parsed(line, f"line {number}"), f"line {number}")


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
