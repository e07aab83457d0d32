"""Screens: which places of a model to clip first, found without a look at the test rows.

A screen is a function from a `Screening` to an `Order`, and a line in `SCREENS`.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any

from torch import Tensor

from eckart.algorithm1 import Scored, ScoreEdits, rank_at
from eckart.errors import EditError, RunError, closest
from eckart.records import TOP_K, Edit, Edits, Split, Trial, or_null
from eckart.runs import SCREEN, RunStore
from eckart.scoring.evaluator import Evaluator
from eckart.scoring.fitting import Fitted
from eckart.scoring.scorer import Scorer
from eckart.selection.order import Order, Place
from eckart.selection.plan import SCREEN_ROWS, Plan
from eckart.selection.racing import Drop, Tell, nobody, run_race
from eckart.weights.anatomy import Weight
from eckart.weights.conditioning import layer_condition_numbers
from eckart.weights.linalg import Factor
from eckart.weights.spectrum import exact_matrices, matrices, spectra


@dataclass(frozen=True)
class Screening:
    """What a screen is told.

    Arguments:
        scorers: of the model and the task, one a draw of demonstrations.
        score: scores candidates on validation rows.
        places: which are to be put in order.
        rates: the candidates' clipping rates, one above 0 among them.
        metric: what is compared on validation.
        every: these scorers and those of the test rows, on whose rows no gradient is taken.
        rows: the most rows that one is taken on.
        seed: of a random order.
        combine, top_k: see `Plan`.
        store: keeps spectra.
        tell: is told of what is dropped on the way.
    """

    scorers: Sequence[Scorer]
    score: ScoreEdits
    places: Sequence[Place]
    rates: Sequence[float]
    metric: str
    every: Sequence[Scorer] = ()
    rows: int = SCREEN_ROWS
    seed: int = 0
    combine: str = "geometric"
    top_k: int = TOP_K
    store: RunStore | None = None
    tell: Tell = nobody

    @property
    def cutting(self) -> list[float]:
        """The rates that cut anything."""
        return sorted(rate for rate in self.rates if rate)


def by_condition_number(asked: Screening) -> Order:
    """The places of the `top_k` largest condition numbers, the deepest of them first, as Algorithm
    1 has it; then the others."""
    numbers: dict[Place, float] = {}
    for part in dict.fromkeys(place.part for place in asked.places):
        found = condition_numbers(asked.scorers[0], part, asked.combine, asked.store)
        numbers |= {Place(layer, part): number for layer, number in found.items()}
    by_size = sorted(asked.places, key=lambda place: (-numbers[place], -place.layer))
    top, others = by_size[: asked.top_k], by_size[asked.top_k :]
    order = (*sorted(top, key=lambda place: -place.layer), *others)
    by = f"condition number, the deepest of the {asked.top_k} largest first"
    return Order({place: or_null(numbers[place]) for place in order}, by)


def by_gradient(asked: Screening) -> Order:
    """The places where the gradient of the task's log-loss promises that it falls the most.

    The gradient by each singular value, g_i = u_i^T (dL/dW) v_i, is that of Sreeram et al. 2025
    (Compress to Impress, arXiv 2510.20800). To first order, cutting sigma_i changes the loss by
    -sigma_i g_i: at each rate, that is added up over the singular values that go and over a place's
    matrices, and the rate that promises most counts.
    """
    rates, falls = asked.cutting, defaultdict[tuple[str, float], float](float)
    rows = [spare_rows(scorer, asked.rows, asked.every) for scorer in asked.scorers]
    fewest = min(len(own.prompts) for own in rows)
    if fewest < asked.rows:
        asked.tell(f"gradient on {fewest} rows, of {asked.rows} asked for: no more are left over")

    def note(weight: Weight, gradient: Tensor) -> None:
        """Add how far the loss would fall at each rate."""
        slopes = Factor.of(weight.read(), name=weight.label).slopes(gradient)
        for rate in rates:
            cut = slopes[rank_at(rate, weight.shape) :]
            falls[_numbers(weight), rate] += float(cut.sum()) / len(rows)

    for scorer, own in zip(asked.scorers, rows, strict=True):
        every = {weight.key: weight for place in asked.places for weight in _of(scorer, place)}
        _labelled(scorer).loss_gradients(own, [*every.values()], note)
    scores: dict[Place, float | None] = {}
    for place in asked.places:
        held = {_numbers(weight) for weight in _of(asked.scorers[0], place)}
        scores[place] = max(sum(falls[key, rate] for key in held) for rate in rates)
    by = (
        "the fall of the log-loss, in nats a row, that its gradient by singular values promises on"
        f" {fewest} rows that are no demonstration, validation or test row"
    )
    return _largest_first(scores, by)


def by_validation(asked: Screening) -> Order:
    """The places that do best on the first half of the validation rows, clipped at the middle one
    of the rates.

    By accuracy and under one draw they race: what is clearly beaten on the first of these rows is
    read no further, and stands behind what was read to the end.

    Raises:
        RunError: none could be scored.
    """
    half = max(1, len(asked.scorers[0].rows("validation").rows) // 2)
    rate = asked.cutting[len(asked.cutting) // 2]
    places: dict[Edits, Place] = {(Edit(*place, rate),): place for place in asked.places}
    looks: dict[Edits, Sequence[Scored]]
    if asked.metric == "accuracy" and len(asked.scorers) == 1:

        def tell(drop: Drop) -> None:
            asked.tell(drop.says(lambda edits: str(places[edits])))

        looks = {**run_race(asked.score, [*places], half, tell).looks}
    else:
        found = asked.score([*places], Split.part("validation", 0, half))
        looks = {each.edits: [each] for each in found}
    merits = {places[edits]: _mean(own, asked.metric) for edits, own in looks.items()}
    if not any(merits.values()):
        raise RunError(f"at rate {rate:g} no layer can be scored on validation; give other --rates")
    order = sorted(merits, key=lambda place: (*(merits[place] or (-1, 0)), place.layer))
    trials = tuple(trial for own in looks.values() for look in own for trial in look.trials)
    read = sum(map(_rows, trials))
    by = f"{asked.metric} at rate {rate:g} on the first {half} validation rows, {read} read in all"
    scores = {place: merit[1] if (merit := merits[place]) else None for place in reversed(order)}
    return Order(scores, by, read, looks=trials)


def _mean(looks: Sequence[Scored], metric: str) -> tuple[int, float] | None:
    """Return how many rows a place was read on, and what it merits there; None where it failed."""
    rows = [_rows(look.trials[0]) for look in looks]
    scores = [look.score for look in looks if look.score is not None]
    if len(scores) < len(looks):
        return None
    total = sum(n * score.merits[metric] for n, score in zip(rows, scores, strict=True))
    return sum(rows), total / sum(rows)


def _rows(trial: Trial) -> int:
    return (trial.split.stop or 0) - (trial.split.start or 0)


def last(asked: Screening) -> Order:
    """The deepest places."""
    return _largest_first(dict.fromkeys(asked.places), "depth")


def at_random(asked: Screening) -> Order:
    """Any places: what another screen must do better than."""
    # Of Python's own generator `random` alone is promised to give the same in every version.
    draw = Random(f"screen {asked.seed}")
    return Order(dict.fromkeys(sorted(asked.places, key=lambda place: draw.random())), "chance")


SCREENS: dict[str, Callable[[Screening], Order]] = {
    "condition-number": by_condition_number,
    "gradient": by_gradient,
    "validation": by_validation,
    "last": last,
    "random": at_random,
}
"""By the names that `--layer` knows."""


def check_screen(asked: str) -> tuple[str, int]:
    """Return a screen's name, and the seed of `random:SEED`.

    Raises:
        EditError: there is no such screen.

    >>> check_screen("last"), check_screen("random:3")
    (('last', 0), ('random', 3))
    """
    name, _, seed = asked.partition(":")
    if name not in SCREENS:
        raise EditError(
            f"layer '{asked}' is neither a number, such as 26 or -1, nor a screen;"
            f" {closest(name, SCREENS)}"
        )
    if (name != "random" and seed) or (name == "random" and not re.fullmatch("[0-9]{1,9}", seed)):
        raise EditError(
            f"layer '{asked}' is not as screens are asked for: random with a seed, as in random:0,"
            " the others without"
        )
    return name, int(seed or 0)


def check_layer(layer: int | str | None) -> None:
    """Refuse what is neither a number nor a screen; see `check_screen`."""
    if isinstance(layer, str):
        check_screen(layer)


def screened(name: str, asked: Screening) -> Order:
    """Return the order in which a screen puts places, which the run keeps.

    Raises:
        EditError: there is no such screen, or it cannot tell anything of this task.
        TaskError: there are no rows for it.
        RunError: nothing could be scored.
    """
    store = asked.store
    known = None if store is None else store.note(SCREEN)
    if known is not None and not known["rows_read"]:  # the ledger has what was read on validation
        return Order.from_json(known)
    kind, seed = check_screen(name)
    order = replace(SCREENS[kind](replace(asked, seed=seed)), name=name)
    if store is not None:
        store.keep_note(SCREEN, order.to_json())
    return order


def screen_settings(plan: Plan, scorer: Scorer) -> dict[str, Any]:
    """Return what else a run's settings hold of a screen: the rows that a gradient is taken on.

    Raises:
        EditError, TaskError: as `spare_rows`.
    """
    if plan.layer != "gradient":
        return {}
    rows = spare_rows(scorer, plan.screen_rows)
    return {"screen_rows": [len(rows.prompts), rows.digest]}


def spare_rows(scorer: Scorer, most: int, every: Sequence[Scorer] = ()) -> Fitted:
    """Return the rows that a gradient is taken on: none that is shown, validated or tested under
    any draw.

    Raises:
        EditError: the task asks for no labels.
        TaskError: there are none.
    """
    tasks = [_labelled(each).task for each in every]
    taken = (row.id for t in tasks for row in (*t.demonstrations, *t.validation, *t.test))
    return _labelled(scorer).spare(most, set(taken))


def condition_numbers(
    scorer: Scorer, part: str, combine: str, store: RunStore | None
) -> dict[int, float]:
    """Return a part's condition number by layer."""
    weights = exact_matrices(scorer.model, part)
    with scorer.progress("condition numbers", len(matrices(scorer.anatomy, part))) as advance:
        measured = spectra(weights, store=store, device=scorer.model.model.device, advance=advance)
    return layer_condition_numbers(measured, combine)


def _labelled(scorer: Scorer) -> Evaluator:
    if not isinstance(scorer, Evaluator):
        raise EditError(
            f"--layer gradient goes by the log-loss of right labels, which task"
            f" '{scorer.task.name}' has none of; choose another --layer"
        )
    return scorer


def _of(scorer: Scorer, place: Place) -> tuple[Weight, ...]:
    return scorer.anatomy.select(place.layer, place.part)


def _numbers(weight: Weight) -> str:
    """Return what matrices of several layers share that are tied: their slopes add up."""
    return f"{min([weight.path, *weight.tied])}:{weight.name}"


def _largest_first(scores: Mapping[Place, float | None], by: str) -> Order:
    """Put the largest scores first, and of equal ones the deeper place."""
    order = sorted(scores, key=lambda place: (scores[place] or 0.0, place.layer), reverse=True)
    return Order({place: scores[place] for place in order}, by)
