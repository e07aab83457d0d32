"""The same elsewhere: the command and the Python that do what a page shows."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from eckart.records import Edit
from eckart.selection.plan import GuardOptions
from eckart.tasks.spec import DrawnTask
from eckart.weights.options import ModelOptions, ReadingOptions

VALIDATION = "validation"
OWN = ("--out", "--host", "--port", "--row")
"""Options of the page that no other verb has, with a value; in the singular, as all are taken."""
SWITCHES = ("--open", "--json")
GUARD = ("--guard-text", "--guard-task", "--guard-margin")
"""Options of an edit, which are refused where there is none."""
GUARDED = {"guard_text": "text", "guard_task": "tasks", "guard_margin": "margin"}
"""The same -> what `Guard` calls them."""


@dataclass(frozen=True)
class Elsewhere:
    """What a page was asked for, to be asked for without it.

    Arguments:
        words: the command as it was typed, word by word, from `explore` on.
        model: as the user names it.
        task, scoring, reading, loading, guard: as they were said.
    """

    words: tuple[str, ...]
    model: str
    task: DrawnTask
    scoring: str | None
    reading: ReadingOptions
    loading: ModelOptions
    guard: GuardOptions

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
            flag, equals, _ = word.partition("=")
            if flag.removesuffix("s") not in own:
                yield from [] if word in SWITCHES else [word]
            elif not equals:
                next(words, None)

    def _python(self, edits: Sequence[Edit], split: str) -> Iterator[str]:
        loading = self.loading.model_dump(exclude_defaults=True)
        how = self.reading.model_dump(exclude_defaults=True)
        if self.scoring is not None:
            how["scoring"] = self.scoring
        part = {} if split == VALIDATION else {"split": str(split)}
        task = self.task.model_dump(exclude_defaults=True)
        name = [repr(task.pop("task"))] if "task" in task else []
        yield "import eckart"
        if edits:
            yield "from eckart.scoring.evaluator import Evaluator"
            yield "from eckart.selection.guard import Guard"
        yield "from eckart.weights.models import load_model"
        yield ""
        yield f"model = load_model({', '.join([repr(self.model), *_keywords(loading)])})"
        yield f"task = eckart.Task.load({', '.join([*name, *_keywords(task)])})"
        yield f"edits = [{', '.join(f'eckart.Edit.parse({str(edit)!r})' for edit in edits)}]"
        yield f"print(eckart.evaluate({', '.join(['model, task, edits', *_keywords(part | how)])}))"
        if edits:
            asked = self.guard.model_dump(exclude_defaults=True, exclude={"guard"})
            said = {GUARDED[name]: value for name, value in asked.items()}
            scorer = f"Evaluator({', '.join(['model, task', *_keywords(how)])})"
            yield f"print(Guard({', '.join([scorer, *_keywords(said)])}).look(edits))"


def _keywords(said: dict[str, Any]) -> Iterator[str]:
    return (f"{name}={value!r}" for name, value in said.items())
