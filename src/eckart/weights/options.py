"""Options of a model: how it is loaded, and how it reads rows; each declared once, with its help.

`load_model` and `Evaluator` take them as arguments, study files as keys, and the command line as
flags, as they take those of a task (`TaskOptions`); tests hold all of these together. Needs no
torch.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Self, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveInt,
    ValidationError,
    model_validator,
)

from eckart.errors import EckartError, TaskError

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


class GuardOptions(Closed):
    """What else is looked at of an edit; see `eckart.selection.guard.Guard`."""

    heading = "The guard"
    guard: bool = Field(
        default=False,
        description=(
            "Say what else the edit does: how far it moves the model on neutral text, and whether"
            " other tasks suffer."
        ),
    )
    guard_text: str | None = Field(
        default=None,
        description="A file of plain text; without, the text that comes with the package.",
    )
    guard_task: tuple[str, ...] = Field(
        default=(),
        description=(
            "Another task that must not suffer, a name or a file; may be given several times."
        ),
    )
    guard_margin: float | None = Field(
        default=None,
        description="By how many points of accuracy it may do worse there; 1 by default.",
    )

    @model_validator(mode="after")
    def _asked(self) -> Self:
        values = {name: getattr(self, name) for name in type(self).model_fields if name != "guard"}
        said = [name for name, value in values.items() if value not in (None, ())]
        if said and not self.guard:
            flag = "--" + said[0].replace("_", "-")
            raise TaskError(f"{flag} says how to guard, and nothing is guarded; add --guard")
        return self


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
