"""Where a run can judge the paper's claims: steady deep layers, well-chosen layers, gains that
last. And the tables."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from eckart.algorithm1 import worst_layer
from eckart.analysis.findings import Findings, metric_of, pick
from eckart.analysis.measured import Measurements
from eckart.analysis.outcomes import Block, Condition
from eckart.records import TOP_K, Edit
from eckart.reports.table import Column, Table
from eckart.reports.tables import WHERE
from eckart.runs import Run
from eckart.statistics.grids import (
    LayerRule,
    Stability,
    WinnersCurse,
    layer_rule,
    stability,
    winners_curse,
)

FEWEST_ROWS = 10
STEADY_NOTE = (
    "The spread is the standard deviation of the gain over the rates, the worst the gain at the"
    " rate that is worst for the layer, in points. 'As measured' is read off the layer's cells:"
    " noise makes the spread larger and the worst lower than they are. 'Held out' takes that away:"
    " other rows and seeds than those that are read say which rate is worst and where the middle"
    " is. It is noisier, and with few seeds that are unlike each other it may lie outside the range"
    " of the layer's cells. 'Deep less shallow' compares the last half of the layers that were run"
    " with the first half: below 0 in spread, above 0 in the worst, where deep layers are steadier."
    " The interval of a worst gain is made with a row of each kind added, one fixed and one broken,"
    " so that a layer where no row turned has an interval as well."
)


@dataclass(frozen=True, eq=False)
class Steadiness:
    """How much the rate matters at each layer of a grid that is whole.

    Arguments:
        condition, part, split: where.
        layers: ascending; the first half of them is `shallow`, the last half `deep`.
        cells: the measured gains, a row a layer, a column a rate.
        rows, seeds: how many of each were scored.
        measured: by layer and for the two halves, held out.
    """

    condition: Condition
    part: str
    split: str
    layers: tuple[int, ...]
    shallow: tuple[int, ...]
    deep: tuple[int, ...]
    cells: Float[np.ndarray, "layers rates"]
    rows: int
    seeds: int
    measured: Stability


def steadiness(found: Findings) -> Iterator[Steadiness]:
    """Compare deep layers with shallow ones, on the test rows if every cell was scored there, else
    on validation."""
    for condition, part in found.units:
        edits = found.edits(condition, part)
        layers = sorted({edit.layer for edit in edits})
        rates = sorted({edit.rate for edit in edits})
        grid = [[Edit(layer, part, rate) for rate in rates] for layer in layers]
        block = next((b for b in _blocks(found, condition) if _holds(b, grid)), None)
        if block is None or len(layers) < 2 or len(rates) < 2:
            continue
        gains = np.stack([[block.gains[block.edits.index(edit)] for edit in line] for line in grid])
        half = len(layers) // 2
        shallow, deep = range(half), range(len(layers) - half, len(layers))
        yield Steadiness(
            condition,
            part,
            block.split,
            tuple(layers),
            tuple(layers[i] for i in shallow),
            tuple(layers[i] for i in deep),
            np.nanmean(gains, axis=3).mean(axis=2),
            len(block.ids),
            len(block.seeds),
            stability(gains, deep=deep, shallow=shallow),
        )


@dataclass(frozen=True)
class Ruled:
    """What the layer of Algorithm 1 gains beside the others, each at the rate that its validation
    rows chose.

    Arguments:
        condition, part: where.
        layers: those that were scored.
        chosen: the layer that the condition numbers choose.
        rule: against a random layer, and against the best in hindsight, on the test rows.
    """

    condition: Condition
    part: str
    layers: tuple[int, ...]
    chosen: int
    rule: LayerRule


@dataclass(frozen=True, eq=False)
class Layers:
    """The layers of a part that were scored at all their rates on validation and test rows, under
    the same seeds.

    Arguments:
        condition, part: where.
        layers: ascending.
        grid: each layer's edits, by rate.
        picks: each layer's edit that validation chose; None where unpruned was as good.
        test: the block of the test rows.
    """

    condition: Condition
    part: str
    layers: tuple[int, ...]
    grid: tuple[tuple[Edit, ...], ...]
    picks: tuple[Edit | None, ...]
    test: Block

    def gains(self, edits: Sequence[Edit | None]) -> Float[np.ndarray, "edits seeds rows"]:
        """Return test gains, right after less right before; 0 for the unpruned model, NaN where it
        was not asked."""
        unpruned = np.where(np.isnan(self.test.unpruned), np.nan, 0.0)
        found = (
            self.test.gains[self.test.edits.index(edit)] if edit else unpruned for edit in edits
        )
        return np.stack(list(found))


def whole_layers(run: Run, found: Measurements) -> Iterator[Layers]:
    """Yield every part of every condition of which several layers were scored whole on validation
    and test rows."""
    for condition, part in found.units:
        before, test = (found.blocks.get((condition, split)) for split in ("validation", "test"))
        edits = found.edits(condition, part)
        layers = tuple(sorted({edit.layer for edit in edits}))
        grid = tuple(tuple(edit for edit in edits if edit.layer == layer) for layer in layers)
        if before is None or test is None or len(layers) < 2:
            continue
        if not _holds(test, grid) or before.seeds != test.seeds:
            continue
        metric = metric_of(run, condition.task)
        picks = tuple(pick(before, list(edits), metric, list(before.seeds)) for edits in grid)
        yield Layers(condition, part, layers, grid, picks, test)


def ruled(run: Run, found: Measurements) -> Iterator[Ruled]:
    """Judge the choice by condition number wherever several layers were scored on validation and
    test."""
    for whole in whole_layers(run, found):
        condition, part, layers = whole.condition, whole.part, whole.layers
        chosen = _chosen_layer(run, condition, part)
        if chosen in layers:
            rule = layer_rule(whole.gains(whole.picks), layers.index(chosen))
            yield Ruled(condition, part, layers, chosen, rule)


@dataclass(frozen=True)
class Curse:
    """What validation gains are worth on the test rows, over all edits of a part."""

    condition: Condition
    part: str
    measured: WinnersCurse


def curses(found: Findings) -> Iterator[Curse]:
    """Compare validation gains with test gains wherever every edit was scored on both."""
    for condition, part in found.units:
        cells = [
            tuple(found.measured(condition, edit, split) for split in ("validation", "test"))
            for edit in found.edits(condition, part)
        ]
        gains = [
            (before.gain.mean, test.gain.mean)
            for before, test in cells
            if before and test and before.gain and test.gain
        ]
        if len(gains) == len(cells) >= 3 and len({before for before, _ in gains}) > 1:
            before, test = np.array(gains).T
            yield Curse(condition, part, winners_curse(before, test))


def steadiness_table(found: Findings) -> Table:
    """Return one row a layer, and one that compares the deep half with the shallow half."""
    columns = (
        *WHERE,
        Column("part", "part"),
        Column("split", "split"),
        Column("layer", "layer"),
        Column("plain_spread", "spread over rates, as measured", "points"),
        Column("spread", "spread, held out", "points"),
        Column("spread_interval", "95% interval", "range"),
        Column("plain_worst", "worst rate, as measured", "points"),
        Column("worst", "worst rate, held out", "points"),
        Column("worst_interval", "95% interval", "range"),
        Column("rows", "rows", "count"),
        Column("seeds", "seeds", "count"),
    )
    compared = list(steadiness(found))
    rows = [row for steady in compared for row in _steady_rows(steady)]
    note = " ".join([STEADY_NOTE, *sorted({_middle(steady) for steady in compared} - {""})])
    return Table("steadiness", "Are deep layers steadier?", note, columns, rows)


def rule_table(run: Run, found: Findings) -> Table:
    """Return one row a condition and part: what choosing a layer by condition number is worth."""
    columns = (
        *WHERE,
        Column("part", "part"),
        Column("chosen_layer", "chosen layer", "count"),
        Column("layers", "layers", "count"),
        Column("over_random", "over a random layer, points", "points"),
        Column("over_random_interval", "95% interval", "range"),
        Column("p_value", "p", "p"),
        Column("below_best", "below the best in hindsight, points", "points"),
        Column("below_best_interval", "95% interval", "range"),
        Column("rank", "rank", "count"),
        Column("rank_interval", "95% interval of the rank"),
    )
    note = (
        "Every layer has the rate that validation selected for it; gains are on the test rows. The"
        " best in hindsight was found on these very rows, so the distance to it is overstated; its"
        " interval is not. p values are not corrected."
    )
    return Table(
        "rule",
        "Does the condition number choose well?",
        note,
        columns,
        [_rule_row(r) for r in ruled(run, found)],
    )


def curse_table(found: Findings) -> Table:
    """Return one row a condition and part: how far validation gains shrink on the test rows."""
    columns = (
        *WHERE,
        Column("part", "part"),
        Column("cells", "cells", "count"),
        Column("slope", "slope of test on validation gains", "number"),
        Column("validation", "best on validation, points", "points"),
        Column("test", "the same on test, points", "points"),
        Column("gap", "overstated by, points", "points"),
    )
    note = (
        "The winner's curse: the slope is that of the least-squares line through all cells: 1 where"
        " test gains are as large, 0 where validation ranks noise. A few cells with large losses"
        " can make it near 1."
    )
    rows = [{**_place(c.condition, c.part), **asdict(c.measured)} for c in curses(found)]
    return Table("curse", "What is a validation gain worth?", note, columns, rows)


def _steady_rows(steady: Steadiness) -> Iterator[dict[str, Any]]:
    s, sizes = steady.measured, {"rows": steady.rows, "seeds": steady.seeds}
    where = {**_place(steady.condition, steady.part), "split": steady.split, **sizes}
    plain = steady.cells.std(axis=1, ddof=1), steady.cells.min(axis=1)
    for layer, plain_spread, plain_worst, spread, worst in zip(
        steady.layers, *plain, s.spread, s.worst, strict=True
    ):
        yield {
            **where,
            "layer": str(layer),
            "plain_spread": float(plain_spread),
            "plain_worst": float(plain_worst),
            "spread": spread.value,
            "spread_interval": spread.interval,
            "worst": worst.mean,
            "worst_interval": worst.interval,
        }
    deep, shallow = (_plain_half(steady, half) for half in (steady.deep, steady.shallow))
    yield {
        **where,
        "layer": f"deep less shallow: {_listed(steady.deep)} less {_listed(steady.shallow)}",
        "plain_spread": deep[0] - shallow[0],
        "plain_worst": deep[1] - shallow[1],
        "spread": s.spread_difference.value,
        "spread_interval": s.spread_difference.interval,
        "worst": s.worst_difference.mean,
        "worst_interval": s.worst_difference.interval,
    }


def _plain_half(steady: Steadiness, half: tuple[int, ...]) -> tuple[float, float]:
    """Return the root mean square spread of some layers, and their mean worst gain, as measured."""
    cells = steady.cells[[steady.layers.index(layer) for layer in half]]
    return float(np.sqrt(cells.var(axis=1, ddof=1).mean())), float(cells.min(axis=1).mean())


def _middle(steady: Steadiness) -> str:
    """Say which layer is in neither half; nothing where none is."""
    left = {*steady.layers} - {*steady.deep} - {*steady.shallow}
    return "".join(f"Layer {layer} is the middle one, and is in neither half." for layer in left)


def _rule_row(found: Ruled) -> dict[str, Any]:
    rule = found.rule
    return {
        **_place(found.condition, found.part),
        "chosen_layer": found.chosen,
        "layers": rule.layers,
        "over_random": rule.over_random.mean,
        "over_random_interval": rule.over_random.interval,
        "p_value": rule.over_random.p_value,
        "below_best": rule.below_best.value,
        "below_best_interval": rule.below_best.interval,
        "rank": rule.rank,
        "rank_interval": f"{rule.rank_interval[0]} to {rule.rank_interval[1]}",
    }


def _place(condition: Condition, part: str) -> dict[str, Any]:
    return {**asdict(condition), "part": part}


def _blocks(found: Findings, condition: Condition) -> Iterator[Block]:
    """Yield a condition's blocks, the test rows' first."""
    for split in ("test", "validation"):
        if (condition, split) in found.blocks:
            yield found.blocks[condition, split]


def _holds(block: Block, grid: Sequence[Sequence[Edit]]) -> bool:
    """Whether every edit of a grid was scored wherever the unpruned model was, on rows enough to
    say something."""
    edits = [edit for line in grid for edit in line]
    asked = ~np.isnan(block.unpruned)
    return (
        asked.sum(axis=1).min() >= FEWEST_ROWS
        and all(edit in block.edits for edit in edits)
        and all((~np.isnan(block.outcomes(edit)))[asked].all() for edit in edits)
    )


def _chosen_layer(run: Run, condition: Condition, part: str) -> int | None:
    """Return the layer that Algorithm 1 chooses for a part, where the run measured its condition
    numbers."""
    numbers = run.models.get(condition.model, {}).get("condition_numbers", {}).get(part)
    if not numbers:
        return None
    known = {int(layer): math.inf if value is None else value for layer, value in numbers.items()}
    return worst_layer(known, (run.settings.get("study") or {}).get("top_k") or TOP_K)


def _listed(layers: tuple[int, ...]) -> str:
    return ", ".join(map(str, layers))
