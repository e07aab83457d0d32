"""The main job: Algorithm 1 on a model and a task, recorded so that it can be stopped and
resumed."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from eckart.algorithm1 import ScoreEdits, algorithm1, control_arms, no_arms, search_all
from eckart.files import home
from eckart.published import identify, published_rows
from eckart.records import RATES, TOP_K, fingerprint
from eckart.runs import RunStore, folder_name
from eckart.scoring.evaluator import scorer_of
from eckart.scoring.scorer import Scorer
from eckart.selection.draws import OWN, Draws, drawn_tasks
from eckart.selection.guard import Guard, keep_guard
from eckart.selection.plan import MARGIN, Plan, check_known
from eckart.selection.racing import ALPHA, Race, check_race, race_rates
from eckart.selection.result import Candidate, SearchResult
from eckart.tasks.task import AnyTask, Task
from eckart.weights.conditioning import layer_condition_numbers
from eckart.weights.edits import droppable
from eckart.weights.linalg import factored_size, rank_at
from eckart.weights.models import LoadedModel, Model, Tokenizer, load_model
from eckart.weights.spectrum import exact_matrices, matrices, spectra


def search(
    model: str | Path | Model | LoadedModel,
    task: AnyTask | str,
    *,
    part: str = "mlp",
    rates: Iterable[float] = RATES,
    top_k: int = TOP_K,
    layer: int | None = None,
    combine: str = "geometric",
    metric: str | None = None,
    race: bool = False,
    controls: bool = False,
    guard: bool = False,
    guard_text: str | Path | None = None,
    guard_task: Sequence[Task | str | Path] = (),
    guard_margin: float = MARGIN,
    seeds: Iterable[int] | str = (),
    templates: Iterable[str] | str = (),
    out: str | Path | None = None,
    dtype: str = "auto",
    device: str = "auto",
    tokenizer: Tokenizer | None = None,
    **options: Any,
) -> SearchResult:
    """Run Algorithm 1 of the paper: choose a layer by condition number, a rate on validation, and
    test once.

    Arguments:
        model: a hub id, a local folder, or a live `PreTrainedModel`.
        task: a `Task`, the name of one, or a `FunctionTask`.
        part, rates, top_k, layer, combine, metric, race, controls, seeds, templates: see `Plan`.
        guard: say what else the choice does, on a text and on tasks that did not choose it;
            `guard_text`, `guard_task` and `guard_margin` are what `Guard` takes.
        out: the run's folder; every trial is kept there, and an interrupted search goes on from it.
        dtype, device, tokenizer: see `load_model`.
        options: passed on to what scores, such as `progress`; see `Evaluator`.

    Raises:
        EckartError: the model, the task, the plan or the run's folder is not usable.

    Returns:
        the choice, every candidate, and the paired result on the test set.
    """
    plan = Plan.of(
        {
            "part": part,
            "rates": list(rates),
            "top_k": top_k,
            "layer": layer,
            "combine": combine,
            "metric": metric,
            "race": race,
            "controls": controls,
            "seeds": seeds if isinstance(seeds, str) else list(seeds),
            "templates": templates if isinstance(templates, str) else list(templates),
        },
        "the search",
    )
    task = Task.load(task) if isinstance(task, str) else task
    task = drawn_tasks(task, plan.seeds, plan.templates)[0]
    loaded = load_model(model, dtype=dtype, device=device, tokenizer=tokenizer)
    scorer = scorer_of(task, loaded, **options)
    guarding = Guard(scorer, guard_text, guard_task, guard_margin) if guard else None
    return run_plan(plan, scorer, out, guard=guarding)


def run_plan(
    plan: Plan,
    scorer: Scorer,
    out: str | Path | None = None,
    tell: Callable[[str], None] = lambda line: None,
    command: str | None = None,
    guard: Guard | None = None,
) -> SearchResult:
    """Carry out a plan, and look at what else the choice does if there is a guard; see `search`. A
    race tells of every rate that it drops; a new run notes the command."""
    check_known(plan.metric, scorer.task.metrics, "metric")
    if plan.race:
        check_race(plan.metric or scorer.task.metric, scorer.scoring)
    draws = Draws.of(scorer, plan.seeds, plan.templates)
    scorer = draws.first
    # What cannot be done is refused before anything long is computed, and before a new run's folder
    # is made.
    first = scorer.anatomy.layer_index(plan.layer or 0)
    scorer.anatomy.select(first, plan.part)
    if out is None or not (home(out) / "run.sqlite").exists():
        draws.prepare()
    settings = describe(plan, scorer)
    # The weights' fingerprint says which model it is; the name is only the path that it was found
    # by.
    identity = {name: value for name, value in settings.items() if name != "model"}
    try:
        with RunStore(out, identity, command) if out is not None else nullcontext() as store:
            result = _search(plan, replace(draws, ledger=store), store, settings, tell)
            if guard is not None:
                if store is not None:  # first: what is kept from here on is none of the search's
                    keep_guard(store, guard.margin, guard.read)
                result = replace(result, guarded=guard.look(result.edits, store))
            if store is not None:
                store.write("result.json", json.dumps(result.to_json(), indent=2) + "\n")
    finally:
        draws.forget()  # factorisations and readers: nothing more is to come
        if guard is not None:
            guard.forget()
    return result


def default_folder(plan: Plan, scorer: Scorer) -> Path:
    """Name a run by its settings: the same search goes on where it stopped, another one never meets
    it."""
    settings = describe(plan, scorer)
    digest = fingerprint(settings)[:8]
    # A task's name is no path: it may come from a task file of somebody else's.
    task = (
        folder_name(scorer.task.name.replace("/", "-"))
        .encode("utf-8", "ignore")[:80]
        .decode("utf-8", "ignore")
    )
    return Path("runs") / f"{folder_name(scorer.model.name)}-{task}-{plan.part}-{digest}"


def describe(plan: Plan, scorer: Scorer) -> dict[str, Any]:
    """Return the settings that make a run what it is, as JSON values.

    Arguments:
        scorer: of the plan's first draw.
    """
    task = scorer.task
    return {
        "kind": "search",
        "model": scorer.model.name,
        "weights": scorer.model.fingerprint,
        "dtype": scorer.model.dtype,
        "task": task.name,
        "prompts": task.digest,
        "rows": [scorer.digest("validation"), scorer.digest("test")],
        "shots": task.shots,
        "seed": task.seed,
        "metric": plan.metric or task.metric,
        "scoring": scorer.scoring,
        "part": plan.part,
        "rates": list(plan.rates),
        "layer": plan.layer,
        "top_k": plan.top_k,
        "combine": plan.combine,
        # Only where there is one: a run of Algorithm 1 as written goes on whatever made it.
        **({"race": ALPHA} if plan.race else {}),
        **({"controls": True} if plan.controls else {}),
        **_draws(plan, task),
        **scorer.reading_key,
        **({"file": scorer.model.file.origin} if scorer.model.file else {}),
    }


def _draws(plan: Plan, task: AnyTask) -> dict[str, Any]:
    tasks = drawn_tasks(task, plan.seeds, plan.templates)
    if len(tasks) == 1:
        return {}
    prompts = list(dict.fromkeys(each.variant or OWN for each in tasks))
    return {
        **({"seeds": list(plan.seeds)} if len(plan.seeds) > 1 else {}),
        **({"templates": prompts} if len(prompts) > 1 else {}),
        "draws": [each.digest for each in tasks],
    }


def _search(
    plan: Plan,
    draws: Draws,
    store: RunStore | None,
    settings: dict[str, Any],
    tell: Callable[[str], None],
) -> SearchResult:
    scorer = draws.first
    if plan.layer is None:
        choose_from = condition_numbers = _condition_numbers(plan, scorer, store)
    else:  # a layer that is given is the only one to choose from
        condition_numbers = {}
        choose_from = {scorer.anatomy.layer_index(plan.layer): math.inf}
    rows = draws.size("validation")

    def race(score: ScoreEdits, layer: int, part: str, rates: Sequence[float], metric: str) -> Race:
        return race_rates(score, layer, part, rates, rows, tell)

    found = algorithm1(
        draws.score,
        choose_from,
        plan.part,
        plan.rates,
        plan.top_k,
        settings["metric"],
        race if plan.race else search_all,
        partial(control_arms, droppable=droppable(scorer.anatomy)) if plan.controls else no_arms,
    )
    raced = found.rates if isinstance(found.rates, Race) else None
    seen = raced.seen if raced else (rows,) * len(plan.rates)
    weights = scorer.anatomy.select(found.layer, plan.part)
    shapes = {weight.name: weight.shape for weight in weights}
    candidates = tuple(
        Candidate(rate, {name: rank_at(rate, shapes[name]) for name in shapes}, trial, saw)
        for (rate, trial), saw in zip(found.rates.trials.items(), seen, strict=True)
    )
    return SearchResult(
        settings=settings,
        labels=tuple(scorer.task.labels),
        part=plan.part,
        layer=found.layer,
        rate=found.rates.best,
        condition_numbers=condition_numbers,
        candidates=candidates,
        baseline=found.unpruned,
        clipped=found.clipped,
        controls=found.controls,
        parameters=_parameters(list(shapes.values()), found.rates.best),
        published=tuple(_published(scorer, plan.part)),
        notes=draws.notes(),
        rows=(*draws.rows("validation"), *draws.rows("test")),
        race=raced,
    )


def _condition_numbers(plan: Plan, scorer: Scorer, store: RunStore | None) -> dict[int, float]:
    weights = exact_matrices(scorer.model, plan.part)
    with scorer.progress("condition numbers", len(matrices(scorer.anatomy, plan.part))) as advance:
        measured = spectra(weights, store=store, device=scorer.model.model.device, advance=advance)
    return layer_condition_numbers(measured, plan.combine)


def _parameters(shapes: list[tuple[int, int]], rate: float) -> dict[str, int]:
    """Count a part's parameters, dense and with each matrix as two factors wherever that is
    smaller."""
    dense = sum(m * n for m, n in shapes)
    factored = sum(min(m * n, factored_size(rate, (m, n))) for m, n in shapes)
    return {"dense": dense, "factored": factored, "saved": dense - factored}


def _published(scorer: Scorer, part: str) -> list[dict[str, Any]]:
    model = identify(scorer.model.name, scorer.model.model.config)
    return published_rows(model, scorer.task.name, part)
