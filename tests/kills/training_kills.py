"""Run by test_training.py: kill a training with SIGKILL at random moments until it is done,
interrupt another for good.

Forks of one warm process stand for processes that a user starts: each dies without a chance to tidy
up.
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import torch

from eckart.paper.functions.training import Training, read_losses, train

TRAINING = Training(
    dimension=2, layers=1, width=8, heads=2, steps=160, batch=4, warmup=10, curriculum=40
)
CHECKPOINTS = [0, 25, 100]


def run(folder: Path) -> None:
    train(TRAINING, folder, checkpoints=CHECKPOINTS, save_every=10, device="cpu")


def in_a_child(folder: Path, stop: signal.Signals, after: float | None) -> int:
    """Train in a process of its own; send it a signal after so many seconds. Returns how it
    ended."""
    child = os.fork()
    if child == 0:
        # The first to ask for torch's pool after a fork makes it anew, which no two threads may do.
        torch.set_num_threads(1)
        try:
            run(folder)
            os._exit(0)
        except KeyboardInterrupt:
            os._exit(130)
        except BaseException as error:
            print(repr(error), file=sys.stderr)
            os._exit(1)
    if after is not None:
        time.sleep(after)
        os.kill(child, stop)
    return os.waitpid(child, 0)[1]


def steps(folder: Path) -> int:
    """Count the steps that a stopped training kept."""
    return len(read_losses(folder)) if (folder / "state.safetensors").exists() else 0


def main(folder: str) -> None:
    torch.set_num_threads(1)
    run(Path(folder) / "warm")  # the first step of a process imports much
    start = time.perf_counter()
    assert in_a_child(Path(folder) / "calm", signal.SIGKILL, None) == 0
    whole, dice = time.perf_counter() - start, random.Random(0)
    found = {}
    for stop, status in ((signal.SIGKILL, signal.SIGKILL), (signal.SIGINT, 130 << 8)):
        stopped, history, ended = Path(folder) / stop.name, [], 1
        while ended != 0:
            after = dice.uniform(0.15, 0.5) * whole if len(history) < 3 else None
            ended = in_a_child(stopped, stop, after)
            assert ended in (0, status), ended
            history.append(steps(stopped))
        found[stop.name] = history
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
