"""Algorithm 1 of the paper (Appendix C.2): where to clip, and how much.

It knows no model and no file: whatever scores edits on a split, here or elsewhere, can be searched.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeAlias

from eckart.errors import EditError, RunError
from eckart.records import DROP, LARGEST, PARTS, TOP_K, Edit, Edits, Trial, check_rate

RANDOM_ARMS = ("random", "random1", "random2")
"""As many draws of random directions as a choice is compared with."""


class Merited(Protocol):
    """What a candidate scored."""

    @property
    def n(self) -> int:
        """On how many rows."""

    @property
    def headline(self) -> str:
        """The metric that is reported first."""

    @property
    def merits(self) -> Mapping[str, float]:
        """What a choice may compare, by metric; larger is better."""

    def summary(self) -> dict[str, Any]:
        """Return everything but the rows."""


class Scored(Protocol):
    """A candidate that was scored on a split: a `Trial`, or what several of them say together."""

    @property
    def edits(self) -> Edits:
        """What was clipped."""

    @property
    def score(self) -> Merited | None:
        """None where it could not be scored."""

    @property
    def error(self) -> str | None:
        """Why not."""

    @property
    def seconds(self) -> float:
        """How long it took."""

    @property
    def trials(self) -> tuple[Trial, ...]:
        """What it rests on: a trial a draw."""


ScoreEdits: TypeAlias = Callable[[Sequence[Edits], str], Iterable[Scored]]
"""Scores candidates on a split, each once and in any order, best the unpruned model `()` first."""


@dataclass(frozen=True)
class Searched:
    """The rates of a part of a layer, searched on validation.

    Arguments:
        best: the rate that does best; 0 where no clipping does better than none.
        trials: of every rate, ascending.
    """

    best: float
    trials: Mapping[float, Scored]


Arms: TypeAlias = Callable[[Edit], Sequence[Edit]]
"""Gives the control arms of a choice."""
SearchRates: TypeAlias = Callable[[ScoreEdits, int, str, Sequence[float], str], Searched]
"""Searches the rates of a part of a layer by a metric."""


@dataclass(frozen=True)
class Found:
    """What Algorithm 1 found.

    Arguments:
        layer: the chosen one.
        rates: those that were searched, and the best.
        unpruned, clipped: the trials on the test rows; one and the same where nothing is clipped.
        controls: the trials of the choice's control arms on the same rows, where they were asked
            for.
    """

    layer: int
    rates: Searched
    unpruned: Scored
    clipped: Scored
    controls: tuple[Scored, ...] = ()


def no_arms(choice: Edit) -> tuple[Edit, ...]:
    """Return nothing: a choice by itself."""
    return ()


def algorithm1(
    score: ScoreEdits,
    condition_numbers: Mapping[int, float],
    part: str,
    rates: Sequence[float],
    top_k: int = TOP_K,
    metric: str = "accuracy",
    search_rates: SearchRates | None = None,
    arms: Arms = no_arms,
) -> Found:
    """Choose a layer by condition number and a rate on validation, and look at the test rows once.

    Arguments:
        score: scores candidates on `validation` and on `test`.
        condition_numbers: of the layers to choose from.
        part: what is clipped.
        rates: the candidates; 0, the unpruned model, must be among them.
        top_k: how many of the worst-conditioned layers are considered.
        metric: which of an outcome's `merits` is compared.
        search_rates: another search of the rates, such as a race; `search_all` by default.
        arms: gives a choice's control arms, such as `control_arms`; none by default.

    Raises:
        EditError: `top_k` selects no layer.
        RunError: the unpruned model or the choice could not be scored.
    """
    layer = worst_layer(condition_numbers, top_k)  # lines 2 to 4
    searched = (search_rates or search_all)(score, layer, part, rates, metric)  # lines 5 to 14
    choice = Edit(layer, part, searched.best)
    controls = arms(choice) if choice.rate else ()
    edits = candidate(choice.layer, choice.part, choice.rate)
    unpruned, clipped, *tested = score_test(score, edits, [(arm,) for arm in controls])  # 15, 16
    return Found(layer, searched, unpruned, clipped, tuple(tested))


def worst_layer(condition_numbers: Mapping[int, float], top_k: int = TOP_K) -> int:
    """Return the deepest of the `top_k` layers with the largest condition numbers (lines 2 to 4).

    Of equal condition numbers the deeper layer counts as larger.

    >>> worst_layer({0: 10.0, 1: 90.0, 2: 40.0, 3: 5.0}, top_k=2)
    2
    """
    if top_k < 1:
        raise EditError(f"top-k {top_k} selects no layer; it must be at least 1")
    by_size = sorted(condition_numbers, key=lambda layer: (condition_numbers[layer], layer))
    return max(by_size[-top_k:])


def search_all(
    score: ScoreEdits, layer: int, part: str, rates: Sequence[float], metric: str
) -> Searched:
    """Score every rate on validation (lines 5 to 14).

    Of equal scores the smaller rate stays. A rate whose trial failed is never chosen.

    Raises:
        RunError: the unpruned model itself could not be scored.
    """
    candidates = [candidate(layer, part, rate) for rate in sorted(rates)]
    trials = {
        rate_of(trial.edits): checked_unpruned(trial) for trial in score(candidates, "validation")
    }
    merits = {
        Edit(layer, part, rate): trial.score.merits[metric]
        for rate, trial in trials.items()
        if trial.score is not None
    }
    best = best_edit(merits, unpruned=merits[Edit(layer, part, 0.0)])
    return Searched(best.rate if best else 0.0, dict(sorted(trials.items())))


def checked_unpruned(trial: Scored) -> Scored:
    """Return a trial, unless it failed for the unpruned model: then no other need be scored.

    Raises:
        RunError: it did.
    """
    if not trial.edits and trial.score is None:
        raise RunError(f"the unpruned model cannot be scored: {trial.error}")
    return trial


def best_edit(merits: Mapping[Edit, float], unpruned: float) -> Edit | None:
    """Return the edit that does best on validation; None where none beats the unpruned model.

    Of equal scores the smaller rate wins, and of equal rates the deeper layer.

    >>> best_edit({Edit(0, "mlp", 0.5): 0.8, Edit(3, "mlp", 0.5): 0.8, Edit(3, "mlp", 0.9): 0.8}, 0)
    Edit(layer=3, part='mlp', rate=0.5)
    """
    best = max(
        merits, key=lambda edit: (compared(merits[edit]), -edit.rate, edit.layer), default=None
    )
    return best if best is not None and compared(merits[best]) > compared(unpruned) else None


def compared(merit: float) -> float:
    """Return a merit as choices compare it: what differs by a sum's rounding alone is equal.

    >>> compared(0.6000000000000001) == compared(0.6)
    True
    """
    return round(merit, 12)


def score_test(
    score: ScoreEdits, choice: Edits, controls: Sequence[Edits] = ()
) -> tuple[Scored, Scored, *tuple[Scored, ...]]:
    """Score the unpruned model and the frozen choice on the same test rows (lines 15 and 16), and
    beside them its control arms, which may fail.

    Raises:
        RunError: either of the two could not be scored.
    """
    asked: list[Edits] = [(), choice, *controls]
    trials = {trial.edits: trial for trial in score(list(dict.fromkeys(asked)), "test")}
    for tested in ((), choice):
        if trials[tested].score is None:
            raise RunError(f"the test set cannot be scored: {trials[tested].error}")
    return trials[()], trials[choice], *(trials[arm] for arm in controls)


def control_arms(choice: Edit, droppable: bool) -> tuple[Edit, ...]:
    """Return what else is done at the place of a choice, so that a gain of cutting the smallest
    singular values can be told from a gain of doing anything there.

    Arguments:
        choice: a layer, a part and a rate above 0.
        droppable: whether the model's parts can be dropped; a single matrix never is.

    >>> [str(arm) for arm in control_arms(Edit(3, "q", 0.9), droppable=True)]
    ['3:q:0.9:random', '3:q:0.9:random1', '3:q:0.9:random2', '3:q:0.9:largest']
    >>> str(control_arms(Edit(3, "mlp", 0.9), droppable=True)[-1])
    '3:mlp:drop'
    """
    cuts = tuple(replace(choice, cut=cut) for cut in (*RANDOM_ARMS, LARGEST))
    whole = droppable and len(PARTS[choice.part]) > 1
    return (*cuts, replace(choice, rate=1.0, cut=DROP)) if whole else cuts


def arms_together(edits: Edits, droppable: bool) -> tuple[Edits, ...]:
    """Return the control arms of a composition: the same arm of each edit, all at once; dropped
    are all parts, or none.

    >>> arms = arms_together((Edit(3, "q", 0.9), Edit(5, "mlp", 0.5)), droppable=True)
    >>> len(arms), [str(edit) for edit in arms[-1]]
    (4, ['3:q:0.9:largest', '5:mlp:0.5:largest'])
    """
    return tuple(zip(*(control_arms(edit, droppable) for edit in edits), strict=False))


def rank_at(rate: float, shape: tuple[int, int]) -> int:
    """Return the rank r in 1..min(m, n) that a clipping rate keeps, where xi = 1 - r / min(m, n)
    (Section 2): `max(1, floor((1 - rate) * min(m, n) + 1e-9))`; an EditError where the rate is not
    in [0, 1).

    >>> rank_at(0.95, (4096, 16384)), rank_at(0.9, (10, 10)), rank_at(0, (7, 5))
    (204, 1, 5)
    """
    # Without 1e-9, (1 - 0.9) * 10 = 0.9999999999999998 would floor to 0.
    return max(1, math.floor((1 - check_rate(rate)) * min(shape) + 1e-9))


def candidate(layer: int, part: str, rate: float) -> Edits:
    """Return what is scored for a rate: at rate 0 it is the unpruned model."""
    return (Edit(layer, part, rate),) if rate else ()


def rate_of(edits: Edits) -> float:
    """Return the rate of a candidate."""
    return edits[0].rate if edits else 0.0
