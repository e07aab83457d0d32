"""Run by test_folder.py in a process of its own: what `use.py` of each folder says of the rows, one
JSON line a folder. Nothing of eckart is imported, nor can it be."""

import contextlib
import io
import json
import runpy
import sys
import warnings
from pathlib import Path


def labels(folder: str, rows: str) -> list[str]:
    return [row["label"] for row in rows_of(folder, rows)]


def rows_of(folder: str, rows: str) -> list[dict]:
    said = io.StringIO()
    sys.stdin = io.StringIO(Path(rows).read_text(encoding="utf-8"))
    with contextlib.redirect_stdout(said), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        runpy.run_path(str(Path(folder) / "use.py"))
    return [json.loads(line) for line in said.getvalue().splitlines()]


if __name__ == "__main__":
    sys.modules["eckart"] = None
    for place in sys.argv[2:]:
        print(json.dumps(labels(place, sys.argv[1])))
