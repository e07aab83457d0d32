"""What rounding alone turns: predictions in half precision by what is read together, and against
float32.

And whether any edit is taken for a way of reading that does not agree: with --grid, every layer's
attention and MLP is clipped at five rates up to 0.995, and what was said of it is counted.

python benchmarks/rounding.py MODEL --task sst2 --data DATA --rows 200
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path

import numpy as np
from common import machine, show

from eckart.records import Edit
from eckart.scoring.evaluator import Evaluator
from eckart.statistics.scores import Score
from eckart.tasks.task import Task
from eckart.weights.models import load_model

RATES = (0.5, 0.9, 0.95, 0.99, 0.995)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--task", default="sst2")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--rows", type=int, default=200)
    parser.add_argument("--shots", type=int, default=4)
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--grid", action="store_true")
    options = parser.parse_args()
    task = Task.load(
        options.task, data=options.data, shots=options.shots, split_sizes=(options.rows, 8)
    )
    print(machine())
    if options.grid:
        _grid(options, task)
    else:
        _turned(options, task)


def _turned(options: argparse.Namespace, task: Task) -> None:
    """Print on how many rows predictions differ."""
    half = load_model(options.model, dtype=options.dtype, device="cpu")
    read = {tokens: _score(Evaluator(half, task, batch_tokens=tokens)) for tokens in (64, 4096)}
    wide = _score(Evaluator(load_model(options.model, dtype="float32", device="cpu"), task))
    pairs = {
        "packs of 64 and of 4,096 tokens": (read[64], read[4096]),
        "packs of 64 tokens and float32": (read[64], wide),
        "packs of 4,096 tokens and float32": (read[4096], wide),
    }
    rows = [[name, str(_differ(a, b)), f"{_furthest(a, b):.3f}"] for name, (a, b) in pairs.items()]
    title = f"{task.name}, {wide.n} rows, {task.shots} shots, {options.dtype}"
    show(title, ["compared", "predictions that differ", "largest difference, nats"], rows)
    show(
        "accuracy",
        ["packs of 64", "packs of 4,096", "float32"],
        [[f"{s.accuracy:.3f}" for s in (*read.values(), wide)]],
    )


def _score(evaluator: Evaluator) -> Score:
    score = evaluator([], "validation").labelled
    assert score is not None
    return score


def _differ(one: Score, other: Score) -> int:
    return sum(a != b for a, b in zip(one.predictions, other.predictions, strict=True))


def _furthest(one: Score, other: Score) -> float:
    return float(np.abs(np.array(one.log_likelihoods) - np.array(other.log_likelihoods)).max())


def _grid(options: argparse.Namespace, task: Task) -> None:
    """Score every layer's parts at every rate, and count what failed and what was said."""
    scorer = Evaluator(load_model(options.model, dtype=options.dtype, device="cpu"), task)
    depth, failed, scored = len(scorer.anatomy.layers), 0, 0
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for layer in reversed(range(depth)):
            edits = [(Edit(layer, part, rate),) for part in ("mlp", "attn") for rate in RATES]
            for trial in scorer.score([(), *edits], "validation"):
                scored += bool(trial.edits) and trial.score is not None
                if trial.score is None:
                    failed += 1
                    print(f"{trial.edits}: {trial.error}")
    for message in {str(one.message) for one in said}:
        print(message)
    show(
        f"{task.name}, {options.rows} rows, {options.shots} shots, {options.dtype}",
        ["edits", "scored", "failed", "warnings"],
        [[str(scored + failed), str(scored), str(failed), str(len(said))]],
    )


if __name__ == "__main__":
    main()
