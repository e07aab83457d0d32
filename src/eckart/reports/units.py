"""The units of an outcome: what its means and gains are called, and how they are written."""

from __future__ import annotations

from dataclasses import dataclass

from eckart.reports.table import FORMATS
from eckart.scores import Outcome, Score, SquaredErrors


@dataclass(frozen=True)
class Units:
    """How means and gains are told.

    Arguments:
        metric: what the means are of.
        sign: 1 where a larger mean is better, -1 where a smaller one is.
        scale: what a gain is multiplied by where it is drawn.
        mean, means: kinds of columns, of a mean and of an interval of it.
        gain, gains: the same of a gain.
        column: what the title of a column of gains ends with.
        unit: of a gain, after its size; nothing where it has none.
        gained, lost: verbs, before the size of a gain and of a loss.
        interval: what an interval of a gain is called in a sentence.
        better: what a gain is, for a reader who meets the first one.
    """

    metric: str
    sign: int
    scale: int
    mean: str
    means: str
    gain: str
    gains: str
    column: str
    unit: str
    gained: str
    lost: str
    interval: str
    better: str

    def text(self, gain: float) -> str:
        """Write a gain with its sign."""
        return FORMATS[self.gain](gain)

    def size(self, gain: float) -> str:
        """Write a gain in a sentence, without its unit."""
        return f"{100 * gain:.1f}" if self.unit else f"{gain:.4g}"


UNITS: dict[type[Outcome], Units] = {
    Score: Units(
        metric="accuracy",
        sign=1,
        scale=100,
        mean="share",
        means="shares",
        gain="points",
        gains="range",
        column=", points",
        unit=" points",
        gained="gains",
        lost="loses",
        interval="95% interval",
        better="Gains are in percentage points of accuracy.",
    ),
    SquaredErrors: Units(
        metric="squared error",
        sign=-1,
        scale=1,
        mean="number",
        means="numbers",
        gain="change",
        gains="changes",
        column=", error smaller by",
        unit="",
        gained="makes the squared error smaller by",
        lost="makes the squared error larger by",
        interval="95% interval of by how much it is smaller:",
        better=(
            "Gains are in squared error over the variance of what is asked for: smaller is better,"
            " and a gain is by how much it is smaller."
        ),
    ),
}
POINTS = UNITS[Score]
ERRORS = UNITS[SquaredErrors]
