"""What `Anatomy` says of a family is what that family's own forward pass does with it.

Every check takes the model's side from the model (tests/spies.py): the states that its attention
splits off, the input of its last feed-forward matrix, the output of its experts. None of it comes
from `architectures.yaml`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from families import FAMILIES, LAYERS, MORE_FAMILIES, VOCAB, bits, build, same_bits
from spies import attention_states, flow
from torch import Tensor, nn
from transformers import PreTrainedModel

from eckart.errors import ModelError
from eckart.records import Edit
from eckart.weights.anatomy import Anatomy, Weight
from eckart.weights.architectures import table
from eckart.weights.edits import clip

EVERY = {**FAMILIES, **MORE_FAMILIES}
EXPERTS = ("mixtral", "qwen2_moe", "qwen3_moe", "olmoe", "gpt_oss")
LAYER = 1  # in the middle: neither the embeddings nor the last norm touch it
# Not projections: routers, and norms and biases with a row a head or an expert.
NO_PROJECTION = (
    "router.weight",
    "mlp.gate.weight",
    "shared_expert_gate.weight",
    "norm.weight",
    "bias",
)
# These normalise all heads together, so that a change in one shows in the others.
JOINT_NORM = ("olmo2", "olmo3", "olmoe")

families = pytest.mark.parametrize("family", EVERY)
experts = pytest.mark.parametrize("family", EXPERTS)


@pytest.fixture
def model(family: str) -> PreTrainedModel:
    return build(family)


@pytest.fixture
def anatomy(model: PreTrainedModel) -> Anatomy:
    return Anatomy.of(model)


@pytest.fixture
def ids() -> Tensor:
    """Two rows of different tokens at the same positions."""
    return torch.randint(6, VOCAB, (2, 12), generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def zero_biases(model: PreTrainedModel) -> None:
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            parameter.zero_()


# ---------------------------------------------------------------- the table


def test_every_entry_of_the_table_is_checked_here() -> None:
    assert {EVERY[family]().config.get_text_config().model_type for family in EVERY} == set(table())


@families
def test_every_projection_of_a_layer_is_covered_exactly_once(
    model: PreTrainedModel, anatomy: Anatomy
) -> None:
    for layer, block in enumerate(anatomy.blocks):
        with torch.no_grad():
            for parameter in block.parameters():
                parameter.zero_()
        for weight in anatomy.layers[layer]:
            weight.write_(weight.read() + 1)
        for path, parameter in block.named_parameters():
            covered = parameter.unique().tolist()
            projection = parameter.dim() > 1 and not path.endswith(NO_PROJECTION)
            assert covered == ([1.0] if projection else [0.0]), path


@families
def test_reading_and_writing_back_changes_no_bit(model: PreTrainedModel, anatomy: Anatomy) -> None:
    before = bits(model)
    assert len(anatomy.layers) == len(anatomy.blocks) == LAYERS
    for weight in (weight for layer in anatomy.layers for weight in layer):
        assert tuple(weight.read().shape) == weight.shape
        assert model.get_parameter(weight.path) is weight.parameter
        weight.write_(weight.read())
    assert same_bits(model, before)


@families
def test_the_meta_device_gives_the_same_anatomy(family: str, anatomy: Anatomy) -> None:
    with torch.device("meta"):
        meta = Anatomy.of(EVERY[family]())
    described = [
        [[(w.key, w.shape, w.tied) for w in layer] for layer in a.layers] for a in (anatomy, meta)
    ]
    assert described[0] == described[1]
    assert anatomy.parameters == meta.parameters
    with pytest.raises(ModelError, match="meta device"):
        meta.layers[0][0].read()


@families
def test_without_its_entry_a_family_is_read_alike_or_refused(
    model: PreTrainedModel, anatomy: Anatomy
) -> None:
    model.config.get_text_config().model_type = "novel"
    weights = [weight for layer in anatomy.layers for weight in layer]
    if all(
        type(model.get_submodule(weight.path.rpartition(".")[0])) is nn.Linear and not weight.fused
        for weight in weights
    ):
        novel = Anatomy.of(model)
        assert [w.key for layer in novel.layers for w in layer] == [w.key for w in weights]
    else:
        with pytest.raises(
            ModelError, match=r"'novel' is not in architectures.yaml, and what .* holds .*weight"
        ):
            Anatomy.of(model)


# ---------------------------------------------------------------- attention


@families
def test_zeroing_q_k_or_v_changes_that_and_no_other(
    model: PreTrainedModel, anatomy: Anatomy, ids: Tensor
) -> None:
    before = attention_states(model, anatomy.blocks[LAYER], ids)
    for name in "qkv":
        assert not torch.allclose(before[name][0], before[name][1])
        (weight,) = anatomy.select(LAYER, name)
        original = weight.read()
        weight.write_(torch.zeros(weight.shape))
        after = attention_states(model, anatomy.blocks[LAYER], ids)
        weight.write_(original)
        # only biases and positions are left
        torch.testing.assert_close(after[name][0], after[name][1])
        for other in set("qkv") - {name}:
            torch.testing.assert_close(after[other], before[other])


@families
def test_the_rows_of_q_are_its_heads_in_order(
    family: str, model: PreTrainedModel, anatomy: Anatomy, ids: Tensor
) -> None:
    before = attention_states(model, anatomy.blocks[LAYER], ids)["q"]
    (q,) = anatomy.select(LAYER, "q")
    heads, size = before.shape[1], before.shape[3]
    assert q.shape[0] == heads * size
    for head in range(heads):
        matrix = q.read()
        matrix[head * size : (head + 1) * size] = 0
        q.write_(matrix)
        after = attention_states(model, anatomy.blocks[LAYER], ids)["q"]
        torch.testing.assert_close(after[0, : head + 1], after[1, : head + 1])
        if family not in JOINT_NORM:
            torch.testing.assert_close(after[:, head + 1 :], before[:, head + 1 :])


@families
def test_v_computes_what_the_attention_gets(
    model: PreTrainedModel, anatomy: Anatomy, ids: Tensor
) -> None:
    zero_biases(model)
    states = attention_states(model, anatomy.blocks[LAYER], ids)["v"]
    (v,) = anatomy.select(LAYER, "v")
    inputs, _ = flow(model, v, ids)
    ours = (inputs @ v.read().T).unflatten(-1, (-1, states.shape[3])).transpose(1, 2)
    shared = states.shape[1] // ours.shape[1]  # new Falcon hands each query head its own copy
    torch.testing.assert_close(ours.repeat_interleave(shared, dim=1), states)


# ---------------------------------------------------------------- feed-forward


@families
def test_what_writes_to_the_hidden_states_is_the_whole_of_its_module(
    model: PreTrainedModel, anatomy: Anatomy, ids: Tensor
) -> None:
    zero_biases(model)
    for weight in (
        w for w in anatomy.layers[LAYER] if w.kind in ("o", "down", "fc_out") and w.expert is None
    ):
        inputs, outputs = flow(model, weight, ids)
        torch.testing.assert_close(inputs @ weight.read().T, outputs)


@families
def test_gate_and_up_and_fc_in_feed_the_matrix_below_them(
    model: PreTrainedModel, anatomy: Anatomy, ids: Tensor
) -> None:
    zero_biases(model)
    for layer, weights in enumerate(anatomy.layers):
        dense = {weight.name: weight for weight in weights if weight.expert is None}
        for name, weight in dense.items():
            if weight.kind in ("gate", "up", "fc_in"):
                last = dense[
                    name.replace(weight.kind, "fc_out" if weight.kind == "fc_in" else "down")
                ]
                assert last.layer == layer
                check_feeds(model, weight, last, ids)


def check_feeds(model: PreTrainedModel, weight: Weight, last: Weight, ids: Tensor) -> None:
    original, before = weight.read(), flow(model, last, ids)[0]
    row = weight.shape[0] // 2
    matrix = original.clone()
    matrix[row] = 0
    weight.write_(matrix)
    after = flow(model, last, ids)[0]
    kept = torch.arange(before.shape[-1]) != row
    assert before[..., row].abs().max() > 1e-3
    assert after[..., row].abs().max() < 1e-6  # Apertus' activation gives 7e-7 at 0
    torch.testing.assert_close(after[..., kept], before[..., kept])
    weight.write_(2 * original)
    doubled = torch.allclose(flow(model, last, ids)[0], 2 * before)
    if weight.kind != "fc_in":  # the gate goes through the activation, and the other does not
        assert doubled == (weight.kind == "up")
    weight.write_(original)


@experts
@torch.no_grad()
def test_each_expert_computes_what_its_matrices_say(
    family: str, model: PreTrainedModel, anatomy: Anatomy
) -> None:
    zero_biases(model)
    module = model.get_submodule(anatomy.select(LAYER, "down")[0].path.rpartition(".")[0])
    weights = {weight.name: weight.read() for weight in anatomy.layers[LAYER]}
    hidden = torch.randn(5, weights["q"].shape[1], generator=torch.Generator().manual_seed(2))
    for expert in range(4):
        gate, up, down = (weights[f"{kind}[{expert}]"] for kind in ("gate", "up", "down"))
        inner = combine(family, hidden @ gate.T, hidden @ up.T)
        routed = module(hidden, torch.full((5, 1), expert), torch.ones(5, 1))
        torch.testing.assert_close(routed, inner @ down.T)


def combine(family: str, gate: Tensor, up: Tensor) -> Tensor:
    if family == "gpt_oss":  # its own activation, with its defaults
        gate, up = gate.clamp(max=7.0), up.clamp(-7.0, 7.0)
        return (up + 1) * gate * torch.sigmoid(1.702 * gate)
    return nn.functional.silu(gate) * up


# ---------------------------------------------------------------- clipping


def clipped_by_numpy(matrix: Tensor, rank: int) -> np.ndarray[Any, Any]:
    u, s, vt = np.linalg.svd(matrix.double().numpy(), full_matrices=False)
    return (u[:, :rank] * s[:rank]) @ vt[:rank]


@families
def test_clipping_is_numpys_truncation_and_its_bytes_come_back(
    model: PreTrainedModel, anatomy: Anatomy, ids: Tensor
) -> None:
    before, logits = bits(model), model(ids).logits.detach()
    weights = anatomy.select(LAYER, "all")
    expected = {weight.key: weight.read() for weight in weights}
    with clip(model, Edit(LAYER, "all", 0.6), anatomy=anatomy) as clipped:
        assert [(c.name, c.shape) for c in clipped] == [(w.name, w.shape) for w in weights]
        for weight, record in zip(weights, clipped, strict=True):
            rank = max(1, int(0.4 * min(weight.shape) + 1e-9))
            np.testing.assert_allclose(
                weight.read(), clipped_by_numpy(expected[weight.key], rank), atol=1e-6
            )
            values = np.linalg.svdvals(weight.read().double().numpy())
            assert record.rank == rank == (values > 1e-5 * values[0]).sum()
        assert not torch.allclose(model(ids).logits, logits, atol=1e-3)
    assert same_bits(model, before)
    assert torch.equal(model(ids).logits, logits)


@families
def test_bytes_come_back_after_an_interrupt(model: PreTrainedModel, anatomy: Anatomy) -> None:
    before = bits(model)

    def interrupted() -> None:
        with clip(model, [Edit(0, "attn", 0.5), Edit(-1, "mlp", 0.9)], anatomy=anatomy):
            assert not same_bits(model, before)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert same_bits(model, before)
