"""How often the interval of a search over several draws holds the truth, for new demonstrations and
new rows, once one of seven rates was chosen on validation.

python benchmarks/draws.py --times 2000
"""

from __future__ import annotations

import argparse

import numpy as np
from common import show
from simulated import Noise, searched

NOISES = {"no luck": Noise(), "calm": Noise(seed=0.05), "restless": Noise(seed=0.2)}
MERITS = {
    "none gains": np.zeros(7),
    "2 of 7 gain": np.r_[np.zeros(5), 0.3, 0.3],
    "all gain alike": np.full(7, 0.3),
}
COLUMNS = {
    "clips": "clips, %",
    "truth": "true gain, points",
    "covers": "covers, %",
    "too high": "too high, %",
    "bias": "bias, points",
    "covers, same": "covers, same draws, %",
    "too high, same": "too high, same draws, %",
    "bias, same": "bias, same draws, points",
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--times", type=int, default=2000, help="simulated searches a line")
    parser.add_argument("--rows", type=int, default=400, help="of validation, and of test")
    parser.add_argument("--seeds", type=int, default=5, help="draws that choose, and that test")
    options = parser.parse_args()
    lines = {
        f"{what}, {which}": searched(noise, merits, options.seeds, options.rows, options.times)
        for which, noise in NOISES.items()
        for what, merits in MERITS.items()
    }
    show(
        f"search --seeds, {options.seeds} draws, {options.rows} rows of each split",
        ["", *COLUMNS.values()],
        [[name, *(f"{100 * line[key]:.1f}" for key in COLUMNS)] for name, line in lines.items()],
    )


if __name__ == "__main__":
    main()
