"""The drivers of `tests/kills`: each kills what it runs, and prints what it found as JSON."""

import atexit
import json
import os
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import pytest

KILLS = Path(__file__).parents[1] / "kills"

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forked processes")

# It has imported what takes long, and becomes each driver in turn. tqdm's own lock is one for all
# forks: who is killed within it leaves it locked, and the others wait for ever.
FORKS = f"""
import json, os, runpy, sys, threading
import eckart.selection.search, eckart.sweeps.sweep
from tqdm import tqdm
tqdm.set_lock(threading.RLock())
sys.path.insert(0, {str(KILLS)!r})
for line in sys.stdin:
    said, name, *sys.argv[1:] = json.loads(line)
    if os.fork() == 0:
        file = os.open(said, os.O_CREAT | os.O_WRONLY)
        os.dup2(file, 1), os.dup2(file, 2)
        runpy.run_path(name, run_name="__main__")
        sys.exit()
    print(os.wait()[1], flush=True)
"""


def driven(name: str, *arguments: object) -> Any:
    """Run a driver to its end, and return what it printed."""
    with tempfile.TemporaryDirectory() as folder:
        said, forks = Path(folder) / "said", _forks()
        print(json.dumps([str(said), str(KILLS / name), *map(str, arguments)]), file=forks.stdin)
        ended = forks.stdout.readline()
        assert ended == "0\n", said.read_text()
        return json.loads(said.read_text().splitlines()[-1])


@cache
def _forks() -> subprocess.Popen[str]:
    forks = subprocess.Popen(
        [sys.executable, "-c", FORKS],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        bufsize=1,
    )
    atexit.register(forks.communicate)  # which ends it
    return forks
