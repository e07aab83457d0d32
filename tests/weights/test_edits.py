"""Clipping in place: what changes, what comes back, and what is refused before anything changes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from families import bits, build
from torch import Tensor
from transformers import PreTrainedModel

from eckart.errors import EditError, ModelError
from eckart.records import Edit
from eckart.weights.anatomy import Anatomy, Weight
from eckart.weights.edits import Clipped, Factors, canonical, clip, clip_, resolve
from eckart.weights.linalg import Factor


@pytest.fixture
def model() -> PreTrainedModel:
    return build("llama")


@pytest.fixture
def anatomy(model: PreTrainedModel) -> Anatomy:
    return Anatomy.of(model)


def changed(model: PreTrainedModel, before: dict[str, Tensor]) -> list[str]:
    return [name for name, tensor in bits(model).items() if not torch.equal(tensor, before[name])]


def refused(
    kind: type[Exception], message: str, model: PreTrainedModel, edits: Any, **options: Any
) -> None:
    """Both verbs refuse the edits with this message, and leave every byte as it was."""
    before = bits(model)
    for verb in (clip_, enter):
        with pytest.raises(kind, match=message) as caught:
            verb(model, edits, **options)
        assert "\n" not in str(caught.value)
        assert not changed(model, before)


def enter(model: PreTrainedModel, edits: Any, **options: Any) -> None:
    with clip(model, edits, **options):
        pass


# ---------------------------------------------------------------- what changes


def test_an_edit_changes_its_matrices_and_nothing_else(model: PreTrainedModel) -> None:
    before = bits(model)
    with clip(model, Edit(-1, "mlp", 0.5)):
        names = changed(model, before)
    assert names == [f"model.layers.2.mlp.{name}_proj.weight" for name in ("gate", "up", "down")]
    assert not changed(model, before)


def test_each_matrix_is_recorded(model: PreTrainedModel, anatomy: Anatomy) -> None:
    factor = Factor.of(anatomy.select(1, "k")[0].read())
    with clip(model, Edit(-2, "k", 0.75), anatomy=anatomy) as clipped:
        pass
    expected = Clipped(1, "k", 0.75, 4, (16, 32), factor.kept_energy(0.75), 4 * (16 + 32))
    assert clipped == (expected,)
    assert 0 < expected.kept_energy < 1


def test_no_edit_is_no_change(model: PreTrainedModel) -> None:
    before = bits(model)
    with clip(model, []) as clipped:
        assert clipped == ()
        assert not changed(model, before)
    assert clip_(model, ()) == ()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_rate_zero_changes_no_bit_and_factorises_nothing(
    model: PreTrainedModel, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    model.to(dtype)
    before = bits(model)
    monkeypatch.setattr(Factor, "of", None)
    clipped = clip_(model, [Edit(layer, "all", 0.0) for layer in range(3)])
    assert not changed(model, before)
    assert {record.kept_energy for record in clipped} == {1.0}
    assert all(record.rank == min(record.shape) for record in clipped)


def test_clipping_in_place_is_what_the_block_sees_and_stays(model: PreTrainedModel) -> None:
    edits = [Edit(0, "attn", 0.3), Edit(2, "down", 0.9)]
    with clip(model, edits) as temporary:
        during = bits(model)
    assert clip_(model, edits) == temporary
    assert not changed(model, during)


def test_equal_edits_are_equal_values(anatomy: Anatomy) -> None:
    last = len(anatomy.layers) - 1
    given = [Edit(-1, "q", 0.5), Edit(0, "v", 0.0), Edit(0, "mlp", 0.25)]
    assert canonical(anatomy, given) == (Edit(0, "mlp", 0.25), Edit(last, "q", 0.5))
    assert canonical(anatomy, reversed(given)) == canonical(anatomy, given)
    assert canonical(anatomy, []) == ()
    with pytest.raises(EditError, match="no layer"):
        canonical(anatomy, [Edit(last + 1, "q", 0.5)])


def test_the_same_matrix_of_every_layer_is_clipped(model: PreTrainedModel) -> None:
    before = bits(model)
    with clip(model, [Edit(layer, "all", 0.5) for layer in range(3)]) as clipped:
        assert len(clipped) == len(changed(model, before)) == 3 * 7
    assert not changed(model, before)


def test_several_edits_of_one_layer_are_one_clip(model: PreTrainedModel) -> None:
    before = bits(model)
    with clip(model, [Edit(1, "q", 0.9), Edit(1, "mlp", 0.5), Edit(1, "k", 0.0)]) as clipped:
        assert [(record.name, record.rate) for record in clipped] == [
            ("q", 0.9),
            ("gate", 0.5),
            ("up", 0.5),
            ("down", 0.5),
            ("k", 0.0),
        ]
        assert len(changed(model, before)) == 4
    assert not changed(model, before)


def test_parameters_stay_the_same_objects_and_flags_stay(model: PreTrainedModel) -> None:
    model.train()
    model.requires_grad_(True)
    model.model.layers[0].self_attn.q_proj.weight.requires_grad_(False)
    parameters = dict(model.named_parameters())
    flags = {name: parameter.requires_grad for name, parameter in parameters.items()}
    with clip(model, Edit(0, "all", 0.5)):
        assert all(parameter is parameters[name] for name, parameter in model.named_parameters())
        assert all(p.is_leaf and p.grad_fn is None for p in parameters.values())
    clip_(model, Edit(0, "all", 0.5))
    assert model.training
    assert flags == {name: parameter.requires_grad for name, parameter in model.named_parameters()}


def test_gradients_flow_through_a_clipped_model(model: PreTrainedModel) -> None:
    with clip(model, Edit(1, "mlp", 0.5)):
        model(torch.tensor([[5, 6, 7]])).logits.sum().backward()
        assert model.model.layers[1].mlp.down_proj.weight.grad is not None


# ---------------------------------------------------------------- what comes back


def poison(weight: Weight, *values: float) -> None:
    """Put values that arithmetic would not bring back into a matrix: minus zero, NaN with a
    payload, infinity."""
    matrix = weight.read()
    matrix[0, : len(values)] = torch.tensor(values, dtype=matrix.dtype)
    if any(map(math.isnan, values)):
        matrix.view(torch.int32 if matrix.dtype == torch.float32 else torch.int16)[0, 0] |= (
            0b101  # the payload
        )
    weight.write_(matrix)


@pytest.mark.parametrize("family", ["phi3", "gpt_neox", "gpt2", "falcon_new", "mixtral", "gpt_oss"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_bytes_beside_a_fused_matrix_never_move(family: str, dtype: torch.dtype) -> None:
    model = build(family).to(dtype)
    anatomy = Anatomy.of(model)
    name, neighbour = ("gate", "up") if family in ("mixtral", "gpt_oss") else ("k", "v")
    poison(anatomy.select(1, neighbour)[0], math.nan, -math.inf, -0.0)
    poison(anatomy.select(1, name)[0], -0.0, -0.0)
    before, beside = bits(model), anatomy.select(1, neighbour)[0].read()
    with clip(model, Edit(1, name, 0.8), anatomy=anatomy):
        assert changed(model, before)
        after = anatomy.select(1, neighbour)[0].read()
        assert torch.equal(after.view(torch.uint8), beside.view(torch.uint8))
    assert not changed(model, before)


def test_bytes_come_back_in_the_models_dtype(model: PreTrainedModel) -> None:
    model.to(torch.float16)
    before = bits(model)
    with clip(model, Edit(0, "all", 0.7)):
        assert {parameter.dtype for parameter in model.parameters()} == {torch.float16}
    assert not changed(model, before)


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_bytes_come_back_after_an_exception_inside(
    model: PreTrainedModel, error: type[BaseException]
) -> None:
    before = bits(model)

    def fail() -> None:
        with clip(model, [Edit(0, "all", 0.5), Edit(1, "v", 0.9)]):
            raise error

    with pytest.raises(error):
        fail()
    assert not changed(model, before)
    with clip(model, Edit(0, "all", 0.5)):  # and nothing is taken for clipped any more
        pass


@pytest.mark.parametrize("matrix", ["layer 0 q ", "layer 0 down ", "layer 1 o "])
def test_a_failure_half_way_undoes_the_half(
    model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch, matrix: str
) -> None:
    """As when memory runs out in the middle of several edits."""
    real = Factor.truncate

    def truncate(factor: Factor, *arguments: Any) -> Tensor:
        if factor.name.startswith(matrix):
            raise MemoryError("no memory left")
        return real(factor, *arguments)

    monkeypatch.setattr(Factor, "truncate", truncate)
    refused(MemoryError, "no memory left", model, [Edit(0, "all", 0.5), Edit(1, "all", 0.5)])


# ---------------------------------------------------------------- one factorisation serves every
# rate


def test_a_memo_gives_every_rate_from_the_original(
    model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    real: Callable[..., Factor] = Factor.of
    made: list[str] = []
    monkeypatch.setattr(
        Factor, "of", lambda weight, name: (made.append(name), real(weight, name=name))[1]
    )
    factors: Factors = {}
    for rate in (0.9, 0.1, 0.5, 0.9):
        with clip(model, Edit(1, "attn", rate), factors=factors):
            with_memo = bits(model)
        with clip(model, Edit(1, "attn", rate)):
            assert not changed(model, with_memo)
    assert len(factors) == 4
    assert len(made) == 4 + 4 * 4
    assert made[0] == "layer 1 q (model.layers.1.self_attn.q_proj.weight)"


def test_a_memo_of_fused_matrices_keeps_them_apart() -> None:
    model, factors = build("phi3"), Factors()
    clip_(model, Edit(0, "all", 0.0), factors=factors)
    assert not factors
    with clip(model, Edit(0, "all", 0.5), factors=factors):
        pass
    assert len(factors) == 7
    assert "model.layers.0.self_attn.qkv_proj.weight:k" in factors


def test_a_memo_of_other_weights_is_refused(model: PreTrainedModel) -> None:
    factors: Factors = {}
    with clip(model, Edit(1, "attn", 0.5), factors=factors):
        pass
    message = r"layer 1 q \(.*\) is not what its factorisation was made of: .* pass a fresh memo"
    refused(EditError, message, build("llama", seed=1), Edit(1, "attn", 0.5), factors=factors)
    refused(
        EditError, message, build("llama").to(torch.bfloat16), Edit(1, "attn", 0.5), factors=factors
    )
    clip_(model, Edit(1, "q", 0.5))
    refused(EditError, message, model, Edit(1, "q", 0.2), factors=factors)


# ---------------------------------------------------------------- what is refused


def test_an_anatomy_of_another_model_is_refused(model: PreTrainedModel) -> None:
    other = Anatomy.of(build("llama"))
    refused(EditError, "the anatomy is of another model", model, Edit(0, "q", 0.5), anatomy=other)


def test_a_layer_or_part_that_is_not_there_is_refused_before_anything_changes(
    model: PreTrainedModel,
) -> None:
    refused(EditError, "no layer 7", model, [Edit(0, "q", 0.5), Edit(7, "q", 0.5)])
    refused(
        EditError, "has no 'fc_in'; it has q, k", model, [Edit(0, "q", 0.5), Edit(1, "fc_in", 0.5)]
    )


@pytest.mark.parametrize(
    "edits",
    [
        [Edit(2, "up", 0.5), Edit(-1, "mlp", 0.9)],
        [Edit(2, "up", 0.5), Edit(2, "up", 0.5)],
        [Edit(2, "all", 0.0), Edit(2, "up", 0.9)],
    ],
)
def test_a_matrix_named_twice_is_refused(model: PreTrainedModel, edits: list[Edit]) -> None:
    refused(
        EditError,
        r"layer 2 up \(.*\) is named twice, at rates .*: leave one of the edits out",
        model,
        edits,
    )


def test_clipping_what_is_clipped_is_refused_and_says_why(model: PreTrainedModel) -> None:
    message = (
        r"layer 1 up \(.*up_proj.weight\) is clipped already, .* truncation is always of the"
        r" original"
    )
    before = bits(model)
    with clip(model, Edit(1, "mlp", 0.5)):
        refused(EditError, message, model, Edit(1, "up", 0.9))
        refused(
            EditError,
            message,
            model,
            [Edit(0, "q", 0.5), Edit(1, "up", 0.9)],
            anatomy=Anatomy.of(model),
        )
        with clip(model, [Edit(1, "attn", 0.5), Edit(1, "up", 0.0), Edit(0, "mlp", 0.5)]):
            assert len(changed(model, before)) == 3 + 4 + 3
        assert len(changed(model, before)) == 3
    assert not changed(model, before)
    clip_(model, Edit(1, "up", 0.9))


def test_two_experts_and_two_fused_matrices_are_not_each_other(model: PreTrainedModel) -> None:
    for family, inner, outer in (("mixtral", "gate", "up"), ("phi3", "q", "v")):
        fused = build(family)
        before = bits(fused)
        with clip(fused, Edit(1, outer, 0.5)), clip(fused, Edit(1, inner, 0.5)):
            assert changed(fused, before)
        assert not changed(fused, before)


def test_two_models_are_clipped_at_once(model: PreTrainedModel) -> None:
    other = build("llama")
    with clip(model, Edit(1, "mlp", 0.5)), clip(other, Edit(1, "mlp", 0.5)):
        assert not changed(other, bits(model))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_values_that_have_no_singular_values_are_refused_by_name(
    model: PreTrainedModel, value: float
) -> None:
    poison(Anatomy.of(model).select(1, "v")[0], value)
    refused(
        ModelError,
        r"layer 1 v \(model.layers.1.self_attn.v_proj.weight\) holds 1 NaN or inf",
        model,
        [Edit(0, "mlp", 0.5), Edit(1, "attn", 0.5)],
    )
    clip_(model, Edit(1, "v", 0.0))


def test_a_model_without_values_is_refused_by_name() -> None:
    model = build("llama").to("meta")
    with pytest.raises(ModelError, match=r"layer 0 q \(.*\) is on the meta device"):
        clip_(model, Edit(0, "q", 0.5))


# ---------------------------------------------------------------- tied matrices


@pytest.fixture
def tied(model: PreTrainedModel) -> PreTrainedModel:
    layers = model.model.layers
    layers[2].mlp.down_proj.weight = layers[0].mlp.down_proj.weight
    return model


@pytest.mark.parametrize(
    "edits", [[Edit(0, "mlp", 0.5)], [Edit(0, "down", 0.5), Edit(2, "down", 0.6)]]
)
def test_clipping_one_of_two_tied_matrices_is_refused(
    tied: PreTrainedModel, edits: list[Edit]
) -> None:
    message = (
        r"layer 0 down \(.*\) is tied to model\.layers\.2\.mlp\.down_proj\.weight: clipping one"
        r" changes both"
    )
    refused(EditError, message, tied, edits)


def test_clipping_all_tied_matrices_alike_clips_them_once(tied: PreTrainedModel) -> None:
    before = bits(tied)
    down = Anatomy.of(tied).select(0, "down")[0]
    expected = Factor.of(down.read()).truncate(0.5)
    with clip(tied, [Edit(2, "down", 0.5), Edit(0, "down", 0.5)]) as clipped:
        assert [(record.layer, record.name) for record in clipped] == [(2, "down")]
        assert torch.equal(down.read(), expected)
        refused(EditError, "is clipped already", tied, [Edit(0, "down", 0.5), Edit(2, "down", 0.5)])
    assert not changed(tied, before)


def test_tied_matrices_at_rate_zero_are_left_alone(tied: PreTrainedModel) -> None:
    before = bits(tied)
    clip_(tied, [Edit(0, "down", 0.0), Edit(2, "mlp", 0.0)])
    assert not changed(tied, before)


# ---------------------------------------------------------------- resolving


def test_edits_resolve_to_matrices_and_rates(anatomy: Anatomy) -> None:
    edits = resolve(anatomy, [Edit(-1, "q", 0.5), Edit(0, "mlp", 0.25)])
    assert [(weight.layer, weight.name, edit.rate) for weight, edit in edits.items()] == [
        (2, "q", 0.5),
        (0, "gate", 0.25),
        (0, "up", 0.25),
        (0, "down", 0.25),
    ]
