"""A task: the options of one, and its file.

A task file is data: where the rows lie, how a row becomes a prompt, which value of which column is
the label. The seven sets of the paper's Table 1 lie in `catalog/`, and a user's own task has the
same form.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from decimal import Decimal
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, NonNegativeInt, PositiveInt, field_validator

from eckart.errors import TaskError, closest
from eckart.files import Closed, home, option, parse_yaml, read_text
from eckart.tasks.chat import Mode

LONGEST_NAME = 120
"""A task's name is a part of a folder's name."""

DEFAULT_SHOTS = 10
"""The number of demonstrations where the task does not say otherwise (C.3)."""

HARNESS, HARNESS_CODE = "lm-eval", "lm-eval+code"
"""What stands before the name or file of a task of lm-evaluation-harness, and of one whose code may
run."""

TYPED = ("template", "instruction", "label_join", "label_end", "separator")
"""Texts of a prompt, in which a shell cannot type a line break."""


def label_text(value: object) -> str:
    """Return the text by which a label is known: `1`, `1.0` and `"1"` are one label, and nothing is
    ''. What is no label (a list, an object, a date, bytes that are no text) is a TaskError.

    >>> [label_text(value) for value in (1, 1.0, " 1 ", True, b"1", None, float("nan"))]
    ['1', '1', '1', 'true', '1', '', '']
    """
    if hasattr(value, "item"):  # a number of numpy's or torch's
        value = value.item()
    if is_missing(value):
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float | Decimal) and math.isfinite(value) and value == int(value):
        return str(int(value))
    if isinstance(value, bytes):
        return decoded(value).strip()
    if not isinstance(value, str | int | float | Decimal):
        raise TaskError(
            f"holds {_kind_of(value)} for a label, {value!r:.60}; name a column that holds one word"
            " or number a row"
        )
    return str(value).strip()


def is_missing(value: object) -> bool:
    """Return whether a cell holds nothing: None, NaN, or what pandas has for them."""
    # A comparison with pandas' NA is neither true nor false.
    return (
        value is None
        or type(value).__name__ in ("NAType", "NaTType")
        or (isinstance(value, float | Decimal) and value != value)
    )


def decoded(value: bytes) -> str:
    """Return the text that bytes hold, or raise a TaskError."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise TaskError(
            f"holds bytes that are no text ({value[:20]!r}...); name a text column"
        ) from None


def _kind_of(value: object) -> str:
    if isinstance(value, list | tuple | set):
        return "a list (several labels)"
    return "an object" if isinstance(value, Mapping) else f"a {type(value).__name__}"


def _read_labels(labels: Any) -> Any:
    if not isinstance(labels, Mapping):
        return labels
    words = [
        (label_text(value), str(word) if isinstance(word, int | float) else word)
        for value, word in labels.items()
    ]
    for value, word in words:
        if not value:
            raise ValueError("an empty value is no label: such rows are left out; fill the column")
        if any(other != word for same, other in words if same == value):
            raise ValueError(f"the value {value!r} stands twice, with different words")
    return dict(words)


LabelWords = Annotated[dict[str, str], BeforeValidator(_read_labels)]
"""A value of the label column -> its word; two values with one word are one class."""
Place = Annotated[str, BeforeValidator(lambda p: str(p) if isinstance(p, Path) else p)]


