"""The drivers of `tests/kills`: each kills what it runs, and prints what it found as JSON."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

KILLS = Path(__file__).parents[1] / "kills"

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forked processes")


def driven(name: str, *arguments: object) -> Any:
    """Run a driver to its end, and return what it printed."""
    ended = subprocess.run(
        [sys.executable, KILLS / name, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)
