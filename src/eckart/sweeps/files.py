"""A study file: a sweep as YAML. It is read, overridden by what the command line says, and becomes
a frozen `Sweep`."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from eckart.errors import StudyError
from eckart.files import home
from eckart.sweeps.grid import ModelEntry, Sweep, TaskEntry, entries, located
from eckart.tasks.spec import closest
from eckart.tasks.yaml_text import parse_yaml, read_text

SHIPPED = Path(str(resources.files("eckart.sweeps"))) / "studies"
"""The studies that come with the package."""
HELD = ("live", "digest")
"""What an entry says of a model or a task that lies in the memory of a Python process."""


def shipped() -> tuple[str, ...]:
    """Return the names of the studies that come with the package.

    >>> "figure1-small" in shipped()
    True
    """
    return tuple(sorted(path.stem for path in SHIPPED.glob("*.yaml")))


def read_study(
    source: str | Path | None, said: Mapping[str, Any] | None = None, folder: Path | None = None
) -> Sweep:
    """Read a study, and override it.

    Arguments:
        source: a study file, or the name of one that comes with the package; None for `said` alone.
            Paths in it are relative to it.
        said: what goes before the file: fields of a `Sweep`, and fields of all its models or of all
            its tasks.
        folder: what paths in `said` are relative to; the working folder if None.

    Raises:
        StudyError: there is no such file, it is no YAML, or it says something that a study does
            not.

    >>> read_study(None, {"models": "gpt2", "tasks": "sst2,rte", "shots": "0,4", "dtype":
    "float32"}).models[0].dtype 'float32'
    """
    where = "the sweep" if source is None else str(source)
    values = (
        {} if source is None else _read(home(source) if Path(source).suffix else _find(str(source)))
    )
    mine, models, tasks = _sorted(said or {})
    values |= located(mine, folder or Path.cwd())
    tasks = located({"tasks": [tasks]}, folder or Path.cwd())["tasks"][0]
    values["models"] = [
        {**entry, **models} for entry in _entries(values.get("models", ()), "name", where)
    ]
    values["tasks"] = _with_data(_entries(values.get("tasks", ()), "task", where), tasks, where)
    return Sweep.of(values, where)


def _find(name: str) -> Path:
    if name not in shipped():
        raise StudyError(
            f"no study '{name}'; {closest(name, shipped())}; an own study is a .yaml file"
        )
    return SHIPPED / f"{name}.yaml"


def _read(path: Path) -> dict[str, Any]:
    values = parse_yaml(read_text(path, "study file", StudyError), str(path), StudyError)
    if not isinstance(values, dict):
        raise StudyError(
            f"{path} is no study file: it holds no 'key: value' lines, such as 'models: [gpt2]'"
        )
    return located(values, path.parent.absolute())


def _sorted(said: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Divide what was said by what it is about: the sweep, its models, its tasks."""
    models = {key: value for key, value in said.items() if key in ModelEntry.model_fields}
    tasks = {key: value for key, value in said.items() if key in TaskEntry.model_fields}
    return {key: value for key, value in said.items() if key not in models | tasks}, models, tasks


def _entries(values: Any, key: str, where: str) -> list[dict[str, Any]]:
    """Return entries, each as what it says."""
    found = entries(values, key)
    if not all(isinstance(entry, dict) for entry in found):
        raise StudyError(f"{where}: one of the {key}s is neither a name nor 'key: value' lines")
    held = next((said for entry in found for said in HELD if said in entry), None)
    if held is not None:
        raise StudyError(
            f"{where}: '{held}' is for what lies in the memory of a Python process; leave it out"
        )
    return found


def _with_data(
    tasks: list[dict[str, Any]], said: dict[str, Any], where: str
) -> list[dict[str, Any]]:
    """Return the tasks with what was said about all of them; data of several is a folder with one
    for each."""
    if "data" not in said:
        return [{**task, **said} for task in tasks]
    if len(tasks) < 2:
        return [{**task, **said} for task in tasks or [{}]]
    nameless = next((task for task in tasks if not task.get("task")), None)
    if nameless is not None:
        called = nameless.get("name") or nameless.get("data") or "without a name"
        raise StudyError(
            f"{where}: '{said['data']}' is to hold the data of each task by the task's name, and"
            f" task '{called}' has no 'task'; give it one, or say 'data' for each task in the file"
        )
    return [
        {**task, **said, "data": str(Path(said["data"]) / Path(str(task["task"])).stem)}
        for task in tasks
    ]
