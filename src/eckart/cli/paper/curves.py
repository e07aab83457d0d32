"""What `eckart functions evaluate` measures, shows and draws."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eckart.cli.console import print_json, progress_bar, say, show
from eckart.paper.functions.baselines import choose_baselines
from eckart.paper.functions.classes import find_class
from eckart.paper.functions.curves import (
    ErrorCurves,
    HeldOut,
    StepCurves,
    error_curves,
    held_out,
    step_curves,
)
from eckart.paper.functions.figures import draw_error_curves, draw_step_curves
from eckart.paper.functions.loading import function_of, load_function_model, training_models
from eckart.paper.functions.models import FunctionModel
from eckart.paper.functions.tables import error_table, step_table
from eckart.reports.figures import save_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.console import RenderableType


def show_error_curves(
    source: str,
    function: str | None,
    device: str,
    drawn: dict[str, Any],
    baselines: Sequence[str] | None,
    plot: Path | None,
    as_json: bool,
) -> None:
    """Measure a model beside baselines, and show and draw it (Figure 5a).

    Arguments:
        source, device: see `load_function_model`.
        function: the class; the one the model was trained on where it is None.
        drawn: how the prompts are drawn; see `held_out`.
        baselines: their names; those that suit the class where it is None.
        plot: where the figure goes, if one is wanted.
        as_json: print one JSON document instead of a table.

    Raises:
        EckartError: there is no such model, class or baseline, or a number is out of range.
    """
    choose_baselines(function or "linear", baselines)  # before a model is read
    model = load_function_model(source, device)
    on = _prompts(model, function, drawn)
    chosen, name = choose_baselines(on.kind.name, baselines), Path(source).resolve().name
    with progress_bar("baselines, by number of examples", len(chosen) * len(on.counts)) as advance:
        curves = error_curves(model, on, chosen, name, report=advance)
    _finish(curves, error_table(curves), draw_error_curves, plot, as_json)


def show_step_curves(
    source: str,
    function: str | None,
    device: str,
    drawn: dict[str, Any],
    plot: Path | None,
    as_json: bool,
) -> None:
    """Measure every kept model of a training, and show and draw it (Figure 5b); arguments as above.

    Raises:
        EckartError: there is no such training or class, or a number is out of range.
    """
    if function is not None:
        find_class(function)
    kept = training_models(source)
    last = load_function_model(kept[max(kept)], device)
    on = _prompts(last, function, drawn)
    models = ((step, load_function_model(path, device)) for step, path in kept.items())
    with progress_bar("models", len(kept)) as advance:
        curves = step_curves(models, on, report=advance)
    _finish(curves, step_table(curves), draw_step_curves, plot, as_json)


def _prompts(model: FunctionModel, function: str | None, drawn: dict[str, Any]) -> HeldOut:
    return held_out(model, function_of(model) if function is None else function, **drawn)


def _finish(
    curves: ErrorCurves | StepCurves,
    table: RenderableType,
    draw: Callable[[Any], Figure],
    plot: Path | None,
    as_json: bool,
) -> None:
    if plot is not None:
        save_figure(draw(curves), plot)
    if as_json:
        print_json({**curves.to_json(), "figure": None if plot is None else str(plot)})
        return
    show(table)
    if plot is not None:
        say(f"figure: {plot}")
