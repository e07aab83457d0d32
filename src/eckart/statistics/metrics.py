"""The metrics of a confusion matrix, and the log-loss."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int
from scipy.special import logsumexp

from eckart.errors import EckartError


def confusion_matrix(
    labels: Sequence[int], predictions: Sequence[int], classes: int
) -> Int[np.ndarray, "classes classes"]:
    """Count how often each label was answered by each prediction.

    Arguments:
        labels, predictions: one class index in 0..classes-1 a row.
        classes: number of classes.

    Returns:
        Counts, `confusion[true, predicted]`.

    Raises:
        EckartError: the two differ in length, or an index is not a class.

    >>> confusion_matrix([0, 0, 1], [0, 1, 1], classes=2).tolist()
    [[1, 1], [0, 1]]
    """
    if len(labels) != len(predictions):
        raise EckartError(
            f"{len(labels)} labels and {len(predictions)} predictions; give one of each a row"
        )
    true, predicted = _class_indices(labels, classes), _class_indices(predictions, classes)
    return np.bincount(true * classes + predicted, minlength=classes**2).reshape(classes, classes)


def accuracy(confusion: Int[np.ndarray, "classes classes"]) -> float:
    """Return the share of rows that are right.

    Raises:
        EckartError: there are no rows.
    """
    return float(np.trace(confusion) / _rows(confusion))


def majority_rate(confusion: Int[np.ndarray, "classes classes"]) -> float:
    """Return the share of the most frequent label: what always answering it would score.

    Raises:
        EckartError: there are no rows.
    """
    return float(confusion.sum(axis=1).max() / _rows(confusion))


def balanced_accuracy(confusion: Int[np.ndarray, "classes classes"]) -> float:
    """Return the mean recall over the classes that occur among the labels.

    Raises:
        EckartError: there are no rows.

    >>> balanced_accuracy(np.array([[98, 0], [2, 0]]))  # always the majority's answer, right on 98%
    0.5
    """
    _rows(confusion)
    occurrences = confusion.sum(axis=1)
    occurs = occurrences > 0
    return float((confusion.diagonal()[occurs] / occurrences[occurs]).mean())


def macro_f1(confusion: Int[np.ndarray, "classes classes"]) -> float:
    """Return the unweighted mean of the classes' F1, over the classes that occur or are predicted.

    A class that occurs and is never predicted, or is predicted and never occurs, counts 0; one that
    does neither does not count. scikit-learn's default does the same.

    Raises:
        EckartError: there are no rows.

    >>> round(macro_f1(np.array([[98, 0], [2, 0]])), 3)
    0.495
    """
    _rows(confusion)
    # F1 = 2 TP / (2 TP + FP + FN), and the row's and column's sums are TP + FN and TP + FP.
    totals = confusion.sum(axis=0) + confusion.sum(axis=1)
    seen = totals > 0
    return float((2 * confusion.diagonal()[seen] / totals[seen]).mean())


def log_loss(scores: Float[np.ndarray, "rows labels"], labels: Sequence[int]) -> float:
    """Return the mean of minus the log of the probability given to the right label, in nats.

    The probabilities are the softmax of the labels' scores, in float64.

    Arguments:
        scores: one log-likelihood a row and label, in nats; minus infinity where the model rules a
            label out.
        labels: the index of the right label of each row.

    Returns:
        A number >= 0; infinity where a right label was ruled out and another was not. A row whose
        labels are all ruled out tells them apart no better than a guess, and counts as one.

    Raises:
        EckartError: there are no rows, the two differ in length, a label is not a column, or a
            score is NaN or plus infinity.

    >>> scores = np.array([[-1000.0, -1000.0], [-5.0, -np.inf]])
    >>> round(log_loss(scores, [0, 0]), 4)  # (log 2 + 0) / 2
    0.3466
    """
    values = scores.astype(np.float64)
    if len(values) != len(labels) or len(values) == 0:
        raise EckartError(
            f"{len(values)} rows of scores and {len(labels)} labels; give one of each a row"
        )
    if (np.isnan(values) | np.isposinf(values)).any():
        raise EckartError(
            "a score is NaN or plus infinity, and gives no probability; half precision may have"
            " overflowed: score in bfloat16 or float32"
        )
    values[np.isneginf(values).all(axis=1)] = 0.0
    right = values[np.arange(len(values)), _class_indices(labels, values.shape[1])]
    return float((logsumexp(values, axis=1) - right).mean())


def _class_indices(values: Sequence[int], classes: int) -> Int[np.ndarray, " rows"]:
    """Return class indices as an array, none of which counts from the end."""
    indices = np.asarray(values, dtype=np.int64)
    if ((indices < 0) | (indices >= classes)).any():
        raise EckartError(
            f"class indices reach from {indices.min()} to {indices.max()}; they are 0 to"
            f" {classes - 1}"
        )
    return indices


def _rows(confusion: Int[np.ndarray, "classes classes"]) -> int:
    n = int(confusion.sum())
    if n == 0:
        raise EckartError(
            "no row was scored, so there is nothing to average; score at least one row"
        )
    return n
