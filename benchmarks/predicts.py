"""Clip every layer of the demo's model, on its five tasks: a study for `eckart theory predicts`
that needs no download.

python benchmarks/predicts.py --out runs/layers-demo     # then: eckart theory predicts
runs/layers-demo
"""

from __future__ import annotations

import argparse
from pathlib import Path

import eckart
from eckart.demo import MODEL
from eckart.demo.corpus import TEMPLATE, write

RATES = (0.1, 0.5, 0.75, 0.9, 0.95, 0.99)
"""At 0.995 the demo's matrices have the rank that they have at 0.99: one."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--out", type=Path, default=Path("runs/layers-demo"), help="the run's folder"
    )
    parser.add_argument("--seeds", type=int, default=5, help="draws of demonstrations")
    parser.add_argument("--rows", default="150,300", help="validation and test rows")
    parser.add_argument("--rates", default=",".join(map(str, RATES)), help="clipping rates")
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    tasks = [
        {
            "data": str(folder),
            "template": TEMPLATE,
            "label_column": "label",
            "name": name,
            "split_sizes": asked.rows,
        }
        for name, folder in write(asked.out / "data").items()
    ]
    found = eckart.sweep(
        str(MODEL),
        tasks,
        layers="all",
        parts=["attn", "mlp"],
        rates=[float(rate) for rate in asked.rates.split(",")],
        shots=4,
        seeds=range(asked.seeds),
        test="all",
        out=asked.out,
        dtype="float32",
        spectra=True,
    )
    print(f"{len(found.run.trials)} trials in {asked.out}")


if __name__ == "__main__":
    main()
