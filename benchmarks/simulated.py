"""Studies with known truth: how often an interval holds it, and how often a test finds what is not
there.

Behind every gain stands a normal variable: an edit's merit, plus what the row, the row under this
edit, the seed under this edit and chance add to it. It is a fixed row above a threshold, a broken
one below its negative, unchanged between. The truth is the expected gain over new rows and new
seeds. Every function returns rates and means by name.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import norm, rankdata, t

from eckart.statistics.crossed import crossed_moments, mean_gain, seed_and_row_mean
from eckart.statistics.grids import layer_rule, rank_correlation, stability
from eckart.statistics.multiplicity import selected_gain
from eckart.statistics.paired import mcnemar_exact
from eckart.statistics.power import Design
from eckart.statistics.scores import Score

THRESHOLD = 1.3
FLIPS_AT_ONCE = 250


@dataclass(frozen=True)
class Noise:
    """The standard deviations behind a gain: of rows, of rows under one edit, of seeds under one
    edit, of chance."""

    row: float = 0.5
    row_of_edit: float = 0.6
    seed: float = 0.0
    chance: float = 0.4

    def luck(self, draw: np.random.Generator, merit: np.ndarray, seeds: int) -> np.ndarray:
        """Return what each seed adds under each edit, as luck[..., seeds, 1]."""
        return self.seed * draw.standard_normal((*merit.shape, seeds, 1))

    def gains(
        self,
        draw: np.random.Generator,
        merit: np.ndarray,
        seeds: int,
        rows: int,
        luck: np.ndarray | None = None,
    ) -> np.ndarray:
        """Return gains[..., seeds, rows] of edits with these merits, which share their rows; under
        the demonstrations of this luck, or under new ones."""
        shape = merit.shape
        hidden = merit[..., None, None] + self.row * draw.standard_normal((1, rows))
        hidden = hidden + self.row_of_edit * draw.standard_normal((*shape, 1, rows))
        hidden = hidden + (self.luck(draw, merit, seeds) if luck is None else luck)
        hidden = hidden + self.chance * draw.standard_normal((*shape, seeds, rows))
        return (hidden > THRESHOLD).astype(float) - (hidden < -THRESHOLD)

    def truth(self, merit: np.ndarray) -> np.ndarray:
        """Return the expected gain of edits with these merits."""
        scale = np.sqrt(self.row**2 + self.row_of_edit**2 + self.seed**2 + self.chance**2)
        return norm.cdf((merit - THRESHOLD) / scale) - norm.cdf((-THRESHOLD - merit) / scale)


def mean(
    noise: Noise, merit: float, seeds: int, rows: int, times: int, draws: int = 400
) -> dict[str, float]:
    """Of the 95% interval of `seed_and_row_mean`, beside what pooling and the pigeonhole's
    percentiles do."""
    draw = np.random.default_rng(0)
    merits = np.full((), merit)
    gains = np.stack([noise.gains(draw, merits, seeds, rows) for _ in range(times)])
    truth = float(noise.truth(merits))
    centre, error, freedom = crossed_moments(gains, (-1.0, 1.0))
    fixed, broken = (gains > 0).sum(axis=(1, 2)), (gains < 0).sum(axis=(1, 2))
    weights = _weights(draw, gains.shape, draws)
    pooled = [mcnemar_exact(int(f), int(b)) <= 0.05 for f, b in zip(fixed, broken, strict=True)]
    return {
        "truth": truth,
        "coverage": float((np.abs(centre - truth) <= t.ppf(0.975, freedom) * error).mean()),
        "pigeonhole": float(np.mean([_pigeonhole(one, weights, truth) for one in gains])),
        "called": float((2 * t.sf(np.abs(centre) / error, freedom) <= 0.05).mean()),
        "called by pooling": float(np.mean(pooled)),
    }


def _pigeonhole(gains: np.ndarray, weights: tuple[np.ndarray, np.ndarray], truth: float) -> bool:
    means = ((weights[0] @ gains.T) * weights[1]).sum(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return bool(low <= truth <= high)


def _weights(
    draw: np.random.Generator, shape: tuple[int, ...], draws: int
) -> tuple[np.ndarray, np.ndarray]:
    seeds, rows = shape[-2:]
    of_rows = draw.multinomial(rows, np.full(rows, 1 / rows), size=draws) / rows
    return of_rows, draw.multinomial(seeds, np.full(seeds, 1 / seeds), size=draws) / seeds


def told(design: Design, gain: float, rows: int, times: int, shared: float = 1.0) -> float:
    """How often a true gain is told from none by the test that a design says.

    A row is fixed where a normal variable is low, broken where it is high, with the probabilities
    that the draw's own gain gives it; of the variable's variance a part is shared by all draws.
    """
    draw, found = np.random.default_rng(0), 0
    for _ in range(times):
        own = gain + (design.spread if design.draws > 1 else 0.0) * draw.standard_normal(
            (design.draws, 1)
        )
        of_row, of_both = (
            draw.standard_normal((1, rows)),
            draw.standard_normal((design.draws, rows)),
        )
        u = norm.cdf(np.sqrt(shared) * of_row + np.sqrt(1 - shared) * of_both)
        fixed, broken = (
            u < (design.turns + own) / 2,
            u > 1 - (design.turns - own) / 2,
        )
        if design.draws == 1:
            p = mcnemar_exact(int(fixed.sum()), int(broken.sum()))
            found += p <= design.level and fixed.sum() > broken.sum()
        else:
            estimate = seed_and_row_mean(fixed.astype(float) - broken, 1 - design.level)
            found += estimate.interval[0] > 0
    return found / times


def choice(noise: Noise, merits: np.ndarray, seeds: int, rows: int, times: int) -> dict[str, float]:
    """Of the gain of the cell that looks best: what it is, what each estimate says, and the
    interval's coverage."""
    draw = np.random.default_rng(0)
    truths, studies = noise.truth(merits), []
    weights = _weights(draw, (seeds, rows), 200)
    for _ in range(times):
        gains = noise.gains(draw, merits, seeds, rows)
        selected = selected_gain(gains)
        truth = 0.0 if selected.cell is None else float(truths[selected.cell])
        low, high = selected.corrected.interval
        studies.append(
            {
                "truth": truth,
                "naive": selected.naive,
                "corrected": selected.corrected.mean,
                "bootstrap": selected.naive - _optimism(gains, weights),
                "coverage": holds((low, high), truth),
                "too high": float(low > truth),
                "not widened": float(
                    abs((low + high) / 2 - truth) <= (high - low) / 2 / np.sqrt(1 + 5 / 4)
                ),
            }
        )
    return averaged(studies)


