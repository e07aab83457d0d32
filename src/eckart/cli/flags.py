"""Flags: what is typed on the command line, and how it becomes the values of declared options.

What is said of a model and a reading is declared in `eckart.weights.options`, of a task in
`eckart.tasks.spec`, of a search in `eckart.selection.plan`, and what a sweep crosses in
`eckart.sweeps.grid`; here stands only what a shell spells otherwise.
"""

from __future__ import annotations

import functools
import inspect
import operator
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, TypeGuard, get_args, get_origin

import typer
from typer.core import TyperCommand

from eckart.cli.paths import with_paths
from eckart.errors import EckartError, EditError, RunError, TaskError
from eckart.files import Closed
from eckart.records import RATES

DEFAULT_RATES = ",".join(f"{rate:g}" for rate in RATES)
NONE: Mapping[str, Any] = MappingProxyType({})


def such_as(*examples: str) -> str:
    """Return what stands below a verb's help; the tests run each."""
    return "\n\n".join(["Such as:", *examples])


def parse_labels(text: str) -> dict[str, str]:
    r"""Read `0=bad,1=good`.

    A backslash takes away what `,` and `=` mean, and begins escapes such as `\u200b`.

    >>> parse_labels("0=bad,1=good"), parse_labels(r"yes\, sir=yes,no=no")
    ({'0': 'bad', '1': 'good'}, {'yes, sir': 'yes', 'no': 'no'})
    """
    pairs = [_pair.fullmatch(pair) for pair in _split_at_commas(text)]
    found: dict[str, str] = {}
    for pair in pairs:
        value, word = map(_unescaped, pair.groups()) if pair else ("", "")
        if not (value and word):
            raise TaskError(f"--labels '{text}' is not VALUE=WORD,VALUE=WORD, such as 0=bad,1=good")
        if value in found:
            raise TaskError(
                f"--labels names the value '{value}' twice, as '{found[value]}' and '{word}'; give"
                " it one word"
            )
        found[value] = word
    return found


_pair = re.compile(r"\s*((?:[^=\\]|\\.)+)=(.+)", re.DOTALL)
_escape = re.compile(r"\\(?:u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([,=\\]))")


def _split_at_commas(text: str) -> list[str]:
    """Split at the commas that no backslash stands before, unless that one has a backslash before
    it itself."""
    parts = [""]
    for piece in re.findall(r"\\.|\\$|,|[^\\,]+", text, re.DOTALL):
        if piece == ",":
            parts.append("")
        else:
            parts[-1] += piece
    return parts


def _unescaped(text: str) -> str:
    def meant(found: re.Match[str]) -> str:
        code = found[1] or found[2]
        return chr(int(code, 16)) if code and int(code, 16) < 0x110000 else found[3] or found[0]

    return _escape.sub(meant, text.strip())


def parse_choices(text: str) -> str | tuple[str, ...]:
    r"""Read the columns of the candidates: `one,two`; one is the column that lists them.

    >>> parse_choices("first,second"), parse_choices("endings")
    (('first', 'second'), 'endings')
    """
    columns = tuple(_unescaped(column) for column in _split_at_commas(text))
    return columns if len(columns) > 1 else columns[0]


def parse_memory(text: str) -> int:
    """Read `200MB`, `2GiB` or a number of bytes.

    >>> parse_memory("200MB"), parse_memory("1.5 GiB"), parse_memory("0")
    (200000000, 1610612736, 0)
    """
    found = re.fullmatch(r"\s*([\d.]+)\s*([KMGT]?)(i?)B?\s*", text, re.IGNORECASE)
    try:
        number, unit, binary = found.groups() if found else ("", "", "")
        return int(float(number) * (1024 if binary else 1000) ** " KMGT".index(unit.upper() or " "))
    except ValueError:
        raise RunError(
            f"--cache-memory '{text}' is no amount of memory, such as 200MB or 4GiB"
        ) from None


def parse_numbers(
    text: str,
    option: str,
    such_as: str,
    read: Callable[[str], Any] = int,
    kind: str = "whole numbers",
) -> list[Any]:
    """Read numbers of a kind, joined by commas.

    >>> parse_numbers("0,1,-1", "--layers", "0,1")
    [0, 1, -1]
    >>> parse_numbers("1,2.5", "--gain", "1,2,5", float, "points")
    [1.0, 2.5]
    """
    try:
        return [read(number) for number in text.split(",")]
    except ValueError:
        raise EditError(
            f"{option} '{text}' are not {kind} joined by commas, such as {such_as}"
        ) from None


