"""The main job: Algorithm 1 on a model and a task, recorded so that it can be stopped and
resumed."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from eckart.algorithm1 import (
    ScoreEdits,
    algorithm1,
    control_arms,
    no_arms,
    rank_at,
    search_all,
    worst_layer,
)
from eckart.files import home
from eckart.published import identify, published_rows
from eckart.records import TOP_K, Edit, Split
from eckart.runs import PORTABLE, RunStore
from eckart.scoring.evaluator import scorer_of
from eckart.scoring.methods import check_parts
from eckart.scoring.scorer import Scorer
from eckart.selection.alike import alike_rates
from eckart.selection.draws import Draws, drawn_tasks
from eckart.selection.free import check_rivalled, deployed, read_rivals
from eckart.selection.greedy import compose
from eckart.selection.guard import Guard, keep_guard
from eckart.selection.looks import Looks, looks_before
from eckart.selection.order import Order, Place
from eckart.selection.plan import (
    MARGIN,
    PLACES,
    SCREEN_ROWS,
    Plan,
    check_composable,
    check_known,
    check_raceable,
)
from eckart.selection.power import foretell, largest_first
from eckart.selection.racing import Race, Tell, nobody, race_rates
from eckart.selection.result import Candidate, GreedyResult, SearchResult
from eckart.selection.screens import (
    Screening,
    check_layer,
    condition_numbers,
    screened,
)
from eckart.selection.settings import describe
from eckart.tasks.portable import portable
from eckart.tasks.task import AnyTask, Task
from eckart.weights.edits import droppable, parameters
from eckart.weights.models import LoadedModel, Model, Tokenizer, load_model
from eckart.weights.quantised import GgufType, check_rows


def search(
    model: str | Path | Model | LoadedModel,
    task: AnyTask | str,
    *,
    part: str = "mlp",
    rates: Iterable[float] | None = None,
    top_k: int = TOP_K,
    layer: int | str | None = None,
    screen_rows: int = SCREEN_ROWS,
    combine: str = "geometric",
    metric: str | None = None,
    race: bool = False,
    controls: bool = False,
    strategy: str = "algorithm1",
    places: int = PLACES,
    evaluations: int | None = None,
    minutes: float | None = None,
    rivals: bool = False,
    also: Iterable[str] | str = (),
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
) -> SearchResult | GreedyResult:
    """Run Algorithm 1 of the paper: choose a layer by condition number, a rate on validation, and
    test once; or compose edits greedily, and test the composition once.

    Arguments:
        model: a hub id, a local folder, or a live `PreTrainedModel`.
        task: a `Task`, the name of one, or a `FunctionTask`.
        part, rates, top_k, layer, screen_rows, combine, metric, race, controls: see `Plan`.
        rivals, also, seeds, templates, strategy, places, evaluations, minutes: see `Plan`.
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
            "rates": rates if rates is None else list(rates),
            "top_k": top_k,
            "layer": layer,
            "screen_rows": screen_rows,
            "combine": combine,
            "metric": metric,
            "race": race,
            "controls": controls,
            "strategy": strategy,
            "places": places,
            "evaluations": evaluations,
            "minutes": minutes,
            "rivals": rivals,
            "also": also if isinstance(also, str) else list(also),
            "seeds": seeds if isinstance(seeds, str) else list(seeds),
            "templates": templates if isinstance(templates, str) else list(templates),
        }
    )
    check_layer(plan.layer)
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
    tell: Tell = nobody,
    command: str | None = None,
    guard: Guard | None = None,
) -> SearchResult | GreedyResult:
    """Carry out a plan, and look at what else the choice does if there is a guard; see `search`.
    First of all it is told what can be seen, then of a race every rate that it drops, and of a
    greedy search every look; a new run notes the command."""
    check_plan(plan, scorer)
    draws = Draws.of(scorer, plan.seeds, plan.templates)
    scorer = draws.first
    if out is None or not (home(out) / "run.sqlite").exists():
        draws.prepare()
    settings = describe(plan, scorer)
    # The weights' fingerprint says which model it is; the name is only the path that it was found
    # by.
    identity = {name: value for name, value in settings.items() if name != "model"}
    try:
        with RunStore(out, identity, command) if out is not None else nullcontext() as store:
            looks = None if store is None else _looks(store, draws)
            if store is not None:
                store.keep_note(PORTABLE, portable([draws.testing[0].task], scorer.scoring))
            kept = replace(draws, ledger=store)
            order = _order(plan, kept, store, tell) if isinstance(plan.layer, str) else None
            result: SearchResult | GreedyResult
            if plan.greedy:
                result = compose(plan, kept, order, settings, tell)
            else:
                result = _search(plan, kept, order, store, settings, tell)
            result = replace(result, looks=looks)
            if guard is not None:
                if store is not None:  # first: what is kept from here on is none of the search's
                    keep_guard(store, guard.margin, guard.read)
                result = replace(result, guarded=guard.look(result.edits, store))
                if not result.edits:
                    tell("the guard read nothing: nothing is clipped, so nothing else is changed")
            if plan.rivals:
                result = replace(result, rivals=read_rivals(result.run, draws.testing, store))
            if plan.also:
                there = deployed(result.run, draws.testing, plan.also, store)
                result = replace(result, deployed=there)
            if store is not None:
                store.write("result.json", json.dumps(result.to_json(), indent=2) + "\n")
    finally:
        draws.forget()  # factorisations and readers: nothing more is to come
        if guard is not None:
            guard.forget()
    return result


