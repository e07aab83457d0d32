"""The evaluation of a model on a split: the outcome, together with the rows."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from eckart.records import Trial
from eckart.statistics.paired import PairedDifference, accuracy_interval, compare
from eckart.statistics.scores import Score, Shown
from eckart.tasks.prompts import Prompt
from eckart.tasks.task import Task


@dataclass(frozen=True, repr=False)
class Evaluation(Shown):
    """A trial together with the rows it was scored on.

    Arguments:
        model, dtype: what was scored.
        task: on what, and
        scoring: how.
        trial: the outcome.
        prompts: the rows, in the split's order.
        notes: what a reader should know about them.
        unpruned: of a clipped model, the unpruned one's trial on the same rows.
    """

    model: str
    dtype: str
    task: Task
    scoring: str
    trial: Trial
    prompts: tuple[Prompt, ...]
    notes: tuple[str, ...]
    unpruned: Trial | None = None

    @property
    def score(self) -> Score:
        """The outcome's metrics and rows."""
        score = self.trial.labelled
        assert score is not None
        return score

    @property
    def before(self) -> Score | None:
        """The unpruned model's metrics and rows; None where nothing is clipped."""
        return None if self.unpruned is None else self.unpruned.labelled

    @property
    def comparison(self) -> PairedDifference | None:
        """Clipped against unpruned, on the same rows; None where nothing is clipped."""
        return None if self.before is None else compare(self.before, self.score)

    def __str__(self) -> str:
        edits = ", ".join(map(str, self.trial.edits)) or "unpruned"
        return (
            f"{self.model} on {self.task.full_name} {self.trial.split}, {edits}: accuracy"
            f" {self.score.accuracy:.4f}, n = {self.score.n}"
        )

    def to_json(self) -> dict[str, Any]:
        """Return the one document that `eckart evaluate --json` prints."""
        return {
            "task": self.task.name,
            "model": self.model,
            "split": self.trial.split,
            "edits": [str(edit) for edit in self.trial.edits],
            **self.score.summary(),
            "interval": list(accuracy_interval(self.score)),
            "labels": list(self.task.labels),
            "shots": self.task.shots,
            "seed": self.task.seed,
            "scoring": self.scoring,
            "dtype": self.dtype,
            **({"as": self.trial.stored_as} if self.trial.stored_as else {}),
            "seconds": self.trial.seconds,
            "notes": list(self.notes),
            **self._against_unpruned(),
        }

    def _against_unpruned(self) -> dict[str, Any]:
        """Return the unpruned model's score, and what is gained over it, where there is one."""
        paired, before = self.comparison, self.before
        if paired is None or before is None:
            return {}
        return {
            "unpruned": {**before.summary(), "interval": list(accuracy_interval(before))},
            "comparison": paired.to_json(),
        }

    def rows(self, with_prompts: bool = False) -> Iterator[dict[str, Any]]:
        """Yield one JSON value a row, in the split's order.

        Arguments:
            with_prompts: add the context and the continuations exactly as the model reads them.
        """
        for prompt, prediction, values in zip(
            self.prompts, self.score.predictions, self.score.log_likelihoods, strict=True
        ):
            text = (
                {"context": prompt.context, "continuations": list(prompt.continuations)}
                if with_prompts
                else {}
            )
            yield {
                "id": prompt.id,
                "label": self.task.labels[prompt.label],
                "prediction": self.task.labels[prediction],
                "log_likelihoods": [value if math.isfinite(value) else None for value in values],
                **text,
            }
