"""The label column: which values are labels, which stand for none, and which are one label written
twice."""

from __future__ import annotations

import math
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from eckart.errors import TaskError
from eckart.tasks.choices import ChoiceList
from eckart.tasks.sources import Source
from eckart.tasks.spec import TaskSpec, label_text

HIDDEN = "-1"
"""What the hub has for a label where there is none: hidden test sets, annotators who did not
agree."""

MISSING = frozenset(["nan", "<na>", "nat"])
"""What pandas writes for a missing value, as text."""
MISSING_NUMBERS = MISSING | {"na", "n/a", "none", "null", "-"}
"""What stands for a missing value where all others are numbers; beside words, each of these may be
a word."""


@dataclass(frozen=True)
class Labels:
    """The classes, and the values that stand for them.

    Arguments:
        names: the label words; for multiple choice the columns of the candidates, or their places
            in the list.
        index: a value of the label column -> its class.
        none: the values that stand for no label.
        notes: what a reader should know about the label column.
        choices: how a row's candidates are read, where they stand in one column.
    """

    names: tuple[str, ...]
    index: Mapping[str, int]
    none: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()
    choices: ChoiceList | None = field(default=None, repr=False)

    def count(self, source: Source, column: str) -> dict[str, int]:
        """Return the number of rows in each split that have a label."""
        return {
            split: sum(label_text(row.get(column)) in self.index for row in rows)
            for split, rows in source.splits.items()
        }


def find_labels(spec: TaskSpec, source: Source, column: str) -> Labels:
    """Return the classes: as the task maps them, as the file names its numbers, or the column's
    values, sorted.

    A TaskError where a value has no class or is no label, two are one label written in two ways,
    there are fewer than two classes, or a label word is empty or like another.
    """
    where = f"column '{column}' of {source.where}"
    values = _values(source, column, where)
    none = frozenset(value for value in _without_label(values) if value not in (spec.labels or {}))
    values = Counter({value: count for value, count in values.items() if value not in none})
    if spec.choices and len(spec.choices) == 1:
        return _list_labels(spec, source, column, values, none, where)
    named = {} if spec.labels or spec.choices else _named(source, column, values)
    mapping = spec.labels or named or _default_mapping(spec, values)
    if not (spec.labels or spec.choices):
        _check_alike(values, where)
    _check_known(values, mapping, where)
    names = spec.choices or tuple(dict.fromkeys(mapping.values()))
    wrong = [word for word in mapping.values() if word not in names]
    if wrong:
        raise TaskError(
            f"label '{wrong[0]}' is no column of the choices, which are {', '.join(names)}"
        )
    if not spec.choices:
        _check_words(names)
        _check_classes({mapping[value] for value in values}, values, none, where)
    notes = _notes(column, named, names if not spec.labels else ())
    return Labels(names, {value: names.index(word) for value, word in mapping.items()}, none, notes)


def _values(source: Source, column: str, where: str) -> Counter[str]:
    found: Counter[str] = Counter()
    for split, rows in source.splits.items():
        for index, row in enumerate(rows):
            try:
                found[label_text(row.get(column))] += 1
            except TaskError as error:
                raise TaskError(f"{where}, row {split}:{index}, {error}") from None
    del found[""]
    return found


def _without_label(values: Iterable[str]) -> list[str]:
    missing = [value for value in values if folded(value) in MISSING or _number(value) == -1]
    others = [value for value in values if value not in missing]
    if any(_number(value) is not None for value in others):
        words = [value for value in others if _number(value) is None]
        if all(value.casefold() in MISSING_NUMBERS for value in words):
            missing += words
    return missing


def _number(value: str) -> float | None:
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def folded(value: str) -> str:
    """Return what is left of a text without case, white space, invisible characters, Unicode forms
    and number forms.

    >>> folded("Very\\u00a0 good\\u200b") == folded("very good"), folded("01.0")
    (True, '1')
    """
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", value).casefold())
    text = "".join(
        "-" if unicodedata.category(c) == "Pd" else c
        for c in text
        if not (c.isspace() or _invisible(c))
    )
    number = _number(text)
    return text if number is None else f"{number:.17g}"


def _invisible(character: str) -> bool:
    # Format characters (zero width, byte order marks, soft hyphens), and the few others that show
    # nothing.
    return (
        unicodedata.category(character) in ("Cf", "Cc")
        or character in "\u034f\u115f\u1160\u17b4\u17b5\u3164\uffa0\u2800"
        or "\ufe00" <= character <= "\ufe0f"
    )


def _check_alike(values: Counter[str], where: str) -> None:
    """Refuse a label that is written in two ways: each would be a class."""
    groups: dict[str, list[str]] = {}
    for value in sorted(values):
        groups.setdefault(folded(value), []).append(value)
    alike = [group for group in groups.values() if len(group) > 1]
    if not alike:
        return
    pairs = [
        (value, max(group, key=lambda v: values[v])) for group in groups.values() for value in group
    ]
    example = ",".join(f"{escaped(value)}={escaped(word)}" for value, word in pairs[:24])
    example += ",..." if len(pairs) > 24 else ""
    seen = "; ".join(
        " and ".join(f"{v!a} ({values[v]:,} rows)" for v in group) for group in alike[:3]
    )
    raise TaskError(
        f"{where} holds labels that differ only in case, white space, invisible characters, Unicode"
        f" form or number form: {seen}; say which are one, or map each to itself: --labels"
        f" '{example}'"
    )


