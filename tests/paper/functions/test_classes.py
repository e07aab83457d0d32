"""The classes of functions: their variance, their form, and who draws what."""

import numpy as np
import pytest
import torch
from sklearn.tree import DecisionTreeRegressor

from eckart.errors import TaskError
from eckart.paper.functions.classes import (
    CLASSES,
    NOISE,
    SEEDS,
    SPARSITY,
    draw_prompts,
    find_class,
    held_out_generator,
    training_generator,
)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("d", [2, 5, 12])
@pytest.mark.parametrize("name", CLASSES)
def test_the_stated_variance_is_the_mean_square(name, d):
    kind = CLASSES[name]
    y = draw_prompts(kind, generator(), 20_000, 2, d).y[:, 0].double()
    squares = y.square()
    stated = kind.variance(d) + kind.noise**2
    assert abs(squares.mean() - stated) < 5 * squares.std() / len(squares) ** 0.5
    assert abs(y.mean()) < 5 * y.std() / len(y) ** 0.5


def test_a_linear_function_is_a_product():
    functions, x = CLASSES["linear"].draw(generator(), 3, 4), torch.randn(3, 5, 4)
    for i in range(3):
        for j in range(5):
            assert torch.isclose(functions(x)[i, j], functions.w[i] @ x[i, j], atol=1e-6)


@pytest.mark.parametrize(("d", "kept"), [(10, SPARSITY), (2, 2)])
def test_a_sparse_function_looks_at_few_coordinates_wherever_they_are(d, kept):
    w = CLASSES["sparse-linear"].draw(generator(), 2_000, d).w
    assert ((w != 0).sum(dim=1) == kept).all()
    assert ((w != 0).double().mean(dim=0) - kept / d).abs().max() < 0.06


def test_noise_is_added_to_every_value_and_only_where_it_belongs():
    clean = draw_prompts(CLASSES["linear"], generator(), 4_000, 3, 4)
    noisy = draw_prompts(CLASSES["noisy-linear"], generator(), 4_000, 3, 4)
    assert torch.equal(clean.x, noisy.x)
    assert torch.allclose((noisy.y - clean.y).std(dim=0), torch.full((3,), NOISE), atol=0.06)


def walk(coordinates: list[int], leaves: list[float], x: list[float]) -> float:
    """Go down one tree, a node at a time."""
    node = 0
    while node < len(coordinates):
        node = 2 * node + (2 if x[coordinates[node]] > 0 else 1)
    return leaves[node - len(coordinates)]


def test_trees_are_walked_as_a_plain_loop_walks_them():
    trees, x = CLASSES["decision-tree"].draw(generator(), 7, 5), torch.randn(7, 40, 5)
    values = trees(x)
    for i in range(7):
        coordinates, leaves = trees.coordinates[i].tolist(), trees.leaves[i].tolist()
        assert values[i].tolist() == [walk(coordinates, leaves, point) for point in x[i].tolist()]


def test_a_tree_is_one_that_a_regression_tree_can_be():
    trees, x = CLASSES["decision-tree"].draw(generator(1), 1, 3), torch.randn(1, 400, 3)
    signs, values = np.sign(x[0].numpy()), trees(x)[0].numpy()
    assert DecisionTreeRegressor(random_state=0).fit(signs, values).score(signs, values) > 1 - 1e-9


def test_a_network_is_two_layers():
    networks, x = CLASSES["relu-network"].draw(generator(), 2, 3), torch.randn(2, 4, 3)
    for i in range(2):
        for j in range(4):
            hidden = [max(0.0, float(w @ x[i, j])) for w in networks.w[i]]
            assert np.isclose(
                float(networks(x)[i, j]), np.dot(hidden, networks.a[i].tolist()), atol=1e-5
            )


def test_an_unknown_class_lists_those_there_are():
    with pytest.raises(
        TaskError, match="no function class 'cubic'; the classes are linear, sparse-linear"
    ):
        find_class("cubic")


def drawn(made: torch.Generator) -> list[float]:
    return torch.randn(4, generator=made).tolist()


def test_no_two_steps_and_no_two_trainings_draw_the_same():
    # torch's generator looks at the low 32 bits of a seed: a seed put above them would change
    # nothing.
    streams = [drawn(training_generator(seed, step)) for seed in range(8) for step in range(50)]
    assert len({tuple(stream) for stream in streams}) == len(streams)


def test_held_out_prompts_are_drawn_by_what_no_training_uses():
    for seed in (0, 1, 12345, SEEDS - 1):
        for step in (0, 1, 10**6):
            assert training_generator(seed, step).initial_seed() < SEEDS
        assert SEEDS <= held_out_generator(seed).initial_seed() < 2**32
    assert drawn(held_out_generator(0)) != drawn(held_out_generator(1))
    assert drawn(held_out_generator(0)) != drawn(training_generator(0, 0))


@pytest.mark.parametrize("seed", [-1, SEEDS])
def test_a_seed_that_would_reach_another_half_is_refused(seed):
    with pytest.raises(TaskError, match="choose another --seed"):
        held_out_generator(seed)
