"""The end of every search: a choice, and the honest look at the test rows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from eckart.algorithm1 import Scored
from eckart.records import Edits, Rows
from eckart.runs import Run, key_with_setting
from eckart.selection.controls import Against, against, controls_sentence
from eckart.selection.deployed import Deployed
from eckart.selection.drawn import Difference, difference, interval, sealed_seeds, summary
from eckart.selection.guarded import Guarded
from eckart.selection.looks import Looks
from eckart.selection.order import Order
from eckart.selection.rivals import Rivals
from eckart.statistics.crossed import below_majority
from eckart.statistics.gain import mean_text, sentence, verdict
from eckart.statistics.paired import predictions_turned
from eckart.statistics.scores import Shown, shown


@dataclass(frozen=True, kw_only=True, repr=False)
class Tested(Shown, ABC):
    """A choice that was made on validation, and what it is worth on rows that did not make it.

    Arguments:
        settings: what was asked for: model, task, shots, seed, dtype, ...
        labels: of the task, in the order of the confusion matrices.
        baseline, clipped: the unpruned model and the choice on the test set; one and the same where
            nothing is clipped.
        parameters: of the clipped matrices: `dense`, and `factored` when each is stored as two
            factors wherever that is smaller.
        notes: what the user should know about the data and the run.
        rows: those of the validation and the test split, under each draw.
        controls: the choice's control arms on the test set, where they were asked for; none where
            nothing is clipped.
        guarded: what else the choice did; None where nobody asked, or nothing is clipped.
        order: in which a screen put the places that were looked at; None where none did.
        rivals: the choice beside what costs nothing; None where nobody asked.
        deployed: the choice at other precisions; None where nobody asked, or nothing is clipped.
        looks: of other runs at these test rows; None where no run is kept, and so none is beside.
    """

    settings: dict[str, Any]
    labels: tuple[str, ...]
    baseline: Scored
    clipped: Scored
    parameters: dict[str, int]
    notes: tuple[str, ...]
    rows: tuple[Rows, ...] = field(repr=False)
    controls: tuple[Scored, ...] = ()
    guarded: Guarded | None = None
    order: Order | None = None
    rivals: Rivals | None = None
    looks: Looks | None = field(default=None, compare=False)
    deployed: Deployed | None = None

    @property
    @abstractmethod
    def compared(self) -> tuple[Scored, ...]:
        """What was scored on validation, and chosen from."""

    @property
    @abstractmethod
    def place(self) -> str:
        """Say where the choice is."""

    @abstractmethod
    def choice(self) -> str:
        """Say what was chosen, and from how much."""

    @property
    def edits(self) -> Edits:
        """The choice; nothing where the unpruned model did best."""
        return self.clipped.edits

    @property
    def comparison(self) -> Difference:
        """Clipped against unpruned, on the same test rows under the same draws."""
        return difference(self.baseline, self.clipped)

    @cached_property
    def against(self) -> tuple[Against, ...]:
        """The choice against each of its control arms, on the same test rows."""
        return against(self.clipped, self.controls)

    @property
    def run(self) -> Run:
        """The trials as a run keeps them, for whatever reads runs."""
        looks = (*self.compared, self.baseline, self.clipped)
        kept = {key_with_setting(t.key, t.setting): t for look in looks for t in look.trials}
        rows = {rows.digest: rows for rows in self.rows}
        screen = self.order.to_json() if self.order else None
        return Run(Path(), self.settings, kept, rows, spectra={}, models={}, screen=screen)

    @property
    def tested(self) -> dict[str, Scored]:
        """What was scored on the test rows by what it is; where nothing is clipped, there is but
        one."""
        return {"unpruned": self.baseline} | ({"clipped": self.clipped} if self.edits else {})

    @property
    def turned(self) -> int:
        """On how many test rows clipping changed the prediction, whether it was right before, or
        after, or neither; of several draws under the first."""
        before, after = self.baseline.trials[0].labelled, self.clipped.trials[0].labelled
        assert before is not None
        assert after is not None
        return predictions_turned(before, after)

    def to_json(self) -> dict[str, Any]:
        looks = (*self.compared, self.baseline, self.clipped, *self.controls)
        return {
            "test": {
                **self.comparison.to_json(),
                "baseline": summary(self.baseline),
                "clipped": summary(self.clipped),
            },
            "parameters": self.parameters,
            **self._controls_json(),
            **({"guard": self.guarded.to_json()} if self.guarded else {}),
            **({"screen": self.order.to_json()} if self.order else {}),
            **({"rivals": self.rivals.to_json()} if self.rivals else {}),
            **({"deployed": self.deployed.to_json()} if self.deployed else {}),
            **({"looked_at_before": asdict(self.looks)} if self.looks else {}),
            "labels": list(self.labels),
            "notes": list(self.notes),
            "settings": self.settings,
            "seconds": sum(look.seconds for look in looks),
        }

    def _controls_json(self) -> dict[str, Any]:
        if not self.settings.get("controls"):
            return {}
        arms = [each.to_json() for each in self.against]
        return {"controls": {"says": self.against_controls(), "arms": arms}}

    def against_controls(self) -> str:
        """Say whether the choice beats its control arms; nothing where none were asked for."""
        if not self.settings.get("controls"):
            return ""
        if not self.controls:
            return "nothing is clipped, so there is nothing to hold control arms beside"
        return controls_sentence(self.against)

    def __str__(self) -> str:
        score = self.baseline.score
        assert score is not None
        metric = score.headline
        said = [
            self.caution(),
            f"{self.settings['model']} on {self.settings['task']}: {self.verdict()}",
            f"  choice      {self.choice()}",
            f"  screen      {self.order}" if self.order else "",
            f"  unpruned    {_text(self.baseline, metric)} {metric.replace('_', ' ')} on test,"
            f" n = {score.n}",
        ]
        if self.edits:
            said.append(f"  clipped     {_text(self.clipped, metric)}")
            said.append(f"  gain        {sentence(self.comparison, metric)}")
        if self.against_controls():
            said.append(f"  controls    {self.against_controls()}")
        if self.guarded:
            said.append(f"  guard       {self.guarded}")
        if self.rivals:
            said.append(f"  rivals      {self.rivals}")
        if self.deployed:
            said.append(f"  deployed    {self.deployed}")
        if self.looks:
            said.append(f"  looks       {self.looks}")
        return "\n".join(filter(None, said))

    def verdict(self) -> str:
        """Say in words what the test set allows to be said, of how many rows and under which
        demonstrations."""
        said = self.settings
        seeds = sealed_seeds(said.get("seeds", [said["seed"]]))
        shots = drawn(said["shots"], seeds, len(said.get("templates", [""])))
        if not self.edits:
            return f"{self.stays} ({shots})"
        paired = self.comparison
        return f"{verdict(paired)} with n = {paired.n} test rows and {shots}"

    @property
    @abstractmethod
    def stays(self) -> str:
        """Why nothing is clipped, where that is the choice."""

    def caution(self) -> str:
        """Say that no model does better on the test rows than always giving the most frequent
        label, if so it is, over all draws."""
        means = self.baseline.score.summary() if self.baseline.score else {}
        if "majority_rate" not in means:
            return ""
        looks = {n: (_value(look, "accuracy"), interval(look)) for n, look in self.tested.items()}
        return below_majority(looks, means["majority_rate"], f"n = {means['n']} rows")


def drawn(shots: int, seeds: Sequence[int], prompts: int = 1) -> str:
    """Say of how many draws of demonstrations a result is, none where there are no demonstrations,
    and over how many prompts a row is averaged.

    >>> drawn(4, [7]), drawn(4, [0, 1]), drawn(0, [0])
    ('one draw of demonstrations, seed 7', '2 draws of demonstrations', 'no demonstrations')
    >>> drawn(4, [0, 1], prompts=3)
    '2 draws of demonstrations, each in 3 prompts'
    """
    each = f", {'each ' * (len(seeds) > 1)}in {prompts} prompts" if prompts > 1 else ""
    if not shots:
        return f"no demonstrations{each}"
    if len(seeds) == 1:
        return f"one draw of demonstrations, seed {seeds[0]}{each}"
    return f"{len(seeds)} draws of demonstrations{each}"


def _value(scored: Scored, metric: str) -> float:
    assert scored.score is not None
    return shown(metric, scored.score.merits[metric])


def _text(scored: Scored, metric: str) -> str:
    return mean_text(_value(scored, metric), metric)
