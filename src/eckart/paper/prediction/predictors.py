"""The predictors: numbers that the theory gives of a clipped layer without a label, and that are to
rank edits by their gain."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from jaxtyping import Float

from eckart.paper.probe import Comparison, Probe
from eckart.statistics.multiplicity import holm

K = TypeVar("K", bound=Hashable)

FLOORS = (1e-6, 1e-2, 1.0)
"""The noise floors of the bound, as shares of the unpruned model's mean variance in a direction
(`Probe.mean_variance`)."""
CONDITION = "condition number"
RATE, DEPTH = "clipping rate", "depth"
HALVES = {"norm term": ("norm_term", 1), "-log det": ("log_determinant", -1), "bound": ("term", 1)}
"""What is said of the bound: a quantity of the probe, and the sign with which it enters."""


@dataclass(frozen=True)
class Predictor:
    """A number that is known of every edit before anything is scored.

    Arguments:
        name: what tables call it.
        sign: 1 where more of it is to gain more, by the theory or, for a baseline, by common sense;
            -1 where less is.
        theory: whether the paper's theory names it; the others are baselines.
    """

    name: str
    sign: int
    theory: bool = True


def predictors(floors: Sequence[float] = FLOORS) -> tuple[Predictor, ...]:
    """Return all of them, each with the direction that is claimed for it, which no measurement has
    a say in.

    Section 3.4 clips badly conditioned layers: more is better. Clipping is to help by a smaller
    implicit gradient (Examples 1 to 4) and a smaller bound (Remark 4): less is better. The
    logarithm of a condition number has the same ranks.

    >>> [p.name for p in predictors((0.01,)) if p.sign < 0][-4:]
    ['norm term, floor 0.01', '-log det, floor 0.01', 'bound, floor 0.01', 'clipping rate']
    """
    implicit = (
        "softmax norm, its layer",
        "softmax norm, all layers",
        "linear norm, its layer",
        "linear norm, all layers",
        "trajectory",
    )
    bound = (f"{half}, floor {floor:g}" for floor in floors for half in HALVES)
    return (
        Predictor(CONDITION, 1),
        *(Predictor(name, -1) for name in (*implicit, *bound)),
        Predictor(RATE, -1, theory=False),
        Predictor(DEPTH, 1, theory=False),
    )


def corrected(p: Mapping[K, float], theory: Collection[K]) -> dict[K, float]:
    """Return p values, those of the theory adjusted for their number (Holm); a baseline's stays its
    own."""
    tested = [key for key in p if key in theory]
    adjusted = holm([p[key] for key in tested]).tolist()
    return {**p, **dict(zip(tested, adjusted, strict=True))}


def implicit_changes(found: Comparison) -> dict[str, float]:
    """Return how the implicit gradient moved: logarithms of norms, means over prompts and heads.

    *Its layer* is the first that the edit may move (Remark 5): the layer itself for attention, the
    one after it for an MLP; the last layer's MLP moves none. *All layers* is the sum over those
    from there on; the others do not move. The trajectory is that after the last layer. NaN where a
    model has none.
    """
    softmax, linear = found.change("log_norm"), _logs(found.after) - _logs(found.before)
    last = [np.log(probe.layers[-1].path_norm).mean() for probe in (found.before, found.after)]
    return {
        "softmax norm, its layer": _at(softmax, found.reach),
        "softmax norm, all layers": float(softmax[found.reach :].sum()),
        "linear norm, its layer": _at(linear, found.reach),
        "linear norm, all layers": float(linear[found.reach :].sum()),
        "trajectory": float(last[1] - last[0]),
    }


def bound_changes(found: Mapping[float, Comparison]) -> dict[str, float]:
    """Return how Theorem 2's sum over layers moved, and its halves as they enter it, in nats, by
    floor as a share.

    The bound is sqrt(R^2 / N) times the root of the sum: for one N the two rank edits alike.
    """
    return {
        f"{half}, floor {floor:g}": sign * float(moved.change(quantity).sum())
        for floor, moved in found.items()
        for half, (quantity, sign) in HALVES.items()
    }


def _logs(probe: Probe) -> Float[np.ndarray, " layers"]:
    tiny = np.finfo(float).tiny  # nothing is left of a step whose values were all clipped away
    return np.array([np.log(np.maximum(layer.linear_norm, tiny)).mean() for layer in probe.layers])


def _at(values: Float[np.ndarray, " layers"], layer: int) -> float:
    return float(values[layer]) if layer < len(values) else 0.0
