"""The control arms are what a plain loop does, in every family: a part whose module gives zeros,
and a sum of singular directions by numpy."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import product
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from families import FAMILIES, MORE_FAMILIES, VOCAB, bits, build, same_bits, tiny_tokenizer
from torch import Tensor, nn
from transformers import PreTrainedModel

from eckart.errors import EditError
from eckart.records import Edit
from eckart.scoring.evaluator import Evaluator
from eckart.tasks import Task
from eckart.weights.anatomy import Anatomy, Weight
from eckart.weights.edits import Clipped, Factors, clip, clip_
from eckart.weights.linalg import Factor, rank_at
from eckart.weights.models import load_model

EVERY = {**FAMILIES, **MORE_FAMILIES}
families = pytest.mark.parametrize("family", EVERY)
LAYER, ROWS = 1, "test[0:5]"

# The modules whose output is what a layer adds: of these names the last that it has. A norm on a
# part's output comes after the part; BLOOM's modules, and MPT's `ffn`, add the hidden states up
# themselves, and what is before that is their last matrix.
ADDS = {
    "attn": "self_attn attn attention self_attention post_self_attn_layernorm",
    "mlp": "fc2 mlp post_mlp_layernorm ffn.down_proj",
}
NORMED = ("gemma2", "gemma3", "gemma3_vision", "olmo2", "olmo3", "exaone4")
OWN_ADDS = {
    **{
        family: {"attn": "post_attention_layernorm", "mlp": "post_feedforward_layernorm"}
        for family in NORMED
    },
    "bloom": {"attn": "self_attention.dense", "mlp": "mlp.dense_4h_to_h"},
}


def adds(family: str, block: nn.Module, part: str) -> nn.Module:
    own = dict(block.named_modules())
    names = OWN_ADDS.get(family, ADDS)[part].split()
    return [own[name] for name in names if name in own][-1]


@contextmanager
def giving_zeros(modules: list[nn.Module]) -> Iterator[None]:
    def zero(module: nn.Module, given: Any, output: Any) -> Any:
        if isinstance(output, tuple):
            return (torch.zeros_like(output[0]), *output[1:])
        return torch.zeros_like(output)

    with ExitStack() as undo:
        for module in modules:
            undo.callback(module.register_forward_hook(zero).remove)
        yield


@pytest.fixture
def model(family: str) -> PreTrainedModel:
    return build(family)


@pytest.fixture
def anatomy(model: PreTrainedModel) -> Anatomy:
    return Anatomy.of(model)


@torch.no_grad()
def logits(model: PreTrainedModel) -> Tensor:
    ids = torch.randint(6, VOCAB, (2, 12), generator=torch.Generator().manual_seed(1))
    return model(ids).logits


# ---------------------------------------------------------------- a dropped part


@families
def test_a_dropped_part_adds_nothing(family: str, model: PreTrainedModel, anatomy: Anatomy) -> None:
    before, whole = bits(model), logits(model)
    modules = {part: adds(family, anatomy.blocks[LAYER], part) for part in ("attn", "mlp")}
    for part, parts in {"attn": ["attn"], "mlp": ["mlp"], "all": ["attn", "mlp"]}.items():
        with giving_zeros([modules[name] for name in parts]):
            expected = logits(model)
        assert not torch.allclose(expected, whole)
        with clip(model, Edit(LAYER, part, cut="drop"), anatomy=anatomy) as clipped:
            assert torch.equal(logits(model), expected)
        assert [(c.rank, c.kept_energy, c.factored_parameters) for c in clipped] == [
            (0, 0.0, 0) for _ in anatomy.select(LAYER, part)
        ]
        assert same_bits(model, before)


# ---------------------------------------------------------------- other ends, and chance


def kept_by(cut: str, weight: Weight, r: int) -> list[int]:
    """Which singular values stay, counted from the largest."""
    k = min(weight.shape)
    if cut == "largest":
        return list(range(k - r, k))
    if cut == "smallest":
        return list(range(r))
    draw = Random(f"{cut}:{weight.layer}:{weight.name}")
    return sorted(range(k), key=lambda number: draw.random())[:r]


def by_numpy(matrix: Tensor, kept: list[int]) -> np.ndarray:
    return summed(np.linalg.svd(matrix.double().numpy(), full_matrices=False), kept)


def summed(svd: Any, kept: list[int]) -> np.ndarray:
    u, s, vt = svd
    return np.asarray((u[:, kept] * s[kept]) @ vt[kept])


@families
def test_another_cut_is_numpys_sum_of_the_directions_that_stay(
    model: PreTrainedModel, anatomy: Anatomy
) -> None:
    before, factors = bits(model), Factors()
    originals = {weight: weight.read().double().numpy() for weight in anatomy.select(LAYER, "all")}
    svds = {weight: np.linalg.svd(originals[weight], full_matrices=False) for weight in originals}
    for cut, rate in product(("largest", "random", "random5"), (0.2, 0.8)):
        edit = Edit(LAYER, "all", rate, cut)
        with clip(model, edit, anatomy=anatomy, factors=factors) as clipped:
            for weight, record in zip(originals, clipped, strict=True):
                r = rank_at(rate, weight.shape)
                expected = summed(svds[weight], kept_by(cut, weight, r))
                np.testing.assert_allclose(weight.read().numpy(), expected, atol=2e-6)
                energy = (expected**2).sum() / (originals[weight] ** 2).sum()
                assert record.rank == r
                assert record.kept_energy == pytest.approx(energy)
        assert same_bits(model, before)
    assert len(factors) == len(originals)


@pytest.mark.parametrize("family", ["llama"])
def test_float64_is_exact(model: PreTrainedModel) -> None:
    model.double()
    anatomy = Anatomy.of(model)
    for cut in ("largest", "random2"):
        originals = {weight: weight.read() for weight in anatomy.select(LAYER, "mlp")}
        with clip(model, Edit(LAYER, "mlp", 0.5, cut), anatomy=anatomy):
            for weight, matrix in originals.items():
                expected = by_numpy(matrix, kept_by(cut, weight, rank_at(0.5, weight.shape)))
                np.testing.assert_allclose(weight.read().numpy(), expected, atol=1e-13)


@pytest.mark.parametrize("family", ["llama"])
def test_cuts_leave_as_many_directions_and_other_energies(
    model: PreTrainedModel, anatomy: Anatomy
) -> None:
    def clipped(cut: str, rate: float = 0.75) -> tuple[Clipped, ...]:
        with clip(model, Edit(LAYER, "mlp", rate, cut), anatomy=anatomy) as records:
            return records

    cuts = ("smallest", "random", "random1", "largest")
    records = {cut: clipped(cut) for cut in cuts}
    assert len({tuple(c.rank for c in records[cut]) for cut in cuts}) == 1
    for smallest, *random, largest in zip(*records.values(), strict=True):
        energies = [record.kept_energy for record in random]
        assert largest.kept_energy < min(energies) < max(energies) < smallest.kept_energy
    # The matrices of a layer, and the layers, draw each for themselves.
    gate, up, _ = anatomy.select(LAYER, "mlp")
    other = anatomy.select(0, "gate")[0]
    assert kept_by("random", gate, 8) != kept_by("random", up, 8)
    assert kept_by("random", gate, 8) != kept_by("random", other, 8)


@pytest.mark.parametrize("family", ["llama"])
def test_a_rate_that_leaves_the_whole_rank_changes_no_bit(model: PreTrainedModel) -> None:
    before = bits(model)
    for cut in ("largest", "random"):
        with clip(model, Edit(LAYER, "mlp", 1e-12, cut)) as clipped:
            assert same_bits(model, before)
            assert {(c.rank, c.kept_energy) for c in clipped} == {(32, 1.0)}


# ---------------------------------------------------------------- scored


@pytest.mark.parametrize(
    "family", ["llama", "gpt2", "gptj", "gemma2", "falcon_new", "phi", "mixtral", "bloom"]
)
def test_arms_are_scored_as_by_a_plain_loop(family: str, table: Any) -> None:
    """Together, from what they share, and each by itself from the first layer on."""
    own = {"data": table, "text_column": "review", "label_column": "verdict"}
    task = Task.load(**own, shots=2, split_sizes=(8, 8))
    loaded = load_model(build(family), tokenizer=tiny_tokenizer(), dtype="float32")
    anatomy = Anatomy.of(loaded.model)
    texts = ("mlp:drop", "attn:drop", "all:drop", "mlp:0.5", "mlp:0.5:largest", "mlp:0.5:random2")
    edits = [Edit.parse(f"{layer}:{text}") for layer in (1, 2) for text in texts]
    before, shared = bits(loaded.model), Evaluator(loaded, task)
    with pytest.MonkeyPatch.context() as patched:
        made: list[Factor] = []
        of = Factor.of
        patched.setattr(Factor, "of", lambda *a, **k: made.append(of(*a, **k)) or made[-1])
        trials = {trial.edits[0]: trial for trial in shared.score([[e] for e in edits], ROWS)}
    assert len(made) == sum(len(anatomy.select(layer, "mlp")) for layer in (1, 2))
    assert same_bits(loaded.model, before)
    for edit in edits:
        parts = {"attn": ["attn"], "mlp": ["mlp"], "all": ["attn", "mlp"]}[edit.part]
        modules = [adds(family, anatomy.blocks[edit.layer], part) for part in parts]
        if edit.cut == "drop":
            with giving_zeros(modules):
                plain = Evaluator(loaded, task)([], ROWS)
        else:
            originals = {weight: weight.read() for weight in anatomy.select(edit.layer, edit.part)}
            for weight, matrix in originals.items():
                kept = kept_by(edit.cut, weight, rank_at(edit.rate, weight.shape))
                weight.write_(torch.from_numpy(by_numpy(matrix, kept)))
            plain = Evaluator(loaded, task)([], ROWS)
            for weight, matrix in originals.items():
                weight.write_(matrix)
        found = trials[edit].score
        assert found is not None
        assert plain.score is not None
        np.testing.assert_allclose(found.row_merits, plain.score.row_merits, atol=2e-4)
        np.testing.assert_allclose(
            found.log_likelihoods, plain.score.log_likelihoods, atol=2e-5, err_msg=str(edit)
        )


# ---------------------------------------------------------------- in place, together, refused

BIASED = ("llama", "gpt2", "gptj", "phi", "falcon_new", "gpt_oss")


@pytest.mark.parametrize("family", BIASED)
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_bytes_and_biases_come_back(model: PreTrainedModel, error: type[BaseException]) -> None:
    before = bits(model)
    edits = [Edit(0, "all", cut="drop"), Edit(1, "mlp", 0.5, "random"), Edit(2, "mlp", cut="drop")]

    def fail() -> None:
        with clip(model, edits):
            assert not same_bits(model, before)
            raise error

    with pytest.raises(error):
        fail()
    assert same_bits(model, before)


@pytest.mark.parametrize("family", BIASED)
def test_dropping_in_place_stays(model: PreTrainedModel) -> None:
    edit = Edit(LAYER, "all", cut="drop")
    with clip(model, edit) as temporary:
        during = bits(model)
    assert clip_(model, edit) == temporary
    assert same_bits(model, during)


@pytest.mark.parametrize("family", ["llama"])
def test_a_failure_after_a_drop_undoes_it(
    model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def of(*arguments: Any, **options: Any) -> Factor:
        raise MemoryError("no memory left")

    monkeypatch.setattr(Factor, "of", of)
    before = bits(model)
    edits = [Edit(0, "all", cut="drop"), Edit(1, "mlp", 0.5, "largest")]
    with pytest.raises(MemoryError):
        clip_(model, edits)
    assert same_bits(model, before)


@pytest.mark.parametrize(
    ("edits", "words"),
    [
        (["1:mlp:drop", "1:down:0.5"], "down .* is named twice, at rates drop and 0.5"),
        (["1:mlp:0.5", "1:up:0.5:random"], "up .* twice, at rates 0.5 and 0.5:random"),
        (["1:all:drop", "-2:attn:drop"], "q .* twice, at rates drop and drop"),
        (["0:attn:0.5", "5:mlp:drop"], "no layer 5"),
    ],
)
@pytest.mark.parametrize("family", ["llama"])
def test_one_matrix_is_cut_one_way(model: PreTrainedModel, edits: list[str], words: str) -> None:
    before = bits(model)
    with pytest.raises(EditError, match=words) as caught:
        clip_(model, [Edit.parse(text) for text in edits])
    assert "\n" not in str(caught.value)
    assert same_bits(model, before)


@pytest.mark.parametrize("family", ["llama"])
def test_a_part_that_is_tied_to_another_is_dropped_with_it_or_not_at_all(
    model: PreTrainedModel,
) -> None:
    layers = model.model.layers
    layers[2].mlp.gate_proj.weight = layers[0].mlp.gate_proj.weight
    before = bits(model)
    alone, beside = Edit(0, "mlp", cut="drop"), Edit(2, "mlp", 0.5)
    for edits in ([alone], [alone, beside]):
        with pytest.raises(EditError, match=r"layer 0 gate .* is tied to"):
            clip_(model, edits)
        assert same_bits(model, before)
    with giving_zeros([layers[0].mlp, layers[2].mlp]):
        expected = logits(model)
    with clip(model, [alone, Edit(2, "mlp", cut="drop")]):
        assert torch.equal(logits(model), expected)
    # The first that is named draws for both.
    with clip(model, [Edit(0, "gate", 0.5, "random"), Edit(2, "gate", 0.5, "random")]) as clipped:
        assert len(clipped) == 1
    assert same_bits(model, before)


@pytest.mark.parametrize("family", ["llama"])
def test_a_part_of_a_type_that_is_not_in_the_table_is_not_dropped(model: PreTrainedModel) -> None:
    model.config.model_type = "novel"
    with pytest.raises(EditError, match=r"cannot drop a part of a 'novel': .* clip it at a rate"):
        clip_(model, Edit(0, "mlp", cut="drop"))
    with clip(model, Edit(0, "mlp", 0.5, "random")):
        pass
