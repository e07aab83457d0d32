"""Task files of lm-evaluation-harness: where its own lie, and what another's may do."""

from __future__ import annotations

import difflib
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec as installed
from pathlib import Path
from typing import Any

import yaml
from jinja2 import StrictUndefined
from jinja2.sandbox import SandboxedEnvironment

from eckart.errors import EckartError, TaskError, how_to_install, reason
from eckart.files import home, read_text
from eckart.tasks.spec import HARNESS_CODE, parted

METRICS = ("acc", "acc_norm")
"""Those of its metrics that are read here, whatever a task names beside them."""
EXECUTED = ("class", "custom_dataset", "use_prompt")
"""Keys of a task file that can only name code."""
TASK = re.compile(r"""^["']?task["']?: *["']?([^\s"'\[{#]+)["']?\s*$""", re.MULTILINE)


@contextmanager
def understood(task: str) -> Iterator[None]:
    """Say in one line what lm-evaluation-harness or the hub has against a task."""
    try:
        yield
    except EckartError:
        raise
    # It raises whatever Python, its templates and the hub's client raise.
    except Exception as error:
        raise TaskError(
            f"lm-evaluation-harness cannot read task '{task}' ({reason(error, 300)}); does its own"
            " command read it?"
        ) from None


def load(task: str) -> Any:
    """Return lm-evaluation-harness's object of a task, with its documents.

    Arguments:
        task: `lm-eval:NAME` of its own; or `lm-eval:FILE.yaml`, of which no code is run and no
            template leaves the sandbox; `lm-eval+code:FILE.yaml` runs what the file names.

    Raises:
        TaskError: lm-evaluation-harness is not installed, there is no such task or it cannot be
            read, or its file names code.
    """
    prefix, name = parted(task)
    if installed("lm_eval") is None:
        raise TaskError(
            f"task '{task}' needs lm-evaluation-harness, which is not installed:"
            f" {how_to_install('lm-eval')}"
        )
    local = name.lower().endswith((".yaml", ".yml"))
    asked: Any = str(home(name)) if local else str(_own_file(name))
    if local and prefix != HARNESS_CODE:
        asked = _without_code(home(name))
    from lm_eval.tasks import TaskManager

    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    with understood(task), templates(sandboxed=not isinstance(asked, str)):
        found = TaskManager(include_defaults=False).load(asked)["tasks"]
    if len(found) != 1:
        raise TaskError(f"'{task}' is {len(found)} tasks, no single one; name one of them")
    return next(iter(found.values()))


def is_plain(harness: Any) -> bool:
    """Return whether a task is from a file that may run no code."""
    return harness.config.metadata.get("config_source") == "inline"


def _own_file(name: str) -> Path:
    """Return the file of one of its own tasks; its index of all takes a minute to make."""
    import lm_eval

    known: dict[str, Path] = {}
    for path in sorted((Path(lm_eval.__file__).parent / "tasks").rglob("*.yaml")):
        for found in TASK.findall(path.read_text(encoding="utf-8", errors="replace")):
            known.setdefault(found, path)
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3)
        meant = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
        raise TaskError(
            f"lm-evaluation-harness {lm_eval.__version__} has no task '{name}'{meant} (a group of"
            " tasks is none; `lm_eval ls tasks` lists them all)"
        )
    return known[name]


def _without_code(path: Path) -> dict[str, Any]:
    """Return what a task file and those that it includes say; a TaskError where that names code."""
    from lm_eval.tasks._yaml_loader import load_yaml

    _check_plain(path, set())
    with understood(str(path)):
        values: dict[str, Any] = load_yaml(path, resolve_func=False)
    named = next((key for key in EXECUTED if key in values), None)
    if named is not None:
        raise _runs_code(path, named)
    if not isinstance(values.get("task"), str):
        raise TaskError(f"'{path}' is no task file of lm-evaluation-harness: it names no task")
    # A metric that it does not know it would fetch as code; only these two are read anyway.
    return {**values, "metric_list": [{"metric": metric} for metric in METRICS]}


def _check_plain(path: Path, seen: set[Path]) -> None:
    if path in seen:
        return
    seen.add(path)
    text = read_text(path, "task file of lm-evaluation-harness")
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise TaskError(f"{path}: broken YAML: {' '.join(str(error).split())[:200]}") from None
    for tag, key, value in _nodes(node):
        if tag.startswith("!") or "python" in tag:
            raise _runs_code(path, f"{tag} {value}")
        if key == "include":
            _check_plain(path.parent / value, seen)


def _nodes(node: yaml.Node | None, key: str = "") -> Iterator[tuple[str, str, str]]:
    """Yield every value's tag, the key that it stands under, and its text."""
    if node is None:
        return
    yield node.tag, key, str(node.value) if isinstance(node, yaml.ScalarNode) else ""
    if isinstance(node, yaml.MappingNode):
        for name, value in node.value:
            yield from _nodes(value, str(name.value))
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            yield from _nodes(value, key)


def _runs_code(path: Path, what: str) -> TaskError:
    return TaskError(
        f"task file '{path}' runs code of its own ({what}), which may do anything here; read it,"
        f" and if you trust it name the task {HARNESS_CODE}:{path}"
    )


@contextmanager
def templates(sandboxed: bool) -> Iterator[None]:
    """Let lm-evaluation-harness, which fills in templates outside any sandbox, do so inside one."""
    from lm_eval import utils

    plain = utils.env
    if sandboxed:
        utils.env = SandboxedEnvironment(undefined=StrictUndefined, keep_trailing_newline=True)
        utils.env.filters.update(plain.filters)
    try:
        yield
    finally:
        utils.env = plain
