"""The errors of a user's input.

Every message is one line that says what is wrong, the value, the likely cause and the remedy.
The command line prints it and ends with status 2; anything else that is raised is a fault of ours.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import zip_longest
from typing import Any


class EckartError(Exception):
    """The user's input is wrong; the message says what, the value, the likely cause and the
    remedy."""

    option: str | None = None
    """Of an option that was typed: its name in Python, which the command line spells as a flag."""
    said: str = ""
    """What the message says behind that option's name."""


class ModelError(EckartError):
    """A model cannot be loaded, read or taken apart."""


class NotANumberError(ModelError):
    """A model's outputs or weights are not numbers: the same edit fails again, whenever it is
    tried."""


class TaskError(EckartError):
    """A task, its data or its prompt is not usable."""


class EditError(EckartError):
    """An edit names a layer, a part or a rate that the model does not have."""


class RunError(EckartError):
    """A run cannot be opened, continued or written."""


class StudyError(EckartError):
    """A study file, or the grid of a sweep, is not usable."""


def of_option(wrong: type[EckartError], option: str, spelled: str, said: str) -> EckartError:
    """Return an error that knows which option it is about.

    >>> str(of_option(TaskError, "shots", "the task: shots", "is -1: it must be at least 0"))
    'the task: shots is -1: it must be at least 0'
    """
    error = wrong(f"{spelled} {said}")
    error.option, error.said = option, said
    return error


def closest(name: str, known: Iterable[str]) -> str:
    """Return what a message says when `name` is none of `known`.

    >>> closest("lables", ["labels", "label", "data"])
    "did you mean 'labels' or 'label'? (known: labels, label, data)"
    """
    known = list(known)
    folded = {item.lower().replace("_", "").replace("-", ""): item for item in known}
    near = difflib.get_close_matches(
        name.lower().replace("_", "").replace("-", ""), list(folded), n=2
    )
    listing = ", ".join(known)
    if not near:
        return f"known: {listing}"
    return f"did you mean {' or '.join(repr(folded[item]) for item in near)}? (known: {listing})"


@contextmanager
def about(what: object) -> Iterator[None]:
    """Say what an error is about, unless it says so itself: `gpt2` is not named by `gpt2-xl`."""
    try:
        yield
    except EckartError as error:
        if re.search(rf"(?<![\w/-]){re.escape(str(what))}(?![\w-]|\.\w)", str(error)):
            raise
        raise type(error)(f"{what}: {error}") from error


def numbered(number: int, noun: str) -> str:
    """Return a noun in its number.

    >>> numbered(1, "row"), numbered(8000, "row")
    ('1 row', '8,000 rows')
    """
    return f"{number:,} {noun}{'s' * (number != 1)}"


def reason(error: Exception, most: int) -> str:
    """Write an error of somebody else's in a line of at most so many characters.

    >>> reason(ValueError("no\\n  such row"), 300)
    'ValueError: no such row'
    """
    return " ".join(f"{type(error).__name__}: {error}".split())[:most]


def changes(was: Any, now: Any, name: str = "") -> Iterator[str]:
    """Say what differs, by the innermost names: what has the same form is compared part by part.

    >>> list(changes({"rates": [0, 0.5], "seed": 1}, {"rates": [0, 0.9], "seed": 1}))
    ['rates [0, 0.5], now [0, 0.9]']
    """
    forms = (was, now)
    if all(isinstance(form, dict) for form in forms):
        inner = [(key, was.get(key), now.get(key)) for key in {**was, **now}]
    elif all(isinstance(form, list) and form and isinstance(form[0], dict) for form in forms):
        inner = [(str(place), *pair) for place, pair in enumerate(zip_longest(was, now), start=1)]
    else:
        if was != now:
            yield f"{name} {_short(was)}, now {_short(now)}"
        return
    for key, old, new in inner:
        yield from changes(old, new, f"{name}.{key}" if name else key)


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:35]}...{text[-22:]}"


PLAIN = (
    (r"^input should be (an? valid )?", "it must be "),
    (r", (unable to parse|got) .*", ""),
    ("greater than or equal to", "at least"),
    ("less than or equal to", "at most"),
    ("greater than", "more than"),
    ("it must be integer", "it must be a whole number"),
    ("it must be dictionary", "it must be values under keys, such as {0: bad}"),
    ("it must be boolean", "it must be true or false"),
    ("it must be string", "it must be text"),
    ("it must be (number|list|tuple)", r"it must be a \1"),
)
"""How the validator speaks, and how we do."""


def plainly(why: str) -> str:
    """Say what a value must be without the validator's words.

    >>> plainly("Input should be a valid integer, unable to parse string as an integer")
    'it must be a whole number'
    >>> plainly("Input should be greater than or equal to 0")
    'it must be at least 0'
    """
    why = why[0].lower() + why[1:]
    for pattern, words in PLAIN:
        why = re.sub(pattern, words, why)
    return why


def how_to_install(extra: str) -> str:
    """Say how an extra is installed, from an index of packages or in a clone.

    >>> how_to_install("gguf")
    "pip install 'eckart[gguf]' (in a clone: pip install -e '.[gguf]')"
    """
    return f"pip install 'eckart[{extra}]' (in a clone: pip install -e '.[{extra}]')"
