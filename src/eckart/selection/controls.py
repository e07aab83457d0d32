"""A choice beside its control arms: whether clipping gains more than doing anything else there."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from eckart.algorithm1 import Scored
from eckart.records import Edits
from eckart.selection.drawn import Difference, difference
from eckart.statistics.gain import Verdict, verdict
from eckart.statistics.multiplicity import holm_of_known
from eckart.statistics.scores import shown

WORDS: dict[Verdict, str] = {
    "gain": "beats",
    "loss": "is beaten by",
    "cannot tell": "cannot be told from",
}
"""What a choice does to an arm, by the verdict on its difference."""


@dataclass(frozen=True)
class Against:
    """A choice against one of its control arms.

    Arguments:
        edits: the arm; of a composition each edit's, all at once.
        merit: its accuracy, or mean squared error; None where its outputs are no numbers.
        difference: the choice less the arm, on the same test rows under the same draws; None where
            the arm failed.
        p_adjusted: of the paired test, by Holm over all arms of the choice.
        error: why the arm failed.
    """

    edits: Edits
    merit: float | None = None
    difference: Difference | None = None
    p_adjusted: float = 1.0
    error: str | None = None

    @property
    def cut(self) -> str:
        """What is cut: the same of every edit."""
        return self.edits[0].cut

    @property
    def name(self) -> str:
        """How much of what is cut, as the edits say it."""
        return ", ".join(dict.fromkeys(edit.amount for edit in self.edits))

    @property
    def verdict(self) -> Verdict:
        """What the choice does to the arm: gain is better."""
        return verdict(self.difference, self.p_adjusted) if self.difference else "cannot tell"

    def to_json(self) -> dict[str, Any]:
        paired = self.difference
        return {
            "edit": ", ".join(map(str, self.edits)),
            "cut": self.cut,
            "value": self.merit,
            "choice_less_arm": paired and paired.to_json(),
            "p_adjusted": self.p_adjusted,
            "choice": WORDS[self.verdict] if paired else "not compared",
            "error": self.error,
        }


def against(choice: Scored, arms: Iterable[Scored]) -> tuple[Against, ...]:
    """Compare a choice with its control arms, in the order given.

    Arguments:
        choice: scored on the test rows.
        arms: scored on the same rows; failed ones are not compared.
    """
    found = []
    for arm in arms:
        if arm.score is None or choice.score is None:
            found.append(Against(arm.edits, error=arm.error))
            continue
        metric = arm.score.headline
        merit = shown(metric, arm.score.merits[metric])
        found.append(Against(arm.edits, merit, difference(arm, choice)))
    p = holm_of_known([each.difference.p_value if each.difference else None for each in found])
    return tuple(replace(each, p_adjusted=own) for each, own in zip(found, p, strict=True))


def controls_sentence(found: Sequence[Against]) -> str:
    """Say which arms a choice beats, which it cannot be told from, and which beat it."""
    compared = [each for each in found if each.difference]
    said = [
        f"{words} {joined(own)}"
        for word, words in WORDS.items()
        if (own := [each.cut for each in compared if each.verdict == word])
    ]
    failed = [each.cut for each in found if not each.difference]
    said += [f"is not compared with {joined(failed)}, which gave no numbers"] if failed else []
    if len(compared) > 1 and not any(each.difference.mean for each in found if each.difference):
        said.append("all of them do exactly what the choice does, whatever they cut")
    return f"the choice {'; '.join(said)} (paired, Holm over {len(compared)})"


def joined(names: Sequence[str]) -> str:
    """Write names in a row.

    >>> joined(["drop"]), joined(["random", "random1", "drop"])
    ('drop', 'random, random1 and drop')
    """
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
