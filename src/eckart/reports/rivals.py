"""A search's choice beside its free rivals, in the terminal and on the page."""

from __future__ import annotations

from typing import Any

from eckart.reports.table import Column, Table
from eckart.selection.controls import WORDS
from eckart.selection.rivals import Rival, Rivals

COLUMNS = (
    Column("rival", "rival"),
    Column("accuracy", "accuracy", "share"),
    Column("gain", "choice less it, points", "points"),
    Column("interval", "95% interval", "range"),
    Column("p_adjusted", "p, Holm", "p"),
    Column("rows", "rows", "count"),
    Column("says", "the choice"),
)
NOTE = (
    "What costs nothing, on the choice's test rows: fewer demonstrations, calibration, and both."
    " Above 0 the choice is better. That clipping helps is said only where it beats every line of"
    " this table. p is corrected for all that is free; that of the unpruned model and of the most"
    " frequent label is its own. The best of these rivals was found on these rows, and is a little"
    " worse on new ones."
)


def rivals_table(rivals: Rivals, note: str = "") -> Table:
    """Return one row a rival."""
    rows = list(map(_row, rivals.each))
    title = "Does clipping beat what costs nothing?"
    if not rivals.clipped:
        title = "Nothing is clipped: the unpruned model beside what costs nothing"
    return Table("rivals", title, note, COLUMNS, rows)


def _row(rival: Rival) -> dict[str, Any]:
    if rival.gain is None:
        return {"rival": rival.name, "says": f"not compared: {rival.error}"}
    return {
        "rival": rival.name,
        "accuracy": rival.accuracy,
        "gain": rival.gain.mean,
        "interval": rival.gain.interval,
        "p_adjusted": rival.p_adjusted,
        "rows": rival.gain.rows,
        "says": WORDS[rival.verdict],
    }
