"""Scoring methods: from log-likelihoods of continuations to predictions, and from those to a
score."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias, get_args

import numpy as np
from jaxtyping import Float, Int
from scipy.special import log_softmax, logsumexp

from eckart.errors import NotANumberError, TaskError
from eckart.records import Split
from eckart.scoring.fitting import Fitted
from eckart.scoring.forward.fastest import CheckedReader
from eckart.scoring.forward.trunk import LayerPoint
from eckart.scoring.requests import Requests
from eckart.statistics.metrics import (
    accuracy,
    balanced_accuracy,
    confusion_matrix,
    log_loss,
    macro_f1,
    majority_rate,
)
from eckart.statistics.scores import Score
from eckart.tasks.prompts import CONTENT_FREE, Prompt
from eckart.tasks.task import Task

Method = Literal["sum", "mean", "byte", "character", "prior", "contextual", "batch", "logit"]
METHODS: tuple[str, ...] = get_args(Method)
Ranks: TypeAlias = Float[np.ndarray, "prompts labels"]
"""What ranks each row's labels; their softmax is what the model gives for probabilities."""
SCORING_VERSION = 2
"""Part of every trial's key: raise it when the same model and rows would score differently."""

OF_ALL_ROWS = ("batch",)
"""The methods that need all rows of a split together."""

INPUTS: dict[str, tuple[str, ...]] = {
    "prior": (CONTENT_FREE,),
    "contextual": (CONTENT_FREE, "", "[MASK]"),
}
"""What stands for every input in the prompts without content of a scoring (Zhao et al. 2021,
Calibrate Before Use)."""


@dataclass(frozen=True, eq=False)
class LogLikelihoods:
    """What the model said of a split's rows: all that any method ranks labels by.

    Arguments:
        sums: the log-likelihood of every continuation, in nats.
        tokens, lengths: each continuation's number of tokens and of UTF-8 bytes.
        characters: of each label itself, without what joins it to the prompt.
        null_sums: log-likelihoods of the same continuations after content-free inputs, for the
            methods that need them.
        logit_sums: the sum over its positions of the mean over the vocabulary of the logits there,
            for `logit`.
    """

    sums: Float[np.ndarray, "prompts labels"]
    tokens: Int[np.ndarray, "prompts labels"]
    lengths: Int[np.ndarray, "prompts labels"]
    characters: Int[np.ndarray, "prompts labels"]
    null_sums: Mapping[str, Float[np.ndarray, "inputs prompts labels"]] = field(
        default_factory=dict
    )
    logit_sums: Float[np.ndarray, "prompts labels"] | None = None

    @property
    def measured(self) -> list[Float[np.ndarray, "... prompts labels"]]:
        """All that was measured."""
        logits = [] if self.logit_sums is None else [self.logit_sums]
        return [self.sums, *self.null_sums.values(), *logits]


def check_method(method: str, kind: str = "classification", split: str = "validation") -> str:
    """Return a scoring method that exists, and goes with the rows.

    Arguments:
        method: its name.
        kind: the task's: `classification` or `choices`.
        split: the split's name, or that of some of its rows.

    Raises:
        TaskError: there is no such method, or it needs all rows of a split, or the same labels in
            every row.
    """
    if method not in METHODS:
        raise TaskError(f"no scoring '{method}'; the scorings are {', '.join(METHODS)}")
    if method == "batch" and kind == "choices":
        raise TaskError(
            "scoring 'batch' takes away the mean over the rows of the labels' probabilities, but"
            " here each row brings its own candidates; choose 'contextual' or 'prior'"
        )
    if method == "logit" and kind == "classification":
        raise TaskError(
            "scoring 'logit' is what the authors' code does with multiple choice; it does not look"
            " at which tokens a label is made of, so all labels of one token are alike; choose"
            " 'sum'"
        )
    check_parts(method, split)
    return method


def check_parts(method: str, split: str) -> None:
    """Refuse to score some rows of a split by a method that needs all of them, by a TaskError."""
    if method in OF_ALL_ROWS and Split(split).is_part:
        raise TaskError(
            f"scoring 'batch' needs all rows of a split together, and '{split}' are some of them;"
            " --limit, a race, a greedy search and --layer validation read a split in parts: leave"
            " these out, or choose 'contextual'"
        )


def check_winnable(method: str, kind: str, requests: Requests, prompts: Sequence[Prompt]) -> None:
    """Refuse labels of which one can never be predicted: its tokens begin with another's, and are
    added up.

    Each further token takes something away, so that the longer one's sum is always behind.

    Arguments:
        method: how labels are ranked.
        kind: the task's; candidates of single rows may be so.
        requests: the tokens of
        prompts: these rows.

    Raises:
        TaskError: so it is.
    """
    if method != "sum" or kind != "classification":
        return
    tokens_of = {
        tuple(c.tokens for c in found): prompt
        for prompt, found in zip(prompts, requests.continuations, strict=True)
    }
    for tokens, prompt in tokens_of.items():
        for short, long in itertools.permutations(range(len(tokens)), 2):
            if tokens[long][: len(tokens[short])] == tokens[short]:
                behind, ahead = (prompt.continuations[i].strip() for i in (long, short))
                raise TaskError(
                    f"label '{behind}' begins with the tokens of '{ahead}': its summed"
                    " log-likelihood is always behind, so it is never predicted; use --scoring"
                    " mean, or --label-end '\\n', which scores every label together with the line"
                    " break after it"
                )


