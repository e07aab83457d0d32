"""A working folder with the tasks and a study in it."""

from pathlib import Path

import pytest

from frozen.made import set_desk


@pytest.fixture
def desk(tmp_path, monkeypatch) -> Path:
    """The folder in which commands run: short.yaml, long.yaml and study.yaml lie there."""
    set_desk(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    return tmp_path
