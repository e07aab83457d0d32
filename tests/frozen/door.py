"""The doors of eckart that no refactoring moves: the command line, and the names of the package
itself."""

import contextlib
import io
import runpy
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import eckart

HERE = Path(__file__).parent
TASKS = HERE / "tasks"
MODEL = Path(eckart.__file__).parent / "demo" / "model"
"""The model that comes with the package."""


@dataclass(frozen=True)
class Ended:
    """How a command ended: its status and what it printed."""

    status: int
    out: str
    err: str


def command(*arguments: object) -> Ended:
    """Run `python -m eckart` in this process."""
    out, err = io.StringIO(), io.StringIO()
    status = 0
    with (
        mock.patch.object(sys, "argv", ["eckart", *map(str, arguments)]),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            runpy.run_module("eckart", run_name="__main__")
        except SystemExit as ended:
            status = int(ended.code or 0)
    return Ended(status, out.getvalue(), err.getvalue())


def verbs() -> Any:
    """Return the command line as a tree of click's commands; the one place that names the app."""
    import typer

    from eckart.cli.app import app

    return typer.main.get_command(app)
