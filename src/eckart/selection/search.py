"""The main job: Algorithm 1 on a model and a task, recorded so that it can be stopped and
resumed."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from eckart.algorithm1 import ScoreEdits, algorithm1, control_arms, no_arms, search_all
from eckart.errors import EditError
from eckart.files import home
from eckart.published import identify, published_rows
from eckart.records import RATES, TOP_K, fingerprint
from eckart.runs import RunStore, folder_name
from eckart.scoring.evaluator import scorer_of
from eckart.scoring.scorer import Scorer
from eckart.selection.racing import ALPHA, Race, check_race, check_raceable, race_rates
from eckart.selection.recorded import Recorded
from eckart.selection.result import Candidate, SearchResult
from eckart.statistics.scores import ALL_METRICS
from eckart.tasks.task import AnyTask, Task
from eckart.weights.conditioning import COMBINATIONS, check_rates, layer_condition_numbers
from eckart.weights.edits import droppable
from eckart.weights.linalg import factored_size, rank_at
from eckart.weights.models import LoadedModel, Model, Tokenizer, load_model
from eckart.weights.spectrum import exact_matrices, matrices, spectra


@dataclass(frozen=True)
class Plan:
    """What a search looks at.

    Arguments:
        part: `attn`, `mlp`, `all`, or one matrix.
        rates: candidate clipping rates; 0 is always among them.
        top_k: how many of the worst-conditioned layers are considered.
        layer: the layer to clip, or None to choose it by condition number.
        combine: how the condition numbers of a layer's matrices become the layer's.
        metric: what is compared on validation; the task's own when None.
        race: stop reading a rate once it is clearly beaten; see `race_rates`.
        controls: score the choice's control arms with it on the test rows; see `control_arms`.
    """

    part: str = "mlp"
    rates: tuple[float, ...] = RATES
    top_k: int = TOP_K
    layer: int | None = None
    combine: str = "geometric"
    metric: str | None = None
    race: bool = False
    controls: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "rates", check_rates(self.rates))
        if self.top_k < 1:
            raise EditError(f"top-k {self.top_k} selects no layer; it must be at least 1")
        if self.combine not in COMBINATIONS:
            raise EditError(
                f"no combination '{self.combine}'; the combinations are {', '.join(COMBINATIONS)}"
            )
        _check_metric(self.metric, ALL_METRICS)
        if self.race and self.metric is not None:
            check_raceable(self.metric)


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
        part, rates, top_k, layer, combine, metric, race, controls: see `Plan`.
        out: the run's folder; every trial is kept there, and an interrupted search goes on from it.
        dtype, device, tokenizer: see `load_model`.
        options: passed on to what scores, such as `progress`; see `Evaluator`.

    Raises:
        EckartError: the model, the task, the plan or the run's folder is not usable.

    Returns:
        the choice, every candidate, and the paired result on the test set.
    """
    plan = Plan(part, tuple(rates), top_k, layer, combine, metric, race, controls)
    task = Task.load(task) if isinstance(task, str) else task
    loaded = load_model(model, dtype=dtype, device=device, tokenizer=tokenizer)
    return run_plan(plan, scorer_of(task, loaded, **options), out)


def run_plan(
    plan: Plan,
    scorer: Scorer,
    out: str | Path | None = None,
    tell: Callable[[str], None] = lambda line: None,
    command: str | None = None,
) -> SearchResult:
    """Carry out a plan; see `search`. A race tells of every rate that it drops; a new run notes the
    command."""
    _check_metric(plan.metric, scorer.task.metrics)
    if plan.race:
        check_race(plan.metric or scorer.task.metric, scorer.scoring)
    # What cannot be done is refused before anything long is computed, and before a new run's folder
    # is made.
    first = scorer.anatomy.layer_index(plan.layer or 0)
    scorer.anatomy.select(first, plan.part)
    if out is None or not (home(out) / "run.sqlite").exists():
        for split in ("validation", "test"):
            scorer.prepare(split)
    settings = describe(plan, scorer)
    # The weights' fingerprint says which model it is; the name is only the path that it was found
    # by.
    identity = {name: value for name, value in settings.items() if name != "model"}
    try:
        with RunStore(out, identity, command) if out is not None else nullcontext() as store:
            result = _search(plan, scorer, store, settings, tell)
            if store is not None:
                store.write("result.json", json.dumps(result.to_json(), indent=2) + "\n")
    finally:
        scorer.forget()  # factorisations and readers: nothing more is to come
    return result


def _check_metric(metric: str | None, metrics: Sequence[str]) -> None:
    if metric not in (None, *metrics):
        raise EditError(f"no metric '{metric}'; the metrics are {', '.join(metrics)}")


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
    """Return the settings that make a run what it is, as JSON values."""
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
        **scorer.reading_key,
    }


def _search(
    plan: Plan,
    scorer: Scorer,
    store: RunStore | None,
    settings: dict[str, Any],
    tell: Callable[[str], None],
) -> SearchResult:
    if plan.layer is None:
        choose_from = condition_numbers = _condition_numbers(plan, scorer, store)
    else:  # a layer that is given is the only one to choose from
        condition_numbers = {}
        choose_from = {scorer.anatomy.layer_index(plan.layer): math.inf}
    rows = len(scorer.rows("validation").rows)

    def race(score: ScoreEdits, layer: int, part: str, rates: Sequence[float], metric: str) -> Race:
        return race_rates(score, layer, part, rates, rows, tell)

    found = algorithm1(
        Recorded(scorer, store).score,
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
        notes=scorer.notes("validation", "test"),
        race=raced,
        scorer=scorer,
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
