"""The records of a run: edits, settings, splits, rows and trials, and how each is written."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal, TypeAlias

from eckart.errors import EckartError, EditError
from eckart.statistics.scores import Outcome, Score, read_outcome

ATTENTION = ("q", "k", "v", "o")
FEED_FORWARD = ("gate", "up", "down", "fc_in", "fc_out")
PARTS: dict[str, tuple[str, ...]] = {
    "attn": ATTENTION,
    "mlp": FEED_FORWARD,
    "all": ATTENTION + FEED_FORWARD,
    **{name: (name,) for name in ATTENTION + FEED_FORWARD},
}
"""Every part that an edit can name, and the matrices it stands for (Section 2 of the paper)."""


RATES = (0.0, 0.1, 0.5, 0.75, 0.9, 0.95, 0.99, 0.995)
"""The clipping rates of the paper's released search."""

TOP_K = 3
"""How many of the worst-conditioned layers Algorithm 1 looks at; the paper does not say."""


SMALLEST, LARGEST, DROP = "smallest", "largest", "drop"
CUT = re.compile(r"smallest|largest|random([1-9][0-9]{0,8})?|drop", re.ASCII)
CUTS = (
    "RATE may be followed by what is cut (:smallest, :largest, :random, or by another seed"
    " :random1, :random2, ...), and LAYER:PART:drop drops a part"
)


@dataclass(frozen=True, order=True, repr=False)
class Edit:
    """Clip one part of one layer at one rate, or, as a control arm, cut something else there.

    Arguments:
        layer: 0-based; a negative number counts from the last layer.
        part: `attn`, `mlp`, `all`, or one matrix: `q k v o gate up down fc_in fc_out`.
        rate: the clipping rate xi in [0, 1) of Section 2; 0 leaves every byte as it is. Of a part
            that is dropped, 1.
        cut: which singular directions of each matrix go: those of its `smallest` singular values
            (the paper's), of its `largest`, as many at `random` (seed 0; `random3` is seed 3); or
            `drop`: the part adds nothing to the residual stream.

    >>> Edit.parse("26:mlp:0.95")
    Edit(layer=26, part='mlp', rate=0.95)
    >>> str(Edit(layer=-1, part="attn", rate=0.5)), str(Edit(26, "mlp", cut="drop"))
    ('-1:attn:0.5', '26:mlp:drop')
    """

    layer: int
    part: str
    rate: float = 1.0
    cut: str = SMALLEST

    def __post_init__(self) -> None:
        if self.part not in PARTS:
            raise EditError(f"no part '{self.part}'; the parts are {', '.join(PARTS)}")
        if not CUT.fullmatch(self.cut):
            raise EditError(f"no cut '{self.cut}'; {CUTS}")
        if self.cut != DROP:
            if not check_rate(self.rate) and self.cut != SMALLEST:
                raise EditError(f"rate 0 cuts nothing, '{self.cut}' or not; give a larger one")
        elif len(PARTS[self.part]) == 1:
            raise EditError(f"'{self.part}' is one matrix, no part to drop: attn, mlp or all is")
        elif self.rate != 1:
            raise EditError(f"{DROP} takes no rate: write {self.layer}:{self.part}:{DROP}")

    @property
    def amount(self) -> str:
        """What is cut, as the edit's text says it: `0.95`, `0.95:random3` or `drop`."""
        # Every digit counts: two rates may leave different ranks.
        rate = repr(float(self.rate)).removesuffix(".0")
        return {DROP: DROP, SMALLEST: rate}.get(self.cut, f"{rate}:{self.cut}")

    def __str__(self) -> str:
        return f"{self.layer}:{self.part}:{self.amount}"

    def __repr__(self) -> str:
        return f"Edit({', '.join(f'{name}={value!r}' for name, value in self.to_json().items())})"

    @classmethod
    def parse(cls, text: str) -> Edit:
        """Read `LAYER:PART:RATE`, `LAYER:PART:RATE:CUT` or `LAYER:PART:drop`.

        Raises:
            EditError: the text has another form, or names no part, no rate in [0, 1) or no cut.
        """
        try:
            layer, part, *what = (piece.strip() for piece in text.split(":"))
            said = what if len(what) == 2 else (*what, SMALLEST)
            rate, cut = ("1", DROP) if what == [DROP] else said
            return cls(int(layer), part, float(rate), cut)
        except ValueError:
            raise EditError(
                f"edit '{text}' is not LAYER:PART:RATE, such as 26:mlp:0.95; {CUTS}"
            ) from None

    def to_json(self) -> dict[str, Any]:
        """Return plain values, as ever: what is cut stands there where it is not the paper's."""
        cut = {} if self.cut == SMALLEST else {"cut": self.cut}
        return {"layer": self.layer, "part": self.part, "rate": self.rate, **cut}


