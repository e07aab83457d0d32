"""Examples of a task, made of rows: which column is what, which value is which class, what is left
out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from eckart.errors import TaskError, closest
from eckart.tasks.choices import check_choice
from eckart.tasks.labels import Labels, missing_reason
from eckart.tasks.prompts import Example, PromptFormat, compiled, counted, joined
from eckart.tasks.sources import Source
from eckart.tasks.spec import TaskSpec, decoded, is_missing, label_text
from eckart.tasks.tables import Row


@dataclass(frozen=True)
class Columns:
    """Which columns hold what: the label, what a template names, the candidates; and whether a
    template names `row`, and so may ask for any of them."""

    label: str
    fields: Mapping[str, str]
    row: bool
    choices: tuple[str, ...]


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


def find_columns(spec: TaskSpec, columns: tuple[str, ...], where: str) -> Columns:
    """Return which of the columns hold what; a TaskError where one that the task names is missing,
    or a template shows the label."""
    templates = [
        compiled(text) for text in (spec.template, spec.query_template) if text is not None
    ]
    names = sorted({name for template in templates for name in template.names})
    fields = {name: spec.text if name == "text" and spec.text else name for name in names}
    row = "row" in fields and "row" not in columns
    if row:
        del fields["row"]
    if spec.label in fields.values():
        raise TaskError(
            f"the template shows the label column '{spec.label}', which gives the answer away"
        )
    for name in (*fields.values(), *(spec.choices or ())):
        if name not in columns:
            raise TaskError(
                f"{where} has no column '{name}', which the template or the choices name;"
                f" {closest(name, columns)}"
            )
    if not fields and not row:
        raise TaskError(
            f"template {spec.template!r} names no column of {where}; its columns are"
            f" {', '.join(columns)}"
        )
    return Columns(str(spec.label), fields, row, spec.choices or ())


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
    source: Source, spec: TaskSpec, columns: Columns, labels: Labels, prompts: PromptFormat
) -> tuple[dict[str, list[Example]], tuple[str, ...]]:
    """Return the labelled examples of each split, and sentences about the rows that were left out;
    a TaskError where a label has no word, or the template renders to nothing."""
    maker = _Maker(spec, columns, labels, prompts)
    examples: dict[str, list[Example]] = {}
    notes: list[str] = []
    for split, rows in source.splits.items():
        left_out: Counter[str] = Counter()
        made = (maker.example(f"{split}:{index}", row, left_out) for index, row in enumerate(rows))
        examples[split] = [example for example in made if example is not None]
        notes += [
            f"{split}: left out {counted(count)} {reason}" for reason, count in left_out.items()
        ]
    return examples, tuple(notes)


@dataclass(frozen=True)
class _Maker:
    spec: TaskSpec
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
        fields = {
            name: self._clean(row.get(column)) for name, column in self.columns.fields.items()
        }
        if not any(fields.values()) and not self.columns.row:
            left_out["without an input"] += 1
            return None
        if self.columns.row:
            fields["row"] = {
                name: self._clean(row[name]) for name in row if name != self.columns.label
            }
        choices = self._candidates(row)
        if self.labels.choices is not None and len(choices) != len(self.labels.names):
            left_out[
                f"with other than {len(self.labels.names)} candidates, which most rows have"
            ] += 1
            return None
        if self.columns.choices and (len(set(choices)) < max(2, len(choices)) or "" in choices):
            left_out["with an empty choice or two equal ones"] += 1
            return None
        text = self._text(id, fields, choices)
        return Example(
            id,
            text,
            self._label(row, value, id),
            choices,
            fields,
            self._question(row, text, fields, choices),
        )

    def _candidates(self, row: Row) -> tuple[str, ...]:
        if self.labels.choices is not None:
            column = self.columns.choices[0]
            pairs = [(column, text) for text in self.labels.choices.texts(row)]
        else:
            pairs = [(column, row.get(column)) for column in self.columns.choices]
        for column, value in pairs:
            check_choice(value, column, listed=self.labels.choices is not None)
        return tuple(str(self._clean(value)) for _, value in pairs)

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

    def _text(self, id: str, fields: Mapping[str, Any], choices: tuple[str, ...]) -> str:
        text = self.prompts.query(fields)
        if not text.strip():
            raise TaskError(
                f"the template renders to nothing for row {id}: {self.prompts.template!r}"
            )
        try:
            "".join((text, *choices)).encode()
        except UnicodeEncodeError:
            raise TaskError(
                f"row {id} holds half a character (a lone surrogate); mend its encoding"
            ) from None
        return text

    def _clean(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self._clean(item) if _no_text(item) else item for item in value]
        if isinstance(value, dict):
            return {
                name: self._clean(item) if _no_text(item) else item for name, item in value.items()
            }
        text = (
            "" if is_missing(value) else _decoded(value) if isinstance(value, bytes) else str(value)
        )
        return text.strip() if self.spec.strip else text


def _no_text(value: Any) -> bool:
    """Return whether a value inside a list or an object would be shown as what it is not: nan,
    None, b'...'."""
    return is_missing(value) or isinstance(value, bytes | list | dict)


def _decoded(value: bytes) -> str:
    try:
        return decoded(value)
    except TaskError as error:
        raise TaskError(f"a column {error}") from None


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
    )
