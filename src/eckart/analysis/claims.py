"""The paper's claims, where a run can judge them: steady deep layers, well-chosen layers, gains
that last."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from eckart.algorithm1 import worst_layer
from eckart.analysis.findings import Findings, pick
from eckart.analysis.outcomes import Block, Target
from eckart.records import Edit
from eckart.statistics.crossed import gain_bounds
from eckart.statistics.grids import (
    LayerRule,
    Stability,
    WinnersCurse,
    layer_rule,
    stability,
    winners_curse,
)

FEWEST_ROWS = 10


@dataclass(frozen=True, eq=False)
class Steadiness:
    """How much the rate matters at each layer of a grid that is whole.

    Arguments:
        target, split: where.
        layers: ascending; the first half of them is `shallow`, the last half `deep`.
        cells: the measured gains, a row a layer, a column a rate.
        rows, seeds: how many of each were scored.
        measured: by layer and for the two halves, held out.
    """

    target: Target
    split: str
    layers: tuple[int, ...]
    shallow: tuple[int, ...]
    deep: tuple[int, ...]
    cells: Float[np.ndarray, "layers rates"]
    rows: int
    seeds: int
    measured: Stability


def steadiness(findings: Findings) -> Iterator[Steadiness]:
    """Compare deep layers with shallow ones, on the test rows if every cell was scored there, else
    on validation."""
    for target in findings.targets:
        edits = findings.edits(target)
        layers = sorted({edit.layer for edit in edits})
        rates = sorted({edit.rate for edit in edits})
        grid = [[Edit(layer, target.part, rate) for rate in rates] for layer in layers]
        validation, test = findings.pair(target.condition)
        block = next((b for b in (test, validation) if b and _holds(b, grid)), None)
        if block is None or len(layers) < 2 or len(rates) < 2:
            continue
        gains = np.stack([[block.gains[block.place[edit]] for edit in line] for line in grid])
        half = len(layers) // 2
        shallow = range(half)
        deep = range(len(layers) - half, len(layers))
        yield Steadiness(
            target,
            block.split,
            tuple(layers),
            tuple(layers[i] for i in shallow),
            tuple(layers[i] for i in deep),
            np.nanmean(gains, axis=3).mean(axis=2),
            len(block.ids),
            len(block.seeds),
            stability(gains, deep=deep, shallow=shallow, bounds=gain_bounds(block.kind)),
        )


@dataclass(frozen=True, eq=False)
class WholeLayers:
    """The layers of a target that were scored at all their rates on validation and test rows, under
    the same seeds.

    Arguments:
        target: where.
        layers: ascending.
        grid: each layer's edits, by rate.
        picks: each layer's edit that validation chose; None where unpruned was as good.
        test: the block of the test rows.
    """

    target: Target
    layers: tuple[int, ...]
    grid: tuple[tuple[Edit, ...], ...]
    picks: tuple[Edit | None, ...]
    test: Block

    def gains(self, edits: Sequence[Edit | None]) -> Float[np.ndarray, "edits seeds rows"]:
        """Return test gains; 0 for the unpruned model, NaN where it was not asked."""
        unpruned = self.test.unpruned - self.test.unpruned
        return np.stack([self.test.gains[self.test.place[e]] if e else unpruned for e in edits])


def whole_layers(findings: Findings) -> Iterator[WholeLayers]:
    """Yield every target of which several layers were scored whole on validation and test rows."""
    for target in findings.targets:
        before, test = findings.pair(target.condition)
        edits = findings.edits(target)
        layers = tuple(sorted({edit.layer for edit in edits}))
        grid = tuple(tuple(edit for edit in edits if edit.layer == layer) for layer in layers)
        if before is None or test is None or len(layers) < 2:
            continue
        if not _holds(test, grid) or before.seeds != test.seeds:
            continue
        metric = findings.run.asked.metric(target.condition.task)
        picks = tuple(pick(before, list(edits), metric, list(before.seeds)) for edits in grid)
        yield WholeLayers(target, layers, grid, picks, test)


@dataclass(frozen=True)
class Ruled:
    """What the layer of Algorithm 1 gains beside the others, each at the rate that its validation
    rows chose.

    Arguments:
        target: where.
        layers: those that were scored.
        chosen: the layer that the condition numbers choose.
        rule: against a random layer, and against the best in hindsight, on the test rows.
    """

    target: Target
    layers: tuple[int, ...]
    chosen: int
    rule: LayerRule


def ruled(findings: Findings) -> Iterator[Ruled]:
    """Judge the choice by condition number wherever several layers were scored on validation and
    test."""
    for whole in whole_layers(findings):
        chosen = _chosen_layer(findings, whole.target)
        if chosen in whole.layers:
            gains = whole.gains(whole.picks)
            bounds = gain_bounds(whole.test.kind)
            rule = layer_rule(gains, whole.layers.index(chosen), bounds=bounds)
            yield Ruled(whole.target, whole.layers, chosen, rule)


@dataclass(frozen=True)
class Curse:
    """What validation gains are worth on the test rows, over all edits of a target."""

    target: Target
    measured: WinnersCurse


def curses(findings: Findings) -> Iterator[Curse]:
    """Compare validation gains with test gains wherever every edit was scored on both."""
    for target in findings.targets:
        edits = findings.edits(target)
        gains = []
        for edit in edits:
            before = findings.measured(target.condition, edit, "validation")
            test = findings.measured(target.condition, edit, "test")
            if before and test and before.gain and test.gain:
                gains.append((before.gain.mean, test.gain.mean))
        if len(gains) == len(edits) >= 3 and len({before for before, _ in gains}) > 1:
            yield Curse(target, winners_curse(*np.array(gains).T))


def _holds(block: Block, grid: Sequence[Sequence[Edit]]) -> bool:
    """Whether every edit of a grid was scored wherever the unpruned model was, on rows enough to
    say something."""
    edits = [edit for line in grid for edit in line]
    asked = ~np.isnan(block.unpruned)
    return (
        asked.sum(axis=1).min() >= FEWEST_ROWS
        and all(edit in block.place for edit in edits)
        and all((~np.isnan(block.row_merits(edit)))[asked].all() for edit in edits)
    )


def _chosen_layer(findings: Findings, target: Target) -> int | None:
    """Return the layer that Algorithm 1 chooses for a part, where the run measured its condition
    numbers."""
    numbers = findings.condition_numbers(target.condition.model, target.part)
    if not numbers:
        return None
    return worst_layer(numbers, findings.run.asked.top_k)