def parse_names(text: str | None) -> list[str] | None:
    """Read `lasso,tree`; nothing is for the verb to choose, and `none` is none of them.

    >>> parse_names("lasso, tree"), parse_names("none"), parse_names(None)
    (['lasso', 'tree'], [], None)
    """
    if text is None or text.strip() == "none":
        return None if text is None else []
    return [name.strip() for name in text.split(",")]


@dataclass(frozen=True)
class Spelling:
    """How an option is typed.

    Arguments:
        kind: the type of what is typed.
        read: makes the option's value of it.
        flags: where these are not the option's name.
        name: of the verb's parameter, where it is not the option's.
        least: the smallest number.
        default: what is typed for the option's own, where that is no text.
        help: where the flag says the contrary.
    """

    kind: Any = str | None
    read: Callable[[Any], Any] = lambda typed: typed
    flags: tuple[str, ...] = ()
    name: str | None = None
    least: int | None = None
    default: str | None = None
    help: str | None = None


SPELLINGS = {
    "labels": Spelling(read=parse_labels),
    "choices": Spelling(read=parse_choices),
    "data": Spelling(Path | None, str),
    "balanced": Spelling(
        *(bool, operator.not_, ("--unbalanced",), "unbalanced"),
        help="Draw demonstrations at random, not evenly from the classes.",
    ),
    "cache_memory": Spelling(read=parse_memory),
    "batch_tokens": Spelling(int | None, least=1),
    "points": Spelling(int | None),
    "rates": Spelling(default=DEFAULT_RATES),
    "layer": Spelling(default="auto"),
    "models": Spelling(list[str] | None, flags=("--model",)),
    "guard_task": Spelling(list[str] | None, flags=("--guard-task",)),
    # Of a training, whose rate clips nothing and whose model is a kind of model.
    "rate": Spelling(float, flags=("--learning-rate",)),
    "model": Spelling(str, flags=("--architecture",)),
}
"""Of the options that are not typed as they are; lists of anything are typed as one text."""
AS_THEY_ARE = (bool, int, float, str, int | None, float | None)


def _spelling(kind: type[Closed], name: str) -> Spelling:
    annotation = kind.model_fields[name].annotation
    plain = Spelling(annotation) if annotation in AS_THEY_ARE else Spelling()
    return SPELLINGS.get(name, plain)


def _flag_of(name: str) -> str:
    return "--" + name.replace("_", "-")


def declared(kind: type[Closed], name: str, help_: str | None = None) -> Any:
    """Return a declared option as typer has it."""
    how = _spelling(kind, name)
    flags = how.flags or ((_flag_of(name),) if how.kind is bool else ())
    bases = [base for base in kind.__mro__ if _is_kind(base)]
    where = next(base for base in bases if name in base.__annotations__)
    said = help_ or how.help or kind.model_fields[name].description
    number = None if how.least is None else "N"  # a range's name pushes long flags out of the help
    return typer.Option(
        *flags, help=said, min=how.least, metavar=number, rich_help_panel=where.heading
    )


