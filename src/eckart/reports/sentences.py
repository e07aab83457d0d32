"""The sentences of a report: what a run, a search or an evaluation found, in plain words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from eckart.analysis.findings import Choice, Conclusion, Findings, picked
from eckart.analysis.outcomes import Pick, edits_of, kept_result, short_name, span
from eckart.errors import numbered
from eckart.records import SMALLEST, Edit
from eckart.reports.searched import screen_of
from eckart.reports.table import UNITS, Units, p_text
from eckart.selection.controls import joined
from eckart.selection.course import listed
from eckart.selection.plan import BY_HAND
from eckart.selection.tested import drawn
from eckart.statistics.crossed import (
    Estimate,
    below_majority,
    merit_interval,
    nothing_learned,
)
from eckart.statistics.gain import counted, sentence, verdict
from eckart.statistics.paired import accuracy_interval, predictions_turned
from eckart.statistics.scores import Score

if TYPE_CHECKING:
    from eckart.scoring.evaluation import Evaluation
    from eckart.selection.racing import Race

SAID, SPELLED = 6, 3
"""The most choices, and places of one, that are spelled out."""
UNENDED = (
    "The search has not ended, or its result.json is damaged: the same command goes on with it,"
    " reads nothing again that is kept, and says what it chose."
)
UNTESTED = (
    "No choice was tested yet. What stands here was looked at on validation rows, and the best of"
    " it looks better than it is: the test rows say what a choice is worth, once."
)
UNWRITTEN = (
    "A choice was looked at on the test rows, and what was found there is not written yet, or its"
    " result.json is damaged: the same command goes on with that test, and reads nothing again."
)
PLAIN: dict[Conclusion, str] = {
    "gain": "better",
    "loss": "worse",
    **{each: each for each in ("cannot tell", "nothing clipped", "not known")},
}
"""A verdict as a reader meets it: a loss is no training loss."""
RATE = "A rate is the share of a matrix's singular values that are set to 0, the smallest first."
PARTS = {"attn": "the attention", "mlp": "the MLP", "all": "all matrices"}


def summary(findings: Findings) -> list[str]:
    """Return a run's findings in sentences, the most certain first."""
    result = kept_result(findings.run)
    if result:
        return list(result["says"])
    if not findings.choices:
        edited = any(trial.edits for trial in findings.run.trials.values())
        return [
            untested(findings) if edited else "No edit was scored, so there is nothing to compare."
        ]
    sentences = [choice_sentence(choice, findings) for choice in ordered(findings)[:SAID]]
    if len(findings.choices) == 1:
        screen = screen_of(findings.run)
        said = [f"Screen {screen}."] if screen else []
        return [*filter(None, [learned_nothing(findings.choices[0], findings)]), *sentences, *said]
    more = len(findings.choices) - SAID
    rest = [f"{more} more stand in the table of choices."] if more > 0 else []
    return [_overall(findings), *sentences, *rest]


def untested(findings: Findings) -> str:
    """Say that what is composed was not tested yet, or that what its test found is not there."""
    run = findings.run
    if run.settings.get("strategy") != BY_HAND:
        return UNENDED
    looked = any(t.edits and t.score and t.split == "test" for t in run.trials.values())
    return UNWRITTEN if looked else UNTESTED


def learned_nothing(choice: Choice, findings: Findings) -> str:
    """Say that no model does better than always giving the most frequent label, if so it is."""
    block = findings.block(choice)
    if block is None or block.kind is not Score:
        return ""
    before = findings.measured(choice.condition, None, block.split)
    if before is None:
        return ""
    found = {"unpruned": (before.mean, before.interval)}
    picks = block.known(choice.picks)
    if choice.edit and picks:
        after = picked(block, picks)
        mean = float(np.nanmean(after, axis=1).mean())
        found["clipped"] = mean, merit_interval(after, Score)
    rows = rows_words(choice, findings, "rows") if choice.gain else f"{before.rows} rows"
    return below_majority(found, before.others["majority_rate"], f"n = {rows}")


def _predictions_turned(choice: Choice, findings: Findings) -> list[str]:
    """Say of how many test rows the prediction changed, under the only seed."""
    _, test = findings.pair(choice.condition)
    looks = [test.outcomes(edit) for edit in (None, choice.edit)] if test else []
    if not choice.paired or not all(looks):
        return []
    before, after = (own[0] for own in looks)
    if not isinstance(before, Score) or not isinstance(after, Score):
        return []
    return [f"{predictions_turned(before, after)} predictions turned"]


def _overall(findings: Findings) -> str:
    said = counted((choice.conclusion for choice in findings.choices), get_args(Conclusion))
    return f"{len(findings.choices)} choices (model, task, shots, scoring, part): {said}."


@dataclass(frozen=True)
class Headline:
    """A choice's verdict in a few words: what was chosen where, the word for it, and the
    numbers."""

    name: str
    outcome: Conclusion
    numbers: str


