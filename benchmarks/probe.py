"""What the probe costs: a reading of a model, unpruned and clipped, against plain evaluation of the
same prompts.

python benchmarks/probe.py                                    # float32, 135M parameters, 8 prompts
of 4 demonstrations python benchmarks/probe.py --shape 8m --rows 32 --layers 0,-1
"""

from __future__ import annotations

import time

from common import best_of, machine, show
from setting import arguments, setting

from eckart.paper.probe import Prober
from eckart.records import Edit
from eckart.scoring.evaluator import Evaluator


def main() -> None:
    parser = arguments(__doc__, rows=8, shots=4)
    parser.add_argument("--part", default="mlp")
    parser.add_argument(
        "--layers", default="", help="such as 0,15,-1; first, middle and last by default"
    )
    options = parser.parse_args()
    model, task = setting(options)
    evaluator, prober = Evaluator(model, task), Prober(model, task, prompts=options.rows)
    print(machine())
    depth = len(prober.anatomy.layers)
    chosen = options.layers or f"0,{depth // 2},{depth - 1}"
    evaluator.prepare("validation")
    plain = best_of(lambda: evaluator([], "validation"))
    found, first = timed(prober, ())
    rows = [["unpruned", *cells(plain, first, first)]]
    for layer in dict.fromkeys(int(text) % depth for text in chosen.split(",")):
        prober([Edit(layer, options.part, 0.25)])  # factorises, which serves every rate
        _, seconds = timed(prober, [Edit(layer, options.part, 0.9)])
        rows.append([f"layer {layer}", *cells(plain, seconds, first)])
    tokens = found.layers[0].tokens[0]
    print(
        f"{options.shape}, {options.dtype}, {options.rows} prompts, {tokens} tokens of"
        " demonstrations"
    )
    show(
        f"an evaluation takes {plain:.2f} s; largest residual {found.residual:.1e}",
        ["clipped", "probe, s", "of an evaluation", "of the unpruned probe"],
        rows,
    )


def timed(prober: Prober, edits):
    start = time.perf_counter()
    found = prober(edits)
    return found, time.perf_counter() - start


def cells(plain: float, seconds: float, first: float) -> list[str]:
    return [f"{seconds:.2f}", f"{seconds / plain:.1f}", f"{seconds / first:.2f}"]


if __name__ == "__main__":
    main()
