"""The order that a screen put places in, for a page and for a terminal."""

from __future__ import annotations

from rich.console import RenderableType

from eckart.reports.table import Column, Table
from eckart.reports.terminal import listed, titled
from eckart.runs import Run
from eckart.selection.order import Order

COLUMNS = (
    Column("rank", "", "count"),
    Column("layer", "layer", "count"),
    Column("part", "part"),
    Column("score", "score", "number"),
)


def screen_of(run: Run) -> Order | None:
    """Return the order that a run's screen put places in, where it asked one."""
    return Order.from_json(run.screen) if run.screen else None


def screen_table(order: Order) -> Table:
    """Return one row a place."""
    rows = [
        {"rank": rank, "layer": place.layer, "part": place.part, "score": score}
        for rank, (place, score) in enumerate(order.scores.items(), 1)
    ]
    return Table("screen", f"Where to clip: screen {order.name}", f"By {order.by}.", COLUMNS, rows)


def screen_list(order: Order) -> RenderableType:
    """Return the places and their scores for a terminal, the first marked."""
    entries = [
        f"{'*' * (place == order.first)}{place.layer}:{place.part}"
        + ("" if score is None else f" {score:.4g}")
        for place, score in order.scores.items()
    ]
    return titled(f"screen {order.name}, * first ({order.by})", listed(entries))
