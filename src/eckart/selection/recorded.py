"""What scores edits, and the same with a store behind it: what was scored once is not scored
again."""

from __future__ import annotations

from collections.abc import Sequence

from eckart.algorithm1 import Executor
from eckart.errors import NotANumberError
from eckart.records import Edit, Rows, Setting, Trial
from eckart.runs import RunStore


class Recorded:
    """An executor that asks the store first, and keeps what it had to compute.

    A trial that fails because the clipped model's outputs are not numbers is kept with its cause:
    it would fail again. Whatever else goes wrong (a full memory, say) is not kept.

    Arguments:
        executor: what scores.
        store: where trials are kept.
    """

    def __init__(self, executor: Executor, store: RunStore) -> None:
        self._executor = executor
        self._store = store

    @property
    def setting(self) -> Setting:
        """What the executor scores."""
        return self._executor.setting

    def key(self, edits: Sequence[Edit], split: str) -> str:
        """Return the executor's key."""
        return self._executor.key(edits, split)

    def rows(self, split: str) -> Rows:
        """Return the executor's rows."""
        return self._executor.rows(split)

    def __call__(self, edits: Sequence[Edit], split: str) -> Trial:
        """Return the kept trial, or score, keep and return a new one."""
        key = self.key(edits, split)
        kept = self._store.trial(key)
        if kept is not None:
            return kept
        try:
            trial = self._executor(edits, split)
        except NotANumberError as error:
            rows = self.rows(split).digest
            trial = Trial.failed(key, self.setting, split, rows, edits, error)
        if trial.rows not in self._store.row_digests():
            self._store.keep_rows(self.rows(split))
        self._store.keep(trial)
        return trial
