"""A tiny model, a small table, and the command line run in this process."""

import csv
import random
from dataclasses import dataclass
from pathlib import Path

import pytest
from families import save_family

from eckart.cli.app import app
from eckart.cli.console import run


@dataclass(frozen=True)
class Ended:
    """How a command ended: its status and what it printed."""

    status: int
    out: str
    err: str


@pytest.fixture
def eckart(capsys, tmp_path, monkeypatch):
    """Run the command line in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def command(*arguments: object) -> Ended:
        capsys.readouterr()
        status = run(lambda: app([str(a) for a in arguments], standalone_mode=False))
        printed = capsys.readouterr()
        return Ended(status, printed.out, printed.err)

    return command


@pytest.fixture(scope="session")
def model(tmp_path_factory) -> Path:
    """A tiny random Llama as a hub-like folder."""
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
            text = " ".join(words.choices(["the", "food", "is", "good", "bad", "best", "town", "view"], k=6))
            writer.writerow([f"{text} {i}", ["good", "bad"][i % 2], f"n{i % 3}"])
    return path


@pytest.fixture(scope="session")
def own_task(table) -> list[str]:
    """The options of a task of one's own."""
    return ["--data", str(table), "--text-column", "review", "--label-column", "verdict", "--shots", "4"]
