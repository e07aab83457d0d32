"""What labels score by themselves, before any row is read: the prior that calibrated scorings take
away."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.special import log_softmax, logsumexp

from eckart.records import Split
from eckart.scoring.fitting import Fitted
from eckart.scoring.forward.fastest import Readable
from eckart.scoring.forward.trunk import Point
from eckart.tasks.prompts import CONTENT_FREE, Prompt
from eckart.tasks.task import Task

INPUTS: dict[str, tuple[str, ...]] = {
    "prior": (CONTENT_FREE,),
    "contextual": (CONTENT_FREE, "", "[MASK]"),
}
"""What stands for every input in the prompts without content of a scoring (Zhao et al. 2021,
Calibrate Before Use)."""

Values = Float[np.ndarray, "prompts labels"]


@dataclass(frozen=True, eq=False)
class Nulls:
    """The prompts without content of a split's rows.

    Arguments:
        rows: the distinct ones.
        which: for each content-free input, which of them is each row's.
    """

    rows: Readable
    which: Int[np.ndarray, "inputs prompts"]

    def log_likelihoods(
        self, start: Point | None, keep: frozenset[Point]
    ) -> Float[np.ndarray, "inputs prompts labels"]:
        """Return what every row's continuations score after each content-free input; see
        `Reader.sums`."""
        return self.rows.sums(start, keep, lambda prompts: None)[0][self.which]

    def part(self, split: Split) -> Nulls:
        """Return those of some of the rows."""
        return Nulls(self.rows, self.which[:, split.slice])


def null_prompts(
    task: Task, fitted: Fitted, inputs: tuple[str, ...]
) -> tuple[tuple[Prompt, ...], Int[np.ndarray, "inputs prompts"]]:
    """Return the distinct prompts without content of a split's rows, and for each input which of
    them is each row's."""
    pairs = list(zip(fitted.prompts, fitted.shots, strict=True))
    nulls = [[task.null_prompt(prompt, shots, text) for prompt, shots in pairs] for text in inputs]
    distinct = {(null.context, null.continuations): null for row in nulls for null in row}
    place = {content: index for index, content in enumerate(distinct)}
    which = np.array([[place[null.context, null.continuations] for null in row] for row in nulls])
    return tuple(distinct.values()), which


def contextual(sums: Values, null_sums: Float[np.ndarray, "inputs prompts labels"]) -> Values:
    """Take away the mean label distribution after content-free inputs (Zhao et al. 2021, section
    5).

    Their q = W p with W = diag(p_cf)^-1, in logs: log p less log p_cf, where p is the distribution
    over a row's labels and p_cf is its mean over the content-free inputs.

    Arguments:
        sums: log-likelihoods in nats.
        null_sums: those of the same continuations after each content-free input.

    >>> contextual(np.log([[0.6, 0.4]]), np.log([[[0.9, 0.1]], [[0.7, 0.3]]])).argmax()
    np.int64(1)
    """
    return log_softmax(sums, axis=1) - _log_mean(log_softmax(null_sums, axis=2))


def batch(sums: Values) -> Values:
    """Take away the mean label distribution of all rows: p(y|x) / mean p(y|x), in logs (Zhou et al.
    2024).

    The rows' labels are not used, but all rows are: what one row scores depends on the others.

    Arguments:
        sums: log-likelihoods in nats, of the same labels in every row.

    >>> batch(np.log([[0.9, 0.1], [0.7, 0.3]])).argmax(axis=1)
    array([0, 1])
    """
    rows = log_softmax(sums, axis=1)
    return rows - _log_mean(rows)


def _log_mean(values: Float[np.ndarray, "several ... labels"]) -> Float[np.ndarray, "... labels"]:
    """Return the log of the mean of the exponentials, over the first axis."""
    return np.asarray(logsumexp(values, axis=0)) - np.log(len(values))
