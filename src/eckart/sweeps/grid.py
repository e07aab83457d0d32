"""The grid of a sweep: models, tasks, shots, seeds and scorings, and in each unit of these layers,
parts and rates. Needs neither torch nor numpy: the command line takes its options from here."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, get_args

import yaml
from pydantic import (
    BeforeValidator,
    Field,
    NonNegativeInt,
    ValidationInfo,
    field_validator,
    model_validator,
)

from eckart.errors import StudyError
from eckart.files import Closed, home
from eckart.records import RATES, TOP_K, Edit, Setting, draws, full_name
from eckart.selection.plan import (
    Combine,
    Controls,
    GuardOptions,
    Metric,
    Part,
    Rates,
    TopK,
    listed,
    one_of,
    read_numbers,
)
from eckart.tasks.spec import TaskOptions, parted
from eckart.weights.options import ModelOptions, ReadingOptions

if TYPE_CHECKING:
    from eckart.weights.anatomy import Anatomy

Test = Literal["selected", "all", "none"]


def entries(values: Any, key: str) -> list[Any]:
    """Return a list of entries, in which a bare name stands for an entry that says nothing else."""
    return [{key: item} if isinstance(item, str) else item for item in listed(values)]


def _read_layers(value: Any) -> Any:
    return value if value in ("all", "auto") else read_numbers(value)


def _entries(kind: type[Closed], what: str, field: str) -> BeforeValidator:
    def read(value: Any) -> Any:
        return [
            kind.of(item, f"{what} {number}") if isinstance(item, dict) else item
            for number, item in enumerate(entries(value, field), start=1)
        ]

    return BeforeValidator(read)


class _Named(Closed):
    wrong = StudyError
    name: str = Field(min_length=1, description="A hub id or a folder.")


class ModelEntry(ModelOptions, _Named):
    """A model of a sweep: where it is and how it is loaded.

    Arguments:
        live: whether the caller holds it in memory; no file can say so.
    """

    live: bool = False


class TaskEntry(TaskOptions):
    """A task of a sweep.

    Arguments:
        metric: what is compared on validation; the task's own where it is None.
        digest: of a `Task` that the caller holds in memory; no file can say so.
    """

    wrong = StudyError
    metric: Metric = None
    digest: str | None = None

    @property
    def full_name(self) -> str:
        """What settings call it, once its name is known; until then, what messages do."""
        return full_name(self.name or self.task or self.data or "a task", self.variant)


class Grid(Closed):
    """What a sweep crosses, and what it does in each unit.

    Arguments:
        models, tasks: names, or entries that say more.
        shots, seeds, scorings: each task's own where there are none.
        test: what is scored on the test rows. `selected`: for each part and scoring of a unit the
            unpruned model and the edit that is best on validation, no other; `all`: every edit;
            `none`.
        controls: test every choice beside its arms; see `eckart.algorithm1.control_arms`.
    """

    heading = "The grid"
    wrong = StudyError
    models: Annotated[tuple[ModelEntry, ...], _entries(ModelEntry, "model", "name")] = Field(
        default=(), description="A hub id or a folder; may be given several times."
    )
    tasks: Annotated[tuple[TaskEntry, ...], _entries(TaskEntry, "task", "task")] = Field(
        default=(), description="Catalogue names or task files, joined by commas."
    )
    shots: Annotated[tuple[NonNegativeInt, ...], BeforeValidator(read_numbers)] = Field(
        default=(), description="Numbers of demonstrations; each task's own by default."
    )
    seeds: Annotated[tuple[int, ...], BeforeValidator(read_numbers)] = Field(
        default=(), description="Draw the demonstrations: 0,1,2 or 0..4."
    )
    scorings: Annotated[tuple[str, ...], BeforeValidator(listed)] = Field(
        default=(), description="sum,contextual,batch,...: all from one reading."
    )
    layers: Annotated[tuple[int, ...] | Literal["all", "auto"], BeforeValidator(_read_layers)] = (
        Field(
            default="auto",
            description="0,1,-2,-1, or all, or auto: by condition number, for each part.",
        )
    )
    parts: Annotated[tuple[Part, ...], BeforeValidator(listed)] = Field(
        default=("attn", "mlp"), description="attn,mlp by default; or all, or single matrices."
    )
    rates: Rates = RATES
    test: Annotated[Test, one_of(get_args(Test), "test policy", StudyError)] = Field(
        default="selected",
        description=(
            "selected: each part's best on validation; all: every edit, for figures; none."
        ),
    )
    controls: Controls = False
    combine: Combine = "geometric"
    top_k: TopK = TOP_K
    spectra: bool = Field(
        default=False, description="Measure every matrix's spectrum, too; needs no tasks."
    )


class Sweep(GuardOptions, ReadingOptions, Grid):
    """A grid of trials, and how its rows are read. What a study file holds."""

    called = "the sweep"

    @field_validator("shots", "seeds", "scorings", "rates", mode="before")
    @classmethod
    def _said(cls, values: Any, info: ValidationInfo) -> Any:
        if values in ([], ()):
            raise StudyError(
                f"{info.field_name}: an empty list; name some, or leave {info.field_name} out"
            )
        return values

    @field_validator("shots", "seeds", "scorings", "layers", "parts")
    @classmethod
    def _each_once(cls, values: Any) -> Any:
        return values if isinstance(values, str) else tuple(dict.fromkeys(values))

    @model_validator(mode="after")
    def _not_empty(self) -> Self:
        if not self.models:
            raise StudyError(
                "the grid is empty: there is no model; name a hub id or a folder, as in --model"
                " MODEL"
            )
        if not self.tasks and not self.spectra:
            raise StudyError(
                "the grid is empty: there is no task; name one, such as sst2, or ask for spectra"
                " alone"
            )
        for field in ("parts", "layers"):
            if not getattr(self, field):
                raise StudyError(f"the grid is empty: there are no {field}")
        if self.controls and self.test == "none":
            raise StudyError(
                "controls need test rows, and test is none: control arms are scored there beside"
                " the choice; let test be selected, or leave controls out"
            )
        names = [model.name for model in self.models]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise StudyError(f"model '{twice}' stands twice; a sweep reads each once")
        return self

    @property
    def settings(self) -> dict[str, Any]:
        """All that results depend on, as JSON values: what makes a run this run."""
        # How fast it was read, and on what, does not make it another run.
        where: Any = {
            "models": {"__all__": {"device", "device_map"}},
            "batch_tokens": True,
            "cache_memory": True,
            **dict.fromkeys(GuardOptions.model_fields, True),  # no other trial depends on a guard
        }
        study = self.model_dump(mode="json", exclude=where)
        if not self.controls:  # runs that were begun before there were any go on
            del study["controls"]
        for task in study["tasks"]:
            for name in ("label_join", "label_end", "separator", "chat"):
                if task[name] is None:  # runs that were begun before there was one go on
                    del task[name]
        return {"kind": "sweep", "study": study}

    def to_yaml(self) -> str:
        """Return the study file that says the same."""
        return yaml.safe_dump(self.model_dump(mode="json", exclude_defaults=True), sort_keys=False)

    @property
    def units(self) -> Iterator[Unit]:
        """Every unit, model by model, so that each is loaded once; tasks one after the other."""
        for model in self.models:
            for task in self.tasks:
                for shots, seed in self.draws:
                    yield Unit(model, task, shots, seed)

    @property
    def draws(self) -> list[tuple[int | None, int | None]]:
        return draws(self.shots, self.seeds)

    def draws_of(self, shots: int | None) -> list[int | None]:
        """Return the seeds that draw so many demonstrations."""
        return [seed for shown, seed in self.draws if shown == shots]

    @property
    def choices(self) -> int:
        """How many choices there are to make: one for each part, scoring, task, number of shots and
        model."""
        asked = len(self.tasks) * len({shots for shots, _ in self.draws}) * self.scored
        return len(self.models) * len(self.parts) * asked

    def layers_of(self, anatomy: Anatomy) -> list[int] | None:
        """Return the layers of a model that are edited, ascending; None where condition numbers are
        to choose them.

        Raises:
            EditError: the model has no such layer.
        """
        if self.layers == "auto":
            return None
        if self.layers == "all":
            return list(range(len(anatomy.layers)))
        return sorted({anatomy.layer_index(int(layer)) for layer in self.layers})

    def edits(self, layers: Mapping[str, Sequence[int]]) -> list[Edit]:
        """Return the edits of these layers of each part; the unpruned model is not among them."""
        return [
            Edit(layer, part, rate)
            for part in self.parts
            for layer in layers[part]
            for rate in self.rates
            if rate
        ]

    @property
    def scored(self) -> int:
        """How many trials come from one reading."""
        return max(1, len(self.scorings))

    @property
    def splits(self) -> tuple[str, ...]:
        return ("validation",) if self.test == "none" else ("validation", "test")


@dataclass(frozen=True)
class Unit:
    """What shares one reading of the unpruned model: every edit under every scoring.

    Arguments:
        model, task: entries of the sweep.
        shots, seed: how the demonstrations are drawn; None for the task's own.
    """

    model: ModelEntry
    task: TaskEntry
    shots: int | None
    seed: int | None

    def has(self, setting: Setting) -> bool:
        """Return whether trials of a setting may be this unit's."""
        named = (setting.model, setting.task) == (self.model.name, self.task.full_name)
        return named and self.shots in (None, setting.shots) and self.seed in (None, setting.seed)

    @property
    def asked(self) -> str:
        """The task and how its demonstrations are drawn: what the model is asked."""
        drawn = {"shots": self.shots, "seed": self.seed}
        said = [f"{name} {value}" for name, value in drawn.items() if value is not None]
        return ", ".join([self.task.full_name, *said])

    def __str__(self) -> str:
        from eckart.runs import folder_name  # brings numpy, for which no help should wait

        return f"{folder_name(self.model.name)}, {self.asked}"


