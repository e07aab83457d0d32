"""The tables and the figure of a prediction: what was predicted beside what was measured, and the
answer."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.console import Group, RenderableType

from eckart.analysis.outcomes import SPLITS, short_name
from eckart.paper.prediction.agreement import Agreement
from eckart.paper.prediction.screens import Lead, Screened
from eckart.paper.prediction.study import Prediction
from eckart.reports.figures.base import COLOURS, MARKERS, plain_text, tidy
from eckart.reports.table import Column, Table
from eckart.reports.terminal import Said
from eckart.statistics.crossed import Estimate
from eckart.statistics.gain import sentence

AMONG = {"all": "all edits of a task", "layers": "layers, at one part and rate"}

IN_SEARCH = (
    Column("name", "chosen by"),
    Column("gain", "gain", "points"),
    Column("in_search", "over a random layer", "gain"),
    Column("in_search p", "p, corrected", "p"),
    Column("sure", "sure", "written"),
    Column("below_best", "below hindsight", "points"),
    Column("learned", "turned: over random", "gain"),
)
WITHOUT_LABELS = (
    Column("name", "chosen by"),
    Column("each_rate", "layer: over random", "gain"),
    Column("each_rate p", "p, corrected", "p"),
    Column("blind_gain", "layer and rate: gain", "points"),
    Column("blind", "over random", "gain"),
)


def prediction_report(found: Prediction) -> RenderableType:
    """Return the answer, and the tables of the correlations and of the screens."""
    tables = [
        _ranks(found, split)
        for split in SPLITS
        if any(a.cells for a in found.agreements if a.split == split)
    ]
    screens = _screens(found.screens) if found.screens else []
    return Group(Said(f"{answer(found)}\n", "bold"), _heading(found), *tables, *screens)


def answer(found: Prediction) -> str:
    """Say whether a screen by the theory beats a random layer, in a search and without any
    label."""
    theory = [screen for screen in found.screens if screen.theory]
    if not theory:
        return (
            "No run scored several layers whole on validation and test rows: no screen can be"
            " judged."
        )
    in_search = {screen.screen: screen.in_search for screen in theory}
    at_each_rate = {screen.screen: screen.each_rate for screen in theory}
    return (
        f"{_beaten('With the rate by validation, as in a search', in_search)}\n"
        f"{_beaten('At the same rate for all layers', at_each_rate)}"
    )


def _beaten(where: str, leads: Mapping[str, Lead]) -> str:
    beating = [name for name, lead in leads.items() if lead.beats_random]
    best = max(leads, key=lambda name: leads[name].estimate.mean)
    named = f": {', '.join(beating)}" if beating else ""
    return (
        f"{where}, {len(beating) or 'none'} of the theory's {len(leads)} screens beats a random"
        f" layer{named}. The best, {best}:"
        f" {sentence(leads[best].estimate, 'accuracy', p=leads[best].p)}."
    )


def _heading(found: Prediction) -> RenderableType:
    groups = ", ".join(f"{short_name(model)} {task}" for model, task in found.groups)
    how = found.how
    seeds = "1 draw" if how.seeds == 1 else f"up to {how.seeds} draws"
    return Said(
        f"{len(found.cells)} cells of {len(found.groups)} models and tasks: {groups}\nread:"
        f" {how.prompts} validation prompts, no label of theirs, of {seeds} of demonstrations;"
        " floors as shares of the unpruned mean variance",
        "dim",
    )


def _ranks(found: Prediction, split: str) -> Table:
    columns = [Column("name", "predictor")]
    rows: dict[str, dict[str, Any]] = {}
    for among, name in AMONG.items():
        agreements = found.agreement(split, among)
        groups = f"{agreements[0].cells} cells, {agreements[0].groups} groups"
        columns.append(Column(among, f"{name} ({groups})", "rank"))
        columns.append(Column(f"{among} p", "p, corrected", "p"))
        for a in agreements:
            row = rows.setdefault(a.predictor.name, _row(a.predictor.name, a.predictor.theory))
            row[among] = (a.rank.value, *a.rank.interval) if a.rank else math.nan
            row[f"{among} p"] = math.nan if a.p_holm is None else a.p_holm
    title = (
        f"rank correlation with the gain on {split} rows; above 0: in the direction that the theory"
        " claims"
    )
    return Table("ranks", title, "", tuple(columns), _theory_first(rows.values()))


def _screens(found: Sequence[Screened]) -> list[Table]:
    rows = _theory_first(
        {
            **_row(screen.screen, screen.theory),
            "gain": screen.gain,
            "in_search": _triple(screen.in_search.estimate),
            "in_search p": screen.in_search.p,
            "sure": f"{screen.better}, {screen.worse}",
            "below_best": screen.below_best,
            "learned": _triple(screen.learned),
            "each_rate": _triple(screen.each_rate.estimate),
            "each_rate p": screen.each_rate.p,
            "blind_gain": math.nan if screen.blind_gain is None else screen.blind_gain,
            "blind": _triple(screen.blind),
        }
        for screen in found
    )
    in_search = (
        f"as a screen for the layer: {found[0].units} choices in {found[0].groups} models and"
        " tasks, in points on test rows\neach layer at the rate that validation chose for it; sure:"
        " choices whose own interval is above, below 0; turned: in the direction that does better"
        " on the other groups"
    )
    without_labels = (
        "the same without any label: the layer at each rate, leads averaged over the rates; and the"
        " layer and the rate, the lead being that over a random layer at this rate"
    )
    return [
        Table("screens", in_search, "", IN_SEARCH, rows),
        Table("blind screens", without_labels, "", WITHOUT_LABELS, rows),
    ]


def _row(name: str, theory: bool) -> dict[str, Any]:
    return {"name": name if theory else f"baseline: {name}", "theory": theory}


def _theory_first(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(rows, key=lambda row: not row["theory"])


def _triple(found: Estimate | None) -> Any:
    return math.nan if found is None else (found.mean, *found.interval)


THEORY, BASELINE = COLOURS[:2]
LEGEND: dict[str, Any] = {"frameon": False, "fontsize": 8}


class _Line(NamedTuple):
    """A value with its interval, and whether it is of what the theory names."""

    name: str
    theory: bool
    value: float
    low: float
    high: float


@plain_text
def draw_prediction(found: Prediction) -> Figure:
    """Draw correlations, leads and cells side by side, of the test rows where there are some; the
    theory in one colour, baselines in another."""
    figure = Figure(figsize=(13.0, 5.2), layout="constrained")
    left, middle, right = (tidy(axes) for axes in figure.subplots(1, 3, width_ratios=(1, 1, 1.1)))
    ranks = {split: _rank_lines(found, split) for split in ("test", "validation")}
    split = "test" if ranks["test"] else "validation"
    _draw_lines(left, ranks[split])
    left.set(xlabel=f"rank correlation with the {split} gain, among layers", xlim=(-1, 1))
    for name, colour in (("the theory's", THEORY), ("baseline", BASELINE)):
        _name(left, name, color=colour)
    left.legend(loc="lower left", **LEGEND)
    _draw_lines(middle, [_lead(s.screen, s.theory, s.in_search) for s in found.screens])
    _draw_lines(middle, [_lead(s.screen, s.theory, s.each_rate) for s in found.screens], shift=0.3)
    middle.set(xlabel="as a screen: lead over a random layer, points")
    for fill, name in (("0.3", "rate by validation"), ("white", "same rate for all layers")):
        _name(middle, name, color="0.3", markerfacecolor=fill)
    middle.legend(**LEGEND)
    _draw_cells(right, found, split)
    return figure


def strongest(found: Prediction, split: str) -> Agreement:
    """Return the theory's agreement whose correlation among layers is farthest from 0."""
    known = [a for a in found.agreement(split, "layers") if a.rank and a.predictor.theory]
    return max(known or found.agreements[:1], key=lambda a: abs(a.rank.value) if a.rank else 0.0)


