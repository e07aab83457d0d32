"""The outcome of an edit under several draws of demonstrations, or several prompts, together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Float

from eckart.algorithm1 import Scored
from eckart.errors import EckartError
from eckart.records import Edits, Trial
from eckart.statistics.crossed import Estimate, mean_gain, merit_interval
from eckart.statistics.paired import PairedDifference, compare, outcome_interval
from eckart.statistics.scores import Outcome, Score

Difference: TypeAlias = PairedDifference | Estimate
"""Under one draw, for new rows; over several, for new demonstrations and new rows."""


def sealed_seeds(seeds: Sequence[int]) -> tuple[int, ...]:
    """Return the seeds under which a choice is tested: as many as chose, and none of them. A choice
    under one draw is tested under that one, and is for it alone.

    >>> sealed_seeds([0, 1, 2]), sealed_seeds([7])
    ((3, 4, 5), (7,))
    """
    first = max(seeds) + 1
    return tuple(range(first, first + len(seeds))) if len(seeds) > 1 else tuple(seeds)


@dataclass(frozen=True)
class Means:
    """What the outcomes of several draws are on average: each draw counts alike.

    Arguments:
        outcomes: one a draw.
        n: how many rows were scored, whatever the number of draws.
    """

    outcomes: tuple[Outcome, ...]
    n: int

    @property
    def headline(self) -> str:
        return self.outcomes[0].headline

    @property
    def merits(self) -> dict[str, float]:
        """What a choice may compare, by metric; larger is better."""
        return _means([outcome.merits for outcome in self.outcomes])

    def summary(self) -> dict[str, Any]:
        """Return every mean."""
        kinds = [outcome.summary() for outcome in self.outcomes]
        numbers = [{k: v for k, v in kind.items() if isinstance(v, float)} for kind in kinds]
        return {"n": self.n, **_means(numbers)}


def _means(numbers: Sequence[dict[str, float]]) -> dict[str, float]:
    return {name: float(np.mean([each[name] for each in numbers])) for name in numbers[0]}


@dataclass(frozen=True)
class Drawn:
    """A candidate that was scored on a split under several draws, or prompts.

    Arguments:
        trials: one a draw and prompt.
        ids: of the rows of each: demonstrations are no rows, so draws may differ by a few.
    """

    trials: tuple[Trial, ...]
    ids: tuple[tuple[str, ...], ...] = field(repr=False)

    @property
    def edits(self) -> Edits:
        return self.trials[0].edits

    @property
    def score(self) -> Means | None:
        """The means; None if any draw could not be scored."""
        outcomes = tuple(trial.score for trial in self.trials if trial.score is not None)
        if len(outcomes) < len(self.trials):
            return None
        return Means(outcomes, len(self._names))

    @property
    def error(self) -> str | None:
        """What went wrong under the first draw that could not be scored."""
        failed = (trial for trial in self.trials if trial.score is None)
        said = (f"{t.setting.task}, seed {t.setting.seed}: {t.error}" for t in failed)
        return next(said, None)

    @property
    def seconds(self) -> float:
        return sum(trial.seconds for trial in self.trials)

    def row_values(self, metric: str) -> Float[np.ndarray, "draws rows"]:
        """Return what each row adds to a metric under each draw of demonstrations, larger being
        better; NaN where it is no row of that draw. Under several prompts it is their mean.

        Raises:
            EditError: the metric is no mean over rows.
        """
        place = {name: index for index, name in enumerate(self._names)}
        lines: dict[int, list[np.ndarray]] = defaultdict(list)
        for trial, ids in zip(self.trials, self.ids, strict=True):
            assert trial.score is not None
            line = np.full(len(place), np.nan)
            line[[place[name] for name in ids]] = _row_values(trial.score, metric)
            lines[trial.setting.seed].append(line)
        return np.array([np.mean(prompts, axis=0) for prompts in lines.values()])

    @property
    def _names(self) -> list[str]:
        return list(dict.fromkeys(name for ids in self.ids for name in ids))


def _row_values(score: Outcome, metric: str) -> Sequence[float]:
    return score.row_values(metric) if isinstance(score, Score) else score.row_merits


def difference(before: Scored, after: Scored) -> Difference:
    """Compare two candidates on the same rows under the same draws.

    Under one draw and prompt it is `compare`; under several the interval and the test are those of
    `seed_and_row_mean`: for new demonstrations and new rows, where several were drawn.

    Raises:
        EckartError: fewer than two rows under each of several draws.
    """
    if not isinstance(before, Drawn) or not isinstance(after, Drawn):
        return compare(_outcome(before), _outcome(after))
    kind = type(_outcome(before))
    gains = after.row_values(kind.headline) - before.row_values(kind.headline)
    found = mean_gain(gains, kind)
    if found is None:
        raise EckartError("fewer than two rows have no spread; score more")
    return found


def interval(scored: Scored) -> tuple[float, float]:
    """Return the 95% interval of a candidate's accuracy, or of its mean error."""
    if not isinstance(scored, Drawn):
        return outcome_interval(_outcome(scored))
    kind = type(_outcome(scored))
    return merit_interval(scored.row_values(kind.headline), kind)


def summary(scored: Scored) -> dict[str, Any]:
    """Return what a candidate scored, without its rows, with its interval, as JSON values; under
    several draws their means, and each by itself."""
    assert scored.score is not None
    found = {**scored.score.summary(), "interval": list(interval(scored))}
    if isinstance(scored, Drawn):
        found["by_draw"] = [
            {"task": t.setting.task, "seed": t.setting.seed, **_outcome(t).summary()}
            for t in scored.trials
        ]
    return found


def _outcome(scored: Scored) -> Outcome:
    """Return the outcome under the first draw of what could be scored."""
    score = scored.trials[0].score
    assert score is not None
    return score
