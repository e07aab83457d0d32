"""What a run shows: the choice of each unit, what it gains on rows that did not choose it, and the
verdict."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Float

from eckart.algorithm1 import best_edit
from eckart.analysis.measured import Measurements, mean_gain, measure_run
from eckart.analysis.outcomes import Block, Condition
from eckart.records import Edit, full_name
from eckart.runs import Run
from eckart.statistics.crossed import Estimate, smallest_detectable, verdict
from eckart.statistics.multiplicity import FOLDS, holm, selected_gain

Outcome = Literal["gain", "loss", "cannot tell", "nothing clipped", "not known"]
Basis = Literal["test", "test, seed by seed", "cross-validated"]


@dataclass(frozen=True)
class Choice:
    """What was chosen among the edits of one part in one condition, and what the choice is worth.

    Arguments:
        condition, part: one choice is made in each.
        picks: what each seed chose, None for the unpruned model; all the same where the seeds chose
            together.
        tried: how many edits were scored on the rows that chose, under every seed; where each seed
            chose for itself, under any.
        naive: the choice's gain on the rows that chose it, which is optimistic; None where no rows
            chose.
        gain: of the choice, on rows that did not choose it; None where there are too few.
        basis: which rows: `test`; `test, seed by seed`: each seed's own choice on the test rows;
            `cross-validated`: no row was kept back, and the choice itself was cross-validated.
        fixed, broken: pairs of a seed and a test row that were wrong before and are right after,
            and the reverse.
        p_adjusted: the gain's p value, adjusted by Holm for all choices of the run.
        outcome: the verdict.
        detectable: the smallest true gain that an experiment like this one finds four times in
            five.
        missing: what was not scored, where the choice is therefore not known.
    """

    condition: Condition
    part: str
    picks: dict[int, Edit | None]
    tried: int
    naive: float | None = None
    gain: Estimate | None = None
    basis: Basis = "test"
    fixed: int = 0
    broken: int = 0
    p_adjusted: float = 1.0
    outcome: Outcome = "cannot tell"
    detectable: float | None = None
    missing: str = ""

    @property
    def counts(self) -> list[tuple[Edit | None, int]]:
        """Return what was chosen, and by how many seeds, the most frequent first."""
        return Counter(self.picks.values()).most_common()

    @property
    def edit(self) -> Edit | None:
        """Return the edit that most seeds chose; None where none chose one."""
        return next((edit for edit, _ in self.counts if edit is not None), None)

    @property
    def agreed(self) -> bool:
        """Whether all seeds chose alike."""
        return len(self.counts) <= 1


@dataclass(frozen=True, eq=False)
class Findings(Measurements):
    """Everything that a run shows: its measurements, and one choice a part and condition."""

    choices: tuple[Choice, ...] = ()

    def split(self, choice: Choice) -> str:
        """Return the split on which a choice is shown: test, if any of its edits was scored
        there."""
        tested = (
            self.measured(choice.condition, edit, "test") for edit in choice.picks.values() if edit
        )
        return "test" if any(tested) else "validation"


def find(run: Run) -> Findings:
    """Work out everything that a run shows."""
    measured = measure_run(run)
    choices = [_choice(measured, *unit, metric_of(run, unit[0].task)) for unit in measured.units]
    return Findings(measured.blocks, measured.cells, _judged(choices))


def metric_of(run: Run, task: str) -> str:
    """Return what was compared on validation for a task."""
    for entry in (run.settings.get("study") or {}).get("tasks") or []:
        if full_name(entry["name"], entry["variant"]) == task:
            return entry["metric"]
    return run.settings.get("metric") or "accuracy"


def pick(block: Block | None, edits: list[Edit], metric: str, seeds: list[int]) -> Edit | None:
    """Return the `best_edit` on a block's rows, by the mean over the seeds; None where unpruned is
    as good.

    Only what every seed scored on every row can be chosen: a race drops the others, the unpruned
    model among them, or they failed.
    """
    if block is None:
        return None
    unpruned = _value(block, None, metric, seeds)
    values = {edit: _value(block, edit, metric, seeds) for edit in edits if edit in block.edits}
    known = {edit: value for edit, value in values.items() if value is not None}
    return None if unpruned is None else best_edit(known, unpruned)


def _value(block: Block, edit: Edit | None, metric: str, seeds: list[int]) -> float | None:
    """Return the mean over seeds of what is compared; -inf where a race dropped it, None where a
    seed did not score."""
    if not seeds:
        return None
    lines = [block.seeds.index(seed) for seed in seeds]
    right = block.outcomes(edit)[lines]
    if np.isnan(right).all(axis=1).any():
        return None
    if (np.isnan(right) & block.asked[lines]).any():
        return -math.inf
    if metric == "accuracy":
        return float(np.nanmean(right, axis=1).mean())
    scores = [block.trials[edit, seed][0].labelled for seed in seeds]
    return float(np.mean([getattr(score, metric) for score in scores]))


def _choice(found: Measurements, condition: Condition, part: str, metric: str) -> Choice:
    """Make the choice on validation, and read its gain off the test rows, if there are any."""
    edits = found.edits(condition, part)
    before, test = (found.blocks.get((condition, split)) for split in ("validation", "test"))
    seeds = _seeds(before)
    together = pick(before, edits, metric, seeds)
    tried = [
        edit for edit in edits if before and all((edit, seed) in before.trials for seed in seeds)
    ]
    missing = _missing(before, edits, metric, seeds)
    choice = Choice(condition, part, dict.fromkeys(seeds, together), len(tried), missing=missing)
    picks = _picks(before, test, edits, metric)
    if before is None or test is None or not picks or (missing and not any(picks.values())):
        return _cross_validated(choice, before, edits)
    if not missing and _whole(test, together):
        gains = test.gains[test.edits.index(together)] if together else np.zeros_like(test.unpruned)
        return _on_test(replace(choice, naive=_naive(before, choice)), gains)
    by_seed = replace(
        choice,
        picks=picks,
        basis="test" if len({*picks.values()}) == 1 else "test, seed by seed",
        tried=sum(edit in before.edits for edit in edits),
        missing="",
    )
    return _on_test(replace(by_seed, naive=_naive(before, by_seed)), picked_gains(test, picks))


def _missing(block: Block | None, edits: list[Edit], metric: str, seeds: list[int]) -> str:
    """Return what was not scored where that leaves nothing to choose between, in words."""
    if block is None or not seeds:
        return "the unpruned model has no validation score"
    known = (
        edit
        for edit in edits
        if edit in block.edits and _value(block, edit, metric, seeds) is not None
    )
    each = "" if len(seeds) == 1 else f" under each of the {len(seeds)} seeds"
    return "" if any(known) else f"no edit was scored on validation{each}"


def _seeds(block: Block | None) -> list[int]:
    """Return the seeds under which the unpruned model was scored."""
    if block is None:
        return []
    known = ~np.isnan(block.unpruned).all(axis=1)
    return [seed for seed, scored in zip(block.seeds, known, strict=True) if scored]


def _whole(block: Block, edit: Edit | None) -> bool:
    """Whether an edit was scored wherever the unpruned model was; the unpruned model itself if it
    is None."""
    return (
        not (np.isnan(block.outcomes(edit)) & ~np.isnan(block.unpruned)).any()
        if _has(block, edit)
        else False
    )


def _has(block: Block, edit: Edit | None) -> bool:
    return edit is None or edit in block.edits


def _picks(
    before: Block | None, test: Block | None, edits: list[Edit], metric: str
) -> dict[int, Edit | None]:
    """Return what each seed chose and had tested; seeds whose choice was not tested, or not yet,
    are left out."""
    if before is None or test is None:
        return {}
    found = {
        seed: pick(before, edits, metric, [seed]) for seed in _seeds(test) if seed in _seeds(before)
    }
    return {
        seed: edit
        for seed, edit in found.items()
        if (edit, seed) in test.trials and not _missing(before, edits, metric, [seed])
    }


def picked(block: Block, picks: dict[int, Edit | None]) -> Float[np.ndarray, "seeds rows"]:
    """Return on which rows each seed's own choice was right."""
    return np.array([block.outcomes(edit)[block.seeds.index(seed)] for seed, edit in picks.items()])


