"""Scoring a model on a task."""

from eckart.evaluation.evaluator import Evaluator, evaluate
from eckart.evaluation.outcome import Evaluation

__all__ = ["Evaluation", "Evaluator", "evaluate"]
