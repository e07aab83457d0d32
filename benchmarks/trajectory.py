"""Train linear-attention models, and set their trajectory and bound beside their error, clipped and
not.

python benchmarks/trajectory.py --out docs     # theory-trajectory.png and its numbers; about half a
minute a model
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from common import machine, show
from rich.console import Console

from eckart.cli.options import quieten
from eckart.paper.functions.cells import MEASURED, SAID, ClippedCell, adjusted, clip_cells
from eckart.paper.functions.models import LinearAttentionModel
from eckart.paper.functions.readings import NOISE, Cases, Noise, draw_cases, read, residual
from eckart.paper.functions.training import Training, train
from eckart.paper.functions.views import draw_trajectory, readings_table
from eckart.records import Edit
from eckart.reports.figures.base import save_figure
from eckart.reports.table import Column, Table
from eckart.statistics.grids import rank_correlation
from eckart.weights.edits import clip

DIMENSION, EXAMPLES = 5, 10
LEVEL = 0.05
FLOORS = (1e-6, 1e-4, 1e-2, 1.0)
NOISE_SEED = 0


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path(), help="the folder of the figure")
    parser.add_argument(
        "--runs", type=Path, default=Path("runs"), help="where trainings are kept, and resume"
    )
    parser.add_argument(
        "--models", type=int, default=4, help="how many, of seeds 0, 1, ...; at least 3"
    )
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--prompts", type=int, default=500)
    parser.add_argument(
        "--many", type=int, default=20_000, help="prompts on which rare large errors are looked for"
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    quieten()
    print(machine())
    models = [
        trained(options.runs, options.layers, options.steps, seed) for seed in range(options.models)
    ]
    cases = draw_cases("linear", DIMENSION, EXAMPLES, options.prompts)
    compare(models, cases)
    halves(models, cases)
    rare(models, draw_cases("linear", DIMENSION, EXAMPLES, options.many))
    floors(models[0], cases)
    cells = [
        [clip_cells(model, cases, seed=seed) for model in models] for seed in (None, NOISE_SEED)
    ]
    correlate(cells)
    edit = Edit(-1, "attn", 0.5)
    readings = {"unclipped": read(models[0], cases)}
    with clip(models[0], edit):
        readings[f"clipped {edit}"] = read(models[0], cases)
    readings["unclipped, noisy"] = read(models[0], cases, seed=NOISE_SEED)
    Console(width=160).print(readings_table(readings, residual(models[0], cases), NOISE))
    norms = readings["unclipped"], readings[f"clipped {edit}"]
    figure = draw_trajectory(*norms, cells[0][0], cells[1][0], str(edit), of="seed 0")
    save_figure(figure, options.out / "theory-trajectory.png")


def trained(runs: Path, layers: int, steps: int, seed: int) -> LinearAttentionModel:
    """Train a model, or take the one that was trained before."""
    start = time.perf_counter()
    training = Training(
        model="linear",
        dimension=DIMENSION,
        points=EXAMPLES + 1,
        layers=layers,
        steps=steps,
        batch=256,
        rate=1e-2,
        warmup=min(200, steps),
        seed=seed,
    )
    model = train(training, runs / f"linear-{layers}-{steps}-{seed}", device="cpu", save_every=1000)
    print(f"seed {seed}: {time.perf_counter() - start:.0f} s")
    assert isinstance(model, LinearAttentionModel)
    return model


def compare(models: Sequence[LinearAttentionModel], cases: Cases) -> None:
    """Print every model's residual, errors, gaps and bounds."""
    rows = []
    for seed, model in enumerate(models):
        exact, noisy = read(model, cases), read(model, cases, seed=NOISE_SEED)
        numbers = (
            exact.error,
            float(np.median(exact.tested)),
            exact.loss.mean,
            exact.gap.mean,
            exact.bound,
        )
        rows.append(
            [
                str(seed),
                f"{residual(model, cases):.1e}",
                *(f"{number:.3f}" for number in numbers),
                *(f"{number:.3f}" for number in (noisy.loss.mean, noisy.gap.mean, noisy.bound)),
            ]
        )
    columns = ["seed", "residual", "squared error / d", "median", "loss", "gap", "bound"]
    columns += [f"noisy: {name}" for name in ("loss", "gap", "bound")]
    show(
        f"{len(cases.prompts.x):,} prompts, N = {EXAMPLES}, b = {NOISE.shots}, floor"
        f" {NOISE.floor:g}",
        columns,
        rows,
    )


