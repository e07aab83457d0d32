"""The first screen of a report: did it help, by how much, how sure, what else, which rows, what
now."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from shlex import quote

import numpy as np
from matplotlib.figure import Figure

from eckart.algorithm1 import rank_at
from eckart.analysis.findings import Choice, Conclusion, Findings
from eckart.analysis.outcomes import edits_of, is_plain, short_name
from eckart.records import PARTS, Edit
from eckart.reports.figures.forest import NARROW, WIDE, draw_gains, gain_line
from eckart.reports.figures.gallery import Picture
from eckart.reports.searched import guards
from eckart.reports.sentences import (
    PLAIN,
    RATE,
    choice_name,
    clipped_words,
    learned_nothing,
    mcnemar_words,
    ordered,
    power_sentence,
    rows_words,
    sureness,
    untested,
)
from eckart.reports.table import UNITS
from eckart.reports.tables import spectra_by_model
from eckart.reports.turned import shown_gains, turned_words
from eckart.selection.controls import joined
from eckart.selection.plan import BY_HAND
from eckart.selection.rivals import CALIBRATIONS, Rivals
from eckart.selection.tested import drawn
from eckart.statistics.gain import LEVEL, counted
from eckart.statistics.power import LEAST_GAIN, Design
from eckart.statistics.scores import Score

MOST_LINES = 10
TELLING = ("gain", "loss")
CAPTION = (
    "A dot is the change that was measured, its line the 95% interval. Better or worse is said"
    " where the line is clear of zero and p, adjusted where several are compared, is at most 0.05."
)
MARKS = " A hollow mark is what the named alternative reaches, on the same scale."
ONE_DRAW = (
    "One draw of demonstrations alone: others may say otherwise. Search again with `--seeds"
    " 0,1,2,3,4` before you rely on it."
)
HAND_DRAW = (
    "One draw of demonstrations alone: others may say otherwise. Score the choice under them with"
    " `eckart evaluate MODEL --edit EDIT --seed SEED` before you rely on it."
)


@dataclass(frozen=True, eq=False)
class Opening:
    """What a reader sees first.

    Arguments:
        outcome: the verdict that colours it.
        title: what was found, in a few words.
        answers: question and answer.
        cautions: what a reader must know beside the title.
        tab: run, task and verdict, for a browser's tab.
        picture: changes against zero; None where there is none to draw.
        insets: the same without its title, for a desk and for a phone.
    """

    outcome: Conclusion
    title: str
    answers: tuple[tuple[str, str], ...]
    cautions: tuple[str, ...] = ()
    tab: str = ""
    picture: Picture | None = None
    insets: tuple[Picture, ...] = ()


def opening(findings: Findings, rivals: Rivals | None) -> Opening | None:
    """Return a run's first screen; None where there is nothing to choose."""
    if findings.composed and not findings.choices:
        return _not_yet(findings)
    choices = ordered(findings)
    if not choices:
        return None
    first, several = choices[0], len(choices) > 1
    models = len({choice.condition.model for choice in choices})
    names = {choice.target: short_choice(choice, models) if several else "" for choice in choices}
    told = [choice for choice in choices if choice.conclusion in TELLING]
    shown = (told or [choice for choice in choices if choice.gain])[:3] or [first]
    unlearned = [said for choice in choices if (said := learned_nothing(choice, findings))]
    unbeaten = "" if several else _unbeaten(first, unlearned, rivals)

    def each(say: Callable[[Choice, Findings], str], none: str = "") -> str:
        said = [(names[choice.target], say(choice, findings)) for choice in shown]
        return (
            " ".join(f"{name}: {words}" if name else words for name, words in said if words) or none
        )

    answers = (
        ("Did it help?", _helped(findings, rivals, unbeaten)),
        ("By how much?", each(_amount, "Nothing was gained.")),
        ("How sure?", each(_how_sure, "Nothing was tested on other rows than those that chose.")),
        ("What else changed?", _elsewhere(shown, findings)),
        ("Which rows?", each(turned_words, "None turned.")),
        ("What now?", _instead(rivals) if unbeaten else _now(shown[0], findings)),
    )
    lines = [line for c in choices if (line := gain_line(c, findings, names[c.target]))]
    if rivals and lines and not several:
        lines = [replace(lines[0], rival=_mark(rivals))]
    outcomes = {choice.conclusion for choice in told} or {first.conclusion}
    verdict = found_words(choice.conclusion for choice in choices)
    title = f"{len(choices)} choices: {verdict}" if several else _title(first, findings, unbeaten)
    nothing = "The model learned nothing here. " * (len(unlearned) == len(choices) and not unbeaten)
    one_draw = HAND_DRAW if findings.run.settings.get("strategy") == BY_HAND else ONE_DRAW
    found = Opening(
        outcome=outcomes.pop() if len(outcomes) == 1 and not unbeaten else "cannot tell",
        title=nothing + title,
        answers=answers,
        cautions=(*_unlearned(unlearned, len(choices)), *[one_draw] * any(map(_one_draw, told))),
        tab=f"{findings.run.folder.name}: {_tasks(choices)}, {verdict}"
        + ", not shown to help" * bool(unbeaten),
    )
    if not lines:
        return found
    where = _where(choices, findings)
    if len(lines) > MOST_LINES:
        where += f"; the {MOST_LINES} most certain of {len(lines)}"
    marked = any(line.marks for line in lines[:MOST_LINES])
    about = {"sample": where, "outcome": found.outcome}
    draw = partial(draw_gains, lines[:MOST_LINES], UNITS[findings.kind], **about)
    return pictured(found, draw, CAPTION + MARKS * marked)


