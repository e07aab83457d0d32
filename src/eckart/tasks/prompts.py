"""Prompts: templates that fill in a row and always end, and how text, demonstrations and labels
become the strings that are scored."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Annotated, Any

import jinja2
import jinja2.meta
from jinja2 import nodes
from jinja2.filters import do_round
from jinja2.sandbox import ImmutableSandboxedEnvironment
from pydantic import Field

from eckart.errors import TaskError
from eckart.records import fingerprint
from eckart.tasks.chat import Chat, Frame, Shown

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
    a deep walk."""
    level = [node]
    seen = 0
    for _ in range(MOST_NESTED):
        level = [part for parent in level for part in parent.iter_child_nodes()]
        seen += len(level)
        if seen > MOST_NODES:
            raise jinja2.TemplateError(f"it has more than {MOST_NODES:,} parts")
    if level:
        raise jinja2.TemplateError(f"it is nested more than {MOST_NESTED} deep")


def _check_plain(node: nodes.Node) -> None:
    """Refuse whatever a prompt does not need: loops, arithmetic, calls of what is not listed."""
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
    """A Jinja2 template that names columns: `{{ review }}`, or `{{ row["my column"] }}`; a
    TaskError where it is broken.

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
        """Return the text for one row; a TaskError where the template asks for what it may not
        have, or the row does not hold."""
        try:
            return self._rendered(fields)
        # A filter that is given the wrong thing raises whatever Python raises: a fault of the
        # template in any case.
        except Exception as error:
            raise TaskError(
                f"template {_shown(self.source)} cannot be filled in: {_line(error)}"
            ) from None

    def _rendered(self, fields: Mapping[str, Any]) -> str:
        parts = []
        size = 0
        for part in self._compiled.generate(fields):
            parts.append(part)
            size += len(part)
            if size > MOST_RENDERED:
                raise jinja2.TemplateError(f"it renders to more than {MOST_RENDERED:,} characters")
        return "".join(parts)


@lru_cache(maxsize=64)
def compiled(source: str) -> Template:
    return Template(source)


def _shown(source: str) -> str:
    return (
        repr(source) if len(source) <= 200 else f"{source[:100]!r}... ({len(source):,} characters)"
    )


def _line(error: Exception) -> str:
    if isinstance(error, RecursionError | MemoryError):
        return "it is nested too deeply"
    return " ".join(str(error).split())[:300] or type(error).__name__


CONTENT_FREE = "N/A"
"""Stands for every input in a null prompt (contextual calibration: Zhao et al. 2021, Calibrate
Before Use)."""


@dataclass(frozen=True)
class Example:
    """A labelled row.

    Arguments:
        id: `<source split>:<row index in the file>`.
        text: the row as it is asked about: the rendered template, without demonstrations and label.
        label: index into the task's labels.
        choices: the row's candidates, for multiple choice.
        fields: what a template can name.
        question: the text as it would be with the candidates in alphabetical order: what makes two
            rows one question. The same as the text, unless the template shows the candidates.
    """

    id: str
    text: str
    label: int
    choices: tuple[str, ...] = ()
    fields: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)
    question: str = field(default="", compare=False, repr=False)


@dataclass(frozen=True)
class Prompt:
    """What is scored: how likely is each continuation after the context?

    Arguments:
        id: the example's.
        context: the demonstrations and the example. It does not end in white space, unless a task's
            author wants so.
        continuations: one for each label. White space at a word boundary is theirs, because
            tokenisers put it there.
        label: index of the right continuation.
        characters: the length of each label itself, without what joins it to the context.
        whole: whether a chat template made the context, so that the tokenizer puts nothing in
            front of it.
    """

    id: str
    context: str
    continuations: tuple[str, ...]
    label: int
    characters: tuple[int, ...] = ()
    whole: bool = False


@dataclass(frozen=True)
class PromptFormat:
    """How examples become prompts (Table 1).

    Arguments:
        template: for a demonstration, and for the query too where `query_template` is None. White
            space at the end of what it renders to goes, because it belongs to the continuation.
        query_template: for the example that is asked about; white space at its end stays as it was
            written.
        instruction: comes first, where given.
        label_join: between the prompt and its label. The line breaks that a template ends in are a
            part of it, for what a tokenizer puts before a word belongs to the continuation.
        shown_join: the same in demonstrations, where it differs.
        label_end: after the label, scored with it. A demonstration shows it, too, unless the
            separator begins with it.
        separator: between one demonstration and the next, and before the query.
        words: the label words; none for multiple choice, where each example brings its own
            candidates.
        shown: the words as the demonstrations show them.
        chat: makes conversations of prompts; None for plain text. Joins and separator are then for
            what stands in one turn.
    """

    template: str
    query_template: str | None = None
    instruction: str | None = None
    label_join: str = " "
    separator: str = "\n"
    words: tuple[str, ...] = ()
    shown: tuple[str, ...] = ()
    shown_join: str | None = None
    label_end: str = ""
    # Where there is none, nothing is written: recipes and runs are as they always were.
    chat: Annotated[Chat | None, Field(exclude_if=lambda chat: chat is None)] = None

    def query(self, fields: Mapping[str, Any]) -> str:
        """Return the text of a row that is asked about."""
        if self.query_template is not None:
            return compiled(self.query_template).render(fields)
        return compiled(self.template).render(fields).rstrip()

    def demonstration(self, example: Example) -> Shown:
        """Return a labelled row as it is shown."""
        text = compiled(self.template).render(example.fields).rstrip()
        word = (example.choices or self.shown or self.words)[example.label]
        if self.chat is not None and self.chat.mode == "multiturn":
            return text.strip(), word + self.label_end
        join = self.label_join if self.shown_join is None else self.shown_join
        end = "" if self.separator.startswith(self.label_end) else self.label_end
        return text + join + word + end

    def frame(self, shown: Sequence[Shown]) -> Frame:
        """Return all that a prompt has besides its query."""
        texts = [each for each in shown if isinstance(each, str)]
        parts = ([self.instruction] if self.instruction else []) + texts
        before = "".join(part + self.separator for part in parts)
        if self.chat is None:
            return Frame(before, join=self.label_join)
        return self.chat.frame(before, [each for each in shown if not isinstance(each, str)])

    def asked(
        self, id: str, frame: Frame, query: str, candidates: tuple[str, ...], label: int
    ) -> Prompt:
        """Return the prompt of a query."""
        words = candidates or self.words
        ends = tuple(frame.join + word + self.label_end for word in words)
        return Prompt(id, frame.around(query), ends, label, tuple(map(len, words)), frame.chat)

    def digest(self, kind: str, labels: Sequence[str], shown: Sequence[Shown]) -> str:
        """Return the SHA-256 of all that a task's prompts depend on besides their rows."""
        joins = [self.template, self.query_template, self.label_join, self.separator, self.words]
        if self.label_end:  # tasks without one are known as they always were
            joins.append(self.label_end)
        if self.chat is None:
            return fingerprint([kind, labels, joins, self.frame(shown).before])
        chat = [self.chat.mode, self.chat.template, self.chat.tokens, self.instruction]
        return fingerprint([kind, labels, joins, shown, chat])

    def null_query(self, text: str = CONTENT_FREE) -> str:
        """Return a query that says nothing: every input is `text`."""
        names = compiled(self.query_template or self.template).names
        return self.query(
            {name: defaultdict(lambda: text) if name == "row" else text for name in names}
        )


def joined(template: str, label_join: str | None) -> str:
    """Return what stands between a template and a label: its last line breaks, and what was asked
    for, or else a space.

    >>> joined("verdict:", None), joined("verdict:\\n", None), joined("verdict:\\n", "- ")
    (' ', '\\n', '\\n- ')
    """
    ending = template[len(template.rstrip()) :]
    breaks = ending if "\n" in ending else ""
    return breaks + ((" " if not breaks else "") if label_join is None else label_join)
