"""Examples and prompts: how a row's text, the demonstrations and the labels become the strings that
are scored."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from eckart.tasks.templates import compiled

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
    """

    id: str
    context: str
    continuations: tuple[str, ...]
    label: int


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

    def query(self, fields: Mapping[str, Any]) -> str:
        """Return the text of a row that is asked about."""
        if self.query_template is not None:
            return compiled(self.query_template).render(fields)
        return compiled(self.template).render(fields).rstrip()

    def demonstration(self, example: Example) -> str:
        """Return the text of a labelled row that is shown."""
        text = compiled(self.template).render(example.fields).rstrip()
        join = self.label_join if self.shown_join is None else self.shown_join
        end = "" if self.separator.startswith(self.label_end) else self.label_end
        return text + join + (example.choices or self.shown or self.words)[example.label] + end

    def prefix(self, demonstrations: Sequence[Example]) -> str:
        """Return all that stands before the query."""
        parts = [self.instruction] if self.instruction else []
        parts += [self.demonstration(example) for example in demonstrations]
        return "".join(part + self.separator for part in parts)

    def continuations(self, example: Example) -> tuple[str, ...]:
        """Return what is scored after the query: one string for each label or candidate."""
        return tuple(
            self.label_join + word + self.label_end for word in example.choices or self.words
        )

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


def counted(rows: int) -> str:
    """Return a number of rows in words.

    >>> counted(1), counted(8000)
    ('1 row', '8,000 rows')
    """
    return f"{rows:,} row" if rows == 1 else f"{rows:,} rows"
