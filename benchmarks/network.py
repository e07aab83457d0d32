"""What a sweep's unit moves between driver and worker on a cluster, in bytes.

python benchmarks/network.py --rows 8000 --labels 2 --cells 1120
"""

import argparse
import pickle
from dataclasses import replace

from eckart.records import Edit, Row, Rows, Setting, Trial
from eckart.sweeps.cluster import Remote
from eckart.sweeps.grid import Sweep
from eckart.sweeps.units import Facts

LAYERS = list(range(80))


def trial(rows: int, labels: int) -> Trial:
    import numpy as np

    from eckart.scoring.methods import score

    draw = np.random.default_rng(0)
    values = draw.normal(-3, 1, (rows, labels))
    found = score(values, draw.integers(labels, size=rows).tolist(), [str(i) for i in range(rows)])
    return Trial(
        "0" * 64,
        Setting("a/model", "sst2", 10, 0, "sum"),
        "validation",
        "0" * 64,
        (Edit(7, "mlp", 0.9),),
        score=found,
    )


def size(value: object) -> int:
    return len(pickle.dumps(value))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=8000)
    parser.add_argument("--labels", type=int, default=2)
    parser.add_argument("--cells", type=int, default=1120)
    said = parser.parse_args()
    sweep = Sweep.of({"models": "a/model", "tasks": "sst2", "layers": "all"}, "it")
    facts = Facts("a/model", "0" * 32, "bfloat16", {"attn": LAYERS, "mlp": LAYERS}, {}, [])
    one, known = trial(said.rows, said.labels), Remote()
    for number in range(said.cells):
        known.keep(replace(one, key=f"{number:064}"))
    known.drained()
    text = "a sentence of fourteen tokens, which is about as long as one is in this task, say"
    rows = Rows(("neg", "pos"), tuple(Row(f"train:{i}", text, 0) for i in range(said.rows)))
    print(f"to the worker, a new unit: {size((sweep, next(sweep.units), facts, Remote())):,} bytes")
    print(
        f"to the worker, a unit with {said.cells} known trials: {size((sweep, facts, known)):,}"
        " bytes"
    )
    print(f"from the worker, rows: {size(rows):,} bytes")
    print(
        f"from the worker, a trial of {said.rows} rows: {size(one):,} bytes; {said.cells}:"
        f" {said.cells * size(one):,}"
    )


if __name__ == "__main__":
    main()