def verdicts(findings: Findings) -> list[Headline]:
    """Return every choice's verdict, the most certain first."""
    return [
        Headline(choice_name(choice), choice.conclusion, _numbers(choice, findings))
        for choice in ordered(findings)
    ]


def ordered(findings: Findings) -> list[Choice]:
    """Return the choices, the most certain first."""
    return sorted(
        findings.choices, key=lambda choice: (choice.p_adjusted, choice.condition, choice.part)
    )


def _numbers(choice: Choice, findings: Findings) -> str:
    if choice.gain is None:
        return choice.missing
    text = UNITS[findings.kind].text
    low, high = map(text, choice.gain.interval)
    sizes = f"n = {rows_words(choice, findings, 'rows')}, {numbered(choice.gain.seeds, 'seed')}"
    return f"{text(choice.gain.mean)} ({low} to {high}), {sizes}"


def rows_words(choice: Choice, findings: Findings, noun: str) -> str:
    """Write how many rows a choice's gain was measured on; both where seeds scored different
    ones."""
    assert choice.gain is not None
    own = findings.blocks[choice.condition, findings.split(choice)].row_counts
    if {*own} == {choice.gain.rows}:
        return f"{choice.gain.rows} {noun}"
    return f"{_span(own)} {noun} a seed, {choice.gain.rows} in all"


def _span(numbers: list[int]) -> str:
    """Write counts as they stand after "n =": without commas."""
    return span(numbers).replace(",", "")


def choice_sentence(choice: Choice, findings: Findings) -> str:
    """Say what a choice is worth, and what was tried for it."""
    where = _where(choice, findings)
    part = part_words(choice.part)
    if choice.missing:
        return f"{where}Whether clipping {part} does better is not known: {choice.missing}."
    draws = drawn(choice.condition.shots, tuple(choice.picks), choice.prompts)
    tried = _tried(choice, findings)
    if choice.edit is None:
        return (
            f"{where}No clipping of {part} did better on validation than the unpruned model, so"
            f" nothing is clipped ({draws}). {tried}"
        )
    if choice.gain is None:
        return (
            f"{where}Clipping {clipped_words(choice)} was chosen; too few rows were scored to say"
            f" what it gains. {tried}"
        )
    word = choice.conclusion if where else choice.conclusion.capitalize()
    split = findings.split(choice)
    return (
        f"{where}{word} with n = {rows_words(choice, findings, f'{split} rows')} and {draws}:"
        f" clipping {clipped_words(choice)} {changes(choice, findings)}."
        f"{power_sentence(choice, findings)} {tried}"
    )


def changes(choice: Choice, findings: Findings) -> str:
    """Say by how much a choice changes what was measured, and how surely."""
    found = choice.paired or choice.gain
    assert found is not None
    p = None if len(findings.choices) == 1 else choice.p_adjusted
    split, kind = findings.split(choice), findings.kind
    facts = _predictions_turned(choice, findings)
    if choice.basis == "cross-validated":
        facts = ["corrected for having been chosen on these rows"]
    said = sentence(found, kind.headline, *facts, p=p)
    return f"changes {split} accuracy by {said}" if kind is Score else f"makes {split} error {said}"


def sureness(
    outcome: Conclusion,
    than: str,
    gain: Estimate,
    units: Units,
    p: float,
    among: int,
    *facts: str,
) -> str:
    """Say in a plain word how sure a verdict is, then in numbers.

    Arguments:
        than: what it was compared with.
        among: of how many that were compared p is adjusted.
        facts: what else a reader should know, such as n.
    """
    sure = "Not sure"
    if outcome in ("gain", "loss"):
        sure = f"Quite sure that it is {PLAIN[outcome]} than {than}"
    low, high = map(units.text, gain.interval)
    adjusted = f"adjusted for all {among} choices" if among > 1 else "of this one comparison"
    told = [f"95% interval {low} to {high}{units.unit}", f"{_p(p)}, {adjusted}"]
    return f"{sure}: {'; '.join([*told, *facts])}."


def _p(value: float) -> str:
    text = p_text(value)
    return f"p {text}" if text.startswith("<") else f"p = {text}"


def mcnemar_words(fixed: int, broken: int) -> str:
    return (
        f"by McNemar's test: {fixed} fixed and {broken} broken of the {fixed + broken} rows that"
        " turned, where a coin would share them evenly"
    )


def _tried(choice: Choice, findings: Findings) -> str:
    """Say what was tried, on how many rows; not to clip is none of it."""
    before, _ = findings.pair(choice.condition)
    on = f" on {_span(before.row_counts)} validation rows" if before else ""
    return f"Tried{on}: {numbered(choice.tried, 'edit')} beside the unpruned model."


def part_words(part: str) -> str:
    """Return a part as a reader says it.

    >>> part_words("mlp"), part_words("q")
    ('the MLP', "matrix 'q'")
    """
    return PARTS.get(part, f"matrix '{part}'")


