"""Clipping beside calibration: two remedies for a model that leans to one answer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from jaxtyping import Float

from eckart.inference import Estimate
from eckart.records import Edit
from eckart.reports.blocks import Block
from eckart.reports.findings import Choice, Findings
from eckart.reports.measured import mean_gain

PLAIN = ("sum", "mean", "byte")
"""Scorings that correct nothing; every other one calibrates."""


@dataclass(frozen=True)
class Crossing:
    """Two ways of answering the same rows under the same demonstrations.

    Arguments:
        model, task, shots, part, split: where.
        comparison: what is compared, in words.
        before, after: accuracies on the rows that both scored, means over seeds.
        gain: of the second over the first.
    """

    model: str
    task: str
    shots: int
    part: str
    split: str
    comparison: str
    before: float
    after: float
    gain: Estimate


def crossings(found: Findings) -> list[Crossing]:
    """Compare clipping with calibrating, wherever a plain and a calibrated scoring were both run."""
    return [crossing for group in scorings(found) for crossing in _of_group(found, group)]


def scorings(found: Findings) -> list[list[Choice]]:
    """Return the choices that differ in nothing but the scoring, the plain scorings first, where several were run."""
    ordered = sorted(
        found.choices, key=lambda choice: (_bench(choice), choice.condition.scoring not in PLAIN)
    )
    groups = [list(group) for _, group in groupby(ordered, key=_bench)]
    return [group for group in groups if len(group) > 1]


def _bench(choice: Choice) -> tuple[str, str, int, str]:
    return choice.condition.model, choice.condition.task, choice.condition.shots, choice.part


def _of_group(found: Findings, group: list[Choice]) -> Iterator[Crossing]:
    plain = group[0]
    if plain.condition.scoring not in PLAIN:
        return
    base = plain.condition.scoring
    if plain.edit:
        yield from _compare(found, (plain, None), (plain, plain.edit), f"clipping alone ({base})")
    for other in group[1:]:
        name = other.condition.scoring
        if name in PLAIN:
            continue
        yield from _compare(found, (plain, None), (other, None), f"calibrating alone ({base} to {name})")
        if other.edit:
            yield from _compare(
                found, (other, None), (other, other.edit), f"clipping, once calibrated ({name})"
            )
        if plain.edit:
            title = f"clipping instead of calibrating ({name} to clipped {base})"
            yield from _compare(found, (other, None), (plain, plain.edit), title)


def _compare(
    found: Findings, before: tuple[Choice, Edit | None], after: tuple[Choice, Edit | None], title: str
) -> Iterator[Crossing]:
    for split in ("test", "validation"):
        first, second = (found.blocks.get((choice.condition, split)) for choice, _ in (before, after))
        if first is None or second is None:
            continue
        pair = _aligned(first, before[1], second, after[1])
        gain = None if pair is None else mean_gain(pair[1] - pair[0])
        if pair is None or gain is None:
            continue
        where = after[0].condition
        was, is_now = (float(np.nanmean(side, axis=1).mean()) for side in _common(*pair))
        yield Crossing(where.model, where.task, where.shots, after[0].part, split, title, was, is_now, gain)
        return


def _aligned(
    first: Block, one: Edit | None, second: Block, other: Edit | None
) -> tuple[Float[np.ndarray, "seeds rows"], Float[np.ndarray, "seeds rows"]] | None:
    """Return two edits' outcomes, in two conditions, on the seeds and rows that both have."""
    if (one is not None and one not in first.edits) or (other is not None and other not in second.edits):
        return None
    seeds = sorted({*first.seeds} & {*second.seeds})
    ids = list(dict.fromkeys(first.ids).keys() & {*second.ids})
    if not seeds or not ids:
        return None
    return _picked(first, one, seeds, ids), _picked(second, other, seeds, ids)


def _picked(
    block: Block, edit: Edit | None, seeds: list[int], ids: list[str]
) -> Float[np.ndarray, "seeds rows"]:
    column = {name: index for index, name in enumerate(block.ids)}
    return block.outcomes(edit)[
        np.ix_([block.seeds.index(seed) for seed in seeds], [column[name] for name in ids])
    ]


def _common(
    before: Float[np.ndarray, "seeds rows"], after: Float[np.ndarray, "seeds rows"]
) -> tuple[Float[np.ndarray, "seeds rows"], Float[np.ndarray, "seeds rows"]]:
    """Leave out what either side did not score, and seeds with nothing left."""
    unknown = np.isnan(before) | np.isnan(after)
    kept = ~unknown.all(axis=1)
    return np.where(unknown, np.nan, before)[kept], np.where(unknown, np.nan, after)[kept]
