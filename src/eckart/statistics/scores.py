"""The outcomes of a model on the rows of a split: on labels, on numbers, or on a text."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib import import_module
from operator import eq
from typing import Any, ClassVar, TypeAlias

from eckart.errors import EditError

LOG_LOSS = "log_loss"

METRICS = ("accuracy", "balanced_accuracy", "macro_f1", LOG_LOSS)
"""The fields of a `Score` that a choice may compare."""

SQUARED_ERROR = "squared_error"
"""The field of `SquaredErrors` that a choice compares."""

LOSSES = (LOG_LOSS, SQUARED_ERROR)
"""Metrics of which smaller is better: the merit is minus the field."""

ALL_METRICS = (*METRICS, SQUARED_ERROR)

DIVERGENCES = "divergences"
"""The field of a `TextReading` that no other outcome has."""

TEXT_PREFIX = "(text) "
"""What a `Setting` puts before the name of a text; no task's name begins so."""


class Shown:
    """A result, which a notebook shows as a terminal does, and otherwise by its first words."""

    def __repr__(self) -> str:
        said = next(filter(None, str(self).splitlines()), "")
        return f"<{type(self).__name__}: {said}>"

    def _repr_html_(self) -> str:
        # By its name: what shows results stands above them.
        return import_module("eckart.reports.shown").html(self)


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
    labels: tuple[int, ...] = field(repr=False)
    predictions: tuple[int, ...] = field(repr=False)
    log_likelihoods: tuple[tuple[float, ...], ...] = field(repr=False)

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
        return {metric: shown(metric, getattr(self, metric)) for metric in METRICS}

    def row_values(self, metric: str) -> tuple[float, ...]:
        """Return what each row adds to a metric; larger is better.

        Arguments:
            metric: `accuracy`, 1 for each row that is right and 0 for each that is wrong; or
                `log_loss`, the log of the probability given to the right label, in nats.

        Raises:
            EditError: the metric is no mean over rows.
        """
        if metric == "accuracy":
            return self.row_merits
        if metric != LOG_LOSS:
            raise EditError(
                f"{metric.replace('_', ' ')} is no mean over rows, so no row has a value of its"
                " own; choose accuracy or log_loss"
            )
        rows = zip(self.labels, self.log_likelihoods, strict=True)
        return tuple(_log_probability(values, label) for label, values in rows)

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
    errors: tuple[float, ...] = field(repr=False)

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


@dataclass(frozen=True)
class TextReading:
    """How well a model predicts a text, and how far its predictions are from the unpruned model's.

    Tokens that stand near each other are not independent: a window of them is the unit.

    Arguments:
        n: number of windows.
        log_loss: mean of minus the log of the probability given to the next token, in nats a token.
        divergence: mean of KL(unpruned || this model) of the next token, in nats a token; 0 for the
            unpruned model.
        tokens: how many tokens were predicted in each window.
        losses, divergences: the same two, summed over each window's tokens.
    """

    headline: ClassVar[str] = "log_loss"
    others: ClassVar[tuple[str, ...]] = ("divergence",)
    bounds: ClassVar[tuple[float, float] | None] = None
    test: ClassVar[str] = "paired t test,"
    turned: ClassVar[tuple[str, str]] = ("closer", "further off")

    n: int
    log_loss: float
    divergence: float
    tokens: tuple[int, ...]
    losses: tuple[float, ...]
    divergences: tuple[float, ...]

    @classmethod
    def of(
        cls, tokens: Sequence[int], losses: Sequence[float], divergences: Sequence[float]
    ) -> TextReading:
        """Return the reading of these windows."""
        return cls(
            n=len(tokens),
            log_loss=sum(losses) / sum(tokens),
            divergence=sum(divergences) / sum(tokens),
            tokens=tuple(tokens),
            losses=tuple(losses),
            divergences=tuple(divergences),
        )

    @property
    def row_merits(self) -> tuple[float, ...]:
        """Minus each window's loss a token."""
        return tuple(-loss / n for loss, n in zip(self.losses, self.tokens, strict=True))

    @property
    def merits(self) -> dict[str, float]:
        """What a choice may compare, by metric; larger is better."""
        return {"log_loss": -self.log_loss}

    def without_rows(self) -> TextReading:
        """Return everything but the windows."""
        return replace(self, tokens=(), losses=(), divergences=())

    def summary(self) -> dict[str, Any]:
        """Return everything but the windows."""
        return {"n": self.n, "log_loss": self.log_loss, "divergence": self.divergence}


Outcome: TypeAlias = Score | SquaredErrors | TextReading
"""What a trial gives, of labels, of numbers or of a text. All kinds have

    headline: the metric that `row_merits` average to, and `others` that are reported beside it;
    bounds: the least and the largest merit of a row; None where there is no least;
    test: of a difference on the same rows under one seed, and `turned`: words for rows that are
        better after, and worse;
    row_merits, merits: of each row, and of all; larger is better.
"""


def shown(metric: str, merit: float) -> float:
    """Return a merit as it is reported, or the merit of what is reported: a loss is positive."""
    return -merit if metric in LOSSES else merit


def read_outcome(values: Mapping[str, Any]) -> Outcome:
    """Return the outcome that `asdict` gave, from JSON."""
    if DIVERGENCES in values:
        windows = {name: tuple(values[name]) for name in ("tokens", "losses", DIVERGENCES)}
        return TextReading(**{**values, **windows})
    if SQUARED_ERROR in values:
        return SquaredErrors(**{**values, "errors": tuple(values["errors"])})
    flat = {name: tuple(values[name]) for name in ("labels", "predictions")}
    nested = {name: tuple(map(tuple, values[name])) for name in ("confusion", "log_likelihoods")}
    return Score(**{**values, **flat, **nested})


def _log_probability(values: Sequence[float], label: int) -> float:
    """Return the log of the softmax of some log-likelihoods at a label."""
    largest = max(values)
    total = math.fsum(math.exp(value - largest) for value in values)
    return values[label] - largest - math.log(total)
