"""A task without its rows: all that makes a prompt of a new one, in a few kilobytes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from eckart.errors import TaskError, closest
from eckart.files import checked
from eckart.tasks.chat import Frame, Shown
from eckart.tasks.choices import ChoiceList
from eckart.tasks.columns import Columns, check_text, told_apart
from eckart.tasks.prompts import CONTENT_FREE, Prompt, PromptFormat, compiled
from eckart.tasks.spec import is_missing, label_text
from eckart.tasks.splits import Gathered
from eckart.tasks.task import AnyTask, Task

if TYPE_CHECKING:
    from eckart.weights.models import Tokenizer

UNLABELLED, UNKNOWN = -1, -2
"""The label of a prompt whose row has none, and of one that the task does not know."""


class PortableTask(BaseModel):
    """What a task makes prompts with, demonstrations and all, once its rows are left behind.

    Arguments:
        name, full_name, seed: as the `Task` has them.
        kind: `classification`, or `choices` where each row brings its candidates.
        labels: the label words, or the columns or places of the candidates.
        values: a value of the label column -> its index in `labels`.
        format: how a row becomes a prompt.
        demonstrations: each as every prompt shows it: its text, or two turns of a chat.
        columns: which columns hold what; a row's label is not needed.
        listed: how a row's label names one of its candidates, where one column lists these.
        scoring: how continuations are ranked: `sum`, `mean`, ...
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    full_name: str
    kind: Literal["classification", "choices"]
    labels: tuple[str, ...] = Field(min_length=2)
    values: dict[str, int]
    format: PromptFormat
    demonstrations: tuple[Shown, ...]
    columns: Columns
    listed: ChoiceList | None = None
    scoring: str
    seed: int

    @field_validator("values")
    @classmethod
    def _mean_labels(cls, values: dict[str, int], info: ValidationInfo) -> dict[str, int]:
        if not set(values.values()) <= set(range(len(info.data.get("labels", ())))):
            raise ValueError("a value means a label that is not there")
        return values

    @field_validator("format")
    @classmethod
    def _fillable(cls, format: PromptFormat) -> PromptFormat:
        for template in filter(None, (format.template, format.query_template)):
            try:
                compiled(template)
            except TaskError as error:
                raise ValueError(str(error)) from None
        return format

    @classmethod
    def of(cls, task: Task, scoring: str | None = None) -> Self:
        """Return what is needed of a task, scored in this way, or as its kind is.

        Raises:
            TaskError: the task asks for numbers, or was not made by `Task.load`.
        """
        source = _templated(task)
        if source is None:
            raise TaskError(
                f"task '{task.name}' was not made by Task.load of labelled rows and a template, so"
                " nothing says how a new row becomes a prompt"
            )
        return cls(
            name=task.name,
            full_name=task.full_name,
            kind=task.kind,
            labels=task.labels,
            values=dict(source.labels.index),
            format=task.format,
            demonstrations=task.shown,
            columns=source.columns,
            listed=source.labels.choices,
            scoring=scoring or task.default_score,
            seed=task.seed,
        )

    @classmethod
    def if_any(cls, task: AnyTask, scoring: str | None = None) -> Self | None:
        """Return the same; None where nothing says how a new row becomes a prompt."""
        return cls.of(task, scoring) if isinstance(task, Task) and _templated(task) else None

    @classmethod
    def from_json(cls, values: Any, where: str = "the task") -> Self:
        """Read what `to_json` wrote; a TaskError in one line where it is something else."""
        if not isinstance(values, Mapping):
            raise TaskError(f"{where} is no task, but {values!r:.60}; it is damaged")
        return checked(cls, values, where, TaskError)

    def to_json(self) -> dict[str, Any]:
        """Return plain values, ready for `json.dumps`."""
        return self.model_dump(mode="json")

    @property
    def shots(self) -> int:
        """The number of demonstrations."""
        return len(self.demonstrations)

    @property
    def digest(self) -> str:
        """What the `Task` calls its digest."""
        return self.format.digest(self.kind, self.labels, self.demonstrations)

    @cached_property
    def frame(self) -> Frame:
        """All that a prompt has besides its query."""
        return self.format.frame(self.demonstrations)

    def for_tokenizer(self, tokenizer: Tokenizer) -> Self:
        """Return the task as a model reads it; one whose chat template is known stays as it is."""
        chat = self.format.chat
        if chat is None or chat.template is not None:
            return self
        format = replace(self.format, chat=chat.of(tokenizer))
        return self.model_copy(update={"format": format})

    def prompt(self, row: Mapping[str, Any], id: str, shots: int | None = None) -> Prompt:
        """Return the prompt of a row, after all demonstrations or the first `shots`; its label is
        `UNLABELLED` where the row says none, and `UNKNOWN` where none that the task knows. The rest
        is as in `query`."""
        query, candidates = self.query(row, id)
        return self.format.asked(id, self._framed(shots), query, candidates, self._label(row, id))

    def query(self, row: Mapping[str, Any], id: str) -> tuple[str, tuple[str, ...]]:
        """Return what is asked of a row, and its candidates where it has its own.

        Arguments:
            row: a column's name -> its value; the label column may be missing.
            id: what messages call the row.

        Raises:
            TaskError: the row has no such columns, nothing in them, or candidates that cannot be
                told apart.
        """
        for column in self.columns.needed:
            if column not in row:
                raise TaskError(
                    f"{id} has no column '{column}', which the prompt of task '{self.name}' is made"
                    f" of; {closest(column, row)}"
                )
        fields = self.columns.read(row)
        if fields is None:
            raise TaskError(f"{id} is empty in {', '.join(self.columns.needed)}")
        candidates = self.columns.candidates(row)
        if candidates and not (len(candidates) == len(self.labels) and told_apart(candidates)):
            raise TaskError(
                f"{id} has not {len(self.labels)} candidates, as the task's rows have, none empty"
                " and no two equal"
            )
        query = self.format.query(fields)
        return check_text(query, candidates, self.format.template, id), candidates

    def null_prompt(
        self, prompt: Prompt, shots: int | None = None, text: str = CONTENT_FREE
    ) -> Prompt:
        """Return the prompt with `text` for every input; see `Task.null_prompt`."""
        context = self._framed(shots).around(self.format.null_query(text))
        return replace(prompt, id=f"{prompt.id}:null", context=context)

    def _framed(self, shots: int | None) -> Frame:
        return self.frame if shots is None else self.format.frame(self.demonstrations[:shots])

    def _label(self, row: Mapping[str, Any], id: str) -> int:
        said = row.get(self.columns.label)
        if is_missing(said):
            return UNLABELLED
        try:
            value = label_text(said)
            if value and self.listed is not None:
                return self.listed.place(row, value, id)[0]
        except TaskError:
            return UNKNOWN
        return self.values.get(value, UNKNOWN) if value else UNLABELLED


def _templated(task: Task) -> Gathered | None:
    source = task.source if isinstance(task, Task) else None
    return source if source is not None and source.spec.template is not None else None


def portable(tasks: Iterable[AnyTask], scoring: str | None = None) -> dict[str, dict[str, Any]]:
    """Return the tasks that have prompts for new rows, by their digests, as a run keeps them."""
    made = {task.digest: PortableTask.if_any(task, scoring) for task in tasks}
    return {digest: each.to_json() for digest, each in made.items() if each is not None}