def _not_yet(findings: Findings) -> Opening:
    """Say of what is composed that nothing was tested yet."""
    answers = (
        ("Did it help?", f"Not known. {untested(findings)}"),
        ("What now?", "The command at the end of this page goes on where it was."),
    )
    title = "No choice was tested yet"
    return Opening("not known", title, answers, tab=f"{findings.run.folder.name}: not tested yet")


def pictured(found: Opening, draw: Callable[..., Figure], caption: str) -> Opening:
    """Return a first screen with its picture: alone under its title, and without for a page."""
    about = "opening", found.title, caption
    insets = (Picture(*about, partial(draw, title="", width=width)) for width in (WIDE, NARROW))
    alone = Picture(*about, partial(draw, title=found.title))
    return replace(found, picture=alone, insets=tuple(insets))


def found_words(conclusions: Iterable[Conclusion]) -> str:
    """Say how many of each verdict there are, in plain words; the one there is without a number."""
    said = [PLAIN[conclusion] for conclusion in conclusions]
    return said[0] if len(said) == 1 else counted(said, PLAIN.values())


def short_choice(choice: Choice, models: int) -> str:
    """Name a choice; without its model, where there is but one."""
    name = choice_name(choice)
    return name.removeprefix(f"{short_name(choice.condition.model)}, ") if models == 1 else name


def _tasks(choices: Sequence[Choice]) -> str:
    return ", ".join(sorted({choice.condition.task for choice in choices}))


def _where(choices: Sequence[Choice], findings: Findings) -> str:
    """Say what was measured, on what."""
    models = sorted({short_name(choice.condition.model) for choice in choices})
    on = f"{models[0] if len(models) == 1 else f'{len(models)} models'} on {_tasks(choices)}"
    rows = {rows_words(choice, findings, "rows") for choice in choices if choice.gain}
    said = f"; n = {rows.pop()}" if len(rows) == 1 else ""
    if len(choices) > 1:
        return f"{on}{said}"
    (choice,) = choices
    where = choice.condition
    draws = drawn(where.shots, tuple(choice.picks), choice.prompts)
    calibrated = where.scoring in CALIBRATIONS
    scoring = f"{where.scoring} calibration" if calibrated else f"scoring {where.scoring}"
    return f"{on}, {where.shots} shots, {scoring}{said}, {draws}"


def _title(choice: Choice, findings: Findings, unbeaten: str) -> str:
    words = {"gain": "It got better", "loss": "It got worse"}
    word = words.get(choice.conclusion, choice.conclusion.capitalize())
    if choice.gain is None:
        return word
    told = UNITS[findings.kind].told(choice.gain.mean, choice.gain.interval)
    how = f"by clipping {clipped_words(choice)}"
    if unbeaten:
        return f"Better than unpruned, {told} {how}; but not shown to beat {unbeaten}"
    return f"{word}: {told} {how}"


