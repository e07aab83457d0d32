"""A sweep: a grid of trials over models, tasks, shots, seeds and scorings, run once, and
resumable."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eckart.errors import RunError
from eckart.files import home
from eckart.records import RATES, TOP_K, Trial, fingerprint
from eckart.runs import CONTENTS, PORTABLE, RunStore, folder_name, read_run
from eckart.scoring.scorer import Progress, silent
from eckart.selection.alike import alike_rates
from eckart.selection.guard import keep_guard
from eckart.selection.recorded import Ledger, Recorded
from eckart.sweeps.cost import expected_trials
from eckart.sweeps.grid import Sweep, Unit, located
from eckart.sweeps.result import SweepResult
from eckart.sweeps.sources import Outline, Sources, check_names, contents, settle
from eckart.sweeps.units import Facts, foresee_unit, look_at, run_unit
from eckart.tasks.portable import portable
from eckart.tasks.task import AnyTask
from eckart.weights.models import LoadedModel, Model, load_model

Event = Facts | Trial | Unit
"""What is told of as a sweep runs: a model, an edit, and a unit when it is done."""


@dataclass(frozen=True)
class Job:
    """A sweep on its way.

    Arguments:
        sweep: resolved.
        sources: what the caller holds in memory.
        store: keeps all that is found, at once.
        contents: by what each task is asked, the digests of what it holds; see `contents`.
        watch: told of every event.
        tell: told in words what can be seen, before it is looked for; None where nobody listens.
    """

    sweep: Sweep
    sources: Sources
    store: RunStore
    contents: dict[str, dict[str, Any]]
    watch: Callable[[Event], None] = lambda event: None
    tell: Callable[[str], None] | None = None


Execute = Callable[[Job], None]
"""Where units are scored: here, or on a cluster."""


def locally(job: Job) -> None:
    """Score every unit in this process, one after the other; each model is loaded once."""
    for entry in job.sweep.models:
        model = job.sources.model(entry)
        facts = look_at(model, job.sweep, job.store)
        keep_facts(job.store, facts)
        job.watch(facts)
        for unit in job.sweep.units:
            if unit.model is entry:
                where = job.sweep, unit, job.sources, model, facts, job.store
                scored = score_unit(*where, job.watch, job.tell)
                for _ in scored:
                    pass  # what is new is kept, and told of, as it comes
                job.watch(unit)


def score_unit(
    sweep: Sweep,
    unit: Unit,
    sources: Sources,
    model: LoadedModel,
    facts: Facts,
    ledger: Ledger,
    watch: Callable[[Trial], None] = lambda trial: None,
    tell: Callable[[str], None] | None = None,
) -> Iterator[Trial]:
    """Score a unit with a model that is loaded; see `foresee_unit` and `run_unit`."""
    scorer = sources.scorer(sweep, sources.task(unit.task, unit.shots, unit.seed), model)
    metric = unit.task.metric or scorer.task.metric
    recorded = Recorded(scorer, ledger, shared=True, watch=watch)
    outlook = foresee_unit(sweep, unit, recorded, facts.layers) if tell else None
    if tell and outlook:
        tell(f"{unit}: {outlook}")
    yield from run_unit(
        sweep,
        recorded,
        facts.layers,
        metric,
        sources.guard(sweep, scorer),
    )


def sweep(
    models: Any,
    tasks: Any = (),
    *,
    layers: str | Iterable[int] = "auto",
    parts: str | Iterable[str] = ("attn", "mlp"),
    rates: Iterable[float] = RATES,
    shots: int | str | Iterable[int] | None = None,
    seeds: int | str | Iterable[int] | None = None,
    scorings: str | Iterable[str] | None = None,
    test: str = "selected",
    combine: str = "geometric",
    top_k: int = TOP_K,
    out: str | Path | None = None,
    dtype: str = "auto",
    device: str = "auto",
    execute: Execute = locally,
    progress: Progress = silent,
    **options: Any,
) -> SweepResult:
    """Run a grid of trials over models, tasks, layers, parts, rates, shots, seeds and scorings,
    once.

    Arguments:
        models: hub ids, local folders, live models or what `load_model` returned, or entries such
            as `{"name": "gpt2", "dtype": "float32"}`; one or several.
        tasks: catalogue names, task files, `Task` or `FunctionTask` objects, or entries with the
            arguments of `Task.load`; one or several. `shots` and `seeds` draw demonstrations for
            all of them; without, a task object keeps its own.
        layers, parts, rates, shots, seeds, scorings, test, combine, top_k: see `Sweep`; None for
            the tasks' own.
        out: the run's folder; by default under `runs/`, named by the settings. A stopped sweep goes
            on from it.
        dtype, device: of the models that are given by name.
        execute: where units are scored: in this process, or on a cluster
            (`eckart.sweeps.cluster.on_cluster`).
        progress: shows how many trials are done, such as `eckart.progress`.
        options: the other fields of `Sweep`: `spectra`, `truncate_demonstrations`,
            `drop_long_rows`, `batch_tokens`, `cache_memory`, `guard`, `guard_text`, `guard_task`,
            `guard_margin`.

    Raises:
        EckartError: the grid, a model, a task or the run's folder is not usable.

    Returns:
        what the run's folder holds, with a line for each unit, scoring and part.
    """
    held, own = _models(models, dtype, device), _tasks(tasks)
    listed = {
        "layers": layers,
        "parts": parts,
        "rates": rates,
        "shots": shots,
        "seeds": seeds,
        "scorings": scorings,
    }
    values = {
        "models": [entry for entry, _ in held],
        "tasks": [entry for entry, _ in own],
        **{
            name: value if isinstance(value, str | int) else list(value)
            for name, value in listed.items()
            if value is not None
        },
        "test": test,
        "combine": combine,
        "top_k": top_k,
        **options,
    }
    check_names([model.name for _, model in held if model is not None], "models")
    check_names([task.full_name for _, task in own if task is not None], "tasks")
    sources = Sources(
        {model.name: model for _, model in held if model is not None},
        {task.full_name: task for _, task in own if task is not None},
    )
    grid = settle(Sweep.of(located(values, Path.cwd())), sources)
    if progress is silent:  # counting what is to come opens every model
        return run_sweep(grid, out, sources, execute)
    return _watched(grid, out, sources, execute, progress)


def _watched(
    grid: Sweep, out: str | Path | None, sources: Sources, execute: Execute, progress: Progress
) -> SweepResult:
    folder = home(out) if out is not None else default_folder(grid)
    with progress("trials", expected_trials(grid, folder, sources)) as advance:

        def watch(event: Event) -> None:
            if is_expected(event):
                advance(1)

        return run_sweep(grid, folder, sources, execute, watch)


def is_expected(event: Event) -> bool:
    """Whether an event is a trial that `expected_trials` counts: a first look is none."""
    return isinstance(event, Trial) and not event.split.is_part


def _models(
    models: Any, dtype: str, device: str
) -> list[tuple[dict[str, Any], LoadedModel | None]]:
    """Return an entry for each model, and the model itself where it lies in memory."""
    found: list[tuple[dict[str, Any], LoadedModel | None]] = []
    for model in models if isinstance(models, list | tuple) else [models]:
        if isinstance(model, Model | LoadedModel):
            loaded = load_model(model)
            found.append(({"name": loaded.name, "live": True}, loaded))
        elif isinstance(model, dict):
            found.append((model, None))
        else:
            found.append(({"name": str(model), "dtype": dtype, "device": device}, None))
    return found


def _tasks(tasks: Any) -> list[tuple[dict[str, Any], AnyTask | None]]:
    """Return an entry for each task, and the task itself where it lies in memory."""
    found: list[tuple[dict[str, Any], AnyTask | None]] = []
    for task in tasks if isinstance(tasks, list | tuple) else [tasks]:
        if isinstance(task, dict):
            found.append((task, None))
        elif isinstance(task, str | Path):
            found.append(({"task": str(task)}, None))
        else:
            found.append(
                ({"name": task.name, "variant": task.variant, "digest": task.digest}, task)
            )
    return found


def run_sweep(
    sweep: Sweep,
    out: str | Path | None = None,
    sources: Sources | None = None,
    execute: Execute = locally,
    watch: Callable[[Event], None] = lambda event: None,
    tell: Callable[[str], None] | None = None,
) -> SweepResult:
    """Carry out a sweep; what its run already holds is not computed again.

    Arguments:
        sweep: resolved; see `settle`.
        out: the run's folder; by default under `runs/`, named by the settings.
        sources: models and tasks in memory.
        execute: where units are scored.
        watch: told of every event.
        tell: told in words what can be seen, before it is looked for.

    Raises:
        RunError: the folder is not usable or holds another run, or a model or a task's data,
            prompts or demonstrations have changed since the run began.
    """
    folder, sources = home(out) if out is not None else default_folder(sweep), sources or Sources()
    asked = contents(sweep, sources)
    with RunStore(folder, sweep.settings) as store:
        _keep_contents(store, asked)
        drawn = [sources.task(unit.task, unit.shots, unit.seed) for unit in sweep.units]
        store.keep_note(PORTABLE, portable(drawn))
        if sweep.guard:
            keep_guard(store, sweep.guard_margin, sources.guards(sweep))
        if not (sources.models or sources.tasks):
            store.write("study.yaml", sweep.to_yaml())
        if tell:
            _tell_alike(sweep, sources, tell)
        execute(Job(sweep, sources, store, asked, watch, tell))
    return SweepResult(read_run(folder))


def _tell_alike(sweep: Sweep, sources: Sources, tell: Callable[[str], None]) -> None:
    for entry in sweep.models:
        anatomy = Outline.of(entry, sweep, sources).anatomy
        layers = sweep.layers_of(anatomy) or range(len(anatomy.layers))
        for said in alike_rates(anatomy, sweep.edits(dict.fromkeys(sweep.parts, layers))):
            tell(f"{Path(entry.name).name}: {said}")


def default_folder(sweep: Sweep) -> Path:
    """Name a run by its settings: the same sweep goes on where it stopped, another one never meets
    it."""
    return (
        Path("runs")
        / f"sweep-{folder_name(sweep.models[0].name)}-{fingerprint(sweep.settings)[:8]}"
    )


def _keep_contents(store: RunStore, asked: dict[str, dict[str, Any]]) -> None:
    kept = store.note(CONTENTS)
    if kept is None:
        store.keep_note(CONTENTS, asked)
        return
    for name, content in asked.items():
        changed = [what for what in content if kept[name][what] != content[what]]
        if changed:
            raise RunError(
                f"task '{name}' has other {', '.join(changed)} than when run '{store.folder}'"
                " began; bring the old back, or choose another --out"
            )


_MADE_OF = {
    "dtype": "dtype",
    "fingerprint": "weights, configuration, tokenizer or code",
    "batch_tokens": "batches (--batch-tokens), on which the last bits in half precision depend,",
}


def keep_facts(store: RunStore, facts: Facts) -> None:
    """Keep what is known of a model.

    Raises:
        RunError: the run began with another model of this name.
    """
    kept = store.model(facts.name)
    if kept is None:
        store.keep_model(facts.name, facts.to_json())
        return
    for name, what in _MADE_OF.items():
        if kept.get(name) != getattr(facts, name):
            raise RunError(
                f"model '{facts.name}' has other {what} than when run '{store.folder}' began"
                f" ({kept.get(name)}, now {getattr(facts, name)}); bring the old one back, or"
                " choose another --out"
            )
