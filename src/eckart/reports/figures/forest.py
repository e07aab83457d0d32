"""The gains of choices as one picture: each interval against zero, to be read alone in a chat."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import fill
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from eckart.analysis.findings import Choice, Conclusion, Findings
from eckart.reports.figures.base import plain_text
from eckart.reports.table import Units

WIDE, NARROW = 8.0, 4.4
"""Inches: on a desk and in a chat, and on a phone."""
PLAIN_LETTERS, NAME_LETTERS, TITLE_LETTERS = 13.0, 4.6, 7.4
"""How many letters of a sample, a line's name and a title go into an inch of the width."""
LINE, APART = 0.17, 0.08
"""Inches that a line of small letters and the space between two gains take."""
INK = {"gain": "#00684a", "loss": "#a63c06"}
WORDS = {"gain": "better", "loss": "worse"}
UNSURE = "#4a525c"
LABEL = "always the most frequent label"
AT_A_GLANCE = 4
"""More gains than these may end below a screen: their axis stands above them."""


@dataclass(frozen=True)
class GainLine:
    """A choice's gain beside the model that it is against.

    Arguments:
        name: of the choice.
        outcome: its verdict.
        gain, interval: in the units of what was measured; above 0 is better.
        before: what the unpruned model reaches.
        majority: what always answering the most frequent label reaches; None of numbers.
        rival: the strongest of what costs nothing, by name, and what it reaches.
    """

    name: str
    outcome: Conclusion
    gain: float
    interval: tuple[float, float]
    before: float
    majority: float | None = None
    rival: tuple[str, float] | None = None

    @property
    def marks(self) -> list[tuple[str, str, float]]:
        """What else is marked: marker, name and what it reaches."""
        label = [] if self.majority is None else [("D", LABEL, self.majority)]
        return label + ([] if self.rival is None else [("s", *self.rival)])

    def numbers(self, units: Units) -> str:
        """Write its verdict, gain and interval, over two lines."""
        low, high = map(units.text, self.interval)
        word = WORDS.get(self.outcome, self.outcome)
        return f"{word} {units.text(self.gain)}\n{low} to {high}"


def gain_line(choice: Choice, findings: Findings, name: str = "") -> GainLine | None:
    """Return a choice's gain as it is drawn; None where there is none."""
    before = findings.measured(choice.condition, None, findings.split(choice))
    if choice.gain is None or before is None:
        return None
    about = choice.gain.mean, choice.gain.interval, before.mean, before.others.get("majority_rate")
    return GainLine(name, choice.conclusion, *about)


@plain_text
def draw_gains(
    lines: Sequence[GainLine],
    units: Units,
    title: str,
    sample: str,
    width: float = WIDE,
    reference: str = "unpruned",
    outcome: Conclusion = "not known",
) -> Figure:
    """Draw gains with their 95% intervals against zero, the most frequent label marked.

    Arguments:
        lines: from the top.
        units: of the gains.
        title: what was found, in a few words; none where they stand beside the picture.
        sample: what it was found on.
        width: in inches.
        reference: what stands at zero.
        outcome: the verdict that colours the title.
    """
    free = 1.0 if lines[0].name == "" else 0.7  # of the width, what names leave
    words = _filled(sample, PLAIN_LETTERS * width * free)
    said = _filled(title, TITLE_LETTERS * width)
    names = [_filled(line.name, NAME_LETTERS * width) for line in lines]
    tall = max(2, *(name.count("\n") + 1 for name in names)) * LINE + APART
    above = LINE * words.count("\n") + bool(title) * 0.3 * (said.count("\n") + 1)
    figure = Figure(figsize=(width, 1.3 + tall * len(lines) + above), layout="constrained")
    axes = figure.add_subplot()
    if title:
        about: dict[str, Any] = {"x": 0.012, "ha": "left", "fontsize": 13, "weight": "bold"}
        figure.suptitle(said, color=INK.get(outcome, "black"), **about)
    axes.set_title(words, loc="left", x=0, fontsize=8.5, color="0.3")
    least, most = _reach(lines, units)
    zero = f"zero line: {reference}" + f", {lines[0].before:.4f}" * (len(lines) == 1)
    axes.axvline(0, color="black", linewidth=1.1, zorder=1, label=zero)
    for place, line in enumerate(lines):
        _draw(axes, -place, line, units, (least, most), named=len(lines) == 1)
    axes.set(xlim=(least, most), ylim=(-len(lines) + 0.4, 0.6))
    axes.set_yticks([-place for place in range(len(lines))], names)
    axes.tick_params(axis="y", length=0, labelsize=8.5)
    axes.tick_params(axis="x", labelsize=8.5)
    axes.spines[["top", "bottom", "left", "right"]].set_visible(False)
    axes.spines["top" if len(lines) > AT_A_GLANCE else "bottom"].set_visible(True)
    axes.set_xlabel(units.change, size=8.5)
    if len(lines) > AT_A_GLANCE:
        axes.xaxis.tick_top()
        axes.xaxis.set_label_position("top")
    axes.grid(axis="x", color="0.92")
    axes.set_axisbelow(True)
    _explain(figure, axes, width)
    return figure