class TaskOptions(Closed):
    """A task, and what is said of it in place of its own; see `Task.load`. None: its own."""

    heading = "The task"
    called = "the task"
    task: Place | None = option(
        None,
        "sst2, ag_news, emo, mrpc, rte, cb, copa, or a task file (YAML); or lm-eval:NAME, one of"
        " lm-evaluation-harness.",
    )
    data: Place | None = option(
        None, "Parquet, Arrow, JSON or CSV, or a folder with train, validation and test files."
    )
    variant: str | None = option(None, "released: prompts as in the paper's released code.")
    template: str | None = option(None, r"The prompt, such as 'review: {{ review }}\nverdict:'.")
    text_column: str | None = option(None, "The column that is read.")
    label_column: str | None = option(None, "The column that is predicted.")
    labels: LabelWords | None = option(
        None,
        "Label words by the column's values: 0=bad,1=good. By default the values, or the file's"
        " words.",
    )
    choices: str | tuple[str, ...] | None = option(
        None,
        "For multiple choice: the columns of the candidates (one,two), or the one column that"
        " lists them.",
    )
    instruction: str | None = option(None, "Comes first, before the demonstrations.")
    label_join: str | None = option(
        None,
        "Stands before a label and is scored with it; by default the line breaks that the"
        " template ends in, or a space.",
    )
    label_end: str | None = option(
        None, r"Scored with every label, after it: '\n', say, where a label begins with another."
    )
    separator: str | None = option(
        None, "Stands between demonstrations, and before the query; a line break."
    )
    chat: Mode | None = option(
        None,
        "Ask in the model's own chat template: multiturn, demonstrations as turns; or single, all"
        " in one turn.",
    )
    name: str | None = option(None, "What reports call the task.")
    split_seed: int = option(0, "Draws validation and test rows.")
    split_sizes: Any = option(  # read by `parse_sizes`
        None, "Validation and test rows, as numbers (200,500) or shares (0.3,0.7)."
    )
    balanced: bool = option(True, "Draw demonstrations evenly from the classes, or at random.")


class DrawnTask(TaskOptions):
    """A task, and which of its rows are demonstrations."""

    shots: int | None = option(None, "Demonstrations in the prompt; the task's own by default.")
    seed: int = option(0, "Draws the demonstrations.")

    def own(self) -> TaskSpec:
        r"""Return what is said in place of a task file's; a typed `\n` is a line break."""
        said = {TaskSpec.spelled.get(name, name): value for name, value in self}
        given = {
            name: value.replace("\\n", "\n") if name in TYPED else value
            for name, value in said.items()
            if name in TaskSpec.model_fields and value is not None
        }
        return TaskSpec.of(given)


class Portion(Closed):
    """The rows of one split: which of the source's splits they come from, and how many."""

    source: str = Field(alias="from")
    rows: PositiveInt | None = None
    """None: all that is left."""


class SplitSpec(Closed):
    """Which of the source's splits serve as demonstrations, validation and test (C.3)."""

    demonstrations: str
    validation: Portion
    test: Portion


class PromptSpec(Closed):
    """How a row becomes a prompt: all that a variant of a task may say differently."""

    template: str | None = None
    query_template: str | None = None
    """For the example that is asked about, where it differs; kept to the letter, white space at its
    end too."""
    instruction: str | None = None
    label_join: str | None = None
    """Between the prompt and the label; it belongs to the continuation that is scored. Where
    nothing is said, the line breaks that the template ends in, or else a space."""
    label_end: str = ""
    """After the label, scored with it: `\\n`, say, so that a label that begins with another can
    win."""
    separator: str = "\n"
    """Between two demonstrations, and between the last one and the query."""
    strip: bool = True
    """Whether white space around an input text goes."""
    labels: LabelWords | None = None
    demonstration_words: dict[str, str] = Field(default_factory=dict)
    """A label word -> what the demonstrations show in its place."""
    shots: NonNegativeInt | None = None

    def overridden(self, other: PromptSpec) -> Self:
        """Return this specification with whatever `other` says."""
        # A new template or new labels come without the details that belonged to the old ones.
        changes: dict[str, Any] = {"query_template": None} if other.template is not None else {}
        changes |= {"demonstration_words": {}} if other.labels is not None else {}
        changes |= {name: getattr(other, name) for name in other.model_fields_set}
        return self.model_copy(update=changes)


