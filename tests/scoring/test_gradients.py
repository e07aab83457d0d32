"""Gradients by matrices are those of a plain backward pass, and of the loss itself where one
singular value moves; the model does not notice."""

import weakref

import numpy as np
import pytest
import torch
from families import FAMILIES, bits, build, same_bits, tiny_tokenizer
from scipy.special import log_softmax
from torch import Tensor

from eckart.errors import NotANumberError
from eckart.scoring.forward.plain import read_plainly
from eckart.scoring.gradients import Question, log_loss_gradients
from eckart.scoring.requests import build_requests
from eckart.tasks.prompts import Prompt
from eckart.weights.anatomy import Anatomy, Weight
from eckart.weights.linalg import Factor

LABELS = (" good", " bad one")  # of several tokens, so that a prompt has several rows
PROMPTS = [
    Prompt(str(i), f"Was it{' the food is good' * (i % 4)} number {i}?", LABELS, i % 2)
    for i in range(6)
]
EXPERTS = ("gpt_oss", "olmoe")


def question(per_token: bool = False) -> Question:
    requests = build_requests(PROMPTS, tiny_tokenizer(), None)
    return Question(requests, [prompt.label for prompt in PROMPTS], per_token)


def every(anatomy: Anatomy) -> list[Weight]:
    return [weight for layer in anatomy.layers for weight in layer]


def gradients(anatomy: Anatomy, asked: Question, budget: int = 100) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}

    def take(weight: Weight, gradient: Tensor) -> None:
        found[weight.key] = gradient

    log_loss_gradients(anatomy, asked, every(anatomy), budget, take)
    return found


def plain_gradients(anatomy: Anatomy, asked: Question) -> dict[str, Tensor]:
    """Whole rows, one by one, all logits, one graph."""
    requests, losses = asked.requests.without_prefix(), []
    for choices, label in zip(requests.continuations, asked.labels, strict=True):
        values = []
        for c in choices:
            ids = torch.tensor([requests.rows[c.row][: c.start + len(c.tokens)]])
            logs = anatomy.model(input_ids=ids, use_cache=False).logits[0].log_softmax(-1)
            own = torch.stack([logs[c.start + step, t] for step, t in enumerate(c.tokens)])
            values.append(own.mean() if asked.per_token else own.sum())
        losses.append(-torch.stack(values).log_softmax(0)[label])
    parameters = list({id(w.parameter): w.parameter for w in every(anatomy)}.values())
    found = torch.autograd.grad(torch.stack(losses).mean(), parameters, materialize_grads=True)
    by_parameter = dict(zip(map(id, parameters), found, strict=True))
    return {w.key: w.of(by_parameter[id(w.parameter)]) for w in every(anatomy)}


def same(found: dict[str, Tensor], plain: dict[str, Tensor], rtol: float) -> None:
    assert found.keys() == plain.keys()
    for key, gradient in plain.items():
        apart = (found[key] - gradient).abs().max()
        assert apart <= rtol * gradient.abs().max(), key


@pytest.mark.parametrize("family", [*FAMILIES, *EXPERTS])
def test_every_family_goes_back_as_it_would_as_a_whole(family):
    anatomy = Anatomy.of(build(family))
    found = gradients(anatomy, question())
    same(found, plain_gradients(anatomy, question()), 1e-5)
    assert sum(bool(gradient.any()) for gradient in found.values()) > len(found) / 2


def test_labels_ranked_by_the_mean_of_their_tokens():
    anatomy = Anatomy.of(build("llama"))
    same(gradients(anatomy, question(True)), plain_gradients(anatomy, question(True)), 1e-5)


@pytest.mark.parametrize("budget", [1, 30, 10_000])
def test_batches_are_no_matter(budget):
    anatomy = Anatomy.of(build("llama"))
    same(gradients(anatomy, question(), budget), gradients(anatomy, question()), 1e-5)


def loss(anatomy: Anatomy, asked: Question) -> float:
    """The log-loss as the plain reader has it."""
    values = read_plainly(anatomy.model, asked.requests.without_prefix()).values
    return float(-log_softmax(values, axis=1)[np.arange(len(values)), list(asked.labels)].mean())


