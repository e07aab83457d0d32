"""Run by test_kills.py: start a search, kill it with SIGKILL at a random moment, again and again,
then let it end.

Forks of one warm process stand for processes that a user starts: each dies without a chance to tidy
up.
"""

import json
import os
import random
import signal
import sqlite3
import sys
import time
from functools import partial
from pathlib import Path

import torch

from eckart import Task, search
from eckart.weights.models import load_model


def run(model: str, data: str, folder: Path, layer: str, seeds: str) -> None:
    few = {"data": data, "text_column": "review", "split_sizes": (8, 8)}
    guarded = layer == "auto" and seeds == "0"
    task = Task.load(**few, label_column="verdict", shots=4)
    other = Task.load(**few, label_column="note", name="note", shots=2)
    text = folder.parent / "text.txt"
    text.parent.mkdir(parents=True, exist_ok=True)
    text.write_text("The good food is in the town, and the view is the best. " * 5)
    search(
        load_model(model),
        task,
        rates=[0, 0.5, 0.75],
        layer=layer,
        seeds=seeds,
        # A layer where some rate is chosen, so that there is something to guard.
        **({"top_k": 1} if layer == "auto" else {}),
        **({"guard": True, "guard_text": text, "guard_task": [other]} if guarded else {}),
        out=folder,
        batch_tokens=256,
    )


def in_a_child(action, after: float | None = None) -> int:
    """Run an action in a process of its own; kill it after so many seconds. Returns how it
    ended."""
    child = os.fork()
    if child == 0:
        # The first to ask for torch's pool after a fork makes it anew, which no two threads may do.
        torch.set_num_threads(1)
        try:
            action()
            os._exit(0)
        except BaseException as error:
            print(repr(error), file=sys.stderr)
            os._exit(1)
    if after is not None:
        time.sleep(after)
        os.kill(child, signal.SIGKILL)
    return os.waitpid(child, 0)[1]


def kept(folder: Path) -> int:
    """Count the rows that a killed run left behind: settings, trials, spectra."""
    path = folder / "run.sqlite"
    if not path.exists():
        return 0
    with sqlite3.connect(path) as database:
        tables = [
            name
            for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        ]
        return sum(
            database.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in tables
        )


def main(model: str, data: str, folder: str, layer: str, kills: str, seeds: str) -> None:
    torch.set_num_threads(1)
    calm, runs = Path(folder) / "calm", Path(folder) / "killed"
    run(model, data, Path(folder) / "warm", layer, seeds)  # the first run of a process imports much
    start = time.perf_counter()
    assert in_a_child(lambda: run(model, data, calm, layer, seeds)) == 0
    whole = time.perf_counter() - start
    dice, landed, history = random.Random(0), 0, [[]]
    while landed < int(kills):
        killed = runs / str(len(history))
        after = dice.uniform(0.1, 0.5) * whole
        ended = in_a_child(partial(run, model, data, killed, layer, seeds), after)
        assert ended in (0, signal.SIGKILL), ended
        landed += ended == signal.SIGKILL
        history[-1].append(kept(killed))
        if ended == 0:
            history.append([])
    for number in range(1, len(history) + 1):
        assert in_a_child(lambda: run(model, data, runs / str(number), layer, seeds)) == 0  # noqa: B023
    print(json.dumps({"landed": landed, "history": history, "calm": kept(calm)}))


if __name__ == "__main__":
    main(*sys.argv[1:])
