"""A task file: what it may say, and how it is read.

A task file is data: where the rows lie, how a row becomes a prompt, which value of which column is the label.
The seven sets of the paper's Table 1 lie in `catalog/`, and a user's own task has the same form.
"""

from __future__ import annotations

import difflib
from collections.abc import Hashable, Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveInt,
    ValidationError,
    field_validator,
)

from eckart.errors import EckartError, TaskError
from eckart.files import home

DEFAULT_SHOTS = 10
"""The number of demonstrations where the task does not say otherwise (C.3)."""


def label_text(value: object) -> str:
    """Return the text by which a label is known: `1`, `1.0` and `"1"` are one label, and nothing is ''.

    >>> [label_text(value) for value in (1, 1.0, " 1 ", True, None, float("nan"))]
    ['1', '1', '1', 'true', '', '']
    """
    if value is None or value != value:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip()


SpecT = TypeVar("SpecT", bound=BaseModel)


class _Closed(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Portion(_Closed):
    """The rows of one split: which of the source's splits they come from, and how many."""

    source: str = Field(alias="from")
    rows: PositiveInt | None = None
    """None: all that is left."""


class SplitSpec(_Closed):
    """Which of the source's splits serve as demonstrations, validation and test (C.3)."""

    demonstrations: str
    validation: Portion
    test: Portion


class PromptSpec(_Closed):
    """How a row becomes a prompt: all that a variant of a task may say differently."""

    template: str | None = None
    query_template: str | None = None
    """For the example that is asked about, where it differs; kept to the letter, white space at its end too."""
    instruction: str | None = None
    label_join: str = " "
    """Between the prompt and the label; it belongs to the continuation that is scored."""
    separator: str = "\n"
    """Between two demonstrations, and between the last one and the query."""
    strip: bool = True
    """Whether white space around an input text goes."""
    labels: dict[str, str] | None = None
    """A value of the label column -> its word; two values with one word are one class."""
    demonstration_words: dict[str, str] = {}
    """A label word -> what the demonstrations show in its place."""
    shots: NonNegativeInt | None = None

    @field_validator("labels", mode="before")
    @classmethod
    def _label_values(cls, labels: Any) -> Any:
        if not isinstance(labels, Mapping):
            return labels
        return {label_text(value): str(word) for value, word in labels.items()}

    def overridden(self, other: PromptSpec) -> Self:
        """Return this specification with whatever `other` says."""
        # A new template or new labels come without the details that belonged to the old ones.
        changes: dict[str, Any] = {"query_template": None} if other.template is not None else {}
        changes |= {"demonstration_words": {}} if other.labels is not None else {}
        changes |= {name: getattr(other, name) for name in other.model_fields_set}
        return self.model_copy(update=changes)


class TaskSpec(PromptSpec):
    """A task file, read and checked."""

    name: str | None = None
    hub: str | None = None
    config: str | None = None
    data: str | None = None
    text: str | None = None
    """The text column, which a template can name as `text`."""
    label: str | None = None
    choices: tuple[str, ...] | None = Field(default=None, min_length=2)
    """The columns that hold the candidates, for multiple choice."""
    splits: SplitSpec | None = None
    metric: Literal["accuracy", "balanced_accuracy", "macro_f1"] = "accuracy"
    """What a search compares; the paper's evaluation index is accuracy."""
    variants: dict[str, PromptSpec] = {}

    def variant(self, name: str) -> TaskSpec:
        """Return the task as its variant `name` has it.

        Raises:
            TaskError: there is no such variant; the message lists those that there are.
        """
        if name not in self.variants:
            known = ", ".join(self.variants) or "none"
            raise TaskError(f"task '{self.name}' has no variant '{name}'; it has {known}")
        return self.overridden(self.variants[name])


class _Loader(yaml.BaseLoader):
    # The base loader leaves every scalar as it was typed. YAML 1.1 would read the label words `yes` and `no` as
    # booleans, 010 as eight and 1e5 as a number; pydantic turns the few keys that are numbers into numbers.

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """Return a mapping's values by its keys; a key that stands twice is an error."""
        keys = [self.construct_object(key) for key, _ in node.value]
        for index, key in enumerate(keys):
            if key in keys[:index]:
                mark = node.value[index][0].start_mark
                raise yaml.constructor.ConstructorError(problem=f"'{key}' stands twice", problem_mark=mark)
        return super().construct_mapping(node, deep)


def parse_spec(text: str, where: str) -> TaskSpec:
    """Read the text of a task file.

    Arguments:
        text: YAML.
        where: the file's name, for messages.

    Raises:
        TaskError: the YAML is broken (with its line), or says something that a task file does not.
    """
    values = parse_yaml(text, where)
    if not isinstance(values, dict):
        raise TaskError(
            f"{where} is no task file: it holds no 'key: value' lines, such as 'data: reviews.csv'"
        )
    return checked(TaskSpec, values, where)


def read_text(path: Path, what: str, wrong: type[EckartError] = TaskError) -> str:
    """Return the text of a file that a user names.

    Arguments:
        path: the file.
        what: what it is, for messages: `task file`.

    Raises:
        wrong: there is no such file, or it cannot be read.
    """
    try:
        return path.read_text("utf-8-sig")
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
    except yaml.YAMLError as broken:
        raise error(f"{where}: broken YAML: {' '.join(str(broken).split())}") from None


def checked(
    kind: type[SpecT], values: Mapping[str, Any], where: str, wrong: type[EckartError] = TaskError
) -> SpecT:
    """Return `values` as a specification.

    Raises:
        wrong: a key is unknown or a value is of the wrong kind; one line that names it.
    """
    try:
        return kind.model_validate(dict(values))
    except ValidationError as error:
        # An unknown key is a misspelt one, which explains what else is missing.
        first = min(error.errors(), key=lambda e: e["type"] != "extra_forbidden" or len(e["loc"]) > 1)
        key = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            known = f"; {closest(key, kind.model_fields)}" if len(first["loc"]) == 1 else ""
            raise wrong(f"{where}: unknown key '{key}'{known}") from None
        value = repr(first["input"])[:80]
        raise wrong(f"{where}: {key} is {value}: {first['msg'].lower()}") from None


def closest(name: str, known: Iterable[str]) -> str:
    """Return what a message says when `name` is none of `known`.

    >>> closest("lables", ["labels", "label", "data"])
    "did you mean 'labels' or 'label'? (known: labels, label, data)"
    """
    known = list(known)
    folded = {item.lower().replace("_", "").replace("-", ""): item for item in known}
    near = difflib.get_close_matches(name.lower().replace("_", "").replace("-", ""), list(folded), n=2)
    listing = ", ".join(known)
    if not near:
        return f"known: {listing}"
    return f"did you mean {' or '.join(repr(folded[item]) for item in near)}? (known: {listing})"


def catalog() -> tuple[str, ...]:
    """Return the names of the tasks that come with the package: the sets of Table 1.

    >>> catalog()
    ('ag_news', 'cb', 'copa', 'emo', 'mrpc', 'rte', 'sst2')
    """
    files = resources.files("eckart.tasks").joinpath("catalog").iterdir()
    return tuple(sorted(file.name.removesuffix(".yaml") for file in files if file.name.endswith(".yaml")))


def find_spec(source: str | Path) -> TaskSpec:
    """Read the task that is called `source`, or that lies in the file `source`.

    Returns:
        The task; a relative `data` in a file has become relative to that file.

    Raises:
        TaskError: no task and no file has that name, or the file is no task file.
    """
    if str(source) in catalog():
        text = resources.files("eckart.tasks").joinpath("catalog", f"{source}.yaml").read_text("utf-8")
        return parse_spec(text, f"task '{source}'")
    path = home(source)
    if path.suffix.lower() in (".yaml", ".yml"):
        return _read_spec(path)
    if path.exists():
        raise TaskError(
            f"'{source}' is no task file (.yaml); if it holds the rows, give it as the data: data='{source}'"
        )
    raise TaskError(f"no task '{source}'; {closest(str(source), catalog())}; an own task is a .yaml file")


def _read_spec(path: Path) -> TaskSpec:
    spec = parse_spec(read_text(path, "task file"), str(path))
    update = {"name": spec.name or path.stem}
    if spec.data is not None:
        update["data"] = str(path.parent / home(spec.data))
    return spec.model_copy(update=update)
