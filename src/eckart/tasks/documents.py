"""JSON: one object a line, an array of objects, or one of the forms of pandas'
`DataFrame.to_json`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from eckart.errors import TaskError
from eckart.tasks.tables import Row

FORMS = (
    "a JSON file holds one array of objects, or one object a line (pandas: orient='records',"
    " lines=True)"
)

ABOUT = frozenset(
    {"schema", "metadata", "info", "features", "version", "date", "name", "description", "split"}
)
"""What stands beside the one table of a file and says something of it."""


def read_lines(text: str) -> list[Row]:
    """Read JSON Lines.

    Raises:
        TaskError: a line is no object; the message begins with it.
    """
    # Not str.splitlines: a JSON text may hold U+2028, which that takes for the end of a line.
    lines = (
        (number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip()
    )
    return [_object(_parsed(line, f"line {n}"), f"line {n}") for n, line in lines]


def read_json(text: str) -> list[Row]:
    """Read JSON of any form that says which value stands in which column.

    Raises:
        TaskError: it is broken, or of another form; the message begins with where.
    """
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
    by_columns, by_rows = all(map(str.isdecimal, inner)), all(map(str.isdecimal, whole))
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
