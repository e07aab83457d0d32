"""Time and peak memory of one evaluation and one candidate, against rows, shots, the edited layer
or the budget.

Each line is a process of its own, so that its peak is its own.

python benchmarks/growth.py --shape 8m --vary rows=500,2000,8000,60000
python benchmarks/growth.py --shape 135m --vary shots=0,4,16,64 --rows 200
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time

import torch
from common import machine, show
from setting import arguments, setting

from eckart.records import Edit
from eckart.scoring.evaluator import Evaluator

GIB = 2**30


def main() -> None:
    parser = arguments(__doc__, shape="8m")
    parser.add_argument("--layer", type=int, default=-2)
    parser.add_argument(
        "--cache-memory", type=int, help="bytes for the states that candidates share"
    )
    parser.add_argument("--vary", default="rows=500,2000,8000", help="an option and its values")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options)))
        return
    name, _, values = options.vary.partition("=")
    print(machine())
    lines = [(value, one(name.replace("_", "-"), value)) for value in values.split(",")]
    show(
        f"{options.shape}, {options.dtype}, against {name}",
        [
            name,
            "rows",
            "prepare, s",
            "evaluation, s",
            "rows/s",
            "candidate, s",
            "cached, GiB",
            "in a file",
            "peak, GiB",
        ],
        [
            [
                value,
                f"{found['rows']:,}",
                f"{found['prepare']:.2f}",
                f"{found['evaluation']:.2f}",
                f"{found['rows'] / found['evaluation']:,.0f}",
                f"{found['candidate']:.2f}",
                f"{found['held'] / GIB:.3f}",
                f"{found['filed'] / GIB:.3f}",
                f"{found['peak'] / GIB:.2f}",
            ]
            for value, found in lines
        ],
    )


def one(name: str, value: str) -> dict[str, float]:
    """Measure one setting in a process of its own."""
    command = [sys.executable, *sys.argv, "--one", f"--{name}", value]
    return json.loads(
        subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1]
    )


def measure(options: argparse.Namespace) -> dict[str, float]:
    """Return seconds and bytes of this process."""
    evaluator = Evaluator(*setting(options), cache_memory=options.cache_memory)
    edit = Edit(options.layer, "mlp", 0.9)
    start = time.perf_counter()
    evaluator.prepare("validation")
    prepared = time.perf_counter() - start
    # The first edit pays for the factorisation.
    candidates = [(), (edit,), (Edit(options.layer, "mlp", 0.5),)]
    scored = evaluator.score(candidates, "validation")
    full, _ = next(scored), next(scored)
    held, filed = evaluator.states.held, evaluator.states.filed
    (candidate,) = scored
    peak = torch.cuda.max_memory_allocated() if options.device.startswith("cuda") else _resident()
    return {
        "rows": len(evaluator.fitted("validation").prompts),
        "prepare": prepared,
        "evaluation": full.seconds,
        "candidate": candidate.seconds,
        "held": held,
        "filed": filed,
        "peak": peak,
    }


def _resident() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main()
