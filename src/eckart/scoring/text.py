"""A text that chose nothing, and the scorer of it: how well a model predicts every token, and how
far an edit moves the predictions."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from importlib.resources import files
from itertools import pairwise
from pathlib import Path

import numpy as np

from eckart.errors import ModelError, TaskError
from eckart.files import home, read_text
from eckart.records import Edits, Row, Rows, fingerprint
from eckart.scoring.encoding import Encoder, Tokens
from eckart.scoring.evaluator import most_tokens
from eckart.scoring.forward.states import StateStore
from eckart.scoring.forward.trunk import LayerPoint, Trunk
from eckart.scoring.forward.windows import WindowReader
from eckart.scoring.methods import check_finite
from eckart.scoring.requests import Requests, check_vocabulary
from eckart.scoring.scorer import Progress, Scorer, silent
from eckart.statistics.scores import TEXT_PREFIX, TextReading
from eckart.weights.loading.config import context_window
from eckart.weights.models import LoadedModel, needed_tokenizer

WINDOW = 128
"""The most tokens that are read together, what the tokenizer puts in front included."""
NEUTRAL = "neutral"
"""What the text that comes with the package is called."""


@dataclass(frozen=True)
class GuardText:
    """A text that chose nothing.

    Arguments:
        text: what is read.
        name: of its file, or `NEUTRAL`.
    """

    text: str = field(repr=False)
    name: str = NEUTRAL

    variant = None
    labels = ()
    shots = 0
    seed = 0
    metric = "log_loss"
    metrics = ("log_loss",)

    @classmethod
    def load(cls, path: str | Path | None = None) -> GuardText:
        """Read a file of plain text in UTF-8, or without one the text that comes with the package.

        Raises:
            TaskError: there is no such file, or it is empty, too large, or no text.
        """
        if path is None:
            return cls((files("eckart.scoring") / "neutral.txt").read_text(encoding="utf-8"))
        file = home(path)
        if file.is_dir():
            raise TaskError(f"guard text '{path}' is a folder; name a file of plain text")
        text = read_text(file, "guard text", too_large="a few thousand words are enough")
        text = text.replace("\r\n", "\n")  # a text is the same whichever system it was saved on
        if "\0" in text:
            raise TaskError(f"guard text '{path}' holds binary data; name a file of plain text")
        if not text.strip():
            raise TaskError(f"guard text '{path}' is empty; a few thousand words of prose will do")
        return cls(text, file.name)

    @property
    def full_name(self) -> str:
        """What a `Setting` calls it."""
        return f"{TEXT_PREFIX}{self.name}"

    @property
    def digest(self) -> str:
        """A hash of how any text is read."""
        return fingerprint(["text", WINDOW])

    def rows_digest(self, split: str) -> str:
        """Return a hash of the text."""
        return fingerprint(self.text)

    def redrawn(self, *, shots: int | None = None, seed: int | None = None) -> GuardText:
        """Return the text, which has no demonstrations."""
        return self


class TextScorer(Scorer):
    """Scores a causal language model, clipped or not, on a text; see `TextReading`.

    Arguments:
        model: what `load_model` returned.
        task: the text.
        batch_tokens, cache_memory, progress: as of `Evaluator`.

    Raises:
        ModelError: the model reads no text, or too few tokens at once.
        TaskError: the text has not two tokens.
    """

    def __init__(
        self,
        model: LoadedModel,
        task: GuardText,
        *,
        batch_tokens: int | None = None,
        cache_memory: int | None = None,
        progress: Progress = silent,
    ) -> None:
        super().__init__(model, task, "log_loss", progress)
        self.task: GuardText = task
        self.tokenizer = needed_tokenizer(model)
        self._options = {"batch_tokens": batch_tokens, "cache_memory": cache_memory}
        self._budget: int = most_tokens(model, batch_tokens)
        self._states = StateStore.on(model.model.device, cache_memory)
        self._points: frozenset[LayerPoint] = frozenset()
        self._unpruned: list[float] | None = None
        self.windows = self._cut()
        check_vocabulary(model, Requests((), self.windows, ()))

    def on(self, model: LoadedModel) -> TextScorer:
        return TextScorer(model, self.task, progress=self.progress, **self._options)

    def _cut(self) -> tuple[Tokens, ...]:
        """Return the text's tokens in windows that differ in length by one at most, each with what
        the tokenizer puts in front."""
        text, limit = self.task.text, context_window(self.model.model.config) or WINDOW
        plain = tuple(self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])
        (dressed,) = Encoder(self.tokenizer)([text])
        front = dressed[: len(dressed) - len(plain)]
        room = min(limit, WINDOW) - len(front)
        if room < 2:
            raise ModelError(
                f"model '{self.model.name}' reads at most {limit} tokens at once, too few for a"
                " text; leave out --guard"
            )
        if len(plain) < 2:
            raise TaskError(
                f"guard text '{self.task.name}' is {len(plain)} token(s) long for this model, so"
                " there is no next token to predict; a few thousand words of prose will do"
            )
        count = math.ceil(len(plain) / room)
        ends = [len(plain) * number // count for number in range(count + 1)]
        return tuple(front + plain[a:b] for a, b in pairwise(ends))

    def rows(self, split: str) -> Rows:
        """Return the windows, as text."""
        texts = (str(self.tokenizer.decode(list(window))) for window in self.windows)
        return Rows((), tuple(Row(f"text:{i}", text, None) for i, text in enumerate(texts)))

    def digest(self, split: str) -> str:
        return fingerprint(self.windows)

    def tokens(self, split: str, scorings: Sequence[str] = ()) -> int:
        return sum(map(len, self.windows))

    def notes(self, *splits: str) -> tuple[str, ...]:
        return ()

    def forget(self) -> None:
        super().forget()
        self._let_go()
        self.__dict__.pop("reader", None)

    def _let_go(self) -> None:
        self._unpruned = None
        self._points = frozenset()
        self.reader.clear()

    @cached_property
    def reader(self) -> WindowReader:
        trunk = Trunk(self.anatomy)
        return WindowReader(self.model.model, self.windows, self._budget, trunk, self._states)

    @contextmanager
    def sharing(self, candidates: Collection[Edits]) -> Iterator[None]:
        """Hold what the unpruned model's pass leaves until all candidates are read."""
        points = {self.reader.trunk.point(edits) for edits in candidates}
        self._points = frozenset(point for point in points if point is not None)
        try:
            yield
        finally:
            self._let_go()

    def prepare(self, split: str, scorings: Sequence[str] = ()) -> None:
        """Read the unpruned model, with which every other is compared."""
        if self._unpruned is None:
            with self.progress("text unpruned", len(self.windows)) as advance:
                self._unpruned = self.reader.unpruned(self._points, advance)

    def outcomes(self, edits: Edits, split: str, scorings: Sequence[str]) -> list[TextReading]:
        losses = self._unpruned or []
        divergences = [0.0] * len(losses)
        start = self.reader.trunk.point(edits)
        if start is not None:
            what = f"text {', '.join(map(str, edits))}"
            with self.progress(what, len(self.windows)) as advance:
                losses, divergences = self.reader.clipped(start, advance)
        windows = [f"window {number}" for number in range(len(losses))]
        check_finite(np.array([losses, divergences]).T, windows, self.model.dtype)
        return [TextReading.of([len(w) - 1 for w in self.windows], losses, divergences)]