def _explain(figure: Figure, axes: Axes, width: float) -> None:
    """Add the legend below, in one line where it has room there."""
    handles, names = axes.get_legend_handles_labels()
    one_line = width == WIDE and len(names) <= 2
    filled = [_filled(name, PLAIN_LETTERS * (width - 0.5)) for name in names]
    more = 0 if one_line else sum(1 + name.count("\n") for name in filled) - 1
    figure.set_figheight(figure.get_figheight() + LINE * more)
    about: dict[str, Any] = {"ncols": 2 if one_line else 1, "frameon": False, "fontsize": 8.5}
    figure.legend(handles, filled, loc="outside lower center", **about)


def _filled(text: str, letters: float) -> str:
    """Break a text into lines, but not where a number follows what it is of."""
    return fill(text.replace(" = ", "\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}"), round(letters))


def _reach(lines: Sequence[GainLine], units: Units) -> tuple[float, float]:
    """Return the ends of the axis: the intervals and zero, and the marks that do not squeeze
    them."""
    ends = [0.0, *(units.scale * end for line in lines for end in line.interval)]
    span = max(ends) - min(ends) or 1.0
    near = [_change(line, level, units) for line in lines for *_, level in line.marks]
    ends += [at for at in near if min(ends) - 2 * span <= at <= max(ends) + 2 * span]
    margin = 0.08 * (max(ends) - min(ends))
    return min(ends) - margin, max(ends) + margin


def _change(line: GainLine, level: float, units: Units) -> float:
    return units.scale * (level - line.before)


def _draw(
    axes: Axes,
    height: int,
    line: GainLine,
    units: Units,
    reach: tuple[float, float],
    named: bool,
) -> None:
    colour = INK.get(line.outcome, UNSURE)
    low, high = (units.scale * end for end in line.interval)
    axes.plot([low, high], [height, height], color=colour, linewidth=2.6, solid_capstyle="butt")
    axes.plot(units.scale * line.gain, height, marker="o", markersize=8, color=colour)
    axes.annotate(
        line.numbers(units), (1, height), (6, 0), xycoords=("axes fraction", "data"),
        textcoords="offset points", va="center", size=8.5, color=colour, weight="bold",
    )  # fmt: skip
    for marker, name, level in line.marks:
        said = name + f", {level:.4f}" * named
        _mark(axes, height, (marker, said), _change(line, level, units), reach)


def _mark(
    axes: Axes, height: int, mark: tuple[str, str], at: float, reach: tuple[float, float]
) -> None:
    """Mark what is no choice; at the picture's edge where it lies beyond."""
    marker, name = mark
    if not reach[0] <= at <= reach[1]:
        marker, at = ("<", reach[0]) if at < 0 else (">", reach[1])
        name += ", beyond the picture"
    known = axes.get_legend_handles_labels()[1]
    axes.plot(
        at, height, marker=marker, markersize=7, color="0.45", markerfacecolor="white",
        linestyle="none", clip_on=False, zorder=3, label="" if name in known else name,
    )  # fmt: skip
