"""Multiple choice whose candidates stand in one column: a list, or texts with their names
(HellaSwag, MMLU, ARC)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from eckart.errors import TaskError
from eckart.tasks.spec import label_text


@dataclass(frozen=True)
class ChoiceList:
    """How a row's candidates and its label are read.

    Arguments:
        column: holds the candidates: `["a", "b"]`, `{"text": ["a", "b"], "label": ["A", "B"]}`, or
            `[{"text": "a", "label": "A"}, ...]`.
        label: the label column.
        letters: whether labels are the letters A, B, ... rather than places counted from 0, where
            no names are given.
        mapping: a label -> its place, where the task says so.
    """

    column: str
    label: str
    letters: bool
    mapping: Mapping[str, str] | None

    @classmethod
    def of(
        cls, column: str, label: str, values: Iterable[str], mapping: Mapping[str, str] | None
    ) -> ChoiceList:
        """Return how a task's lists are read: the label column as a whole decides whether its
        labels are letters."""
        letters = all(len(value) == 1 and value.isascii() and value.isalpha() for value in values)
        return cls(column, label, letters, mapping)

    def texts(self, row: Mapping[str, Any]) -> list[Any]:
        """Return a row's candidates, as they stand; a TaskError where the column holds no list."""
        return self._read(row.get(self.column))[0]

    def sorted_cell(self, row: Mapping[str, Any], texts: Iterable[str]) -> Any:
        """Return the row's cell with its candidates in alphabetical order, under the names of their
        places."""
        cell = row.get(self.column)
        if isinstance(cell, Mapping):
            return {**cell, "text": sorted(texts)}
        if isinstance(cell, list) and any(isinstance(item, Mapping) for item in cell):
            return [{**item, "text": text} for item, text in zip(cell, sorted(texts), strict=True)]
        return sorted(texts)

    def place(self, row: Mapping[str, Any], value: str, where: str) -> tuple[int, int]:
        """Return which candidate a label means, and how many there are; a TaskError if none."""
        try:
            texts, names = self._read(row.get(self.column))
        except TaskError as error:
            raise TaskError(f"{where}: {error}") from None
        said = (self.mapping or {}).get(value, value)
        if said in names:
            return names.index(said), len(texts)
        place = (
            ord(said.upper()) - ord("A")
            if self.letters and said == value and not names and len(said) == 1
            else _whole(said)
        )
        if not names and 0 <= place < len(texts):
            return place, len(texts)
        known = (
            ", ".join(names) if names else f"a place from 0 to {len(texts) - 1}, or a letter from A"
        )
        raise TaskError(
            f"{where}: the label '{value}' in column '{self.label}' means none of the {len(texts)}"
            f" candidates in '{self.column}', which wants {known}; map it in labels, such as"
            f" {_from_one(len(texts))} where places count from 1"
        )

    def _read(self, cell: Any) -> tuple[list[Any], list[str]]:
        if isinstance(cell, Mapping):
            texts = cell.get("text")
            names = cell.get("label")
            if isinstance(texts, list) and (
                names is None or (isinstance(names, list) and len(names) == len(texts))
            ):
                return texts, [label_text(name) for name in names or ()]
        if (
            isinstance(cell, list)
            and cell
            and all(isinstance(item, Mapping) and "text" in item for item in cell)
        ):
            names = [label_text(item["label"]) for item in cell if "label" in item]
            return [item["text"] for item in cell], names if len(names) == len(cell) else []
        if not isinstance(cell, list):
            raise TaskError(
                f"column '{self.column}' holds {_shown(cell)}, no list of candidates; name the"
                " columns of the candidates as [one, two, ...], or a column with a list in"
                " every row"
            )
        return cell, []


def _whole(text: str) -> int:
    return int(text) if text.isdecimal() and len(text) < 4 else -1


def _shown(value: Any) -> str:
    return json.dumps(value, default=str)[:60]


def check_choice(value: Any, column: str, listed: bool) -> None:
    """Refuse a candidate that is no text: a list among the candidates' columns, or in a list. The
    TaskError says how a column of lists is named."""
    if isinstance(value, list | tuple | Mapping):
        kind = "an object" if isinstance(value, Mapping) else "a list"
        remedy = "flatten it" if listed else f"a column of lists stands alone: choices: {column}"
        raise TaskError(f"a candidate in column '{column}' is {kind}, {_shown(value)}; {remedy}")


def _from_one(candidates: int) -> str:
    """Return the labels that make places counted from 1 places counted from 0."""
    return "{" + ", ".join(f"{place + 1}: {place}" for place in range(candidates)) + "}"