@pytest.mark.parametrize(
    ("family", "step", "near"),
    [
        *((family, 1e-4, 1e-6) for family in ("opt", "phi", "gpt2", "gpt_neox")),
        # Their norms compute in float32 whatever the model does, which small steps drown in.
        *((family, 1e-2, 2e-3) for family in ("llama", "phi3")),
    ],
)
def test_they_are_the_finite_differences_by_singular_values(family, step, near):
    """Plain matrices, and fused ones, transposed or interleaved, in float64."""
    anatomy, asked = Anatomy.of(build(family).double()), question()
    found, moved = gradients(anatomy, asked), []
    for weight in anatomy.layers[1]:
        matrix = weight.read()
        u, s, vt = torch.linalg.svd(matrix, full_matrices=False)
        slopes = Factor.of(matrix).slopes(found[weight.key])
        for i in (0, len(s) // 2, len(s) - 1):
            around = []
            for sign in (1, -1):
                weight.write_(matrix + sign * step * torch.outer(u[:, i], vt[i]))
                around.append(loss(anatomy, asked))
            weight.write_(matrix)
            moved.append((float(slopes[i] / s[i]), (around[0] - around[1]) / (2 * step)))
    largest = max(abs(difference) for _, difference in moved)
    assert largest > 1e-2
    for gradient, difference in moved:
        assert abs(gradient - difference) < near * largest


def test_the_gradients_of_tied_layers_add_up():
    model = build("opt").double()
    layers = model.model.decoder.layers
    layers[2].fc1.weight = shared = layers[0].fc1.weight
    anatomy = Anatomy.of(model)
    first, last = anatomy.select(0, "fc_in")[0], anatomy.select(2, "fc_in")[0]
    assert first.tied == (last.path,)
    found = gradients(anatomy, question())
    dice = torch.Generator().manual_seed(0)
    direction, around = torch.randn(shared.shape, dtype=torch.float64, generator=dice), []
    for step in (1e-4, -1e-4):
        with torch.no_grad():
            shared += step * direction
            around.append(loss(anatomy, question()))
            shared -= step * direction
    along = ((found[first.key] + found[last.key]) * direction).sum()
    assert float(along) == pytest.approx((around[0] - around[1]) / 2e-4, rel=1e-5)


def test_the_model_is_left_as_it_was():
    model = build("gemma2")
    model.model.layers[0].self_attn.q_proj.weight.requires_grad_(False)
    anatomy, before = Anatomy.of(model), bits(model)
    flags = [parameter.requires_grad for parameter in model.parameters()]
    attributes = [set(vars(module)) for module in model.modules()]
    dice, grad = torch.get_rng_state(), torch.is_grad_enabled()
    gradients(anatomy, question())
    assert same_bits(model, before)
    assert [parameter.requires_grad for parameter in model.parameters()] == flags
    assert all(parameter.grad is None for parameter in model.parameters())
    assert [set(vars(module)) for module in model.modules()] == attributes
    assert torch.equal(torch.get_rng_state(), dice)
    assert torch.is_grad_enabled() == grad
    assert not model.training


def test_half_precision_goes_back_in_float32():
    half = build("llama").bfloat16()
    found = gradients(Anatomy.of(half), question())
    assert {gradient.dtype for gradient in found.values()} == {torch.float32}
    same(found, gradients(Anatomy.of(build("llama").bfloat16().float()), question()), 1e-5)


def test_one_layers_gradients_are_held_at_a_time():
    anatomy = Anatomy.of(build("llama"))
    held: list[tuple[int, weakref.ref]] = []

    def take(weight: Weight, gradient: Tensor) -> None:
        held.append((weight.layer, weakref.ref(gradient)))
        alive = {layer for layer, gone in held if gone() is not None}
        assert alive == {weight.layer}

    log_loss_gradients(anatomy, question(), every(anatomy), 100, take)
    layers = [layer for layer, _ in held]
    assert layers == sorted(layers, reverse=True)
    assert len(layers) == len(every(anatomy))


def test_only_what_is_wanted_is_handed_on():
    anatomy, found = Anatomy.of(build("llama")), []
    wanted = [*anatomy.select(2, "down"), *anatomy.select(1, "mlp")]
    log_loss_gradients(anatomy, question(), wanted, 100, lambda w, _: found.append(w))
    assert [(w.layer, w.name) for w in found] == [(2, "down"), (1, "gate"), (1, "up"), (1, "down")]


def test_a_model_that_gives_no_numbers():
    model = build("llama")
    with torch.no_grad():
        model.model.norm.weight.fill_(float("nan"))
    with pytest.raises(NotANumberError, match="no probability"):
        gradients(Anatomy.of(model), question())
