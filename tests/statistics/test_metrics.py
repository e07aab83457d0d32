"""Metrics of a confusion matrix against their definitions, and the log-loss."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eckart.errors import EckartError
from eckart.statistics.metrics import (
    accuracy,
    balanced_accuracy,
    confusion_matrix,
    log_loss,
    macro_f1,
    majority_rate,
)

deterministic = settings(derandomize=True, deadline=None, max_examples=100, database=None)


class TestMetrics:
    # Three classes and one that neither occurs nor is predicted; class 2 occurs and is never
    # predicted.
    confusion = confusion_matrix(
        [0, 0, 0, 0, 0, 0, 1, 1, 1, 2], [0, 0, 0, 0, 1, 1, 1, 1, 0, 0], classes=4
    )

    def test_confusion_counts_true_by_predicted(self):
        expected = [[4, 2, 0, 0], [1, 2, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]
        assert self.confusion.tolist() == expected

    def test_by_hand(self):
        assert accuracy(self.confusion) == 6 / 10
        assert majority_rate(self.confusion) == 6 / 10
        assert balanced_accuracy(self.confusion) == pytest.approx((4 / 6 + 2 / 3 + 0) / 3)
        assert macro_f1(self.confusion) == pytest.approx((8 / 12 + 4 / 7 + 0) / 3)

    def test_a_class_that_is_predicted_and_never_occurs_lowers_f1_and_not_recall(self):
        confusion = confusion_matrix([0, 0, 0, 0], [0, 0, 0, 1], classes=2)
        assert balanced_accuracy(confusion) == 3 / 4
        assert macro_f1(confusion) == pytest.approx((6 / 7 + 0) / 2)

    @deterministic
    @given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=40))
    def test_are_those_of_their_definitions(self, rows):
        labels, predictions = (list(column) for column in zip(*rows, strict=True))
        confusion = confusion_matrix(labels, predictions, classes=4)
        assert confusion.sum() == len(rows)
        assert accuracy(confusion) == pytest.approx(np.mean([a == b for a, b in rows]))
        assert majority_rate(confusion) == max(labels.count(c) for c in range(4)) / len(rows)
        recalls, f1s = [], []
        for c in sorted({*labels, *predictions}):
            hits = sum(a == b == c for a, b in rows)
            precision = hits / predictions.count(c) if c in predictions else 0.0
            recall = hits / labels.count(c) if c in labels else 0.0
            recalls += [recall] if c in labels else []
            f1s.append(2 * precision * recall / (precision + recall) if hits else 0.0)
        assert balanced_accuracy(confusion) == pytest.approx(np.mean(recalls))
        assert macro_f1(confusion) == pytest.approx(np.mean(f1s))

    @pytest.mark.parametrize("metric", [accuracy, majority_rate, balanced_accuracy, macro_f1])
    def test_refuse_an_empty_split(self, metric):
        with pytest.raises(EckartError, match="no row was scored"):
            metric(confusion_matrix([], [], classes=2))

    @pytest.mark.parametrize(("labels", "predictions"), [([2], [0]), ([0], [-1])])
    def test_refuse_an_index_that_is_no_class(self, labels, predictions):
        with pytest.raises(EckartError, match="they are 0 to 1"):
            confusion_matrix(labels, predictions, classes=2)

    def test_refuse_labels_without_predictions(self):
        with pytest.raises(EckartError, match="2 labels and 1 predictions"):
            confusion_matrix([0, 1], [0], classes=2)


class TestLogLoss:
    def test_by_hand(self):
        scores = np.log(
            [[0.2, 0.3], [0.09, 0.01]]
        )  # normalised over the labels: 0.4, 0.6; 0.9, 0.1
        assert log_loss(scores, [1, 0]) == pytest.approx(-(math.log(0.6) + math.log(0.9)) / 2)

    def test_a_guess_costs_the_log_of_the_number_of_labels(self):
        assert log_loss(np.zeros((5, 4)), [0, 1, 2, 3, 0]) == pytest.approx(math.log(4))

    @deterministic
    @given(st.floats(-1e6, 1e6), st.integers(0, 2))
    def test_does_not_change_when_all_scores_shift(self, shift, label):
        scores = np.array([[-1.0, -2.0, -4.0]])
        assert log_loss(scores + shift, [label]) == pytest.approx(
            log_loss(scores, [label]), abs=1e-9
        )

    @pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
    def test_is_stable_and_computed_in_float64(self, dtype):
        assert log_loss(np.array([[-60000.0, -60064.0]], dtype=dtype), [1]) == pytest.approx(64.0)
        assert log_loss(np.zeros((3, 2), dtype=dtype), [0, 1, 0]) == pytest.approx(
            math.log(2), rel=1e-12
        )

    def test_minus_infinity_rules_a_label_out(self):
        scores = np.array([[-3.0, -math.inf, -3.0]])
        assert log_loss(scores, [0]) == pytest.approx(math.log(2))
        assert log_loss(scores, [1]) == math.inf
        assert log_loss(np.full((1, 3), -math.inf), [1]) == pytest.approx(math.log(3))

    def test_leaves_the_scores_as_they_are(self):
        scores = np.full((1, 2), -math.inf)
        log_loss(scores, [0])
        assert np.isneginf(scores).all()

    @pytest.mark.parametrize("bad", [math.nan, math.inf])
    def test_refuses_what_gives_no_probability(self, bad):
        with pytest.raises(EckartError, match="NaN or plus infinity"):
            log_loss(np.array([[0.0, bad]]), [0])

    @pytest.mark.parametrize(
        ("rows", "labels", "says"), [(0, [], "0 rows"), (2, [0], "2 rows"), (1, [2], "0 to 1")]
    )
    def test_refuses_rows_and_labels_that_do_not_match(self, rows, labels, says):
        with pytest.raises(EckartError, match=says):
            log_loss(np.zeros((rows, 2)), labels)
