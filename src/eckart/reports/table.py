"""The table as data: what a terminal, a page, a CSV file, Markdown and JSON all show."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rich.console import Group, RenderableType

from eckart.reports.terminal import Layout, Said, printable, titled
from eckart.statistics.crossed import Estimate
from eckart.statistics.paired import PairedDifference
from eckart.statistics.scores import Outcome, Score, SquaredErrors

Row = Mapping[str, Any]


def points(value: float) -> str:
    """Write a difference of accuracies in percentage points; none where it would take an infinite
    one.

    >>> points(0.0213), points(-0.005), points(math.inf)
    ('+2.13', '-0.50', 'none')
    """
    return "none" if math.isinf(value) else f"{100 * value:+.2f}"


def p_text(value: float) -> str:
    """Write a p value.

    >>> p_text(0.0421), p_text(1e-9), p_text(1.0)
    ('0.042', '< 0.0001', '1')
    """
    return "< 0.0001" if value < 1e-4 else f"{value:.2g}"


def decimals(value: float) -> str:
    """Write three decimals, or fewer digits where there are more before the point.

    >>> decimals(0.01234), decimals(-1e-17), decimals(3684.704)
    ('0.012', '0.000', '3,685')
    """
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{round(value, 3) + 0.0:.3f}"


def _bounded(write: Callable[[float], str]) -> Callable[[Any], str]:
    """Return how a value with its interval is written: (value, low, high)."""
    return lambda triple: (
        "-" if math.isnan(triple[0]) else "{} ({} to {})".format(*map(write, triple))
    )


FORMATS: dict[str, Callable[[Any], str]] = {
    "text": str,
    "written": str,  # numbers in words of their own: never broken, as no number is
    "count": lambda value: f"{value:,}",
    "share": lambda value: f"{value:.4f}",
    "points": points,
    "p": p_text,
    "rate": lambda value: f"{value:g}",
    "number": lambda value: f"{value:.4g}",
    "digits": lambda value: f"{value:.6g}",
    "size": lambda value: f"{value:.2g}",
    "change": lambda value: f"{value:+.4g}" if value else "0",
    "decimals": decimals,
    "seconds": lambda value: f"{value:,.1f}",
    "shares": lambda pair: f"{pair[0]:.4f} to {pair[1]:.4f}",
    "range": lambda pair: f"{100 * pair[0]:+.2f} to {100 * pair[1]:+.2f}",
    "numbers": lambda pair: f"{pair[0]:.4g} to {pair[1]:.4g}",
    "changes": lambda pair: f"{pair[0]:+.4g} to {pair[1]:+.4g}",
    "estimate": _bounded(decimals),
    "difference": _bounded(lambda value: f"{value:+.3f}"),
    "gain": _bounded(points),
    "rank": _bounded(lambda value: f"{value:+.2f}"),
}
LAST = 1e300  # sorts after all else, and is a number to every reader
SEVERAL = {
    **dict.fromkeys(("shares", "range", "numbers", "changes"), ("_low", "_high")),
    **dict.fromkeys(("estimate", "difference", "gain", "rank"), ("", "_low", "_high")),
}
"""Kinds of several values, and what the columns of each are called where a machine reads."""
FORMULA = ("=", "+", "-", "@", "\t", "\r")


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Arguments:
        key: what rows call it.
        title: what readers call it.
        kind: how its values are written: a key of `FORMATS`. Those of several values become
            several columns where a machine reads.
    """

    key: str
    title: str
    kind: str = "text"

    @property
    def numeric(self) -> bool:
        """Whether its values sort as numbers."""
        return self.kind not in ("text", "written")

    def text(self, row: Row) -> str:
        """Write a row's value; nothing where it has none, and a stroke where it is not a number."""
        value = row.get(self.key)
        if value is None:
            return ""
        return "-" if value != value else FORMATS[self.kind](value)

    def sort_key(self, row: Row) -> float | str:
        """Return what a row is sorted by in this column; what has no value comes last."""
        value = row.get(self.key)
        if self.numeric:
            number = LAST if value is None else value[0] if self.kind in SEVERAL else value
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
        keys: how many columns, from the left, say what a row is of.
    """

    name: str
    title: str
    note: str
    columns: tuple[Column, ...]
    rows: Sequence[Row]
    keys: int = 1

    def to_terminal(self) -> RenderableType:
        """Return title, contents and note, fitted to the terminal: columns that hold nothing are
        left out."""
        texts = [[column.text(row) for row in self.rows] for column in self.columns]
        shown = [i for i, cells in enumerate(texts) if not cells or any(cells)]
        laid = Layout(
            headings=[printable(self.columns[i].title) for i in shown],
            cells=[[*map(printable, texts[i])] for i in shown],
            names=[self.columns[i].kind == "text" for i in shown],
            keys=sum(i < self.keys for i in shown),
        )
        parts = [laid, Said(self.note, "dim")] if self.note else [laid]
        return titled(self.title, *parts) if self.title else Group(*parts)

    def __rich__(self) -> RenderableType:
        return self.to_terminal()

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
        return [
            {column.key: finite(row.get(column.key)) for column in self.columns}
            for row in self.rows
        ]

    def to_csv(self) -> str:
        """Return the table as CSV; of an interval, `..._low` and `..._high` are two columns.

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
    return [f"{column.key}{end}" for end in SEVERAL.get(column.kind, ("",))]


