"""Estimates for grids: how steady layers are, what a rule's layer is worth, how gains shrink,
whether ranks agree."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.stats import linregress, spearmanr, t

from eckart.errors import EckartError
from eckart.statistics.crossed import (
    Estimate,
    crossed_moments,
    estimate_from,
    moments,
    seed_and_row_mean,
)
from eckart.statistics.multiplicity import FOLDS, held_out, held_out_mean, other_means

REPEATS = 10


@dataclass(frozen=True)
class Bounded:
    """A value with the interval that holds it; the interval need not be symmetric."""

    value: float
    interval: tuple[float, float]


@dataclass(frozen=True)
class Correlation(Bounded):
    """A correlation, with the p value of the hypothesis that there is none; two-sided, by the
    interval's own test."""

    p_value: float


@dataclass(frozen=True)
class Stability:
    """How much the clipping rate matters at each layer.

    Arguments:
        spread: a layer's standard deviation over rates of the expected gain.
        worst: a layer's expected gain at the rate that is worst for it.
        spread_difference: root mean square spread of the deep layers less that of the shallow ones;
            below 0 where deep layers are steadier.
        spread_p_value: two-sided, of the hypothesis that the two mean squares are equal.
        worst_difference: mean worst gain of the deep layers less that of the shallow ones; above 0
            where they are.
    """

    spread: tuple[Bounded, ...]
    worst: tuple[Estimate, ...]
    spread_difference: Bounded
    spread_p_value: float
    worst_difference: Estimate


def stability(
    gains: Float[np.ndarray, "layers rates seeds rows"],
    deep: Sequence[int],
    shallow: Sequence[int],
    confidence: float = 0.95,
    seed: int = 0,
    bounds: tuple[float, float] | None = (-1.0, 1.0),
) -> Stability:
    """Return how the gain varies over rates at each layer, and whether deep layers vary less than
    shallow ones.

    The spread of measured means is larger than that of the expected ones, for noise adds to it, and
    the worst measured gain is lower than the worst there is. Held-out rows and seeds take both
    away. The squared spread is the covariance, over rates, of the gains of one fold under one seed
    with the mean gains of the other folds under the other seeds: their noise is independent. The
    worst rate is chosen by the others, as `selected_gain` chooses the best.

    A squared spread's interval is that of `seed_and_row_mean` with twice the standard error, for
    every row counts on both sides; the spread is its root, 0 where noise explains all of it. The
    interval of the difference combines those of the two groups (Zou and Donner 2008, Stat. Med. 27,
    1693-1702) as if they were independent; the p value is that of the difference of squares on the
    same rows, and calls a little too often: 6 to 9% of equal groups.

    The differences speak of these rates and these layers, which are not a sample of any, and
    compare like with like only where every layer ran the same rates. The p value of one layer's
    worst gain is not adjusted for other layers.

    Arguments:
        gains: right after less right before; NaN where a seed did not score the row.
        deep, shallow: indices from 0 of the layers of the two groups.
        confidence: the coverage aimed at, in (0, 1).
        seed: of the folds.
        bounds: see `seed_and_row_mean`.

    Raises:
        EckartError: fewer than two rates; a group that is empty, meets the other or holds a layer
            that there is not; a seed that scored fewer than two rows; fewer than five rows.

    >>> draw = np.random.default_rng(0)
    >>> chance = np.array([[0.0, 0.02, 0.04], [0.0, 0.2, 0.5]])[:, :, None, None]  # of losing a row
    >>> lost = (draw.random((2, 3, 5, 200)) < chance).astype(float)
    >>> deep_is_steadier = stability(-lost, deep=[0], shallow=[1])
    >>> [round(layer.mean, 1) for layer in deep_is_steadier.worst]
    [-0.0, -0.5]
    >>> deep_is_steadier.spread_difference.interval[1] < 0
    True
    """
    _check_groups(gains.shape, deep, shallow)
    worst = np.stack([-held_out(-layer, FOLDS, REPEATS, seed) for layer in gains])
    squares = np.stack([_squares(layer, seed) for layer in gains])
    groups = [squares[list(group)].mean(axis=0) for group in (deep, shallow)]
    spreads = [_root(square, confidence) for square in [*squares, *groups]]
    change = worst[list(deep)].mean(axis=0) - worst[list(shallow)].mean(axis=0)
    return Stability(
        spread=tuple(spreads[:-2]),
        worst=tuple(held_out_mean(layer, FOLDS, confidence, bounds) for layer in worst),
        spread_difference=_difference(*spreads[-2:]),
        spread_p_value=_squared_spread(groups[0] - groups[1], confidence).p_value,
        worst_difference=held_out_mean(change, FOLDS, confidence, bounds),
    )


@dataclass(frozen=True)
class LayerRule:
    """How well a rule chose a layer.

    Arguments:
        layers: how many there were to choose from.
        over_random: expected gain at the chosen layer less the mean over all layers: a layer drawn
            at random.
        below_best: gain at the chosen layer less that at the layer that turned out best, at most 0,
            with the interval of its distance to the layer that is truly best.
        rank: of the chosen layer by measured gain; 1 is best.
        rank_interval: (low, high) of its rank by expected gain.
    """

    layers: int
    over_random: Estimate
    below_best: Bounded
    rank: int
    rank_interval: tuple[int, int]