def escaped(value: str) -> str:
    r"""Return a label as `--labels` takes it: with escapes for what shows nothing or separates.

    >>> print(escaped("so,\u200b so"))
    so\,\u200b so
    """
    shown = (
        f"\\{c}" if c in "\\,=" else c if c.isprintable() and c.isascii() else _escape(c)
        for c in value
    )
    return "".join(shown)


def _escape(character: str) -> str:
    if character.isalpha() and unicodedata.is_normalized("NFKC", character):
        return character
    code = ord(character)
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _named(source: Source, column: str, values: Iterable[str]) -> dict[str, str]:
    """Return the words that the file itself has for the numbers in the column."""
    known = source.classes.get(column, set())
    if len(known) > 1:
        lists = " and ".join(", ".join(names[:6]) for names in sorted(known))
        raise TaskError(
            f"the files of {source.where} name the classes of '{column}' differently: {lists}; say"
            " it with --labels"
        )
    names = next(iter(known), ())
    numbers = {str(index): name for index, name in enumerate(names)}
    present = set(values)
    if not present or not present <= set(numbers):
        return {}
    return {value: name for value, name in numbers.items() if value in present}


def _default_mapping(spec: TaskSpec, values: Iterable[str]) -> dict[str, str]:
    if spec.choices:
        return {str(index): name for index, name in enumerate(spec.choices)}
    return {value: value for value in sorted(values, key=_order)}


def _order(value: str) -> tuple[float, str]:
    """Sort numbers as numbers, before everything else; `inf` is a word."""
    number = _number(value)
    return (math.inf if number is None else number, value)


def _list_labels(
    spec: TaskSpec,
    source: Source,
    column: str,
    values: Counter[str],
    none: frozenset[str],
    where: str,
) -> Labels:
    """Return the places in a list of candidates; each row's own list says which place its label
    means.

    All rows of a task are scored with as many candidates as most of its rows have.
    """
    reader = ChoiceList.of(spec.choices[0] if spec.choices else "", column, values, spec.labels)
    sizes: Counter[int] = Counter()
    index: dict[str, int] = {}
    for split, rows in source.splits.items():
        for number, row in enumerate(rows):
            if (value := label_text(row.get(column))) in values:
                place, size = reader.place(row, value, f"{source.where}, row {split}:{number}")
                index.setdefault(value, place)
                sizes[size] += 1
    if not sizes:
        raise TaskError(f"{where} holds no label; is it the label column?")
    return Labels(tuple(map(str, range(sizes.most_common(1)[0][0]))), index, none, choices=reader)


def _check_known(values: Iterable[str], mapping: Mapping[str, str], where: str) -> None:
    values = list(dict.fromkeys(values))
    unknown = next((value for value in values if value not in mapping), None)
    if unknown is not None:
        all_of_them = ",".join(f"{escaped(value)}=..." for value in values[:12])
        near = next((value for value in mapping if folded(value) == folded(unknown)), None)
        hint = f", which {near!a} is not" if near is not None else ""
        raise TaskError(
            f"{where} holds the label '{_visible(unknown)}'{hint}, and the task knows"
            f" {', '.join(mapping) or 'none'}; map them all in labels (--labels '{all_of_them}')"
        )


def _visible(value: str) -> str:
    return ascii(value)[1:-1] if any(map(_invisible, value)) else value


def _check_words(names: tuple[str, ...]) -> None:
    if not all(name.strip() for name in names):
        raise TaskError("a label word is empty; every label needs a word that can be scored")
    stripped = [name.strip() for name in names]
    for name in stripped:
        if stripped.count(name) > 1:
            raise TaskError(
                f"two label words are '{name}' and differ in white space only; give each class its"
                " own word"
            )


def _check_classes(
    present: set[str], values: Counter[str], none: Iterable[str], where: str
) -> None:
    """Refuse what cannot be a label column: one class only, or nearly as many classes as rows."""
    if len(present) < 2:
        held = f"one label, '{present.pop()}'" if present else "no label"
        besides = "".join(
            f"; {value!r} stands for none unless --labels maps it" for value in sorted(none)
        )
        raise TaskError(
            f"{where} holds {held}{besides}; two classes are needed, so add rows or map labels"
        )
    if len(present) > max(20, sum(values.values()) // 2):
        raise TaskError(f"{where} has {len(present):,} values; is it the label column?")


def _notes(column: str, named: Mapping[str, str], names: Sequence[str]) -> tuple[str, ...]:
    notes = []
    if named:
        pairs = ", ".join(f"{value} is {word}" for value, word in named.items())
        notes.append(
            f"the label words are the file's own names for the classes of '{column}': {pairs}"
        )
    hidden = [name for name in names if any(map(_invisible, name))]
    if hidden:
        notes.append(f"the label {hidden[0]!a} holds characters that show nothing")
    return tuple(notes)


def missing_reason(value: Any) -> str:
    """Return why a row with this value in its label column is left out, for a sentence about it."""
    text = label_text(value)
    return (
        f"with the label {text!r}, which stands for none unless --labels maps it"
        if text
        else "without a label"
    )
