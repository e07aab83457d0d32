"""The command line: one short function a verb over a library call."""

from __future__ import annotations

import sys


def main() -> None:
    """Run `eckart` and end with its status."""
    from eckart.cli.app import app
    from eckart.cli.console import run

    sys.exit(run(lambda: app(standalone_mode=False)))
