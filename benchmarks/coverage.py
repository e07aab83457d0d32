"""How often the intervals of docs/statistics.md hold the truth, and how often its tests find what
is not there.

python benchmarks/coverage.py --times 2000 --studies 400
"""

from __future__ import annotations

import argparse

import numpy as np
from common import show
from simulated import Noise, best_of_many, choice, correlation, mean, rule, steadiness

STILL, CALM, RESTLESS = Noise(), Noise(seed=0.05), Noise(seed=0.2)
NOISES = {
    "rows alone": Noise(row_of_edit=0.8, chance=0.2),
    "seeds alone": Noise(row=0.1, row_of_edit=0.1, seed=0.5, chance=0.8),
    "both": Noise(seed=0.15, chance=0.6),
    "chance": Noise(row=0.0, row_of_edit=0.1, chance=1.0),
}
FOUR = np.r_[np.full(4, 0.3), np.zeros(60)]
MERITS = {
    "64 null": np.zeros(64),
    "4 of 64 gain": FOUR,
    "4 gain a little": FOUR / 3,
    "60 lose": FOUR - 0.3,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--times", type=int, default=2000, help="simulated cells a line, for the mean"
    )
    parser.add_argument(
        "--studies", type=int, default=400, help="simulated studies a line, for all else"
    )
    options = parser.parse_args()
    print(
        f"one standard error of a 0.95: {error(options.times):.3f} (means),"
        f" {error(options.studies):.3f} (all else)"
    )
    print_means(options.times)
    print_choices(options.studies)
    print_claims(options.studies)


def error(times: int) -> float:
    return float(np.sqrt(0.95 * 0.05 / times))


def print_means(times: int) -> None:
    lines = {
        f"{name}, merit {merit:g}, {seeds} seeds, {rows} rows": mean(
            noise, merit, seeds, rows, times
        )
        for name, noise in NOISES.items()
        for merit in (0.0, 0.5)
        for seeds, rows in ((3, 200), (5, 56), (5, 200))
    }
    lines |= {
        f"no seed effect, merit {merit:g}, 1 seed, {rows} rows": mean(STILL, merit, 1, rows, times)
        for merit in (0.0, 0.5)
        for rows in (56, 200)
    }
    lines |= {
        f"{name}, merit 0, 2 seeds, 200 rows": mean(noise, 0.0, 2, 200, times)
        for name, noise in NOISES.items()
    }
    print_table(
        "seed_and_row_mean: coverage of 95% intervals; share of p values at most 0.05", lines
    )


def print_choices(times: int) -> None:
    designs = (("1 seed", STILL, 1), ("5 calm seeds", CALM, 5), ("5 restless seeds", RESTLESS, 5))
    cases = [
        (f"{what}, {which}", noise, merits, seeds)
        for which, noise, seeds in designs
        for what, merits in MERITS.items()
    ]
    lines = {name: choice(noise, merits, seeds, 200, times) for name, noise, merits, seeds in cases}
    print_table(
        "selected_gain, 200 rows: mean of the truth and of three estimates; coverage", lines
    )
    lines = {
        name: best_of_many(noise, merits, seeds, 200, times) for name, noise, merits, seeds in cases
    }
    print_table("the best of 64 cells, 200 rows: share of p values at most 0.05", lines)


def print_claims(times: int) -> None:
    designs = (("1 seed", STILL, 1), ("5 calm seeds", CALM, 5), ("5 restless seeds", RESTLESS, 5))
    losses = ((0.0, 0.0), (0.02, 0.3), (0.1, 0.15), (0.3, 0.3))
    lines = {
        f"deep {deep:g}, shallow {shallow:g}, {which}": steadiness(
            noise, deep, shallow, seeds, 200, times
        )
        for which, noise, seeds in designs
        for deep, shallow in losses
    }
    print_table(
        "stability, 6 layers, 8 rates, 200 rows: a deep layer's spread; coverage; false calls",
        lines,
    )
    layers = {
        "28 alike": np.zeros(28),
        "28 rising": np.linspace(-0.5, 0.3, 28),
        "one good": np.r_[np.zeros(27), 0.5],
    }
    lines = {
        f"{what}, the last chosen, {which}": rule(noise, merits, 27, seeds, 200, times)
        for which, noise, seeds in designs
        for what, merits in layers.items()
    }
    print_table("layer_rule, 200 rows: coverage", lines)
    lines = {
        f"{groups} groups of {units}, correlation {strength:g}, {between:g} between": correlation(
            groups, units, between, strength, times
        )
        for groups, units in ((4, 12), (6, 20), (12, 10), (30, 1))
        for between in (0.2, 0.7)
        for strength in (0.0, 0.8)
    }
    print_table("rank_correlation: coverage", lines)


def print_table(title: str, lines: dict[str, dict[str, float]]) -> None:
    columns = list(next(iter(lines.values())))
    show(
        title,
        ["", *columns],
        [[name, *(f"{line[c]:.3f}" for c in columns)] for name, line in lines.items()],
    )


if __name__ == "__main__":
    main()
