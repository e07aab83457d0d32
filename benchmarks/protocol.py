"""The paper's whole SST-2 protocol (C.3): 8,000 validation rows at eight rates, 59,000 test rows
unpruned and clipped.

Of the 67,349 phrases 66,968 are left without repeats and demonstrations, so that the test set is
58,900 by default.

python benchmarks/protocol.py --data sst2/train.parquet                        # bfloat16, GPT-2's
shape python benchmarks/protocol.py --shape llama-2-7b --device cuda --dtype bfloat16
"""

from __future__ import annotations

import resource
import time

import torch
from common import machine, matmul_rate, show
from setting import RATES, arguments, setting

from eckart.algorithm1 import candidate
from eckart.records import Trial
from eckart.scoring.evaluator import Evaluator


def main() -> None:
    parser = arguments(__doc__, shape="gpt2", dtype="bfloat16", rows=8000)
    parser.add_argument(
        "--test-rows",
        type=int,
        default=58_900,
        help="59,000 in the paper; SST-2 has 66,968 distinct phrases",
    )
    parser.add_argument("--layer", type=int, default=-2)
    parser.add_argument("--part", default="mlp")
    options = parser.parse_args()
    model, task = setting(options, options.test_rows)
    print(machine())
    rate = matmul_rate(options.device, getattr(torch, options.dtype))
    print(f"{options.dtype} matrix product: {rate / 1e9:,.0f} Gflop/s")
    start = time.perf_counter()
    trials = protocol(Evaluator(model, task), options.layer, options.part)
    total = time.perf_counter() - start
    rows = [
        [name, f"{trial.score.n:,}", f"{trial.seconds:.1f}"]
        for name, trial in trials.items()
        if trial.score
    ]
    passes = sum(trial.seconds for trial in trials.values())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    show(
        f"{options.shape}, {options.dtype}, {options.shots} shots: {total:,.0f} s in all,"
        f" tokenising included; peak {peak:.1f} GiB",
        ["what", "rows", "seconds"],
        [
            *rows,
            ["all trials", "", f"{passes:.1f}"],
            ["tokenising, checks and the rest", "", f"{total - passes:.1f}"],
        ],
    )


def protocol(evaluator: Evaluator, layer: int, part: str) -> dict[str, Trial]:
    """Make the calls that a search makes; a clipped model is tested even where no rate does better
    than none."""
    rates = {evaluator.canonical(candidate(layer, part, rate)): rate for rate in RATES}
    trials = list(evaluator.score(list(rates), "validation"))
    best = max(trials[1:], key=lambda trial: trial.score.accuracy)
    unpruned, clipped = evaluator.score([(), best.edits], "test")
    return {
        **{f"validation at {rates[trial.edits]:g}": trial for trial in trials},
        "test, unpruned": unpruned,
        "test, clipped": clipped,
    }


if __name__ == "__main__":
    main()
