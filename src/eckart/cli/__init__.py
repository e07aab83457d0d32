"""The command line: one short function a verb over a library call."""

from __future__ import annotations

import io
import sys


def main() -> None:
    """Run `eckart` and end with its status."""
    from eckart.cli.app import app
    from eckart.cli.console import run

    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(
                errors="backslashreplace"
            )  # a terminal that lacks a character still shows the rest
    sys.exit(run(lambda: app(standalone_mode=False)))
