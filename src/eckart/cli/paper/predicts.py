"""The verb `theory predicts`: do the theory's quantities rank clipped layers as finished sweeps
measured them?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from eckart.cli import options as o
from eckart.cli.console import print_json, progress_bar, say, show
from eckart.errors import EditError


def predicts(
    runs: Annotated[
        list[Path],
        typer.Argument(
            help="Folders of finished sweeps; of three models and tasks together at least.",
            metavar="RUN...",
        ),
    ],
    prompts: Annotated[int, typer.Option(help="Validation prompts read for each draw.", min=1)] = 4,
    seeds: Annotated[int, typer.Option(help="Draws of demonstrations read, at most.", min=1)] = 2,
    floors: Annotated[
        str,
        typer.Option(
            help="Noise floors of the bound, as shares of the unpruned model's mean variance."
        ),
    ] = "1e-6,1e-2,1",
    device: o.Device = "auto",
    plot: o.Plot = None,
    json_: o.Json = False,
) -> None:
    """Compare what the theory says of every clipped layer, without labels, with what sweeps
    measured it to gain."""
    shares = _floors(floors)
    if plot is not None:
        from eckart.reports.figures import check_figure_path

        check_figure_path(plot)
    o.quieten()
    from eckart.paper.prediction import Probing, predict
    from eckart.runs import read_run

    how = Probing(prompts, seeds, shares, device)
    found = predict([read_run(run) for run in runs], how, progress=progress_bar)
    if plot is not None:
        from eckart.paper.prediction.figure import draw_prediction, prediction_drawing
        from eckart.reports.figures import save_figure

        save_figure(draw_prediction(prediction_drawing(found)), plot)
        say(f"figure: {plot}")
    if json_:
        print_json(found.to_json())
        return
    from eckart.paper.prediction.tables import prediction_report

    show(prediction_report(found))


def _floors(text: str) -> tuple[float, ...]:
    """Read `1e-6,1`, each once."""
    try:
        found = tuple(dict.fromkeys(float(share) for share in text.split(",")))
    except ValueError:
        found = ()
    if not found or not all(0 < share < float("inf") for share in found):
        raise EditError(
            f"--floors '{text}' are not numbers above 0 joined by commas, such as 1e-6,1e-2,1"
        )
    return found
