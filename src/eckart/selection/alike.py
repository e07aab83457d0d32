"""Rates that are one edit: those that leave the same rank of every matrix are tried once, and count
once."""

from __future__ import annotations

from collections.abc import Iterable

from eckart.errors import EditError
from eckart.records import Edit
from eckart.weights.anatomy import Anatomy
from eckart.weights.linalg import rank_at


def apart(anatomy: Anatomy, edits: Iterable[Edit]) -> list[Edit]:
    """Return edits that leave different models: of those that leave the same the first."""
    return [first for first, *_ in _groups(anatomy, edits)]


def alike_rates(anatomy: Anatomy, edits: Iterable[Edit]) -> list[str]:
    """Say which rates were tried once for all, a sentence for each part and group of rates."""
    said = []
    for first, *same in _groups(anatomy, edits):
        *rates, last = (f"{edit.rate:g}" for edit in (first, *same))
        if rates:
            said.append(
                f"rates {', '.join(rates)} and {last} leave the same rank of every matrix of"
                f" {first.part}: they are one edit, tried and counted once, as {first.rate:g}"
            )
    return list(dict.fromkeys(said))


def _groups(anatomy: Anatomy, edits: Iterable[Edit]) -> Iterable[list[Edit]]:
    groups: dict[object, list[Edit]] = {}
    for edit in edits:
        groups.setdefault((edit.layer, edit.part, _left(anatomy, edit)), []).append(edit)
    return groups.values()


def _left(anatomy: Anatomy, edit: Edit) -> object:
    """Return what an edit leaves: ranks; or, where the layer has no such part, itself, for its
    trial to say so."""
    try:
        weights = anatomy.select(edit.layer, edit.part)
    except EditError:
        return edit
    return tuple(rank_at(edit.rate, weight.shape) for weight in weights)
