"""What a search costs, told apart from what was read: row-layer products, over kept trials."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from common import best_of

from eckart import Task
from eckart.algorithm1 import Scored, candidate
from eckart.records import Edits, Split
from eckart.runs import RunStore
from eckart.scoring.evaluator import Evaluator
from eckart.selection.drawn import Drawn
from eckart.selection.draws import Draws
from eckart.weights.models import LoadedModel

TIMED = 64
"""Rows that the pace is measured on."""


def products(candidates: Sequence[Edits], rows: int, depth: int) -> int:
    """Return the row-layer products of one call: rows read times layers run.

    What is read first, the unpruned model or without it the deepest candidate, goes through all
    layers; the others begin at their lowest edited layer, on the states that it left there.

    >>> products([(), (Edit(3, "mlp", 0.5),), (Edit(3, "mlp", 0.9),)], rows=10, depth=4)
    60
    """
    begins = [min((edit.layer for edit in edits), default=depth) for edits in candidates]
    later = sorted(begins)[:-1]
    return rows * (depth + sum(depth - begin for begin in later)) if begins else 0


class Ground:
    """A model and a task under one division of its rows, and what is kept of them."""

    def __init__(
        self, asked: argparse.Namespace, model: LoadedModel, store: RunStore, repeat: int
    ) -> None:
        name, _, variant = asked.task.partition(":")
        task = Task.load(
            name,
            data=asked.data,
            variant=variant or None,
            shots=asked.shots,
            split_seed=repeat,
            split_sizes=f"{asked.rows},{asked.test_rows}",
        )
        self.asked, self.store, self.repeat = asked, store, repeat
        self.draws = replace(Draws.of(Evaluator(model, task), range(asked.draws)), ledger=store)
        self.depth = len(self.draws.first.anatomy.layers)
        self.rates = [float(rate) for rate in asked.rates.split(",")]

    @property
    def reading(self) -> int:
        """The products of reading the validation rows once, in all draws."""
        return self.products([()], self.asked.rows)

    def products(self, candidates: Sequence[Edits], rows: int) -> int:
        return self.asked.draws * products(candidates, rows, self.depth)

    def of_layers(self, layers: Sequence[int]) -> list[Edits]:
        """Return the candidates of some layers, the unpruned model first."""
        part = self.asked.part
        return [(), *(candidate(layer, part, rate) for layer in layers for rate in self.rates)]

    @cached_property
    def pace(self) -> float:
        """The seconds that a row-layer product takes on this machine, measured once for the run."""

        def measured() -> float:
            scorer, rows = self.draws.first, Split.part("validation", 0, TIMED)
            scorer.prepare(rows)
            return best_of(lambda: scorer([], rows)) / (TIMED * self.depth)

        return float(self.kept("pace", measured))

    def kept(self, name: str, make: Callable[[], Any]) -> Any:
        """Return what a file of the run's folder says, made where there is none."""
        path = self.store.folder / f"{name}.json"
        if not path.exists():
            self.store.write(path.name, json.dumps(make()))
        return json.loads(path.read_text())


@dataclass
class Meter:
    """Scores validation rows for one search, and counts what it pays if nothing is kept.

    Arguments:
        looks: how often something was compared on validation rows.
        screened: the products of a screen that reads rows of its own, and
        screen_seconds: what that screen took.
    """

    ground: Ground
    read: int = 0
    looks: int = 0
    screened: int = 0
    screen_seconds: float = 0.0
    asked: set[tuple[Edits, str]] = field(default_factory=set)

    def __call__(self, candidates: Sequence[Edits], split: str) -> Iterator[Scored]:
        ground, said = self.ground, Split(split)
        fresh = [edits for edits in candidates if (edits, said) not in self.asked]
        self.asked |= {(edits, said) for edits in fresh}
        rows = (said.stop or ground.asked.rows) - (said.start or 0)
        paid = ground.products(fresh, rows)
        self.read += paid
        seconds = ground.pace * paid / len(candidates) / ground.asked.draws
        for scored in ground.draws.score(candidates, split):
            trials = tuple(replace(trial, seconds=seconds) for trial in scored.trials)
            yield replace(scored, trials=trials) if isinstance(scored, Drawn) else trials[0]

    @property
    def evaluations(self) -> int:
        """How many compositions were read, the unpruned model among them."""
        return len({edits for edits, _ in self.asked})

    @property
    def products(self) -> int:
        return self.read + self.screened

    @property
    def seconds(self) -> float:
        return self.screen_seconds + self.ground.pace * self.read
