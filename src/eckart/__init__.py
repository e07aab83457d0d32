"""Clip these matrices, score this task, record the trial.

Each name is imported when it is first used, so that `import eckart` is quick and needs neither
torch nor transformers.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

_HOME = {
    "Anatomy": "eckart.weights.anatomy",
    "EckartError": "eckart.errors",
    "Edit": "eckart.records",
    "Factor": "eckart.weights.linalg",
    "Task": "eckart.tasks",
    "clip": "eckart.weights.edits",
    "clip_": "eckart.weights.edits",
    "evaluate": "eckart.scoring.evaluator",
    "export": "eckart.exports.dense",
    "predict": "eckart.exports.predictions",
    "progress": "eckart.scoring.scorer",
    "report": "eckart.reports.page",
    "search": "eckart.selection.search",
    "sweep": "eckart.sweeps.sweep",
}
__all__ = [
    "Anatomy",
    "EckartError",
    "Edit",
    "Factor",
    "Task",
    "clip",
    "clip_",
    "evaluate",
    "export",
    "predict",
    "progress",
    "report",
    "search",
    "sweep",
]

if TYPE_CHECKING:
    from eckart.errors import EckartError
    from eckart.exports.dense import export
    from eckart.exports.predictions import predict
    from eckart.records import Edit
    from eckart.reports.page import report
    from eckart.scoring.evaluator import evaluate
    from eckart.scoring.scorer import progress
    from eckart.selection.search import search
    from eckart.sweeps.sweep import sweep
    from eckart.tasks import Task
    from eckart.weights.anatomy import Anatomy
    from eckart.weights.edits import clip, clip_
    from eckart.weights.linalg import Factor


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return version("eckart")
    if name not in _HOME:
        raise AttributeError(f"module 'eckart' has no attribute '{name}'")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
