"""Algorithm 1 of the paper (Appendix C.2): where to clip, and how much."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Protocol

from eckart.errors import RunError
from eckart.records import Edit, Rows, Setting, Trial, compared


class Executor(Protocol):
    """Whatever scores edits on a split; selection does not know where."""

    @property
    def setting(self) -> Setting:
        """What is scored before anything is clipped."""
        ...

    def key(self, edits: Sequence[Edit], split: str) -> str:
        """Return the hash of everything that the outcome depends on."""
        ...

    def rows(self, split: str) -> Rows:
        """Return the rows of a split; of the whole one, if only some of its rows are named."""
        ...

    def __call__(self, edits: Sequence[Edit], split: str) -> Trial:
        """Score the edits on a split."""
        ...


def search_rate(
    evaluate: Executor, layer: int, part: str, rates: Iterable[float], metric: str = "accuracy"
) -> tuple[float, tuple[Trial, ...]]:
    """Search the clipping rates greedily on the validation set (Algorithm 1, lines 5 to 14).

    Arguments:
        evaluate: scores an edit on a split.
        layer, part: what is clipped.
        rates: the candidates, tried in ascending order; of equal scores the smaller rate stays.
        metric: which of the outcome's `merits` is compared.

    Returns:
        the best rate, and one trial a candidate in ascending order of rate. A candidate whose trial
        failed is never chosen.

    Raises:
        RunError: the unpruned model itself could not be scored.
    """
    best_rate, best_score = 0.0, -math.inf
    trials = []
    for rate in sorted(rates):
        trial = evaluate([Edit(layer, part, rate)], "validation")
        trials.append(trial)
        if trial.score is None:
            if rate == 0:
                raise RunError(f"the unpruned model cannot be scored: {trial.error}")
            continue
        score = compared(trial.score.merits[metric])
        if score > best_score:
            best_rate, best_score = rate, score
    return best_rate, tuple(trials)


def score_test(evaluate: Executor, edit: Edit) -> tuple[Trial, Trial]:
    """Score the frozen choice on the test set, beside the unpruned model (Algorithm 1, lines 15 and
    16).

    Returns:
        the trials of the unpruned and of the clipped model, on the same rows.

    Raises:
        RunError: either could not be scored.
    """
    baseline = evaluate([], "test")
    clipped = evaluate([edit], "test") if edit.rate else baseline
    for trial in (baseline, clipped):
        if trial.score is None:
            raise RunError(f"the test set cannot be scored: {trial.error}")
    return baseline, clipped