def layer_rule(
    gain_by_layer: Float[np.ndarray, "layers seeds rows"],
    chosen: int,
    confidence: float = 0.95,
    bounds: tuple[float, float] | None = (-1.0, 1.0),
) -> LayerRule:
    """Return what a rule's layer gains against a random one and against the best in hindsight.

    The best in hindsight is found on the test rows themselves: its measured gain is optimistic, the
    more so the more layers there are, and `below_best` so makes the rule look worse than it is. The
    interval does not: it holds the upper ends of the differences to all other layers at once
    (Bonferroni), and from them follow a distance to the best (after Hsu 1984, Ann. Stat. 12,
    1136-1144; a lower end needs no adjustment, for it has to hold for the best alone) and a rank,
    one above as many layers as are surely better. Both cover at least what is asked, and are wide.

    The rule must have chosen without these rows, and the rate at each layer must have been selected
    without them.

    Arguments:
        gain_by_layer: right after less right before, at the rate that validation selected for the
            layer; NaN where a seed did not score the row.
        chosen: index from 0 of the layer that the rule chose.
        confidence: the coverage aimed at, in (0, 1).
        bounds: see `seed_and_row_mean`.

    Raises:
        EckartError: fewer than two layers, a chosen layer that there is not, a seed that scored
            fewer than two rows.

    >>> gains = np.zeros((3, 1, 100))
    >>> gains[1, 0, :40] = 1
    >>> rule = layer_rule(gains, chosen=1)
    >>> rule.rank, rule.rank_interval, round(rule.over_random.mean, 3)
    (1, (1, 1), 0.267)
    """
    layers = len(gain_by_layer)
    if layers < 2 or not 0 <= chosen < layers:
        raise EckartError(
            f"layer {chosen} of {layers}: give at least two, and the chosen one's index from 0"
        )
    leads = gain_by_layer[chosen] - np.delete(gain_by_layer, chosen, axis=0)
    mean, _, _ = crossed_moments(leads, None)
    centre, error, freedom = crossed_moments(leads, bounds)
    alone = t.ppf((1 + confidence) / 2, freedom) * error
    at_once = t.ppf(1 - (1 - confidence) / (2 * (layers - 1)), freedom) * error
    low, high = centre - at_once, centre + at_once
    return LayerRule(
        layers=layers,
        over_random=seed_and_row_mean(
            gain_by_layer[chosen] - gain_by_layer.mean(axis=0), confidence, bounds
        ),
        below_best=Bounded(
            min(0.0, float(mean.min())),
            (min(0.0, float((centre - alone).min())), min(0.0, float(high.min()))),
        ),
        rank=1 + int((mean < 0).sum()),
        rank_interval=(1 + int((high < 0).sum()), layers - int((low > 0).sum())),
    )


@dataclass(frozen=True)
class WinnersCurse:
    """What validation gains are worth on the test set.

    Arguments:
        slope, intercept: of the least-squares line of test gains on validation gains. A slope of 1
            is no shrinkage.
        selected: index of the cell with the largest validation gain.
        validation, test: its gains.
        gap: validation less test of that cell: what choosing it overstated.
        cells: how many cells there were.
    """

    slope: float
    intercept: float
    selected: int
    validation: float
    test: float
    gap: float
    cells: int


def winners_curse(
    validation: Float[np.ndarray, " cells"], test: Float[np.ndarray, " cells"]
) -> WinnersCurse:
    """Return how far validation gains shrink on the test set, and what the selected cell's
    overstated.

    With noise of variance e and cells that truly differ with variance v, the expected slope is v /
    (v + e): near 1 the validation set ranks the cells, near 0 it ranks noise. There is no interval,
    because the cells share their rows and their baseline; compare models, tasks or seeds for one.
    Where the two splits share the unpruned model's demonstrations, a slope also holds what those do
    to both.

    Arguments:
        validation, test: one mean gain a cell, in the same order.

    Raises:
        EckartError: a gain is not a number, fewer than two cells, or validation gains that are all
            alike.

    >>> curse = winners_curse(np.array([0.0, 0.1, 0.2]), np.array([0.0, 0.05, 0.1]))
    >>> round(curse.slope, 2), curse.selected, round(curse.gap, 2)
    (0.5, 2, 0.1)
    """
    _check_pairs(validation, test, "validation and test gains")
    line, selected = linregress(validation, test), int(validation.argmax())
    return WinnersCurse(
        slope=float(line.slope),
        intercept=float(line.intercept),
        selected=selected,
        validation=float(validation[selected]),
        test=float(test[selected]),
        gap=float(validation[selected] - test[selected]),
        cells=len(validation),
    )


