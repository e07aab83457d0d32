"""Results as they are shown: by a terminal, and by a notebook, with tables of its own."""

from __future__ import annotations

from collections.abc import Iterator
from functools import singledispatch
from html import escape
from typing import Any

from rich.console import Group, RenderableType

from eckart.reports.results import evaluation_report, greedy_report, search_report
from eckart.reports.table import Table
from eckart.reports.terminal import Said, as_text
from eckart.scoring.evaluation import Evaluation
from eckart.selection.result import GreedyResult, SearchResult
from eckart.sweeps.result import SweepResult

WIDE = 160
"""Columns for what is no table and no sentence."""


def html(result: Any) -> str:
    """Return what a notebook shows of a result."""
    return "\n".join(_parts(report_of(result)))


@singledispatch
def report_of(result: Any) -> RenderableType:
    """Return what a terminal shows of a result."""
    return Said(str(result))


report_of.register(Evaluation, evaluation_report)
report_of.register(SearchResult, search_report)
report_of.register(GreedyResult, greedy_report)


@report_of.register
def _(result: SweepResult) -> RenderableType:
    return Group(Said(result.verdict(), "bold"), *(Said(str(line)) for line in result.lines))


def _parts(shown: RenderableType) -> Iterator[str]:
    if isinstance(shown, Table):
        yield table_html(shown)
    elif isinstance(shown, Group):
        for part in shown.renderables:
            yield from _parts(part)
    elif isinstance(shown, Said):
        text = escape(shown.text.strip()).replace("\n", "<br>")
        yield f"<p><b>{text}</b></p>" if "bold" in shown.style else f"<p>{text}</p>"
    else:
        yield f"<pre>{escape(as_text(shown, WIDE))}</pre>"


def table_html(table: Table) -> str:
    """Return a table, without the columns that hold nothing, its title above and its note below."""
    kept = [c for c in table.columns if any(map(c.text, table.rows))]
    head = "".join(f"<th>{escape(column.title)}</th>" for column in kept)
    lines = (
        "".join(
            f'<td style="text-align: {"right" if column.numeric else "left"}">'
            f"{escape(column.text(row))}</td>"
            for column in kept
        )
        for row in table.rows
    )
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    title = f"<caption>{escape(table.title)}</caption>" if table.title else ""
    note = f"<p>{escape(table.note)}</p>" if table.note else ""
    return f"<table>{title}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{note}"
