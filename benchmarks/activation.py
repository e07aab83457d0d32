"""What GPT-2's MLP costs as it is written, with its activation in one step, and compiled.

The activation is written in five elementwise steps. `--compiled` adds torch.compile, which fuses
them and more, and needs a C++ compiler.

python benchmarks/activation.py --compiled
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
from common import best_of, machine, matmul_rate, show
from transformers import GPT2Config
from transformers.models.gpt2.modeling_gpt2 import GPT2MLP

from eckart.scoring.forward.patches import fused_activations


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--tokens", type=int, default=1024, help="in a pack")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--compiled", action="store_true", help="with torch.compile, too")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    dtype = getattr(torch, options.dtype)
    config = GPT2Config()
    mlp = GPT2MLP(4 * config.n_embd, config).to(options.device, dtype).eval()
    hidden = torch.randn(1, options.tokens, config.n_embd, device=options.device, dtype=dtype)
    print(machine())
    with torch.inference_mode():
        seconds = {"as it is written": measure(lambda: mlp(hidden))}
        with fused_activations(mlp):
            seconds["activation in one step"] = measure(lambda: mlp(hidden))
        if options.compiled:
            compiled = torch.compile(mlp)
            seconds["compiled"] = measure(lambda: compiled(hidden))
    rate = matmul_rate(options.device, dtype)
    products = 4 * options.tokens * config.n_embd * 4 * config.n_embd / rate
    show(
        f"{options.tokens} tokens, {options.dtype}, matrix product {rate / 1e9:,.0f} Gflop/s: "
        f"the two products alone {1000 * products:.2f} ms",
        ["", "ms", "over the products alone"],
        [[name, f"{1000 * s:.2f}", f"{s / products:.2f}"] for name, s in seconds.items()],
    )


def measure(function: Callable[[], object]) -> float:
    function()
    return best_of(function, repeats=30)


if __name__ == "__main__":
    main()
