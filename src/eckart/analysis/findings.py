"""The findings of a run: its measurements, the choice of each target, what it gains on rows that
did not choose it, and the verdict."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np
from jaxtyping import Float

from eckart.algorithm1 import best_edit
from eckart.analysis.measured import Blocks, Cells, Measured, measure_cells
from eckart.analysis.outcomes import (
    Block,
    Condition,
    Pick,
    Picks,
    Target,
    blocks,
    composition,
    pick_of,
)
from eckart.records import Edit
from eckart.runs import Run
from eckart.statistics.crossed import Estimate, gain_bounds, mean_gain, turned
from eckart.statistics.gain import verdict
from eckart.statistics.multiplicity import FOLDS, holm, selected_gain
from eckart.statistics.paired import PairedDifference
from eckart.statistics.power import Design
from eckart.statistics.scores import Outcome, Score

Conclusion = Literal["gain", "loss", "cannot tell", "nothing clipped", "not known"]
Basis = Literal["test", "test, seed by seed", "cross-validated"]


@dataclass(frozen=True)
class Choice:
    """What was chosen among the edits of one part in one condition, or composed of several, and
    what the choice is worth.

    Arguments:
        target: what it is made for.
        picks: what each seed chose, None for the unpruned model; all the same where the seeds chose
            together.
        tried: how many edits were scored on the rows that chose, under every seed; where each seed
            chose for itself, under any.
        naive: the choice's gain on the rows that chose it, which is optimistic; None where no rows
            chose.
        gain: of the choice, on rows that did not choose it; None where there are too few.
        basis: which rows: `test`; `test, seed by seed`: each seed's own choice on the test rows;
            `cross-validated`: no row was kept back, and the choice itself was cross-validated.
        fixed, broken: pairs of a seed and a test row that are better after, and worse.
        p_adjusted: the gain's p value, adjusted by Holm for all choices of the run.
        conclusion: the verdict.
        detectable: the smallest true gain that an experiment like this one finds four times in
            five.
        missing: what was not scored, where the choice is therefore not known.
        prompts: over how many prompts each row's gain is a mean.
    """

    target: Target
    picks: Picks
    tried: int
    naive: float | None = None
    gain: Estimate | None = None
    basis: Basis = "test"
    fixed: int = 0
    broken: int = 0
    p_adjusted: float = 1.0
    conclusion: Conclusion = "cannot tell"
    detectable: float | None = None
    missing: str = ""
    prompts: int = 1

    @property
    def condition(self) -> Condition:
        return self.target.condition

    @property
    def part(self) -> str:
        return self.target.part

    @property
    def paired(self) -> PairedDifference | None:
        """The gain under one seed and prompt, on test rows: what a search tells."""
        gain = self.gain
        if gain is None or gain.seeds > 1 or self.prompts > 1 or self.basis == "cross-validated":
            return None
        about = (gain.rows, gain.mean, gain.interval, gain.p_value)
        return PairedDifference(*about, self.fixed, self.broken)

    @property
    def counts(self) -> list[tuple[Pick | None, int]]:
        """What was chosen, and by how many seeds, the most frequent first."""
        return Counter(self.picks.values()).most_common()

    @property
    def edit(self) -> Pick | None:
        """What most seeds chose to clip; None where none chose anything."""
        return next((edit for edit, _ in self.counts if edit is not None), None)

    @property
    def agreed(self) -> bool:
        """Whether all seeds chose alike."""
        return len(self.counts) <= 1


@dataclass(frozen=True, eq=False)
class Findings:
    """Everything that a run shows.

    Arguments:
        run: which.
        blocks: its outcomes as matrices, by condition and split.
        cells: every edit and the unpruned model, by condition.
    """

    run: Run
    blocks: Blocks
    cells: Cells

    @cached_property
    def choices(self) -> tuple[Choice, ...]:
        """One choice a target, or the one that was composed, once it was tested."""
        if self.composed:
            return _judged(_composed(self), self.kind)
        return _judged([_choice(self, target) for target in self.targets], self.kind)

    @property
    def kind(self) -> type[Outcome]:
        """Whether labels were scored or numbers; a run has one kind of task."""
        return next((block.kind for block in self.blocks.values()), Score)

    @property
    def conditions(self) -> list[Condition]:
        return sorted({condition for condition, _ in self.cells})

    @property
    def targets(self) -> list[Target]:
        """Every condition with every part that was clipped in it, sorted; none of what is
        composed, where no single edit is chosen by its merits."""
        every = {Target(where, e.part) for where, e in self.cells if isinstance(e, Edit)}
        return [] if self.composed else sorted(every)

    @property
    def composed(self) -> bool:
        """Whether the run is of a search that composes edits, or of a choice by hand."""
        return bool(self.run.settings.get("strategy"))

    def edits(self, target: Target) -> list[Edit]:
        """Return the edits among which the choice for a target was made, sorted."""
        every = (e for where, e in self.cells if isinstance(e, Edit) and (where, e.part) == target)
        return [] if self.composed else sorted(every)

    def measured(self, condition: Condition, edit: Pick | None, split: str) -> Measured | None:
        cell = self.cells.get((condition, edit))
        return cell.measured.get(split) if cell else None

    def pair(self, condition: Condition) -> tuple[Block | None, Block | None]:
        """Return the blocks of the validation rows and of the test rows."""
        return self.blocks.get((condition, "validation")), self.blocks.get((condition, "test"))

    def condition_numbers(self, model: str, part: str) -> dict[int, float]:
        """Return what the run noted of a part by layer; nothing where it measured none."""
        noted = self.run.models.get(model, {}).get("condition_numbers", {}).get(part) or {}
        return {int(layer): math.inf if v is None else v for layer, v in noted.items()}

    def block(self, choice: Choice) -> Block | None:
        """Return the rows that show a choice; the test rows where nothing is clipped."""
        return self.blocks.get((choice.condition, self.split(choice) if choice.edit else "test"))

    def split(self, choice: Choice) -> str:
        """Return the split on which a choice is shown: test, if any of its edits was scored
        there."""
        tested = (
            self.measured(choice.condition, edit, "test") for edit in choice.picks.values() if edit
        )
        return "test" if any(tested) else "validation"


def find(run: Run) -> Findings:
    """Measure everything that a run holds; its choices are made when they are asked for."""
    gathered = blocks(run)
    return Findings(run, gathered, measure_cells(run, gathered))


def pick(block: Block | None, edits: list[Edit], metric: str, seeds: list[int]) -> Edit | None:
    """Return the `best_edit` on a block's rows, by the mean over the seeds; None where unpruned is
    as good.

    Only what every seed scored on every row can be chosen: a race drops the others, the unpruned
    model among them, or they failed.
    """
    if block is None:
        return None
    unpruned = _value(block, None, metric, seeds)
    values = {edit: _value(block, edit, metric, seeds) for edit in edits if edit in block.place}
    known = {edit: value for edit, value in values.items() if value is not None}
    return None if unpruned is None else best_edit(known, unpruned)


def _value(block: Block, edit: Edit | None, metric: str, seeds: list[int]) -> float | None:
    """Return the mean over seeds of what is compared, larger being better; -inf where a race
    dropped it, None where a seed did not score."""
    if not seeds:
        return None
    lines = [block.seeds.index(seed) for seed in seeds]
    merits = block.row_merits(edit)[lines]
    if np.isnan(merits).all(axis=1).any():
        return None
    if (np.isnan(merits) & block.asked[lines]).any():
        return -math.inf
    if metric == block.kind.headline:
        return float(np.nanmean(merits, axis=1).mean())
    scores = [block.trials[edit, seed][0].score for seed in seeds]
    return float(np.mean([score.merits[metric] for score in scores if score is not None]))


def _choice(findings: Findings, target: Target) -> Choice:
    """Make the choice on validation, and read its gain off the test rows, if there are any."""
    metric = findings.run.asked.metric(target.condition.task)
    edits = findings.edits(target)
    before, test = findings.pair(target.condition)
    seeds = _seeds(before)
    together = pick(before, edits, metric, seeds)
    scored = [edit for edit in edits if before and before.has(edit)]
    tried = [edit for edit in scored if before and all((edit, s) in before.trials for s in seeds)]
    missing = _missing(before, edits, metric, seeds)
    choice = Choice(
        target,
        dict.fromkeys(seeds, together),
        len(tried),
        missing=missing,
        prompts=findings.run.asked.prompts,
    )
    if before and test and not missing and _apart(before, test) and _whole(test, together):
        gains = test.row_merits(together) - test.unpruned
        choice = replace(choice, naive=_naive(before, choice))
        return _tested(replace(choice, picks=dict.fromkeys(test.seeds, together)), test, gains)
    own = _picks(before, test, edits, metric)
    if before is None or test is None or not own or (missing and not any(own.values())):
        return _cross_validated(choice, before, edits)
    if missing or not _whole(test, together):
        # Not all seeds tested what they chose together: each is judged by its own choice.
        basis: Basis = "test" if len({*own.values()}) == 1 else "test, seed by seed"
        choice = replace(choice, picks=own, basis=basis, tried=len(scored), missing="")
        gains = picked_gains(test, own)
    else:
        gains = test.row_merits(together) - test.unpruned
    return _tested(replace(choice, naive=_naive(before, choice)), test, gains)


def _composed(findings: Findings) -> list[Choice]:
    """Return what a greedy search, or somebody by hand, had tested; nothing before it was."""
    edits = composition(findings.run)
    if edits is None:
        return []
    asked, pick = findings.run.asked, pick_of(edits)
    parts = dict.fromkeys(edit.part for edit in edits)
    part = ", ".join(parts) or str(findings.run.settings.get("part"))
    looks = {t.edits for t in findings.run.trials.values() if t.split.name == "validation"}
    choices = []
    for where in findings.conditions:
        before, test = findings.pair(where)
        if test is None or not test.has(pick):
            continue
        own: Picks = dict.fromkeys(before.seeds if before else (), pick)
        choice = Choice(Target(where, part), own, len(looks - {()}), prompts=asked.prompts)
        known = replace(choice, naive=_naive(before, choice), picks=dict.fromkeys(test.seeds, pick))
        choices.append(_tested(known, test, test.row_merits(pick) - test.unpruned))
    return choices


def _apart(before: Block, test: Block) -> bool:
    """Whether other demonstrations tested than chose, as in a search over several draws."""
    return {*before.seeds}.isdisjoint(test.seeds)


def _tested(choice: Choice, test: Block, gains: Float[np.ndarray, "seeds rows"]) -> Choice:
    fixed, broken = turned(gains)
    gain = mean_gain(gains, test.kind) if choice.edit else None
    return replace(choice, gain=gain, fixed=fixed, broken=broken)


def _missing(block: Block | None, edits: list[Edit], metric: str, seeds: list[int]) -> str:
    """Return what was not scored where that leaves nothing to choose between, in words."""
    if block is None or not seeds:
        return "the unpruned model has no validation score"
    known = (
        edit
        for edit in edits
        if edit in block.place and _value(block, edit, metric, seeds) is not None
    )
    each = "" if len(seeds) == 1 else f" under each of the {len(seeds)} seeds"
    return "" if any(known) else f"no edit was scored on validation{each}"


def _seeds(block: Block | None) -> list[int]:
    """Return the seeds under which the unpruned model was scored."""
    if block is None:
        return []
    known = ~np.isnan(block.unpruned).all(axis=1)
    return [seed for seed, scored in zip(block.seeds, known, strict=True) if scored]


def _whole(block: Block, edit: Pick | None) -> bool:
    """Whether an edit was scored wherever the unpruned model was; the unpruned model itself if it
    is None."""
    if not block.has(edit):
        return False
    return not (np.isnan(block.row_merits(edit)) & ~np.isnan(block.unpruned)).any()


def _picks(before: Block | None, test: Block | None, edits: list[Edit], metric: str) -> Picks:
    """Return what each seed chose and had tested; seeds whose choice was not tested, or not yet,
    are left out."""
    if before is None or test is None:
        return {}
    scored = _seeds(before)
    own = {seed: pick(before, edits, metric, [seed]) for seed in _seeds(test) if seed in scored}
    return {
        seed: edit
        for seed, edit in own.items()
        if (edit, seed) in test.trials and not _missing(before, edits, metric, [seed])
    }


def picked(block: Block, picks: Picks) -> Float[np.ndarray, "seeds rows"]:
    """Return what each seed's own choice merits on each row."""
    return np.array(
        [block.row_merits(edit)[block.seeds.index(seed)] for seed, edit in picks.items()]
    )


