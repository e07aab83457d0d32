"""The tables of a prediction: what was predicted beside what was measured, and the answer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from rich.console import Group, RenderableType

from eckart.analysis.outcomes import SPLITS, short_name
from eckart.paper.prediction.agreement import Agreement
from eckart.paper.prediction.screens import Screened
from eckart.paper.prediction.study import Prediction
from eckart.reports.table import Column, Table
from eckart.reports.terminal import Said
from eckart.statistics.crossed import Estimate
from eckart.statistics.gain import sentence

NOT_KNOWN = (math.nan, math.nan, math.nan)
AMONG = {"all": "all edits of a task", "layers": "layers, at one part and rate"}


def prediction_report(found: Prediction) -> RenderableType:
    """Return the tables of the correlations and of the screens, and the answer."""
    tables = [
        _ranks(found, split)
        for split in SPLITS
        if any(a.cells for a in found.agreements if a.split == split)
    ]
    screens = [_screens(found.screens), _blind(found.screens)] if found.screens else []
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
    at_rates = {screen.screen: (screen.each_rate, screen.each_rate_p_holm) for screen in theory}
    in_search = {screen.screen: (screen.over_random, screen.p_holm) for screen in theory}
    return "\n".join(
        [
            _beaten(
                "With the rate by validation, as in a search",
                in_search,
                [s.screen for s in found.beating],
            ),
            _beaten(
                "At the same rate for all layers",
                at_rates,
                [s.screen for s in theory if s.beats_random_at_each_rate],
            ),
        ]
    )


def _beaten(where: str, leads: dict[str, tuple[Estimate, float]], beating: Sequence[str]) -> str:
    best = max(leads, key=lambda name: leads[name][0].mean)
    estimate, p = leads[best]
    named = f": {', '.join(beating)}" if beating else ""
    return (
        f"{where}, {len(beating) or 'none'} of the theory's {len(leads)} screens beats a random"
        f" layer{named}. The best, {best}: {sentence(estimate, 'accuracy', p=p)}."
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
        for agreement in agreements:
            row = rows.setdefault(agreement.predictor.name, {"theory": agreement.predictor.theory})
            row[among], row[f"{among} p"] = _rank(agreement)
    title = (
        f"rank correlation with the gain on {split} rows; above 0: in the direction that the theory"
        " claims"
    )
    return _sorted("ranks", title, columns, [{**row, "name": name} for name, row in rows.items()])


def _rank(found: Agreement) -> tuple[tuple[float, float, float], float]:
    if found.rank is None or found.p_holm is None:
        return NOT_KNOWN, math.nan
    return (found.rank.value, *found.rank.interval), found.p_holm


def _screens(found: Sequence[Screened]) -> Table:
    first = found[0]
    title = (
        f"as a screen for the layer: {first.units} choices in {first.groups} models and tasks, in"
        " points on test rows\neach layer at the rate that validation chose for it; sure: choices"
        " whose own interval is above, below 0; turned: in the direction that does better on the"
        " other groups"
    )
    columns = (
        Column("name", "chosen by"),
        Column("gain", "gain", "points"),
        Column("over_random", "over a random layer", "gain"),
        Column("p_holm", "p, corrected", "p"),
        Column("sure", "sure", "written"),
        Column("below_best", "below hindsight", "points"),
        Column("learned", "turned: over random", "gain"),
    )
    rows = [
        {
            **vars(screen),
            "name": screen.screen,
            "over_random": _triple(screen.over_random),
            "sure": f"{screen.better}, {screen.worse}",
            "learned": _triple(screen.learned),
        }
        for screen in found
    ]
    return _sorted("screens", title, columns, rows)


def _blind(found: Sequence[Screened]) -> Table:
    title = (
        "the same without any label: the layer at each rate, leads averaged over the rates; and the"
        " layer and the rate, the lead being that over a random layer at this rate"
    )
    columns = (
        Column("name", "chosen by"),
        Column("each_rate", "layer: over random", "gain"),
        Column("each_rate_p_holm", "p, corrected", "p"),
        Column("blind_gain", "layer and rate: gain", "points"),
        Column("blind", "over random", "gain"),
    )
    rows = [
        {
            **vars(screen),
            "name": screen.screen,
            "each_rate": _triple(screen.each_rate),
            "blind_gain": math.nan if screen.blind_gain is None else screen.blind_gain,
            "blind": _triple(screen.blind),
        }
        for screen in found
    ]
    return _sorted("blind screens", title, columns, rows)


def _triple(found: Estimate | None) -> tuple[float, float, float]:
    return NOT_KNOWN if found is None else (found.mean, *found.interval)


def _sorted(
    name: str, title: str, columns: Sequence[Column], rows: Sequence[dict[str, Any]]
) -> Table:
    """Return a table in which baselines stand apart from the theory's rows."""
    named = [
        row if row["theory"] else {**row, "name": f"baseline: {row['name']}"}
        for row in sorted(rows, key=lambda row: not row["theory"])
    ]
    return Table(name, title, "", tuple(columns), named)
