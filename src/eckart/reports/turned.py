"""The rows that a choice fixed and broke, and what each label was taken for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from eckart.analysis.findings import Choice, Findings, picked_gains
from eckart.analysis.flips import Flip, flips
from eckart.analysis.outcomes import Block, Picks
from eckart.errors import numbered
from eckart.reports.sentences import choice_name, rows_words
from eckart.reports.table import Column, Table
from eckart.reports.terminal import printable
from eckart.statistics.scores import Score

WIDEST = 8
"""The most labels whose confusion matrix is printed."""


@dataclass(frozen=True)
class Flipped:
    """A choice's flips on a split: all of them, and how many rows were fixed and broken.

    Arguments:
        confusions: of the unpruned and of the clipped model; none of numbers, of rows with choices
            of their own, or of many labels.
    """

    name: str
    split: str
    fixed: int
    broken: int
    shown: tuple[Flip, ...]
    confusions: tuple[Table, ...] = ()

    @property
    def turned(self) -> int:
        return len(self.shown)

    @property
    def rows(self) -> str:
        """Say how many rows were fixed and broken."""
        counts = {"fixed": self.fixed, "broken": self.broken}
        return ", ".join(f"{numbered(n, 'row')} {kind}" for kind, n in counts.items())

    @property
    def under(self) -> str:
        """Say how rows were counted, where there were several draws of demonstrations."""
        most = max((flip.scored for flip in self.shown), default=1)
        return f", each by at least one of {most} draws" if most > 1 else ""

    def to_json(self) -> dict[str, Any]:
        tables = {table.title: table.to_json() for table in self.confusions}
        return {**asdict(replace(self, confusions=())), "turned": self.turned, "confusions": tables}

    def first(self, most: int) -> tuple[Flip, ...]:
        """Return so many flips, fixed and broken alike as far as there are."""
        fixed = [flip for flip in self.shown if flip.kind == "fixed"]
        broken = [flip for flip in self.shown if flip.kind == "broken"]
        half = most // 2
        return (
            *fixed[: max(half, most - len(broken))],
            *broken[: max(half, most - len(fixed))],
        )


def flipped(findings: Findings, choice: Choice) -> Flipped:
    """Return what a choice turned, where it is shown."""
    split = findings.split(choice)
    found = flips(findings, choice, split)
    fixed, broken = (
        len({flip.id for flip in found if flip.kind == kind}) for kind in ("fixed", "broken")
    )
    about = choice_name(choice), split, fixed, broken, tuple(found)
    return Flipped(*about, _confusions(findings, choice, split))


def shown_gains(choice: Choice, findings: Findings) -> np.ndarray:
    """Return the choice's gains by draw and row, where it is shown."""
    block = findings.blocks[choice.condition, findings.split(choice)]
    return picked_gains(block, block.known(choice.picks))


def turned_words(choice: Choice, findings: Findings) -> str:
    """Say how many rows turned under a draw, on average: so that fixed less broken is the gain."""
    if choice.gain is None:
        return ""
    gains = shown_gains(choice, findings)
    sizes = gains if findings.kind is Score else np.sign(gains)
    fixed, broken = (np.nansum(np.maximum(way * sizes, 0), axis=1).mean() for way in (1, -1))
    rows, names = rows_words(choice, findings, "rows"), findings.kind.turned
    draws = "In an average draw " * (len(gains) > 1)
    chosen = " These rows also chose." * (choice.basis == "cross-validated")
    told = [f"{count:.1f}".removesuffix(".0") for count in (fixed, broken)]
    return f"{draws}{told[0]} {names[0]}, {told[1]} {names[1]} of {rows}.{chosen}"


def confusion_table(
    confusion: Sequence[Sequence[int]], labels: Sequence[str], title: str = ""
) -> Table:
    """Return a confusion matrix, a line a right label."""
    shown = [" ".join(printable(label).split()) for label in labels]
    predicted = (Column(str(i), f"predicted {label}", "count") for i, label in enumerate(shown))
    rows = [
        {"label": label, **{str(i): count for i, count in enumerate(counts)}}
        for label, counts in zip(shown, confusion, strict=True)
    ]
    return Table("confusion", title, "", (Column("label", "label"), *predicted), rows)


def _confusions(findings: Findings, choice: Choice, split: str) -> tuple[Table, ...]:
    block = findings.blocks.get((choice.condition, split))
    if block is None or block.kind is not Score:
        return ()
    picks = {
        seed: edit
        for seed, edit in choice.picks.items()
        if {(edit, seed), (None, seed)} <= block.trials.keys()  # a run may have been interrupted
    }
    labels = findings.run.rows[next(iter(block.trials.values()))[0].rows].labels
    counts = [_counts(block, dict.fromkeys(picks)), _counts(block, picks)]
    if (
        not picks
        or not 1 < len(labels) <= WIDEST
        or {c.shape for c in counts} != {(len(labels),) * 2}
    ):
        return ()
    draws = f", {len(picks)} draws together" if len(picks) > 1 else ""
    return tuple(
        confusion_table(each.tolist(), labels, f"{name}{draws}")
        for name, each in zip(("unpruned", "clipped"), counts, strict=True)
    )


def _counts(block: Block, picks: Picks) -> np.ndarray:
    """Return a confusion matrix summed over what each seed chose."""
    scores = [trial.score for seed, edit in picks.items() for trial in block.trials[edit, seed]]
    found = [np.array(score.confusion) for score in scores if isinstance(score, Score)]
    alike = len({each.shape for each in found}) == 1
    return np.sum(found, axis=0) if alike else np.zeros(0)
