"""Both ends of a spectrum: ours against numpy.linalg.cond, and against all singular values, in one
run.

python benchmarks/spectrum.py --shapes 4096x4096,11008x4096 --device cuda
python benchmarks/spectrum.py --model-shape llama-2-7b --device cuda     # all 224 matrices, ours
alone
"""

from __future__ import annotations

import argparse
import math
import resource
import sys
import time

import numpy as np
import torch
from common import best_of, machine, matmul_rate, show, synchronise

from eckart.weights.linalg import Factor, prepared
from eckart.weights.spectrum import spectrum_of

Shape = tuple[int, int]
SHAPES = "256x256,512x512,1024x1024,4096x1024,1024x4096,2048x2048"
MODELS: dict[str, tuple[int, list[Shape]]] = {
    "gpt2": (12, [*[(768, 768)] * 4, (3072, 768), (768, 3072)]),
    "gpt-j-6b": (28, [*[(4096, 4096)] * 4, (16384, 4096), (4096, 16384)]),
    "llama-2-7b": (32, [*[(4096, 4096)] * 4, (11008, 4096), (11008, 4096), (4096, 11008)]),
}
"""Layers, and the shapes of a layer's matrices."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shapes", default=SHAPES, help="such as 1024x1024,4096x1024")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32", help="what the weights are stored in")
    parser.add_argument("--repeats", type=int, default=2, help="the best of so many")
    parser.add_argument(
        "--factor", action="store_true", help="time the truncation's factorisation, too"
    )
    parser.add_argument(
        "--model-shape", choices=MODELS, help="every matrix of a model of this shape instead"
    )
    parser.add_argument("--layers", type=int, help="only so many of the model's layers")
    options = parser.parse_args()
    print(machine())
    rate = matmul_rate(options.device, torch.float64)
    print(f"float64 matrix product on {options.device}: {rate / 1e9:,.0f} Gflop/s")
    if options.model_shape:
        whole_model(
            options.model_shape, options.layers, options.device, getattr(torch, options.dtype)
        )
    else:
        shapes = [shape_of(text) for text in options.shapes.split(",")]
        compare(shapes, options.device, getattr(torch, options.dtype), options.repeats)
        if options.factor:
            compare_factor(shapes, options.device, options.repeats)


def compare(shapes: list[Shape], device: str, dtype: torch.dtype, repeats: int) -> None:
    """Print seconds, ratios and digits of agreement, a row a shape."""
    rows = []
    for m, n in shapes:
        weight = random_weight((m, n), device, dtype)
        ours = best_of(lambda: spectrum_of(weight), repeats)  # noqa: B023
        full = best_of(lambda: torch.linalg.svdvals(prepared(weight, "")), repeats)  # noqa: B023
        array = weight.double().cpu().numpy()
        numpy = best_of(lambda: np.linalg.cond(array), repeats)  # noqa: B023
        exact, found = float(np.linalg.cond(array)), spectrum_of(weight).condition_number
        seconds = (f"{s:.4f}" for s in (ours, full, numpy))
        ratios = (f"{full / ours:.2f}", f"{numpy / ours:.2f}")
        rows.append(
            [f"{m} x {n}", *seconds, *ratios, f"{exact:.3g}", f"{digits(found, exact):.1f}"]
        )
    columns = ["shape", "ours, s", "svdvals, s", "numpy cond, s", "svdvals / ours", "numpy / ours"]
    show(
        f"condition number, {dtype} weights", [*columns, "condition number", "digits agreed"], rows
    )


def compare_factor(shapes: list[Shape], device: str, repeats: int) -> None:
    """Print seconds of the factorisation that serves every rate, and of the SVD that it stands
    for."""
    rows = []
    for m, n in shapes:
        weight = random_weight((m, n), device, torch.float32)
        ours = best_of(lambda: Factor.of(weight), repeats)  # noqa: B023
        svd = best_of(lambda: torch.linalg.svd(prepared(weight, ""), full_matrices=False), repeats)  # noqa: B023
        factor = Factor.of(weight)
        cut = [best_of(lambda: factor.truncate(rate), repeats) for rate in (0.1, 0.5, 0.95)]  # noqa: B023
        rows.append(
            [
                f"{m} x {n}",
                f"{ours:.4f}",
                f"{svd:.4f}",
                f"{svd / ours:.2f}",
                *(f"{s:.4f}" for s in cut),
            ]
        )
    columns = [
        "shape",
        "ours, s",
        "svd, s",
        "svd / ours",
        "cut at 0.1, s",
        "at 0.5, s",
        "at 0.95, s",
    ]
    show("factorisation for truncation", columns, rows)


def whole_model(name: str, layers: int | None, device: str, dtype: torch.dtype) -> None:
    """Measure random weights of a model's shapes, one matrix in memory at a time."""
    depth, shapes = MODELS[name]
    depth = min(depth, layers or depth)
    total, count, start = 0.0, depth * len(shapes), time.perf_counter()
    spectrum_of(random_weight(shapes[0], device, dtype))  # libraries load on first use
    for done in range(count):
        weight = random_weight(shapes[done % len(shapes)], device, dtype)
        total += best_of(lambda: spectrum_of(weight), repeats=1)  # noqa: B023
        if sys.stderr.isatty():
            print(f"\r{done + 1} of {count}", end="", file=sys.stderr)
    elapsed = time.perf_counter() - start
    show(
        f"{name}, {dtype} weights on {device}",
        [
            "layers",
            "matrices",
            "spectra, s",
            "s a matrix",
            "with making the weights, s",
            "peak memory, GiB",
        ],
        [
            [
                str(depth),
                str(count),
                f"{total:.1f}",
                f"{total / count:.3f}",
                f"{elapsed:.1f}",
                f"{peak(device):.2f}",
            ]
        ],
    )


def random_weight(shape: Shape, device: str, dtype: torch.dtype) -> torch.Tensor:
    """Return Gaussian weights of about unit spectral norm."""
    return (torch.randn(shape, device=device) / math.sqrt(shape[1])).to(dtype)


def shape_of(text: str) -> Shape:
    rows, columns = text.split("x")
    return int(rows), int(columns)


def digits(found: float, exact: float) -> float:
    return -math.log10(max(abs(found / exact - 1), 1e-16))


def peak(device: str) -> float:
    """Return the most memory that was in use at a time, of the GPU or of this process, in GiB."""
    synchronise()
    if torch.device(device).type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


if __name__ == "__main__":
    main()
