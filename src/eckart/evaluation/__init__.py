"""Scoring a model on a task."""

from eckart.evaluation.evaluator import Evaluation, Evaluator, evaluate

__all__ = ["Evaluation", "Evaluator", "evaluate"]