def searched(
    noise: Noise, merits: np.ndarray, seeds: int, rows: int, times: int
) -> dict[str, float]:
    """Of the gain that a search over several draws reports: the edit that is best on validation,
    on as many other rows, under as many other demonstrations, and under those that chose."""
    draw = np.random.default_rng(0)
    truths, searches = noise.truth(merits), []
    for _ in range(times):
        luck = noise.luck(draw, merits, seeds)
        validation = noise.gains(draw, merits, seeds, rows, luck).mean(axis=(1, 2))
        best = int(validation.argmax())
        if validation[best] <= 0:  # nothing is clipped, so nothing is said
            continue
        said = {"clips": 1.0, "truth": float(truths[best])}
        for name, tested in (("", None), (", same", luck)):
            found = mean_gain(noise.gains(draw, merits, seeds, rows, tested)[best], Score)
            assert found is not None
            low, high = found.interval
            said[f"covers{name}"] = holds((low, high), truths[best])
            said[f"too high{name}"] = float(low > truths[best])
            said[f"bias{name}"] = found.mean - float(truths[best])
        searches.append(said)
    return {**averaged(searches), "clips": len(searches) / times}


def _optimism(gains: np.ndarray, weights: tuple[np.ndarray, np.ndarray]) -> float:
    """Return by how much the best of resampled cells overstates what it is in the data."""
    means = ((gains @ weights[0].T) * weights[1].T).sum(axis=1).T
    return float((means.max(axis=1) - gains.mean(axis=(1, 2))[means.argmax(axis=1)]).mean())


def max_statistic_p(gains: np.ndarray, flips: int = 2000, seed: int = 0) -> np.ndarray:
    """Return every cell's p value for a gain, adjusted for all cells and for what they have in
    common.

    Westfall and Young (1993): each cell's statistic is its rows' summed gains over the root of
    their sum of squares, and a cell's p value is the share of sign flips in which the *largest*
    statistic of all cells reaches its own. A flip turns a row's gains in all cells and seeds at
    once, so cells that always gain together count as one, where Holm would count each. The smallest
    of the p values is that of the best of all cells.

    One-sided, and conditional on these demonstrations: the hypothesis is that, under them, no cell
    has an expected gain on new rows. It is exact where a row's gains are as likely as their
    opposites, and otherwise holds by the central limit theorem, the flips having the covariance of
    the sums (a wild bootstrap). A seed's luck with an edit counts as the edit's merit: where gains
    differ between seeds, `holm` over the cells' `seed_and_row_mean` is the test for new
    demonstrations, and this one calls far too often (docs/statistics.md).

    Arguments:
        gains: right after less right before; NaN where a seed did not score the row.
        flips: how many sign flips are drawn; no p value is below 1 / (flips + 1).
        seed: of the flips.
    """
    sums = np.nansum(gains, axis=1)
    norms = np.sqrt((sums**2).sum(axis=1))
    units = sums / np.where(norms > 0, norms, 1.0)[:, None]
    statistics, draws = units.sum(axis=1), np.random.default_rng(seed)
    reached = np.ones(len(statistics))
    for start in range(0, flips, FLIPS_AT_ONCE):
        signs = draws.choice([-1.0, 1.0], size=(min(FLIPS_AT_ONCE, flips - start), sums.shape[1]))
        largest = (signs @ units.T).max(axis=1)
        reached += (largest >= statistics[:, None] - 1e-9).sum(axis=1)
    return reached / (flips + 1)


