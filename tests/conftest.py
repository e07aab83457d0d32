"""Shapes and types are checked while the tests run; what several test files share."""

import csv
import gc
import os
import random
import signal
import sqlite3
from functools import cache, partial
from pathlib import Path

import pytest
import typer
from checked import check_on_import

TENSOR_MODULES = [
    "weights.linalg",
    "weights.spectrum",
    "weights.architectures",
    "weights.anatomy",
    "weights.edits",
    "scoring",
    "exports",
    "statistics",
    "analysis.outcomes",
    "analysis.measured",
    "analysis.findings",
    "analysis.calibration",
    "reports.figures.gains",
    "paper",
]


class Unsynced(sqlite3.Connection):
    """A database whose commits do not wait for the disk, 17 ms each: but for a loss of power, which
    no test has, a kill finds the same in it. tests/kills run the product's own."""

    def execute(self, statement, *values):
        return super().execute(
            statement.replace("synchronous = FULL", "synchronous = OFF"), *values
        )


def pytest_configure(config) -> None:
    """Check types in what runs tests, and not in what hands them out: before any module of tests,
    since what is imported before is not checked."""
    os.environ["HF_HUB_OFFLINE"] = "1"  # nobody answers, and each who asks waits for 25 seconds
    if hasattr(config, "workerinput") or not getattr(config.option, "numprocesses", None):
        check_on_import([f"eckart.{module}" for module in TENSOR_MODULES])
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in a job in the background
        signal.signal(signal.SIGINT, signal.default_int_handler)
    sqlite3.connect = partial(sqlite3.connect, factory=Unsynced)
    typer.main.get_command = cache(typer.main.get_command)  # 40 ms a call of the command line


def pytest_collection_finish() -> None:
    """Spare every full collection of garbage a walk through the imported libraries."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def shared() -> Path:
    """The data sets, small models and published tables that lie beside the repository,
    read-only."""
    folder = Path(__file__).parents[2] / "shared"
    if not folder.is_dir():
        pytest.skip(f"no shared data and models at {folder}")
    return folder


@pytest.fixture(scope="session")
def some_rows(shared, tmp_path_factory) -> Path:
    """200 rows, or a few more, of every file of those data sets; tests/tasks reads all."""
    import pyarrow.parquet as pq

    out = tmp_path_factory.mktemp("some-rows")
    for path in (shared / "data").glob("*/*.parquet"):
        (out / path.parent.name).mkdir(exist_ok=True)
        rows = pq.read_table(path)
        some = rows.take([*range(0, len(rows), max(1, len(rows) // 200))])
        pq.write_table(some, out / path.parent.name / path.name)
    return out


@pytest.fixture(scope="session")
def model(tmp_path_factory) -> Path:
    """A tiny random Llama as a hub-like folder."""
    # Not at the top: the model library is to be imported after the hook.
    from families import save_family

    folder = tmp_path_factory.mktemp("models") / "tiny-llama"
    save_family("llama", folder)
    return folder


@pytest.fixture(scope="session")
def table(tmp_path_factory) -> Path:
    """60 labelled rows: a review and a verdict."""
    path = tmp_path_factory.mktemp("data") / "reviews.csv"
    words = random.Random(0)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["review", "verdict", "note"])
        for i in range(60):
            text = " ".join(
                words.choices(["the", "food", "is", "good", "bad", "best", "town", "view"], k=6)
            )
            writer.writerow([f"{text} {i}", ["good", "bad"][i % 2], f"n{i % 3}"])
    return path
