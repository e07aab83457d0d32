"""Examples and prompts: how a row's text, the demonstrations and the labels become the strings that are scored."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import jinja2
import jinja2.meta
from jinja2 import nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment

from eckart.errors import TaskError

CONTENT_FREE = "N/A"
"""Stands for every input in a null prompt (contextual calibration: Zhao et al. 2021, Calibrate Before Use)."""


@dataclass(frozen=True)
class Example:
    """A labelled row.

    Arguments:
        id: `<source split>:<row index in the file>`.
        text: the row as it is asked about: the rendered template, without demonstrations and label.
        label: index into the task's labels.
        choices: the row's candidates, for multiple choice.
        fields: what a template can name.
    """

    id: str
    text: str
    label: int
    choices: tuple[str, ...] = ()
    fields: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)


@dataclass(frozen=True)
class Prompt:
    """What is scored: how likely is each continuation after the context?

    Arguments:
        id: the example's.
        context: the demonstrations and the example. It does not end in white space, unless a task's author wants so.
        continuations: one for each label. White space at a word boundary is theirs, because tokenisers put it there.
        label: index of the right continuation.
    """

    id: str
    context: str
    continuations: tuple[str, ...]
    label: int


# Escaping is for HTML: here it would turn the ' of a review into &#39;, which the model then reads.
_ENVIRONMENT = ImmutableSandboxedEnvironment(
    undefined=jinja2.StrictUndefined, autoescape=False, keep_trailing_newline=True
)
_ENVIRONMENT.globals.clear()

# A task file may come from somebody else. A template fills in a row: it tests and it trims, but nothing in it repeats
# or grows, so it ends, and it says the same each time.
FILTERS = frozenset(
    [
        "capitalize",
        "d",
        "default",
        "first",
        "int",
        "last",
        "length",
        "lower",
        "round",
        "string",
        "title",
        "trim",
        "truncate",
        "upper",
    ]
)
METHODS = frozenset(
    ["capitalize", "endswith", "lower", "lstrip", "rstrip", "startswith", "strip", "title", "upper"]
)
_PLAIN = (nodes.Template, nodes.Output, nodes.TemplateData, nodes.Name, nodes.Const, nodes.If, nodes.CondExpr)
_EXPRESSIONS = (
    nodes.Getattr,
    nodes.Getitem,
    nodes.Slice,
    nodes.Concat,
    nodes.Compare,
    nodes.Operand,
    nodes.Test,
)
_LOGIC = (nodes.And, nodes.Or, nodes.Not, nodes.Neg, nodes.Pos, nodes.Add, nodes.Sub, nodes.Keyword)


def _check_plain(node: nodes.Node) -> None:
    """Refuse whatever a prompt does not need.

    Raises:
        jinja2.TemplateError: the template loops, calculates, or calls what is not listed.
    """
    for part in node.iter_child_nodes():
        if (isinstance(part, nodes.Filter) and part.name in FILTERS) or (
            isinstance(part, nodes.Call)
            and isinstance(part.node, nodes.Getattr)
            and part.node.attr in METHODS
        ):
            pass
        elif not isinstance(part, _PLAIN + _EXPRESSIONS + _LOGIC):
            name = getattr(part, "name", type(part).__name__.lower())
            raise jinja2.TemplateError(
                f"'{name}' is not for prompts; fill in columns, trim them, and test them with if"
            )
        _check_plain(part)


class Template:
    """A Jinja2 template that names columns: `{{ review }}`, or `{{ row["my column"] }}`.

    Raises:
        TaskError: the template is broken.

    >>> Template("review: {{ review }}").render({"review": "a < b"})
    'review: a < b'
    """

    def __init__(self, source: str):
        self.source = source
        try:
            parsed = _ENVIRONMENT.parse(source)
            _check_plain(parsed)
            self.names = frozenset(jinja2.meta.find_undeclared_variables(parsed))
            self._compiled = _ENVIRONMENT.from_string(source)
        except jinja2.TemplateError as error:
            raise TaskError(f"template {source!r} is broken: {_line(error)}") from None

    def render(self, fields: Mapping[str, Any]) -> str:
        """Return the text for one row.

        Raises:
            TaskError: the template asks for something that it may not have, or that the row does not hold.
        """
        try:
            return self._compiled.render(fields)
        # A filter that is given the wrong thing raises whatever Python raises: a fault of the template in any case.
        except Exception as error:
            raise TaskError(f"template {self.source!r} cannot be filled in: {_line(error)}") from None


@lru_cache(maxsize=64)
def compiled(source: str) -> Template:
    """Return the template of that text, compiled once.

    Raises:
        TaskError: the template is broken.
    """
    return Template(source)


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


@dataclass(frozen=True)
class PromptFormat:
    """How examples become prompts (Table 1).

    Arguments:
        template: for a demonstration, and for the query too where `query_template` is None. White space at the end
            of what it renders to goes, because it belongs to the continuation.
        query_template: for the example that is asked about; white space at its end stays as it was written.
        instruction: comes first, where given.
        label_join: between the prompt and its label.
        separator: between one demonstration and the next, and before the query.
        words: the label words; none for multiple choice, where each example brings its own candidates.
        shown: the words as the demonstrations show them.
    """

    template: str
    query_template: str | None = None
    instruction: str | None = None
    label_join: str = " "
    separator: str = "\n"
    words: tuple[str, ...] = ()
    shown: tuple[str, ...] = ()

    def query(self, fields: Mapping[str, Any]) -> str:
        """Return the text of a row that is asked about."""
        if self.query_template is not None:
            return compiled(self.query_template).render(fields)
        return compiled(self.template).render(fields).rstrip()

    def demonstration(self, example: Example) -> str:
        """Return the text of a labelled row that is shown."""
        text = compiled(self.template).render(example.fields).rstrip()
        return text + self.label_join + (example.choices or self.shown or self.words)[example.label]

    def prefix(self, demonstrations: Sequence[Example]) -> str:
        """Return all that stands before the query."""
        parts = [self.instruction] if self.instruction else []
        parts += [self.demonstration(example) for example in demonstrations]
        return "".join(part + self.separator for part in parts)

    def continuations(self, example: Example) -> tuple[str, ...]:
        """Return what is scored after the query: one string for each label or candidate."""
        return tuple(self.label_join + word for word in example.choices or self.words)

    def null_query(self, text: str = CONTENT_FREE) -> str:
        """Return a query that says nothing: every input is `text`."""
        names = compiled(self.query_template or self.template).names
        return self.query({name: defaultdict(lambda: text) if name == "row" else text for name in names})


def counted(rows: int) -> str:
    """Return a number of rows in words.

    >>> counted(1), counted(8000)
    ('1 row', '8,000 rows')
    """
    return f"{rows:,} row" if rows == 1 else f"{rows:,} rows"
