"""A choice at the precision that it will be run at: does the gain survive quantisation?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from eckart.algorithm1 import Scored
from eckart.records import SMALLEST, Trial
from eckart.runs import Run
from eckart.selection.drawn import Difference, Drawn, difference, summary
from eckart.statistics.gain import sentence, verdict


@dataclass(frozen=True)
class AtPrecision:
    """The unpruned model and the choice on the same test rows, with weights of one type.

    Arguments:
        name: the type, or `as searched`.
        unpruned, clipped: what they scored; one that failed has no score.
    """

    name: str
    unpruned: Scored
    clipped: Scored

    @property
    def failed(self) -> str | None:
        """Why there is no gain to speak of."""
        return self.unpruned.error or self.clipped.error

    @property
    def gain(self) -> Difference:
        """The choice less the unpruned model, on the same rows under the same draws."""
        return difference(self.unpruned, self.clipped)

    def to_json(self) -> dict[str, Any]:
        if self.failed:
            return {"as": self.name, "error": self.failed}
        return {
            "as": self.name,
            "unpruned": summary(self.unpruned),
            "clipped": summary(self.clipped),
            "gain": self.gain.to_json(),
            "verdict": verdict(self.gain),
        }

    def __str__(self) -> str:
        """Say what the choice is worth so."""
        if self.failed:
            return f"{self.name}: not scored ({self.failed})"
        score = self.unpruned.score
        assert score is not None
        return f"{self.name}: {verdict(self.gain)}, {sentence(self.gain, score.headline)}"


@dataclass(frozen=True)
class Deployed:
    """A choice as it was searched, and at other precisions.

    Arguments:
        searched: with the weights that it was searched with.
        each: with weights that were clipped, and then quantised and dequantised.
    """

    searched: AtPrecision
    each: tuple[AtPrecision, ...]

    @classmethod
    def in_run(cls, run: Run) -> Deployed | None:
        """Return what a search's choice is worth at every precision that was read; None where none
        was."""
        kinds = list(dict.fromkeys(trial.stored_as for trial in run.deployed))
        own = [trial for trial in run.trials.values() if trial.split == "test"]
        chosen = [t for t in own if all(edit.cut == SMALLEST for edit in t.edits)]
        found = [_at(run, "as searched", chosen)] + [
            _at(run, str(kind).upper(), [t for t in run.deployed if t.stored_as == kind])
            for kind in kinds
        ]
        searched, *each = (one for one in found if one) if found[0] else (None,)
        return cls(searched, tuple(each)) if searched and each else None

    @property
    def survives(self) -> list[str]:
        """The precisions at which there is a gain."""
        return [one.name for one in self.each if not one.failed and verdict(one.gain) == "gain"]

    def to_json(self) -> dict[str, Any]:
        return {"says": str(self), "each": [one.to_json() for one in (self.searched, *self.each)]}

    def __str__(self) -> str:
        """Say of every precision what the choice is worth there."""
        if verdict(self.searched.gain) != "gain":
            first = "there is no gain to lose by quantisation"
        elif len(self.survives) == len(self.each):
            first = "the gain survives quantisation"
        else:
            lost = [one.name for one in self.each if one.name not in self.survives]
            first = f"the gain is not told any more at {', '.join(lost)}"
        return f"{first}; {'; '.join(map(str, self.each))}"


def _at(run: Run, name: str, trials: Sequence[Trial]) -> AtPrecision | None:
    unpruned, clipped = ([t for t in trials if bool(t.edits) == cut] for cut in (False, True))
    if not unpruned or not clipped:
        return None
    return AtPrecision(name, _together(run, unpruned), _together(run, clipped))


def _together(run: Run, trials: Sequence[Trial]) -> Scored:
    """Return what trials under one draw or several say together."""
    if len(trials) == 1:
        return trials[0]
    return Drawn(tuple(trials), tuple(tuple(_ids(run, trial)) for trial in trials))


def _ids(run: Run, trial: Trial) -> Iterator[str]:
    return (row.id for row in run.rows[trial.rows].rows)
