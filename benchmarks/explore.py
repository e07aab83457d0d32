"""How long the page of `eckart explore` takes for a look, by the layer that is edited: the first at
a place, and further rates there.

python benchmarks/explore.py --task TASK.yaml                               # the embedded model
python benchmarks/explore.py --model MODEL --task sst2 --data sst2 --shots 4
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from threading import Event

from common import machine, show

from eckart.cli.explore.elsewhere import Elsewhere
from eckart.cli.explore.explorer import Explorer
from eckart.cli.options import LOOKED
from eckart.demo import MODEL
from eckart.records import Edit
from eckart.scoring.evaluator import Evaluator
from eckart.selection.plan import GuardOptions
from eckart.tasks import Task
from eckart.tasks.spec import DrawnTask
from eckart.weights.models import load_model
from eckart.weights.options import ModelOptions, ReadingOptions

RATES = (0.5, 0.9, 0.95, 0.99)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default=str(MODEL))
    parser.add_argument("--task", required=True)
    parser.add_argument("--data")
    parser.add_argument("--shots", type=int, default=4)
    parser.add_argument("--rows", type=int, default=LOOKED)
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--layers", type=int, default=6, help="how many of the layers are timed")
    options = parser.parse_args()
    print(machine())
    said = DrawnTask.of({name: getattr(options, name) for name in ("task", "data", "shots")}, "it")
    evaluator = Evaluator(load_model(options.model, dtype=options.dtype), Task.of(said))
    guard = GuardOptions()
    plain = Elsewhere((), options.model, said, None, ReadingOptions(), ModelOptions(), guard)
    with tempfile.TemporaryDirectory() as folder:
        explorer = Explorer(evaluator, plain, guard, Path(folder), options.rows)
        whole = seconds(explorer)
        last = len(evaluator.anatomy.layers) - 1
        layers = sorted({round(last * n / (options.layers - 1)) for n in range(options.layers)})
        lines = [
            [str(layer), part, f"{first:.2f}", f"{min(more):.2f} to {max(more):.2f}"]
            for layer in reversed(layers)
            for part in ("mlp", "attn")
            for first, *more in [[seconds(explorer, Edit(layer, part, rate)) for rate in RATES]]
        ]
        rows = explorer.about(Event())["rows"]
        explorer.close()
    show(
        f"{Path(options.model).name}, {evaluator.model.dtype}, {options.shots} shots, {rows} rows;"
        f" the unpruned model first: {whole:.1f} s",
        ["layer", "part", "first look, s", "further rates, s"],
        lines,
    )


def seconds(explorer: Explorer, *edits: Edit) -> float:
    """Return how long the page waits for a look."""
    begin = time.perf_counter()
    explorer.look(edits, Event())
    return time.perf_counter() - begin


if __name__ == "__main__":
    main()
