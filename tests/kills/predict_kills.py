"""Run by test_kills.py: label rows into a file, kill it with SIGKILL at a random moment, again and
again, then let it end."""

import json
import random
import signal
import sys
import time
from functools import partial
from pathlib import Path

import torch

from eckart import Edit, Task, predict
from eckart.cli.predict import run_predict
from eckart.exports import predictions
from eckart.weights.models import load_model

KILLS = 10


def main(model: str, data: str, folder: str) -> None:
    from search_kills import in_a_child  # beside this file, which only a script's own folder finds

    torch.set_num_threads(1)
    predictions.CHUNK = 4
    loaded = load_model(model)
    task = Task.load(data=data, text_column="review", label_column="verdict", shots=4)

    def run(out: Path) -> None:
        found = predict(loaded, data, task, Edit(0, "mlp", 0.75), compare=True)
        run_predict(found, out, "csv", as_json=False)

    calm = Path(folder) / "calm.csv"
    run(Path(folder) / "warm.csv")  # the first run of a process imports much
    start = time.perf_counter()
    assert in_a_child(partial(run, calm)) == 0
    whole = time.perf_counter() - start
    dice, history = random.Random(0), [[]]
    while sum(map(len, history)) < KILLS:
        out = Path(folder) / f"{len(history)}.csv"
        ended = in_a_child(partial(run, out), after=dice.uniform(0.1, 0.6) * whole)
        assert ended in (0, signal.SIGKILL), ended
        if ended == 0 or out.exists():  # the kill came after the file was whole
            history.append([])
        else:
            history[-1].append(kept(out))
    for number in range(1, len(history) + 1):
        if not (Path(folder) / f"{number}.csv").exists():
            assert in_a_child(partial(run, Path(folder) / f"{number}.csv")) == 0
    print(json.dumps({"files": len(history), "history": history}))


def kept(out: Path) -> int:
    """Return how many rows a killed command left behind for the next one."""
    about = out.with_name(f"{out.name}.part.json")
    said = json.loads(about.read_text()) if about.exists() else {}
    return said.get("state", {}).get("tally", {}).get("read", 0)


if __name__ == "__main__":
    main(*sys.argv[1:])
