"""Searches at equal cost: which layer rule and which strategy gains what, for how much reading.

    python benchmarks/searches.py run MODEL --task sst2:released --data DATA --shots 4 --draws 5 \\
        --out runs/searches/small-sst2        # stop and go on at will; prints a table
    python benchmarks/searches.py draw runs/searches/* --figure search.png

A cost is counted in row-layer products (`products`), and told in readings: how often the unpruned
model would read a search's validation rows for it. A rule is an order of layers. Where the budget
is `one`, a search is Algorithm 1 with that rule's first layer; else all rates of one layer after
the other are looked at until the budget is spent, and the best on validation is the choice. Every
search is made again on other validation rows (`--repeats`), and its gain is the mean over these, on
one set of test rows and all draws of demonstrations: what a search gains in expectation.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from random import Random
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from common import best_of, machine, show

from eckart import Task
from eckart.algorithm1 import best_edit, candidate, worst_layer
from eckart.records import Edits, Split
from eckart.runs import RunStore
from eckart.scoring.evaluator import Evaluator
from eckart.selection.recorded import Recorded
from eckart.statistics.crossed import seed_and_row_mean
from eckart.weights.conditioning import layer_condition_numbers
from eckart.weights.models import load_model
from eckart.weights.spectrum import exact_matrices, spectra

METRICS = ("accuracy", "log_loss")
COLOURS = {
    "condition number": "C0",
    "gradient": "C1",
    "validation": "C2",
    "last": "C3",
    "random": "0.5",
}
ONE = "one"
TIMED = 64


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = parser.add_subparsers(required=True)
    run = verbs.add_parser("run", help="make all searches on one model and task")
    run.set_defaults(verb=compare)
    run.add_argument("model")
    run.add_argument("--task", required=True, help="TASK or TASK:VARIANT")
    run.add_argument("--data", required=True)
    run.add_argument("--shots", type=int, default=0)
    run.add_argument("--draws", type=int, default=1, help="seeds of demonstrations")
    run.add_argument("--dtype", default="auto")
    run.add_argument("--part", default="mlp")
    run.add_argument("--rates", default="0.5,0.75,0.9,0.95,0.99")
    run.add_argument("--rows", type=int, default=200, help="validation rows of a search")
    run.add_argument("--repeats", type=int, default=2, help="searches, each on rows of its own")
    run.add_argument("--test-rows", type=int, default=1000)
    run.add_argument("--budgets", default="one,4,8,16", help="in readings of the validation rows")
    run.add_argument("--random-orders", type=int, default=5)
    run.add_argument("--out", type=Path, required=True, help="where trials are kept, and resume")
    draw = verbs.add_parser("draw", help="draw gain against cost, a panel a folder")
    draw.set_defaults(verb=figure)
    draw.add_argument("folders", type=Path, nargs="+")
    draw.add_argument("--figure", type=Path, required=True)
    asked = parser.parse_args()
    asked.verb(asked)


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


@dataclass(frozen=True)
class Mean:
    """Edits scored over all draws: for each metric, draws x rows."""

    edits: Edits
    values: dict[str, np.ndarray]


class Setting:
    """A model on a task, and the trials of it that are kept: what all searches are made on."""

    def __init__(self, asked: argparse.Namespace, store: RunStore) -> None:
        name, _, variant = asked.task.partition(":")
        task = Task.load(
            name,
            data=asked.data,
            variant=variant or None,
            shots=asked.shots,
            split_sizes=f"{asked.rows * asked.repeats},{asked.test_rows}",
        )
        self.asked, self.store = asked, store
        self.model = load_model(asked.model, dtype=asked.dtype)
        self.scorers = [Evaluator(self.model, task.redrawn(seed=s)) for s in range(asked.draws)]
        self.depth = len(self.scorers[0].anatomy.layers)
        self.rates = [float(rate) for rate in asked.rates.split(",")]

    def score(self, candidates: Sequence[Edits], split: str) -> Iterator[Mean]:
        found: dict[Edits, list[Any]] = {edits: [] for edits in candidates}
        for scorer in self.scorers:
            for trial in Recorded(scorer, self.store, shared=True).score(candidates, split):
                found[trial.edits].append(trial.labelled)
        for edits, scores in found.items():
            yield Mean(edits, {m: np.array([s.row_values(m) for s in scores]) for m in METRICS})

    @property
    def reading(self) -> int:
        """The products of reading a search's validation rows once, in all draws."""
        return self.products([()], self.asked.rows)

    def products(self, candidates: Sequence[Edits], rows: int) -> int:
        return len(self.scorers) * products(candidates, rows, self.depth)

    def of_layers(self, layers: Sequence[int]) -> list[Edits]:
        """Return the candidates of some layers, the unpruned model first."""
        part = self.asked.part
        return [(), *(candidate(layer, part, rate) for layer in layers for rate in self.rates)]

    @cached_property
    def condition_numbers(self) -> dict[int, float]:
        weights = exact_matrices(self.model, self.asked.part)
        return layer_condition_numbers(spectra(weights, store=self.store), "geometric")

    @cached_property
    def pace(self) -> float:
        """The seconds that a row-layer product takes on this machine, kept with the run."""
        path = self.store.folder / "pace.json"
        if not path.exists():
            scorer, rows = self.scorers[0], Split.part("validation", 0, TIMED)
            scorer.prepare(rows)
            seconds = best_of(lambda: scorer([], rows)) / (TIMED * self.depth)
            path.write_text(json.dumps(seconds))
        return float(json.loads(path.read_text()))


