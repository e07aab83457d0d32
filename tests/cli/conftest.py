"""The command line, run in this process."""

from dataclasses import dataclass

import pytest

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
def own_task(table) -> list[str]:
    """The options of a task of one's own."""
    return [
        "--data",
        str(table),
        "--text-column",
        "review",
        "--label-column",
        "verdict",
        "--shots",
        "4",
    ]