def _rank_lines(found: Prediction, split: str) -> list[_Line]:
    return [
        _Line(a.predictor.name, a.predictor.theory, a.rank.value, *a.rank.interval)
        for a in found.agreement(split, "layers")
        if a.rank
    ]


def _lead(name: str, theory: bool, lead: Lead) -> _Line:
    low, high = lead.estimate.interval
    return _Line(name, theory, 100 * lead.estimate.mean, 100 * low, 100 * high)


def _name(axes: Axes, label: str, **look: Any) -> None:
    """Put a mark in the legend alone."""
    axes.plot([], [], **{"marker": "o", "linestyle": "none", "label": label, **look})


def _draw_lines(axes: Axes, lines: Iterable[_Line], shift: float = 0.0) -> None:
    """Draw a line a predictor, the first on top; those that are shifted down are hollow."""
    names = []
    for place, line in enumerate(lines):
        names.append(line.name)
        colour = THEORY if line.theory else BASELINE
        look: dict[str, Any] = {"color": colour, "markerfacecolor": "white" if shift else colour}
        axes.plot([line.low, line.high], [place + shift] * 2, color=colour, linewidth=1.2)
        axes.plot(line.value, place + shift, marker="o", markersize=4.5, **look)
    axes.axvline(0, color="0.6", linewidth=0.8, zorder=0)
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.set_ylim(len(names) - 0.4, -0.8)


def _draw_cells(axes: Axes, found: Prediction, split: str) -> None:
    """Draw what the strongest predictor says of the cells against their gains: a colour a model, a
    mark a part."""
    best = strongest(found, split).predictor
    cells = [cell for cell in found.cells if split in cell.gains]
    models = sorted({short_name(cell.condition.model) for cell in cells})
    parts = sorted({cell.edit.part for cell in cells})
    colours = {model: COLOURS[index % len(COLOURS)] for index, model in enumerate(models)}
    marks = {part: MARKERS[index % len(MARKERS)] for index, part in enumerate(parts)}
    for cell in cells:
        axes.plot(
            cell.said[best.name],
            100 * cell.gains[split],
            color=colours[short_name(cell.condition.model)],
            marker=marks[cell.edit.part],
            markersize=4,
            alpha=0.45,
            linestyle="none",
        )
    for model, colour in colours.items():
        _name(axes, model, color=colour)
    for part, mark in marks.items():
        _name(axes, part, color="0.4", marker=mark)
    axes.axhline(0, color="0.8", linewidth=0.8, zorder=0)
    _stretch(axes, max((abs(cell.said[best.name]) for cell in cells), default=0.0))
    claimed = "more" if best.sign > 0 else "less"
    axes.set(xlabel=f"{best.name} (theory: {claimed} is better)", ylabel=f"{split} gain, points")
    axes.legend(**LEGEND)


def _stretch(axes: Axes, largest: float) -> None:
    """Draw numbers of many sizes on one axis: by their logarithms above about a tenth of the
    largest, plainly below."""
    if largest == 0:
        return
    power = math.floor(math.log10(largest))
    large, small = 10.0**power, 10.0 ** (power - 1)
    axes.set_xscale("symlog", linthresh=small)
    # The scale's own labels are formulas, which are not drawn here.
    ticks = [-large, -small, 0.0, small, large]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
