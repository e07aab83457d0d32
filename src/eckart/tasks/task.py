"""A task: demonstrations, examples, and how they become prompts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self, cast, runtime_checkable

from eckart.errors import TaskError
from eckart.files import home
from eckart.records import fingerprint, full_name
from eckart.statistics.scores import METRICS
from eckart.tasks.chat import Chat, Frame, Shown
from eckart.tasks.columns import find_columns
from eckart.tasks.examples import make_examples, prompt_format, with_template
from eckart.tasks.files import bare_name
from eckart.tasks.labels import find_labels
from eckart.tasks.prompts import CONTENT_FREE, Example, Prompt, PromptFormat
from eckart.tasks.sources import Source, read_hub, read_local
from eckart.tasks.spec import (
    DEFAULT_SHOTS,
    LONGEST_NAME,
    DrawnTask,
    TaskSpec,
    find_spec,
    parted,
)
from eckart.tasks.splits import (
    Draw,
    Gathered,
    Size,
    make_splits,
    parse_sizes,
    plan_splits,
    spare_rows,
    used_splits,
    without_repeats,
)

if TYPE_CHECKING:
    from eckart.weights.models import Tokenizer

Kind = Literal["classification", "choices"]
SPLITS = ("validation", "test", "all")


@runtime_checkable
class AnyTask(Protocol):
    """What every task says of itself, whether it asks for labels or for numbers."""

    @property
    def name(self) -> str:
        """What reports call it."""

    @property
    def variant(self) -> str | None:
        """The named variant of its prompts, if any."""

    @property
    def full_name(self) -> str:
        """What a `Setting` calls it."""

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels; none where numbers are asked for."""

    @property
    def shots(self) -> int:
        """The number of demonstrations."""

    @property
    def seed(self) -> int:
        """Draws the demonstrations."""

    @property
    def metric(self) -> str:
        """What a search compares."""

    @property
    def metrics(self) -> tuple[str, ...]:
        """All that it can compare: the keys of its outcomes' `merits`."""

    @property
    def digest(self) -> str:
        """A hash of all that prompts depend on besides their rows."""

    def rows_digest(self, split: str) -> str:
        """Return a hash of a split's rows, without demonstrations."""

    def redrawn(self, *, shots: int | None = None, seed: int | None = None) -> Self:
        """Return the task with other demonstrations; what is None stays."""