def picked_gains(block: Block, picks: Picks) -> Float[np.ndarray, "seeds rows"]:
    """Return each seed's gains by its own choice: 0 where it chose the unpruned model."""
    return picked(block, picks) - picked(block, dict.fromkeys(picks))


def _naive(before: Block | None, choice: Choice) -> float | None:
    if before is None or choice.edit is None:
        return None
    known = before.known(choice.picks)
    gain = mean_gain(picked_gains(before, known), before.kind) if known else None
    return gain.mean if gain else None


def _cross_validated(choice: Choice, before: Block | None, edits: list[Edit]) -> Choice:
    """Return what choosing gains where all rows chose: the choice itself is cross-validated."""
    cross = replace(choice, basis="cross-validated")
    if before is None or choice.edit is None:
        return cross
    lines = [before.seeds.index(seed) for seed in _seeds(before)]
    whole = [before.place[edit] for edit in edits if edit in before.place and _whole(before, edit)]
    gains = before.gains[whole][:, lines]
    if gains.size == 0 or gains.shape[2] < FOLDS:
        return cross
    selected = selected_gain(gains, bounds=gain_bounds(before.kind))
    return replace(cross, naive=_naive(before, choice), gain=selected.corrected)


def _judged(choices: list[Choice], kind: type[Outcome]) -> tuple[Choice, ...]:
    """Adjust for all choices, and say what each shows."""
    p = holm([choice.gain.p_value if choice.gain else 1.0 for choice in choices])
    return tuple(
        replace(
            choice,
            p_adjusted=float(adjusted),
            conclusion=_conclusion(choice, float(adjusted)),
            detectable=_detectable(choice, kind),
        )
        for choice, adjusted in zip(choices, p, strict=True)
    )


def _conclusion(choice: Choice, p: float) -> Conclusion:
    if choice.edit is None:
        return "not known" if choice.missing else "nothing clipped"
    return verdict(choice.gain, p) if choice.gain else "cannot tell"


def _detectable(choice: Choice, kind: type[Outcome]) -> float | None:
    gain = choice.gain
    if gain is None:
        return None
    if choice.paired is None or kind is not Score:
        return gain.detectable()
    return Design(max(choice.fixed + choice.broken, 1) / gain.rows).smallest(gain.rows)
