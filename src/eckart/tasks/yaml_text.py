"""YAML as its author typed it, read in bounded memory: a task or study file may come from somebody
else."""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from eckart.errors import EckartError, TaskError

MOST_BYTES = 256 * 1024
MOST_NODES = 20_000
"""Of a file's values, aliases counted as often as they are named."""


class _Loader(yaml.BaseLoader):
    # The base loader leaves every scalar as it was typed. YAML 1.1 would read the label words `yes`
    # and `no` as booleans, 010 as eight and 1e5 as a number; pydantic turns the few keys that are
    # numbers into numbers.

    def construct_document(self, node: yaml.Node) -> Any:
        """Return what the file holds, if it is small enough once every alias stands for what it
        names."""
        if _size(node, {}) > MOST_NODES:
            raise yaml.constructor.ConstructorError(
                problem=f"it holds more than {MOST_NODES:,} values"
            )
        return super().construct_document(node)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """Return a mapping's values by its keys; a key that stands twice is an error."""
        seen = set()
        for key, value in node.value:
            name = key.value if isinstance(key, yaml.ScalarNode) else id(key)
            if name in seen:
                raise yaml.constructor.ConstructorError(
                    problem=f"'{name}' stands twice", problem_mark=key.start_mark
                )
            seen.add(name)
            if name == "template":
                _without_closing_break(value)
        return super().construct_mapping(node, deep)


def _size(node: yaml.Node, sizes: dict[int, int]) -> int:
    """Return how many values a node stands for; an alias stands for all that it names."""
    if id(node) not in sizes:
        parts = [node.value] if isinstance(node, yaml.ScalarNode) else node.value
        inner = (
            [part for pair in parts for part in pair]
            if isinstance(node, yaml.MappingNode)
            else parts
        )
        sizes[id(node)] = 1 + sum(
            _size(part, sizes) for part in inner if isinstance(part, yaml.Node)
        )
    return sizes[id(node)]


def _without_closing_break(node: yaml.Node) -> None:
    """Take away the line break that every block (`|`, `>`) ends in; `|+` says that it is meant."""
    if isinstance(node, yaml.ScalarNode) and node.style in ("|", ">"):
        mark = node.start_mark
        header = (mark.buffer or "")[mark.pointer :].split("\n", 1)[0] if mark.buffer else ""
        if "+" not in header.split("#")[0]:
            node.value = node.value.removesuffix("\n")


def read_text(path: Path, what: str, wrong: type[EckartError] = TaskError) -> str:
    """Return the text of a file that a user names.

    Arguments:
        path: the file.
        what: what it is, for messages: `task file`.

    Raises:
        wrong: there is no such file, or it cannot be read.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
        if len(content) > MOST_BYTES:
            raise wrong(
                f"{what} '{path}' is larger than {MOST_BYTES // 1024:,} KiB; is it the rows"
                " (--data)?"
            )
        return content.decode("utf-8-sig")
    except FileNotFoundError:
        raise wrong(f"no {what} '{path}'; is the path right?") from None
    except (OSError, UnicodeDecodeError) as error:
        raise wrong(f"cannot read {what} '{path}': {error}") from None


def parse_yaml(text: str, where: str, error: type[EckartError] = TaskError) -> Any:
    """Read YAML, every scalar as the text that was typed.

    Raises:
        error: the YAML is broken; the message gives the line.
    """
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as broken:
        mark = broken.problem_mark or broken.context_mark
        line = f" line {mark.line + 1}" if mark else ""
        raise error(f"{where}{line}: broken YAML: {broken.problem or broken.context}") from None
    except RecursionError:
        raise error(f"{where}: broken YAML: it is nested too deeply") from None
    except yaml.YAMLError as broken:
        raise error(f"{where}: broken YAML: {' '.join(str(broken).split())}") from None