def _where(choice: Choice, findings: Findings) -> str:
    """Say where, as far as the run has several of each."""
    conditions = [c.condition for c in findings.choices]
    own = choice.condition
    facts = [
        (short_name(own.model), len({c.model for c in conditions})),
        (own.task, len({c.task for c in conditions})),
        (f"{own.shots} shots", len({c.shots for c in conditions})),
        (f"scoring {own.scoring}", len({c.scoring for c in conditions})),
    ]
    said = ", ".join(fact for fact, different in facts if different > 1)
    return f"{said}: " if said else ""


def clipped_words(choice: Choice) -> str:
    assert choice.edit is not None
    if not choice.agreed:
        return f"{part_words(choice.part)} as each seed chose ({picks_text(choice)})"
    edits = edits_of(choice.edit)
    if len(edits) > SPELLED:
        return f"{len(edits)} places at once ({listed(edits)})"
    return joined([_edit_words(edit) for edit in edits])


def _edit_words(edit: Edit) -> str:
    how = f"at rate {edit.rate:g}" if edit.cut == SMALLEST else f"({edit.amount})"
    return f"{part_words(edit.part)} of layer {edit.layer} {how}"


def power_sentence(choice: Choice, findings: Findings) -> str:
    """Say what an experiment like this one could have found, where it cannot tell."""
    if choice.conclusion != "cannot tell":
        return ""
    if choice.gain is not None and verdict(choice.gain) != "cannot tell":
        return " Alone it would be clear, but one of so many choices may look like this by chance."
    units = UNITS[findings.kind]
    if choice.detectable is None or (units.unit and choice.detectable > 1):
        return " With so few rows that change, no gain could have shown."
    size = f"{units.size(choice.detectable)}{units.unit}"
    return f" An experiment like this one finds a true gain of {size} four times in five."


def choice_name(choice: Choice) -> str:
    return f"{choice.condition}, {choice.part}"


def picks_text(choice: Choice) -> str:
    """Return what the seeds chose, in words."""
    counts = [(_pick_text(pick), count) for pick, count in choice.counts]
    return ", ".join(f"{name} ({count} of {len(choice.picks)})" for name, count in counts)


def _pick_text(pick: Pick | None) -> str:
    if isinstance(pick, Edit) and pick.cut == SMALLEST:
        return f"layer {pick.layer} at {pick.rate:g}"
    return listed(edits_of(pick))


def worst_matrix(model: str, spectra: Sequence[dict[str, Any]]) -> str:
    """Return which of a model's matrices is the worst conditioned, in a sentence.

    Arguments:
        model: its name; nothing where the run names none.
        spectra: `MatrixSpectrum.to_json` of each.
    """
    worst = max(spectra, key=lambda values: values["condition_number"] or math.inf)
    where = f"{model}: " if model else ""
    matrices = "1 matrix" if len(spectra) == 1 else f"{len(spectra):,} matrices"
    matrix = f"{worst['name']} of layer {worst['layer']} is the worst conditioned"
    said = f"{where}{'of' if model else 'Of'} {matrices}, {matrix}"
    unsure = sum(not values["resolved"] and not values["singular"] for values in spectra)
    within = f" Within rounding: {unsure}." if unsure else ""
    if worst["singular"]:
        return f"{said}: it is singular, its smallest singular value is 0 in float64.{within}"
    if not worst["resolved"]:
        may = "The smallest is within the rounding of storage, so it may be nothing else."
        within = f" {may}{within}"
    return (
        f"{said}: its largest singular value is {worst['condition_number']:,.4g} times its"
        f" smallest.{within}"
    )


def race_summary(race: Race) -> str:
    """Return what a race read and what that is worth."""
    return (
        f"raced: {race.rows_read} of {race.rows_without} rows read, looks at"
        f" {', '.join(map(str, race.looks))}; with probability {1 - race.alpha:g} or more the"
        " choice is that of the search that reads them all"
    )


def evaluation_verdict(result: Evaluation) -> str:
    """Say how often a model is right, of how many rows, and under which demonstrations."""
    score, task = result.score, result.task
    edits = ", ".join(map(str, result.trial.edits)) or "unpruned"
    low, high = accuracy_interval(score)
    right = (
        f"{result.model} on {task.name} {result.trial.split}, {edits}: accuracy"
        f" {score.accuracy:.4f} (95% interval {low:.4f} to {high:.4f}; n = {score.n};"
        f" {drawn(task.shots, (task.seed,))})."
    )
    looks = {"unpruned": result.before, "clipped" if result.trial.edits else "unpruned": score}
    nothing = nothing_learned({name: look for name, look in looks.items() if look})
    return f"{nothing} {right}{_beside_unpruned(result)}".lstrip()


def _beside_unpruned(result: Evaluation) -> str:
    """Say what the edits gained on these rows; they may have chosen the edits, which nobody here
    knows."""
    paired, before = result.comparison, result.before
    if paired is None or before is None:
        return ""
    said = verdict(paired)
    return (
        f" Unpruned, on the same rows: {before.accuracy:.4f}. {said[0].upper()}{said[1:]}:"
        f" {sentence(paired, 'accuracy')}."
    )