def rank_correlation(
    x: Float[np.ndarray, " units"],
    y: Float[np.ndarray, " units"],
    groups: Sequence[Hashable],
    confidence: float = 0.95,
) -> Correlation:
    """Return Spearman's rank correlation over all units, with an interval for new groups of units.

    Units of one group (the cells of one model, say) are no independent evidence. Each group is left
    out in turn; the jackknife's standard error of atanh(correlation), with a t quantile of one
    degree of freedom a group less one, gives the interval. It covers about what it says from four
    groups on, where the percentiles of a bootstrap over groups cover 82 to 94%: docs/statistics.md.
    A correlation of exactly 1, whatever group is left out, has an interval of no width, and is
    evidence of an order, not of its certainty.

    The correlation is over all units and mixes what differs between groups with what differs inside
    them; subtract each group's mean from both first to ask about the inside alone.

    Arguments:
        x, y: two values a unit.
        groups: each unit's group; all different where units are independent.
        confidence: the coverage aimed at, in (0, 1).

    Raises:
        EckartError: a value is not a number, a unit without a group, fewer than three groups, or
            values that are all alike without one of the groups.

    >>> x = np.arange(12.0)
    >>> rank = rank_correlation(x, x + 4 * (-1) ** np.arange(12), groups=list("aaabbbcccddd"))
    >>> f"{rank.value:.2f}, {rank.interval[0]:.2f} to {rank.interval[1]:.2f}"
    '0.57, 0.31 to 0.75'
    """
    _check_pairs(x, y, "values")
    names = list(dict.fromkeys(groups))
    if len(groups) != len(x) or len(names) < 3:
        raise EckartError(
            f"{len(groups)} labels of {len(names)} groups for {len(x)} units; give one each, of"
            " three groups"
        )
    member = np.array([names.index(group) for group in groups])
    value = _spearman(x, y)
    others = [
        _spearman(x[member != left_out], y[member != left_out]) for left_out in range(len(names))
    ]
    error = np.arctanh(others).std() * np.sqrt(len(names) - 1)
    margin = t.ppf((1 + confidence) / 2, len(names) - 1) * error
    low, high = np.tanh(np.arctanh(value) + np.array([-margin, margin]))
    with np.errstate(divide="ignore"):  # an order that no group changes
        distance = np.abs(np.arctanh(value)) / error if value else 0.0
    return Correlation(value, (float(low), float(high)), float(2 * t.sf(distance, len(names) - 1)))


def _spearman(x: Float[np.ndarray, " units"], y: Float[np.ndarray, " units"]) -> float:
    """Return the rank correlation, short of 1 by so little that its atanh is a number."""
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        raise EckartError(
            "without one of the groups all values are alike and have no order; give more, or more"
            " varied ones"
        )
    return float(np.clip(spearmanr(x, y).statistic, -1 + 1e-12, 1 - 1e-12))


def _squares(
    gains: Float[np.ndarray, "rates seeds rows"], seed: int
) -> Float[np.ndarray, "seeds rows"]:
    """Return for every seed and row the covariance over rates of its gains with the mean gains of
    the others."""
    rates, draws, total = len(gains), np.random.default_rng(seed), np.zeros(gains.shape[1:])
    for _ in range(REPEATS):
        fold_of = draws.permutation(np.arange(gains.shape[2]) % FOLDS)
        means = other_means(gains, fold_of)
        total += ((means - means.mean(axis=0))[..., fold_of] * gains).sum(axis=0) / (rates - 1)
    return total / REPEATS


def _squared_spread(square: Float[np.ndarray, "seeds rows"], confidence: float) -> Estimate:
    mean, error, freedom = moments(square, None)
    return estimate_from(square, (mean, 2 * error, freedom), confidence)


def _root(square: Float[np.ndarray, "seeds rows"], confidence: float) -> Bounded:
    """Return a spread from what averages to its square."""
    squared = _squared_spread(square, confidence)
    value, low, high = np.sqrt(np.maximum([squared.mean, *squared.interval], 0.0)).tolist()
    return Bounded(value, (low, high))


def _difference(one: Bounded, other: Bounded) -> Bounded:
    """Return one less the other, the arms of their intervals combined by the sum of squares."""
    value = one.value - other.value
    down = np.hypot(one.value - one.interval[0], other.interval[1] - other.value)
    up = np.hypot(one.interval[1] - one.value, other.value - other.interval[0])
    return Bounded(value, (float(value - down), float(value + up)))


def _check_groups(shape: tuple[int, ...], deep: Sequence[int], shallow: Sequence[int]) -> None:
    layers, rates, _, rows = shape
    named = {*deep, *shallow}
    if not deep or not shallow or {*deep} & {*shallow} or not named <= {*range(layers)}:
        raise EckartError(
            f"deep {list(deep)} and shallow {list(shallow)} of {layers} layers: name two groups"
            " that share no layer, by index from 0"
        )
    if rates < 2 or rows < FOLDS:
        raise EckartError(
            f"{rates} rates and {rows} rows have no spread; run at least two rates on {FOLDS} rows"
        )


def _check_pairs(x: Float[np.ndarray, " units"], y: Float[np.ndarray, " units"], what: str) -> None:
    if len(x) < 2 or not np.isfinite([x, y]).all() or np.ptp(x) == 0:
        raise EckartError(
            f"{len(x)} pairs of {what}: give at least two, all numbers, and not all alike"
        )