def combine(method: str, likelihoods: LogLikelihoods) -> Float[np.ndarray, "prompts labels"]:
    """Turn log-likelihoods into the value that ranks each label.

    Arguments:
        method: `sum`, over the tokens: the log-probability of the whole label, what classification
            uses; `mean`, per token, which the paper states for multiple choice (Table 1);
            `byte`, per byte of the continuation's text, which does not depend on the tokenizer;
            `character`, per character of the label itself: `acc_norm` of lm-evaluation-harness;
            `prior`, the sum less that under a prompt without content (Zhao et al. 2021; Holtzman et
            al. 2021); `contextual`, the label's log-probability among the labels, less the log of
            its mean probability under three prompts without content (Zhao et al. 2021);
            `batch`, the same less the log of its mean probability over all rows (Zhou et al. 2024);
            `logit`, the mean over the continuation's positions and the whole vocabulary of the raw
            logits: what the authors' code is recorded to do for COPA, where the paper says the
                average log-likelihood.
        likelihoods: what was read.
    """
    if method == "mean":
        return likelihoods.sums / likelihoods.tokens
    if method == "byte":
        return likelihoods.sums / likelihoods.lengths
    if method == "character":
        return likelihoods.sums / likelihoods.characters
    if method == "prior":
        return likelihoods.sums - likelihoods.null_sums[method][0]
    if method == "contextual":
        return contextual(likelihoods.sums, likelihoods.null_sums[method])
    if method == "batch":
        return batch(likelihoods.sums)
    if method == "logit":
        assert likelihoods.logit_sums is not None
        return likelihoods.logit_sums / likelihoods.tokens
    return likelihoods.sums


def contextual(
    sums: Float[np.ndarray, "prompts labels"], null_sums: Float[np.ndarray, "inputs prompts labels"]
) -> Float[np.ndarray, "prompts labels"]:
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


def batch(sums: Float[np.ndarray, "prompts labels"]) -> Float[np.ndarray, "prompts labels"]:
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


REMEDIES = {
    "float16": "numbers beyond 65,504 overflow in float16; use --dtype bfloat16 or float32",
    "bfloat16": "use --dtype float32, and if that gives none either, the weights are damaged",
}
"""What may help where a model's outputs are not numbers, by its dtype."""


def check_finite(
    values: Float[np.ndarray, "... prompts labels"], ids: Sequence[str], dtype: str = ""
) -> None:
    """Refuse values of which one is infinite or not a number: a row of equal infinities would go to
    its first label.

    Arguments:
        values: of each row's labels; several measures of them, perhaps.
        ids: each row's name, for the error.
        dtype: what the model computes in.

    Raises:
        NotANumberError: so it is.
    """
    broken = ~np.isfinite(values).all(axis=-1).reshape(-1, values.shape[-2]).all(axis=0)
    if broken.any():
        raise NotANumberError(
            f"the model gives no probability (NaN or infinite) for {int(broken.sum())} of"
            f" {len(broken)} row(s), such as {ids[int(broken.argmax())]};"
            f" {REMEDIES.get(dtype, 'the weights are damaged, or were clipped too far')}"
        )


def join_scores(parts: Sequence[Score]) -> Score:
    """Return the score of all the parts' rows together, in their order."""
    values = np.array([row for part in parts for row in part.log_likelihoods])
    labels = [label for part in parts for label in part.labels]
    return score(values, labels, [f"row {i}" for i in range(len(labels))])


def score(
    values: Float[np.ndarray, "prompts labels"], labels: Sequence[int], ids: Sequence[str]
) -> Score:
    """Score predictions: for each row the label with the largest value; of equal ones the first.

    Arguments:
        values: what ranks the labels, in nats.
        labels: the right label of each row.
        ids: each row's name, for the error.

    Raises:
        NotANumberError: a value is infinite or not a number, so that nothing could be ranked.
    """
    check_finite(values, ids)
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


@dataclass(frozen=True, eq=False)
class Nulls:
    """The prompts without content of a split's rows.

    Arguments:
        rows: the distinct ones.
        which: for each content-free input, which of them is each row's.
    """

    rows: CheckedReader
    which: Int[np.ndarray, "inputs prompts"]

    def log_likelihoods(
        self, start: LayerPoint | None, keep: frozenset[LayerPoint]
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
