"""From rows to labelled examples: which column is what, which value is which class, what is left out."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from eckart.errors import TaskError
from eckart.tasks.prompts import Example, PromptFormat, compiled, counted
from eckart.tasks.sources import Row, Source
from eckart.tasks.spec import TaskSpec, closest, label_text

HIDDEN = "-1"
"""What the hub's unlabelled splits have for a label, in every row; among others it is a label like any."""


@dataclass(frozen=True)
class Columns:
    """Which columns hold what.

    Arguments:
        label: the label column.
        fields: a name in a template -> the column that it means.
        row: whether a template names `row`, and so may ask for any column.
        choices: the columns of the candidates.
    """

    label: str
    fields: Mapping[str, str]
    row: bool
    choices: tuple[str, ...]


@dataclass(frozen=True)
class Labels:
    """The classes, and the values that stand for them.

    Arguments:
        names: the label words, or for multiple choice the columns of the candidates.
        index: a value of the label column -> its class.
    """

    names: tuple[str, ...]
    index: Mapping[str, int]

    def count(self, source: Source, column: str) -> dict[str, int]:
        """Return the number of rows in each split that have a label."""
        return {
            split: sum(label_text(row.get(column)) in self.index for row in rows)
            for split, rows in source.splits.items()
        }


def with_template(spec: TaskSpec, columns: tuple[str, ...], where: str) -> TaskSpec:
    """Return the task with a label column, and with the template `<text>: ...` where it has none.

    Raises:
        TaskError: the data does not say by itself which column is the label or the text.
    """
    label = spec.label or "label"
    if label not in columns:
        raise TaskError(
            f"{where} has no column '{label}'; say which of its columns is the label: {', '.join(columns)}"
        )
    if spec.template is not None:
        return spec.model_copy(update={"label": label})
    taken = {label, *(spec.choices or ())}
    others = [name for name in columns if name not in taken]
    if spec.text or "text" in others:
        others = [spec.text or "text"]
    if len(others) != 1:
        raise TaskError(
            f"{where} has the columns {', '.join(columns)}; say which one is the text, or give a template such as "
            f"'{others[0] if others else 'text'}: {{{{ {others[0] if others else 'text'} }}}}'"
        )
    ending = "" if spec.choices else f"\n{label}:"
    return spec.model_copy(
        update={"label": label, "text": others[0], "template": f"{others[0]}: {{{{ text }}}}{ending}"}
    )


def find_columns(spec: TaskSpec, columns: tuple[str, ...], where: str) -> Columns:
    """Check every column that the task names against those that there are.

    Raises:
        TaskError: a column is missing, or a template shows the label.
    """
    templates = [compiled(text) for text in (spec.template, spec.query_template) if text is not None]
    names = sorted({name for template in templates for name in template.names})
    fields = {name: spec.text if name == "text" and spec.text else name for name in names}
    row = "row" in fields and "row" not in columns
    if row:
        del fields["row"]
    if spec.label in fields.values():
        raise TaskError(f"the template shows the label column '{spec.label}', which gives the answer away")
    for name in (*fields.values(), *(spec.choices or ())):
        if name not in columns:
            raise TaskError(
                f"{where} has no column '{name}', which the template or the choices name; {closest(name, columns)}"
            )
    if not fields and not row:
        raise TaskError(
            f"template {spec.template!r} names no column of {where}; its columns are {', '.join(columns)}"
        )
    return Columns(str(spec.label), fields, row, spec.choices or ())


def find_labels(spec: TaskSpec, source: Source, column: str) -> Labels:
    """Return the classes: as the task maps them, or the column's values, sorted.

    Raises:
        TaskError: a value has no class, there are fewer than two classes, or a label word is empty or like another.
    """
    values: Counter[str] = sum((_labels_of(rows, column) for rows in source.splits.values()), Counter())
    mapping = spec.labels or _default_mapping(spec, values)
    unknown = [value for value in values if value not in mapping]
    if unknown:
        raise TaskError(
            f"column '{column}' of {source.where} holds the label '{unknown[0]}', and the task knows "
            f"{', '.join(mapping) or 'none'}; map it in labels"
        )
    names = spec.choices or tuple(dict.fromkeys(mapping.values()))
    wrong = [word for word in mapping.values() if word not in names]
    if wrong:
        raise TaskError(f"label '{wrong[0]}' is no column of the choices, which are {', '.join(names)}")
    if not spec.choices:
        _check_words(names)
        _check_classes({mapping[value] for value in values if value in mapping}, values, column, source.where)
    return Labels(names, {value: names.index(word) for value, word in mapping.items()})


def _default_mapping(spec: TaskSpec, values: Counter[str]) -> dict[str, str]:
    if spec.choices:
        return {str(index): name for index, name in enumerate(spec.choices)}
    return {value: value for value in sorted(values, key=_order)}


