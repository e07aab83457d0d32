"""Run by test_explore.py: interrupt `eckart explore` in the middle of a batch that takes a minute,
as a user does with Ctrl-C."""

import contextlib
import json
import os
import signal
import sys
import threading
import time
import urllib.request
from pathlib import Path

import torch

from eckart.cli.app import app
from eckart.cli.console import run
from eckart.cli.explore.explorer import Explorer


def main(begun: str, *words: str) -> None:
    said, says = os.pipe()
    child = os.fork()
    if child == 0:
        torch.set_num_threads(1)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for stream in (1, 2):
            os.dup2(says, stream)
        Explorer.look = lambda *_: (Path(begun).touch(), time.sleep(60))  # deaf, as torch is
        sys.exit(run(lambda: app(["explore", *words], standalone_mode=False)))
    os.close(says)
    with os.fdopen(said) as lines:
        told = []
        while not told or not told[-1].startswith("http"):
            told.append(lines.readline().strip())
        ask = urllib.request.Request(f"{told[-1]}ask/look", b'{"tab": "one"}')
        tab = threading.Thread(target=lambda: _answer(ask))
        tab.start()
        while not Path(begun).exists():
            time.sleep(0.01)
        start = time.perf_counter()
        os.kill(child, signal.SIGINT)
        status = os.waitpid(child, 0)[1]
        seconds = time.perf_counter() - start
        told += lines.read().splitlines()
    tab.join()
    print(json.dumps({"status": status >> 8, "seconds": seconds, "told": told}))


def _answer(ask: urllib.request.Request) -> None:
    with contextlib.suppress(OSError):  # it is told that the page is ending
        urllib.request.urlopen(ask).close()


if __name__ == "__main__":
    main(*sys.argv[1:])
