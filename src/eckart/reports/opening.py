"""The first screen of a report: did it help, by how much, how sure, what else, which rows, what
now."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from shlex import quote
from typing import get_args

from matplotlib.figure import Figure

from eckart.analysis.findings import Choice, Conclusion, Findings
from eckart.analysis.outcomes import short_name
from eckart.reports.figures.forest import NARROW, WIDE, GainLine, draw_gains
from eckart.reports.figures.gallery import Picture
from eckart.reports.guard import guards
from eckart.reports.sentences import (
    changes,
    choice_name,
    clipped_words,
    ordered,
    power_sentence,
    rows_words,
    sample_words,
    tested_scores,
)
from eckart.reports.table import UNITS
from eckart.reports.turned import Flipped
from eckart.selection.rivals import Rivals
from eckart.selection.tested import drawn
from eckart.statistics.crossed import nothing_learned
from eckart.statistics.gain import counted

MOST_LINES = 12
TELLING = ("gain", "loss")
CAPTION = (
    "Each gain with its 95% interval: where the interval is clear of zero and p, adjusted for all"
    " choices, is at most 0.05, a gain or a loss is said."
)
LABEL = " A diamond: what always answering the most frequent label would reach."


@dataclass(frozen=True, eq=False)
class Opening:
    """What a reader sees first.

    Arguments:
        outcome: the verdict that colours it.
        title: what was found, in a few words.
        answers: question and answer.
        picture: gains against zero; None where there is no gain to draw.
        insets: the same without its title, for a desk and for a phone.
    """

    outcome: Conclusion
    title: str
    answers: tuple[tuple[str, str], ...]
    picture: Picture | None = None
    insets: tuple[Picture, ...] = ()


def opening(findings: Findings, rivals: Rivals | None, turned: Sequence[Flipped]) -> Opening | None:
    """Return a run's first screen; None where nothing was chosen."""
    choices = ordered(findings)
    if not choices:
        return None
    first, several = choices[0], len(choices) > 1
    said = counted((choice.conclusion for choice in choices), get_args(Conclusion))
    title = f"{len(choices)} choices: {said}" if several else _title(first, findings)
    told = [choice for choice in choices if choice.conclusion in TELLING]
    shown = (told or [choice for choice in choices if choice.gain])[:3] or [first]
    answers = (
        ("Did it help?", _helped(choices, findings, rivals)),
        ("By how much?", _how_much(shown, findings, several)),
        ("How sure?", _how_sure(shown, findings, several)),
        ("What else changed?", _elsewhere(shown, findings)),
        ("Which rows?", _which(shown, turned)),
        ("What now?", _now(shown[0], findings)),
    )
    models = len({choice.condition.model for choice in choices})
    names = [_short(choice, models) if several else "" for choice in choices]
    named = zip(choices, names, strict=True)
    lines = [line for choice, name in named if (line := gain_line(choice, findings, name))]
    outcomes = {choice.conclusion for choice in told} or {first.conclusion}
    outcome: Conclusion = outcomes.pop() if len(outcomes) == 1 else "cannot tell"
    where = _where(choices, findings)
    if len(lines) > MOST_LINES:
        where += f"; the {MOST_LINES} most certain of {len(lines)} gains"
    labelled = any(line.majority is not None for line in lines[:1])
    draw = partial(draw_gains, lines[:MOST_LINES], UNITS[findings.kind], sample=where)
    found = Opening(outcome, title, answers)
    return pictured(found, draw, CAPTION + LABEL * labelled) if lines else found


def pictured(found: Opening, draw: Callable[..., Figure], caption: str) -> Opening:
    """Return a first screen with its picture: alone under its title, and without for a page."""
    about = "opening", found.title, caption
    insets = (Picture(*about, partial(draw, title="", width=width)) for width in (WIDE, NARROW))
    alone = Picture(*about, partial(draw, title=found.title))
    return replace(found, picture=alone, insets=tuple(insets))


def _short(choice: Choice, models: int) -> str:
    """Name a choice; without its model, where there is but one."""
    name = choice_name(choice)
    return name.removeprefix(f"{short_name(choice.condition.model)}, ") if models == 1 else name


def gain_line(choice: Choice, findings: Findings, name: str = "") -> GainLine | None:
    """Return a choice's gain as it is drawn; None where there is none."""
    before = findings.measured(choice.condition, None, findings.split(choice))
    if choice.gain is None or before is None:
        return None
    about = choice.gain.mean, choice.gain.interval, before.mean, before.others.get("majority_rate")
    return GainLine(name, choice.conclusion, *about)


def _where(choices: Sequence[Choice], findings: Findings) -> str:
    """Say what was measured, on what."""
    first = choices[0]
    if len(choices) == 1:
        on = f"{sample_words(first, findings)} ({findings.split(first)})" if first.gain else ""
        edit = f"; clipped {clipped_words(first)}" if first.edit else ""
        return f"{choice_name(first)}{edit}; {on}"
    names = {short_name(choice.condition.model) for choice in choices}
    model = names.pop() if len(names) == 1 else f"{len(names)} models"
    return f"{model} on " + ", ".join(sorted({choice.condition.task for choice in choices}))


