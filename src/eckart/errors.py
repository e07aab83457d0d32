"""The errors of a user's input.

Every message is one line that says what is wrong, the value, the likely cause and the remedy.
The command line prints it and ends with status 2; anything else that is raised is a fault of ours.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class EckartError(Exception):
    """The user's input is wrong; the message says what, the value, the likely cause and the
    remedy."""


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
