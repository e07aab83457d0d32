"""The best of many: adjusted p values, and what the cell that looks best gains on rows that did not
choose it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.stats import false_discovery_control

from eckart.errors import EckartError
from eckart.statistics.crossed import Estimate, crossed_moments, estimate_from, moments

FOLDS = 5
"""Into how many folds rows are cut where some choose and others judge; docs/log.md says why not
ten."""


def holm(p_values: Sequence[float] | Float[np.ndarray, " tests"]) -> Float[np.ndarray, " tests"]:
    """Return p values adjusted by Holm (1979, Scand. J. Stat. 6, 65-70), in the order given.

    Calling what is at most alpha a finding makes even one false finding with probability at most
    alpha, whatever the tests' dependence.

    Raises:
        EckartError: a p value is NaN or outside [0, 1].

    >>> holm([0.04, 0.01, 0.03]).tolist()
    [0.06, 0.03, 0.06]
    """
    p = _checked(p_values)
    order = np.argsort(p, kind="stable")
    adjusted = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    return np.minimum(adjusted, 1.0)[np.argsort(order, kind="stable")]


def holm_of_known(p_values: Sequence[float | None]) -> list[float]:
    """Return the same of the tests that there are, and 1 for what could not be tested.

    >>> holm_of_known([0.04, None, 0.01])
    [0.04, 1.0, 0.02]
    """
    adjusted = iter(holm([p for p in p_values if p is not None]).tolist())
    return [1.0 if p is None else next(adjusted) for p in p_values]


def false_discovery(
    p_values: Sequence[float] | Float[np.ndarray, " tests"],
) -> Float[np.ndarray, " tests"]:
    """Return p values adjusted by Benjamini and Hochberg (1995, J. R. Stat. Soc. B 57, 289-300), in
    the order given.

    Calling what is at most alpha a finding makes false ones an expected share of at most alpha of
    all findings, for tests that are independent or positively dependent, as cells that share rows
    and a baseline are.

    Raises:
        EckartError: a p value is NaN or outside [0, 1].

    >>> false_discovery([0.04, 0.01, 0.03]).tolist()
    [0.04, 0.03, 0.04]
    """
    p = _checked(p_values)
    return np.asarray(false_discovery_control(p), dtype=np.float64) if len(p) else p


@dataclass(frozen=True)
class SelectedGain:
    """What the cell that looks best is worth.

    Arguments:
        cell: index of the cell with the largest mean gain; None where none is above 0, and unpruned
            is chosen.
        naive: its mean gain on the rows that chose it (0 for unpruned): optimistic.
        corrected: the mean gain of cells so chosen on rows, and under seeds, that did not choose
            them.
        cells_tried: how many cells there were to choose from.
    """

    cell: int | None
    naive: float
    corrected: Estimate
    cells_tried: int


def selected_gain(
    gains: Float[np.ndarray, "cells seeds rows"],
    folds: int = FOLDS,
    repeats: int = 10,
    confidence: float = 0.95,
    seed: int = 0,
    bounds: tuple[float, float] | None = (-1.0, 1.0),
) -> SelectedGain:
    """Return what choosing the best of all cells gains, corrected for having chosen.

    Cross-validation of the choice itself: rows are cut at random into folds. For each fold and each
    seed, the cell is chosen on the other folds under the other seeds, and its gain is read off on
    this fold under this seed. No cell is chosen where none has a positive mean: unpruned is always
    allowed and gains 0. Every row and seed is so given one held-out gain, averaged over the
    repeats. With one seed the same demonstrations choose and judge, and the estimate is conditional
    on them.

    It estimates the gain of choosing with a fifth fewer rows and a seed less than there are, which
    is a little lower. Its standard error is that of `seed_and_row_mean`, times sqrt(1 + folds /
    (folds - 1)), for the choices share rows (Nadeau and Bengio 2003, Machine Learning 52, 239-281):
    a heuristic, without which the interval is far too narrow. docs/statistics.md has the coverage
    with and without it, and what a bootstrap leaves of the optimism.

    Arguments:
        gains: right after less right before; NaN where a seed did not score the row.
        folds: of the rows; at most as many as there are rows.
        repeats: how many ways of cutting the rows are averaged.
        confidence: the coverage aimed at, in (0, 1).
        seed: of the cuts.
        bounds: see `seed_and_row_mean`.

    Raises:
        EckartError: no cells, fewer than two folds, more folds than rows, or a seed that scored
            fewer than two rows.

    >>> draw = np.random.default_rng(0)
    >>> noise = draw.choice([-1.0, 0.0, 1.0], size=(64, 1, 200), p=[0.05, 0.9, 0.05])
    >>> selected = selected_gain(noise)
    >>> selected.naive > 0.04, abs(selected.corrected.mean) < 0.02
    (True, True)
    """
    cells, _, rows = gains.shape
    if cells == 0 or not 2 <= folds <= rows or repeats < 1:
        raise EckartError(
            f"{cells} cells, {rows} rows, {folds} folds, {repeats} repeats: choosing needs a cell,"
            " a repeat and from two folds to one a row"
        )
    means, _, _ = crossed_moments(gains, None)
    best = int(means.argmax())
    with_unpruned = np.concatenate([np.where(np.isnan(gains[:1]), np.nan, 0.0), gains])
    chosen = held_out(with_unpruned, folds, repeats, seed)
    return SelectedGain(
        cell=best if means[best] > 0 else None,
        naive=max(0.0, float(means[best])),
        corrected=held_out_mean(chosen, folds, confidence, bounds),
        cells_tried=cells,
    )


def held_out(
    gains: Float[np.ndarray, "cells seeds rows"], folds: int, repeats: int, seed: int
) -> Float[np.ndarray, "seeds rows"]:
    """Return for every seed and row its gain in the cell that other seeds and rows choose, averaged
    over the repeats.

    The first of equals is chosen. Where there is one seed, only rows are held out.
    """
    draws, total = np.random.default_rng(seed), np.zeros(gains.shape[1:])
    for _ in range(repeats):
        fold_of = draws.permutation(np.arange(gains.shape[2]) % folds)
        best = other_means(gains, fold_of).argmax(axis=0)
        total += np.take_along_axis(gains, best[None][..., fold_of], axis=0)[0]
    return total / repeats


def other_means(
    gains: Float[np.ndarray, "cells seeds rows"], fold_of: Int[np.ndarray, " rows"]
) -> Float[np.ndarray, "cells seeds folds"]:
    """Return the mean gain over all other folds, under all other seeds where there are others."""
    scored, member = ~np.isnan(gains), np.eye(int(fold_of.max()) + 1)[fold_of]
    return _others(np.where(scored, gains, 0.0) @ member) / np.maximum(
        _others(scored @ member), 1.0
    )


def held_out_mean(
    chosen: Float[np.ndarray, "seeds rows"],
    folds: int,
    confidence: float,
    bounds: tuple[float, float] | None,
) -> Estimate:
    """Return the mean of held-out gains, with Nadeau and Bengio's allowance for choices that share
    rows."""
    centre, error, freedom = moments(chosen, bounds)
    return estimate_from(
        chosen, (centre, error * math.sqrt(1 + folds / (folds - 1)), freedom), confidence
    )


def _others(
    parts: Float[np.ndarray, "cells seeds folds"],
) -> Float[np.ndarray, "cells seeds folds"]:
    of_folds = parts.sum(axis=2, keepdims=True) - parts
    return of_folds if parts.shape[1] == 1 else of_folds.sum(axis=1, keepdims=True) - of_folds


def _checked(
    p_values: Sequence[float] | Float[np.ndarray, " tests"],
) -> Float[np.ndarray, " tests"]:
    p = np.asarray(p_values, dtype=np.float64)
    wrong = p[~((p >= 0) & (p <= 1))]
    if len(wrong):
        raise EckartError(
            f"p values {wrong.tolist()} are outside [0, 1]; leave out the tests that have none"
        )
    return p
