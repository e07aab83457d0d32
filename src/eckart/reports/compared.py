"""Several runs as one page: a leaderboard, and what is paired on the rows that they share."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from eckart.analysis.beside import Beside, adjusted, beside
from eckart.analysis.findings import Choice, Findings, find
from eckart.analysis.outcomes import short_name
from eckart.errors import RunError
from eckart.reports.figures.forest import GainLine, draw_gains
from eckart.reports.opening import CAPTION, MOST_LINES, Opening, gain_line, pictured
from eckart.reports.page import Report, check_format, checked_run
from eckart.reports.provenance import Provenance, provenance
from eckart.reports.sentences import choice_name, clipped_words
from eckart.reports.table import UNITS, Column, Table, Units
from eckart.reports.tables import WHERE
from eckart.statistics.gain import counted, sentence

Named = dict[str, Findings]
"""Findings by the run's name; the first is the one that others are compared with."""
SAID = 6


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
    lines = [(name, each) for name in others for each in beside(found[first], found[name])]
    judged = adjusted([each for _, each in lines])
    compared = [(name, each) for (name, _), each in zip(lines, judged, strict=True)]
    tables = (_compared_table(found, compared), _leaderboard(found))
    warnings = [f"{n}: {w}" for n, o in zip(names, origins, strict=True) for w in o.warnings]
    return Report(
        title=f"{len(found)} runs: {', '.join(found)}",
        summary=(*warnings, *_sentences(first, found, compared)),
        verdicts=(),
        tables={table.name: table for table in tables if table.rows},
        pictures=(),
        flipped=(),
        provenance=_origin(names, runs, origins, warnings),
        kind=next(iter(found.values())).kind,
        opening=_opening(first, found, compared),
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


def _sentences(first: str, found: Named, compared: Sequence[tuple[str, Beside]]) -> list[str]:
    paired = sorted(
        ((name, each) for name, each in compared if each.gain), key=lambda pair: pair[1].p_adjusted
    )
    said = [_sentence(first, found, *pair) for pair in paired[:SAID]]
    left = [f"{_name(name, each)} ({each.why_not})" for name, each in compared if not each.gain]
    more = f", and {len(left) - SAID} more" if len(left) > SAID else ""
    return said + [f"Not compared with {first}: {', '.join(left[:SAID])}{more}."] * bool(left)


def _sentence(first: str, found: Named, name: str, each: Beside) -> str:
    assert each.gain is not None
    told = sentence(each.gain, found[name].kind.headline, p=each.p_adjusted)
    rows = f"{each.shared:,} rows that both were asked"
    missing = f" (of {each.asked:,})" if each.shared < each.asked else ""
    return f"{_name(name, each)} less {first}, on {rows}{missing}: {each.verdict}, {told}."


def _name(name: str, each: Beside) -> str:
    where = each.second.condition
    return f"{name} ({where.task}, {where.shots} shots, {where.scoring}, {each.second.part})"


def _opening(first: str, found: Named, compared: Sequence[tuple[str, Beside]]) -> Opening:
    units = UNITS[next(iter(found.values())).kind]
    paired = [(name, each) for name, each in compared if each.gain]
    said = counted(each.verdict for _, each in paired)
    own = counted(choice.conclusion for each in found.values() for choice in each.choices)
    lines = [line for pair in paired if (line := _line(*pair))] if paired else _own_lines(found)
    lines.sort(key=lambda line: -line.gain)
    against = (
        f"paired with {first}: {said}" if paired else f"each against its unpruned model: {own}"
    )
    title = f"{len(found)} runs, {against}"
    zero = first if paired else "unpruned"
    answers = (
        ("Which did better?", _best(lines, units, zero)),
        ("On the same rows?", _shared(first, compared)),
        (
            "How sure?",
            "Every line has its 95% interval, and an adjusted p over all lines of this page."
            if paired
            else "Every line has its 95% interval; adjusted p is over its own run's choices.",
        ),
    )
    words = f"{len(lines)} gains" + f", the highest {MOST_LINES} drawn" * (len(lines) > MOST_LINES)
    draw = partial(draw_gains, lines[:MOST_LINES], units, sample=words, reference=zero)
    opened = Opening("cannot tell", title, answers)
    return pictured(opened, draw, CAPTION) if lines else opened


def _own_lines(found: Named) -> list[GainLine]:
    choices = [(name, f, choice) for name, f in found.items() for choice in f.choices]
    lines = (gain_line(choice, f, f"{name}: {choice_name(choice)}") for name, f, choice in choices)
    return [line for line in lines if line]


def _best(lines: Sequence[GainLine], units: Units, zero: str) -> str:
    if not lines:
        return "None can be said to."
    top, low = lines[0], lines[-1]
    said = [f"Highest is {top.name}: {top.outcome}, {units.text(top.gain)}{units.unit}"]
    if low is not top:
        said.append(f"lowest {low.name}: {low.outcome}, {units.text(low.gain)}{units.unit}")
    return f"{'; '.join(said)}; each against {zero}."


def _shared(first: str, compared: Sequence[tuple[str, Beside]]) -> str:
    paired = [each for _, each in compared if each.gain]
    left = len(compared) - len(paired)
    partly = sum(each.shared < each.asked for each in paired)
    said = [f"{len(paired)} of {len(compared)} choices share rows with {first} and are paired."]
    said += [f"In {partly} only some rows are shared; the others are left out."] * bool(partly)
    said += [f"{left} are not compared: the sentences say why."] * bool(left)
    return " ".join(said)


def _line(name: str, each: Beside) -> GainLine | None:
    if each.gain is None:
        return None
    about = each.gain.mean, each.gain.interval, each.before
    return GainLine(_name(name, each), each.verdict, *about)


def _compared_table(found: Named, compared: Sequence[tuple[str, Beside]]) -> Table:
    units = UNITS[next(iter(found.values())).kind]
    first = next(iter(found))
    columns = (
        Column("run", "run"),
        *WHERE[1:],
        Column("part", "part"),
        Column("says", "verdict"),
        Column("before", first, units.mean),
        Column("after", "this run", units.mean),
        Column("gain", f"gain{units.column}", units.gain),
        Column("interval", "95% interval", units.gains),
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


def _compared_row(name: str, each: Beside) -> dict[str, Any]:
    where = each.second.condition
    row = {**vars(where), "run": name, "part": each.second.part, "why": each.why_not or None}
    if each.gain is None:
        return {**row, "rows": each.shared, "asked": each.asked or None}
    return {
        **row,
        "says": each.verdict,
        "before": each.before,
        "after": each.after,
        "gain": each.gain.mean,
        "interval": each.gain.interval,
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
        Column("part", "part"),
        Column("edit", "clipped"),
        Column("after", units.metric, units.mean),
        Column("unpruned", "unpruned", units.mean),
        Column("majority", "majority", "share"),
        Column("gain", f"gain{units.column}", units.gain),
        Column("interval", "95% interval", units.gains),
        Column("p_adjusted", "adjusted p", "p"),
        Column("outcome", "verdict"),
        Column("rows", "rows", "count"),
        Column("seeds", "seeds", "count"),
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
    where, line = choice.condition, gain_line(choice, findings)
    split = findings.split(choice) if choice.edit else "test"
    before = findings.measured(where, None, split)
    row = {
        **vars(where),
        "model": short_name(where.model),
        "run": name,
        "part": choice.part,
        "edit": clipped_words(choice) if choice.edit else "nothing",
        "unpruned": before.mean if before else None,
        "majority": before.others.get("majority_rate") if before else None,
        "after": before.mean if before else None,
        "outcome": choice.conclusion,
    }
    if line is None or choice.gain is None:
        return row
    after = line.before + UNITS[findings.kind].sign * line.gain
    facts = {"gain": line.gain, "interval": line.interval, "p_adjusted": choice.p_adjusted}
    return {**row, **facts, "after": after, "rows": choice.gain.rows, "seeds": choice.gain.seeds}