def _unbeaten(choice: Choice, unlearned: Sequence[str], rivals: Rivals | None) -> str:
    """Name what costs nothing and is not beaten by a choice that beats the unpruned model."""
    if choice.conclusion != "gain":
        return ""
    if rivals and not rivals.helps:
        return rivals.nearest.described
    return "always answering the most frequent label" if unlearned else ""


def _unlearned(said: Sequence[str], of: int) -> list[str]:
    """Say first where clipping leaves nothing that beats always answering the most frequent
    label."""
    if len(said) <= 1 == of:
        return list(said)
    some = f"In {len(said)} of {of} choices the clipped model does no better than always answering"
    return [f"{some} the most frequent label, as far as these rows show."] * bool(said)


def _one_draw(choice: Choice) -> bool:
    return choice.condition.shots > 0 and len(choice.picks) == 1


def _helped(findings: Findings, rivals: Rivals | None, unbeaten: str) -> str:
    choices = findings.choices
    if rivals and (unbeaten or rivals.helps):
        return _beside(rivals)
    if rivals:
        return str(rivals)
    if unbeaten:
        return f"Not shown: the answers are better, but not told from {unbeaten}."
    if len(choices) > 1:
        found = [choice.conclusion for choice in choices]
        helped, harmed = found.count("gain"), found.count("loss")
        return (
            f"In {helped} of {len(found)} choices it did, in {harmed} it did harm; of"
            f" {len(found) - helped - harmed} neither can be said. A choice is made for each model,"
            f" task, number of shots, scoring and part. {RATE}"
        )
    (choice,) = choices
    return {
        "not known": f"Not known: {choice.missing}.",
        "nothing clipped": f"No edit {'was told to be' if findings.composed else 'did'} better than"
        " the unpruned model on validation, so nothing is clipped.",
        "gain": "Yes: the answers are better.",
        "loss": "No: the answers are worse.",
        "cannot tell": "Cannot tell: the change may be chance.",
    }[choice.conclusion]


def _beside(rivals: Rivals) -> str:
    """Set the clipped model beside the best of what costs nothing."""
    nearest = rivals.nearest
    word = "Yes" if rivals.helps else "No" if nearest.verdict == "loss" else "Not shown"
    told = "" if nearest.verdict != "cannot tell" else "; these rows do not tell the two apart"
    others = len(rivals.compared) - 1
    return (
        f"{word}. The strongest rival, {nearest.described}, has accuracy {nearest.accuracy:.4f} on"
        f" the same rows where the clipped model has {nearest.choice:.4f}: clipped less rival"
        f" {nearest.told}{told}. Clipping helps where it beats all that costs nothing; {others}"
        " others were compared, below, and p is adjusted for what is free among them."
    )


def _mark(rivals: Rivals) -> tuple[str, float] | None:
    """Return the strongest rival and its accuracy, where the picture has no mark for it yet."""
    nearest = rivals.nearest
    return (nearest.described, nearest.accuracy) if nearest.free and nearest.accuracy else None


def _instead(rivals: Rivals | None) -> str:
    """Say what to do with a gain over the unpruned model alone."""
    if rivals and rivals.nearest.gain and rivals.nearest.gain.mean < 0:
        return (
            f"Do not use this: {rivals.nearest.described} costs nothing and scored higher. Search"
            " again from there."
        )
    return (
        "Do not use this yet: another number of demonstrations, template or scoring may do more,"
        " and `eckart search --rivals` compares them."
    )


def _amount(choice: Choice, findings: Findings) -> str:
    line = gain_line(choice, findings)
    if line is None:
        return ""
    units = UNITS[findings.kind]
    after = line.before + units.sign * line.gain
    most = "" if line.majority is None else f" (most frequent label: {line.majority:.4f})"
    return (
        f"{units.text(line.gain)}{units.unit}: {units.metric} from {line.before:.4f} to"
        f" {after:.4f}{most}. {_cut(choice, findings)}"
    )


