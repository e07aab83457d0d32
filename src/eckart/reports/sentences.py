"""The sentences of a report: what a run, a search or an evaluation found, in plain words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args

from eckart.analysis.findings import Choice, Conclusion, Findings
from eckart.analysis.outcomes import short_name, span
from eckart.reports.table import UNITS, p_text
from eckart.selection.result import drawn
from eckart.statistics.crossed import nothing_learned
from eckart.statistics.gain import counted, sentence, verdict
from eckart.statistics.paired import accuracy_interval

if TYPE_CHECKING:
    from eckart.scoring.evaluation import Evaluation
    from eckart.selection.racing import Race
    from eckart.selection.result import SearchResult

SAID = 6
"""The most choices that are spelled out."""
PARTS = {"attn": "the attention", "mlp": "the MLP", "all": "all matrices"}


def summary(findings: Findings) -> list[str]:
    """Return a run's findings in sentences, the most certain first."""
    if not findings.choices:
        return ["No edit was scored, so there is nothing to compare."]
    sentences = [_sentence(choice, findings) for choice in ordered(findings)[:SAID]]
    if len(findings.choices) == 1:
        return sentences
    more = len(findings.choices) - SAID
    rest = [f"{more} more stand in the table of choices."] if more > 0 else []
    return [_overall(findings), *sentences, *rest]


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
    return f"{text(choice.gain.mean)} ({low} to {high}), {_sample(choice, findings)}"


def _sample(choice: Choice, findings: Findings) -> str:
    """Write on how many rows and seeds a choice's gain was measured."""
    assert choice.gain is not None
    rows, seeds = choice.gain.rows, _count(choice.gain.seeds, "seed")
    block = findings.blocks[choice.condition, findings.split(choice)]
    if {*block.row_counts} == {rows}:
        return f"n = {rows} rows, {seeds}"
    return f"n = {span(block.row_counts)} rows a seed, {rows} in all, {seeds}"


def _sentence(choice: Choice, findings: Findings) -> str:
    where = _where(choice, findings)
    part = part_words(choice.part)
    if choice.missing:
        return f"{where}Whether clipping {part} does better is not known: {choice.missing}."
    if choice.edit is None:
        return (
            f"{where}No clipping of {part} did better on validation than the unpruned model "
            f"({_count(choice.tried, 'cell')} tried), so nothing is clipped."
        )
    clipping = where + _clipping(choice, "clipping" if where else "Clipping")
    if choice.gain is None:
        return f"{clipping} was chosen; too few rows were scored to say what it gains."
    units = UNITS[findings.kind]
    low, high = map(units.size, choice.gain.interval)
    gained = units.gained if choice.gain.mean >= 0 else units.lost
    how = (
        "on the test rows"
        if choice.basis != "cross-validated"
        else "corrected for having been chosen on these rows"
    )
    certainty = f"{units.interval} {low} to {high}; {_sample(choice, findings)}"
    return (
        f"{clipping} {gained} {units.size(abs(choice.gain.mean))}{units.unit} {how} ({certainty};"
        f" {_count(choice.tried, 'cell')} tried; {_correction(choice, findings)})."
        f" {_conclusion(choice, findings)}"
    )


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


def _clipping(choice: Choice, verb: str) -> str:
    assert choice.edit is not None
    if choice.agreed:
        return (
            f"{verb} {part_words(choice.part)} of layer {choice.edit.layer} at {choice.edit.rate:g}"
        )
    return f"{verb} {part_words(choice.part)} as each seed chose ({picks_text(choice)})"


def _correction(choice: Choice, findings: Findings) -> str:
    assert choice.gain is not None
    if len(findings.choices) == 1:
        return f"p = {p_text(choice.gain.p_value)}".replace("= <", "<")
    corrected = f"after correction for {len(findings.choices)} choices"
    return f"{corrected} p = {p_text(choice.p_adjusted)}".replace("= <", "<")


def _conclusion(choice: Choice, findings: Findings) -> str:
    if choice.conclusion != "cannot tell":
        return f"Verdict: {choice.conclusion}."
    if choice.gain is not None and verdict(choice.gain) != "cannot tell":
        return (
            "Verdict: cannot tell; alone it would be clear, but one of so many choices may look"
            " like this by chance."
        )
    units = UNITS[findings.kind]
    if choice.detectable is None or (units.unit and choice.detectable > 1):
        return "Verdict: cannot tell; with so few rows that change, no gain could have shown."
    return (
        "Verdict: cannot tell; an experiment like this one finds a true gain of"
        f" {units.size(choice.detectable)}{units.unit} four times in five."
    )


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def choice_name(choice: Choice) -> str:
    return f"{choice.condition}, {choice.part}"


def picks_text(choice: Choice) -> str:
    """Return what the seeds chose, in words."""
    names = [
        (f"layer {edit.layer} at {edit.rate:g}" if edit else "nothing", count)
        for edit, count in choice.counts
    ]
    return ", ".join(f"{name} ({count} of {len(choice.picks)})" for name, count in names)


def worst_matrix(model: str, spectra: Sequence[dict[str, Any]]) -> str:
    """Return which of a model's matrices is the worst conditioned, in a sentence.

    Arguments:
        model: its name; nothing where the run names none.
        spectra: `MatrixSpectrum.to_json` of each.
    """
    worst = max(spectra, key=lambda values: values["condition_number"] or math.inf)
    where = f"{model}: " if model else ""
    matrix = (
        f"{where}{'of' if model else 'Of'} {_matrices(len(spectra))}, {worst['name']} of layer"
        f" {worst['layer']}"
    )
    if worst["singular"]:
        return (
            f"{matrix} is the worst conditioned: it is singular, its smallest singular value is 0"
            " in float64."
        )
    rounding = (
        ""
        if worst["resolved"]
        else " The smallest is within the rounding of storage, so it may be nothing else."
    )
    return (
        f"{matrix} is the worst conditioned: its largest singular value is"
        f" {worst['condition_number']:,.4g} times its smallest.{rounding}"
    )


def _matrices(count: int) -> str:
    return "1 matrix" if count == 1 else f"{count:,} matrices"


def conclusion(result: SearchResult) -> str:
    """Return a search's result in a few sentences that claim no more than the test set allows.

    First comes a model that does not beat always answering the most frequent label, then what
    clipping does.
    """
    said, seen = result.verdict(), result.chosen.seen
    said = said[0].upper() + said[1:]
    if result.rate:
        found = sentence(result.comparison, "accuracy", f"{result.turned} predictions turned")
        said += (
            f": clipping {result.part} of layer {result.layer} at {result.rate:g} changes test"
            f" accuracy by {found}"
        )
    tried = f"Tried on {seen} validation rows: {result.tried()} beside the unpruned model."
    return f"{result.caution()} {said}. {tried}".lstrip()


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
        f" {drawn(task.shots, task.seed)})."
    )
    name = "clipped" if result.trial.edits else "unpruned"
    return f"{nothing_learned({name: score})} {right}{_beside_unpruned(result)}".lstrip()


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
