"""Labels of new rows a second, beside evaluate's on the same rows, model and edit, from one run.

python benchmarks/predict.py                                                # the embedded model
python benchmarks/predict.py --model MODEL --task sst2 --data sst2 --edit 4:mlp:0.5
"""

from __future__ import annotations

import argparse
import csv
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from common import machine, show, synchronise

from eckart import Edit, Task, predict
from eckart.cli.predict import run_predict
from eckart.demo import MODEL
from eckart.demo.corpus import TEMPLATE, rows
from eckart.scoring.evaluator import Evaluator
from eckart.weights.models import LoadedModel, load_model


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default=str(MODEL))
    parser.add_argument("--task", help="the embedded model's own by default")
    parser.add_argument("--data")
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--shots", type=int, default=4)
    parser.add_argument("--edit", default="0:mlp:0.5")
    parser.add_argument("--dtype", default="auto")
    options = parser.parse_args()
    print(machine())
    model = load_model(options.model, dtype=options.dtype)
    with tempfile.TemporaryDirectory() as folder:
        task = _task(options, Path(folder))
        found = timed(model, task, Edit.parse(options.edit), Path(folder))
    n = len(task.test)
    lines = [
        [name, clock, f"{n / read:,.0f}", f"{n / labelled:,.0f}", f"{labelled / read:.2f}"]
        for name, (one, other) in found.items()
        for clock, read, labelled in zip(("wall", "processor"), one, other, strict=True)
    ]
    show(
        f"{Path(options.model).name}, {model.dtype}, {task.shots} shots, {n:,} rows",
        ["what", "seconds", "evaluate, rows/s", "predict, rows/s", "predict's time by evaluate's"],
        lines,
    )


def seconds(function: Callable[[], object]) -> tuple[float, float]:
    """Return the seconds of a call, by the clock and of the processor: whatever else a machine
    does, the second stays."""
    synchronise()
    wall, processor = time.perf_counter(), time.process_time()
    function()
    synchronise()
    return time.perf_counter() - wall, time.process_time() - processor


def timed(
    model: LoadedModel, task: Task, edit: Edit, folder: Path
) -> dict[str, tuple[tuple[float, float], tuple[float, float]]]:
    """Return the seconds of an evaluation, and of a file of predictions for the same rows."""
    new = [dict(example.fields) for example in task.test]

    def labelled(compare: bool) -> None:
        out = folder / "labelled.csv"
        out.unlink(missing_ok=True)
        run_predict(predict(model, new, task, edit, compare=compare), out, "csv", as_json=False)

    def read(*candidates: tuple[Edit, ...]) -> None:
        list(Evaluator(model, task).score(candidates, "test"))

    return {
        "clipped": (seconds(lambda: read((edit,))), seconds(lambda: labelled(False))),
        "unpruned and clipped": (
            seconds(lambda: read((), (edit,))),
            seconds(lambda: labelled(True)),
        ),
    }


def _task(options: argparse.Namespace, folder: Path) -> Task:
    about = {"shots": options.shots, "split_sizes": [64, options.rows]}
    if options.task is not None:
        return Task.load(options.task, data=options.data, **about)
    path = folder / "mood.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["text", "label"])
        writer.writeheader()
        writer.writerows(rows("mood", "test", options.rows + 100))
    return Task.load(data=path, template=TEMPLATE, label_column="label", **about)


if __name__ == "__main__":
    main()
