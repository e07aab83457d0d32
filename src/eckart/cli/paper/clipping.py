"""The verb `functions clip`: every layer and rate, then Algorithm 1, on a model that learns
functions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Group, RenderableType

from eckart.analysis.measured import Measured
from eckart.cli.console import print_json, progress_bar, say, say_run, show, typed
from eckart.cli.runs import progress
from eckart.errors import numbered
from eckart.paper.functions.clipping import Clipping, gather, judged, plan_clipping
from eckart.paper.functions.task import FunctionTask
from eckart.paper.functions.views import clipping_panels, draw_clipping
from eckart.records import Edit
from eckart.reports.figures import save_figure
from eckart.reports.table import Column, Table
from eckart.reports.terminal import Said
from eckart.scoring.evaluator import scorer_of
from eckart.selection.plan import Plan
from eckart.selection.result import SearchResult
from eckart.selection.search import run_plan
from eckart.statistics.gain import counted, sentence
from eckart.statistics.scores import SQUARED_ERROR
from eckart.sweeps.sweep import default_folder, run_sweep
from eckart.weights.models import LoadedModel


def run_clipping(
    model: LoadedModel,
    task: FunctionTask,
    parts: Sequence[str],
    rates: Sequence[float],
    layers: str | Sequence[int],
    seeds: Sequence[int],
    folder: Path | None,
    plot: Path | None,
    as_json: bool,
) -> None:
    """Run the sweep and the searches, show them, and draw the sweep."""
    grid, sources = plan_clipping(model, task, parts, rates, layers, seeds)
    folder = folder or default_folder(grid)
    say_run(folder / "sweep")
    with progress(grid, folder / "sweep", sources) as watch:
        result = run_sweep(grid, folder / "sweep", sources, watch=watch)
    studies = [_search(model, task, part, rates, folder / part) for part in parts]
    found = gather(result.run, task, studies)
    figure = plot or folder / "clipping.png"
    title = (
        f"{Path(model.name).name}: {task.function}, d = {task.dimension}, {task.shots} examples,"
        f" {len(seeds)} draws of them, n = {task.size:,}, 95% bands"
    )
    save_figure(draw_clipping(clipping_panels(found), title), figure)
    if as_json:
        print_json(found.to_json())
        return
    show(clipping_report(found))
    say(f"figure: {figure}; run: {folder}")


def _search(
    model: LoadedModel, task: FunctionTask, part: str, rates: Sequence[float], folder: Path
) -> SearchResult:
    """Run Algorithm 1, which chooses the layer itself, with the squared error on validation as its
    score."""
    scorer = scorer_of(task, model, progress=progress_bar)
    plan = Plan(part=part, rates=tuple(rates))
    found = run_plan(plan, scorer, folder, tell=say, command=typed())
    assert isinstance(found, SearchResult)
    return found


def clipping_report(found: Clipping) -> RenderableType:
    """Return what is sure, a table a part, and Algorithm 1's results."""
    unpruned, task = found.unpruned, found.task
    low, high = unpruned.interval
    title = (
        f"{task.function}, d = {task.dimension}, {task.shots} examples: squared error / variance of"
        f" f, test rows (n = {unpruned.rows}, {numbered(unpruned.seeds, 'seed')})"
    )
    said = counted(map(judged, found.cells.values()))
    sure = f"after correction for {len(found.cells)} edits (Holm, 0.05): {said}"
    better = [
        (edit, cell.gain, cell.p_holm)
        for edit, cell in found.cells.items()
        if cell.gain and judged(cell) == "gain"
    ]
    better.sort(key=lambda said: -said[1].mean)
    return Group(
        Said(sure, "bold"),
        *(Said(f"  {edit}: {sentence(gain, SQUARED_ERROR, p=p)}") for edit, gain, p in better[:3]),
        Said(f"\n{title}", "bold"),
        Said(f"unpruned {unpruned.mean:.4g}, 95% interval {low:.4g} to {high:.4g}\n"),
        *(_table(part, cells) for part, cells in found.parts.items()),
        *(Said(f"failed: {line}", hang=2) for line in found.failed),
        Said(f"Algorithm 1, examples of seed {task.seed}; its tests are not corrected", "bold"),
        *(Said(str(search), hang=2) for search in found.searches),
    )


def _table(part: str, cells: dict[Edit, Measured]) -> RenderableType:
    by_place = {(edit.layer, edit.rate): cell for edit, cell in cells.items()}
    layers, rates = (sorted(set(values)) for values in zip(*by_place, strict=True))
    columns = [Column(f"{rate:g}", f"{rate:g}", "written") for rate in rates]
    rows = [
        {"layer": layer} | {f"{rate:g}": _entry(by_place.get((layer, rate))) for rate in rates}
        for layer in layers
    ]
    title = f"{part}, by layer and clipping rate; + gain, - loss for sure"
    return Table(part, title, "", (Column("layer", "layer", "count"), *columns), rows)


def _entry(cell: Measured | None) -> str:
    """Return an error; + and - say that it is a gain or a loss for sure."""
    if cell is None:
        return "failed"
    mark = {"gain": " +", "loss": " -", "cannot tell": ""}
    return f"{cell.mean:.4g}{mark[judged(cell)]}"
