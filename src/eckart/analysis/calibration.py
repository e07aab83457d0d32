"""Clipping beside calibrating: two remedies for a model that leans to one answer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np
from jaxtyping import Float

from eckart.analysis.findings import Choice, Findings, picked
from eckart.analysis.outcomes import Block, Picks
from eckart.statistics.crossed import Estimate, mean_gain
from eckart.statistics.scores import Score

PLAIN = ("sum", "mean", "byte", "character", "logit")
"""Scorings that correct nothing; the first of them that was run is what calibrating is compared
with."""
CALIBRATED = ("prior", "contextual", "batch")
"""Scorings that take away a model's lean to a label."""


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


def crossings(findings: Findings) -> list[Crossing]:
    """Compare clipping with calibrating, wherever a plain and a calibrated scoring were both
    run."""
    pairs = [pair for group in scorings(findings) for pair in _pairs(group)]
    found = [_compare(findings, *pair) for pair in pairs]
    return [crossing for crossing in found if crossing is not None]


def scorings(findings: Findings) -> list[list[Choice]]:
    """Return the choices that differ in nothing but the scoring, the plain scorings first, where
    several were run."""
    order = (*PLAIN, *CALIBRATED)
    several = [choice for choice in findings.choices if choice.condition.scoring in order]
    several.sort(key=lambda choice: (_bench(choice), order.index(choice.condition.scoring)))
    groups = [list(group) for _, group in groupby(several, key=_bench)]
    return [group for group in groups if len(group) > 1]


def _bench(choice: Choice) -> tuple[str, str, int, str]:
    return choice.condition.model, choice.condition.task, choice.condition.shots, choice.part


def _pairs(group: list[Choice]) -> Iterator[tuple[Choice, Choice, str]]:
    """Yield what is compared with what in a group, and what that is called."""
    plain = group[0]
    base = plain.condition.scoring
    if base not in PLAIN:
        return
    if plain.edit:
        yield _unpruned(plain), plain, f"clipping alone ({base})"
    for other in group[1:]:
        name = other.condition.scoring
        if name in PLAIN:
            continue
        yield _unpruned(plain), _unpruned(other), f"calibrating alone ({base} to {name})"
        if other.edit:
            yield _unpruned(other), other, f"clipping, once calibrated ({name})"
        if plain.edit:
            instead = f"clipping instead of calibrating ({name} to clipped {base})"
            yield _unpruned(other), plain, instead


def _unpruned(choice: Choice) -> Choice:
    """Return the choice that every seed could have made instead: to clip nothing."""
    return replace(choice, picks=dict.fromkeys(choice.picks))


def _compare(findings: Findings, before: Choice, after: Choice, title: str) -> Crossing | None:
    for split in ("test", "validation"):
        pair = _aligned(findings, before, after, split)
        gain = None if pair is None else mean_gain(pair[1] - pair[0], Score)
        if pair is None or gain is None:
            continue
        where = after.condition
        was, is_now = (float(np.nanmean(side, axis=1).mean()) for side in _common(*pair))
        return Crossing(
            where.model, where.task, where.shots, after.part, split, title, was, is_now, gain
        )
    return None


def _aligned(
    findings: Findings, before: Choice, after: Choice, split: str
) -> tuple[Float[np.ndarray, "seeds rows"], Float[np.ndarray, "seeds rows"]] | None:
    """Return two choices' outcomes on the seeds and rows that both have; None where a seed's was
    not scored."""
    seeds = sorted({*before.picks} & {*after.picks})
    first = findings.blocks.get((before.condition, split))
    second = findings.blocks.get((after.condition, split))
    if first is None or second is None or not seeds:
        return None
    pairs = [(first, before), (second, after)]
    if not all(
        (choice.picks[seed], seed) in block.trials for block, choice in pairs for seed in seeds
    ):
        return None
    ids = list(dict.fromkeys(first.ids).keys() & {*second.ids})
    was, is_now = (
        _picked(block, {seed: choice.picks[seed] for seed in seeds}, ids) for block, choice in pairs
    )
    return was, is_now


def _picked(block: Block, picks: Picks, ids: list[str]) -> Float[np.ndarray, "seeds rows"]:
    column = {name: index for index, name in enumerate(block.ids)}
    return picked(block, picks)[:, [column[name] for name in ids]]


def _common(
    before: Float[np.ndarray, "seeds rows"], after: Float[np.ndarray, "seeds rows"]
) -> tuple[Float[np.ndarray, "seeds rows"], Float[np.ndarray, "seeds rows"]]:
    """Leave out what either side did not score, and seeds with nothing left."""
    unknown = np.isnan(before) | np.isnan(after)
    kept = ~unknown.all(axis=1)
    return np.where(unknown, np.nan, before)[kept], np.where(unknown, np.nan, after)[kept]
