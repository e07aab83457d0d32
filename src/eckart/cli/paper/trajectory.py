"""The verb `functions trajectory`: a linear model's descent, its bound and its error, clipped and
not."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from eckart.cli import options as o
from eckart.cli.console import check_plot, print_json, say, show
from eckart.cli.flags import parse_rates
from eckart.errors import TaskError
from eckart.records import Edit, check_rate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from eckart.paper.functions.cells import ClippedCell
    from eckart.paper.functions.models import LinearAttentionModel
    from eckart.paper.functions.trajectory import Cases, Noise, TrajectoryReading

NOISE_SEED = 0
"""Draws the noise of Theorem 2; one for all cells, so that they differ by the edit alone."""


def trajectory(
    model: Annotated[
        str,
        typer.Argument(
            help="A linear model's folder, or that of its training for the last one kept.",
            metavar="MODEL",
        ),
    ],
    function: Annotated[
        str | None,
        typer.Option(
            help=(
                "linear, sparse-linear, noisy-linear, decision-tree or relu-network; by default the"
                " one that the model was trained on."
            )
        ),
    ] = None,
    prompts: Annotated[int, typer.Option(help="Functions drawn.", min=2)] = 500,
    examples: Annotated[
        int | None,
        typer.Option(help="N, the examples of each; by default all that the model reads.", min=2),
    ] = None,
    shots: Annotated[
        int | None, typer.Option(help="b of Theorem 2, below N; by default half of N.", min=1)
    ] = None,
    floor: Annotated[
        float, typer.Option(help="Variance of the noise beside C_t's, above 0.")
    ] = 1e-4,
    edit: o.Edits = None,
    rates: Annotated[
        str, typer.Option(help="Clip each matrix of each layer at each of these rates.")
    ] = "0.15,0.3,0.5,0.65,0.8",
    seed: Annotated[int, typer.Option(help="Of the prompts.", min=0)] = 0,
    plot: o.Plot = None,
    json_: o.Json = False,
) -> None:
    """Set a linear model's trajectory (Theorem 1) and bound (Theorem 2) beside its error, before
    and after clipping."""
    from eckart.paper.functions.cells import clip_cells, correlations
    from eckart.paper.functions.loading import function_of
    from eckart.paper.functions.trajectory import Noise, draw_cases, load_linear, residual

    edits = [Edit.parse(text) for text in edit or []]
    chosen = [check_rate(rate) for rate in parse_rates(rates)]
    Noise(floor=floor)  # refused before anything is loaded
    check_plot(plot)
    o.quieten()
    live = load_linear(model)
    function, examples = function or function_of(live), examples or live.points - 1
    noise = Noise(_shots(shots, examples), floor)
    cases = draw_cases(function, live.config.dimension, examples, prompts, seed)
    readings = _readings(live, cases, noise, edits)
    exact, noisy = (clip_cells(live, cases, chosen, noise, s) for s in (None, NOISE_SEED))
    found = {"exact": correlations(exact), "noisy": correlations(noisy)}
    off = residual(live, cases)
    _plot(plot, readings, (exact, noisy), edits)
    if json_:
        print_json(
            {
                "model": model,
                "function": function,
                "prompts": prompts,
                "examples": examples,
                "shots": noise.shots,
                "floor": floor,
                "seed": seed,
                "edits": [str(e) for e in edits],
                "residual": off,
                "readings": {name: reading.to_json() for name, reading in readings.items()},
                "cells": _documents(exact),
                "noisy_cells": _documents(noisy),
                "correlations": found,
            }
        )
        return
    from eckart.paper.functions.tables import cells_table, correlation_table, readings_table

    show(readings_table(readings, off, noise))
    show(cells_table(exact))
    show(correlation_table(found))


def _shots(shots: int | None, examples: int) -> int:
    """Return b of Theorem 2, below the number of examples."""
    if shots is not None and shots >= examples:
        raise TaskError(
            f"{shots} shots of {examples} demonstrations leave C_t no noise; choose --shots below"
            f" {examples}"
        )
    return shots or max(1, examples // 2)


def _readings(
    model: LinearAttentionModel, cases: Cases, noise: Noise, edits: list[Edit]
) -> dict[str, TrajectoryReading]:
    """Read a model whole, clipped where something is to be, and along the noisy descent."""
    from eckart.paper.functions.trajectory import read
    from eckart.weights.edits import clip

    readings = {"unclipped": read(model, cases, noise)}
    if edits:
        with clip(model, edits):
            readings["clipped"] = read(model, cases, noise)
    readings["unclipped, noisy"] = read(model, cases, noise, NOISE_SEED)
    return readings


def _documents(cells: Sequence[ClippedCell]) -> list[dict[str, Any]]:
    from eckart.paper.functions.cells import adjusted

    return [
        cell.to_json() | {"adjusted_p": float(p)}
        for cell, p in zip(cells, adjusted(cells), strict=True)
    ]


def _plot(
    path: Path | None,
    readings: dict[str, TrajectoryReading],
    cells: tuple[Sequence[ClippedCell], Sequence[ClippedCell]],
    edits: list[Edit],
) -> None:
    if path is None:
        return
    from eckart.paper.functions.figures import cell_panels, draw_trajectory, norm_curves
    from eckart.reports.figures import save_figure

    curves = norm_curves(readings["unclipped"], readings.get("clipped"))
    save_figure(draw_trajectory(curves, cell_panels(*cells), ", ".join(map(str, edits))), path)
    say(f"figure: {path}")