def _cut(choice: Choice, findings: Findings) -> str:
    """Say what a rate does to the matrices: how many of how many singular values go, where the run
    knows their shapes."""
    edit = choice.edit
    if edit is None:
        return ""
    if not choice.agreed or not isinstance(edit, Edit):
        return RATE * is_plain(edits_of(edit))
    if not is_plain((edit,)):
        return ""
    spectra = spectra_by_model(findings.run)
    names: dict[tuple[int, int], list[str]] = {}
    for matrix in spectra.get(choice.condition.model) or spectra.get("") or []:
        name = matrix["name"].split("[")[0]
        if matrix["layer"] == edit.layer and name in PARTS[edit.part]:
            size = min(matrix["shape"]), rank_at(edit.rate, tuple(matrix["shape"]))
            names.setdefault(size, []).append(matrix["name"])
    sizes = [f"{of - kept:,} of {of:,} in {joined(own)}" for (of, kept), own in names.items()]
    known = f" ({'; '.join(sizes)})" if sizes else ""
    share = f"{100 * edit.rate:.4g}%"
    return f"At rate {edit.rate:g} the smallest {share} of its singular values are set to 0{known}."


def _how_sure(choice: Choice, findings: Findings) -> str:
    if choice.gain is None:
        return ""
    draws = drawn(choice.condition.shots, tuple(choice.picks), choice.prompts)
    facts = [f"{rows_words(choice, findings, 'rows')}, {draws}"]
    if choice.paired and findings.kind is Score:
        facts.insert(0, mcnemar_words(choice.fixed, choice.broken))
    if choice.basis == "cross-validated":
        facts.append("corrected for having been chosen on these rows")
    else:
        facts.append("on rows that had no part in the choice")
    about = choice.conclusion, "the unpruned model", choice.gain, UNITS[findings.kind]
    sure = sureness(*about, choice.p_adjusted, len(findings.choices), *facts)
    return f"{sure}{power_sentence(choice, findings)}"


def _elsewhere(shown: Sequence[Choice], findings: Findings) -> str:
    places = {(short_name(c.condition.model), edits_of(p)) for c in shown for p in c.picks.values()}
    each = guards(findings.run)
    found = [str(guarded) for model, guarded in each if (model, guarded.edits) in places]
    if found:
        return " ".join(found)
    if not any(choice.edit for choice in shown):
        return "Nothing: the model is as it was."
    return (
        "It was not looked at. A search with `--guard` says how far a choice moves the model on"
        " plain text and on other tasks."
    )


def _now(choice: Choice, findings: Findings) -> str:
    """Say what follows from the most certain choice."""
    name = "" if len(findings.choices) == 1 else f" --choice '{choice_name(choice)}'"
    return {
        "gain": "Look at the rows that it broke; then `eckart export"
        f" {quote(str(findings.run.folder))}{name} --out DIR` writes the clipped model.",
        "loss": "Keep the model as it is: what was chosen on the validation rows did worse on the"
        " test rows.",
        "cannot tell": f"Keep the model as it is{_more(choice, findings)}.",
        "nothing clipped": "Keep the model as it is; other layers, parts or rates may be tried.",
        "not known": "The same command goes on with what is missing.",
    }[choice.conclusion]


def _more(choice: Choice, findings: Findings) -> str:
    """Say on how many rows a change like the one that was seen would be told from chance."""
    gain = choice.gain
    if gain is None or findings.kind is not Score:
        return ""
    if gain.mean < LEAST_GAIN:
        return ": nothing seen here speaks for clipping"
    gains = shown_gains(choice, findings)
    turns = float(np.nanmean(np.abs(gains)))
    by_draw = np.nanmean(gains, axis=1)
    between = min(float(by_draw.std(ddof=1)), turns) if len(gains) > 1 else None
    level = LEVEL / len(findings.choices)
    rows = Design(turns, len(gains), between, level).rows(gain.mean)
    seen = f"if the true gain is the {100 * gain.mean:.1f} points seen here"
    if math.isinf(rows):
        return (
            f", or test on more draws of demonstrations: {seen}, no number of rows tells it from"
            f" chance under {len(gains)}; the same command with `--seeds 0..{2 * len(gains) - 1}`"
            " takes twice as many"
        )
    validation, _ = findings.pair(choice.condition)
    chose = f"{max(validation.row_counts, default=0)}," if validation else ""
    return (
        f", or test on more rows: {seen}, {rows:,.0f} test rows show it four times in five. Run the"
        f" same command with `--split-sizes {chose}{rows:.0f}`"
    )