@dataclass
class Meter:
    """Scores the validation rows of one search, and counts what it would pay if nothing were kept.

    Arguments:
        setting: what scores.
        repeat: which rows are this search's.
        seconds: of what reads no rows.
    """

    setting: Setting
    repeat: int
    products: int = 0
    evaluations: int = 0
    looks: int = 0
    seconds: float = 0.0
    asked: set[tuple[Edits, str]] = field(default_factory=set)

    def __call__(self, candidates: Sequence[Edits], split: str) -> Iterator[Mean]:
        """Score candidates on `validation`, or on some of it."""
        said, rows = Split(split), self.setting.asked.rows
        start, stop = said.start or 0, said.stop or rows
        first = self.repeat * rows
        place = Split.part("validation", first + start, first + stop)
        fresh = [edits for edits in candidates if (edits, place) not in self.asked]
        self.asked |= {(edits, place) for edits in fresh}
        self.products += self.setting.products(fresh, stop - start)
        self.evaluations += len(fresh)
        self.looks += bool(fresh)
        return self.setting.score(candidates, place)


Rule = Callable[[Meter, int], Sequence[int]]
"""Gives an order of layers; the number is a random order's."""


def by_condition_number(meter: Meter, number: int) -> list[int]:
    found = meter.setting.condition_numbers
    first = worst_layer(found)
    return [first, *sorted(found.keys() - {first}, key=lambda layer: -found[layer])]


def last(meter: Meter, number: int) -> list[int]:
    return list(range(meter.setting.depth))[::-1]


def at_random(meter: Meter, number: int) -> list[int]:
    layers = list(range(meter.setting.depth))
    Random(f"order {number}").shuffle(layers)
    return layers


RULES: dict[str, Rule] = {
    "condition number": by_condition_number,
    "last": last,
    "random": at_random,
}


@dataclass(frozen=True)
class Arm:
    """A way to search."""

    strategy: str
    rule: str
    metric: str
    budget: str


@dataclass(frozen=True)
class Point:
    """What an arm costs and gains, in the mean over its searches.

    Arguments:
        readings, evaluations, looks, seconds: of a search.
        gain, interval: on the test rows, in points of accuracy.
        choices: what was chosen, and how often.
        less, less_interval, p: the gain less that of the condition number at the same budget and
            metric, with its test.
    """

    arm: Arm
    readings: float
    evaluations: float
    looks: float
    seconds: float
    gain: float
    interval: tuple[float, float]
    choices: dict[str, int]
    less: float = 0.0
    less_interval: tuple[float, float] = (0.0, 0.0)
    p: float = 1.0


def best_of_layers(meter: Meter, arm: Arm, number: int) -> Edits:
    """Look at the rates of one layer after the other, as far as the budget goes."""
    setting = meter.setting
    order = list(RULES[arm.rule](meter, number))
    candidates = setting.of_layers(order[:1] if arm.budget == ONE else order)
    if arm.budget != ONE:
        left = float(arm.budget) * setting.reading - meter.products
        counts = range(1, len(candidates) + 1)
        paid = [setting.products(candidates[:count], setting.asked.rows) for count in counts]
        candidates = candidates[: max(1, sum(price <= left for price in paid))]
    merits = {
        each.edits: float(each.values[arm.metric].mean())
        for each in meter(candidates, "validation")
    }
    unpruned = merits.pop(())
    best = best_edit({edits[0]: merit for edits, merit in merits.items()}, unpruned)
    return (best,) if best else ()


Strategy = Callable[[Meter, Arm, int], Edits]
STRATEGIES: dict[str, Strategy] = {"best of layers": best_of_layers}


def compare(asked: argparse.Namespace) -> None:
    """Make every search, and print what each costs and gains."""
    print(machine(), flush=True)
    said = {name: str(value) for name, value in vars(asked).items() if name not in OPEN}
    with RunStore(asked.out, {"kind": "searches", **said}) as store:
        setting = Setting(asked, store)
        arms = [
            Arm(strategy, rule, metric, budget)
            for metric in METRICS
            for budget in asked.budgets.split(",")
            for strategy in STRATEGIES
            for rule in RULES
        ]
        points: list[Point] = []
        reference = np.zeros(0)
        for arm in arms:
            found, gains = measured(setting, arm)
            if (arm.strategy, arm.rule) == next(iter(zip(STRATEGIES, RULES, strict=False))):
                reference = gains
            points.append(against(found, gains - reference))
            print(f"{arm} {found.gain:+.2f}", flush=True)
        name = f"{Path(asked.model).stem}, {asked.task}, {asked.shots} shots"
        kept = {"name": name, "points": [asdict(point) for point in points]}
        store.write("searches.json", json.dumps(kept, indent=1) + "\n")
    table(name, points, setting)


