"""Runs of sweeps and of spectra: their progress, their costs, and how they end."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from eckart.cli.console import bar, print_json, progress_bar, say, say_run, show, typed
from eckart.files import home

if TYPE_CHECKING:
    from rich.console import RenderableType

    from eckart.runs import RunStore
    from eckart.scoring.scorer import Scorer
    from eckart.selection.plan import Plan
    from eckart.statistics.power import Outlook
    from eckart.sweeps.cost import Cost
    from eckart.sweeps.grid import Sweep
    from eckart.sweeps.result import SweepResult
    from eckart.sweeps.sources import Sources
    from eckart.sweeps.sweep import Event, Execute
    from eckart.weights.conditioning import MatrixSpectrum
    from eckart.weights.stored import StoredWeights


# Any model's spectra may lie in one folder: a matrix is known by its bytes, and a model by those
# that it was made of.
SETTINGS = {"kind": "spectrum"}


def carry_out(
    study: Sweep, folder: Path, sources: Sources, execute: Execute, as_json: bool
) -> None:
    """Run a study, show how far it is, and what came of it."""
    from eckart.sweeps.sweep import run_sweep

    say_run(folder)
    with progress(study, folder, sources) as watch:
        result = run_sweep(study, folder, sources, execute, watch, say)
    if as_json:
        print_json(result.to_json())
        return
    show(summary(result))
    say(
        f"the study as it was run: {folder / 'study.yaml'}; pages and figures: eckart report"
        f" {folder}"
    )


def show_plan(plan: Plan, scorer: Scorer, folder: Path, as_json: bool) -> None:
    """Show what a search will cost, and what it can see."""
    from eckart.selection.draws import Draws
    from eckart.selection.power import foresee, largest_first
    from eckart.selection.search import check_plan
    from eckart.sweeps.cost import as_sweep, estimate

    check_plan(plan, scorer)
    study, sources = as_sweep(plan, scorer)
    cost = estimate(study, folder, sources)
    layers = study.layers_of(scorer.anatomy) or [len(scorer.anatomy.layers) - 1]
    edits = largest_first(scorer.anatomy, max(layers), plan.part, plan.tried)
    found = foresee(Draws.of(scorer, plan.seeds, plan.templates), edits)
    name = folder.name if isinstance(plan.layer, int) else f"{folder.name}, at its deepest layer"
    _show_cost(cost, {} if found is None else {name: found}, as_json)


def show_study(study: Sweep, folder: Path, sources: Sources, as_json: bool) -> None:
    """Show what a study will cost, and what it can see."""
    from eckart.sweeps.cost import estimate

    seen: dict[str, Outlook] = {}
    cost = estimate(study, folder, sources, lambda unit, found: seen.update({str(unit): found}))
    _show_cost(cost, seen, as_json)


def _show_cost(cost: Cost, seen: Mapping[str, Outlook], as_json: bool) -> None:
    if as_json:
        power = [{"of": name, **found.to_json()} for name, found in seen.items()]
        print_json({**cost.to_json(), "power": power})
        return
    from eckart.selection.power import lasting

    for name, found in seen.items():
        show(f"{name}: {found}")
    show(
        f"{cost.units} units, up to {cost.trials} trials, {cost.kept} of them kept already; fewer"
        f" where no edit is chosen for the test rows\n{cost.rows:,} rows, {cost.tokens:,} tokens in"
        f" the unpruned passes\n{lasting(cost.seconds)} for what is left, one unit"
        f" after the other, on this machine\ndisk: about {cost.disk / 1e6:.1f} MB for the run;"
        f" states of up to {cost.states / 1e6:.1f} MB at a time, in memory (--cache-memory) or a"
        " temporary file"
    )


def summary(result: SweepResult) -> RenderableType:
    """Return what the choices are worth, a line for each unit, scoring and part, and a count."""
    from rich.console import Group

    from eckart.reports.terminal import Said

    failed = sum(trial.status == "failed" for trial in result.run.trials.values())
    tested = any(line.test for line in result.lines)
    corrected = (
        f" (not corrected for their number; 'eckart report {result.run.folder}' corrects them)"
    )
    conditions = [
        _conditions(name, part, values)
        for name, facts in result.run.models.items()
        for part, values in facts["condition_numbers"].items()
    ]
    ended = f"{len(result.run.trials)} trials" + (f", {failed} of them failed" if failed else "")
    return Group(
        *([Said(result.verdict() + (corrected if tested else ""), "bold")] if result.lines else []),
        *(Said(line, hang=2) for line in (*map(str, result.lines), *conditions)),
        Said(ended),
    )


def _conditions(name: str, part: str, values: dict[str, float | None]) -> str:
    listed = ", ".join(
        f"{layer}: {'singular' if v is None else f'{v:.6g}'}" for layer, v in values.items()
    )
    return f"{Path(name).name}, condition numbers of {part} by layer: {listed}"


@contextmanager
def progress(study: Sweep, folder: Path, sources: Sources) -> Iterator[Callable[[Event], None]]:
    """Show trials done and the time left; where standard error is no terminal, a line a unit."""
    from eckart.sweeps.cost import expected_trials
    from eckart.sweeps.grid import Unit
    from eckart.sweeps.sweep import is_expected

    total = expected_trials(study, folder, sources)
    units = len(list(study.units))
    done = 0
    trials = 0
    start = time.perf_counter()
    with bar() as shown:
        job = shown.add_task(f"0 of {units} units, trials", total=total)

        def watch(event: Event) -> None:
            nonlocal done, trials
            if is_expected(event):
                trials += 1
                shown.advance(job)
            elif isinstance(event, Unit):
                done += 1
                shown.update(job, description=f"{done} of {units} units, trials")
                say(
                    f"{done} of {units} units: {event}: {trials} trials;"
                    f" {time.perf_counter() - start:.0f} s since the start"
                )
                trials = 0

        yield watch


def run_spectrum(
    stored: StoredWeights,
    part: str,
    layers: list[int] | None,
    device: str,
    folder: Path,
    figure: Path,
    as_json: bool,
) -> None:
    """Measure a model's matrices, and show, draw and keep what came of it.

    Arguments:
        stored: the checkpoint.
        part, layers: which matrices.
        device: where to compute.
        folder: keeps every spectrum, from which a stopped command goes on, and `result.json`.
        figure: where the condition numbers are drawn.
        as_json: print one JSON document instead of a table.

    Raises:
        EckartError: there is no such part, layer or device, the folder is not usable, or the
            weights are not.
    """
    from eckart.reports.figures import condition_curves, draw_condition_numbers, save_figure
    from eckart.reports.results import spectrum_report
    from eckart.runs import RunStore
    from eckart.weights.models import pick_device
    from eckart.weights.spectrum import Noted, matrices, spectra

    target = pick_device(device)
    weights = matrices(stored.anatomy, part, layers)
    say_run(folder)
    with RunStore(folder, SETTINGS, typed()) as store:
        with progress_bar("spectra", len(weights)) as advance:
            noted = Noted(store, partial(_note, store, stored.name))
            found = spectra(stored.read(weights), store=noted, device=target, advance=advance)
        document = _document(stored, folder, figure, found)
        store.write("result.json", json.dumps(document, indent=2) + "\n")
    save_figure(draw_condition_numbers(condition_curves(found), Path(stored.name).name), figure)
    if as_json:
        print_json(document)
        return
    show(spectrum_report(found))
    say(f"figure: {figure}")


def _note(store: RunStore, name: str, matrices: list[str]) -> None:
    """Keep which spectra are a model's as it is now: before, it may have had other weights."""
    folder = home(name)
    store.keep_model(str(folder.resolve()) if folder.exists() else name, {"spectra": matrices})


def _document(
    stored: StoredWeights, folder: Path, figure: Path, found: list[MatrixSpectrum]
) -> dict[str, object]:
    return {
        "model": stored.name,
        "run": str(folder),
        "figure": str(figure),
        "loaded_whole": stored.whole,
        "matrices": [matrix.to_json() for matrix in found],
    }
