"""The mean of a cell over crossed seeds and rows, the test of it, and the words for the outcome.

A cell is one edit on one model, task and scoring. What was measured of it is a matrix with one line
a demonstration seed and one column a row, NaN where a seed did not score the row. Entries are
gains, right after less right before, in {-1, 0, 1}, or hits in {0, 1}.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.special import stdtr, stdtrit  # Student's t, a tenth of the time of scipy.stats.t

from eckart.errors import EckartError
from eckart.statistics.paired import accuracy_interval, paired_difference, wilson_interval
from eckart.statistics.scores import Outcome, Score


@dataclass(frozen=True)
class Estimate:
    """A mean with what is known of it.

    Arguments:
        mean: the estimate itself.
        interval: (low, high) at the confidence that was asked for.
        standard_error: of the mean, for new seeds and new rows; for new rows alone where there is
            one seed.
        degrees_of_freedom: of the t distribution that the interval and the p value are read from.
        p_value: two-sided, of the hypothesis that the expectation is 0.
        seeds, rows: how many of each were scored; for one seed the interval speaks of its
            demonstrations alone.
    """

    mean: float
    interval: tuple[float, float]
    standard_error: float
    degrees_of_freedom: float
    p_value: float
    seeds: int
    rows: int

    @property
    def n(self) -> int:
        """The number of rows."""
        return self.rows

    def to_json(self) -> dict[str, Any]:
        """Return plain values, by the names of a difference under one draw."""
        return {
            "n": self.rows,
            "difference": self.mean,
            "interval": list(self.interval),
            "p_value": self.p_value,
            "standard_error": self.standard_error,
            "degrees_of_freedom": self.degrees_of_freedom,
            "draws": self.seeds,
        }

    def detectable(self, power: float = 0.8, level: float = 0.05) -> float:
        """Return the size of the effect that an experiment as noisy as this one would find with
        this power."""
        quantiles = stdtrit(self.degrees_of_freedom, [1 - level / 2, power])
        return float(quantiles.sum() * self.standard_error)


def seed_and_row_mean(
    values: Float[np.ndarray, "seeds rows"],
    confidence: float = 0.95,
    bounds: tuple[float, float] | None = (-1.0, 1.0),
) -> Estimate:
    """Average over demonstration seeds and rows, with an interval and a test for new seeds and new
    rows.

    The model is that of crossed random effects, y[s, r] = mean + seed[s] + row[r] + rest[s, r]:
    rows are hard or easy, demonstrations are good or bad, and both were drawn. Each seed counts
    alike, however many rows it scored. The variance of the mean is the sum of two parts that are
    estimated without assuming anything of their shape,

        V = var(seed means) / seeds + mean over pairs of seeds of cov(their means),

    where two means covary because rows are shared; and V is never below what new rows alone would
    give. The interval takes a t quantile with Satterthwaite's degrees of freedom (Satterthwaite
    1946, Biometrics Bull. 2, 110-114), so that five seeds count as five. On balanced data V is the
    analysis of variance's estimate. The pigeonhole bootstrap (Owen 2007, Ann. Appl. Stat. 1,
    386-411) resamples the same two factors, but where seeds matter the percentiles from five of
    them cover 87% instead of 95%: docs/statistics.md has both.

    The p value is that of mean / standard error under the same t: its hypothesis is that the
    expected value, over demonstrations and rows like these, is 0. Pooling all seeds' fixed and
    broken rows into one McNemar test would count each row several times, and take a seed's luck for
    the edit's merit.

    With one seed the interval and the test are conditional on its demonstrations; `mcnemar_exact`
    is then the exact test. Two seeds say little: the interval is wide, and may still cover too
    little.

    Arguments:
        values: one value a seed and row; NaN where that seed did not score the row.
        confidence: the coverage aimed at, in (0, 1).
        bounds: the least and the largest value that could have been seen. The interval and the
            test, not the mean, are made with a row of each added (Bonett and Price 2012 do so for
            one seed), which keeps them from shrinking to a point where no row changed. (-1, 1) fits
            gains, (0, 1) hits; None adds nothing.

    Raises:
        EckartError: a confidence outside (0, 1), no seeds, or a seed with fewer than two rows.

    >>> first, second = [0, 0, 1, 1, 0, 1, 0, 1], [0, 0, 1, 1, 0, 0, 0, 1]
    >>> found = seed_and_row_mean(np.array([first, second, [0, 0, 1, 1, np.nan, 1, 1, 0]]))
    >>> low, high = found.interval
    >>> f"{found.mean:.3f}, {low:.2f} to {high:.2f}, p = {found.p_value:.2f}"
    '0.482, -0.09 to 0.85, p = 0.10'
    """
    return estimate_from(values, moments(values, bounds), confidence)


def estimate_from(
    values: Float[np.ndarray, "seeds rows"], measured: tuple[float, float, float], confidence: float
) -> Estimate:
    """Return the mean over seeds with the t interval and the t test that moments give.

    Arguments:
        values: one value a seed and row; NaN where that seed did not score the row.
        measured: centre of the interval, standard error, degrees of freedom.
        confidence: the coverage aimed at, in (0, 1).

    Raises:
        EckartError: a confidence outside (0, 1), no seeds, or a seed with fewer than two rows.
    """
    if not 0 < confidence < 1:
        raise EckartError(f"confidence {confidence:g} is outside (0, 1); 0.95 is usual")
    centre, error, freedom = measured
    scored = ~np.isnan(values)
    means = np.where(scored, values, 0.0).sum(axis=-1) / scored.sum(axis=-1)
    margin = float(stdtrit(freedom, (1 + confidence) / 2)) * error
    return Estimate(
        mean=float(means.mean()),
        interval=(centre - margin, centre + margin),
        standard_error=error,
        degrees_of_freedom=freedom,
        p_value=_p_value(centre, error, freedom),
        seeds=len(values),
        rows=int(scored.any(axis=0).sum()),
    )


def gain_bounds(kind: type[Outcome]) -> tuple[float, float] | None:
    """Return the least and the largest gain that a row can show; None where there is none."""
    return None if kind.bounds is None else (-1.0, 1.0)


def mean_gain(gains: Float[np.ndarray, "seeds rows"], kind: type[Outcome]) -> Estimate | None:
    """Average gains over seeds and rows; None where no seed has two rows.

    No gain in accuracy is beyond 100 points, so neither is its interval. For one seed and one
    prompt the interval and the p value are those that a search reports: Bonett and Price's and
    exact McNemar's, or Student's. Under several prompts a row's gain is a mean, and no longer a
    whole number.
    """
    known = gains[(~np.isnan(gains)).sum(axis=1) >= 2]
    if len(known) == 0:
        return None
    bounds = gain_bounds(kind)
    estimate = seed_and_row_mean(known, bounds=bounds)
    if bounds is None:
        return estimate
    if len(known) > 1 or not _whole(known):
        return replace(estimate, interval=_clamped(estimate.interval, bounds))
    row = known[0][~np.isnan(known[0])]
    paired = paired_difference((row < 0).tolist(), (row > 0).tolist())
    return replace(estimate, interval=paired.interval, p_value=paired.p_value)


def merit_interval(
    merits: Float[np.ndarray, "seeds rows"], kind: type[Outcome]
) -> tuple[float, float]:
    """Return the 95% interval of a mean accuracy, Wilson's under one seed and one prompt, or of a
    mean error."""
    if kind.bounds is None:
        low, high = seed_and_row_mean(merits, bounds=None).interval
        return -high, -low
    asked = ~np.isnan(merits)
    if asked.sum(axis=1).min() < 2 or (len(merits) == 1 and _whole(merits)):
        return wilson_interval(int(np.nansum(merits)), int(asked.sum()))
    return _clamped(seed_and_row_mean(merits, bounds=kind.bounds).interval, kind.bounds)


def _whole(values: Float[np.ndarray, "seeds rows"]) -> bool:
    """Whether every value that is known is a whole number."""
    return bool((np.isnan(values) | (values == np.round(values))).all())


def _clamped(interval: tuple[float, float], bounds: tuple[float, float]) -> tuple[float, float]:
    return max(bounds[0], interval[0]), min(bounds[1], interval[1])


def turned(gains: Float[np.ndarray, "seeds rows"]) -> tuple[int, int]:
    """Count the pairs of a seed and a row that are better after, and worse."""
    return int((gains > 0).sum()), int((gains < 0).sum())


def moments(
    values: Float[np.ndarray, "seeds rows"], bounds: tuple[float, float] | None
) -> tuple[float, float, float]:
    """Return mean, standard error and degrees of freedom of one cell; see `crossed_moments`."""
    mean, error, freedom = crossed_moments(values[None], bounds)
    return float(mean[0]), float(error[0]), float(freedom[0])


def crossed_moments(
    values: Float[np.ndarray, "cells seeds rows"], bounds: tuple[float, float] | None
) -> tuple[Float[np.ndarray, " cells"], Float[np.ndarray, " cells"], Float[np.ndarray, " cells"]]:
    """Return mean, standard error and degrees of freedom of many cells at once; see
    `seed_and_row_mean`.

    Arguments:
        values: one value a cell, seed and row; NaN where a seed did not score the row.
        bounds: the values of the two rows that are added; None adds none.

    Raises:
        EckartError: no seeds, or a seed with fewer than two rows.
    """
    if values.shape[-2] == 0 or (~np.isnan(values)).sum(axis=-1).min() < 2:
        raise EckartError(
            "a seed scored fewer than two rows, which have no spread; leave it out, or score more"
        )
    if bounds is not None:
        extremes = np.broadcast_to(np.array(bounds), (*values.shape[:-1], 2))
        values = np.concatenate([values, extremes], axis=-1)
    scored = ~np.isnan(values)
    n, seeds = scored.sum(axis=-1), values.shape[-2]
    means = np.where(scored, values, 0.0).sum(axis=-1) / n
    shares = np.where(scored, values - means[..., None], 0.0) / np.sqrt(n * (n - 1))[..., None]
    of_rows = (shares.sum(axis=-2) ** 2).sum(axis=-1) / seeds**2
    if seeds == 1:
        return means[..., 0], np.sqrt(of_rows), np.broadcast_to(n[..., 0] - 1.0, of_rows.shape)
    pairs = of_rows * seeds**2 - (shares**2).sum(axis=(-2, -1))
    of_seeds = means.var(axis=-1, ddof=1) / seeds
    variance = np.maximum(of_rows, of_seeds + np.maximum(pairs, 0.0) / (seeds * (seeds - 1)))
    rows = scored.any(axis=-2).sum(axis=-1)
    return (
        means.mean(axis=-1),
        np.sqrt(variance),
        satterthwaite(variance, of_seeds, seeds, of_rows, rows),
    )


def satterthwaite(
    variance: Float[np.ndarray, " cells"],
    of_seeds: Float[np.ndarray, " cells"],
    seeds: int,
    of_rows: Float[np.ndarray, " cells"],
    rows: np.ndarray | int,
) -> Float[np.ndarray, " cells"]:
    """Return the degrees of freedom of a variance that is made of one over seeds and one over
    rows."""
    spread = of_seeds**2 / max(seeds - 1, 1) + of_rows**2 / (rows - 1)
    return np.where(spread > 0, variance**2 / np.where(spread > 0, spread, 1.0), rows - 1.0)


def nothing_learned(scores: Mapping[str, Score]) -> str:
    """Say which models do no better than always answering the most frequent label; nothing where
    the last of them does: that is what clipping gained.

    Arguments:
        scores: on the same rows, by what was scored; the clipped model last.
    """
    first = next(iter(scores.values()))
    found = {name: (score.accuracy, accuracy_interval(score)) for name, score in scores.items()}
    return below_majority(found, first.majority_rate, f"n = {first.n} rows")


def below_majority(
    found: Mapping[str, tuple[float, tuple[float, float]]], majority: float, rows: str
) -> str:
    """Say what `nothing_learned` says of accuracies over any number of draws.

    A model does better where its accuracy's 95% interval lies above the most frequent label's
    share.

    Arguments:
        found: accuracy and 95% interval by what was scored; the clipped model last.
        majority: the share of the most frequent label.
        rows: that were scored, in words.
    """
    said = {
        name: f"{name} {accuracy:.4f} (95% interval {low:.4f} to {high:.4f})"
        for name, (accuracy, (low, high)) in found.items()
        if low <= majority
    }
    if [*found][-1] not in said:
        return ""
    return (
        f"The model learned nothing here, as far as accuracy on {rows} shows:"
        f" {', '.join(said.values())}; always answering the most frequent label scores"
        f" {majority:.4f}."
    )


def _p_value(centre: float, error: float, freedom: float) -> float:
    if error == 0:
        return 1.0 if centre == 0 else 0.0
    return float(2 * stdtr(freedom, -abs(centre) / error))