def halves(models: Sequence[LinearAttentionModel], cases: Cases) -> None:
    """Print what the bounds are made of: Theorem 2's sum over layers, its halves, and how much of
    it is the floor's."""
    unseen = (DIMENSION + 1) ** 2 - (EXAMPLES - 1)  # directions that have no other noise
    rows = []
    for seed, model in enumerate(models):
        reading = read(model, cases)
        norm, log_det = reading.norm_terms.sum(), -reading.log_determinants.sum()
        floors = -len(reading.terms) * unseen * np.log(NOISE.floor)
        rows.append(
            [str(seed), *(f"{nats:.1f}" for nats in (norm, log_det, norm + log_det, floors))]
        )
    show(
        "nats under the bound's root, all layers",
        [
            "seed",
            "norm half",
            "-log det",
            "both",
            f"of -log det, the floor's: {unseen} log(1 / floor) a layer",
        ],
        rows,
    )


def rare(models: Sequence[LinearAttentionModel], cases: Cases) -> None:
    """Print how much of the mean squared error is a rare prompt's."""
    rows = []
    for seed, model in enumerate(models):
        errors = read(model, cases).tested
        rows.append(
            [
                str(seed),
                *(f"{number:.3g}" for number in (errors.mean(), np.median(errors), errors.max())),
            ]
        )
    show(
        f"squared error / d of {len(cases.prompts.x):,} prompts",
        ["seed", "mean", "median", "largest"],
        rows,
    )


def floors(model: LinearAttentionModel, cases: Cases) -> None:
    """Print how the bound and the noisy descent move with the floor."""
    rows = []
    for floor in FLOORS:
        noise = Noise(NOISE.shots, floor)
        exact, noisy = read(model, cases, noise), read(model, cases, noise, NOISE_SEED)
        numbers = (exact.bound, noisy.bound, noisy.gap.mean, noisy.loss.mean)
        rows.append([f"{floor:g}", *(f"{number:.3f}" for number in numbers)])
    show("seed 0: by floor", ["floor", "bound", "noisy: bound", "noisy: gap", "noisy: loss"], rows)


def correlate(cells: Sequence[Sequence[list[ClippedCell]]]) -> None:
    """Print the rank correlations over the cells of all models, the models as groups."""
    columns = [Column("", "change in")]
    changes: dict[str, dict[str, object]] = {said: {"": said} for said in SAID}
    for name, of_models in zip(("exact", "noisy"), cells, strict=True):
        groups = [seed for seed, own in enumerate(of_models) for _ in own]
        every = [cell for own in of_models for cell in own]
        for what, measured in MEASURED.items():
            columns.append(Column(f"{name}: {what}", f"{name}: {what}", "rank"))
            y = np.array([measured(cell) for cell in every])
            for said, change in SAID.items():
                x = np.array([change(cell) for cell in every])
                rank = rank_correlation(x, y, groups)
                changes[said][f"{name}: {what}"] = (rank.value, *rank.interval)
    title = "rank correlation of the changes, over cells (95%, new draws of models)"
    Console(width=160).print(
        Table("correlations", title, "", tuple(columns), list(changes.values()))
    )
    every = [cell for own in cells[0] for cell in own]
    signs = {
        cell: int(np.sign(cell.loss.mean)) if p <= LEVEL else 0
        for cell, p in zip(every, adjusted(every), strict=True)
    }
    layers = sorted({cell.edit.layer for cell in every})
    chosen = {
        "all": every,
        **{f"layer {n}": [cell for cell in every if cell.edit.layer == n] for n in layers},
    }
    rows = []
    for name, some in chosen.items():
        falls = [cell for cell in some if cell.bound < 0]
        counts = [
            sum(signs[cell] == sign for cell in of) for of in (some, falls) for sign in (1, -1)
        ]
        rows.append([name, *map(str, (len(some), *counts[:2], len(falls), *counts[2:]))])
    show(
        f"cells; surely: p <= {LEVEL:g} after Holm's adjustment for all {len(every)}",
        [
            "",
            "cells",
            "loss surely rises",
            "surely falls",
            "bound falls",
            "and loss surely rises",
            "surely falls",
        ],
        rows,
    )


if __name__ == "__main__":
    main()
