"""Searches at equal cost: which layer rule and which strategy gains what, for how much reading.

python benchmarks/searches.py run MODEL --task sst2:released --data DATA --shots 4 --draws 5
--out runs/searches/small       # stop and go on at will; prints a table
python benchmarks/searches.py draw runs/searches/* --figure search.png

A cost is counted in row-layer products (`products`), and told in readings: how often the unpruned
model would read the validation rows for it, in all draws. A rule is a screen's order of layers. At
the budget `one` a search is Algorithm 1 on the rule's first layer. At a number of readings, `best`
looks at all rates of one layer after the other until they are spent, and takes what does best on
validation; `greedy` has the same candidates and the same budget. Every search is made again on
another division of the rows (`--repeats`), and its gain is the mean over these, on their test rows
under demonstrations that chose nothing.
What is kept is read once, whatever the number of searches; a search is charged as if nothing were.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from common import machine, show
from matplotlib.lines import Line2D
from matplotlib.ticker import StrMethodFormatter
from metered import Ground, Meter

from eckart.algorithm1 import Scored, best_edit
from eckart.records import Edits, Split
from eckart.runs import RunStore
from eckart.selection.course import Budget
from eckart.selection.drawn import Drawn
from eckart.selection.greedy import greedy
from eckart.selection.order import Place
from eckart.selection.plan import SCREEN_ROWS
from eckart.selection.racing import plan_looks
from eckart.selection.screens import SCREENS, Screening
from eckart.statistics.crossed import seed_and_row_mean
from eckart.statistics.multiplicity import holm
from eckart.weights.models import load_model

METRICS = ("accuracy", "log_loss")
COLOURS = dict(zip(SCREENS, ("C0", "C1", "C2", "C3", "0.5"), strict=True))
STYLES = {"best": ("o", "-"), "greedy": ("s", "--")}
ONE = "one"
BACK = 4
"""What a gradient costs in readings: forward twice, since a layer runs again before it goes back,
and back through states and weights."""
OPEN = ("verb", "out", "budgets", "orders", "repeats", "rates", "rules")
"""Options that a run may go on with otherwise: no kept trial depends on them."""


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
    run.add_argument("--rates", default="0.5,0.9,0.95,0.99")
    run.add_argument("--rules", default=",".join(SCREENS))
    run.add_argument("--rows", type=int, default=256, help="validation rows")
    run.add_argument("--test-rows", type=int, default=500)
    run.add_argument("--repeats", type=int, default=2, help="divisions of the rows")
    run.add_argument("--budgets", default="one,4,16", help="in readings of the validation rows")
    run.add_argument("--orders", type=int, default=5, help="random orders of layers")
    run.add_argument("--out", type=Path, required=True, help="where trials are kept")
    draw = verbs.add_parser("draw", help="draw gain against cost, a column a run")
    draw.set_defaults(verb=figure)
    draw.add_argument("folders", type=Path, nargs="+")
    draw.add_argument("--figure", type=Path, required=True)
    asked = parser.parse_args()
    asked.verb(asked)


@dataclass(frozen=True)
class Arm:
    """A way to search."""

    strategy: str
    rule: str
    metric: str
    budget: str

    def __str__(self) -> str:
        return f"{self.strategy}, {self.rule}"


def order_of(meter: Meter, arm: Arm, number: int) -> list[int]:
    """Return the layers in the order of a rule, which pays what it reads."""
    ground, asked = meter.ground, meter.ground.asked
    told = Screening(
        scorers=ground.draws.choosing,
        score=meter,
        every=ground.draws.every,
        places=[Place(layer, asked.part) for layer in range(ground.depth)],
        rates=ground.rates,
        metric=arm.metric,
        seed=number,
        store=ground.store,
    )

    def layers() -> list[int]:
        return [place.layer for place in SCREENS[arm.rule](told).scores]

    if arm.rule in ("validation", "random"):
        meter.looks += arm.rule == "validation"
        return layers()

    def timed() -> tuple[list[int], float]:
        begin = time.perf_counter()
        return layers(), time.perf_counter() - begin

    found, meter.screen_seconds = ground.kept(f"{arm.rule}-{ground.repeat}", timed)
    if arm.rule == "gradient":
        meter.screened = ground.products([()], BACK * SCREEN_ROWS)
    return list(found)


def affordable(meter: Meter, arm: Arm, number: int) -> list[Edits]:
    """Return the candidates that a budget pays for, the unpruned model first."""
    ground, order = meter.ground, order_of(meter, arm, number)
    if arm.budget == ONE:
        return ground.of_layers(order[:1])
    candidates, left = ground.of_layers(order), float(arm.budget) * ground.reading - meter.products
    counts = range(1, len(candidates) + 1)
    prices = [ground.products(candidates[:count], ground.asked.rows) for count in counts]
    return candidates[: max(1, sum(price <= left for price in prices))]


def search_best(meter: Meter, arm: Arm, number: int) -> Edits:
    candidates, rows = affordable(meter, arm, number), meter.ground.asked.rows
    merits = dict.fromkeys(candidates, 0.0)
    # Look by look, as a greedy search reads them: they share what is kept.
    for start, stop in pairwise((0, *plan_looks(rows))):
        for scored in meter(candidates, Split.part("validation", start, stop)):
            merits[scored.edits] += scored.score.merits[arm.metric] * (stop - start) / rows
    meter.looks += 1
    unpruned = merits.pop(())
    best = best_edit({edits[0]: merit for edits, merit in merits.items()}, unpruned)
    return (best,) if best else ()


def search_greedily(meter: Meter, arm: Arm, number: int) -> Edits:
    ground = meter.ground
    _, *candidates = affordable(meter, arm, number)
    left = float(arm.budget) * ground.reading - meter.products
    budget = Budget(minutes=ground.pace * left / 60)
    edits = [edit for (edit,) in candidates]
    course = greedy(meter, edits, ground.asked.rows, arm.metric, budget)
    meter.looks += sum(len(step.looks) for step in course.steps)
    return course.edits


STRATEGIES = {"best": search_best, "greedy": search_greedily}


@dataclass(frozen=True)
class Point:
    """What an arm costs and gains, in the mean over its searches.

    Arguments:
        readings, evaluations, looks, seconds: of a search.
        gain, interval: on the test rows, in points of accuracy.
        choices: what was chosen, and how often.
        more, more_interval, p: the gain less that of Algorithm 1, and its test.
    """

    arm: Arm
    readings: float
    evaluations: float
    looks: float
    seconds: float
    gain: float
    interval: tuple[float, float]
    choices: dict[str, int]
    more: float
    more_interval: tuple[float, float]
    p: float


def compare(asked: argparse.Namespace) -> None:
    """Make every search, and print what each costs and gains."""
    print(machine(), flush=True)
    said = {name: str(value) for name, value in vars(asked).items() if name not in OPEN}
    with RunStore(asked.out, {"kind": "searches", **said}) as store:
        model = load_model(asked.model, dtype=asked.dtype)
        grounds = [Ground(asked, model, store, repeat) for repeat in range(asked.repeats)]
        arms = [
            Arm(strategy, rule, metric, budget)
            for metric in METRICS
            for budget in asked.budgets.split(",")
            for strategy in STRATEGIES
            if (strategy, budget) != ("greedy", ONE)
            for rule in asked.rules.split(",")
        ]
        reference, points = None, []
        for arm in arms:
            points.append(measured(arm, grounds, reference))
            reference = points[0][1] if reference is None else reference
            print(f"{arm}, {arm.metric}, {arm.budget}: {points[-1][0].gain:+.2f}", flush=True)
        name = f"{Path(asked.model).stem}, {asked.task}, {asked.shots} shots, {asked.part}"
        kept = {"name": name, "points": [asdict(point) for point, _ in points]}
        store.write("searches.json", json.dumps(kept, indent=1) + "\n")
    table(name, [point for point, _ in points], asked)


def measured(
    arm: Arm, grounds: Sequence[Ground], reference: np.ndarray | None
) -> tuple[Point, np.ndarray]:
    """Make all searches of an arm; return what they are worth, and the gain of each draw and test
    row."""
    meters, choices, gains = [], Counter[str](), []
    for ground in grounds:
        found = []
        for number in range(ground.asked.orders if arm.rule == "random" else 1):
            meters.append(Meter(ground))
            found.append(STRATEGIES[arm.strategy](meters[-1], arm, number))
        choices.update(" ".join(map(str, edits)) or "nothing" for edits in found)
        tested = {each.edits: hits(each) for each in ground.draws.score(list({(), *found}), "test")}
        gains.append(100 * np.mean([tested[edits] - tested[()] for edits in found], axis=0))
    every = np.concatenate(gains, axis=1)
    gain = seed_and_row_mean(every, bounds=(-100.0, 100.0))
    more = seed_and_row_mean(
        every - (every if reference is None else reference), bounds=(-100.0, 100.0)
    )

    def mean(name: str) -> float:
        return float(np.mean([getattr(meter, name) for meter in meters]))

    point = Point(
        arm=arm,
        readings=mean("products") / grounds[0].reading,
        evaluations=mean("evaluations"),
        looks=mean("looks"),
        seconds=mean("seconds"),
        gain=gain.mean,
        interval=gain.interval,
        choices=dict(choices.most_common()),
        more=more.mean,
        more_interval=more.interval,
        p=more.p_value,
    )
    return point, every


def hits(scored: Scored) -> np.ndarray:
    """Return draws x rows: 1 where a row is right."""
    source = scored if isinstance(scored, Drawn) else scored.score
    return np.atleast_2d(source.row_values("accuracy"))


def table(name: str, points: Sequence[Point], asked: argparse.Namespace) -> None:
    adjusted = [1.0, *holm([point.p for point in points[1:]])]
    show(
        f"{name}: {asked.draws} draws, {asked.repeats} x ({asked.rows} validation +"
        f" {asked.test_rows} test) rows; points of accuracy",
        [
            "metric",
            "budget",
            "strategy, rule",
            "readings",
            "compositions",
            "looks",
            "s",
            "gain (95%)",
            "over Algorithm 1 (95%)",
            "p, Holm",
            "chosen most",
        ],
        [
            [
                point.arm.metric,
                point.arm.budget,
                str(point.arm),
                f"{point.readings:.1f}",
                f"{point.evaluations:.0f}",
                f"{point.looks:.1f}",
                f"{point.seconds:.0f}",
                ranged(point.gain, point.interval),
                ranged(point.more, point.more_interval),
                f"{p:.2g}",
                next(iter(point.choices)),
            ]
            for point, p in zip(points, adjusted, strict=True)
        ],
    )


def ranged(value: float, interval: tuple[float, float]) -> str:
    return f"{value:+.2f} ({interval[0]:+.2f} to {interval[1]:+.2f})"


def figure(asked: argparse.Namespace) -> None:
    """Draw gain against cost: a column a run, a row a metric, a line a strategy and rule."""
    runs = [json.loads((folder / "searches.json").read_text()) for folder in asked.folders]
    drawn, panels = plt.subplots(
        len(METRICS), len(runs), figsize=(4.2 * len(runs), 6.6), squeeze=False, sharey="col"
    )
    for column, run in zip(panels.T, runs, strict=True):
        for panel, metric in zip(column, METRICS, strict=True):
            draw_panel(panel, [p for p in run["points"] if p["arm"]["metric"] == metric])
            panel.set_title(f"{run['name']}\nchosen by {metric.replace('_', '-')}", fontsize=9)
    for panel in panels[:, 0]:
        panel.set_ylabel("gain on test, points of accuracy")
    for panel in panels[-1]:
        panel.set_xlabel("cost, in readings of the validation rows")
    rules = [Line2D([], [], color=colour, label=rule) for rule, colour in COLOURS.items()]
    styles = [
        Line2D([], [], color="black", linestyle=line, marker=mark, label=strategy)
        for strategy, (mark, line) in STYLES.items()
    ]
    drawn.legend(handles=[*rules, *styles], loc="lower center", ncols=len(rules) + len(styles))
    drawn.tight_layout(rect=(0, 0.05, 1, 1))
    drawn.savefig(asked.figure, dpi=110)


def draw_panel(panel: Any, points: Sequence[dict[str, Any]]) -> None:
    lines: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for point in sorted(points, key=lambda point: point["readings"]):
        lines[point["arm"]["strategy"], point["arm"]["rule"]].append(point)
    for (strategy, rule), own in lines.items():
        cost, gain = ([point[name] for point in own] for name in ("readings", "gain"))
        low, high = zip(*(point["interval"] for point in own), strict=True)
        mark, line = STYLES[strategy]
        look = {"color": COLOURS[rule], "linewidth": 1}
        panel.plot(cost, gain, marker=mark, linestyle=line, markersize=5, **look)
        panel.vlines(cost, low, high, alpha=0.4, **look)
    panel.axhline(0, color="0.6", linewidth=0.8)
    panel.set_xscale("log", base=2)
    panel.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))


if __name__ == "__main__":
    main()
