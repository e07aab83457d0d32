"""The verb `functions trajectory`: a linear model's descent, its bound and its error, clipped and not."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from eckart.cli import options as o
from eckart.cli.console import print_json, say, show
from eckart.records import Edit, check_rate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from eckart.functions.cells import Cell
    from eckart.functions.trajectory import Reading
    from eckart.rules import Bounded

    Agreement = dict[str, dict[str, Bounded]]

NOISE_SEED = 0
"""Draws the noise of Theorem 2; one for all cells, so that they differ by the edit alone."""


def trajectory(
    model: Annotated[
        str,
        typer.Argument(
            help="A linear model's folder, or that of its training for the last one kept.", metavar="MODEL"
        ),
    ],
    function: Annotated[
        str, typer.Option(help="linear, sparse-linear, noisy-linear, decision-tree or relu-network.")
    ] = "linear",
    prompts: Annotated[int, typer.Option(help="Functions drawn.", min=2)] = 500,
    examples: Annotated[int, typer.Option(help="N, the examples of each.", min=2)] = 10,
    shots: Annotated[int, typer.Option(help="b of Theorem 2, below N.", min=1)] = 5,
    floor: Annotated[float, typer.Option(help="Variance of the noise beside C_t's, above 0.")] = 1e-4,
    edit: o.Edits = None,
    rates: Annotated[
        str, typer.Option(help="Clip each matrix of each layer at each of these rates.")
    ] = "0.15,0.3,0.5,0.65,0.8",
    seed: Annotated[int, typer.Option(help="Of the prompts.", min=0)] = 0,
    plot: o.Plot = None,
    json_: o.Json = False,
) -> None:
    """Set a linear model's trajectory (Theorem 1) and bound (Theorem 2) beside its error, before and after clipping."""
    edits, chosen = [Edit.parse(text) for text in edit or []], [check_rate(r) for r in o.parse_rates(rates)]
    from eckart.edits import clip
    from eckart.functions.cells import agreement, clip_cells, matrices
    from eckart.functions.trajectory import Noise, draw_cases, load_linear, read, residual

    noise = Noise(shots, floor)
    if plot:
        from eckart.reports.figures import check_figure_path

        check_figure_path(plot)
    o.quieten()
    live = load_linear(model)
    cases = draw_cases(function, live.config.dimension, examples, prompts, seed)
    readings = {"unclipped": read(live, cases, noise)}
    off = residual(live, cases)
    if edits:
        with clip(live, edits):
            readings["clipped"] = read(live, cases, noise)
    readings["unclipped, noisy"] = read(live, cases, noise, NOISE_SEED)
    exact, noisy = (clip_cells(live, cases, chosen, noise, s) for s in (None, NOISE_SEED))
    agreements = {
        name: agreement(cells, matrices(cells)) for name, cells in (("exact", exact), ("noisy", noisy))
    }
    if plot:
        _plot(plot, readings, (exact, noisy), edits)
    if json_:
        print_json({
            "model": model, "function": function, "prompts": prompts, "examples": examples, "shots": shots,
            "floor": floor, "seed": seed, "edits": [str(e) for e in edits], "residual": off,
            "readings": {name: reading.to_json() for name, reading in readings.items()},
            "cells": [cell.to_json() for cell in exact],
            "noisy_cells": [cell.to_json() for cell in noisy],
            "agreement": {name: _document(found) for name, found in agreements.items()},
        })  # fmt: skip
        return
    from eckart.reports.trajectory import agreement_table, cells_table, readings_table

    show(readings_table(readings, off, noise))
    show(cells_table(exact))
    show(agreement_table(agreements, "layer and part"))


def _document(found: Agreement) -> dict[str, Any]:
    return {
        said: {what: {"value": rank.value, "interval": list(rank.interval)} for what, rank in ranks.items()}
        for said, ranks in found.items()
    }


def _plot(
    path: Path, readings: dict[str, Reading], cells: tuple[Sequence[Cell], Sequence[Cell]], edits: list[Edit]
) -> None:
    from eckart.reports.figures import save_figure
    from eckart.reports.figures.trajectory import cell_panels, draw_trajectory, norm_curves

    curves = norm_curves(readings["unclipped"], readings.get("clipped"))
    save_figure(draw_trajectory(curves, cell_panels(*cells), ", ".join(map(str, edits))), path)
    say(f"figure: {path}")
