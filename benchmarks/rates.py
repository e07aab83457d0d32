"""What one further clipping rate costs, as a share of a full evaluation, by layer.

With L layers, a rate at layer l runs L - l of them: the share that must not be exceeded by more
than a fifth is (L - l) / L. The factorisation is timed apart; it serves all rates.

python benchmarks/rates.py --shape 135m --part mlp
"""

from __future__ import annotations

from common import machine, show
from setting import arguments, setting

from eckart.algorithm1 import candidate
from eckart.scoring.evaluator import Evaluator


def main() -> None:
    parser = arguments(__doc__, rows=300)
    parser.add_argument("--part", default="mlp")
    parser.add_argument(
        "--layers", default="", help="such as 0,15,-1; five across the model by default"
    )
    options = parser.parse_args()
    evaluator = Evaluator(*setting(options))
    print(machine())
    depth = len(evaluator.anatomy.layers)
    chosen = (
        options.layers or f"0,{depth // 4},{depth // 2},{3 * depth // 4},{depth - 2},{depth - 1}"
    )
    evaluator.prepare("validation")
    rows = []
    for layer in dict.fromkeys(int(text) % depth for text in chosen.split(",")):
        candidates = [candidate(layer, options.part, r) for r in (0.0, 0.5, 0.75, 0.9, 0.95)]
        scored = evaluator.score(candidates, "validation")
        full, first, *further = [trial.seconds for trial in scored]
        each, allowed = min(further), 1.2 * (depth - layer) / depth
        rows.append(
            [
                str(layer),
                f"{full:.2f}",
                f"{first:.2f}",
                f"{each:.2f}",
                f"{each / full:.1%}",
                f"{(depth - layer) / depth:.1%}",
                f"{each / full / allowed:.2f}",
            ]
        )
    show(
        f"{options.shape}, {options.dtype}, {options.rows} rows, {options.shots} shots,"
        f" {options.part}",
        [
            "layer",
            "full, s",
            "first rate, s",
            "a further rate, s",
            "its share",
            "(L - l) / L",
            "of 1.2 times that",
        ],
        rows,
    )


if __name__ == "__main__":
    main()
