"""A search's options, and the types of those that a sweep has too: each with its check and its
help. Needs neither torch nor numpy."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BeforeValidator, Field, PositiveInt, model_validator

from eckart.errors import EckartError, EditError, ModelError, StudyError, TaskError, closest
from eckart.files import Closed, option
from eckart.records import PARTS, RATES, TOP_K, check_rates
from eckart.statistics.scores import ALL_METRICS
from eckart.weights.options import GGUF_TYPES


def listed(value: Any) -> Any:
    """Return one value as a list of one; text is cut at its commas."""
    if isinstance(value, str):
        return [item.strip() for item in value.split(",")]
    return value if isinstance(value, list | tuple) else [value]


LONGEST = 100_000
"""The most numbers that a range may stand for."""


def read_numbers(value: Any) -> list[int]:
    """Read whole numbers with ranges among them; both ends of a range belong to it.

    Raises:
        StudyError: something else is among them.

    >>> read_numbers("0..3,7")
    [0, 1, 2, 3, 7]
    """
    found: list[int] = []
    for item in listed(value):
        span = re.fullmatch(r"\s*(-?\d+)(?:\s*\.\.\s*(-?\d+))?\s*", str(item))
        if span is None:
            raise StudyError(f"'{item}' is no whole number, such as 4, and no range, such as 0..4")
        first = int(span[1])
        last = int(span[2] or span[1])
        if last < first:
            raise StudyError(f"range '{item}' runs down; say {last}..{first}")
        if last - first >= LONGEST:
            raise StudyError(f"range '{item}' holds more than {LONGEST:,} numbers; name fewer")
        found += range(first, last + 1)
    return found


def check_known(
    value: Any, known: Collection[str], what: str, wrong: type[EckartError] = EditError
) -> Any:
    """Return a name, or None.

    Raises:
        wrong: it is none of those that are known.
    """
    if value is not None and value not in known:
        raise wrong(f"no {what} '{value}'; {closest(str(value), known)}")
    return value


def one_of(
    known: Collection[str], what: str, wrong: type[EckartError] = EditError
) -> BeforeValidator:
    """Return `check_known` as a check of a field."""
    return BeforeValidator(lambda value: check_known(value, known, what, wrong))


def read_rates(value: Any) -> tuple[float, ...]:
    """Read `0,0.5,0.9`, or numbers.

    Raises:
        EditError: something else is among them, or a rate outside [0, 1).
    """
    try:
        return tuple(map(float, listed(value)))
    except (TypeError, ValueError):
        raise EditError(
            f"rates '{value}' are not numbers joined by commas, such as 0,0.5,0.9"
        ) from None


def _read_layer(value: Any) -> int | str | None:
    """Read a number or a screen's name, which `eckart.selection.screens` knows."""
    if value in ("auto", None):
        return None
    try:
        return int(value)
    except (TypeError, ValueError):
        return str(value)


def _read_combination(value: Any) -> Any:
    # Not at the top: the command line takes its options from this module, and wants no numpy.
    from eckart.weights.conditioning import COMBINATIONS

    return check_known(value, COMBINATIONS, "combination")


def _written(rates: Iterable[float]) -> str:
    return ",".join(f"{rate:g}" for rate in rates if rate)


def _read_types(value: Any) -> list[str]:
    """Read `q4_0,q8_0`; a ModelError where one is no type."""
    types = [str(one).lower() for one in listed(value)]
    return [check_known(one, GGUF_TYPES, "GGUF type", ModelError) for one in types]


def _once(read: Callable[[Any], Iterable[Any]]) -> Callable[[Any], tuple[Any, ...]]:
    return lambda value: tuple(dict.fromkeys(read(value)))


SCREEN_ROWS = 100
"""On how many rows a gradient is taken, where nobody says otherwise."""
STRATEGIES = ("algorithm1", "greedy")
BY_HAND = "by hand"
"""The strategy of a run whose edits somebody chose by looking at them."""
GREEDY_RATES = (0.0, 0.5, 0.9, 0.99)
"""What a greedy search tries, where nobody names other rates."""
COMPOSABLE = ("accuracy", "log_loss")
"""What a greedy search can compare."""
PLACES = 8
"""How many places a greedy search takes its candidates from, where nobody says otherwise."""

