"""The verbs of `theory`: the paper's mathematics, checked, and asked of a real model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from eckart.cli import options as o
from eckart.cli.console import answer, check_plot, progress_bar, save_plot, say, say_error
from eckart.cli.flags import parse_numbers, with_options
from eckart.records import Edit
from eckart.tasks.spec import DrawnTask
from eckart.weights.options import FitOptions, ModelOptions

theory = typer.Typer(
    name="theory",
    help="The paper's mathematics: every statement checked, its quantities asked of a model.",
)


@theory.command()
def check(
    instances: Annotated[int, o.number_flag("Random instances for each statement.", 10)] = 1000,
    seed: Annotated[int, o.number_flag("Of the random instances.", 0)] = 0,
    json_: o.Json = False,
) -> None:
    """Check every statement of the paper's Section 3 and Appendix B; end with 1 if one is not as it
    is said to be."""
    from eckart.paper.theory.checks import TOLERANCE, check_report, failures, run_checks

    checks = run_checks(instances, seed)
    failed = failures(checks)
    document = {
        "instances": instances,
        "seed": seed,
        "tolerance": TOLERANCE,
        "failed": len(failed),
        "checks": [check.to_json() for check in checks],
    }
    answer(json_, document, check_report(checks))
    if failed:
        first = f"{failed[0].reference}, {failed[0].statement} (residual {failed[0].residual:.3g})"
        say_error(f"{len(failed)} of {len(checks)} statements failed, the first: {first}")
        raise typer.Exit(1)


@theory.command()
@with_options(defaults={"dtype": "float32"})  # so that a recomputed output is exact
def probe(
    model: o.Model,
    edit: o.Edits = None,
    split: o.Split = "validation",
    prompts: Annotated[int, o.number_flag("Rows of the split to read, from its beginning.", 1)] = 8,
    floor: Annotated[
        float,
        o.run_flag(
            "The noise's variance in every direction, in the linear form's part of Theorem 2."
        ),
    ] = 1e-3,
    plot: o.Plot = None,
    json_: o.Json = False,
    *,
    task: DrawnTask,
    fit: FitOptions,
    loading: ModelOptions,
) -> None:
    """Read the implicit gradient, its rank and its trajectory off a real model, and how clipping
    moves them."""
    asked = [Edit.parse(text) for text in edit or []]
    edits = [each for each in asked if each.rate]
    if asked and not edits:
        say("at rate 0 nothing is clipped, so there is nothing to compare")
    check_plot(plot)
    from eckart.paper.probe import Prober
    from eckart.paper.probe.views import draw_probe, probe_report

    rows = o.read_task(task)
    prober = Prober(
        o.read_model(model, loading),
        rows,
        prompts=prompts,
        split=split,
        floor=floor,
        **fit.only(FitOptions),
        progress=progress_bar,
    )
    before = prober()
    found = before.compare(prober(edits)) if edits else before
    save_plot(plot, draw_probe, found)
    answer(json_, found.to_json(), probe_report(found))


@theory.command()
def predicts(
    runs: Annotated[
        list[Path],
        typer.Argument(
            help="Folders of finished sweeps; of three models and tasks together at least.",
            metavar="RUN...",
        ),
    ],
    prompts: Annotated[int, o.number_flag("Validation prompts read for each draw.", 1)] = 4,
    draws: Annotated[int, o.number_flag("Draws of demonstrations read, at most.", 1)] = 2,
    floors: Annotated[
        str,
        o.flag("Noise floors of the bound, as shares of the unpruned model's mean variance."),
    ] = "1e-6,1e-2,1",
    device: o.Device = "auto",
    plot: o.Plot = None,
    json_: o.Json = False,
) -> None:
    """Compare what the theory says of every clipped layer, without labels, with what sweeps
    measured it to gain."""
    shares = parse_numbers(floors, "--floors", "1e-6,1e-2,1", _above_0, "numbers above 0")
    check_plot(plot)
    o.quieten()
    from eckart.paper.prediction import ProbeOptions, predict
    from eckart.paper.prediction.views import draw_prediction, prediction_report
    from eckart.runs import read_run

    how = ProbeOptions(prompts, draws, tuple(dict.fromkeys(shares)), device)
    found = predict([read_run(run) for run in runs], how, progress=progress_bar)
    save_plot(plot, draw_prediction, found)
    answer(json_, found.to_json(), prediction_report(found))


def _above_0(text: str) -> float:
    number = float(text)
    if not 0 < number < float("inf"):
        raise ValueError
    return number
