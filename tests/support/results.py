"""What a command or a run ends with, as several test files look at it."""

import json
from pathlib import Path


def refused(ended, *words: str) -> None:
    """Check that a command ended with one line that says these words."""
    assert ended.status == 2, ended.err
    errors = [line for line in ended.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, ended.err
    assert ended.err.rstrip().endswith(errors[0]), "the line is the last that is said"
    assert "Traceback" not in ended.err
    assert ended.out == ""
    for word in words:
        assert word in errors[0], errors[0]


def without_timings(folder: Path) -> str:
    """Return a search's result as it is whenever and beside whatever else it ran."""
    result = json.loads((folder / "result.json").read_text())
    del result["seconds"]
    result.pop("looked_at_before", None)  # counts the other runs that lie beside it
    return json.dumps(result)