def best_of_many(
    noise: Noise, merits: np.ndarray, seeds: int, rows: int, times: int
) -> dict[str, float]:
    """Of the best cell's p value: how often it is at most 0.05, by max-T and by Bonferroni's
    rule."""
    draw, studies = np.random.default_rng(0), []
    for _ in range(times):
        gains = noise.gains(draw, merits, seeds, rows)
        centre, error, freedom = crossed_moments(gains, (-1.0, 1.0))
        alone = t.sf(centre / error, freedom).min()
        studies.append(
            {
                "max-T": float(max_statistic_p(gains, flips=400).min() <= 0.05),
                "Bonferroni on t": float(alone * len(gains) <= 0.05),
            }
        )
    return averaged(studies)


def steadiness(
    noise: Noise, deep: float, shallow: float, seeds: int, rows: int, times: int
) -> dict[str, float]:
    """Of `stability` on 3 deep and 3 shallow layers at 8 rates, whose loss grows along the rates by
    so much."""
    draw, studies = np.random.default_rng(0), []
    merits = -np.repeat([shallow, deep], 3)[:, None] * np.linspace(0, 3, 8)
    truths = noise.truth(merits)
    spreads, worst = truths.std(axis=1, ddof=1), truths.min(axis=1)
    difference = float(np.sqrt((spreads[3:] ** 2).mean()) - np.sqrt((spreads[:3] ** 2).mean()))
    for _ in range(times):
        gains = noise.gains(draw, merits, seeds, rows)
        found = stability(gains, deep=[3, 4, 5], shallow=[0, 1, 2])
        measured = gains.mean(axis=(2, 3))
        studies.append(
            {
                "spread": float(spreads[3]),
                "measured": float(measured[3].std(ddof=1)),
                "corrected": found.spread[3].value,
                "coverage, spread": holds(found.spread[3].interval, spreads[3]),
                "coverage, worst": holds(found.worst[3].interval, worst[3]),
                "coverage, difference": holds(found.spread_difference.interval, difference),
                "called": float(found.spread_p_value <= 0.05),
                "coverage, worst's": holds(
                    found.worst_difference.interval, worst[3:].mean() - worst[:3].mean()
                ),
            }
        )
    return averaged(studies)


def rule(
    noise: Noise, merits: np.ndarray, chosen: int, seeds: int, rows: int, times: int
) -> dict[str, float]:
    """Of the three contrasts of `layer_rule`."""
    draw, studies = np.random.default_rng(0), []
    truths = noise.truth(merits)
    for _ in range(times):
        found = layer_rule(noise.gains(draw, merits, seeds, rows), chosen)
        # Layers that are truly equal share a span of ranks, any of which is right.
        ranks = 1 + (truths > truths[chosen]).sum(), (truths >= truths[chosen]).sum()
        low, high = found.rank_interval
        studies.append(
            {
                "over random": holds(found.over_random.interval, truths[chosen] - truths.mean()),
                "below best": holds(found.below_best.interval, truths[chosen] - truths.max()),
                "its bias": found.below_best.value - float(truths[chosen] - truths.max()),
                "rank": float(low <= ranks[0] and ranks[1] <= high),
                "ranks held": float(high - low + 1),
            }
        )
    return averaged(studies)


def correlation(
    groups: int, units: int, between: float, strength: float, times: int
) -> dict[str, float]:
    """Of Spearman's correlation: normal units in groups that share so much of the variance, so
    strongly correlated."""
    draw, studies = np.random.default_rng(0), []
    truth = 6 / np.pi * np.arcsin(strength / 2)
    labels = np.repeat(np.arange(groups), units)
    mixing = np.linalg.cholesky([[1.0, strength], [strength, 1.0]])
    for _ in range(times):
        of_groups, of_units = (
            draw.standard_normal((2, groups)),
            draw.standard_normal((2, groups * units)),
        )
        x, y = mixing @ (np.sqrt(between) * of_groups[:, labels] + np.sqrt(1 - between) * of_units)
        found = rank_correlation(x, y, labels.tolist())
        again = draw.integers(0, groups, size=(200, groups))
        tables = [values.reshape(groups, units)[again].reshape(200, -1) for values in (x, y)]
        percentiles = np.quantile(_spearmans(*tables), [0.025, 0.975])
        studies.append(
            {
                "truth": float(truth),
                "coverage": holds(found.interval, truth),
                "percentiles": holds((percentiles[0], percentiles[1]), truth),
            }
        )
    return averaged(studies)


def _spearmans(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    ranks = [
        rank - rank.mean(axis=1, keepdims=True)
        for rank in (rankdata(x, axis=1), rankdata(y, axis=1))
    ]
    return (ranks[0] * ranks[1]).sum(axis=1) / np.sqrt(
        (ranks[0] ** 2).sum(axis=1) * (ranks[1] ** 2).sum(axis=1)
    )


def holds(interval: tuple[float, float], truth: float) -> float:
    return float(interval[0] <= truth <= interval[1])


def averaged(studies: list[dict[str, float]]) -> dict[str, float]:
    return {name: float(np.mean([study[name] for study in studies])) for name in studies[0]}
