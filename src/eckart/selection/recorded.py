"""The ledger of a run, and scoring with it: what was scored once is not scored again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Protocol

from eckart.records import Edits, Rows, Setting, Trial
from eckart.scoring.scorer import Candidates, Scorer


class Ledger(Protocol):
    """Whatever keeps trials and the rows that they are of."""

    def trial(self, key: str) -> Trial | None:
        """Return the trial with this key, whatever setting it was scored for."""
        ...

    def keep(self, trial: Trial) -> None:
        """Keep a trial for good."""
        ...

    def keep_same(self, key: str, setting: Setting) -> Trial | None:
        """Keep a trial once more as another setting's, and return it; None if it is kept so."""
        ...

    def keep_rows(self, rows: Rows) -> None:
        """Keep the rows of a split, unless they are kept."""
        ...


class Recorded:
    """A scorer that asks a ledger first, and keeps what it had to compute, trial by trial.

    A trial that failed is kept with its cause: it would fail again. Whatever else goes wrong (a
    full memory, say) is raised, and not kept.

    Arguments:
        scorer: what scores.
        ledger: where trials are kept; None keeps nothing.
        shared: the ledger is of several settings, and each is to have its trials; otherwise a trial
            is this setting's, wherever the model lay when it was kept.
        watch: told of every trial that is kept now, and was not before.
    """

    def __init__(
        self,
        scorer: Scorer,
        ledger: Ledger | None,
        *,
        shared: bool = False,
        watch: Callable[[Trial], None] = lambda trial: None,
    ) -> None:
        self.scorer = scorer
        self.ledger = ledger
        self.shared = shared
        self.watch = watch

    def score(
        self, candidates: Candidates, split: str, scorings: Sequence[str] = ()
    ) -> Iterator[Trial]:
        """Yield a trial of each candidate by each scoring: those that are kept, then new ones.

        Arguments, Raises: as `Scorer.score`.
        """
        missing: dict[Edits, dict[str, str]] = {}
        for edits, keys in self.scorer.asked(candidates, split, scorings).items():
            for scoring, key in keys.items():
                kept = self._kept(key, scoring)
                if kept is None:
                    missing.setdefault(edits, {})[scoring] = key
                else:
                    yield kept
        if not missing:
            return
        if self.ledger is not None:
            self.ledger.keep_rows(self.scorer.rows(split))
        for trial in self.scorer.answer(missing, split):
            if self.ledger is not None:
                self.ledger.keep(trial)
            self.watch(trial)
            yield trial

    def has(self, candidates: Candidates, split: str, scorings: Sequence[str] = ()) -> bool:
        """Whether every trial that is asked for is kept."""
        asked = self.scorer.asked(candidates, split, scorings).values()
        keys = [key for keys in asked for key in keys.values()]
        return self.ledger is not None and all(map(self.ledger.trial, keys))

    def _kept(self, key: str, scoring: str) -> Trial | None:
        if self.ledger is None:
            return None
        kept = self.ledger.trial(key)
        setting = replace(self.scorer.setting, scoring=scoring)
        if kept is None or kept.setting == setting or not self.shared:
            return kept
        # Two seeds may draw the same demonstrations, and a model or a task may stand in a sweep
        # under two names: both settings ask the model the very same.
        same = self.ledger.keep_same(key, setting)
        if same is not None:
            self.watch(same)
        return same or replace(kept, setting=setting, seconds=0.0)