def check_rate(rate: float) -> float:
    """Return a clipping rate; an EditError where it is not a number in [0, 1)."""
    if not (math.isfinite(rate) and 0 <= rate < 1):
        raise EditError(
            f"clipping rate {rate:g} is outside [0, 1); 0.95 keeps 5% of the rank, 0 leaves the"
            " matrix as it is"
        )
    return rate


def check_rates(rates: Iterable[float]) -> tuple[float, ...]:
    """Return the candidate rates in ascending order, each once, with 0 among them: not to clip is
    always an answer. An EditError where one is outside [0, 1)."""
    return tuple(sorted({0.0, *(check_rate(rate) for rate in rates)}))


Edits: TypeAlias = tuple[Edit, ...]
"""What is clipped together, as trials name it: layers counted from the first, sorted, no rate 0."""


@dataclass(frozen=True, order=True)
class Setting:
    """What is scored before anything is clipped.

    Arguments:
        model: as the user names it: a hub id or a path.
        task: its name; with a variant of its prompts, `sst2:released`.
        shots: the number of demonstrations.
        seed: which of them were drawn.
        scoring: how continuations are ranked: `sum`, `mean`, ...
    """

    model: str
    task: str
    shots: int
    seed: int
    scoring: str


def full_name(name: str, variant: str | None) -> str:
    """Return what a task is called in a `Setting`.

    >>> full_name("sst2", None), full_name("sst2", "released")
    ('sst2', 'sst2:released')
    """
    return name if variant is None else f"{name}:{variant}"


def draws(shots: Sequence[int], seeds: Sequence[int]) -> list[tuple[int | None, int | None]]:
    """Return the shots and seeds of a task's units; None for the task's own. Without shots no seed
    draws anything.

    >>> draws([0, 4], [1, 2])
    [(0, 1), (4, 1), (4, 2)]
    """
    drawn = itertools.product(shots or (None,), seeds or (None,))
    return [(shot, seed) for shot, seed in drawn if shot != 0 or seed == (seeds or (None,))[0]]


class Split(str):
    """Rows of a task by their name: `validation`, `test` or `all`, or neighbours among them.

    It is the text that trials keep, read once.

    Arguments:
        name: of the whole split.
        start, stop: of the rows that are meant; None for all.

    >>> part = Split("validation[0:64]")
    >>> part.name, part.start, part.stop, part == Split.part("validation", 0, 64)
    ('validation', 0, 64, True)
    >>> Split("test").start
    """

    name: str
    start: int | None
    stop: int | None

    def __new__(cls, text: str) -> Split:
        split = super().__new__(cls, text)
        found = re.fullmatch(r"(\w+)\[(\d+):(\d+)\]", text)
        split.name, *ends = found.groups() if found else (str(text), None, None)
        split.start, split.stop = (int(end) if end else None for end in ends)
        return split

    @classmethod
    def part(cls, name: str, start: int, stop: int) -> Split:
        """Name some rows of a split."""
        return cls(f"{name}[{start}:{stop}]")

    @property
    def is_part(self) -> bool:
        """Whether only some rows are meant."""
        return self.start is not None

    @property
    def slice(self) -> slice:
        """What cuts these rows out of the whole split's."""
        return slice(self.start, self.stop)


@dataclass(frozen=True)
class Row:
    """A row as a reader meets it: without demonstrations.

    Arguments:
        id: `<source split>:<row index in the file>`.
        text: what is asked.
        label: index into the labels, or of the right choice; None where a number is asked for.
        choices: the candidates, for multiple choice.
    """

    id: str
    text: str
    label: int | None
    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Rows:
    """The rows of a split, in its order, and what their labels are called."""

    labels: tuple[str, ...]
    rows: tuple[Row, ...]

    @cached_property
    def digest(self) -> str:
        """The SHA-256 of the rows: two trials are comparable row by row where it is the same."""
        return fingerprint(self.to_json())

    def to_json(self) -> dict[str, Any]:
        """Return plain values, ready for `json.dumps`."""
        return {"labels": list(self.labels), "rows": [asdict(row) for row in self.rows]}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Rows:
        """Read what `to_json` wrote."""
        rows = (Row(**{**row, "choices": tuple(row["choices"])}) for row in values["rows"])
        return cls(tuple(values["labels"]), tuple(rows))


