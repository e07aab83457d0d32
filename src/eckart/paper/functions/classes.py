"""The function classes of Garg et al. (2022): what a prompt's values are functions of."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor

from eckart.errors import TaskError

SPARSITY = 3
"""How many coordinates a sparse linear function looks at (Garg et al., Section 4)."""
NOISE = 1.0
"""The standard deviation of the noise on a noisy linear function's values."""
DEPTH = 4
"""How many coordinates a decision tree looks at on the way to a leaf."""
HIDDEN = 100
"""The width of a two-layer network."""
SEEDS = 2**31
"""torch's generator on a CPU looks at the low 32 bits of a seed alone: half of what they give is
for training."""
_APART = 0x9E3779B1
"""How far the seeds of two trainings' first steps are apart: odd, so that no two of 2^31 trainings
share one."""


Points = Float[Tensor, "functions points d"]
Values = Float[Tensor, "functions points"]
Functions = Callable[[Tensor], Tensor]
"""Several functions of one class: each one's values at its own points."""


@dataclass(frozen=True, eq=False)
class Linear:
    """f(x) = w . x."""

    w: Float[Tensor, "functions d"]

    def __call__(self, x: Points) -> Values:
        return (x @ self.w[..., None])[..., 0]


@dataclass(frozen=True, eq=False)
class DecisionTrees:
    """A full binary tree: an inner node asks for the sign of its coordinate, and a leaf holds the
    value.

    The children of node i are 2 i + 1 and 2 i + 2; leaves stand from left to right.
    """

    coordinates: Int[Tensor, "functions nodes"]
    leaves: Float[Tensor, "functions leaves"]

    def __call__(self, x: Points) -> Values:
        node = torch.zeros(x.shape[:2], dtype=torch.long)
        for _ in range(int(math.log2(self.leaves.shape[1]))):
            coordinate = self.coordinates.gather(1, node)
            right: Bool[Tensor, "functions points"] = x.gather(2, coordinate[..., None])[..., 0] > 0
            node = 2 * node + 1 + right
        return self.leaves.gather(1, node - self.coordinates.shape[1])


@dataclass(frozen=True, eq=False)
class Networks:
    """f(x) = sum_i a_i relu(w_i . x)."""

    w: Float[Tensor, "functions hidden d"]
    a: Float[Tensor, "functions hidden"]

    def __call__(self, x: Points) -> Values:
        return (torch.relu(x @ self.w.mT) @ self.a[..., None])[..., 0]


def _linear(generator: Generator, count: int, d: int) -> Linear:
    return Linear(torch.randn(count, d, generator=generator))


def _sparse_linear(generator: Generator, count: int, d: int) -> Linear:
    w = torch.randn(count, d, generator=generator)
    kept = torch.rand(count, d, generator=generator).argsort(dim=1) < min(SPARSITY, d)
    return Linear(w * kept)


def _decision_tree(generator: Generator, count: int, d: int) -> DecisionTrees:
    coordinates = torch.randint(d, (count, 2**DEPTH - 1), generator=generator)
    return DecisionTrees(coordinates, torch.randn(count, 2**DEPTH, generator=generator))


def _network(generator: Generator, count: int, d: int) -> Networks:
    w = torch.randn(count, HIDDEN, d, generator=generator)
    return Networks(w, math.sqrt(2 / HIDDEN) * torch.randn(count, HIDDEN, generator=generator))


@dataclass(frozen=True)
class FunctionClass:
    """What functions are drawn from, given a generator, how many, and d.

    Errors are divided by the variance, the mean of f(x)^2 for x from N(0, I_d), given d; noise is
    the standard deviation of what is added to every value, the asked one included.
    """

    name: str
    draw: Callable[[Generator, int, int], Functions]
    variance: Callable[[int], float]
    noise: float = 0.0

    def error_of_0(self, d: int) -> float:
        """Return the squared error of always answering 0, over the variance of f: 1, and more for
        noisy functions."""
        return 1 + self.noise**2 / self.variance(d)


CLASSES = {
    kind.name: kind
    for kind in (
        FunctionClass("linear", _linear, float),
        FunctionClass("sparse-linear", _sparse_linear, lambda d: float(min(SPARSITY, d))),
        FunctionClass("noisy-linear", _linear, float, noise=NOISE),
        FunctionClass("decision-tree", _decision_tree, lambda d: 1.0),
        FunctionClass("relu-network", _network, float),
    )
}
"""Every class by its name."""


def find_class(name: str) -> FunctionClass:
    """Return a class by its name; a TaskError where there is none of this name."""
    if name not in CLASSES:
        raise TaskError(f"no function class '{name}'; the classes are {', '.join(CLASSES)}")
    return CLASSES[name]


@dataclass(frozen=True, eq=False)
class Prompts:
    """Points from N(0, I_d) and their values, x_1, y_1, ..., x_k, y_k: the last point is the one
    that is asked for."""

    x: Float[Tensor, "prompts points d"]
    y: Float[Tensor, "prompts points"]


def training_generator(seed: int, step: int) -> Generator:
    """Return what draws the prompts of a training's step; no two steps of one training draw the
    same."""
    return Generator().manual_seed((seed * _APART + step) % SEEDS)


def held_out_generator(seed: int) -> Generator:
    """Return what draws prompts for an evaluation: none that any training draws, whatever its seed;
    a TaskError where the seed is not in 0..2^31 - 1."""
    if not 0 <= seed < SEEDS:
        raise TaskError(f"seed {seed} is not in 0..{SEEDS - 1}; choose another --seed")
    return Generator().manual_seed(SEEDS + seed)


def draw_prompts(
    kind: FunctionClass, generator: Generator, count: int, points: int, d: int
) -> Prompts:
    """Draw functions of a class, and as many points for each.

    >>> draw = Generator().manual_seed(0)
    >>> prompts = draw_prompts(CLASSES["linear"], draw, count=2, points=3, d=5)
    >>> tuple(prompts.x.shape), tuple(prompts.y.shape)
    ((2, 3, 5), (2, 3))
    """
    functions = kind.draw(generator, count, d)
    x = torch.randn(count, points, d, generator=generator)
    return Prompts(x, noisy(kind, functions(x), generator))


def noisy(kind: FunctionClass, y: Values, generator: Generator) -> Values:
    """Add a class's noise to values."""
    return y + kind.noise * torch.randn(y.shape, generator=generator) if kind.noise else y
