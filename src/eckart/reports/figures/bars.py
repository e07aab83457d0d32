"""The unpruned model beside its choices, task by task: Figure 4 of the paper; and calibration
beside clipping."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from eckart.analysis.findings import Choice, Findings, picked
from eckart.analysis.measured import reported
from eckart.analysis.outcomes import Block, Pick, short_name
from eckart.reports.figures.base import COLOURS, legend_of_all, plain_text, tidy, title_panel
from eckart.reports.table import POINTS, UNITS, Units
from eckart.statistics.crossed import merit_interval

Published = Callable[[Choice], Sequence[tuple[float, float]]]
HATCHES = ("", "///", "...", "xxx", "\\\\\\")


@dataclass(frozen=True)
class Bar:
    """A bar: an accuracy, or an error, with its 95% interval, and what was published for it.

    Arguments:
        group: where on the axis it stands.
        kind: what it is: `unpruned`, or the part that was clipped.
        mean, low, high: its height and its interval.
        published: accuracies in [0, 1].
        by_seed: the mean under each seed.
    """

    group: str
    kind: str
    mean: float
    low: float
    high: float
    published: tuple[float, ...] = ()
    by_seed: tuple[float, ...] = ()


@dataclass(frozen=True)
class BarPanel:
    """Bars that share an axis.

    Arguments:
        title: what they have in common.
        bars: what was measured.
        bare: (group, kind, words): where a bar is left out, because nothing was clipped, and what
            is written there.
        units: of its numbers.
    """

    title: str
    bars: tuple[Bar, ...]
    bare: tuple[tuple[str, str, str], ...] = ()
    units: Units = POINTS


def outcome_panel(
    findings: Findings, choices: Sequence[Choice], split: str, published: Published
) -> BarPanel | None:
    """Gather one model's unpruned accuracy and its choices, task by task.

    Arguments:
        choices: of one model, one number of shots and one scoring.
        published: gives the accuracies, unpruned and clipped, that were published for a choice.
    """
    bars, bare = [], []
    for task, group in groupby(choices, key=lambda choice: choice.condition.task):
        own = list(group)
        before = [pair[0] for choice in own for pair in published(choice)]
        bars += [b for b in [_bar(findings, own[0], split, task, "unpruned", before)] if b]
        for choice in own:
            if choice.edit is None:
                bare.append((task, choice.part, f"{choice.part}: {choice.conclusion}"))
                continue
            after = [pair[1] for pair in published(choice)]
            bars += [b for b in [_bar(findings, choice, split, task, choice.part, after)] if b]
    title = short_name(choices[0].condition.model)
    units = UNITS[findings.kind]
    return BarPanel(title, tuple(bars), tuple(bare), units) if bars else None


def calibration_panel(findings: Findings, group: Sequence[Choice], split: str) -> BarPanel | None:
    """Gather the unpruned and the clipped model under every scoring of one unit."""
    kinds = [
        (choice, kind)
        for choice in group
        for kind in ("unpruned", "clipped")
        if choice.edit or kind == "unpruned"
    ]
    bare = tuple(
        (choice.condition.scoring, "clipped", choice.conclusion)
        for choice in group
        if choice.edit is None
    )
    bars = [_bar(findings, choice, split, choice.condition.scoring, kind) for choice, kind in kinds]
    known = tuple(b for b in bars if b)
    where = group[0].condition
    title = f"{where.task}, {short_name(where.model)}, {group[0].part}, {where.shots} shots"
    return BarPanel(title, known, bare) if known else None


def _bar(
    findings: Findings,
    choice: Choice,
    split: str,
    group: str,
    kind: str,
    published: Sequence[float] = (),
) -> Bar | None:
    """Return the bar of a choice, or of the unpruned model; None where it was not scored on the
    split."""
    block = findings.blocks.get((choice.condition, split))
    picks = dict.fromkeys(choice.picks) if kind == "unpruned" else choice.picks
    if (
        block is None
        or not picks
        or not all(_scored(block, seed, edit) for seed, edit in picks.items())
    ):
        return None
    merits = picked(block, picks)
    by_seed = tuple(reported(block.kind, mean) for mean in np.nanmean(merits, axis=1).tolist())
    low, high = merit_interval(merits, block.kind)
    return Bar(
        group, kind, float(np.mean(by_seed)), low, high, tuple(dict.fromkeys(published)), by_seed
    )


def _scored(block: Block, seed: int, edit: Pick | None) -> bool:
    return (edit, seed) in block.trials


@plain_text
def draw_bars(panels: Sequence[BarPanel], columns: int, split: str, seeds: bool = False) -> Figure:
    """Draw bars with 95% intervals side by side; hollow diamonds are published values, dots are
    single seeds."""
    columns = min(columns, len(panels))
    rows = math.ceil(len(panels) / columns)
    widest = max(len(panel.bars) + len(panel.bare) for panel in panels)
    figure = Figure(
        figsize=(max(columns * max(2.8, 0.42 * widest + 1.0), 4.8), 2.9 * rows + 0.4),
        layout="constrained",
    )
    drawn = [bar.kind for panel in panels for bar in panel.bars]
    kinds = list(dict.fromkeys([*drawn, *(kind for panel in panels for _, kind, _ in panel.bare)]))
    for index, panel in enumerate(panels):
        axes = tidy(figure.add_subplot(rows, columns, index + 1))
        _draw_bars(axes, panel, kinds, seeds)
        if index % columns == 0:
            axes.set_ylabel(f"{split} {panel.units.metric}", size=8)
    handles = legend_of_all(figure)
    figure.legend(
        handles.values(),
        handles,
        loc="outside lower center",
        ncols=min(len(handles), 5),
        frameon=False,
        fontsize=8,
    )
    return figure


def _draw_bars(axes: Axes, panel: BarPanel, kinds: list[str], seeds: bool) -> None:
    groups = list(
        dict.fromkeys([*(bar.group for bar in panel.bars), *(group for group, _, _ in panel.bare)])
    )
    width = 0.8 / len(kinds)
    for index, kind in enumerate(kinds):
        own = [bar for bar in panel.bars if bar.kind == kind]
        shift = (index - (len(kinds) - 1) / 2) * width
        for group, words in ((group, words) for group, bare, words in panel.bare if bare == kind):
            place = groups.index(group) + shift
            axes.text(
                place, 0.02, words, rotation=90, ha="center", va="bottom", size=7, color="0.35"
            )
        if not own:
            continue
        x = [groups.index(bar.group) + shift for bar in own]
        colour = "0.75" if kind == "unpruned" else COLOURS[index - 1]
        axes.bar(
            x,
            [bar.mean for bar in own],
            width * 0.92,
            yerr=np.clip(
                [[bar.mean - bar.low for bar in own], [bar.high - bar.mean for bar in own]],
                0,
                None,
            ),
            color=colour,
            edgecolor="0.2",
            linewidth=0.6,
            hatch=HATCHES[index % len(HATCHES)],
            alpha=0.85,
            error_kw={"elinewidth": 1, "capsize": 2.5, "ecolor": "0.15"},
            label=kind,
        )
        _marks(
            axes,
            [(place, value) for place, bar in zip(x, own, strict=True) for value in bar.published],
            "D",
            6,
            "published",
        )
        if seeds:
            spread = [
                (place, value) for place, bar in zip(x, own, strict=True) for value in bar.by_seed
            ]
            _marks(axes, spread, "o", 3.5, "one seed")
    axes.set_xticks(range(len(groups)), groups, size=8, rotation=30 if len(groups) > 5 else 0)
    axes.tick_params(axis="y", labelsize=7)
    axes.set(xlim=(-0.5, len(groups) - 0.5), ylim=(0, 1.04 if panel.units is POINTS else None))
    title_panel(axes, panel.title)


def _marks(
    axes: Axes, places: list[tuple[float, float]], marker: str, size: float, label: str
) -> None:
    if places:
        axes.plot(
            [x for x, _ in places],
            [y for _, y in places],
            marker=marker,
            markersize=size,
            markerfacecolor="white" if marker == "D" else "0.1",
            markeredgecolor="black",
            linestyle="none",
            label=label,
            zorder=4,
        )