def check_plan(plan: Plan, scorer: Scorer) -> None:
    """Refuse a plan that cannot be carried out, before anything long is computed, and before a new
    run's folder is made.

    Raises:
        EckartError: there is no such metric, layer or part, or the task or the scoring does not go
            with what was asked for.
    """
    check_known(plan.metric, scorer.task.metrics, "metric")
    metric = plan.metric or scorer.task.metric
    if plan.race:
        check_raceable(metric)
    if plan.greedy:
        check_composable(metric)
    if plan.race or plan.greedy or plan.layer == "validation":
        check_parts(scorer.scoring, Split.part("validation", 0, 1))
    if plan.rivals:
        check_rivalled(scorer.task)
    for kind in plan.also:
        check_rows(scorer.anatomy, GgufType.of(kind))
    first = scorer.anatomy.layer_index(plan.layer if isinstance(plan.layer, int) else 0)
    scorer.anatomy.select(first, plan.part)


def _looks(store: RunStore, draws: Draws) -> Looks:
    looked = any(store.trial(each.key((), "test")) for each in draws.testing)
    return looks_before(store, draws.rows("test"), looked)


def _search(
    plan: Plan,
    draws: Draws,
    order: Order | None,
    store: RunStore | None,
    settings: dict[str, Any],
    tell: Tell,
) -> SearchResult:
    scorer = draws.first
    layers = _layers(plan, scorer, order, store)
    rows = draws.size("validation")
    layer = worst_layer(layers, plan.top_k)
    edits = largest_first(scorer.anatomy, layer, plan.part, plan.tried)
    rates = (*(edit.rate for edit in edits), 0.0)
    arms = partial(control_arms, droppable=droppable(scorer.anatomy)) if plan.controls else no_arms
    controls = len(arms(edits[0])) if edits else 0
    foretell(tell, draws, edits, rows if plan.race else None, controls)

    def race(score: ScoreEdits, layer: int, part: str, rates: Sequence[float], metric: str) -> Race:
        return race_rates(score, layer, part, rates, rows, tell)

    found = algorithm1(
        draws.score,
        layers,
        plan.part,
        rates,
        plan.top_k,
        settings["metric"],
        race if plan.race else search_all,
        arms,
    )
    raced = found.rates if isinstance(found.rates, Race) else None
    seen = raced.seen if raced else (rows,) * len(rates)
    every = [Edit(layer, plan.part, rate) for rate in plan.tried]
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
        condition_numbers={} if plan.layer is not None else layers,
        candidates=candidates,
        baseline=found.unpruned,
        clipped=found.clipped,
        controls=found.controls,
        parameters=parameters(scorer.anatomy, (Edit(found.layer, plan.part, found.rates.best),)),
        published=tuple(_published(scorer, plan.part)),
        notes=(*draws.notes(), *alike_rates(scorer.anatomy, every)),
        rows=(*draws.rows("validation"), *draws.rows("test")),
        race=raced,
        order=order,
    )


def _layers(
    plan: Plan, scorer: Scorer, order: Order | None, store: RunStore | None
) -> dict[int, float]:
    """Return the layers to choose from, by condition number; of a layer that is given, or that a
    screen puts first, that one alone."""
    if order is not None:
        return {order.first.layer: math.inf}
    if isinstance(plan.layer, int):
        return {scorer.anatomy.layer_index(plan.layer): math.inf}
    return condition_numbers(scorer, plan.part, plan.combine, store)


def _order(plan: Plan, draws: Draws, store: RunStore | None, tell: Tell) -> Order:
    """Return the order in which the plan's screen puts all places."""
    asked = Screening(
        scorers=draws.choosing,
        score=draws.score,
        every=draws.every,
        places=[Place(layer, plan.part) for layer in range(len(draws.first.anatomy.layers))],
        rates=plan.tried,
        metric=plan.metric or draws.first.task.metric,
        rows=plan.screen_rows,
        combine=plan.combine,
        top_k=plan.top_k,
        store=store,
        tell=tell,
    )
    return screened(str(plan.layer), asked)


def _published(scorer: Scorer, part: str) -> list[dict[str, Any]]:
    model = identify(scorer.model.name, scorer.model.model.config)
    return published_rows(model, scorer.task.name, part)
