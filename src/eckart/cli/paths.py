"""The paths of a command: `~` is the home folder in each, and nothing that it writes lies where it
reads.

Every verb's options pass here, told apart by their names alone, so that a new verb need say
nothing.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from eckart.cli.console import note_kept
from eckart.errors import EckartError
from eckart.files import BESIDE_WEIGHTS, KEPT, WEIGHTS, Read, check_outputs, home

NAMED = ("model", "models", "source", "rows", "base", "task", "guard_text", "guard_task")
"""Options and arguments that are text, because what they name need not be a path."""
WRITTEN = ("predictions", "plot", "figures", "save", "out")
RUN_FILES = (*KEPT, "result.txt", "validation.png")
"""What a verb writes into its run's folder."""
MODEL_FILES = frozenset(Path(pattern).suffix for pattern in (*BESIDE_WEIGHTS, *WEIGHTS)) - {""}


def with_paths(verb: Callable[..., Any]) -> Callable[..., Any]:
    """Let a verb have its paths read and checked before it begins."""

    @functools.wraps(verb)
    def called(**said: Any) -> Any:
        said = {name: _at_home(name, value) for name, value in said.items()}
        if said.get("out") is not None:  # whoever interrupts while libraries load has it still
            note_kept(said["out"] / "run.sqlite", said["out"])
        written = list(_written(said))
        if written:
            check_outputs(written, list(_read(said)))
        return verb(**said)

    return called


def _at_home(name: str, value: Any) -> Any:
    """Return a path as it is meant; a shell leaves the `~` of `--out=~/runs` to the program."""
    if isinstance(value, list):
        return [_at_home(name, one) for one in value]
    if isinstance(value, Path):
        return home(value)
    return (
        str(home(value))
        if isinstance(value, str) and name in NAMED and value.startswith("~")
        else value
    )


def _written(said: Mapping[str, Any]) -> Iterator[tuple[str, Path]]:
    for name in WRITTEN:
        if said.get(name) is not None:
            yield f"--{name}", said[name]
    if said.get("out") is not None:
        yield from (("--out", said["out"] / file) for file in RUN_FILES)


def _read(said: Mapping[str, Any]) -> Iterator[Read]:
    models = [said.get("model"), *(said.get("models") or [])]
    for model in filter(None, models):
        yield from _model(str(model))
    tasks = str(said.get("tasks") or "").split(",")
    for task in (*tasks, str(said.get("task") or "")):
        yield from _task(task.strip(), said.get("data"))
    for task in said.get("guard_task") or ():
        yield from _task(task, None)
    if said.get("rows"):
        yield Read("the rows", Path(str(said["rows"])))
    if said.get("guard_text"):
        yield Read("the guard text", Path(said["guard_text"]))
    for run in [said.get("run"), *(said.get("runs") or [])]:
        yield from (Read("the run", run / file) for file in KEPT if run is not None)
    if said.get("source"):
        yield from _study_or_model(said["source"], said.get("out"))


def _study_or_model(source: str, out: Path | None) -> Iterator[Read]:
    from eckart.sweeps.files import is_study

    try:
        of_study = is_study(source)
    except EckartError:  # the verb says so itself
        return
    yield from _study(Path(source), out) if of_study else _model(source)


def _model(name: str) -> Iterator[Read]:
    folder = home(name)
    if folder.suffix.lower() == ".gguf":
        yield Read("the model", folder)
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.suffix in MODEL_FILES and path.name not in RUN_FILES:
            yield Read("the model", path)


def _task(task: str, data: str | Path | None) -> Iterator[Read]:
    """Yield a task's file and its data, wherever that is named."""
    from eckart.tasks.spec import find_spec, parted

    config = None
    harness, task = parted(task)
    if task.lower().endswith((".yaml", ".yml")):
        yield Read("the task file", home(task))
        if harness:
            return
        try:
            spec = find_spec(task)
        except EckartError:  # the verb says so itself
            return
        data = data or spec.data
        config = spec.config
    if data:
        yield from _data(home(data), [config or "", "data", Path(task).stem])


def _data(path: Path, inner: list[str]) -> Iterator[Read]:
    """Yield a file of data, or those of a folder, and those that would be read with them were they
    there."""
    from eckart.tasks.sources import split_name

    if not path.is_dir():
        yield Read("the data", path)
        return
    folders = [path, *(path / name for name in inner if name)]
    splits = [
        place
        for folder in folders
        for place in _entries(folder)
        if place.is_dir() and split_name(place)
    ]
    divided = splits or any(_is_split(file.name) for folder in folders for file in _entries(folder))
    yield from (Read("the data", folder, _is_split if divided else _is_data) for folder in folders)
    yield from (Read("the data", place, _is_data) for place in splits)


def _is_data(name: str) -> bool:
    from eckart.tasks.files import named_like_rows

    return named_like_rows(Path(name))


def _is_split(name: str) -> bool:
    from eckart.tasks.sources import split_name

    return _is_data(name) and split_name(Path(name)) is not None


def _entries(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _study(path: Path, out: Path | None) -> Iterator[Read]:
    """Yield a study file and what it names; a run's own study is written again as it is."""
    from eckart.files import parse_yaml, read_text
    from eckart.sweeps.grid import entries, located

    if not path.suffix:
        return  # one that comes with the package
    resumed = (
        out is not None and path.parent.resolve() == out.resolve() and (out / "run.sqlite").exists()
    )
    if not resumed:
        yield Read("the study file", path)
    try:
        values = located(
            parse_yaml(read_text(path, "study file"), str(path)), path.parent.absolute()
        )
        models, tasks = (
            entries(values.get(key, ()), name)
            for key, name in (("models", "name"), ("tasks", "task"))
        )
    except (EckartError, AttributeError, TypeError):  # the verb says so itself
        return
    for model in models:
        yield from _model(str(model.get("name")))
    for task in tasks:
        yield from _task(str(task.get("task") or ""), task.get("data"))