def located(values: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Return the values of a sweep with every path in them absolute, so that its study can be read
    from anywhere.

    Arguments:
        values: not yet checked.
        folder: what relative paths are relative to.
    """
    found = dict(values)
    for field, keys in (("models", ("name",)), ("tasks", ("task", "data"))):
        if field in found:
            found[field] = [
                _absolute(entry, keys, folder) if isinstance(entry, dict) else entry
                for entry in entries(found[field], keys[0])
            ]
    guarding = {key: found[key] for key in ("guard_text", "guard_task") if found.get(key)}
    for key, said in guarding.items():
        names = [_absolute({key: name}, [key], folder)[key] for name in listed(said)]
        found[key] = names if key == "guard_task" else names[0]
    return found


def _absolute(entry: Mapping[str, Any], keys: Sequence[str], folder: Path) -> dict[str, Any]:
    """Return an entry whose local files are absolute; a name that is no file stays: it may be the
    hub's."""
    found = dict(entry)
    for key in keys:
        said = found.get(key)
        if not isinstance(said, str) or found.get("live"):
            continue
        before, said = parted(said)
        path = folder / home(said)
        if path.exists() or key == "data" or said.startswith((".", "/", "~")):
            there = os.path.normpath(path.absolute())
            found[key] = f"{before}:{there}" if before else there
    return found