def _title(choice: Choice, findings: Findings) -> str:
    word = choice.conclusion.capitalize()
    if choice.gain is None:
        return word
    units, (low, high) = UNITS[findings.kind], choice.gain.interval
    told = f"{units.text(choice.gain.mean)}{units.unit}"
    return f"{word}: {told} (95% interval {units.text(low)} to {units.text(high)})"


def _helped(choices: Sequence[Choice], findings: Findings, rivals: Rivals | None) -> str:
    if rivals:
        return str(rivals)
    if len(choices) > 1:
        found = {w: sum(c.conclusion == w for c in choices) for w in get_args(Conclusion)}
        unsure = len(choices) - found["gain"] - found["loss"]
        return (
            f"In {found['gain']} of {len(choices)} choices it did, in {found['loss']} it did harm;"
            f" of {unsure} neither can be said. A choice is made for each model, task, number of"
            " shots, scoring and part."
        )
    (choice,) = choices
    scores = tested_scores(choice, findings)
    learned = nothing_learned(scores) if scores else ""
    return f"{learned} {_in_words(choice)}".lstrip()


def _in_words(choice: Choice) -> str:
    if choice.conclusion == "not known":
        return f"Not known: {choice.missing}."
    if choice.edit is None:
        return "No edit did better than the unpruned model on validation, so nothing is clipped."
    clipping = f"clipping {clipped_words(choice)}"
    return {
        "gain": f"Yes: {clipping} made the answers better.",
        "loss": f"No: {clipping} made the answers worse.",
    }.get(choice.conclusion, f"Cannot tell: what {clipping} changed may be chance.")


def _how_much(shown: Sequence[Choice], findings: Findings, several: bool) -> str:
    return " ".join(_amount(choice, findings, several) for choice in shown) or "Nothing was gained."


def _amount(choice: Choice, findings: Findings, named: bool) -> str:
    where = f"{choice_name(choice)}: " if named else ""
    line = gain_line(choice, findings)
    if line is None:
        return f"{where}there is no gain to measure."
    units = UNITS[findings.kind]
    after = line.before + units.sign * line.gain
    most = "" if line.majority is None else f" (most frequent label: {line.majority:.4f})"
    return (
        f"{where}{units.text(line.gain)}{units.unit}: {units.metric} from {line.before:.4f} to"
        f" {after:.4f}{most}."
    )


def _how_sure(shown: Sequence[Choice], findings: Findings, several: bool) -> str:
    said = []
    for choice in shown:
        if choice.gain is None:
            continue
        where = f"{choice_name(choice)}: " if several else ""
        draws = drawn(choice.condition.shots, tuple(choice.picks), choice.prompts)
        change = changes(choice, findings)
        said.append(
            f"{where}{change[0].upper()}{change[1:]}, on {rows_words(choice, findings, 'rows')} and"
            f" {draws}.{power_sentence(choice, findings)}"
        )
    return " ".join(said) or "Nothing was tested on other rows than those that chose."


def _elsewhere(shown: Sequence[Choice], findings: Findings) -> str:
    places = {(short_name(c.condition.model), edit) for c in shown for edit in c.picks.values()}
    found = [
        str(guarded)
        for model, guarded in guards(findings.run)
        if len(guarded.edits) == 1 and (model, guarded.edits[0]) in places
    ]
    if found:
        return " ".join(found)
    if not any(choice.edit for choice in shown):
        return "Nothing: the model is as it was."
    return (
        "It was not looked at. A search with --guard says how far a choice moves the model on plain"
        " text and on other tasks."
    )


def _which(shown: Sequence[Choice], rows: Sequence[Flipped]) -> str:
    names = [choice_name(choice) for choice in shown]
    said = [
        f"{f'{entry.name}: ' * (len(names) > 1)}{entry.fixed} fixed, {entry.broken} broken on"
        f" {entry.split}{entry.under}."
        for entry in rows
        if entry.name in names
    ]
    return " ".join(said) or "None turned."


def _now(choice: Choice, findings: Findings) -> str:
    """Say what follows from the most certain choice."""
    one_draw = choice.condition.shots > 0 and len(choice.picks) == 1
    if choice.conclusion == "gain" and one_draw:
        return (
            "It holds for one draw of demonstrations alone. Search again with --seeds 0,1,2,3,4"
            " before you rely on it."
        )
    name = "" if len(findings.choices) == 1 else f" --choice '{choice_name(choice)}'"
    return {
        "gain": "Look at the rows that it broke; then eckart export"
        f" {quote(str(findings.run.folder))}{name} --out DIR writes the clipped model.",
        "loss": "Keep the model as it is: what looked best on the rows that chose did worse on"
        " others.",
        "cannot tell": "Keep the model as it is, or ask more: half the gain needs about four times"
        " the rows (eckart power says how many).",
        "nothing clipped": "Keep the model as it is; other layers, parts or rates may be tried.",
        "not known": "The same command goes on with what is missing.",
    }[choice.conclusion]
