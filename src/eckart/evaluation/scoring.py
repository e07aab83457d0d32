"""From log-likelihoods of continuations to predictions, and from predictions to a score."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
from jaxtyping import Float, Int

from eckart.errors import NotANumberError, TaskError
from eckart.records import Score
from eckart.statistics import accuracy, balanced_accuracy, confusion_matrix, log_loss, macro_f1, majority_rate

Method = Literal["sum", "mean", "byte", "prior"]
METHODS: tuple[str, ...] = get_args(Method)
SCORING_VERSION = 2
"""Part of every trial's key: raise it when the same model and rows would score differently."""


def check_method(method: str) -> str:
    """Return a scoring method that exists.

    Raises:
        TaskError: it does not.
    """
    if method not in METHODS:
        raise TaskError(f"no scoring '{method}'; the scorings are {', '.join(METHODS)}")
    return method


def combine(
    method: str,
    sums: Float[np.ndarray, "prompts labels"],
    tokens: Int[np.ndarray, "prompts labels"],
    lengths: Int[np.ndarray, "prompts labels"],
    null_sums: Float[np.ndarray, "prompts labels"] | None = None,
) -> Float[np.ndarray, "prompts labels"]:
    """Turn the log-likelihood of every continuation into the value that ranks it.

    Arguments:
        method: `sum`, over the tokens: the log-probability of the whole label, what classification uses;
            `mean`, per token, which the paper states for multiple choice (Table 1);
            `byte`, per byte of the continuation's text, which does not depend on the tokenizer;
            `prior`, the sum less that under a prompt without content (Zhao et al. 2021; Holtzman et al. 2021).
        sums: log-likelihoods in nats.
        tokens, lengths: each continuation's number of tokens and of UTF-8 bytes.
        null_sums: log-likelihoods of the same continuations after the prompt without content.
    """
    if method == "mean":
        return sums / tokens
    if method == "byte":
        return sums / lengths
    if method == "prior":
        assert null_sums is not None
        return sums - null_sums
    return sums


def join_scores(parts: Sequence[Score]) -> Score:
    """Return the score of all the parts' rows together, in their order."""
    values = np.array([row for part in parts for row in part.log_likelihoods])
    labels = [label for part in parts for label in part.labels]
    return score(values, labels, [f"row {i}" for i in range(len(labels))])


def score(values: Float[np.ndarray, "prompts labels"], labels: Sequence[int], ids: Sequence[str]) -> Score:
    """Score predictions: for each row the label with the largest value; of equal ones the first.

    Arguments:
        values: what ranks the labels, in nats.
        labels: the right label of each row.
        ids: each row's name, for the error.

    Raises:
        NotANumberError: a value is not a number, so that nothing could be ranked.
    """
    broken = np.isnan(values).any(axis=1)
    if broken.any():
        raise NotANumberError(
            f"the model gives no probability (NaN) for {int(broken.sum())} row(s), "
            f"such as {ids[int(broken.argmax())]}; "
            "half precision may have overflowed: try --dtype bfloat16 or float32"
        )
    predictions = values.argmax(axis=1)
    confusion = confusion_matrix(labels, predictions.tolist(), values.shape[1])
    return Score(
        n=len(labels),
        accuracy=accuracy(confusion),
        balanced_accuracy=balanced_accuracy(confusion),
        macro_f1=macro_f1(confusion),
        log_loss=log_loss(values, labels),
        majority_rate=majority_rate(confusion),
        confusion=tuple(tuple(row) for row in confusion.tolist()),
        labels=tuple(labels),
        predictions=tuple(predictions.tolist()),
        log_likelihoods=tuple(tuple(row) for row in values.tolist()),
    )
