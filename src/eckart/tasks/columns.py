"""Columns of a row: which hold what a prompt is made of, and how a cell becomes its text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from eckart.errors import TaskError, closest
from eckart.tasks.choices import ChoiceList, check_choice
from eckart.tasks.prompts import compiled
from eckart.tasks.spec import TaskSpec, decoded, is_missing


@dataclass(frozen=True)
class Columns:
    """Which columns hold what.

    Arguments:
        label: the label.
        fields: what a template can name -> its column.
        row: whether a template names `row`, and so may ask for any column.
        choices: the columns of the candidates, or the one that lists them.
        strip: whether white space around a text goes.
    """

    label: str
    fields: Mapping[str, str]
    row: bool = False
    choices: tuple[str, ...] = ()
    strip: bool = True

    @property
    def needed(self) -> tuple[str, ...]:
        """The columns that a row without its label must have."""
        return tuple(dict.fromkeys((*self.fields.values(), *self.choices)))

    def read(self, row: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return what a template can name; None where all of that is empty."""
        fields = {name: self._clean(row.get(column)) for name, column in self.fields.items()}
        if not any(fields.values()) and not self.row:
            return None
        if self.row:
            fields["row"] = {name: self._clean(row[name]) for name in row if name != self.label}
        return fields

    def candidates(self, row: Mapping[str, Any]) -> tuple[str, ...]:
        """Return the row's candidates, none where all rows have the same labels; a TaskError where
        one is no text."""
        listed = len(self.choices) == 1
        if listed:
            cells = ChoiceList(self.choices[0], self.label, False, None).texts(row)
        else:
            cells = [row.get(column) for column in self.choices]
        for place, value in enumerate(cells):
            check_choice(value, self.choices[0 if listed else place], listed=listed)
        return tuple(str(self._clean(value)) for value in cells)

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
        return text.strip() if self.strip else text


def told_apart(candidates: tuple[str, ...]) -> bool:
    """Return whether these are two candidates or more, none empty and no two alike."""
    return len(set(candidates)) >= max(2, len(candidates)) and "" not in candidates


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
    return Columns(str(spec.label), fields, row, spec.choices or (), spec.strip)


def check_text(text: str, candidates: tuple[str, ...], template: str, where: str) -> str:
    """Return what a template rendered to for a row; a TaskError where that is nothing, or no
    text."""
    if not text.strip():
        raise TaskError(f"the template renders to nothing for {where}: {template!r}")
    try:
        "".join((text, *candidates)).encode()
    except UnicodeEncodeError:
        raise TaskError(
            f"{where} holds half a character (a lone surrogate); mend its encoding"
        ) from None
    return text


def _no_text(value: Any) -> bool:
    """Return whether a value inside a list or an object would be shown as what it is not: nan,
    None, b'...'."""
    return is_missing(value) or isinstance(value, bytes | list | dict)


def _decoded(value: bytes) -> str:
    try:
        return decoded(value)
    except TaskError as error:
        raise TaskError(f"a column {error}") from None
