"""The same elsewhere: the command and the Python that do what a page shows."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from eckart.records import Edit
from eckart.tasks.spec import DrawnTask
from eckart.weights.options import ModelOptions, ReadingOptions

VALIDATION = "validation"
OWN = ("--out", "--host", "--port", "--rows")
"""Options of the page that no other verb has, with a value."""
SWITCHES = ("--open", "--json")
GUARD = ("--guard-text", "--guard-task", "--guard-margin")
"""Options of an edit, which are refused where there is none."""


@dataclass(frozen=True)
class Elsewhere:
    """What a page was asked for, to be asked for without it.

    Arguments:
        words: the command as it was typed, word by word, from `explore` on.
        model: as the user names it.
        task, scoring, reading, loading: as they were said.
    """

    words: tuple[str, ...]
    model: str
    task: DrawnTask
    scoring: str | None
    reading: ReadingOptions
    loading: ModelOptions

    @property
    def typed(self) -> str:
        """The command, as a shell would read it."""
        return shlex.join(["eckart", *self.words])

    def said(self, edits: Sequence[Edit], split: str) -> dict[str, str]:
        """Return what does the same: a command, and Python."""
        flags = [word for edit in edits for word in ("--edit", str(edit))]
        part = [] if split == VALIDATION else ["--split", split]
        guard = ["--guard"] if edits else []
        kept = self._kept(OWN if edits else (*OWN, *GUARD))
        command = shlex.join(["eckart", "evaluate", *kept, *part, *flags, *guard])
        return {"command": command, "python": "\n".join(self._python(edits, split)) + "\n"}

    def _kept(self, own: Collection[str]) -> Iterator[str]:
        words = iter(self.words[1:])
        for word in words:
            if word in own:
                next(words, None)
            elif word not in SWITCHES and word.partition("=")[0] not in own:
                yield word

    def _python(self, edits: Sequence[Edit], split: str) -> Iterator[str]:
        loading = self.loading.model_dump(exclude_defaults=True)
        how = self.reading.model_dump(exclude_defaults=True)
        if self.scoring is not None:
            how["scoring"] = self.scoring
        if split != VALIDATION:
            how["split"] = str(split)
        task = self.task.model_dump(exclude_defaults=True)
        name = [repr(task.pop("task"))] if "task" in task else []
        yield "import eckart"
        # `evaluate` itself takes the first two alone.
        if set(loading) <= {"dtype", "device"}:
            model, how = repr(self.model), how | loading
        else:
            yield "from eckart.weights.models import load_model"
            model = f"load_model({', '.join([repr(self.model), *_keywords(loading)])})"
        yield ""
        yield f"task = eckart.Task.load({', '.join([*name, *_keywords(task)])})"
        clipped = ", ".join(f"eckart.Edit.parse({str(edit)!r})" for edit in edits)
        given = ", ".join([model, "task", f"[{clipped}]", *_keywords(how)])
        yield f"print(eckart.evaluate({given}))"


def _keywords(said: dict[str, Any]) -> Iterator[str]:
    return (f"{name}={value!r}" for name, value in said.items())
