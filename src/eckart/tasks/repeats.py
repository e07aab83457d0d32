"""Rows that are one question: kept once where they are the same, counted where they nearly are."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence

from eckart.tasks.prompts import Example, counted

_MARKS = re.compile(r"[\W_]+")


def without_repeats(
    examples: Mapping[str, Sequence[Example]], order: Sequence[str]
) -> tuple[dict[str, list[Example]], tuple[str, ...]]:
    """Keep each question once: one that stands in several splits stays in the first of `order`.

    The same candidates in another order make the same question. Questions that differ in case,
    white space, punctuation or Unicode forms only are kept, and counted.

    Returns:
        The examples of each split, and sentences about what was left out and what nearly repeats.
    """
    seen: dict[Hashable, str | int] = {}
    kept: dict[str, list[Example]] = {}
    notes = []
    for name in order:
        conflicts = 0
        kept[name] = []
        for example in examples[name]:
            key = _question(example)
            if key not in seen:
                seen[key] = _answer(example)
                kept[name].append(example)
            else:
                conflicts += seen[key] != _answer(example)
        dropped = len(examples[name]) - len(kept[name])
        if dropped:
            other = f" ({conflicts:,} with another label)" if conflicts else ""
            notes.append(f"{name}: left out {counted(dropped)} for repeating an input{other}")
    return kept, (*notes, *_near_repeats(kept))


def _question(example: Example) -> Hashable:
    return (example.question or example.text).strip(), *sorted(example.choices)


def _answer(example: Example) -> str | int:
    return example.choices[example.label] if example.choices else example.label


def _near_repeats(kept: Mapping[str, Sequence[Example]]) -> list[str]:
    first: dict[Hashable, str] = {}
    pairs: Counter[tuple[str, str]] = Counter()
    for name, examples in kept.items():
        for example in examples:
            key = _nearly(example)
            if key in first:
                pairs[name, first[key]] += 1
            else:
                first[key] = name
    return [
        f"{name}: kept {counted(count)} that repeat{'s' * (count == 1)} a row of {met} but for"
        " case, white space, punctuation or Unicode form"
        for (name, met), count in pairs.items()
    ]


def _nearly(example: Example) -> Hashable:
    """Return what is left of a question without what a reader hardly sees.

    Where a template fills in three columns or more, they may be options, whose order is no matter.
    """
    values = [value for value in example.fields.values() if isinstance(value, str)]
    if len(values) == len(example.fields) > 2 and not example.choices:
        return tuple(sorted(map(letters, values)))
    return letters(example.question or example.text), *sorted(map(letters, example.choices))


def letters(text: str) -> str:
    """Return a text's letters and digits, or the text where it has none.

    >>> letters("Great, GREAT film!"), letters(":-)")
    ('greatgreatfilm', ':-)')
    """
    plain = text.lower() if text.isascii() else unicodedata.normalize("NFKC", text).casefold()
    return _MARKS.sub("", plain) or text