Part = Annotated[str, one_of(PARTS, "part")]
Rates = Annotated[
    tuple[float, ...],
    BeforeValidator(read_rates),
    AfterValidator(check_rates),
    Field(description="Clipping rates to try; 0 is always among them."),
]
TopK = Annotated[
    PositiveInt, Field(description="auto takes the deepest of the K worst-conditioned layers.")
]
Combine = Annotated[
    str,
    BeforeValidator(_read_combination),
    Field(
        description="A layer's condition number from its matrices': geometric, mean, max or min."
    ),
]
Metric = Annotated[
    str | None,
    one_of(ALL_METRICS, "metric"),
    Field(
        description=(
            "Compared on validation: accuracy, balanced_accuracy, macro_f1 or log_loss (smaller is"
            " better). The task's own by default."
        )
    ),
]
Controls = Annotated[
    bool,
    Field(
        description=(
            "Test the choice beside its control arms: random directions, the largest, and the part"
            " dropped."
        )
    ),
]


class Plan(Closed):
    """What a search looks at."""

    called = "the search"
    wrong = EditError
    part: Part = option("mlp", "attn, mlp, all, or one matrix: q k v o gate up down fc_in fc_out.")
    rates: Rates | None = option(
        None,
        f"Clipping rates to try; 0 is always among them. Without, {_written(RATES)}; greedy"
        f" {_written(GREEDY_RATES)}.",
    )
    layer: Annotated[int | str | None, BeforeValidator(_read_layer)] = option(
        None,
        "A layer, negative from the last; or how to find one: condition-number (the same as"
        " auto), gradient, validation, last, random:SEED.",
    )
    screen_rows: PositiveInt = option(
        SCREEN_ROWS,
        "On how many rows, which are no demonstration, validation or test row, --layer gradient"
        " is taken.",
    )
    top_k: TopK = TOP_K
    combine: Combine = "geometric"
    metric: Metric = None
    race: bool = option(
        False,
        "Stop reading a rate once it is clearly beaten; the choice is the same, 19 times in 20.",
    )
    controls: Controls = False
    rivals: bool = option(
        False,
        "Test the choice beside what costs nothing: fewer demonstrations, calibration, and both.",
    )
    also: Annotated[tuple[str, ...], BeforeValidator(_once(_read_types))] = option(
        (),
        "Test the choice at these precisions too: clipped, quantised to q8_0, q4_0, ... and"
        " dequantised.",
    )
    seeds: Annotated[tuple[int, ...], BeforeValidator(_once(read_numbers))] = option(
        (),
        "Choose by the mean over these draws of demonstrations, 0,1,2 or 0..4, in place of --seed.",
    )
    templates: Annotated[tuple[str, ...], BeforeValidator(_once(listed))] = option(
        (),
        "Choose by the mean over these variants of a task file's prompts; own: those without a"
        " name; all.",
    )
    strategy: Annotated[str, one_of(STRATEGIES, "strategy")] = option(
        "algorithm1",
        "algorithm1, the paper's: one edit; or greedy: one after another, each taken once"
        " validation shows that the model does better with it.",
    )
    places: PositiveInt = option(
        PLACES, "greedy: how many places candidates are at; deepest first, or by --layer."
    )
    evaluations: int | None = Field(
        default=None,
        gt=0,
        description="greedy: the most row passes, each a validation row read through one model.",
    )
    minutes: float | None = Field(
        default=None,
        gt=0,
        allow_inf_nan=False,
        description="greedy: no look at more rows is begun after so many minutes of reading.",
    )

    @property
    def greedy(self) -> bool:
        """Whether edits are composed."""
        return self.strategy == "greedy"

    @property
    def tried(self) -> tuple[float, ...]:
        """The rates of the candidates."""
        return self.rates or (GREEDY_RATES if self.greedy else RATES)

    @model_validator(mode="before")
    @classmethod
    def _papers(cls, said: dict[str, Any]) -> dict[str, Any]:
        """Algorithm 1 goes by condition numbers, named or not: it is one run."""
        named = said.get("layer") == "condition-number" and said.get("strategy") != "greedy"
        return {**said, "layer": None} if named else said

    @model_validator(mode="after")
    def _heard(self) -> Self:
        by_number = self.layer == "condition-number" or (self.layer is None and not self.greedy)
        for names, of, heard, instead in (
            (("screen_rows",), "a gradient", self.layer == "gradient", "--layer gradient"),
            (("top_k", "combine"), "condition numbers", by_number, "--layer condition-number"),
            (
                ("places", "evaluations", "minutes"),
                "a greedy search",
                self.greedy,
                "--strategy greedy",
            ),
        ):
            for name in names:
                value = getattr(self, name)
                if not heard and value != Plan.model_fields[name].default:
                    raise EditError(
                        f"--{name.replace('_', '-')} {value} is of {of}, and here is none; add"
                        f" {instead}"
                    )
        return self

    @model_validator(mode="after")
    def _screened(self) -> Self:
        if isinstance(self.layer, str) and not any(self.tried):
            raise EditError(
                f"--layer {self.layer} looks for where to cut, and rate 0 cuts nothing; add a rate,"
                " such as 0.9"
            )
        return self

    @model_validator(mode="after")
    def _raced(self) -> Self:
        if self.race and self.metric is not None:
            check_raceable(self.metric)
        if self.race and (len(self.seeds) > 1 or self.templates):
            raise EditError(
                "a race compares which rows are right under one draw and prompt, and here are"
                " several; leave out --race, or --seeds and --templates"
            )
        return self

    @model_validator(mode="after")
    def _composed(self) -> Self:
        if self.greedy and self.race:
            raise EditError(
                "a greedy search drops what is beaten without being told to; leave out --race"
            )
        if self.greedy and self.metric is not None:
            check_composable(self.metric)
        if self.greedy and self.layer == "validation":
            raise EditError(
                "--layer validation picks by rows that a greedy search tests on, whose error rate"
                " would not hold; choose --layer gradient, last or random:SEED"
            )
        if self.greedy and not any(self.tried):
            raise EditError("rate 0 alone leaves a greedy search without candidates; add others")
        return self


