"""The outcomes of a model on the rows of a split: on labels, or on numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from operator import eq
from typing import Any, ClassVar, TypeAlias

METRICS = ("accuracy", "balanced_accuracy", "macro_f1")
"""The fields of a `Score` that a choice may compare."""

SQUARED_ERROR = "squared_error"
"""The field of `SquaredErrors` that a choice compares; smaller is better."""

ALL_METRICS = (*METRICS, SQUARED_ERROR)


@dataclass(frozen=True)
class Score:
    """How well a model did on the rows of a split.

    Arguments:
        n: number of rows.
        accuracy, balanced_accuracy, macro_f1: shares in [0, 1].
        log_loss: mean of minus the log of the probability given to the right label, in nats, where
            the probabilities are the softmax of the labels' scores.
        majority_rate: the share of the most frequent label: what always answering it would score.
        confusion: counts, `confusion[true][predicted]`.
        labels, predictions: the right label's and the predicted label's index for each row, in the
            split's order.
        log_likelihoods: one value a label and row, in nats: the values that were ranked. Empty
            where a run was read without them.
    """

    headline: ClassVar[str] = "accuracy"
    others: ClassVar[tuple[str, ...]] = (
        "balanced_accuracy",
        "macro_f1",
        "log_loss",
        "majority_rate",
    )
    bounds: ClassVar[tuple[float, float] | None] = (0.0, 1.0)
    test: ClassVar[str] = "exact McNemar"
    turned: ClassVar[tuple[str, str]] = ("fixed", "broken")

    n: int
    accuracy: float
    balanced_accuracy: float
    macro_f1: float
    log_loss: float
    majority_rate: float
    confusion: tuple[tuple[int, ...], ...]
    labels: tuple[int, ...]
    predictions: tuple[int, ...]
    log_likelihoods: tuple[tuple[float, ...], ...]

    @property
    def right(self) -> list[bool]:
        """Whether each row's prediction is its label."""
        return list(map(eq, self.labels, self.predictions))

    @property
    def row_merits(self) -> tuple[float, ...]:
        """1 for each row that is right, 0 for each that is wrong."""
        return tuple(map(float, self.right))

    @property
    def merits(self) -> dict[str, float]:
        """What a choice may compare, by metric; larger is better."""
        return {metric: getattr(self, metric) for metric in METRICS}

    def without_rows(self) -> Score:
        """Return everything but the rows."""
        return replace(self, labels=(), predictions=(), log_likelihoods=())

    def summary(self) -> dict[str, Any]:
        """Return everything but the rows."""
        return {
            k: v
            for k, v in asdict(self).items()
            if k not in ("labels", "predictions", "log_likelihoods")
        }


@dataclass(frozen=True)
class SquaredErrors:
    """How far a model's predictions were from the numbers asked for, on the rows of a split.

    Arguments:
        n: number of rows.
        squared_error: the mean of the rows' errors.
        errors: each row's squared error, in the split's order, over the variance of what is asked
            for.
    """

    headline: ClassVar[str] = SQUARED_ERROR
    others: ClassVar[tuple[str, ...]] = ()
    bounds: ClassVar[tuple[float, float] | None] = None
    test: ClassVar[str] = "paired t test,"
    turned: ClassVar[tuple[str, str]] = ("closer", "further off")

    n: int
    squared_error: float
    errors: tuple[float, ...]

    @property
    def row_merits(self) -> tuple[float, ...]:
        """Minus each row's error."""
        return tuple(-error for error in self.errors)

    @property
    def merits(self) -> dict[str, float]:
        """What a choice may compare, by metric; larger is better."""
        return {SQUARED_ERROR: -self.squared_error}

    def without_rows(self) -> SquaredErrors:
        """Return everything but the rows."""
        return replace(self, errors=())

    def summary(self) -> dict[str, Any]:
        """Return everything but the rows."""
        return {"n": self.n, SQUARED_ERROR: self.squared_error}


Outcome: TypeAlias = Score | SquaredErrors
"""What a trial gives, of labels or of numbers. Both kinds have

    headline: the metric that `row_merits` average to, and `others` that are reported beside it;
    bounds: the least and the largest merit of a row; None where there is no least;
    test: of a difference on the same rows under one seed, and `turned`: words for rows that are
        better after, and worse;
    row_merits, merits: of each row, and of all; larger is better.
"""


def shown(metric: str, merit: float) -> float:
    """Return a merit as it is reported: an error is positive."""
    return -merit if metric == SQUARED_ERROR else merit


def read_outcome(values: Mapping[str, Any]) -> Outcome:
    """Return the outcome that `asdict` gave, from JSON."""
    if SQUARED_ERROR in values:
        return SquaredErrors(**{**values, "errors": tuple(values["errors"])})
    flat = {name: tuple(values[name]) for name in ("labels", "predictions")}
    nested = {name: tuple(map(tuple, values[name])) for name in ("confusion", "log_likelihoods")}
    return Score(**{**values, **flat, **nested})
