"""A study file: a sweep as YAML. It is read, overridden by what the command line says, and becomes
a frozen `Sweep`."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from eckart.errors import StudyError, closest
from eckart.files import home, parse_yaml, read_text
from eckart.sweeps.grid import Sweep, TaskEntry, entries, located
from eckart.weights.options import ModelOptions

SHIPPED = Path(str(resources.files("eckart.sweeps"))) / "studies"
"""The studies that come with the package."""
QUICK = {"seeds": "0", "rates": "0.5,0.9", "split_sizes": "40,60"}
"""A first look at a study: what is said where nobody says otherwise."""
HELD = ("live", "digest")
"""What an entry says of a model or a task that lies in the memory of a Python process."""


def shipped() -> tuple[str, ...]:
    """Return the names of the studies that come with the package.

    >>> "figure1-small" in shipped()
    True
    """
    return tuple(sorted(path.stem for path in SHIPPED.glob("*.yaml")))


def is_study(source: str) -> bool:
    """Return whether what a sweep is asked for is a study; if not, it is a model.

    Raises:
        StudyError: it may be either.

    >>> is_study("figure1-small"), is_study("mine.yaml"), is_study("gpt2")
    (True, True, False)
    """
    if source not in shipped():
        suffix = Path(source).suffix.lower()
        return suffix in (".yaml", ".yml") or (home(source).is_file() and suffix != ".gguf")
    if (home(source) / "config.json").is_file():
        raise StudyError(
            f"'{source}' is a study that comes with the package, and a model's folder; say"
            f" './{source}' for the folder"
        )
    return True


def with_model(name: str, said: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is said, with a model that stands where a study might.

    Raises:
        StudyError: it is no folder, and either nearly a study's name or the name of a study that
            there is none of: nothing else is said of models, tasks or spectra.
    """
    near = closest(name, shipped())
    alone = not {"models", "tasks", "data", "spectra"} & said.keys()
    if not home(name).exists() and "/" not in name and (alone or near.startswith("did you")):
        raise StudyError(
            f"no study '{name}', and no folder of a model; {near}; an own study is a .yaml file,"
            f" and a model of the hub is said with its tasks: --model {name} --task sst2"
        )
    return {**said, "models": [name, *said.get("models", ())]}


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

    >>> said = {"models": "gpt2", "tasks": "sst2,rte", "shots": "0,4", "dtype": "float32"}
    >>> read_study(None, said).models[0].dtype
    'float32'
    """
    where = Sweep.called if source is None else str(source)
    values = {} if source is None else _read(_find(str(source)))
    mine, models, tasks = _sorted(said or {})
    values |= located(mine, folder or Path.cwd())
    tasks = located({"tasks": [tasks]}, folder or Path.cwd())["tasks"][0]
    values["models"] = [
        {**entry, **models} for entry in _entries(values.get("models", ()), "name", where)
    ]
    values["tasks"] = _with_data(_entries(values.get("tasks", ()), "task", where), tasks, where)
    return Sweep.of(values, None if source is None else where)


def _find(name: str) -> Path:
    if Path(name).suffix or home(name).is_file():
        return home(name)
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
    models = {key: value for key, value in said.items() if key in ModelOptions.model_fields}
    tasks = {key: value for key, value in said.items() if key in TaskEntry.model_fields}
    return {key: value for key, value in said.items() if key not in models | tasks}, models, tasks


def _entries(values: Any, key: str, where: str) -> list[dict[str, Any]]:
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
