"""How long the report of a large run takes: a made-up sweep, written as a run, read and reported.

python benchmarks/report.py [--trials 10000] [--rows 300] [--seeds 5]
"""

from __future__ import annotations

import argparse
import json
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from common import machine, show

from eckart.records import Edit, Row, Rows, Setting, Trial
from eckart.reports.page import FORMATS, Report
from eckart.runs import RunStore, read_run
from eckart.scoring.methods import score

TASKS, PARTS, RATES = (
    ("films", "topics"),
    ("attn", "mlp"),
    (0.1, 0.5, 0.75, 0.9, 0.95, 0.99, 0.995, 0.999),
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=10_000, help="about as many trials")
    parser.add_argument("--rows", type=int, default=300)
    parser.add_argument("--seeds", type=int, default=5)
    arguments = parser.parse_args()
    print(machine())
    with tempfile.TemporaryDirectory() as folder:
        trials = write_run(Path(folder), arguments.trials, arguments.rows, arguments.seeds)
        run, *reading = timed(lambda: read_run(folder))
        report, *finding = timed(lambda: Report.of(run))
        steps = [("read the run", *reading, ""), ("find", *finding, "")]
        for name, write in FORMATS.items():
            text, *spent = timed(lambda write=write: write(report))
            steps.append((f"write {name}", *spent, f"{len(text) / 1e6:.2f} MB"))
    lines = [(what, f"{wall:.1f}", f"{cpu:.1f}", size) for what, wall, cpu, size in steps]
    page = [sum(step[i] for step in steps[:3]) for i in (1, 2)]
    lines.append(("the page, from the run", f"{page[0]:.1f}", f"{page[1]:.1f}", ""))
    show(
        f"{trials:,} trials of {arguments.rows} rows",
        ("step", "seconds", "processor seconds", "size"),
        lines,
    )


def timed(function: Callable[[], Any]) -> tuple[Any, float, float]:
    """Return a function's value, and its wall-clock and processor time in seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    value = function()
    return value, time.perf_counter() - wall, time.process_time() - cpu


def write_run(folder: Path, trials: int, rows: int, seeds: int) -> int:
    """Write a sweep of about so many trials; return how many they are."""
    each = max(2, trials // (2 * seeds * len(TASKS) * len(PARTS) * len(RATES)))
    edits = [(), *((Edit(*place),) for place in product(range(each), PARTS, RATES))]
    splits = {name: make_rows(name, rows) for name in ("validation", "test")}
    RunStore(folder, {"kind": "sweep", "study": {"test": "all"}}).__exit__()
    made = list(make_trials(edits, splits, range(seeds)))
    with closing(sqlite3.connect(folder / "run.sqlite")) as database, database:
        database.executemany(
            "INSERT INTO rows VALUES (?, ?)",
            [(r.digest, json.dumps(r.to_json())) for r in splits.values()],
        )
        database.executemany(
            "INSERT INTO trials VALUES (?, ?, NULL)",
            [(t.key, json.dumps(t.to_json())) for t in made],
        )
    return len(made)


def make_rows(split: str, count: int) -> Rows:
    rng = np.random.default_rng(0)
    texts = (
        f"a text of about the usual length, which is number {i} of the {split} rows"
        for i in range(count)
    )
    return Rows(
        ("bad", "good"),
        tuple(Row(f"{split}:{i}", text, int(rng.integers(2))) for i, text in enumerate(texts)),
    )


def make_trials(
    edits: list[tuple[Edit, ...]], splits: dict[str, Rows], seeds: range
) -> Iterator[Trial]:
    """Yield trials whose outcomes are hard and easy rows, and coin flips."""
    rng = np.random.default_rng(0)
    for task, seed, (split, rows) in product(TASKS, seeds, splits.items()):
        setting = Setting("made/model", task, 10, seed, "sum")
        labels = np.array([row.label for row in rows.rows])
        before = rng.random(len(labels)) < 0.7
        for edit in edits:
            right = before ^ (rng.random(len(labels)) < (0.05 if edit else 0.0))
            yield make_trial(
                setting, split, rows.digest, edit, labels, np.where(right, labels, 1 - labels)
            )


def make_trial(
    setting: Setting,
    split: str,
    digest: str,
    edits: tuple[Edit, ...],
    labels: np.ndarray,
    predictions: np.ndarray,
) -> Trial:
    values = np.where(np.arange(2) == predictions[:, None], -0.2, -1.8)
    made = replace(score(values, labels.tolist(), ()), log_likelihoods=())
    return Trial(
        f"{setting} {split} {edits}", setting, split, digest, edits, score=made, seconds=1.0
    )


if __name__ == "__main__":
    main()
