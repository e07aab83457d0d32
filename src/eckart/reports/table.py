"""Tables as data: what a page, a CSV file, Markdown and JSON all show."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

Row = Mapping[str, Any]


def points(value: float) -> str:
    """Write a difference of accuracies in percentage points.

    >>> points(0.0213), points(-0.005)
    ('+2.13', '-0.50')
    """
    return f"{100 * value:+.2f}"


def p_text(value: float) -> str:
    """Write a p value.

    >>> p_text(0.0421), p_text(1e-9), p_text(1.0)
    ('0.042', '< 0.0001', '1')
    """
    return "< 0.0001" if value < 1e-4 else f"{value:.2g}"


FORMATS: dict[str, Callable[[Any], str]] = {
    "text": str,
    "count": lambda value: f"{value:,}",
    "share": lambda value: f"{value:.4f}",
    "points": points,
    "p": p_text,
    "rate": lambda value: f"{value:g}",
    "number": lambda value: f"{value:.4g}",
    "seconds": lambda value: f"{value:,.1f}",
    "shares": lambda pair: f"{pair[0]:.4f} to {pair[1]:.4f}",
    "range": lambda pair: f"{100 * pair[0]:+.2f} to {100 * pair[1]:+.2f}",
    "change": lambda value: f"{value:+.4g}",
    "numbers": lambda pair: f"{pair[0]:.4g} to {pair[1]:.4g}",
    "changes": lambda pair: f"{pair[0]:+.4g} to {pair[1]:+.4g}",
}
LAST = 1e300  # sorts after all else, and is a number to every reader
PAIRS = ("shares", "range", "numbers", "changes")
FORMULA = ("=", "+", "-", "@", "\t", "\r")


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Arguments:
        key: what rows call it.
        title: what readers call it.
        kind: how its values are written: a key of `FORMATS`. Pairs become two columns where a
            machine reads.
    """

    key: str
    title: str
    kind: str = "text"

    @property
    def numeric(self) -> bool:
        """Whether its values sort as numbers."""
        return self.kind != "text"

    def text(self, row: Row) -> str:
        """Write a row's value; nothing where it has none."""
        value = row.get(self.key)
        return "" if value is None else FORMATS[self.kind](value)

    def sort_key(self, row: Row) -> float | str:
        """Return what a row is sorted by in this column; what has no value comes last."""
        value = row.get(self.key)
        if self.numeric:
            number = LAST if value is None else value[0] if self.kind in PAIRS else value
            return max(-LAST, min(LAST, float(number)))
        return "" if value is None else str(value)


@dataclass(frozen=True)
class Table:
    """A table as data.

    Arguments:
        name: a file-safe name.
        title, note: the question that it answers, or what it shows, and what a reader should know
            about it.
        columns, rows: its contents; values are plain, fractions are in [0, 1].
    """

    name: str
    title: str
    note: str
    columns: tuple[Column, ...]
    rows: Sequence[Row]

    def narrow(self, kept: Sequence[str] = ()) -> Table:
        """Leave out the text columns in which all rows agree, and those that hold nothing; a blank
        is no agreement."""
        varying = tuple(
            column for column in self.columns if column.key in kept or self._tells(column)
        )
        return replace(self, columns=varying)

    def _tells(self, column: Column) -> bool:
        texts = {column.text(row) for row in self.rows}
        return len(texts) > 1 or (column.numeric and texts != {""})

    def to_json(self) -> list[dict[str, Any]]:
        """Return one object a row."""
        return [
            {column.key: finite(row.get(column.key)) for column in self.columns}
            for row in self.rows
        ]

    def to_csv(self) -> str:
        """Return the table as CSV; a pair is two columns, `..._low` and `..._high`.

        A text that a spreadsheet would run as a formula gets a leading `'`.
        """
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(name for column in self.columns for name in _names(column))
        writer.writerows(
            [value for column in self.columns for value in _values(column, row)]
            for row in self.rows
        )
        return text.getvalue()

    def to_markdown(self, most: int) -> str:
        """Return the first rows as a Markdown table, and how many there are."""
        shown = self.narrow()
        lines = [
            "| " + " | ".join(escaped(column.title) for column in shown.columns) + " |",
            "|"
            + "|".join(" ---: " if column.numeric else " --- " for column in shown.columns)
            + "|",
            *(
                "| " + " | ".join(escaped(column.text(row)) for column in shown.columns) + " |"
                for row in shown.rows[:most]
            ),
        ]
        return "\n".join(lines)


def finite(value: Any) -> Any:
    """Return a value that JSON has: NaN and infinities become null."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return [finite(item) for item in value] if isinstance(value, list | tuple) else value


def _names(column: Column) -> list[str]:
    return [f"{column.key}_low", f"{column.key}_high"] if column.kind in PAIRS else [column.key]


def _values(column: Column, row: Row) -> list[Any]:
    value = row.get(column.key)
    if column.kind in PAIRS:
        return list(value or ("", ""))
    return [_inert(value) if isinstance(value, str) else "" if value is None else value]


def _inert(text: str) -> str:
    """Keep a spreadsheet from running a text as a formula."""
    return f"'{text}" if text.startswith(FORMULA) else text


def escaped(text: str) -> str:
    """Keep a text inside its cell, and from being read as markup."""
    for mark in "\\`*_[]<>|#":
        text = text.replace(mark, f"\\{mark}")
    return " ".join(text.split())
