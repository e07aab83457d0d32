"""Several runs as one page: a leaderboard, and what is paired on the rows that they share."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from eckart.analysis.findings import Choice, Findings, find
from eckart.analysis.outcomes import short_name
from eckart.analysis.pairs import ChoicePair, paired_choices
from eckart.errors import RunError, numbered
from eckart.reports.cautions import Named, Pair, cautions, in_a_line
from eckart.reports.figures.forest import GainLine, draw_gains, gain_line
from eckart.reports.opening import (
    CAPTION,
    MOST_LINES,
    Opening,
    found_words,
    pictured,
    short_choice,
)
from eckart.reports.page import Report, check_format, checked_run
from eckart.reports.provenance import Provenance, progress, provenance
from eckart.reports.sentences import PLAIN, clipped_words, sureness
from eckart.reports.table import SIZES, UNITS, Column, Table, Units, gain_columns, gain_values
from eckart.reports.tables import PART, WHERE, choice_row
from eckart.selection.controls import adjusted, joined
from eckart.statistics.gain import sentence

SAID, SHOWN = 6, 3
OWN = "The table of choices has each with its interval, and p adjusted for its own run's choices."


def read_comparison(runs: Sequence[Path], path: Path | None, format: str) -> Report:
    """Put several runs beside each other, once it is sure that the page can be written.

    Raises:
        RunError: as of one run; a run is named twice, or some are of labels and some of numbers.
    """
    check_format(format)
    names = _names(runs)
    found = {name: find(checked_run(run, path)) for name, run in zip(names, runs, strict=True)}
    if len({findings.kind for findings in found.values() if findings.cells}) > 1:
        raise RunError(
            "some of the runs are of labels and some of numbers, which no page compares; report"
            " them apart"
        )
    origins = [provenance(findings.run) for findings in found.values()]
    first, *others = found
    lines = [(name, each) for name in others for each in paired_choices(found[first], found[name])]
    judged = adjusted([each for _, each in lines])
    compared = [(name, each) for (name, _), each in zip(lines, judged, strict=True)]
    tables = (_compared_table(found, compared), _leaderboard(found))
    opened = _opening(first, found, compared)
    warnings = [f"'{n}': {w}" for n, o in zip(names, origins, strict=True) for w in o.warnings]
    return Report(
        title=f"{len(found)} runs: {', '.join(found)}",
        summary=(*warnings, *_sentences(first, found, compared), *in_a_line(opened.cautions)),
        verdicts=(),
        tables={table.name: table for table in tables if table.rows},
        pictures=(),
        flipped=(),
        provenance=_origin(names, runs, origins, warnings),
        kind=next(iter(found.values())).kind,
        opening=opened,
    )


def _names(runs: Sequence[Path]) -> list[str]:
    short = [run.resolve().name for run in runs]
    names = short if len({*short}) == len(short) else list(map(str, runs))
    twice = [str(run) for run in runs if [r.resolve() for r in runs].count(run.resolve()) > 1]
    if twice:
        raise RunError(f"run '{twice[0]}' is named twice; a run is compared with others")
    return names


def _origin(
    names: Sequence[str], runs: Sequence[Path], origins: Sequence[Provenance], warnings: list[str]
) -> Provenance:
    command = shlex.join(["eckart", "report", *map(str, runs)])
    about = {name: origin.title for name, origin in zip(names, origins, strict=True)}
    return Provenance(", ".join(names), "comparison", warnings, about, {}, {}, command)


def _sentences(first: str, found: Named, compared: Sequence[Pair]) -> list[str]:
    said = [_sentence(first, found, *pair) for pair in _paired(compared)[:SAID]]
    left = [f"{_name(name, each)} ({each.error})" for name, each in compared if not each.gain]
    more = f", and {len(left) - SAID} more" if len(left) > SAID else ""
    return said + [f"Not compared with '{first}': {', '.join(left[:SAID])}{more}."] * bool(left)


def _paired(compared: Sequence[Pair]) -> list[Pair]:
    """Return what could be compared, the most certain first."""
    paired = [pair for pair in compared if pair[1].gain]
    return sorted(paired, key=lambda pair: pair[1].p_adjusted)


def _sentence(first: str, found: Named, name: str, each: ChoicePair) -> str:
    assert each.gain is not None
    told = sentence(each.gain, found[name].kind.headline, p=each.p_adjusted)
    rows = f"{each.shared:,} rows that both were asked"
    missing = f" (of {each.asked:,})" if each.shared < each.asked else ""
    return f"{_name(name, each)} less '{first}', on {rows}{missing}: {each.verdict}, {told}."


def _name(name: str, each: ChoicePair) -> str:
    where = each.second.condition
    return f"'{name}' ({where.task}, {where.shots} shots, {where.scoring}, {each.second.part})"


def _opening(first: str, found: Named, compared: Sequence[Pair]) -> Opening:
    units = UNITS[found[first].kind]
    paired = _paired(compared)
    zero = first if paired else "unpruned"
    lines = list(map(_line, paired)) if paired else _own_lines(found)
    told = [pair for pair in paired if pair[1].verdict != "cannot tell"]
    shown = (told or paired)[:SHOWN]
    title = _title(first, paired, units) if paired else _own_title(found)
    answers = (
        ("Which did better?", _which(first, shown, paired, units)),
        ("How sure?", _each(shown, partial(_how_sure, first, units, len(paired))) or OWN),
        ("On the same rows?", _shared(first, compared)),
        ("What now?", _now(first, [pair[1].verdict for pair in paired])),
    )
    outcomes = {pair[1].verdict for pair in told}
    opened = Opening(
        outcome=outcomes.pop() if len(outcomes) == 1 else "cannot tell",
        title=title,
        answers=answers,
        cautions=cautions(found, paired),
        tab=f"{', '.join(found)}: {title}",
    )
    rows = {each.shared for _, each in paired}
    same = f", n = {rows.pop()} rows" if len(rows) == 1 else ""
    against = f"with '{first}'" if paired else "of a run with its own unpruned model"
    words = f"{numbered(len(lines), 'comparison')} {against}{same}"
    if len(lines) > MOST_LINES:
        words += f", the {MOST_LINES} {'most certain' if paired else 'highest'} drawn"
    words += _undrawn(found) * (not paired)
    draw = partial(draw_gains, lines[:MOST_LINES], units, sample=words, reference=zero)
    return pictured(opened, draw, CAPTION) if lines else opened


def _title(first: str, paired: Sequence[Pair], units: Units) -> str:
    """Say what was found against the first run."""
    if len(paired) > 1:
        said = found_words([each.verdict for _, each in paired])
        return f"Against '{first}', {len(paired)} comparisons: {said}"
    ((name, each),) = paired
    assert each.gain is not None
    told = units.told(each.gain.mean, each.gain.interval)
    if each.verdict == "cannot tell":
        return f"Cannot tell '{name}' from '{first}': {told}"
    return f"'{name}' did {PLAIN[each.verdict]} than '{first}': {told}"


def _own_title(found: Named) -> str:
    own = [choice.conclusion for each in found.values() for choice in each.choices]
    return f"{len(found)} runs, each against its own unpruned model: {found_words(own)}"


def _own_lines(found: Named) -> list[GainLine]:
    models = len({c.condition.model for each in found.values() for c in each.choices})
    lines = (
        gain_line(c, f, f"'{name}'{_state(f)}: {short_choice(c, models)}, n = {c.gain.rows}")
        for name, f in found.items()
        for c in f.choices
        if c.gain
    )
    return sorted(filter(None, lines), key=lambda line: -line.gain)


def _undrawn(found: Named) -> str:
    """Say how many choices have no gain to draw."""
    none = [c.conclusion for each in found.values() for c in each.choices if not c.gain]
    return f"; not drawn: {found_words(none)}" * bool(none)


def _state(findings: Findings) -> str:
    there, wanted = progress(findings.run)
    return " (unfinished)" if there < wanted else ""


def _each(shown: Sequence[Pair], say: Callable[[ChoicePair], str]) -> str:
    return " ".join(f"{_name(*pair)}: {say(pair[1])}" for pair in shown)


def _which(first: str, shown: Sequence[Pair], paired: Sequence[Pair], units: Units) -> str:
    if not paired:
        return "None can be said to: they share no rows."
    return f"{_best(first, paired, units)}{_each(shown, partial(_better, first, units))}"


def _best(first: str, paired: Sequence[Pair], units: Units) -> str:
    """Name what did best, the first run among the others, where all stand beside the same choice on
    as many rows."""
    if len({(e.first and e.first.target, e.shared, e.before) for _, e in paired}) > 1:
        return ""
    means = {f"'{first}'": paired[0][1].before, **{_name(*pair): pair[1].after for pair in paired}}
    best = max(means.values(), key=lambda mean: units.sign * mean)
    names = joined([name for name, mean in means.items() if mean == best])
    end = "Highest" if units.sign > 0 else "Lowest"
    return f"{end} on these rows: {names}, {units.metric} {best:.4f}. "


def _better(first: str, units: Units, each: ChoicePair) -> str:
    assert each.gain is not None
    told = f"{PLAIN[each.verdict]}, {units.text(each.gain.mean)}{units.unit}"
    return f"{told}: {units.metric} {each.after:.4f}, '{first}' {each.before:.4f}."


def _how_sure(first: str, units: Units, among: int, each: ChoicePair) -> str:
    assert each.gain is not None
    seeds = each.gain.seeds
    about = each.verdict, f"'{first}'", each.gain, units, each.p_adjusted, among
    return sureness(*about, f"{each.shared} rows, {numbered(seeds, 'draw')}")


def _shared(first: str, compared: Sequence[Pair]) -> str:
    paired = _paired(compared)
    left = len(compared) - len(paired)
    partly = sum(each.shared < each.asked for _, each in paired)
    said = [f"Paired, on rows of '{first}' too: {len(paired)} of {len(compared)}."]
    said += [f"Only some rows shared, the others left out: {partly}."] * bool(partly)
    said += [f"Not compared: {left}, the sentences say why."] * bool(left)
    return " ".join(said)


def _now(first: str, verdicts: Sequence[str]) -> str:
    if not verdicts:
        return (
            "Score the runs on the same rows: the same task, `--split-sizes` and `--seeds`; then"
            " compare again."
        )
    better = verdicts.count("gain")
    if better == len(verdicts) == 1:
        return "Prefer it; its own report says whether clipping helps it at all."
    if better:
        return f"Prefer these {better} where their conditions are yours; keep '{first}' elsewhere."
    worse = "gain nothing" if "cannot tell" in verdicts else "do worse"
    return f"Keep '{first}': the others {worse} that these rows can show."


def _line(pair: Pair) -> GainLine:
    name, each = pair
    assert each.gain is not None
    return GainLine(
        _name(name, each), each.verdict, each.gain.mean, each.gain.interval, each.before
    )


def _compared_table(found: Named, compared: Sequence[Pair]) -> Table:
    units = UNITS[next(iter(found.values())).kind]
    first = next(iter(found))
    columns = (
        Column("run", "run"),
        *WHERE[1:],
        PART,
        Column("says", "verdict"),
        Column("before", first, units.mean),
        Column("after", "this run", units.mean),
        *gain_columns(units, "gain"),
        Column("p_adjusted", "p, Holm", "p"),
        Column("rows", "rows of both", "count"),
        Column("asked", "rows of this run", "count"),
        Column("why", "not compared"),
    )
    note = (
        f"What each run chose, less what {first} chose, by the same draw of demonstrations on the"
        " same row (a run without demonstrations stands beside each draw of the other). Rows are"
        " the same where id, text and label are. Above 0 is better than the first run."
    )
    rows = [_compared_row(name, each) for name, each in compared]
    return Table("compared", f"Against {first}, on the same rows", note, columns, rows)


def _compared_row(name: str, each: ChoicePair) -> dict[str, Any]:
    where = each.second.condition
    row = {**vars(where), "run": name, "part": each.second.part, "why": each.error}
    if each.gain is None:
        return {**row, "rows": each.shared, "asked": each.asked or None}
    return {
        **row,
        "says": each.verdict,
        "before": each.before,
        "after": each.after,
        **gain_values(each.gain),
        "p_adjusted": each.p_adjusted,
        "rows": each.shared,
        "asked": each.asked,
    }


def _leaderboard(found: Named) -> Table:
    units = UNITS[next(iter(found.values())).kind]
    columns = (
        Column("task", "task"),
        Column("run", "run"),
        Column("model", "model"),
        *WHERE[2:],
        PART,
        Column("edit", "clipped"),
        Column("after", units.metric, units.mean),
        Column("unpruned", "unpruned", units.mean),
        Column("majority", "majority", "share"),
        *gain_columns(units, "gain"),
        Column("p_adjusted", "adjusted p", "p"),
        Column("outcome", "verdict"),
        *SIZES,
        Column("state", "state"),
    )
    rows = [
        _leader(name, findings, c) for name, findings in found.items() for c in findings.choices
    ]
    rows.sort(key=lambda row: (row["task"], -units.sign * (row["after"] or 0)))
    note = (
        "Every run's choices, the best of each task first; a gain is against the run's own unpruned"
        " model, and adjusted p is over that run's choices."
    )
    return Table("leaderboard", "All choices, task by task", note, columns, rows)


def _leader(name: str, findings: Findings, choice: Choice) -> dict[str, Any]:
    line, block = gain_line(choice, findings), findings.block(choice)
    before = block and findings.measured(choice.condition, None, block.split)
    mean = before.mean if before else None
    return {
        **choice_row(findings, choice),
        "model": short_name(choice.condition.model),
        "run": name,
        "state": _state(findings).strip(" ()") or None,
        "edit": clipped_words(choice) if choice.edit else "nothing",
        "unpruned": mean,
        "majority": before.others.get("majority_rate") if before else None,
        "after": line.before + UNITS[findings.kind].sign * line.gain if line else mean,
    }
