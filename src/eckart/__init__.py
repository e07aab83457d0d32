"""Clip these matrices, score this task, record the trial.

Each name is imported when it is first used, so that `import eckart` is quick and needs neither torch nor transformers.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOME = {
    "Anatomy": "eckart.anatomy",
    "EckartError": "eckart.errors",
    "Edit": "eckart.records",
    "Factor": "eckart.linalg",
    "Task": "eckart.tasks",
    "clip": "eckart.edits",
    "clip_": "eckart.edits",
    "evaluate": "eckart.evaluation",
    "export": "eckart.checkpoints",
    "report": "eckart.reports.page",
    "search": "eckart.selection",
    "sweep": "eckart.selection",
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
    "report",
    "search",
    "sweep",
]

if TYPE_CHECKING:
    from eckart.anatomy import Anatomy
    from eckart.checkpoints import export
    from eckart.edits import clip, clip_
    from eckart.errors import EckartError
    from eckart.evaluation import evaluate
    from eckart.linalg import Factor
    from eckart.records import Edit
    from eckart.reports.page import report
    from eckart.selection import search, sweep
    from eckart.tasks import Task


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'eckart' has no attribute '{name}'")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
