"""A search's choice at the precisions that it may be run at, in the terminal and on the page."""

from __future__ import annotations

from typing import Any

from eckart.reports.table import Column, Table
from eckart.selection.deployed import AtPrecision, Deployed
from eckart.statistics.gain import verdict

COLUMNS = (
    Column("as", "weights"),
    Column("unpruned", "unpruned", "share"),
    Column("clipped", "clipped", "share"),
    Column("gain", "gain, points", "points"),
    Column("interval", "95% interval", "range"),
    Column("p_value", "p", "p"),
    Column("says", "verdict"),
)
DEPLOYED_NOTE = (
    "Clipped first, then quantised and dequantised, as a GGUF file of the type holds the weights;"
    " the unpruned model alike, on the same test rows. p is not corrected for the number of types."
)


def deployed_table(found: Deployed) -> Table:
    """Return one row a precision, that of the search first."""
    rows = [_row(one) for one in (found.searched, *found.each)]
    title = "Does the gain survive quantisation?"
    return Table("deployed", title, DEPLOYED_NOTE, COLUMNS, rows)


def _row(one: AtPrecision) -> dict[str, Any]:
    if one.failed:
        return {"as": one.name, "says": f"not scored: {one.failed}"}
    before, after, gain = one.unpruned.score, one.clipped.score, one.gain
    assert before is not None
    assert after is not None
    return {
        "as": one.name,
        "unpruned": before.merits[before.headline],
        "clipped": after.merits[after.headline],
        "gain": gain.mean,
        "interval": gain.interval,
        "p_value": gain.p_value,
        "says": verdict(gain),
    }
