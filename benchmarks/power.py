"""Whether the power that is said is the power that is had: docs/statistics.md.

python benchmarks/power.py --times 2000
"""

from __future__ import annotations

import argparse

from common import show
from simulated import told

from eckart.statistics.power import POWER, Design

ONE = [(0.05, 872), (0.1, 200), (0.1, 872), (0.3, 56), (0.3, 400)]
SEVERAL = [
    *((0.1, draws, between, 400) for draws in (3, 5, 10) for between in (0.0, 0.02)),
    (0.05, 5, 0.0, 800),
    (0.3, 5, 0.05, 200),
    (0.3, 10, None, 1000),
]
SHARED = (0.0, 0.5, 0.9, 1.0)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--times", type=int, default=2000, help="simulated tests a number")
    times = parser.parse_args().times
    lines = []
    for turns, rows in ONE:
        design = Design(turns)
        gain, needed = design.smallest(rows), int(design.rows(0.05)) if turns > 0.05 else None
        on_needed = f"{told(design, 0.05, needed, times):.3f}" if needed else ""
        lines.append(
            [
                *(f"{turns:.0%}", str(rows), f"{100 * gain:.1f}"),
                *(f"{told(design, gain, rows, times):.3f}", str(needed or ""), on_needed),
            ]
        )
    show(
        f"one draw, {POWER:.0%} said",
        ["turn", "rows", "smallest gain", "told", "rows for 5 points", "told"],
        lines,
    )
    lines = []
    for turns, draws, between, rows in SEVERAL:
        design = Design(turns, draws, between)
        gain = design.smallest(rows)
        rates = (told(design, gain, rows, times, shared) for shared in SHARED)
        differ = f"{100 * design.spread:.1f}"
        lines.append(
            [
                *(f"{turns:.0%}", str(draws), differ, str(rows), f"{100 * gain:.1f}"),
                *(f"{rate:.3f}" for rate in rates),
            ]
        )
    show(
        f"several draws, {POWER:.0%} said; told by how much of a row's part all draws share",
        ["turn", "draws", "differ by", "rows", "smallest gain", *(f"{s:g}" for s in SHARED)],
        lines,
    )


if __name__ == "__main__":
    main()
