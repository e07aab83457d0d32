"""Run by test_kills.py: export, and kill that with SIGKILL at a random moment, again and again,
then let it end."""

import json
import random
import sys
import time
from functools import partial
from pathlib import Path

import torch

from eckart import export


def main(model: str, folder: str, kills: str) -> None:
    from search_kills import in_a_child  # beside this file, which only a script's own folder finds

    torch.set_num_threads(1)
    desk = Path(folder) / "desk"
    desk.mkdir()
    run = partial(export, model, desk / "out", edits=["1:mlp:0.5", "0:all:0.9"])
    export(model, Path(folder) / "calm", edits=["1:mlp:0.5", "0:all:0.9"])  # imports much
    start = time.perf_counter()
    export(model, Path(folder) / "timed", edits=["1:mlp:0.5", "0:all:0.9"])
    whole = time.perf_counter() - start
    dice, landed, seen = random.Random(0), 0, []
    # When a draft is there depends on the machine: until a kill fell there, too.
    while len(seen) < 100 and (landed < int(kills) or [".out.draft"] not in seen):
        landed += in_a_child(run, dice.uniform(0.1, 0.95) * whole) != 0
        seen.append(sorted(path.name.split("-")[0] for path in desk.iterdir()))
        if (desk / "out").exists():
            (desk / "out").rename(Path(folder) / f"done-{len(seen)}")
    ended = in_a_child(run)
    left = sorted(path.name for path in desk.iterdir())
    print(json.dumps({"ended": ended, "seen": seen, "left": left}))


if __name__ == "__main__":
    main(*sys.argv[1:])
