"""Templates: Jinja2 that fills a row into a prompt, and always ends."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import jinja2
import jinja2.meta
from jinja2 import nodes
from jinja2.filters import do_round
from jinja2.sandbox import ImmutableSandboxedEnvironment

from eckart.errors import TaskError

MOST_CHARACTERS = 20_000
"""In a template's source."""
MOST_NODES = 2_000
MOST_NESTED = 60
MOST_RENDERED = 20_000_000
"""Characters of one prompt's part; what a row holds is shown a few times, not thousands."""
MOST_PLACES = 15
"""That a number is rounded to; a float has no more."""


def _round(value: Any, precision: int = 0, method: Any = "common") -> Any:
    # Jinja2 computes 10 ** precision.
    if abs(precision) > MOST_PLACES:
        raise jinja2.TemplateError(f"round to {precision} places; at most {MOST_PLACES} make sense")
    return do_round(value, precision, method)


# Escaping is for HTML: here it would turn the ' of a review into &#39;, which the model then reads.
_ENVIRONMENT = ImmutableSandboxedEnvironment(
    undefined=jinja2.StrictUndefined, autoescape=False, keep_trailing_newline=True
)
_ENVIRONMENT.globals.clear()
_ENVIRONMENT.filters["round"] = _round

# A task file may come from somebody else. A template fills in a row: it tests and it trims, but
# nothing in it repeats or grows, so it ends, and it says the same each time.
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
_PLAIN = (
    nodes.Template,
    nodes.Output,
    nodes.TemplateData,
    nodes.Name,
    nodes.Const,
    nodes.If,
    nodes.CondExpr,
)
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


def _check_size(node: nodes.Node) -> None:
    """Refuse a template that is larger or deeper than any prompt, level by level: what is deep has
    a deep walk.

    Raises:
        jinja2.TemplateError: it is.
    """
    level, seen = [node], 0
    for _ in range(MOST_NESTED):
        level = [part for parent in level for part in parent.iter_child_nodes()]
        seen += len(level)
        if seen > MOST_NODES:
            raise jinja2.TemplateError(f"it has more than {MOST_NODES:,} parts")
    if level:
        raise jinja2.TemplateError(f"it is nested more than {MOST_NESTED} deep")


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
            if len(source) > MOST_CHARACTERS:
                raise jinja2.TemplateError(f"it has more than {MOST_CHARACTERS:,} characters")
            parsed = _ENVIRONMENT.parse(source)
            _check_size(parsed)
            _check_plain(parsed)
            self.names = frozenset(jinja2.meta.find_undeclared_variables(parsed))
            self._compiled = _ENVIRONMENT.from_string(source)
        # Python's own compiler has limits that Jinja2 does not translate: nesting, digits of a
        # number, memory.
        except Exception as error:
            raise TaskError(f"template {_shown(source)} is broken: {_line(error)}") from None

    def render(self, fields: Mapping[str, Any]) -> str:
        """Return the text for one row.

        Raises:
            TaskError: the template asks for something that it may not have, or that the row does
                not hold.
        """
        try:
            return self._rendered(fields)
        # A filter that is given the wrong thing raises whatever Python raises: a fault of the
        # template in any case.
        except Exception as error:
            raise TaskError(
                f"template {_shown(self.source)} cannot be filled in: {_line(error)}"
            ) from None

    def _rendered(self, fields: Mapping[str, Any]) -> str:
        parts, size = [], 0
        for part in self._compiled.generate(fields):
            parts.append(part)
            size += len(part)
            if size > MOST_RENDERED:
                raise jinja2.TemplateError(f"it renders to more than {MOST_RENDERED:,} characters")
        return "".join(parts)


@lru_cache(maxsize=64)
def compiled(source: str) -> Template:
    """Return the template of that text, compiled once.

    Raises:
        TaskError: the template is broken.
    """
    return Template(source)


def _shown(source: str) -> str:
    return (
        repr(source) if len(source) <= 200 else f"{source[:100]!r}... ({len(source):,} characters)"
    )


def _line(error: Exception) -> str:
    if isinstance(error, RecursionError | MemoryError):
        return "it is nested too deeply"
    return " ".join(str(error).split())[:300] or type(error).__name__
