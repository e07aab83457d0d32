"""The agreement of a predictor's ranks with those of measured gains: over all edits of a task, and
among layers alone."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.stats import rankdata

from eckart.errors import EckartError
from eckart.paper.prediction.predictors import Predictor, corrected
from eckart.paper.prediction.probing import PredictedCell
from eckart.statistics.grids import Correlation, rank_correlation

STRATA: dict[str, Callable[[PredictedCell], Hashable]] = {
    "all": lambda cell: (cell.run, cell.condition),
    "layers": lambda cell: (cell.run, cell.condition, cell.edit.part, cell.edit.rate),
}
"""Among which cells ranks are taken: all of a condition, or those that differ in their layer
alone."""


@dataclass(frozen=True)
class Agreement:
    """How well a predictor ranks cells.

    Arguments:
        predictor: which; its correlation is above 0 where it ranks in the direction that is claimed
            for it.
        split: whose gains.
        among: a key of `STRATA`.
        cells, groups: how many cells and groups (models and tasks) there were to rank.
        rank: the correlation; None where the predictor is the same for all, or not defined for one.
        p_holm: its p value, adjusted for all of the theory's predictors; a baseline's own.
    """

    predictor: Predictor
    split: str
    among: str
    cells: int
    groups: int
    rank: Correlation | None
    p_holm: float | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            "predictor": self.predictor.name,
            "claimed_sign": self.predictor.sign,
            "theory": self.predictor.theory,
            "split": self.split,
            "among": self.among,
            "cells": self.cells,
            "groups": self.groups,
            "correlation": self.rank and self.rank.value,
            "interval": self.rank and list(self.rank.interval),
            "p_value": self.rank and self.rank.p_value,
            "p_holm": self.p_holm,
        }


def agreements(
    cells: Sequence[PredictedCell], predictors: Sequence[Predictor], split: str
) -> list[Agreement]:
    """Return every predictor's rank correlations with the gains on a split, of the cells that have
    one.

    Ranks are taken among the cells of a stratum, about their mean and as shares of how many they
    are, so that nothing of what differs between models, tasks and runs is left in them; then over
    all strata Spearman's correlation, with the interval for new groups of `rank_correlation`.
    """
    scored = [cell for cell in cells if split in cell.gains]
    return [
        agreement
        for among in STRATA
        for agreement in _adjusted([_agreement(scored, p, split, among) for p in predictors])
    ]


def within(
    values: Sequence[float] | Float[np.ndarray, " cells"], strata: Sequence[Hashable]
) -> Float[np.ndarray, " cells"]:
    """Return each value's rank among those of its stratum, about their mean, as a share of their
    number.

    >>> within([3.0, 1.0, 2.0, 70.0, 50.0], list("aaabb")).round(2).tolist()
    [0.33, -0.33, 0.0, 0.25, -0.25]
    """
    members: dict[Hashable, list[int]] = defaultdict(list)
    for place, stratum in enumerate(strata):
        members[stratum].append(place)
    ranks = np.zeros(len(values))
    for places in members.values():
        ranks[places] = (rankdata(np.asarray(values)[places]) - (len(places) + 1) / 2) / len(places)
    return ranks


def _agreement(
    scored: Sequence[PredictedCell], predictor: Predictor, split: str, among: str
) -> Agreement:
    sizes = Counter(map(STRATA[among], scored))
    kept = [cell for cell in scored if sizes[STRATA[among](cell)] > 1]
    groups = [cell.group for cell in kept]
    said = [predictor.sign * cell.said[predictor.name] for cell in kept]
    empty = Agreement(predictor, split, among, len(kept), len({*groups}), None)
    if np.isnan(said).any():
        return empty
    strata = list(map(STRATA[among], kept))
    x, y = within(said, strata), within([cell.gains[split] for cell in kept], strata)
    try:
        return replace(empty, rank=rank_correlation(x, y, groups))
    except EckartError:  # alike in all cells, or in those of all groups but one: no order
        return empty


def _adjusted(found: Sequence[Agreement]) -> list[Agreement]:
    known = {a.predictor: a.rank.p_value for a in found if a.rank}
    p = corrected(known, [predictor for predictor in known if predictor.theory])
    return [replace(a, p_holm=p.get(a.predictor)) for a in found]