def _labels_of(rows: Sequence[Mapping[str, Any]], column: str) -> Counter[str]:
    """Count a split's labels: a row without one has none, and a split whose every label is -1 has none at all."""
    found = Counter(label_text(row.get(column)) for row in rows)
    del found[""]
    return Counter() if set(found) == {HIDDEN} else found


def _order(value: str) -> tuple[float, str]:
    """Sort numbers as numbers, before everything else; `nan` and `inf` are words."""
    try:
        number = float(value)
    except ValueError:
        number = math.inf
    return (number if math.isfinite(number) else math.inf, value)


def _check_words(names: tuple[str, ...]) -> None:
    if not all(name.strip() for name in names):
        raise TaskError("a label word is empty; every label needs a word that can be scored")
    stripped = [name.strip() for name in names]
    for name in stripped:
        if stripped.count(name) > 1:
            raise TaskError(
                f"two label words are '{name}' and differ in white space only; give each class its own word"
            )


def _check_classes(present: set[str], values: Counter[str], column: str, where: str) -> None:
    """Refuse what cannot be a label column: one class only, or nearly as many classes as rows."""
    if len(present) < 2:
        held = f"one label, '{present.pop()}'" if present else "no label"
        raise TaskError(
            f"column '{column}' of {where} holds {held}; two classes are needed, so add rows or map labels"
        )
    if len(present) > max(20, sum(values.values()) // 2):
        raise TaskError(f"column '{column}' of {where} has {len(present):,} values; is it the label column?")


def shown_words(spec: TaskSpec, names: tuple[str, ...]) -> tuple[str, ...]:
    """Return the label words as the demonstrations show them.

    Raises:
        TaskError: the task replaces a word that is none of its labels.
    """
    for word in spec.demonstration_words:
        if word not in names:
            raise TaskError(f"demonstration_words names '{word}', which is no label; {closest(word, names)}")
    return tuple(spec.demonstration_words.get(name, name) for name in names)


def make_examples(
    source: Source, spec: TaskSpec, columns: Columns, labels: Labels, prompts: PromptFormat
) -> tuple[dict[str, list[Example]], tuple[str, ...]]:
    """Return the labelled examples of each split, and sentences about the rows that were left out.

    Raises:
        TaskError: a label has no word, or the template renders to nothing.
    """
    maker = _Maker(spec, columns, labels, prompts)
    examples: dict[str, list[Example]] = {}
    notes: list[str] = []
    for split, rows in source.splits.items():
        left_out: Counter[str] = Counter()
        made = (maker.example(f"{split}:{index}", row, left_out) for index, row in enumerate(rows))
        examples[split] = [example for example in made if example is not None]
        notes += [f"{split}: left out {counted(count)} {reason}" for reason, count in left_out.items()]
    return examples, tuple(notes)


@dataclass(frozen=True)
class _Maker:
    spec: TaskSpec
    columns: Columns
    labels: Labels
    prompts: PromptFormat

    def example(self, id: str, row: Row, left_out: Counter[str]) -> Example | None:
        """Return the row's example; None, counted with its reason, where it cannot be one."""
        value = label_text(row.get(self.columns.label))
        if value not in self.labels.index:
            left_out["without a label"] += 1
            return None
        fields = {name: self._clean(row.get(column)) for name, column in self.columns.fields.items()}
        if not any(fields.values()) and not self.columns.row:
            left_out["without an input"] += 1
            return None
        if self.columns.row:
            fields["row"] = {name: self._clean(row[name]) for name in row if name != self.columns.label}
        choices = tuple(str(self._clean(row.get(column))) for column in self.columns.choices)
        if len(set(choices)) < len(choices) or "" in choices:
            left_out["with an empty choice or two equal ones"] += 1
            return None
        return Example(id, self._text(id, fields, choices), self.labels.index[value], choices, fields)

    def _text(self, id: str, fields: Mapping[str, Any], choices: tuple[str, ...]) -> str:
        text = self.prompts.query(fields)
        if not text.strip():
            raise TaskError(f"the template renders to nothing for row {id}: {self.prompts.template!r}")
        try:
            "".join((text, *choices)).encode()
        except UnicodeEncodeError:
            raise TaskError(
                f"row {id} holds half a character (a lone surrogate); mend its encoding"
            ) from None
        return text

    def _clean(self, value: Any) -> Any:
        if isinstance(value, list | dict):
            return value
        text = "" if value is None else _decoded(value) if isinstance(value, bytes) else str(value)
        return text.strip() if self.spec.strip else text


def _decoded(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise TaskError(
            f"a column holds bytes that are no text ({value[:20]!r}...); name a text column"
        ) from None
