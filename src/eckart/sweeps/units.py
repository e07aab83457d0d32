"""What is done of a sweep in one place: a model is looked at, a unit is scored. Nothing here knows
where it is kept."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import groupby
from typing import Any

from eckart.errors import NotANumberError
from eckart.records import Edit, Rows, Setting, Trial, best_edit, finite, select_layer
from eckart.scoring.evaluator import most_tokens
from eckart.scoring.scorer import Scorer
from eckart.sweeps.grid import Sweep, Unit, cells
from eckart.weights.anatomy import Anatomy
from eckart.weights.conditioning import (
    Noted,
    Spectra,
    exact_matrices,
    layer_condition_numbers,
    spectra,
)
from eckart.weights.hooks import HALF
from eckart.weights.models import LoadedModel


@dataclass(frozen=True)
class Facts:
    """What a sweep must know of a model before its units.

    Arguments:
        name: as the sweep names it.
        fingerprint, dtype: which weights it has, and what they are computed in.
        layers: the layers of each part that are edited.
        condition_numbers: of each part by layer, where they were measured; null where a matrix is
            singular.
        spectra: under which names the spectra of its matrices are kept.
        batch_tokens: in half precision the most tokens in a batch, on which the last bits depend.
    """

    name: str
    fingerprint: str
    dtype: str
    layers: dict[str, list[int]]
    condition_numbers: dict[str, dict[str, float | None]]
    spectra: list[str]
    batch_tokens: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


@dataclass(frozen=True)
class Same:
    """A trial that was computed for another unit, and is this setting's too: both ask the model the
    very same.

    Two seeds may draw the same demonstrations; a task or a model may stand in a sweep under two
    names.

    Arguments:
        key: the trial's.
        setting: what asks for it again.
    """

    key: str
    setting: Setting


Finding = Rows | Trial | Same
"""What comes out of a unit as it runs."""


@dataclass
class Known:
    """What was found before, and so is not computed again.

    Arguments:
        outcomes: the merits of every trial by its key; None for one that failed.
        settings: what each trial is of; units that ask the same share it.
        rows: the digests of the rows that are kept.
    """

    outcomes: dict[str, dict[str, float] | None] = field(default_factory=dict)
    settings: dict[str, frozenset[Setting]] = field(default_factory=dict)
    rows: set[str] = field(default_factory=set)

    def about(self, unit: Unit) -> Known:
        """Return what is known of a unit."""
        keys = [key for key, settings in self.settings.items() if any(map(unit.has, settings))]
        return Known(
            {key: self.outcomes[key] for key in keys},
            {key: self.settings[key] for key in keys},
            self.rows,
        )

    def add(self, found: Finding) -> None:
        """Remember a trial or rows."""
        if isinstance(found, Rows):
            self.rows.add(found.digest)
            return
        if isinstance(found, Trial):
            self.outcomes[found.key] = None if found.score is None else found.score.merits
        self.settings[found.key] = self.settings.get(found.key, frozenset()) | {found.setting}


def look_at(model: LoadedModel, sweep: Sweep, store: Spectra) -> Facts:
    """Settle which layers of a model a sweep edits, and measure its spectra where they are asked
    for."""
    given, noted = sweep.layers_of(Anatomy.of(model.model)), Noted(store)
    conditions: dict[str, dict[int, float]] = {}
    if given is None or sweep.spectra:
        for part in sweep.parts:
            found = spectra(exact_matrices(model, part), store=noted, device=model.model.device)
            conditions[part] = layer_condition_numbers(found, sweep.combine)
    return Facts(
        name=model.name,
        fingerprint=model.fingerprint,
        dtype=model.dtype,
        layers={
            part: [select_layer(conditions[part], sweep.top_k)] if given is None else given
            for part in sweep.parts
        },
        condition_numbers={
            part: {str(layer): finite(value) for layer, value in found.items()}
            for part, found in conditions.items()
        },
        spectra=list(dict.fromkeys(noted.names)),
        batch_tokens=most_tokens(model, sweep.batch_tokens) if model.model.dtype in HALF else None,
    )


def run_unit(
    sweep: Sweep, scorer: Scorer, layers: Mapping[str, Sequence[int]], metric: str, known: Known
) -> Iterator[Finding]:
    """Score a unit's edits, and yield what is not known yet, as it is found: validation, then test.

    Arguments:
        sweep: parts, rates, scorings, and what is tested.
        scorer: of the unit's model and task.
        layers: the layers of each part.
        metric: what is compared on validation.
        known: what was found before; what is found is added.
    """
    scorings = sweep.scorings or (scorer.method,)
    grid: dict[tuple[Edit, ...], tuple[str, ...]] = {
        (): scorings,
        **{(edit,): scorings for edit in cells(sweep, layers)},
    }
    work = _Work(scorer, known)
    yield from work.score(grid, "validation")
    if sweep.test == "all":
        yield from work.score(grid, "test")
    if sweep.test == "selected":
        yield from work.score(work.chosen(sweep.parts, grid, scorings, metric), "test")


@dataclass(frozen=True)
class _Work:
    """Scoring edits that are not known yet."""

    scorer: Scorer
    known: Known

    def score(
        self, wanted: Mapping[tuple[Edit, ...], Iterable[str]], split: str
    ) -> Iterator[Finding]:
        """Yield what is not known of these edits under these scorings: rows first, then trial by
        trial."""
        yield from map(self._found, list(self._shared(wanted, split)))
        missing = {
            edits: self._missing(edits, split, scorings) for edits, scorings in wanted.items()
        }
        missing = {edits: scorings for edits, scorings in missing.items() if scorings}
        if not missing:
            return
        rows = self.scorer.rows(split)
        if rows.digest not in self.known.rows:
            yield self._found(rows)
        self.scorer.expect([edit for edits in missing for edit in edits])
        for layer, group in groupby(
            missing.items(), key=lambda item: item[0][0].layer if item[0] else None
        ):
            for edits, scorings in group:
                for trial in self._trials(edits, split, scorings):
                    yield self._found(trial)
            if layer is not None:
                self.scorer.release(layer)
        self.scorer.expect(())  # nothing more is to come of this split, so nothing need be kept

    def chosen(
        self,
        parts: Iterable[str],
        grid: Iterable[tuple[Edit, ...]],
        scorings: Iterable[str],
        metric: str,
    ) -> dict[tuple[Edit, ...], list[str]]:
        """Return what is tested, and under which scorings: the unpruned model, and each part's best
        on validation."""
        tested: dict[tuple[Edit, ...], list[str]] = {(): []}
        grid = list(grid)
        for scoring in scorings:
            values = {edits: self._outcome(edits, scoring, metric) for edits in grid}
            unpruned = values[()]
            if unpruned is None:
                continue
            tested[()].append(scoring)
            for part in parts:
                of_part = {
                    e[0]: v for e, v in values.items() if e and v is not None and e[0].part == part
                }
                best = best_edit(of_part, unpruned)
                if best is not None:
                    tested.setdefault((best,), []).append(scoring)
        return dict(sorted(tested.items(), key=lambda item: [-edit.layer for edit in item[0]]))

    def _outcome(self, edits: tuple[Edit, ...], scoring: str, metric: str) -> float | None:
        outcome = self.known.outcomes[self.scorer.key(edits, "validation", scoring)]
        return None if outcome is None else outcome[metric]

    def _shared(
        self, wanted: Mapping[tuple[Edit, ...], Iterable[str]], split: str
    ) -> Iterator[Same]:
        """Yield the trials that are known of other settings alone."""
        for edits, scorings in wanted.items():
            for scoring in scorings:
                key = self.scorer.key(edits, split, scoring)
                setting = replace(self.scorer.setting, scoring=scoring)
                if key in self.known.outcomes and setting not in self.known.settings[key]:
                    yield Same(key, setting)

    def _missing(self, edits: tuple[Edit, ...], split: str, scorings: Iterable[str]) -> list[str]:
        return [s for s in scorings if self.scorer.key(edits, split, s) not in self.known.outcomes]

    def _found(self, found: Any) -> Any:
        self.known.add(found)
        return found

    def _trials(self, edits: tuple[Edit, ...], split: str, scorings: Sequence[str]) -> list[Trial]:
        """Return the trials; those of a clipped model whose outputs are no numbers fail for
        good."""
        try:
            return self.scorer.trials(edits, split, scorings)
        except NotANumberError as error:
            return [self._failed(edits, split, scoring, error) for scoring in scorings]

    def _failed(self, edits: tuple[Edit, ...], split: str, scoring: str, error: Exception) -> Trial:
        key, rows = self.scorer.key(edits, split, scoring), self.scorer.rows(split).digest
        return Trial.failed(
            key, replace(self.scorer.setting, scoring=scoring), split, rows, edits, error
        )
