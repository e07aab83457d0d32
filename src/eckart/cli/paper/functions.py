"""The verbs of `functions`: models that learn a function from its values, trained and measured."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from eckart.cli import options as o
from eckart.cli.console import answer, check_plot, progress_bar, save_plot
from eckart.cli.flags import DEFAULT_RATES, parse_names, parse_numbers, with_options
from eckart.errors import TaskError
from eckart.paper.functions.options import TrainingOptions
from eckart.records import Edit, check_rate
from eckart.selection.plan import listed, read_rates

if TYPE_CHECKING:
    from eckart.paper.functions.cells import ClippedCell
    from eckart.paper.functions.curves import Curves, HeldOut
    from eckart.paper.functions.models import FunctionModel as InContext
    from eckart.paper.functions.models import LinearAttentionModel
    from eckart.paper.functions.readings import Cases, Noise, TrajectoryReading

NOISE_SEED = 0
"""Draws the noise of Theorem 2; one for all cells, so that they differ by the edit alone."""

functions = typer.Typer(
    name="functions",
    help=(
        "In-context functions (Appendix C.4): train a small decoder that learns a function from"
        " points and values, and measure it."
    ),
)

FunctionModel = Annotated[
    str,
    typer.Argument(
        help=(
            "A model's folder, a training's folder (its last model), or a model that comes with the"
            " package."
        ),
        metavar="MODEL",
    ),
]
Function = Annotated[
    str | None,
    o.flag(
        "linear, sparse-linear, noisy-linear, decision-tree or relu-network; by default the one"
        " that the model was trained on."
    ),
]


@functions.callback()
def _root() -> None:
    """Hold the verbs together."""


@functions.command()
@with_options()
def train(
    out: o.Out = None,
    checkpoints: Annotated[
        str | None,
        o.run_flag(
            "After how many steps the model is kept, beside the last: 500,1000. By default 1/64,"
            " 1/32, ... 1/2."
        ),
    ] = None,
    save_every: Annotated[
        int, o.run_flag("Write the state after so many steps; a kill loses these at most.", min=1)
    ] = 250,
    device: o.Device = "auto",
    threads: Annotated[
        int | None, o.run_flag("Processor threads; torch's own choice by default.", min=1)
    ] = None,
    json_: o.Json = False,
    *,
    how: TrainingOptions,
) -> None:
    """Train a decoder on functions, from nothing. Interrupt it at will: the same command goes on,
    bit for bit."""
    from eckart.cli.paper.training import default_folder, run_training
    from eckart.paper.functions.training import Training

    training = Training.of(how.model_dump())
    kept = None if checkpoints is None else parse_numbers(checkpoints, "--checkpoints", "500,1000")
    folder = out or default_folder(training)
    run_training(training, folder, kept, save_every, device, threads, as_json=json_)


@functions.command()
def evaluate(
    model: FunctionModel,
    function: Function = None,
    prompts: Annotated[int, o.number_flag("How many, that no training draws.", 2)] = 2000,
    points: Annotated[
        int | None,
        o.number_flag(
            "Of a prompt, the asked one included; all that the model reads by default.", 1
        ),
    ] = None,
    seed: Annotated[int, o.number_flag("Draws the prompts.", 0)] = 0,
    baselines: Annotated[
        str | None,
        o.flag(
            "least-squares, ridge, lasso, tree, 3-nn, averaging, joined by commas; or none. By"
            " default those that suit the class."
        ),
    ] = None,
    by_steps: Annotated[
        bool,
        o.flag("Every kept model of a training's folder (Figure 5b).", "--by-steps"),
    ] = False,
    plot: o.Plot = None,
    device: o.Device = "auto",
    json_: o.Json = False,
) -> None:
    """Squared error against the number of examples, beside estimators that know the class (Figure
    5)."""
    from eckart.paper.functions import views

    check_plot(plot)
    if by_steps and baselines is not None:
        raise TaskError(
            "--by-steps shows a training beside one baseline alone; leave out --baselines"
        )
    drawn = {"prompts": prompts, "points": points, "seed": seed}
    curves: Curves
    table: Any
    draw: Any
    if by_steps:
        curves = _step_curves(model, function, device, drawn)
        table, draw = views.step_table, views.draw_step_curves
    else:
        curves = _error_curves(model, function, device, drawn, parse_names(baselines))
        table, draw = views.error_table, views.draw_error_curves
    save_plot(plot, draw, curves)
    document = {**curves.to_json(), "figure": None if plot is None else str(plot)}
    answer(json_, document, table(curves))


def _error_curves(
    source: str,
    function: str | None,
    device: str,
    drawn: dict[str, Any],
    baselines: Sequence[str] | None,
) -> Curves:
    """Measure a model beside baselines, those that suit the class where none are named (Figure
    5a)."""
    from eckart.paper.functions.baselines import choose_baselines
    from eckart.paper.functions.curves import error_curves
    from eckart.paper.functions.loading import load_function_model

    choose_baselines(function or "linear", baselines)  # before a model is read
    model = load_function_model(source, device)
    on = _prompts(model, function, drawn)
    chosen, name = choose_baselines(on.kind.name, baselines), Path(source).resolve().name
    with progress_bar("baselines, by number of examples", len(chosen) * len(on.counts)) as advance:
        return error_curves(model, on, chosen, name, advance=advance)


def _step_curves(source: str, function: str | None, device: str, drawn: dict[str, Any]) -> Curves:
    from eckart.paper.functions.classes import find_class
    from eckart.paper.functions.curves import step_curves
    from eckart.paper.functions.loading import load_function_model, training_models

    if function is not None:
        find_class(function)
    kept = training_models(source)
    on = _prompts(load_function_model(kept[max(kept)], device), function, drawn)
    models = ((step, load_function_model(path, device)) for step, path in kept.items())
    with progress_bar("models", len(kept)) as advance:
        return step_curves(models, on, advance=advance)


def _prompts(model: InContext, function: str | None, drawn: dict[str, Any]) -> HeldOut:
    from eckart.paper.functions.curves import held_out
    from eckart.paper.functions.loading import function_of

    return held_out(model, function_of(model) if function is None else function, **drawn)


@functions.command()
def clip(
    model: FunctionModel,
    function: Function = None,
    shots: Annotated[
        int | None,
        o.number_flag("Examples before the asked point; by default all that the model reads.", 0),
    ] = None,
    rows: Annotated[int, o.number_flag("Functions of each split, validation and test.", 2)] = 1000,
    seeds: Annotated[str, o.flag("Draw the examples: 0..4, or 0,1,2.")] = "0..4",
    parts: Annotated[
        str, o.flag("attn, mlp, all, or one matrix; several joined by commas.")
    ] = "attn,mlp",
    rates: o.Rates = DEFAULT_RATES,
    layers: Annotated[str, o.flag("Layers of the sweep: all, or 0..3, or -1.")] = "all",
    out: o.Out = None,
    plot: o.Plot = None,
    device: o.Device = "auto",
    json_: o.Json = False,
) -> None:
    """Clip every layer at every rate, then let Algorithm 1 choose; the score is the squared
    error."""
    from eckart.cli.paper.clipping import run_clipping
    from eckart.paper.functions.loading import function_of, loaded_model
    from eckart.paper.functions.task import FunctionTask
    from eckart.selection.plan import read_numbers

    check_plot(plot)
    chosen = layers if layers == "all" else read_numbers(layers)
    loaded = loaded_model(model, device)
    reads: Any = loaded.model
    drawn = read_numbers(seeds)
    task = FunctionTask(
        function=function or function_of(reads),
        dimension=reads.config.dimension,
        shots=reads.points - 1 if shots is None else shots,
        seed=drawn[0],
        size=rows,
    )
    asked = (list(dict.fromkeys(listed(parts))), read_rates(rates), chosen, drawn)
    run_clipping(loaded, task, *asked, out, plot, as_json=json_)


@functions.command()
def trajectory(
    model: Annotated[
        str,
        typer.Argument(
            help="A linear model's folder, or that of its training for the last one kept.",
            metavar="MODEL",
        ),
    ],
    function: Function = None,
    prompts: Annotated[int, o.number_flag("Functions drawn.", 2)] = 500,
    examples: Annotated[
        int | None,
        o.number_flag("N, the examples of each; by default all that the model reads.", 2),
    ] = None,
    shots: Annotated[
        int | None,
        o.number_flag("b of Theorem 2, below N; by default half of N.", 1),
    ] = None,
    floor: Annotated[float, o.flag("Variance of the noise beside C_t's, above 0.")] = 1e-4,
    edit: o.Edits = None,
    rates: Annotated[
        str, o.flag("Clip each matrix of each layer at each of these rates.")
    ] = "0.15,0.3,0.5,0.65,0.8",
    seed: Annotated[int, o.number_flag("Of the prompts.", 0)] = 0,
    plot: o.Plot = None,
    json_: o.Json = False,
) -> None:
    """Set a linear model's trajectory (Theorem 1) and bound (Theorem 2) beside its error, before
    and after clipping."""
    from eckart.paper.functions import views
    from eckart.paper.functions.cells import clip_cells, correlations
    from eckart.paper.functions.loading import function_of
    from eckart.paper.functions.readings import Noise, draw_cases, load_linear, residual

    edits = [Edit.parse(text) for text in edit or []]
    chosen = [check_rate(rate) for rate in read_rates(rates)]
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
    norms = readings["unclipped"], readings.get("clipped")
    save_plot(plot, views.draw_trajectory, *norms, exact, noisy, ", ".join(map(str, edits)))
    document = {
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
    tables = views.readings_table(readings, off, noise), views.cells_table(exact)
    answer(json_, document, *tables, views.correlation_table(found))


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
    from eckart.paper.functions.readings import read
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
