"""Draw what clipping does to the implicit gradient's norm (Examples 1 to 4), and a noise floor to
Theorem 2.

python benchmarks/theory.py --out docs     # theory-norms.png and theory-bound.png, and their
numbers
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from common import machine, show
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from eckart.paper.theory.arrays import squared_norm
from eckart.paper.theory.attention import implicit_update, trajectory
from eckart.paper.theory.bound import LayerTerm, demonstration_gram, layer_term
from eckart.paper.theory.norms import mlp_norms, projection_bounds, q_norms, qkv_bounds, truncate
from eckart.reports.figures.base import COLOURS, MARKERS, save_figure

WIDTH, SHOTS, FEW = 32, 10, 4
FLOORS = np.logspace(-8, 4, 61)
SETTINGS = {(16, 8): "width 16, N = 8", (4, 40): "width 4, N = 40"}
KEPT = {"half its rank": 0.5, "rank 1": 0.0}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path(), help="the folder of the figures")
    parser.add_argument("--draws", type=int, default=50, help="random layers")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print(machine())
    norms(options.seed, options.draws, options.out / "theory-norms.png")
    bounds(options.seed, options.draws, options.out / "theory-bound.png")


def norms(seed: int, draws: int, path: Path) -> None:
    """Draw bounds and norms by rank, each as a share of the unclipped one."""
    curves = by_rank(layer(seed, draws, WIDTH, SHOTS))
    rows = []
    for name, share in curves.items():
        rises = (np.diff(share, axis=1) < -1e-12).any(axis=1).mean()
        at = (f"{np.median(share[:, rank - 1]):.3f}" for rank in (1, WIDTH // 4, WIDTH // 2, WIDTH))
        rows.append([name, *at, f"{100 * rises:.0f}%"])
    ranks = (f"r = {rank}" for rank in (1, WIDTH // 4, WIDTH // 2, WIDTH))
    title = f"median share of the unclipped square, {draws} layers, width {WIDTH}, N = {SHOTS}"
    show(title, ["clipped: what", *ranks, "layers in which a cut makes it larger"], rows)
    figure = Figure(figsize=(10.4, 4.0), layout="constrained")
    left, right = figure.subplots(1, 2)
    draw_medians(left, curves)
    draw_layers(right, by_rank(layer(seed, 12, FEW, SHOTS)))
    save_figure(figure, path)


def by_rank(matrices: tuple[np.ndarray, ...]) -> dict[str, np.ndarray]:
    """Return for each example the bound or norm of every layer at every rank, as a share of the
    unclipped one."""
    h, w_v, w_k, w_q, w_mlp = matrices
    values, keys = w_v @ h, w_k @ h
    clipped = (truncate(w_k, rank) for rank in range(1, w_k.shape[-1] + 1))
    curves = {
        "W_Q, W_K, W_V: N UB (Example 1)": qkv_bounds(h, w_v, w_k, w_q),
        "W_Q: the norm (Example 2)": q_norms(values, keys, w_q),
        "W_V: N UB (Example 3)": projection_bounds(w_v, h, keys, w_q),
        "W_K: N UB (Example 3)": projection_bounds(w_k, h, values, w_q),
        "W_MLP: the norm (Example 4)": mlp_norms(w_mlp, implicit_update(values, keys, w_q)),
        "W_K: the norm": np.stack(
            [squared_norm(implicit_update(values, w @ h, w_q)) for w in clipped], axis=-1
        ),
    }
    return {name: curve / curve[:, -1:] for name, curve in curves.items()}


def draw_medians(axes: Axes, curves: dict[str, np.ndarray]) -> None:
    for (name, share), colour, marker in zip(curves.items(), COLOURS, MARKERS, strict=False):
        style = {
            "color": colour,
            "marker": marker,
            "markevery": (COLOURS.index(colour), 6),
            "markersize": 5,
        }
        axes.plot(range(1, WIDTH + 1), np.median(share, axis=0), label=name, linewidth=1, **style)
    axes.set_title(f"median over layers of width {WIDTH}", fontsize=9)
    finish(axes, f"rank kept of {WIDTH}", "square, as a share of the unclipped")


def draw_layers(axes: Axes, curves: dict[str, np.ndarray]) -> None:
    for name, colour in (("W_K: the norm", COLOURS[5]), ("W_Q: the norm (Example 2)", COLOURS[1])):
        lines = axes.plot(range(1, FEW + 1), curves[name].T, color=colour, linewidth=1)
        lines[0].set_label(name)
    axes.axhline(1, color="0.6", linestyle=":", linewidth=1)
    axes.set_xticks(range(1, FEW + 1))
    axes.set_title(f"12 single layers of width {FEW}", fontsize=9)
    finish(axes, f"rank kept of {FEW}", "square, as a share of the unclipped")


def bounds(seed: int, draws: int, path: Path) -> None:
    """Draw a term of Theorem 2 against the floor of the noise, and what clipping W_V makes of
    it."""
    figure = Figure(figsize=(10.4, 4.0), layout="constrained")
    left, right = figure.subplots(1, 2)
    for ((width, n), name), style in zip(SETTINGS.items(), ("-", "--"), strict=True):
        whole = floor_terms(seed, draws, width, n, width)
        parts = {
            "norm term": median([term.norm_term for term in whole]),
            "-log det": median([-term.log_determinant for term in whole]),
            "both": median([term.value for term in whole]),
        }
        if style == "-":
            draw_parts(left, parts, f"{name}, unclipped")
        for (kept, share), colour in zip(KEPT.items(), COLOURS[3:], strict=False):
            clipped = floor_terms(seed, draws, width, n, max(1, int(share * width)))
            parts[f"{kept} / whole"] = median(
                [a.value / b.value for a, b in zip(clipped, whole, strict=True)]
            )
            right.plot(
                FLOORS, parts[f"{kept} / whole"], style, color=colour, label=f"{name}: {kept}"
            )
        rows = [
            [f"{FLOORS[i]:.0e}", *(f"{p[i]:.4g}" for p in parts.values())]
            for i in range(0, len(FLOORS), 10)
        ]
        show(f"{name}: a term of Theorem 2, medians of {draws} layers", ["floor", *parts], rows)
    right.axhline(1, color="0.6", linestyle=":", linewidth=1)
    right.set_title("W_V clipped", fontsize=9)
    finish(right, "floor of the noise", "term, as a share of the unclipped")
    right.set(xscale="log")
    save_figure(figure, path)


def draw_parts(axes: Axes, parts: dict[str, np.ndarray], title: str) -> None:
    for (name, part), colour in zip(parts.items(), COLOURS, strict=False):
        axes.plot(FLOORS, part, color=colour, label=name)
    axes.set(xscale="log")
    axes.set_title(title, fontsize=9)
    finish(axes, "floor of the noise", "term of Theorem 2, nats")


def median(of_floors: list[np.ndarray]) -> np.ndarray:
    return np.median(of_floors, axis=1)


def floor_terms(seed: int, draws: int, width: int, n: int, rank: int) -> list[LayerTerm]:
    """Return the terms of one layer with W_V clipped to a rank, one for each floor."""
    h, w_v, w_k, w_q, _ = layer(seed, draws, width, n)
    path = trajectory(h, truncate(w_v, rank)[:, None], w_k[:, None], w_q[:, None])
    gram = demonstration_gram(path.values[:, 0], path.inputs[:, 0])
    squared = squared_norm(path.updates[:, 0]) * width  # |1|^2: no layer stands before
    return [layer_term(gram, squared, n // 2, width**2, floor) for floor in FLOORS]


def layer(seed: int, draws: int, width: int, n: int) -> tuple[np.ndarray, ...]:
    """Return demonstrations and W_V, W_K, W_Q, W_MLP with Gaussian entries."""
    random = np.random.default_rng(seed)
    weights = (random.standard_normal((draws, width, width)) / np.sqrt(width) for _ in range(4))
    return random.standard_normal((draws, width, n)) / np.sqrt(n), *weights


def finish(axes: Axes, xlabel: str, ylabel: str) -> None:
    axes.set(xlabel=xlabel, ylabel=ylabel)
    axes.grid(axis="y", color="0.92", linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)


if __name__ == "__main__":
    main()
