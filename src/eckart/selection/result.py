"""The result of a search: its choice, every candidate, and the honest look at the test set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eckart.records import Edit, Rows, Trial, or_null
from eckart.runs import Run
from eckart.selection.controls import Against, against, controls_sentence
from eckart.selection.guarded import Guarded
from eckart.statistics.crossed import nothing_learned
from eckart.statistics.gain import sentence, verdict
from eckart.statistics.paired import PairedDifference, compare, outcome_interval, predictions_turned
from eckart.statistics.scores import Outcome, Score, shown

if TYPE_CHECKING:
    from eckart.selection.racing import Race


@dataclass(frozen=True)
class Candidate:
    """One clipping rate that was tried.

    Arguments:
        rate: the clipping rate.
        ranks: the rank that is left of each matrix.
        trial: its outcome on validation.
        seen: on how many validation rows: all, unless a race dropped it or it failed.
    """

    rate: float
    ranks: dict[str, int]
    trial: Trial
    seen: int

    def to_json(self) -> dict[str, Any]:
        score = self.trial.score
        validation = {"error": self.trial.error} if score is None else _summary(score)
        return {"rate": self.rate, "ranks": self.ranks, "seen": self.seen, "validation": validation}


@dataclass(frozen=True)
class SearchResult:
    """A finished search by Algorithm 1.

    Arguments:
        settings: what was asked for: model, task, shots, seed, rates, dtype, ...
        labels: of the task, in the order of the confusion matrices.
        part, layer, rate: the choice. A rate of 0 means that no clipping did better on validation.
        condition_numbers: by layer; empty when the layer was given.
        candidates: by ascending rate.
        baseline, clipped: the trials on the test set.
        parameters: of the part in the chosen layer: `dense`, and `factored` when each matrix is
            stored as two factors wherever that is smaller.
        published: rows of the paper's tables and the authors' logs about the same model, task and
            part.
        notes: what the user should know about the data and the run.
        rows: those of the validation and the test split.
        race: what a race read; None where every rate was read to the end.
        controls: the trials of the choice's control arms on the test set, where they were asked
            for; none where nothing is clipped.
        guarded: what else the choice did; None where nobody asked, or nothing is clipped.
    """

    settings: dict[str, Any]
    labels: tuple[str, ...]
    part: str
    layer: int
    rate: float
    condition_numbers: dict[int, float]
    candidates: tuple[Candidate, ...]
    baseline: Trial
    clipped: Trial
    parameters: dict[str, int]
    published: tuple[dict[str, Any], ...]
    notes: tuple[str, ...]
    rows: tuple[Rows, ...] = field(repr=False)
    race: Race | None = None
    controls: tuple[Trial, ...] = ()
    guarded: Guarded | None = None

    @property
    def chosen(self) -> Candidate:
        """The candidate of the chosen rate; none has seen more validation rows."""
        return next(candidate for candidate in self.candidates if candidate.rate == self.rate)

    @property
    def edit(self) -> Edit:
        return Edit(self.layer, self.part, self.rate)

    @property
    def comparison(self) -> PairedDifference:
        """Clipped against unpruned, on the same test rows."""
        return compare(_score(self.baseline), _score(self.clipped))

    @cached_property
    def against(self) -> tuple[Against, ...]:
        """The choice against each of its control arms, on the same test rows."""
        return against(self.clipped, self.controls)

    @property
    def run(self) -> Run:
        """The trials as a run keeps them, for whatever reads runs."""
        trials = (*(candidate.trial for candidate in self.candidates), self.baseline, self.clipped)
        kept = {trial.key: trial for trial in trials}
        rows = {rows.digest: rows for rows in self.rows}
        return Run(Path(), self.settings, kept, rows, spectra={}, models={})

    @property
    def tested(self) -> dict[str, Trial]:
        """The trials on the test rows by what they are of; where nothing is clipped, there is but
        one."""
        return {"unpruned": self.baseline} | ({"clipped": self.clipped} if self.rate else {})

    @property
    def turned(self) -> int:
        """On how many test rows clipping changed the prediction, whether it was right before, or
        after, or neither."""
        before, after = self.baseline.labelled, self.clipped.labelled
        assert before is not None
        assert after is not None
        return predictions_turned(before, after)

    def to_json(self) -> dict[str, Any]:
        paired = self.comparison
        return {
            "layer": self.layer,
            "part": self.part,
            "rate": self.rate,
            "condition_numbers": {str(k): or_null(v) for k, v in self.condition_numbers.items()},
            "candidates": [candidate.to_json() for candidate in self.candidates],
            "candidates_tried": len(self.candidates),
            "race": self.race.to_json() if self.race else None,
            "test": {
                **paired.to_json(),
                "baseline": _summary(_score(self.baseline)),
                "clipped": _summary(_score(self.clipped)),
            },
            **self._controls_json(),
            **({"guard": self.guarded.to_json()} if self.guarded else {}),
            "parameters": self.parameters,
            "labels": list(self.labels),
            "published": list(self.published),
            "notes": list(self.notes),
            "settings": self.settings,
            "seconds": sum(
                t.seconds
                for t in (
                    *(c.trial for c in self.candidates),
                    self.baseline,
                    self.clipped,
                    *self.controls,
                )
            ),
        }

    def _controls_json(self) -> dict[str, Any]:
        if not self.settings.get("controls"):
            return {}
        arms = [each.to_json() for each in self.against]
        return {"controls": {"says": self.beside(), "arms": arms}}

    def beside(self) -> str:
        """Say whether the choice beats its control arms; nothing where none were asked for."""
        if not self.settings.get("controls"):
            return ""
        if not self.controls:
            return "nothing is clipped, so there is nothing to hold control arms beside"
        return controls_sentence(self.against)

    def __str__(self) -> str:
        score = _score(self.baseline)
        metric = score.headline
        tried = f"{self.tried()} tried beside the unpruned model"
        said = [
            self.caution(),
            f"{self.settings['model']} on {self.settings['task']}: {self.verdict()}",
            f"  choice      layer {self.layer}, {self.part}, rate {self.rate:g} ({tried}, on n ="
            f" {self.chosen.seen} validation rows)",
            f"  unpruned    {_value(self.baseline, metric):.4f} {metric.replace('_', ' ')} on test,"
            f" n = {score.n}",
        ]
        if self.rate:
            said.append(f"  clipped     {_value(self.clipped, metric):.4f}")
            said.append(f"  gain        {sentence(self.comparison, metric)}")
        if self.beside():
            said.append(f"  controls    {self.beside()}")
        if self.guarded:
            said.append(f"  guard       {self.guarded}")
        return "\n".join(filter(None, said))

    def tried(self) -> str:
        """Say how many candidates there were; not to clip is none of them."""
        clipped = sum(candidate.rate > 0 for candidate in self.candidates)
        return f"{clipped} clipping rate{'s' * (clipped != 1)}"

    def verdict(self) -> str:
        """Say in words what the test set allows to be said, of how many rows and under which
        demonstrations."""
        shots = drawn(self.settings["shots"], [self.settings["seed"]])
        if self.rate == 0:
            return f"no clipping rate did better than not clipping, so nothing is clipped ({shots})"
        paired = self.comparison
        return f"{verdict(paired)} with n = {paired.n} test rows and {shots}"

    def caution(self) -> str:
        """Say that no model does better on the test rows than always giving the most frequent
        label, if so it is."""
        scores = {name: trial.score for name, trial in self.tested.items()}
        labelled = {name: score for name, score in scores.items() if isinstance(score, Score)}
        return nothing_learned(labelled) if labelled else ""


def drawn(shots: int, seeds: Sequence[int]) -> str:
    """Say of how many draws of demonstrations a result is: none where there are no
    demonstrations.

    >>> drawn(4, [7]), drawn(4, [0, 1]), drawn(0, [0])
    ('one draw of demonstrations, seed 7', '2 draws of demonstrations', 'no demonstrations')
    """
    if not shots:
        return "no demonstrations"
    if len(seeds) == 1:
        return f"one draw of demonstrations, seed {seeds[0]}"
    return f"{len(seeds)} draws of demonstrations"


def _value(trial: Trial, metric: str) -> float:
    return shown(metric, _score(trial).merits[metric])


def _score(trial: Trial) -> Outcome:
    assert trial.score is not None
    return trial.score


def _summary(score: Outcome) -> dict[str, Any]:
    return {**score.summary(), "interval": list(outcome_interval(score))}
