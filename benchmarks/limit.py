"""How much of the arithmetic limit one evaluation, and Algorithm 1's eight candidates, achieve.

The limit counts what nobody can leave out: 2 * block parameters * (prefix + distinct suffix tokens)
once, plus for each further candidate its tail's share of that, over the rate that a large matrix
product reaches in the same run. Attention, norms, activations, the head, tokenising and the check
against the plain forward are not in it.

python benchmarks/limit.py --shape gpt2 --dtype bfloat16
"""

from __future__ import annotations

import torch
from common import machine, matmul_rate, show, synchronise
from setting import RATES, arguments, computed_tokens, setting

from eckart.algorithm1 import candidate
from eckart.scoring.evaluator import Evaluator


def main() -> None:
    parser = arguments(__doc__, rows=500)
    parser.add_argument("--layer", type=int, default=-2)
    parser.add_argument("--part", default="mlp")
    options = parser.parse_args()
    evaluator = Evaluator(*setting(options))
    print(machine())
    dtype = getattr(torch, options.dtype)
    prefix, suffix = computed_tokens(evaluator)
    candidates = [candidate(options.layer, options.part, rate) for rate in RATES]
    rates = [matmul_rate(options.device, dtype)]
    seconds = []
    for trial in evaluator.score(candidates, "validation"):
        seconds.append(trial.seconds)
        synchronise()
    rate = max(*rates, matmul_rate(options.device, dtype))
    layers, depth = (
        [sum(w.shape[0] * w.shape[1] for w in layer) for layer in evaluator.anatomy.layers],
        len(candidates),
    )
    tail = sum(layers[options.layer :])
    once = 2 * sum(layers) * (prefix + suffix) / rate
    all_of_them = once * (1 + (depth - 1) * tail / sum(layers))
    show(
        f"{options.shape}, {options.dtype}, prefix {prefix}, {options.rows} rows with {suffix}"
        f" distinct tokens, matrix product {rate / 1e9:,.0f} Gflop/s",
        ["", "limit, s", "achieved, s", "share"],
        [
            ["one evaluation", f"{once:.2f}", f"{seconds[0]:.2f}", f"{once / seconds[0]:.0%}"],
            [
                f"{depth} candidates, layer {options.layer} {options.part}",
                f"{all_of_them:.2f}",
                f"{sum(seconds):.2f}",
                f"{all_of_them / sum(seconds):.0%}",
            ],
        ],
    )


if __name__ == "__main__":
    main()
