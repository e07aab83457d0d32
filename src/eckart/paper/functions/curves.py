"""Error curves: the squared error of a function model against the number of examples (Figure 5)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from eckart.errors import NotANumberError, TaskError
from eckart.paper.functions.baselines import Baseline, predict, reference
from eckart.paper.functions.classes import (
    FunctionClass,
    Prompts,
    draw_prompts,
    find_class,
    held_out_generator,
)
from eckart.paper.functions.models import FunctionModel
from eckart.statistics.paired import mean_interval

PROMPTS = 2_000
"""How many prompts an error is averaged over, if nobody says otherwise."""
_BATCH = 500

Errors = Float[np.ndarray, "prompts counts"]
Advance = Callable[[int], None]


@dataclass(frozen=True)
class Curve:
    """A mean over prompts for each number of examples, of a model or a baseline, with its 95%
    interval.

    The interval is Student's over the prompts: they are drawn independently, so it speaks of new
    prompts of the class. Squared errors have heavy tails, and the interval is then too narrow, most
    of all for least squares on noisy functions where there are about as many examples as
    coordinates: its mean squared error is infinite for d - 1 to d + 1 of them, and no interval
    holds.
    """

    name: str
    means: tuple[float, ...]
    lows: tuple[float, ...]
    highs: tuple[float, ...]


@dataclass(frozen=True)
class Curves:
    """Mean squared errors on the same n prompts of a class, which the seed drew, over the variance
    of f, by the number of examples."""

    function: str
    dimension: int
    n: int
    seed: int
    counts: tuple[int, ...]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class ErrorCurves(Curves):
    """Figure 5a: a model beside baselines; its excess is over one of them, prompt by prompt."""

    model: Curve
    baselines: tuple[Curve, ...]
    excess: Curve

    @property
    def reference(self) -> str:
        """The baseline that the excess is over."""
        return self.excess.name.removeprefix(f"{self.model.name} - ")


@dataclass(frozen=True)
class StepCurves(Curves):
    """Figure 5b: the models of one training, by the steps after which each was kept, beside the
    baseline that an excess would be over."""

    steps: tuple[int, ...]
    models: tuple[Curve, ...]
    reference: Curve


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Prompts of a class that no training draws; see `held_out`."""

    kind: FunctionClass
    seed: int
    prompts: Prompts

    @property
    def counts(self) -> tuple[int, ...]:
        """How many examples a value may be predicted from."""
        return tuple(range(self.prompts.x.shape[1]))

    def facts(self) -> dict[str, Any]:
        """Return what curves on these prompts have in common."""
        n, _, dimension = self.prompts.x.shape
        return {
            "function": self.kind.name,
            "dimension": dimension,
            "n": n,
            "seed": self.seed,
            "counts": self.counts,
        }

    def of_model(self, model: FunctionModel) -> Errors:
        """Return a model's squared errors over the class's variance; a NotANumberError where one is
        not a number."""
        found = self._errors(_answers(model, self.prompts, self.counts))
        apart = ~np.isfinite(found).all(axis=0)
        if apart.any():
            raise NotANumberError(
                f"the model predicts what is not a number after {apart.argmax()} examples; its"
                " training came apart"
            )
        return found

    def of_baseline(self, baseline: Baseline, advance: Advance = lambda done: None) -> Errors:
        """Return a baseline's squared errors over the class's variance."""
        columns = []
        for count in self.counts:
            columns.append(predict(baseline, self.prompts, count))
            advance(1)
        return self._errors(np.stack(columns, axis=1))

    def _errors(self, answers: Errors) -> Errors:
        true = self.prompts.y.double().numpy()
        return np.square(answers - true) / self.kind.variance(self.prompts.x.shape[2])


def held_out(
    model: FunctionModel,
    function: str,
    prompts: int = PROMPTS,
    points: int | None = None,
    seed: int = 0,
) -> HeldOut:
    """Draw prompts of a class that no training draws, for a model, which says how long points are;
    of so many points, the asked one included, or of as many as the model reads.

    A TaskError where there is no such class, or a number is out of range: no interval is of one
    prompt.
    """
    kind, most = find_class(function), model.points
    if prompts < 2:
        raise TaskError(f"{prompts} prompts have no interval; take 2 or more")
    if points is not None and not 1 <= points <= most:
        raise TaskError(f"the model reads prompts of 1 to {most} points, not {points}")
    generator, dimension = held_out_generator(seed), int(model.config.dimension)
    return HeldOut(kind, seed, draw_prompts(kind, generator, prompts, points or most, dimension))


def error_curves(
    model: FunctionModel,
    on: HeldOut,
    baselines: Sequence[Baseline] = (),
    name: str = "model",
    advance: Advance = lambda done: None,
) -> ErrorCurves:
    """Measure a model, which curves call by `name`, beside baselines, on the same prompts, for
    every number of examples; `advance` is told of each that a baseline is done with."""
    own, over = on.of_model(model), reference(on.kind.name)
    return ErrorCurves(
        **on.facts(),
        model=_curve(name, own),
        baselines=tuple(
            _curve(baseline.name, on.of_baseline(baseline, advance)) for baseline in baselines
        ),
        excess=_curve(f"{name} - {over.name}", own - on.of_baseline(over), signed=True),
    )


def step_curves(
    models: Iterable[tuple[int, FunctionModel]], on: HeldOut, advance: Advance = lambda done: None
) -> StepCurves:
    """Measure the models of one training on the same prompts, each with the number of steps after
    which it was kept; one is let go before the next is asked for."""
    found = {}
    for step, model in models:
        found[step] = _curve(f"{step:,} steps", on.of_model(model))
        advance(1)
    over = reference(on.kind.name)
    baseline = _curve(over.name, on.of_baseline(over))
    kept = tuple(found.values())
    return StepCurves(**on.facts(), steps=tuple(found), models=kept, reference=baseline)


def _curve(name: str, values: Errors, signed: bool = False) -> Curve:
    means, margins = mean_interval(values)
    lows = means - margins if signed else np.maximum(means - margins, 0.0)
    return Curve(name, *(tuple(map(float, side)) for side in (means, lows, means + margins)))


@torch.inference_mode()
def _answers(model: FunctionModel, prompts: Prompts, counts: Sequence[int]) -> Errors:
    batches = zip(prompts.x.split(_BATCH), prompts.y.split(_BATCH), strict=True)
    found = [model(x.to(model.device), y.to(model.device), counts) for x, y in batches]
    return torch.cat(found).cpu().double().numpy()