@dataclass(frozen=True, eq=False)
class Task:
    """Labelled rows, divided and ready to be scored. Make one with `Task.load`.

    Arguments:
        name: what reports call it.
        kind: `classification`, where every row has the same labels, or `choices`, where each brings
            its candidates.
        labels: the label words, or the columns of the candidates.
        format: how examples become prompts.
        demonstrations: the examples that every prompt shows, in order.
        validation, test: the rows to choose with, and the rows that are looked at once.
        all: every labelled row that is no demonstration.
        seed, split_seed, balanced: how the rows were drawn.
        variant: the named variant of the prompts, if any.
        metric: what a search compares: `accuracy`, `balanced_accuracy`, `macro_f1` or `log_loss`.
        notes: what a reader should know about the rows: which were left out, which split serves as
            what.
        source, draw: what the rows were divided from, and how.
        said: what `Task.load` was told.
    """

    name: str
    kind: Kind
    labels: tuple[str, ...]
    format: PromptFormat
    demonstrations: tuple[Example, ...] = field(repr=False)
    validation: tuple[Example, ...] = field(repr=False)
    test: tuple[Example, ...] = field(repr=False)
    all: tuple[Example, ...] = field(repr=False)
    seed: int = 0
    split_seed: int = 0
    balanced: bool = True
    variant: str | None = None
    metric: str = "accuracy"
    notes: tuple[str, ...] = ()
    source: Gathered | None = field(default=None, repr=False)
    draw: Draw | None = field(default=None, repr=False)
    said: DrawnTask | None = field(default=None, repr=False)

    @classmethod
    @DrawnTask.as_keywords("task")
    def load(cls, source: str | Path | None = None, **said: Any) -> Self:
        """Read a task of the catalogue, a task file, or just data.

        Arguments:
            source: a catalogue name such as `sst2`, or the path of a task file (.yaml); None with
                `data` alone.
            said: the other fields of `DrawnTask`, in place of the task's own.

        Returns:
            The task; demonstrations, validation and test are disjoint and without repeats (C.3).

        Raises:
            TaskError: the task or its data is not usable; one line says why.
        """
        return cls.of(DrawnTask.of({"task": source, **said}))

    @classmethod
    def of(cls, said: DrawnTask) -> Self:
        """Read what `load` reads, of options that are checked."""
        reader = READERS.get(parted(said.task or "")[0])
        if reader is not None:
            return cast("Self", reader(said))
        if said.task is None and said.data is None:
            raise TaskError("no task: name one, such as sst2, or give a task file or data")
        base = TaskSpec() if said.task is None else find_spec(said.task)
        spec = base if said.variant is None else base.variant(said.variant)
        spec = spec.overridden(said.own())
        rows = _read(spec)
        spec = with_template(spec, rows.columns, rows.where)
        draw = Draw(
            shots=DEFAULT_SHOTS if spec.shots is None else spec.shots,
            reserve=DEFAULT_SHOTS if base.shots is None else base.shots,
            seed=said.seed,
            split_seed=said.split_seed,
            balanced=said.balanced,
        )
        return cls._drawn(_gather(spec, rows, parse_sizes(said.split_sizes)), draw, said)

    def redrawn(self, *, shots: int | None = None, seed: int | None = None) -> Self:
        """Return the task with other demonstrations; what is None stays. Nothing is read again. A
        TaskError where there are not so many, or the task was not made by `Task.load`."""
        source, old = self._origin
        draw = replace(
            old,
            shots=old.shots if shots is None else shots,
            seed=old.seed if seed is None else seed,
        )
        return self._drawn(source, draw, self.said)

    def with_fewer(self, shots: int) -> Self:
        """Return the task with the first of its demonstrations alone, and the very same rows."""
        # Not redrawn: that might give a demonstration that is not shown back to the test rows.
        return replace(self, demonstrations=self.demonstrations[:shots])

    def sealed_from(self, others: Iterable[Task]) -> Self:
        """Return the task without test rows that these show or validate on: of rows in one file
        each draw sets its own demonstrations apart, and so divides the rest a little otherwise. A
        TaskError where the task was not made by `Task.load`."""
        source, draw = self._origin
        chose = {row.id for other in others for row in (*other.demonstrations, *other.validation)}
        return self._drawn(source, replace(draw, sealed=draw.sealed | chose), self.said)

    def reworded(self, variant: str | None) -> Self:
        """Return the task with a variant's prompts, or with its own (None), as many demonstrations
        and the same seed. Its rows are read again.

        Raises:
            TaskError: there is no such variant, or the task was not made by `Task.load`.
        """
        if variant == self.variant:
            return self
        if self.said is None:
            raise TaskError(f"task '{self.name}' was not made by Task.load, so it has no variants")
        drawn = {"variant": variant, "shots": self.shots, "seed": self.seed}
        return self.of(self.said.model_copy(update=drawn))._in_chat(self.format.chat)

    @property
    def variants(self) -> tuple[str, ...]:
        """The names of the variants of its prompts."""
        return () if self.source is None else tuple(self.source.spec.variants)

    @classmethod
    def _drawn(cls, source: Gathered, draw: Draw, said: DrawnTask | None) -> Self:
        spec = source.spec
        return cls(
            name=spec.name or _printable(bare_name(Path(source.where))),
            kind="choices" if spec.choices else "classification",
            labels=source.labels.names,
            format=source.format,
            **make_splits(source, draw),
            seed=draw.seed,
            split_seed=draw.split_seed,
            balanced=draw.balanced,
            variant=None if said is None else said.variant,
            metric=spec.metric,
            notes=source.notes,
            source=source,
            draw=draw,
            said=said,
        )

    @property
    def full_name(self) -> str:
        """The name, and the variant of its prompts if there is one: `sst2:released`."""
        return full_name(self.name, self.variant)

    @property
    def shots(self) -> int:
        """The number of demonstrations."""
        return len(self.demonstrations)

    @property
    def default_score(self) -> Literal["sum", "mean"]:
        """How a continuation's log-likelihood is added up: whole for labels, per token for
        candidates (Table 1)."""
        return "sum" if self.kind == "classification" else "mean"

    @property
    def metrics(self) -> tuple[str, ...]:
        """All that a search can compare."""
        return METRICS

    def rows_digest(self, split: str) -> str:
        """Return the SHA-256 of a split's rows, without demonstrations."""
        return fingerprint([(e.id, e.text, e.label, e.choices) for e in self.examples(split)])

    def examples(self, split: str) -> tuple[Example, ...]:
        """Return the examples of `validation`, `test` or `all`; a TaskError for any other split."""
        if split not in SPLITS:
            raise TaskError(f"no split '{split}'; the splits are {', '.join(SPLITS)}")
        return {"validation": self.validation, "test": self.test, "all": self.all}[split]

    @cached_property
    def spare(self) -> tuple[Example, ...]:
        """The rows that demonstrations are drawn from, less those that are shown, validated or
        tested, in a random order.

        Raises:
            TaskError: the task was not made by `Task.load`.
        """
        source, draw = self._origin
        return spare_rows(source, draw, (*self.demonstrations, *self.validation, *self.test))

    @property
    def _origin(self) -> tuple[Gathered, Draw]:
        if self.source is None or self.draw is None:
            raise TaskError(
                f"task '{self.name}' was not made by Task.load, so it has no rows to draw from"
            )
        return self.source, self.draw

    def prompts(self, split: str) -> tuple[Prompt, ...]:
        """Return the prompts of `validation`, `test` or `all`: every labelled row that is no
        demonstration; a TaskError for any other split."""
        return tuple(map(self.prompt, self.examples(split)))

    def prompt(self, example: Example, shots: int | None = None) -> Prompt:
        """Return the prompt of one example: the first `shots` demonstrations, then the example
        without its label."""
        frame = self._framed(shots)
        return self.format.asked(example.id, frame, example.text, example.choices, example.label)

    def null_prompt(
        self, prompt: Prompt, shots: int | None = None, text: str = CONTENT_FREE
    ) -> Prompt:
        """Return the prompt with `text` for every input, to measure what its continuations score by
        themselves.

        The continuations stay as they are, and so do the demonstrations, or the first `shots` of
        them (Zhao et al. 2021, Calibrate Before Use).
        """
        context = self._framed(shots).around(self.format.null_query(text))
        return replace(prompt, id=f"{prompt.id}:null", context=context)

    def for_tokenizer(self, tokenizer: Tokenizer) -> Self:
        """Return the task with the prompts that a model reads: in its chat template, where the task
        is a chat, and else the very same.

        Raises:
            TaskError: there is no such template.
        """
        chat = self.format.chat
        return self if chat is None else self._in_chat(chat.of(tokenizer))

    def _in_chat(self, chat: Chat | None) -> Self:
        if chat == self.format.chat:
            return self
        format = replace(self.format, chat=chat)
        source = None if self.source is None else replace(self.source, format=format)
        return replace(self, format=format, source=source)

    def _framed(self, shots: int | None) -> Frame:
        return self._frame if shots is None else self.format.frame(self.shown[:shots])

    @cached_property
    def _frame(self) -> Frame:
        return self.format.frame(self.shown)

    @cached_property
    def shown(self) -> tuple[Shown, ...]:
        """The demonstrations as prompts show them."""
        return tuple(map(self.format.demonstration, self.demonstrations))

    @cached_property
    def digest(self) -> str:
        """The SHA-256 of all that prompts depend on besides their rows: template, joins, labels,
        demonstrations."""
        return self.format.digest(self.kind, self.labels, self.shown)