def picked_gains(block: Block, picks: dict[int, Edit | None]) -> Float[np.ndarray, "seeds rows"]:
    """Return each seed's gains by its own choice: 0 where it chose the unpruned model."""
    return picked(block, picks) - picked(block, dict.fromkeys(picks))


def _naive(before: Block | None, choice: Choice) -> float | None:
    if before is None or choice.edit is None:
        return None
    known = {
        seed: edit
        for seed, edit in choice.picks.items()
        if seed in before.seeds and _has(before, edit)
    }
    found = mean_gain(picked_gains(before, known)) if known else None
    return found.mean if found else None


def _on_test(choice: Choice, gains: Float[np.ndarray, "seeds rows"]) -> Choice:
    fixed, broken = int((gains > 0).sum()), int((gains < 0).sum())
    return replace(
        choice, gain=mean_gain(gains) if choice.edit else None, fixed=fixed, broken=broken
    )


def _cross_validated(choice: Choice, before: Block | None, edits: list[Edit]) -> Choice:
    """Return what choosing gains where all rows chose: the choice itself is cross-validated."""
    cross = replace(choice, basis="cross-validated")
    if before is None or choice.edit is None:
        return cross
    lines = [before.seeds.index(seed) for seed in _seeds(before)]
    whole = [
        before.edits.index(edit) for edit in edits if edit in before.edits and _whole(before, edit)
    ]
    gains = before.gains[whole][:, lines]
    if gains.size == 0 or gains.shape[2] < FOLDS:
        return cross
    return replace(cross, naive=_naive(before, choice), gain=selected_gain(gains).corrected)


def _judged(choices: list[Choice]) -> tuple[Choice, ...]:
    """Adjust for all choices, and say what each shows."""
    p = holm([choice.gain.p_value if choice.gain else 1.0 for choice in choices])
    return tuple(
        replace(
            choice,
            p_adjusted=float(adjusted),
            outcome=_outcome(choice, float(adjusted)),
            detectable=_detectable(choice),
        )
        for choice, adjusted in zip(choices, p, strict=True)
    )


def _outcome(choice: Choice, p: float) -> Outcome:
    if choice.edit is None:
        return "not known" if choice.missing else "nothing clipped"
    return verdict(choice.gain, p) if choice.gain else "cannot tell"


def _detectable(choice: Choice) -> float | None:
    if choice.gain is None:
        return None
    if choice.gain.seeds > 1 or choice.basis == "cross-validated":
        return choice.gain.detectable()
    n = choice.gain.rows
    return smallest_detectable(n, max(choice.fixed + choice.broken, 1) / n)
