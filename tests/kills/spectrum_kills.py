"""Run by test_kills.py: measure a model's spectra, kill that with SIGKILL at random moments, then
let it end."""

import json
import random
import signal
import sys
import time
from pathlib import Path

import torch

from eckart.runs import RunStore
from eckart.weights import spectrum
from eckart.weights.stored import StoredWeights


def run(model: str, folder: Path) -> None:
    """Measure into a folder; a line in a log before each matrix, and one after."""
    stored = StoredWeights.of(model)
    weights = spectrum.matrices(stored.anatomy)
    real = spectrum._measure
    with (
        (folder / "log").open("ab", buffering=0) as log,
        RunStore(folder, {"kind": "spectrum"}) as store,
    ):

        def measure(*arguments):
            log.write(b"<")
            time.sleep(0.02)
            return real(*arguments)

        spectrum._measure = measure
        found = spectrum.spectra(
            stored.read(weights), store=store, advance=lambda done: log.write(b">")
        )
    (folder / "found.json").write_text(json.dumps([matrix.to_json() for matrix in found]))


def main(model: str, folder: str) -> None:
    from search_kills import in_a_child  # beside this file, which only a script's own folder finds

    torch.set_num_threads(1)
    calm, killed = Path(folder) / "calm", Path(folder) / "killed"
    calm.mkdir()
    killed.mkdir()
    StoredWeights.of(model)  # what loads on first use is loaded before the clock starts
    start = time.perf_counter()
    assert in_a_child(lambda: run(model, calm)) == 0
    whole = time.perf_counter() - start
    dice, kills = random.Random(0), 0
    while (
        in_a_child(lambda: run(model, killed), after=dice.uniform(0.1, 0.3) * whole)
        == signal.SIGKILL
    ):
        kills += 1
        assert kills < 100, "the work does not get on"
    log = (killed / "log").read_bytes()
    print(
        json.dumps(
            {
                "kills": kills,
                "begun": log.count(b"<"),
                "calm": (calm / "log").read_bytes().count(b"<"),
            }
        )
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