def check_raceable(metric: str) -> None:
    """Refuse to race by anything but accuracy.

    Raises:
        EditError: the metric is another.
    """
    if metric != "accuracy":
        raise EditError(
            f"a race compares which rows are right, which says nothing sure of {metric}; leave out"
            " --race, or choose --metric accuracy"
        )


def check_composable(metric: str) -> None:
    """Refuse to compose by what is no mean over rows of bounded values.

    Raises:
        EditError: the metric is another.
    """
    if metric not in COMPOSABLE:
        raise EditError(
            f"a greedy search compares row by row, and {metric} is nothing that a row has by"
            f" itself, or has bounds; choose --metric {' or '.join(COMPOSABLE)}"
        )


MARGIN = 1.0
"""By how many points of accuracy a model may do worse elsewhere, where nobody says otherwise."""


def check_margin(margin: float) -> float:
    """Return a margin in points of accuracy that is one.

    Raises:
        EckartError: it is negative, above 100, or not a number.
    """
    if not 0 <= margin <= 100:
        raise EckartError(
            f"guard margin {margin:g} is not from 0 to 100; it is in points of accuracy, such as 1"
        )
    return margin


class GuardOptions(Closed):
    """What else is looked at of an edit; see `eckart.selection.guard.Guard`."""

    heading = "The guard"
    called = "the guard"
    guard: bool = option(
        False,
        "Say what else the edit does: how far it moves the model on neutral text, and whether other"
        " tasks suffer.",
    )
    guard_text: Annotated[str | None, BeforeValidator(lambda said: said and str(said))] = option(
        None, "A file of plain text; without, the text that comes with the package."
    )
    guard_task: Annotated[tuple[str, ...], BeforeValidator(listed)] = option(
        (), "Another task that must not suffer, a name or a file; may be given several times."
    )
    guard_margin: Annotated[float, AfterValidator(check_margin)] = option(
        MARGIN, "By how many points of accuracy it may do worse there."
    )

    @model_validator(mode="after")
    def _asked(self) -> Self:
        fields = GuardOptions.model_fields.items()
        said = [name for name, field in fields if getattr(self, name) != field.default]
        if said and not self.guard:
            flag = "--" + said[0].replace("_", "-")
            raise TaskError(f"{flag} says how to guard, and nothing is guarded; add --guard")
        return self
