"""The options of `eckart sweep`, its progress, and how it ends."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from eckart.cli import options as o
from eckart.cli.console import errors, print_json, say, say_run, show

if TYPE_CHECKING:
    from rich.console import RenderableType

    from eckart.sweeps.cost import Cost
    from eckart.sweeps.grid import Sweep
    from eckart.sweeps.result import SweepResult
    from eckart.sweeps.sources import Sources
    from eckart.sweeps.sweep import Event, Execute

GRID = "The grid"


def _grid(help_: str, *names: str) -> Any:
    return typer.Option(*names, help=help_, rich_help_panel=GRID)


@dataclass(frozen=True)
class Said:
    """What the command line says about a study; None for what it leaves to the file."""

    models: Annotated[
        list[str] | None, _grid("A hub id or a folder; may be given several times.", "--model")
    ] = None
    tasks: Annotated[str | None, _grid("Catalogue names or task files, joined by commas.")] = None
    layers: Annotated[
        str | None, _grid("0,1,-2,-1, or all, or auto: by condition number, for each part.")
    ] = None
    parts: Annotated[str | None, _grid("attn,mlp by default; or all, or single matrices.")] = None
    rates: Annotated[str | None, _grid("Clipping rates; 0 is always among them.")] = None
    shots: Annotated[
        str | None, _grid("Numbers of demonstrations; each task's own by default.")
    ] = None
    seeds: Annotated[str | None, _grid("Draw the demonstrations: 0,1,2 or 0..4.")] = None
    scorings: Annotated[str | None, _grid("sum,contextual,batch,...: all from one reading.")] = None
    test: Annotated[
        str | None,
        _grid("selected: each part's best on validation; all: every edit, for figures; none."),
    ] = None
    metric: o.Metric = None
    combine: Annotated[str | None, _grid("For auto: geometric, mean, max or min.")] = None
    top_k: Annotated[
        int | None, _grid("For auto: the deepest of the K worst-conditioned layers.")
    ] = None
    spectra: Annotated[
        bool, _grid("Measure every matrix's spectrum, too; needs no tasks.", "--spectra")
    ] = False
    data: Annotated[
        Path | None,
        typer.Option(
            help="The task's data; of several tasks, a folder with one for each.",
            rich_help_panel=o.TASK,
        ),
    ] = None
    text_column: o.TextColumn = None
    label_column: o.LabelColumn = None
    template: o.Template = None
    labels: o.Labels = None
    label_end: o.LabelEnd = None
    variant: o.Variant = None
    split_seed: Annotated[
        int | None, typer.Option(help="Draws validation and test rows.", rich_help_panel=o.TASK)
    ] = None
    split_sizes: o.SplitSizes = None
    batch_tokens: o.BatchTokens = None
    cache_memory: o.CacheMemory = None
    truncate_demonstrations: o.Truncate = False
    drop_long_rows: o.DropLong = False
    dtype: Annotated[
        str | None,
        typer.Option(help="float32, bfloat16, float16, or auto.", rich_help_panel=o.MODEL),
    ] = None
    device: Annotated[
        str | None, typer.Option(help="auto, cpu, cuda, cuda:1, mps, ...", rich_help_panel=o.MODEL)
    ] = None
    device_map: o.DeviceMap = None
    trust_remote_code: o.RemoteCode = False

    def values(self) -> dict[str, Any]:
        """Return what was said, and nothing else."""
        read = {
            **{f.name: getattr(self, f.name) for f in fields(self)},
            "labels": o.parse_labels(self.labels),
            "cache_memory": o.parse_memory(self.cache_memory),
            "data": None if self.data is None else str(self.data),
        }
        return {
            name: value for name, value in read.items() if value is not None and value is not False
        }


def carry_out(
    study: Sweep, folder: Path, sources: Sources, execute: Execute, as_json: bool
) -> None:
    """Run a study, show how far it is, and what came of it."""
    from eckart.sweeps.sweep import run_sweep

    say_run(folder)
    with progress(study, folder, sources) as watch:
        result = run_sweep(study, folder, sources, execute, watch)
    if as_json:
        print_json(result.to_json())
        return
    show(summary(result))
    say(
        f"the study as it was run: {folder / 'study.yaml'}; pages and figures: eckart report"
        f" {folder}"
    )


def show_cost(cost: Cost, as_json: bool) -> None:
    """Print what a sweep would cost."""
    if as_json:
        print_json(cost.to_json())
        return
    show(
        f"{cost.units} units, up to {cost.trials} trials, {cost.kept} of them kept already; fewer"
        f" where no edit is chosen for the test rows\n{cost.rows:,} rows, {cost.tokens:,} tokens in"
        f" the unpruned passes\nabout {cost.seconds / 60:.1f} minutes for what is left, one unit"
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
    from eckart.records import Trial
    from eckart.sweeps.cost import expected_trials
    from eckart.sweeps.grid import Unit

    total, units = expected_trials(study, folder, sources), len(list(study.units))
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    done, trials, start = 0, 0, time.perf_counter()
    with Progress(*columns, console=errors, transient=True, disable=not errors.is_terminal) as bar:
        job = bar.add_task(f"0 of {units} units, trials", total=total)

        def watch(event: Event) -> None:
            """Count a trial, and say that a unit is done."""
            nonlocal done, trials
            if isinstance(event, Trial):
                trials += 1
                bar.advance(job)
            elif isinstance(event, Unit):
                done += 1
                bar.update(job, description=f"{done} of {units} units, trials")
                say(
                    f"{done} of {units} units: {event}: {trials} trials,"
                    f" {time.perf_counter() - start:.0f} s"
                )
                trials = 0

        yield watch