@dataclass(frozen=True)
class Trial:
    """An edit scored on a task's split, kept for good.

    Arguments:
        key: hash of everything that the outcome depends on.
        setting: the model, the task, the demonstrations and the scoring.
        split: which rows.
        rows: the digest of the whole split's `Rows`.
        edits: what was clipped; empty for the unpruned model.
        status: `done`, or `failed` with its cause in `error`.
        score: the outcome; None for a failed trial.
        seconds: wall-clock time, an equal share of it where one reading gave several trials; the
            only field that differs between reruns.
        file: the one file that the weights are from, by its digest, and what they are quantised to
            in it; None for every other checkpoint.
        stored_as: the type of GGUF files that the clipped weights went through; None for no type.
    """

    key: str
    setting: Setting
    split: Split
    rows: str
    edits: Edits
    status: Literal["done", "failed"] = "done"
    score: Outcome | None = None
    error: str | None = None
    seconds: float = 0.0
    file: str | None = None
    stored_as: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "split", Split(self.split))

    @property
    def trials(self) -> tuple[Trial, ...]:
        """Itself: what was scored under one draw rests on one trial."""
        return (self,)

    @property
    def labelled(self) -> Score | None:
        """The outcome on labels; None for a failed trial.

        Raises:
            EckartError: the task asks for numbers, of which none is right or wrong.
        """
        if self.score is not None and not isinstance(self.score, Score):
            raise EckartError(
                f"task '{self.setting.task}' asks for numbers: its trials hold squared errors, and"
                " here the shares of right labels are looked at"
            )
        return self.score

    def to_json(self) -> dict[str, Any]:
        """Return plain values, ready for `json.dumps`."""
        values = {**asdict(self), "edits": tuple(edit.to_json() for edit in self.edits)}
        return {k: v for k, v in values.items() if v is not None or k not in ("file", "stored_as")}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Trial:
        """Read what `to_json` wrote."""
        score = values["score"]
        return cls(
            **{
                **values,
                "setting": Setting(**values["setting"]),
                "edits": tuple(Edit(**edit) for edit in values["edits"]),
                "score": None if score is None else read_outcome(score),
            }
        )


def or_null(value: float) -> float | None:
    """Return a number, or None where JSON has no word for it."""
    return value if math.isfinite(value) else None


def fingerprint(values: Any) -> str:
    """Return the SHA-256 of plain values, as hexadecimal digits.

    >>> fingerprint(["text: fine"])[:8]
    '3d30dbf5'
    """
    # ASCII, so that a text which holds half of a surrogate pair has a fingerprint too.
    return hashlib.sha256(
        json.dumps(values, ensure_ascii=True, sort_keys=True).encode()
    ).hexdigest()


@dataclass(frozen=True)
class Asked:
    """What a run was asked: a search of one model, part and task, a sweep of several of each.

    Arguments:
        kind: `search`, `sweep`, `spectrum` or `training`.
        grid: what a sweep crosses, by the names of its fields; empty where nothing is crossed.
        models, parts: a sweep's, in its order.
        rates: the clipping rates, 0 among them.
        top_k: how many of the worst-conditioned layers the layer is the deepest of.
        readings: how many ways a sweep asks each of its models: tasks, draws and scorings.
        metrics, own_metric: what was compared on validation: by a sweep's tasks' full names, and
            by a search.
        raced: whether rates that were clearly beaten were dropped.
        draws, prompts: over how many of each a search averaged; a draw is in one prompt.
    """

    kind: str
    grid: Mapping[str, Any]
    models: tuple[str, ...]
    parts: tuple[str, ...]
    rates: tuple[float, ...]
    top_k: int
    readings: int
    metrics: Mapping[str, str]
    own_metric: str
    raced: bool
    draws: int
    prompts: int

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Asked:
        """Read the settings that a run's store keeps."""
        study = settings.get("study") or {}
        said, tasks = study or settings, study.get("tasks") or ()
        ways = len(draws(study.get("shots") or (), study.get("seeds") or ()))
        return cls(
            kind=str(settings.get("kind", "run")),
            grid=study if "models" in study else {},
            models=tuple(model["name"] for model in study.get("models") or ()),
            parts=tuple(study.get("parts") or ()),
            rates=tuple(said.get("rates") or ()),
            top_k=said.get("top_k") or TOP_K,
            readings=len(tasks) * ways * max(1, len(study.get("scorings") or ())),
            metrics={full_name(task["name"], task["variant"]): task["metric"] for task in tasks},
            own_metric=settings.get("metric") or "accuracy",
            raced=bool(settings.get("race") or settings.get("strategy")),
            draws=len(settings.get("draws") or [""]),
            prompts=len(settings.get("templates") or [""]),
        )

    def metric(self, task: str) -> str:
        """Return what was compared on validation for a task, by its full name."""
        return self.metrics.get(task, self.own_metric)