class TaskSpec(PromptSpec):
    """A task file, read and checked."""

    called = "the task"
    spelled: ClassVar = {"text_column": "text", "label_column": "label"}
    """Fields by what options call them."""
    name: str | None = None
    hub: str | None = None
    config: str | None = None
    data: str | None = None
    text: str | None = None
    """The text column, which a template can name as `text`."""
    label: str | None = None
    choices: tuple[str, ...] | None = Field(default=None, min_length=1)
    """The columns that hold the candidates, for multiple choice; or the one whose cells are lists
    of them."""
    chat: Mode | None = None
    splits: SplitSpec | None = None
    metric: Literal["accuracy", "balanced_accuracy", "macro_f1", "log_loss"] = "accuracy"
    """What a search compares; the paper's evaluation index is accuracy."""
    variants: dict[str, PromptSpec] = Field(default_factory=dict)

    @field_validator("name")
    @classmethod
    def _named(cls, name: str | None) -> str | None:
        if name is not None and (
            len(name) > LONGEST_NAME or not name.isprintable() or not name.strip()
        ):
            raise ValueError(
                f"a task's name is one line of at most {LONGEST_NAME} characters that can be"
                " printed"
            )
        return name

    @field_validator("choices", mode="before")
    @classmethod
    def _choice_columns(cls, choices: Any) -> Any:
        if isinstance(choices, list | tuple) and len(choices) == 1:
            raise ValueError(
                f"name two columns or more, or one that holds lists: choices: {choices[0]}"
            )
        return (choices,) if isinstance(choices, str) else choices

    def variant(self, name: str) -> TaskSpec:
        """Return the task as its variant `name` has it; a TaskError lists the variants that there
        are."""
        if name not in self.variants:
            known = ", ".join(self.variants) or "none"
            raise TaskError(f"task '{self.name}' has no variant '{name}'; it has {known}")
        return self.overridden(self.variants[name])


def parted(task: str) -> tuple[str, str]:
    """Return what stands before a task's name or file, and that.

    >>> parted("lm-eval:copa"), parted("sst2")
    (('lm-eval', 'copa'), ('', 'sst2'))
    """
    prefix, _, name = task.partition(":")
    return (prefix, name) if prefix in (HARNESS, HARNESS_CODE) else ("", task)


def parse_spec(text: str, where: str) -> TaskSpec:
    """Read the text of a task file, which messages call `where`; a TaskError where the YAML is
    broken (with its line), or says something that a task file does not."""
    values = parse_yaml(text, where)
    if not isinstance(values, dict):
        raise TaskError(
            f"{where} is no task file: it holds no 'key: value' lines, such as 'data: reviews.csv'"
        )
    return TaskSpec.of(values, where)


def catalog() -> tuple[str, ...]:
    """Return the names of the tasks that come with the package: the sets of Table 1.

    >>> catalog()
    ('ag_news', 'cb', 'copa', 'emo', 'mrpc', 'rte', 'sst2')
    """
    files = resources.files("eckart.tasks").joinpath("catalog").iterdir()
    return tuple(
        sorted(file.name.removesuffix(".yaml") for file in files if file.name.endswith(".yaml"))
    )


def find_spec(source: str | Path) -> TaskSpec:
    """Read the task that is called `source`, or that lies in the file `source`.

    Returns:
        The task; a relative `data` in a file has become relative to that file.

    Raises:
        TaskError: no task and no file has that name, or the file is no task file.
    """
    if str(source) in catalog():
        text = (
            resources.files("eckart.tasks").joinpath("catalog", f"{source}.yaml").read_text("utf-8")
        )
        return parse_spec(text, f"task '{source}'")
    path = home(source)
    if path.suffix.lower() in (".yaml", ".yml"):
        return _read_spec(path)
    if path.exists():
        raise TaskError(
            f"'{source}' is no task file (.yaml); if it holds the rows, give it as the data: --data"
            f" '{source}' (data='{source}' from Python)"
        )
    raise TaskError(
        f"no task '{source}'; {closest(str(source), catalog())}; an own task is a .yaml file"
    )


def _read_spec(path: Path) -> TaskSpec:
    spec = parse_spec(read_text(path, "task file"), str(path))
    update = {"name": spec.name or path.stem}
    if spec.data is not None:
        update["data"] = str(path.parent / home(spec.data))
    return spec.model_copy(update=update)
