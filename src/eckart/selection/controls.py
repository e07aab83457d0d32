"""A choice beside its control arms: whether clipping gains more than doing anything else there."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

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


@dataclass(frozen=True, kw_only=True)
class Versus:
    """A choice against something else, on the same rows under the same draws.

    Arguments:
        gain: of the choice over it; None where the two cannot be compared.
        p_adjusted: of the gain, by Holm over all that the choice is compared with.
        error: why they cannot.
    """

    gain: Difference | None = None
    p_adjusted: float = 1.0
    error: str | None = None

    @property
    def verdict(self) -> Verdict:
        """What the choice does to it: gain is better."""
        return verdict(self.gain, self.p_adjusted) if self.gain else "cannot tell"


Compared = TypeVar("Compared", bound=Versus)


def adjusted(compared: Sequence[Compared]) -> list[Compared]:
    """Adjust the p values for everything that is compared."""
    p = holm_of_known([each.gain.p_value if each.gain else None for each in compared])
    return [replace(each, p_adjusted=own) for each, own in zip(compared, p, strict=True)]


@dataclass(frozen=True)
class Against(Versus):
    """A choice against one of its control arms, on the test rows.

    Arguments:
        edits: the arm; of a composition each edit's, all at once.
        merit: its accuracy, or mean squared error; None where its outputs are no numbers.
    """

    edits: Edits
    merit: float | None = None

    @property
    def cut(self) -> str:
        """What is cut: the same of every edit."""
        return self.edits[0].cut

    @property
    def name(self) -> str:
        """How much of what is cut, as the edits say it."""
        return ", ".join(dict.fromkeys(edit.amount for edit in self.edits))

    def to_json(self) -> dict[str, Any]:
        return {
            "edit": ", ".join(map(str, self.edits)),
            "cut": self.cut,
            "value": self.merit,
            "choice_less_arm": self.gain and self.gain.to_json(),
            "p_adjusted": self.p_adjusted,
            "choice": WORDS[self.verdict] if self.gain else "not compared",
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
        found.append(Against(arm.edits, merit, gain=difference(arm, choice)))
    return tuple(adjusted(found))


def controls_sentence(found: Sequence[Against]) -> str:
    """Say which arms a choice beats, which it cannot be told from, and which beat it."""
    compared = [each for each in found if each.gain]
    said = [
        f"{words} {joined(own)}"
        for word, words in WORDS.items()
        if (own := [each.cut for each in compared if each.verdict == word])
    ]
    failed = [each.cut for each in found if not each.gain]
    said += [f"is not compared with {joined(failed)}, which gave no numbers"] if failed else []
    if len(compared) > 1 and not any(each.gain.mean for each in found if each.gain):
        said.append("all of them do exactly what the choice does, whatever they cut")
    return f"the choice {'; '.join(said)} (paired, Holm over {len(compared)})"


def joined(names: Sequence[str]) -> str:
    """Write names in a row.

    >>> joined(["drop"]), joined(["random", "random1", "drop"])
    ('drop', 'random, random1 and drop')
    """
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
