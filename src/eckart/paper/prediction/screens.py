"""A predictor as a screen: it chooses the layer without a label. Is that better than drawing the
layer at random?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Float

from eckart.algorithm1 import worst_layer
from eckart.analysis.claims import WholeLayers
from eckart.paper.prediction.agreement import within
from eckart.paper.prediction.predictors import CONDITION, Predictor, corrected
from eckart.paper.prediction.probing import PredictedCell
from eckart.records import TOP_K
from eckart.statistics.crossed import Estimate, seed_and_row_mean
from eckart.statistics.gain import verdict
from eckart.statistics.grids import LayerRule, layer_rule

ALGORITHM_1 = "Algorithm 1's layer"


@dataclass(frozen=True, eq=False)
class LayerChoice:
    """The layers of one part in one condition of a run, with their test gains: what a screen
    chooses from.

    `scores` has, by screen, for each layer what it is chosen by: the largest is; `cell_scores`, by
    predictor, that for each layer and rate.
    """

    layers: WholeLayers
    scores: dict[str, Float[np.ndarray, " layers"]]
    cell_scores: dict[str, Float[np.ndarray, "layers rates"]]

    @property
    def group(self) -> tuple[str, str]:
        """The model and the task, as `PredictedCell.group`."""
        where = self.layers.target.condition
        return where.model, where.task_name

    @cached_property
    def gains(self) -> Float[np.ndarray, "layers rates"]:
        """The mean test gains."""
        return np.array([_means(self.layers.gains(edits)) for edits in self.layers.grid])

    def choice(self, screen: str, sign: int = 1) -> int:
        """Return the index of the layer that a screen chooses, the deepest of equals; or, by -1,
        shuns."""
        return _last_best(sign * self.scores[screen])

    def rule(self, screen: str, sign: int = 1) -> LayerRule:
        """Judge a screen's layer by test gains, each layer at the rate that validation chose for
        it."""
        return layer_rule(self.layers.gains(self.layers.picks), self.choice(screen, sign))

    def tells_apart(self, screen: str) -> bool:
        """Say whether a screen says other things of some layers than of others, at any rate."""
        said = self._at_rates(screen)
        return bool((said != said[:1]).any())

    def at_each_rate(self, screen: str) -> float:
        """Return the mean over rates of a screen's lead at that rate over a random layer, in test
        gain.

        A predictor chooses a layer for each rate, by what it says at that rate, so that no label is
        read; what is no predictor, Algorithm 1's rule, has one layer for all.
        """
        chosen = [_last_best(said) for said in self._at_rates(screen).T]
        leads = self.gains[chosen, range(len(chosen))] - self.gains.mean(axis=0)
        return float(leads.mean())

    def blind(self, predictor: str) -> tuple[float, float]:
        """Return the test gain of the layer and rate that a predictor chooses, and its lead over a
        random layer."""
        said = self.cell_scores[predictor]
        layer, rate = divmod(_last_best(said.ravel()), said.shape[1])
        gain = self.gains[layer, rate]
        return float(gain), float(gain - self.gains[:, rate].mean())

    def _at_rates(self, screen: str) -> Float[np.ndarray, "layers rates"]:
        said = self.cell_scores.get(screen, self.scores[screen][:, None])
        return np.broadcast_to(said, self.gains.shape)


@dataclass(frozen=True)
class Lead:
    """A lead over a random layer, in test gain: the mean over models and tasks, with the interval
    for new ones, and its p value, adjusted for all of the theory's screens; a baseline's own."""

    estimate: Estimate
    p: float

    @property
    def beats_random(self) -> bool:
        return verdict(self.estimate, self.p) == "gain"


@dataclass(frozen=True)
class Screened:
    """What choosing by a screen is worth, in accuracy on test rows.

    Arguments:
        screen: a predictor's name, or Algorithm 1's rule.
        theory: whether the theory names it.
        units, groups: in how many parts and conditions it chose, of how many models and tasks.
        gain: of the layer it chose, at the rate that validation chose there.
        in_search: that, less the mean over layers, each at its rate.
        better, worse: in how many units the interval for new seeds and rows alone lies above 0, and
            below.
        below_best: less the layer that is best in hindsight, on the same rows: the mean over units.
        learned: as `in_search`, in the direction that does better on the other groups; None for one
            group.
        each_rate: its lead at the same rate for all layers, the mean over the rates: no label is
            read.
        blind_gain, blind: the gain, and the lead over a random layer at the same rate, if it
            chooses the rate as well, so that no label is read at all; None for Algorithm 1's rule,
            which chooses none.
    """

    screen: str
    theory: bool
    units: int
    groups: int
    gain: float
    in_search: Lead
    better: int
    worse: int
    below_best: float
    learned: Estimate | None
    each_rate: Lead
    blind_gain: float | None
    blind: Estimate | None

    def to_json(self) -> dict[str, Any]:
        return {
            "screen": self.screen,
            "theory": self.theory,
            "units": self.units,
            "groups": self.groups,
            "gain": self.gain,
            "over_random": _document(self.in_search.estimate),
            "p_holm": self.in_search.p,
            "beats_random": self.in_search.beats_random,
            "units_better": self.better,
            "units_worse": self.worse,
            "below_best": self.below_best,
            "over_random_learned_sign": _document(self.learned),
            "each_rate_over_random": _document(self.each_rate.estimate),
            "each_rate_p_holm": self.each_rate.p,
            "beats_random_at_each_rate": self.each_rate.beats_random,
            "blind_gain": self.blind_gain,
            "blind_over_random": _document(self.blind),
        }


def _document(estimate: Estimate | None) -> dict[str, Any] | None:
    if estimate is None:
        return None
    interval = list(estimate.interval)
    return {"mean": estimate.mean, "interval": interval, "p_value": estimate.p_value}


def units(
    found: Sequence[WholeLayers],
    cells: Sequence[PredictedCell],
    predictors: Sequence[Predictor],
    top_k: int = TOP_K,
) -> Iterator[LayerChoice]:
    """Yield what screens choose from: parts whose layers were all scored, at the same rates, on
    test rows.

    A layer's score is the mean over the rates of its rank among the layers: at the highest rates
    changes are larger than elsewhere by orders of magnitude, and would decide alone.
    """
    said = {(cell.condition, cell.edit): cell.said for cell in cells}
    for layers in found:
        where = layers.target.condition
        rates = tuple(edit.rate for edit in layers.grid[0])
        whole = all(tuple(edit.rate for edit in edits) == rates for edits in layers.grid)
        known = all((where, edit) in said for edits in layers.grid for edit in edits)
        if not whole or not known:
            continue
        by_cell = {}
        for p in predictors:
            of_cells = [[said[where, edit][p.name] for edit in edits] for edits in layers.grid]
            values = p.sign * np.array(of_cells, dtype=float)
            if not np.isnan(values).any():
                by_cell[p.name] = values
        scores = {
            name: np.mean([within(of_rate, [0] * len(of_rate)) for of_rate in values.T], axis=0)
            for name, values in by_cell.items()
        }
        numbers = dict(enumerate(by_cell[CONDITION][:, 0].tolist()))
        scores[ALGORITHM_1] = np.eye(len(numbers))[worst_layer(numbers, top_k)]
        yield LayerChoice(layers, scores, by_cell)


def screened(found: Sequence[LayerChoice], predictors: Sequence[Predictor]) -> list[Screened]:
    """Judge every predictor, and Algorithm 1's rule, as a screen; no unit, nothing to judge.

    What says the same of all layers, as the clipping rate does, is no screen for layers.
    """
    theory = {**{p.name: p.theory for p in predictors}, ALGORITHM_1: True}
    known = [name for name in theory if found and all(name in unit.scores for unit in found)]
    names = [name for name in known if any(unit.tells_apart(name) for unit in found)]
    rules = {name: [unit.rule(name) for unit in found] for name in names}
    in_search = _leads(
        {name: [rule.over_random.mean for rule in own] for name, own in rules.items()},
        found,
        theory,
    )
    each_rate = _leads(
        {name: [unit.at_each_rate(name) for unit in found] for name in names}, found, theory
    )
    return [
        _screened(name, theory[name], found, rules[name], in_search[name], each_rate[name])
        for name in names
    ]


def _leads(
    values: Mapping[str, Sequence[float]], found: Sequence[LayerChoice], theory: Mapping[str, bool]
) -> dict[str, Lead]:
    estimates = {name: _over_groups(own, found) for name, own in values.items()}
    own = {name: estimate.p_value for name, estimate in estimates.items()}
    p = corrected(own, [name for name in own if theory[name]])
    return {name: Lead(estimate, p[name]) for name, estimate in estimates.items()}


def _screened(
    name: str,
    theory: bool,
    found: Sequence[LayerChoice],
    rules: Sequence[LayerRule],
    in_search: Lead,
    each_rate: Lead,
) -> Screened:
    chosen = [_means(u.layers.gains(u.layers.picks))[u.choice(name)] for u in found]
    groups = {unit.group for unit in found}
    blind = [unit.blind(name) for unit in found] if name != ALGORITHM_1 else []
    return Screened(
        screen=name,
        theory=theory,
        units=len(found),
        groups=len(groups),
        gain=_over_groups(chosen, found).mean,
        in_search=in_search,
        better=sum(rule.over_random.interval[0] > 0 for rule in rules),
        worse=sum(rule.over_random.interval[1] < 0 for rule in rules),
        below_best=float(np.mean([rule.below_best.value for rule in rules])),
        learned=_learned(name, found) if len(groups) > 1 else None,
        each_rate=each_rate,
        blind_gain=_over_groups([gain for gain, _ in blind], found).mean if blind else None,
        blind=_over_groups([ahead for _, ahead in blind], found) if blind else None,
    )


def _learned(name: str, found: Sequence[LayerChoice]) -> Estimate:
    """Return the lead in each group, in the direction that leads by more on the others; the claimed
    one where alike."""
    leads = {
        sign: _by_group([u.rule(name, sign).over_random.mean for u in found], found)
        for sign in (1, -1)
    }
    held_out = []
    for group in leads[1]:
        elsewhere = {
            sign: np.mean([v for g, v in by.items() if g != group]) for sign, by in leads.items()
        }
        held_out.append(leads[1 if elsewhere[1] >= elsewhere[-1] else -1][group])
    return _mean(held_out)


def _last_best(values: Float[np.ndarray, " n"]) -> int:
    """Return the index of the largest; of equals, up to rounding, the last."""
    return int(np.flatnonzero(np.isclose(values, values.max(), rtol=1e-12, atol=1e-12))[-1])


def _means(gains: Float[np.ndarray, "edits seeds rows"]) -> Float[np.ndarray, " edits"]:
    return np.asarray(np.nanmean(gains, axis=2).mean(axis=1))


def _by_group(
    values: Sequence[float], found: Sequence[LayerChoice]
) -> Mapping[tuple[str, str], float]:
    groups = [unit.group for unit in found]
    return {
        group: float(np.mean([v for v, g in zip(values, groups, strict=True) if g == group]))
        for group in dict.fromkeys(groups)
    }


def _over_groups(values: Sequence[float], found: Sequence[LayerChoice]) -> Estimate:
    return _mean(list(_by_group(values, found).values()))


def _mean(values: Sequence[float]) -> Estimate:
    """Average over groups, with a t interval of one degree of freedom a group less one."""
    return seed_and_row_mean(np.array([values]), bounds=None)