def _values(column: Column, row: Row) -> list[Any]:
    value = row.get(column.key)
    if column.kind in SEVERAL:
        return list(value or [""] * len(SEVERAL[column.kind]))
    return [_inert(value) if isinstance(value, str) else "" if value is None else value]


def _inert(text: str) -> str:
    """Keep a spreadsheet from running a text as a formula."""
    return f"'{text}" if text.startswith(FORMULA) else text


def escaped(text: str) -> str:
    """Keep a text inside its cell, and from being read as markup."""
    for mark in "\\`*_[]<>|#":
        text = text.replace(mark, f"\\{mark}")
    return " ".join(text.split())


@dataclass(frozen=True)
class Units:
    """How means and gains are told.

    Arguments:
        metric: what the means are of.
        sign: 1 where a larger mean is better, -1 where a smaller one is.
        scale: what a gain is multiplied by where it is drawn.
        mean, means: kinds of columns, of a mean and of an interval of it.
        gain, gains: the same of a gain.
        column: what the title of a column of gains ends with.
        unit: of a gain, after its size; nothing where it has none.
        better: what a gain is, for a reader who meets the first one.
    """

    metric: str
    sign: int
    scale: int
    mean: str
    means: str
    gain: str
    gains: str
    column: str
    unit: str
    better: str

    def text(self, gain: float) -> str:
        return FORMATS[self.gain](gain)

    def told(self, gain: float, interval: tuple[float, float]) -> str:
        """Write a gain with its unit and interval."""
        low, high = map(self.text, interval)
        error = "" if self.unit else "error smaller by "
        return f"{error}{self.text(gain)}{self.unit} (95% interval {low} to {high})"

    @property
    def change(self) -> str:
        """What an axis of gains is called."""
        return f"change in {self.metric}{self.column}" if self.unit else self.column[2:]

    def size(self, gain: float) -> str:
        """Write a gain in a sentence, without its unit."""
        return f"{100 * gain:.1f}" if self.unit else f"{gain:.4g}"


UNITS: dict[type[Outcome], Units] = {
    Score: Units(
        metric="accuracy",
        sign=1,
        scale=100,
        mean="share",
        means="shares",
        gain="points",
        gains="range",
        column=", points",
        unit=" points",
        better="Gains are in percentage points of accuracy.",
    ),
    SquaredErrors: Units(
        metric="squared error",
        sign=-1,
        scale=1,
        mean="number",
        means="numbers",
        gain="change",
        gains="changes",
        column=", error smaller by",
        unit="",
        better=(
            "Gains are in squared error over the variance of what is asked for: smaller is better,"
            " and a gain is by how much it is smaller."
        ),
    ),
}
POINTS = UNITS[Score]
ERRORS = UNITS[SquaredErrors]
SIZES = (Column("rows", "rows", "count"), Column("seeds", "seeds", "count"))


def gain_columns(units: Units, title: str, key: str = "gain") -> tuple[Column, Column]:
    """Return the columns of a gain and its interval."""
    interval = "interval" if key == "gain" else f"{key}_interval"
    of = Column(key, f"{title}{units.column}", units.gain)
    return of, Column(interval, "95% interval", units.gains)


def gain_values(gain: Estimate | PairedDifference) -> dict[str, Any]:
    """Return the values of a gain, of its test, and of how much it was measured on."""
    sizes = {"rows": gain.rows, "seeds": gain.seeds} if isinstance(gain, Estimate) else {}
    return {"gain": gain.mean, "interval": gain.interval, "p_value": gain.p_value, **sizes}
