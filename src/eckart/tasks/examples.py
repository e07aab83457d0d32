"""Examples of a task, made of rows: which column is what, which value is which class, what is left
out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from eckart.errors import TaskError, closest, numbered
from eckart.tasks.chat import Chat
from eckart.tasks.columns import Columns, check_text, told_apart
from eckart.tasks.labels import Labels, missing_reason
from eckart.tasks.prompts import Example, PromptFormat, joined
from eckart.tasks.sources import Source
from eckart.tasks.spec import TaskSpec, label_text
from eckart.tasks.tables import Row


def with_template(spec: TaskSpec, columns: tuple[str, ...], where: str) -> TaskSpec:
    """Return the task with a label column, and with the template `<text>: ...` where it has none; a
    TaskError where the data does not say by itself which column is which."""
    label = spec.label or "label"
    if label not in columns:
        raise TaskError(
            f"{where} has no column '{label}'; say which of its columns is the label"
            f" (--label-column): {', '.join(columns)}"
        )
    if spec.template is not None:
        return spec.model_copy(update={"label": label})
    taken = {label, *(spec.choices or ())}
    others = [name for name in columns if name not in taken]
    if spec.text or "text" in others:
        others = [spec.text or "text"]
    if len(others) != 1:
        raise TaskError(
            f"{where} has the columns {', '.join(columns)}; say which one is the text"
            f" (--text-column), or give a template such as '{others[0] if others else 'text'}: {{{{"
            f" {others[0] if others else 'text'} }}}}'"
        )
    ending = "" if spec.choices else f"\n{label}:"
    return spec.model_copy(
        update={
            "label": label,
            "text": others[0],
            "template": f"{others[0]}: {{{{ text }}}}{ending}",
        }
    )


def shown_words(spec: TaskSpec, names: tuple[str, ...]) -> tuple[str, ...]:
    """Return the label words as the demonstrations show them; a TaskError where the task replaces a
    word that is none of them."""
    for word in spec.demonstration_words:
        if word not in names:
            raise TaskError(
                f"demonstration_words names '{word}', which is no label; {closest(word, names)}"
            )
    return tuple(spec.demonstration_words.get(name, name) for name in names)


def make_examples(
    source: Source, columns: Columns, labels: Labels, prompts: PromptFormat
) -> tuple[dict[str, list[Example]], tuple[str, ...]]:
    """Return the labelled examples of each split, and sentences about the rows that were left out;
    a TaskError where a label has no word, or the template renders to nothing."""
    maker = _Maker(columns, labels, prompts)
    examples: dict[str, list[Example]] = {}
    notes: list[str] = []
    for split, rows in source.splits.items():
        left_out: Counter[str] = Counter()
        made = (maker.example(f"{split}:{index}", row, left_out) for index, row in enumerate(rows))
        examples[split] = [example for example in made if example is not None]
        notes += [
            f"{split}: left out {numbered(count, 'row')} {reason}"
            for reason, count in left_out.items()
        ]
    return examples, tuple(notes)


@dataclass(frozen=True)
class _Maker:
    columns: Columns
    labels: Labels
    prompts: PromptFormat

    def example(self, id: str, row: Row, left_out: Counter[str]) -> Example | None:
        """Return the row's example; None, counted with its reason, where it cannot be one."""
        held = row.get(self.columns.label)
        value = label_text(held)
        if value not in self.labels.index:
            left_out[missing_reason(held)] += 1
            return None
        fields = self.columns.read(row)
        if fields is None:
            left_out["without an input"] += 1
            return None
        choices = self.columns.candidates(row)
        if self.labels.choices is not None and len(choices) != len(self.labels.names):
            left_out[
                f"with other than {len(self.labels.names)} candidates, which most rows have"
            ] += 1
            return None
        if self.columns.choices and not told_apart(choices):
            left_out["with an empty choice or two equal ones"] += 1
            return None
        query, form = self.prompts.query(fields), self.prompts.template
        text = check_text(query, choices, form, f"row {id}")
        return Example(
            id,
            text,
            self._label(row, value, id),
            choices,
            fields,
            self._question(row, text, fields, choices),
        )

    def _label(self, row: Row, value: str, id: str) -> int:
        if self.labels.choices is not None:
            return self.labels.choices.place(row, value, f"row {id}")[0]
        return self.labels.index[value]

    def _question(
        self, row: Row, text: str, fields: Mapping[str, Any], choices: tuple[str, ...]
    ) -> str:
        """Return the text with the candidates in alphabetical order, where the template shows
        them."""
        shown = {
            name for name, column in self.columns.fields.items() if column in self.columns.choices
        }
        if not choices or not (shown or self.columns.row):
            return text
        places: list[Any] = sorted(choices)
        if self.labels.choices is not None:
            places = [self.labels.choices.sorted_cell(row, choices)]
        ordered = dict(zip(self.columns.choices, places, strict=True))
        again = {**fields, **{name: ordered[self.columns.fields[name]] for name in shown}}
        if self.columns.row:
            again["row"] = {**fields["row"], **ordered}
        try:
            return self.prompts.query(again)
        # A template may ask a list of candidates for what a sorted one has not, such as its names.
        except TaskError:
            return text


def prompt_format(spec: TaskSpec, names: tuple[str, ...]) -> PromptFormat:
    """Return how the examples of a task with these labels become prompts."""
    template = str(spec.template)
    own = spec.label_join
    shown = joined(template, own)
    return PromptFormat(
        template=template,
        query_template=spec.query_template,
        instruction=spec.instruction,
        label_join=shown if spec.query_template is None else " " if own is None else own,
        label_end=spec.label_end,
        separator=spec.separator,
        words=() if spec.choices else names,
        shown=() if spec.choices else shown_words(spec, names),
        shown_join=shown,
        chat=None if spec.chat is None else Chat(spec.chat),
    )