@dataclass(frozen=True)
class _Group:
    """The options that a verb takes as one parameter.

    Arguments:
        kinds: where they are declared.
        said: whether the verb takes what was said, as a dict, and not one of the kind.
    """

    kinds: tuple[type[Closed], ...]
    said: bool

    @classmethod
    def of(cls, annotation: Any) -> _Group | None:
        """Return what a parameter's annotation asks for; None if it is an option itself."""
        if get_origin(annotation) is Annotated:
            kinds = tuple(kind for kind in get_args(annotation)[1:] if _is_kind(kind))
            return cls(kinds, said=True) if kinds else None
        return cls((annotation,), said=False) if _is_kind(annotation) else None

    @property
    def fields(self) -> dict[str, type[Closed]]:
        """Where each option is declared."""
        return {name: kind for kind in self.kinds for name in kind.model_fields}

    def parameters(
        self, defaults: Mapping[str, Any], helps: Mapping[str, str]
    ) -> Iterator[inspect.Parameter]:
        """Yield a parameter for each option; what was not said is None, or False for a switch. What
        the verb does anyway is none."""
        for name, kind in self.fields.items():
            if defaults.get(name) is True:
                continue
            how = _spelling(kind, name)
            own = how.default or kind.model_fields[name].default
            default = None if self.said or own == () else defaults.get(name, own)
            yield inspect.Parameter(
                how.name or name,
                inspect.Parameter.KEYWORD_ONLY,
                default=False if how.kind is bool else default,
                annotation=Annotated[
                    how.kind | None if self.said and how.kind is not bool else how.kind,
                    declared(kind, name, helps.get(name)),
                ],
            )

    def value(self, given: dict[str, Any], defaults: Mapping[str, Any]) -> Any:
        """Return what the verb takes; the options leave what was given."""
        spelled = {name: _spelling(kind, name) for name, kind in self.fields.items()}
        typed = {n: given.pop(how.name or n, defaults.get(n)) for n, how in spelled.items()}
        read = {
            name: spelled[name].read(value)
            for name, value in typed.items()
            if value is not None and value is not False
        }
        return read if self.said else self.kinds[0].of(read)

    @property
    def flags(self) -> dict[str, str]:
        """By the options' names."""
        own = {name: _spelling(kind, name).flags for name, kind in self.fields.items()}
        return {name: flags[0] if flags else _flag_of(name) for name, flags in own.items()}


def _is_kind(kind: Any) -> TypeGuard[type[Closed]]:
    return isinstance(kind, type) and issubclass(kind, Closed)


def with_options(
    defaults: Mapping[str, Any] = NONE, helps: Mapping[str, str] = NONE
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a verb a flag for each option of what its parameters ask for, in their place.

    A parameter that is annotated with a kind of options gets one of that kind; one that is
    annotated `Annotated[dict[str, Any], ONE, OTHER, ...]` gets what was said of these kinds, and no
    more.

    Arguments:
        defaults: where they are this verb's own; a switch that is on is no flag.
        helps: where it is this verb's own.
    """

    def decorated(verb: Callable[..., None]) -> Callable[..., None]:
        asked = list(inspect.signature(verb, eval_str=True).parameters.values())
        groups = {p.name: group for p in asked if (group := _Group.of(p.annotation))}
        named = {name: flag for group in groups.values() for name, flag in group.flags.items()}

        @functools.wraps(verb)
        def command(**given: Any) -> None:
            try:
                made = {n: group.value(given, defaults) for n, group in groups.items()}
                verb(**given, **made)
            except EckartError as error:
                flag = named.get(error.option or "")
                if flag is None:
                    raise
                raise type(error)(f"{flag} {error.said}") from error

        own = [p for p in asked if p.name not in groups]
        flags = [p for group in groups.values() for p in group.parameters(defaults, helps)]
        command.__signature__ = inspect.Signature([*own, *flags])  # type: ignore[attr-defined]
        return command

    return decorated


class EitherNumber(TyperCommand):
    """A command that takes a flag in the singular or the plural, where it has one of them alone."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        known = {flag for option in self.params for flag in option.opts}
        return super().parse_args(ctx, [_in_its_number(word, known) for word in args])


def _in_its_number(word: str, known: Collection[str]) -> str:
    """Return a flag as a command knows it.

    >>> _in_its_number("--layer=3", {"--layers"}), _in_its_number("--seeds", {"--seed", "--seeds"})
    ('--layers=3', '--seeds')
    """
    flag, equals, value = word.partition("=")
    other = flag[:-1] if flag.endswith("s") else f"{flag}s"
    meant = other if flag.startswith("--") and flag not in known and other in known else flag
    return meant + equals + value


def finish_verbs(app: typer.Typer) -> None:
    """Let every verb of an app, and of those in it, have its paths read and checked before it
    begins, its flags in the singular and the plural, and its docstring as a help that breaks lines
    where the terminal does."""
    for group in app.registered_groups:
        if group.typer_instance is not None:
            finish_verbs(group.typer_instance)
    for command in app.registered_commands:
        if command.callback is not None:
            paragraphs = (inspect.getdoc(command.callback) or "").split("\n\n")
            command.help = "\n\n".join(" ".join(text.split()) for text in paragraphs)
            command.callback = with_paths(command.callback)
            command.cls = EitherNumber
