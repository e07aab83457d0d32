"""The looks of other runs at a run's test rows: "looked at once" holds for a run alone."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeAlias

from eckart.errors import EckartError, numbered
from eckart.records import Rows
from eckart.runs import LOOKS, RunStore, check_kind

_Text: TypeAlias = tuple[str, tuple[str, ...]]
"""A row's text, and its candidates."""
_LOOKED = """
SELECT DISTINCT json_extract(trial, '$.setting.model'), json_extract(trial, '$.edits')
FROM trials WHERE json_extract(trial, '$.rows') IN (SELECT value FROM json_each(?))
AND json_extract(trial, '$.status') = 'done'
"""


@dataclass(frozen=True)
class Looks:
    """How often other runs had scored some of a run's test rows, when it looked at them itself.

    Rows are known by their texts, so that other split sizes and seeds do not hide them; under
    another template they are not recognised.

    Arguments:
        runs: that did, of those that lie beside it.
        edits: distinct ones that they scored there, of each model; not to clip is none.
        unread: runs that could not be read: in use, damaged, or made by something else.
        rows: how many of the test rows any of them had scored; 0 in what older versions noted.
    """

    runs: int = 0
    edits: int = 0
    unread: int = 0
    rows: int = 0

    def __bool__(self) -> bool:
        return bool(self.runs or self.unread)

    def __str__(self) -> str:
        unread = f"; {self.unread:,} more could not be read" if self.unread else ""
        if not self.runs:
            return f"No other run beside this one is known to have scored its test rows{unread}."
        some = f"{self.rows:,} of them" if self.rows else "them"
        scored = numbered(self.edits, "edit") if self.edits else "the unpruned model alone"
        warned = (
            " Who goes by the best of several runs has chosen on the test rows, and its gain is too"
            " high." * bool(self.edits)
        )
        return (
            f"These test rows were looked at before: {numbered(self.runs, 'run')} beside this one"
            f" scored {scored} on {some}{unread}.{warned}"
        )


def looks_before(store: RunStore, rows: Iterable[Rows], looked: bool) -> Looks:
    """Return how many other runs had scored these rows before a run did, and note it; see
    `looks_by_now`."""
    found = looks_by_now(store, rows, looked)
    if not looked and (found or store.note(LOOKS)):
        store.keep_note(LOOKS, asdict(found))
    return found


def looks_by_now(store: RunStore, rows: Iterable[Rows], looked: bool) -> Looks:
    """Return how many other runs had scored these rows before a run did, or have by now.

    Arguments:
        store: the run's; the others are in the folders beside its own.
        rows: of the run's test splits.
        looked: whether it has scored them already: then it is what was noted before.
    """
    if looked:
        return Looks(**(store.note(LOOKS) or {}))
    return _count(store.folder.resolve(), _texts_of(rows))


def _count(own: Path, texts: set[_Text]) -> Looks:
    found: set[tuple[str, str]] = set()
    shared: set[_Text] = set()
    runs = unread = 0
    for path in sorted(own.parent.glob("*/run.sqlite")):
        if path.parent.resolve() == own:
            continue
        try:
            looked, on = _looked(path.resolve(), texts)
        except (EckartError, sqlite3.Error, ValueError, KeyError, TypeError):
            unread += 1
            continue
        runs += bool(looked)
        found |= looked
        shared |= on if looked else set()
    return Looks(runs, sum(edits != "[]" for _, edits in found), unread, len(shared))


def _looked(path: Path, texts: set[_Text]) -> tuple[set[tuple[str, str]], set[_Text]]:
    """Return the models and edits that a run scored on any of these rows, and which these are,
    without waiting for it or changing anything."""
    # A journal that a killed process left is played back by whoever may write, which is not us.
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=0)) as database:
        check_kind(database, path.parent)
        splits = database.execute("SELECT digest, rows FROM rows")
        shared = {digest: own for digest, rows in splits if (own := texts & _read(rows))}
        looked = set(database.execute(_LOOKED, [json.dumps(list(shared))]))
        return looked, set().union(*shared.values())


def _read(rows: str) -> set[_Text]:
    return _texts_of([Rows.from_json(json.loads(rows))])


def _texts_of(rows: Iterable[Rows]) -> set[_Text]:
    return {(row.text, row.choices) for split in rows for row in split.rows}
