"""Algorithm 1's eight candidates: ours against the loop that the paper's authors describe, in one
run.

The reference runs one prompt at a time through all layers, the demonstrations again for every row,
the head at every token with a log-softmax over the whole vocabulary, and a factorisation for every
rate. It is timed on a few rows and scaled: its cost is the same for each. Both score the same rows
with the same weights; their values are compared.

python benchmarks/algorithm1.py --shape 135m --part mlp --layer -2 --shots 10
python benchmarks/algorithm1.py --shape llama-2-7b --dtype bfloat16 --device cuda --rows 8000
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch
from common import TOLERANCE, machine, matmul_rate, show, synchronise
from setting import RATES, arguments, setting

from eckart.algorithm1 import candidate
from eckart.scoring.evaluator import Evaluator


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--layer", type=int, default=-2)
    parser.add_argument("--part", default="mlp")
    parser.add_argument(
        "--reference-rows", type=int, default=8, help="rows that the reference is timed on"
    )
    options = parser.parse_args()
    model, task = setting(options)
    evaluator = Evaluator(model, task)
    print(machine())
    rate = matmul_rate(options.device, getattr(torch, options.dtype))
    print(f"{options.dtype} matrix product: {rate / 1e9:,.0f} Gflop/s")
    seconds, values = ours(evaluator, options)
    each, factorising, expected = reference(evaluator, options)
    rows = len(task.validation)
    total = len(RATES) * (rows * each + factorising)
    show(
        f"{options.shape}, {options.dtype}, {options.shots} shots, {rows} rows, {len(RATES)} rates,"
        f" layer {options.layer} {options.part}",
        [
            "reference, s",
            "of that factorising",
            "ours, s",
            "ratio",
            "same predictions",
            "largest difference, nats",
        ],
        [
            [
                f"{total:,.1f}",
                f"{len(RATES) * factorising:,.1f}",
                f"{seconds:,.2f}",
                f"{total / seconds:,.0f}",
                *compared(values, expected, TOLERANCE[options.dtype]),
            ]
        ],
    )


def ours(evaluator: Evaluator, options: argparse.Namespace) -> tuple[float, np.ndarray]:
    """Search all rates; return the seconds, tokenising and factorising included, and every
    candidate's values."""
    start = time.perf_counter()
    candidates = [candidate(options.layer, options.part, rate) for rate in RATES]
    trials = list(evaluator.score(candidates, "validation"))
    synchronise()
    return time.perf_counter() - start, np.array(
        [trial.score.log_likelihoods for trial in trials if trial.score]
    )


@torch.inference_mode()
def reference(evaluator: Evaluator, options: argparse.Namespace) -> tuple[float, float, np.ndarray]:
    """Return the seconds a row and a factorisation take in the authors' loop, and its values on its
    few rows."""
    model, tokenizer = evaluator.model.model, evaluator.model.tokenizer
    prompts = evaluator.task.prompts("validation")[: options.reference_rows]
    weights = evaluator.anatomy.select(options.layer, options.part)
    originals = [weight.read() for weight in weights]
    reading = factorising = 0.0
    values = np.zeros((len(RATES), len(prompts), len(prompts[0].continuations)))
    for i, rate in enumerate(RATES):
        start = time.perf_counter()
        if rate:
            for weight, original in zip(weights, originals, strict=True):
                weight.write_(truncated(original, rate))
        synchronise()
        middle = time.perf_counter()
        for j, prompt in enumerate(prompts):
            tokens = tokenizer(prompt.context)["input_ids"]
            logits = model(torch.tensor([tokens], device=model.device)).logits
            found = logits.float().log_softmax(-1)
            for k, label in enumerate(prompt.continuations):
                (token,) = tokenizer(label)["input_ids"]
                values[i, j, k] = float(found[0, -1, token])
        factorising += middle - start
        reading += time.perf_counter() - middle
    for weight, original in zip(weights, originals, strict=True):
        weight.write_(original)
    return reading / len(RATES) / len(prompts), factorising / (len(RATES) - 1), values


def truncated(weight: torch.Tensor, rate: float) -> torch.Tensor:
    """Truncate a matrix by a singular value decomposition of its own."""
    u, s, vt = torch.linalg.svd(weight.float(), full_matrices=False)
    rank = max(1, int((1 - rate) * len(s) + 1e-9))
    return ((u[:, :rank] * s[:rank]) @ vt[:rank]).to(weight.dtype)


def compared(values: np.ndarray, expected: np.ndarray, rounding: float) -> list[str]:
    """Return on how many predictions both agree, and by how much they differ at most."""
    values = values[:, : expected.shape[1]]
    margin = np.ptp(np.sort(expected, axis=-1)[..., -2:], axis=-1)
    clear = margin > 2 * rounding
    same = values.argmax(-1) == expected.argmax(-1)
    return [
        (
            f"{int(same.sum())} of {same.size}, of those with a margin {int(same[clear].sum())} of"
            f" {int(clear.sum())}"
        ),
        f"{np.abs(values - expected).max():.1e}",
    ]


if __name__ == "__main__":
    main()
