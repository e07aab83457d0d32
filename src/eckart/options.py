"""Options of a task, a model and a reading, each declared once with its help; and what a run was
asked.

`Task.load`, `load_model` and `Evaluator` take the options as arguments, study files as keys, and
the command line as flags; tests hold these to what stands here.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveInt,
    ValidationError,
)

from eckart.errors import EckartError, TaskError
from eckart.records import TOP_K, draws, full_name

SpecT = TypeVar("SpecT", bound=BaseModel)


class Closed(BaseModel):
    """Values that are frozen and know their keys.

    Its fields' descriptions are the help of the command line, and `heading` stands over them.
    """

    heading: ClassVar[str | None] = None
    model_config = ConfigDict(extra="forbid", frozen=True)

    def only(self, kind: type[Closed]) -> dict[str, Any]:
        """Return the values of the fields that this has in common with a kind, to hand them on."""
        return {name: getattr(self, name) for name in kind.model_fields}


class ModelOptions(Closed):
    """How a model is loaded; see `load_model`."""

    heading = "The model"
    dtype: str = Field(
        default="auto",
        description=(
            "float32, bfloat16, float16, or auto: bfloat16 where the device multiplies it fast."
        ),
    )
    device: str = Field(default="auto", description="auto, cpu, cuda, cuda:1, mps, ...")
    device_map: str | None = Field(
        default=None,
        description=(
            "Spread a model that is larger than one device: auto, balanced or sequential (needs"
            " accelerate)."
        ),
    )
    trust_remote_code: bool = Field(
        default=False, description="Run code that the model's repository brings."
    )


PLAIN = ModelOptions()


class TaskOptions(Closed):
    """A task, and what is said of it in place of its own; see `Task.load`. None: its own."""

    heading = "The task"
    task: str | None = Field(
        default=None, description="sst2, ag_news, emo, mrpc, rte, cb, copa, or a task file (YAML)."
    )
    data: str | None = Field(
        default=None,
        description=(
            "Parquet, Arrow, JSON or CSV, or a folder with train, validation and test files."
        ),
    )
    variant: str | None = Field(
        default=None, description="released: prompts as in the paper's released code."
    )
    template: str | None = Field(
        default=None, description=r"The prompt, such as 'review: {{ review }}\nverdict:'."
    )
    text_column: str | None = Field(default=None, description="The column that is read.")
    label_column: str | None = Field(default=None, description="The column that is predicted.")
    labels: dict[str, str] | None = Field(
        default=None,
        description=(
            "Label words by the column's values: 0=bad,1=good. By default the values, or the file's"
            " words."
        ),
    )
    choices: str | tuple[str, ...] | None = Field(
        default=None,
        description=(
            "For multiple choice: the columns of the candidates (one,two), or the one column that"
            " lists them."
        ),
    )
    instruction: str | None = Field(
        default=None, description="Comes first, before the demonstrations."
    )
    label_join: str | None = Field(
        default=None,
        description=(
            "Stands before a label and is scored with it; by default the line breaks that the"
            " template ends in, or a space."
        ),
    )
    label_end: str | None = Field(
        default=None,
        description=(
            r"Scored with every label, after it: '\n', say, where a label begins with another."
        ),
    )
    separator: str | None = Field(
        default=None,
        description="Stands between demonstrations, and before the query; a line break.",
    )
    name: str | None = Field(default=None, description="What reports call the task.")
    split_seed: int = Field(default=0, description="Draws validation and test rows.")
    split_sizes: str | None = Field(
        default=None,
        description="Validation and test rows, as numbers (200,500) or shares (0.3,0.7).",
    )
    balanced: bool = Field(
        default=True, description="Draw demonstrations evenly from the classes, or at random."
    )


class DrawnTask(TaskOptions):
    """A task, and which of its rows are demonstrations."""

    shots: int | None = Field(
        default=None, description="Demonstrations in the prompt; the task's own by default."
    )
    seed: int = Field(default=0, description="Draws the demonstrations.")


class FitOptions(Closed):
    """What is done with rows that are longer than the model reads."""

    heading = "The run"
    truncate_demonstrations: bool = Field(
        default=False,
        description="Show fewer demonstrations in a row that is longer than the model reads.",
    )
    drop_long_rows: bool = Field(
        default=False, description="Leave out rows that are longer than the model reads."
    )


class ReadingOptions(FitOptions):
    """How rows are read; see `Evaluator`. No result depends on the last two."""

    batch_tokens: PositiveInt | None = Field(
        default=None, description="The most tokens in a batch; chosen by device."
    )
    cache_memory: NonNegativeInt | None = Field(
        default=None,
        description=(
            "Memory for what candidates share, such as 200MB; a quarter of what is free by default."
            " The rest goes to a temporary file."
        ),
    )


@dataclass(frozen=True)
class Asked:
    """What a run was asked, as its store keeps it: a search of one model, part and task, a sweep of
    several of each.

    Arguments:
        values: the settings of the run.
    """

    values: Mapping[str, Any]

    @property
    def kind(self) -> str:
        """`search`, `sweep`, `spectrum` or `training`."""
        return str(self.values.get("kind", "run"))

    @property
    def grid(self) -> Mapping[str, Any] | None:
        """What a sweep crosses, by the names of its fields; None where nothing is crossed."""
        study = self.values.get("study") or {}
        return study if "models" in study else None

    @property
    def models(self) -> tuple[str, ...]:
        """The names of a sweep's models."""
        return tuple(model["name"] for model in (self.grid or {}).get("models", ()))

    @property
    def parts(self) -> tuple[str, ...]:
        """The parts of a sweep, in its order."""
        return tuple((self.grid or {}).get("parts", ()))

    @property
    def rates(self) -> tuple[float, ...]:
        """The clipping rates, 0 among them."""
        return tuple((self.grid or self.values).get("rates") or ())

    @property
    def top_k(self) -> int:
        """How many of the worst-conditioned layers the layer is the deepest of."""
        return (self.grid or self.values).get("top_k") or TOP_K

    @property
    def readings(self) -> int:
        """How many ways a sweep asks each of its models: tasks, draws and scorings."""
        grid = self.grid or {"tasks": (), "shots": (), "seeds": (), "scorings": ()}
        scorings = max(1, len(grid["scorings"]))
        return len(grid["tasks"]) * len(draws(grid["shots"], grid["seeds"])) * scorings

    def metric(self, task: str) -> str:
        """Return what was compared on validation for a task, by its full name."""
        for entry in (self.grid or {}).get("tasks", ()):
            if full_name(entry["name"], entry["variant"]) == task:
                return str(entry["metric"])
        return self.values.get("metric") or "accuracy"


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
        first = min(
            error.errors(), key=lambda e: e["type"] != "extra_forbidden" or len(e["loc"]) > 1
        )
        key = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            known = f"; {closest(key, kind.model_fields)}" if len(first["loc"]) == 1 else ""
            raise wrong(f"{where}: unknown key '{key}'{known}") from None
        value = repr(first["input"])[:80]
        why = str(first.get("ctx", {}).get("error") or first["msg"])
        raise wrong(f"{where}: {key} is {value}: {why[0].lower()}{why[1:]}") from None


def closest(name: str, known: Iterable[str]) -> str:
    """Return what a message says when `name` is none of `known`.

    >>> closest("lables", ["labels", "label", "data"])
    "did you mean 'labels' or 'label'? (known: labels, label, data)"
    """
    known = list(known)
    folded = {item.lower().replace("_", "").replace("-", ""): item for item in known}
    near = difflib.get_close_matches(
        name.lower().replace("_", "").replace("-", ""), list(folded), n=2
    )
    listing = ", ".join(known)
    if not near:
        return f"known: {listing}"
    return f"did you mean {' or '.join(repr(folded[item]) for item in near)}? (known: {listing})"
