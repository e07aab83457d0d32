"""Runs whose truth is known: outcomes drawn from a planted gain, without a model."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from zlib import crc32

import numpy as np

from eckart.records import Edit, Row, Rows, Setting, Trial
from eckart.runs import Run, RunStore
from eckart.scoring import methods
from eckart.statistics.scores import Score


def score(labels: np.ndarray, predictions: np.ndarray, classes: int = 2) -> Score:
    values = np.where(np.arange(classes) == predictions[:, None], -0.2, -1.8)
    return replace(methods.score(values, labels.tolist(), ()), log_likelihoods=())


@dataclass
class Made:
    """A grid whose edits gain as `gain(setting, edit)` says."""

    models: tuple[str, ...] = ("made/tiny",)
    tasks: tuple[str, ...] = ("moods",)
    shots: tuple[int, ...] = (4,)
    seeds: tuple[int, ...] = (0, 1, 2)
    scorings: tuple[str, ...] = ("sum",)
    layers: tuple[int, ...] = (0, 1, 6, 7)
    parts: tuple[str, ...] = ("mlp",)
    rates: tuple[float, ...] = (0.5, 0.9, 0.99)
    rows: int = 80
    test: str = "all"
    base: float = 0.6
    text: str = "a <b>fine</b> film no. {}"
    labels: tuple[str, ...] = ("bad", "good")
    gain: object = field(default=lambda setting, edit: 0.0)
    draws: int = 0

    def split(self, split: str, seed: int) -> Rows:
        """Every seed leaves out one row, as its demonstrations would."""
        rng = np.random.default_rng(5)
        made = [
            Row(f"{split}:{i}", self.text.format(i), int(rng.integers(len(self.labels))))
            for i in range(self.rows)
        ]
        return Rows(self.labels, tuple(row for i, row in enumerate(made) if i != seed))

    def settings(self):
        grid = product(self.models, self.tasks, self.shots, self.seeds, self.scorings)
        return [Setting(*values) for values in grid]

    def edits(self):
        return [Edit(*values) for values in product(self.layers, self.parts, self.rates)]

    def trials(self) -> list[Trial]:
        made = []
        for setting in self.settings():
            for split in ("validation", "test") if self.test != "none" else ("validation",):
                made += self._scored(setting, split)
        return made

    def _scored(self, setting: Setting, split: str) -> list[Trial]:
        rows = self.split(split, setting.seed)
        labels = np.array([row.label for row in rows.rows])
        rng = np.random.default_rng([self.draws, crc32(f"{setting} {split}".encode())])
        level = rng.random(len(labels))
        before = level < self.base
        trials = [self._trial(setting, split, rows, (), labels, before)]
        for edit in self.edits():
            gain = self.gain(setting, edit)
            flip = rng.random(len(labels)) < 0.05 + abs(gain)
            after = np.where(flip, rng.random(len(labels)) < self.base + gain * 3, before)
            trials.append(self._trial(setting, split, rows, (edit,), labels, after))
        return trials

    def _trial(self, setting, split, rows, edits, labels, right) -> Trial:
        predictions = np.where(right, labels, (labels + 1) % max(len(self.labels), 2))
        key = f"{setting} {split} {edits}"
        made = score(labels, predictions, max(len(self.labels), 2))
        return Trial(key, setting, split, rows.digest, tuple(edits), score=made, seconds=0.5)

    def run(self, folder: Path = Path("made")) -> Run:
        """The run as `read_run` would give it."""
        splits = [self.split(s, seed) for s in ("validation", "test") for seed in self.seeds]
        trials = {trial.key: trial for trial in self.trials()}
        return Run(folder, self.about(), trials, {rows.digest: rows for rows in splits}, {}, {})

    def about(self) -> dict:
        return {"kind": "sweep", "study": {"test": self.test}}

    def write(self, folder: Path) -> Path:
        """The run as a folder."""
        write(self.run(folder), folder)
        return folder


def write(run: Run, folder: Path) -> None:
    with RunStore(folder, run.settings) as store:
        for rows in run.rows.values():
            store.keep_rows(rows)
        for trial in run.trials.values():
            store.keep(trial)
