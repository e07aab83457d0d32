"""The tables of a prediction: what was predicted beside what was measured, and the answer."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType

from eckart.analysis.outcomes import SPLITS, short_name
from eckart.paper.prediction.screens import Lead, Screened
from eckart.paper.prediction.study import Prediction
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
    """Return the tables of the correlations and of the screens, and the answer."""
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
