"""The parts of a sweep's work: a look at a model, and a unit, whose candidates share readings.

Nothing here knows where it runs, or where trials are kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from eckart.algorithm1 import Arms, best_edit, control_arms, no_arms, worst_layer
from eckart.records import Edits, Trial, or_null
from eckart.scoring.evaluator import most_tokens
from eckart.scoring.methods import OF_ALL_ROWS
from eckart.selection.alike import apart
from eckart.selection.guard import Guard
from eckart.selection.power import largest_first, outlook
from eckart.selection.recorded import Recorded
from eckart.statistics.gain import LEVEL
from eckart.statistics.power import Outlook
from eckart.sweeps.grid import Sweep, Unit
from eckart.weights.anatomy import Anatomy
from eckart.weights.conditioning import layer_condition_numbers
from eckart.weights.edits import droppable
from eckart.weights.hooks import HALF
from eckart.weights.models import LoadedModel
from eckart.weights.spectrum import Noted, Spectra, exact_matrices, spectra


@dataclass(frozen=True)
class Facts:
    """What a sweep must know of a model before its units.

    Arguments:
        name: as the sweep names it.
        fingerprint, dtype: which weights it has, and what they are computed in.
        layers: the layers of each part that are edited.
        condition_numbers: of each part by layer, where they were measured; null where a matrix is
            singular.
        spectra: under which names the spectra of its matrices are kept.
        batch_tokens: in half precision the most tokens in a batch, on which the last bits depend.
    """

    name: str
    fingerprint: str
    dtype: str
    layers: dict[str, list[int]]
    condition_numbers: dict[str, dict[str, float | None]]
    spectra: list[str]
    batch_tokens: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


def look_at(model: LoadedModel, sweep: Sweep, store: Spectra) -> Facts:
    """Settle which layers of a model a sweep edits, and measure its spectra where they are asked
    for."""
    given, noted = sweep.layers_of(Anatomy.of(model.model)), Noted(store)
    conditions: dict[str, dict[int, float]] = {}
    if given is None or sweep.spectra:
        for part in sweep.parts:
            found = spectra(exact_matrices(model, part), store=noted, device=model.model.device)
            conditions[part] = layer_condition_numbers(found, sweep.combine)
    return Facts(
        name=model.name,
        fingerprint=model.fingerprint,
        dtype=model.dtype,
        layers={
            part: [worst_layer(conditions[part], sweep.top_k)] if given is None else given
            for part in sweep.parts
        },
        condition_numbers={
            part: {str(layer): or_null(value) for layer, value in found.items()}
            for part, found in conditions.items()
        },
        spectra=list(dict.fromkeys(noted.names)),
        batch_tokens=most_tokens(model, sweep.batch_tokens) if model.model.dtype in HALF else None,
    )


def foresee_unit(
    sweep: Sweep, unit: Unit, recorded: Recorded, layers: Mapping[str, Sequence[int]]
) -> Outlook | None:
    """Return what a sweep's test rows can show of the model, task and shots of a unit, if it is the
    first of their units: the others draw other demonstrations for the same question.

    The test is of all draws, and its level that of one of all choices by Bonferroni's correction,
    than which the report's (Holm's) is never stricter.
    """
    draws = sweep.draws_of(unit.shots)
    if unit.seed != draws[0] or sweep.test == "none":
        return None
    layer, part = max((max(layers[part]), part) for part in sweep.parts)
    scorings = sweep.scorings or (recorded.scorer.scoring,)
    return outlook(
        recorded,
        largest_first(recorded.scorer.anatomy, layer, part, sweep.rates),
        scoring=min(scorings, key=OF_ALL_ROWS.__contains__),
        draws=len(draws),
        level=LEVEL / sweep.choices,
    )


def run_unit(
    sweep: Sweep,
    recorded: Recorded,
    layers: Mapping[str, Sequence[int]],
    metric: str,
    guard: Guard | None = None,
) -> Iterator[Trial]:
    """Score a unit's candidates on validation, then what is to be tested, then each choice on what
    the guard reads; yield every trial.

    Arguments:
        sweep: parts, rates, scorings, and what is tested.
        recorded: scores the unit's model and task.
        layers: the layers of each part.
        metric: what is compared on validation.
        guard: looks at what else the choices do.
    """
    scorings = sweep.scorings or (recorded.scorer.scoring,)
    different = apart(recorded.scorer.anatomy, sweep.edits(layers))
    candidates = [(), *((edit,) for edit in different)]
    merits: dict[str, dict[Edits, float]] = {scoring: {} for scoring in scorings}
    for trial in recorded.score(candidates, "validation", scorings):
        if trial.score is not None:
            merits[trial.setting.scoring][trial.edits] = trial.score.merits[metric]
        yield trial
    selected = _selected(sweep.parts, merits)
    if sweep.test != "none":
        arms: Arms = no_arms
        if sweep.controls:
            arms = partial(control_arms, droppable=droppable(recorded.scorer.anatomy))
        tested = {edits: list(scorings) for edits in candidates} if sweep.test == "all" else {}
        for edits, wanted in selected.items():
            for each in (edits, *((arm,) for edit in edits for arm in arms(edit))):
                tested.setdefault(each, []).extend(wanted)
        yield from recorded.score(tested, "test")
    if guard is not None:
        for edits in filter(None, selected):
            yield from guard.trials(edits, recorded.ledger, shared=True)


def _selected(
    parts: Sequence[str], merits: Mapping[str, Mapping[Edits, float]]
) -> dict[Edits, list[str]]:
    """Return the unpruned model and each part's best on validation, and by which scorings."""
    selected: dict[Edits, list[str]] = {}
    for scoring, by_edits in merits.items():
        if () not in by_edits:
            continue
        selected.setdefault((), []).append(scoring)
        for part in parts:
            of_part = {e[0]: merit for e, merit in by_edits.items() if e and e[0].part == part}
            best = best_edit(of_part, by_edits[()])
            if best:
                selected.setdefault((best,), []).append(scoring)
    return selected
