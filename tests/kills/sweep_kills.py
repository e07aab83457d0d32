"""Run by test_kills.py: start a sweep, kill it with SIGKILL at a random moment, again and again,
then let it end.

Whatever a run computes is written down beside it, so that what was computed twice can be counted.
"""

import json
import random
import signal
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from eckart.runs import read_run
from eckart.sweeps.sweep import locally, sweep
from eckart.weights.models import load_model

GRID = {
    "layers": "all",
    "rates": [0.5],
    "shots": [4],
    "seeds": "0..1",
    "scorings": ["sum", "batch"],
}


def run(model, task: dict, folder: Path, log: Path) -> None:
    def counted(job):
        def watch(event):
            with log.open("a") as file:
                file.write(f"{getattr(event, 'key', '')}\n")

        locally(replace(job, watch=watch))

    sweep(model, task, **GRID, out=folder, execute=counted, batch_tokens=256)


def trials(folder: Path) -> dict:
    from search_kills import kept  # beside this file, which only a script's own folder finds

    return read_run(folder).trials if kept(folder) else {}


def main(model: str, data: str, folder: str) -> None:
    from search_kills import in_a_child  # beside this file, which only a script's own folder finds

    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    loaded, task = (
        load_model(model),
        {"data": data, "text_column": "review", "label_column": "verdict"},
    )
    calm, killed = Path(folder) / "calm", Path(folder) / "killed"
    # the first run of a process imports much
    run(loaded, task, Path(folder) / "warm", Path(folder) / "warm.log")
    start = time.perf_counter()
    assert in_a_child(lambda: run(loaded, task, calm, calm.with_suffix(".log"))) == 0
    whole = time.perf_counter() - start
    dice, landed, history, runs = random.Random(0), 0, [[]], 1
    while landed < 20:
        out = killed / str(runs)
        log = Path(folder) / f"{runs}.log"
        ended = in_a_child(
            partial(run, loaded, task, out, log), after=dice.uniform(0.1, 0.5) * whole
        )
        assert ended in (0, signal.SIGKILL), ended
        landed += ended == signal.SIGKILL
        history[-1].append(len(trials(out)))
        if ended == 0:
            history.append([])
            runs += 1
    for number in range(1, runs + 1):
        log = Path(folder) / f"{number}.log"
        assert in_a_child(lambda: run(loaded, task, killed / str(number), log)) == 0  # noqa: B023
    print(
        json.dumps(
            {"landed": landed, "history": history, "runs": runs, "trials": len(trials(calm))}
        )
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
