"""The runs in `runs/`, made by the code of the day on which they were frozen, and how one is laid
out to go on.

A run keeps where its model and its task lay. Here these places are called `@MODEL@` and `@DESK@`;
`lay_out` writes the places of today in their stead, as if the run had been made here.
"""

import json
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

from frozen.door import HERE, MODEL, TASKS, command

RUNS = HERE / "runs"
NAMES = {
    "settings": "name, value",
    "trials": "key, trial",
    "rows": "digest, rows",
    "spectra": "matrix, spectrum",
    "models": "name, facts",
}
"""The tables of a run, the columns that are text: the one by which a row is found first."""
HALF = ["--dtype", "float32", "--out"]
COMMANDS: dict[str, list[object]] = {
    "search": [
        "search",
        MODEL,
        "--task",
        "short.yaml",
        "--shots",
        "0",
        "--rates",
        "0.5,0.9",
        *HALF,
    ],
    "race": [
        *["search", MODEL, "--task", "long.yaml", "--shots", "2", "--layer", "0", "--race"],
        *["--rates", "0.5,0.99", *HALF],
    ],
    "sweep": ["sweep", "study.yaml", "--out"],
    "spectrum": ["spectrum", MODEL, "--part", "mlp", "--plot", "figure.png", "--out"],
}
"""The command of each run, less its folder."""


def set_desk(folder: Path) -> None:
    """Lay the tasks and the study out where commands run."""
    shutil.copytree(TASKS, folder, dirs_exist_ok=True)
    study = folder / "study.yaml"
    study.write_text(
        study.read_text(encoding="utf-8").replace("MODEL", str(MODEL)), encoding="utf-8"
    )


def lay_out(name: str, desk: Path) -> Path:
    """Copy a kept run to where commands run."""
    run = desk / name
    shutil.copytree(RUNS / name, run)
    replace(run, {"@MODEL@": str(MODEL), "@DESK@": str(desk)})
    return run


def replace(run: Path, words: Mapping[str, str]) -> None:
    """Write words in the place of others, in every text that a run keeps."""
    with closing(sqlite3.connect(run / "run.sqlite")) as database:
        for table, columns in NAMES.items():
            for column in columns.split(", "):
                for old, new in words.items():
                    database.execute(
                        f"UPDATE {table} SET {column} = replace({column}, ?, ?)", [old, new]
                    )
        database.commit()
        database.execute("VACUUM")


ADDED = ("portable",)
"""Notes that today's code adds to a run which it goes on with; what the run keeps stays."""


def contents(run: Path) -> dict[str, dict[str, tuple[object, ...]]]:
    """Return everything that a run keeps, by table and key."""
    with closing(sqlite3.connect(run / "run.sqlite")) as database:
        return {
            table: {
                row[0]: row[1:]
                for row in database.execute(f"SELECT * FROM {table} ORDER BY 1")
                if row[0] not in ADDED
            }
            for table in NAMES
        }


def make_runs() -> int:
    """Make every run anew."""
    for name, line in COMMANDS.items():
        with tempfile.TemporaryDirectory() as folder:
            desk = Path(folder).resolve()
            set_desk(desk)
            os.chdir(desk)
            ended = command(*line, name)
            if ended.status:
                print(ended.err)
                return ended.status
            replace(desk / name, {str(MODEL): "@MODEL@", str(desk): "@DESK@"})
            (RUNS / name).mkdir(parents=True, exist_ok=True)
            shutil.copy(desk / name / "run.sqlite", RUNS / name)
            print(
                name,
                json.dumps({table: len(rows) for table, rows in contents(desk / name).items()}),
            )
            os.chdir(HERE)
    return 0
