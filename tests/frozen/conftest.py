"""A working folder with the model, the tasks and a study in it."""

import shutil
from pathlib import Path

import pytest

from frozen.door import MODEL, TASKS


@pytest.fixture
def desk(tmp_path, monkeypatch) -> Path:
    """The folder in which commands run: short.yaml, long.yaml and study.yaml lie there."""
    shutil.copytree(TASKS, tmp_path, dirs_exist_ok=True)
    study = tmp_path / "study.yaml"
    study.write_text(study.read_text().replace("MODEL", str(MODEL)))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    return tmp_path
