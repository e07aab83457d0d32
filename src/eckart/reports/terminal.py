"""The terminal's layout: tables and sentences that fit its width, with no number ever cut."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal
from unicodedata import bidirectional, category

from rich import box
from rich.cells import cell_len
from rich.columns import Columns
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

UNBROKEN = 24
"""A word of a heading or a name is never broken up to this many characters, however narrow the
terminal is."""

TURNING = ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")
"""What Unicode calls the characters that turn the direction of those after them."""

WIDE, CLOSE = 3, 2
"""Spaces between columns: where there is room, and where there is not."""


@dataclass(frozen=True)
class Layout:
    """How a `eckart.reports.table.Table` is laid out: names and headings wrap, numbers stay whole.

    Where the width does not do, columns stand closer, then headings wrap, then names; where that
    does not do either, the columns go into several tables, one below the other, each with the first
    columns. Nothing is left out.

    Arguments:
        headings: of the columns.
        cells: those of each column.
        names: for each column, whether it holds names, which may wrap; the others hold numbers.
        keys: how many columns, from the left, say what a row is of, and stand in every table.
    """

    headings: Sequence[str]
    cells: Sequence[Sequence[str]]
    names: Sequence[bool]
    keys: int = 1

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for columns in self._pieces(options.max_width):
            yield self._drawn(columns, options.max_width)

    def _pieces(self, room: int) -> list[list[int]]:
        """Return each table's columns: all of them where they fit, else as many as fit beside the
        keys."""
        keys = list(range(self.keys))
        pieces: list[list[int]] = []
        for column in range(self.keys, len(self.headings)):
            if pieces and self._fit([*pieces[-1], column], room):
                pieces[-1].append(column)
            else:
                pieces.append([*keys, column])
        return pieces or [keys]

    def _fit(self, columns: list[int], room: int) -> tuple[int, list[int]] | None:
        """Return the gap and the widths with which columns fit into the room; None where they do
        not."""
        whole = [self._whole(column) for column in columns]
        wrapped = [
            width if self.names[column] else self._least(column)
            for column, width in zip(columns, whole, strict=True)
        ]
        for gap, widths in ((WIDE, whole), (CLOSE, whole), (CLOSE, wrapped)):
            if _total(gap, widths) <= room:
                return gap, widths
        least = [self._least(column) for column in columns]
        spare = room - _total(CLOSE, least)
        return None if spare < 0 else (CLOSE, _shared(least, wrapped, spare))

    def _drawn(self, columns: list[int], room: int) -> Table:
        least = [self._least(column) for column in columns]
        gap, widths = self._fit(columns, room) or (CLOSE, least)
        padding = (0, 1) if gap == WIDE else (0, 1, 0, 0)
        table = Table(
            box=box.SIMPLE_HEAD, width=_total(gap, widths), padding=padding, pad_edge=gap == WIDE
        )
        for column, width in zip(columns, widths, strict=True):
            side: Literal["left", "right"] = "left" if self.names[column] else "right"
            heading = Text(self.headings[column])
            table.add_column(heading, width=width, justify=side, overflow="fold")
        for row in zip(*(self.cells[column] for column in columns), strict=True):
            table.add_row(*map(Text, row))
        return table

    def _whole(self, column: int) -> int:
        """Return the width with which nothing in a column wraps."""
        return max(map(cell_len, (self.headings[column], *self.cells[column])))

    def _least(self, column: int) -> int:
        """Return the width below which a number, or a word that is not too long, would be cut."""
        cells = self.cells[column]
        words = self.headings[column].split()
        if self.names[column]:
            words += " ".join(cells).split()
        short = [min(cell_len(word), UNBROKEN) for word in words]
        numbers = [] if self.names[column] else [cell_len(cell) for cell in cells]
        return max([1, *short, *numbers])


@dataclass(frozen=True)
class Said:
    """Sentences, broken between words alone: a name or a path is never cut, and stays whole for who
    copies it.

    Arguments:
        text: lines of their own are kept.
        style: of rich.
        hang: by how many spaces what follows a break is moved in.
    """

    text: str
    style: str = ""
    hang: int = 0

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        lines = printable(self.text).split("\n")
        if not options.no_wrap:
            lines = [self._broken(line, options.max_width) for line in lines]
        yield Text("\n".join(lines), style=self.style, no_wrap=True, overflow="ignore")

    def _broken(self, line: str, width: int) -> str:
        indent = " " * (len(line) - len(line.lstrip()) + self.hang)
        return textwrap.fill(
            line, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
        )


def titled(title: str, *parts: RenderableType) -> RenderableType:
    """Put a title over tables; rich's own would be as narrow as its table."""
    return Group(Said(title, "bold"), *parts)


def listed(entries: Sequence[str]) -> RenderableType:
    """Return short entries side by side, as many in a line as fit."""
    return Padding(
        Columns(map(Text, entries), padding=(0, 2), equal=True, align="right"), (1, 0, 1, 2)
    )


def print_on(console: Console, what: RenderableType) -> None:
    """Print on a console, sentences fitted to a terminal and left in one line each for anything
    else."""
    shown = Said(what) if isinstance(what, str) else what
    console.print(shown, highlight=False, soft_wrap=not console.is_terminal, crop=False)


def _total(gap: int, widths: Sequence[int]) -> int:
    """Return a table's width: with the edges that are drawn at that gap."""
    return sum(widths) + gap * (len(widths) - 1) + (4 if gap == WIDE else 2)


def _shared(least: Sequence[int], wanted: Sequence[int], spare: int) -> list[int]:
    """Return widths between the least and the wanted ones, the last columns served first."""
    widths = list(least)
    for i in reversed(range(len(widths))):
        more = min(spare, wanted[i] - widths[i])
        widths[i] += more
        spare -= more
    return widths


def as_text(what: RenderableType, width: int = 80) -> str:
    """Return what a terminal of a width shows, as plain text."""
    file = io.StringIO()
    # In a notebook rich would show it at once, in a cell's output of its own.
    console = Console(file=file, width=width, markup=False, emoji=False, force_jupyter=False)
    console.print(what, highlight=False, crop=False)
    return "".join(f"{line.rstrip()}\n" for line in file.getvalue().splitlines())


def printable(text: str) -> str:
    """Spell out a text's control characters but line breaks, and those that turn its direction:
    data does not steer a terminal.

    >>> printable("\\x1b[31mred\\x07"), printable("a\\u202eb"), printable("caf\\u00e9")
    ('\\\\x1b[31mred\\\\x07', 'a\\\\u202eb', 'caf\u00e9')
    """
    return "".join(repr(c)[1:-1] if _steers(c) else c for c in text)


def _steers(c: str) -> bool:
    return c != "\n" and (category(c) in ("Cc", "Cs", "Zl", "Zp") or bidirectional(c) in TURNING)


def utf8(text: str) -> bytes:
    """Return a text as UTF-8; what a path holds that is none is spelled out.

    >>> utf8("caf\\udce9 \\u00e9")
    b'caf\\\\udce9 \\xc3\\xa9'
    """
    return text.encode(errors="backslashreplace")