READERS: dict[str, Callable[[DrawnTask], Task]] = {}
"""Of tasks that others bring, by what stands before their names."""


def no_task(value: Any) -> TaskError:
    return TaskError(
        f"a {type(value).__name__} is no task: give one that Task.load returns, or its name"
    )


def _read(spec: TaskSpec) -> Source:
    if spec.data is not None:
        return read_local(home(spec.data), spec.config)
    if spec.hub is None:
        raise TaskError(
            f"task '{spec.name}' says neither data nor hub, so it has no rows; give it data"
        )
    return read_hub(spec.hub, spec.config)


def _gather(spec: TaskSpec, rows: Source, sizes: Mapping[str, Size]) -> Gathered:
    # The paper's plan is for the whole data set; nobody has divided the rows of one file yet,
    # whatever the task is.
    plan = None if rows.single else spec.splits
    notes: tuple[str, ...] = ()
    if plan is not None:
        rows = rows.only(used_splits(plan))
    columns = find_columns(spec, rows.columns, rows.where)
    labels = find_labels(spec, rows, columns.label)
    if plan is None:
        rows = rows.undivided()
        plan, notes = plan_splits(labels.count(rows, columns.label), rows.single)
        rows = rows.only(used_splits(plan))
    prompts = prompt_format(spec, labels.names)
    examples, left_out = make_examples(rows, columns, labels, prompts)
    kept, repeats = without_repeats(examples, used_splits(plan))
    said = (*rows.notes, *notes, *labels.notes, *left_out, *repeats)
    return Gathered(spec, kept, plan, sizes, prompts, columns, labels, rows.where, said)


def _printable(name: str) -> str:
    """Return a file's name as a task's: it may hold line breaks, and bytes that are no text."""
    return "".join(letter if letter.isprintable() else "-" for letter in name)[:LONGEST_NAME]