OPEN = ("verb", "out", "budgets", "random_orders", "rates", "repeats")
"""Options that a run may go on with otherwise: no kept trial depends on them."""


def measured(setting: Setting, arm: Arm) -> tuple[Point, np.ndarray]:
    """Make all searches of an arm; return what they are worth, and the mean gain of each draw and
    test row."""
    asked = setting.asked
    numbers = range(asked.random_orders if arm.rule == "random" else 1)
    searches = [
        (meter, STRATEGIES[arm.strategy](meter, arm, number))
        for number in numbers
        for meter in (Meter(setting, repeat) for repeat in range(asked.repeats))
    ]
    choices = Counter(" ".join(map(str, edits)) or "nothing" for _, edits in searches)
    tested = {
        each.edits: each.values["accuracy"]
        for each in setting.score(list({(), *(edits for _, edits in searches)}), "test")
    }
    gains = 100 * np.mean([tested[edits] - tested[()] for _, edits in searches], axis=0)
    estimate = seed_and_row_mean(gains, bounds=(-100.0, 100.0))
    mean = {
        name: float(np.mean([getattr(meter, name) for meter, _ in searches]))
        for name in ("products", "evaluations", "looks", "seconds")
    }
    point = Point(
        arm=arm,
        readings=mean["products"] / setting.reading,
        evaluations=mean["evaluations"],
        looks=mean["looks"],
        seconds=mean["seconds"] + setting.pace * mean["products"],
        gain=estimate.mean,
        interval=estimate.interval,
        choices=dict(choices.most_common()),
    )
    return point, gains


def against(point: Point, less: np.ndarray) -> Point:
    """Return a point with its distance from the reference's."""
    found = seed_and_row_mean(less, bounds=(-100.0, 100.0))
    return replace(point, less=found.mean, less_interval=found.interval, p=found.p_value)


def table(name: str, points: Sequence[Point], setting: Setting) -> None:
    asked = setting.asked
    show(
        f"{name}: {asked.part}, {asked.draws} draws, {asked.repeats} searches of {asked.rows} rows,"
        f" {asked.test_rows} test rows; points of accuracy, 95% intervals",
        [
            "metric",
            "budget",
            "strategy, rule",
            "readings",
            "evaluations",
            "looks",
            "s",
            "gain",
            "less the condition number's",
            "p",
            "chosen most",
        ],
        [
            [
                point.arm.metric,
                point.arm.budget,
                f"{point.arm.strategy}, {point.arm.rule}",
                f"{point.readings:.1f}",
                f"{point.evaluations:.0f}",
                f"{point.looks:.1f}",
                f"{point.seconds:.0f}",
                ranged(point.gain, point.interval),
                ranged(point.less, point.less_interval),
                f"{point.p:.2g}",
                next(iter(point.choices)),
            ]
            for point in points
        ],
    )


def ranged(value: float, interval: tuple[float, float]) -> str:
    return f"{value:+.2f} ({interval[0]:+.2f} to {interval[1]:+.2f})"


def figure(asked: argparse.Namespace) -> None:
    """Draw gain against cost: a column a setting, a row a metric, a line a strategy and rule."""
    kept = [json.loads((folder / "searches.json").read_text()) for folder in asked.folders]
    drawn, panels = plt.subplots(
        len(METRICS),
        len(kept),
        figsize=(5 * len(kept), 3.6 * len(METRICS)),
        squeeze=False,
        sharex="col",
        sharey="col",
    )
    for column, run in enumerate(kept):
        for row, metric in enumerate(METRICS):
            panel = panels[row, column]
            lines: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
            for point in run["points"]:
                if point["arm"]["metric"] == metric:
                    lines[point["arm"]["strategy"], point["arm"]["rule"]].append(point)
            for (strategy, rule), points in lines.items():
                ordered = sorted(points, key=lambda point: point["readings"])
                x, y = ([point[name] for point in ordered] for name in ("readings", "gain"))
                low, high = zip(*(point["interval"] for point in ordered), strict=True)
                panel.errorbar(
                    x,
                    y,
                    [np.subtract(y, low), np.subtract(high, y)],
                    fmt="o-" if strategy == "best of layers" else "s--",
                    color=COLOURS[rule],
                    label=f"{strategy}, {rule}",
                    capsize=2,
                    linewidth=1,
                    markersize=4,
                )
            panel.axhline(0, color="0.6", linewidth=0.8)
            panel.set_xscale("log")
            panel.set_title(f"{run['name']}\nchosen by {metric}", fontsize=9)
            panel.set_xlabel("cost, in readings of the validation rows")
            panel.set_ylabel("gain on test, points")
    panels[0, 0].legend(fontsize=7)
    drawn.tight_layout()
    drawn.savefig(asked.figure, dpi=110)


if __name__ == "__main__":
    main()
