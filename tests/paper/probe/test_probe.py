"""The probe: what it records is what the model computes with, and what it makes of that is the
theory's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from families import FAMILIES, LAYERS, MORE_FAMILIES, VOCAB, build, tiny_tokenizer
from spies import attention_states
from torch import Tensor

from eckart.errors import EckartError, EditError, ModelError, TaskError
from eckart.paper.probe import Probe, Prober, probe
from eckart.paper.probe.quantities import attended, residual, seen, update_of
from eckart.paper.probe.reading import OF_HEADS, QUANTITIES
from eckart.paper.probe.recording import Parts, Recorder
from eckart.paper.theory.duals import softmax_dual
from eckart.records import Edit
from eckart.tasks import Task
from eckart.weights.anatomy import Anatomy
from eckart.weights.models import LoadedModel, load_model

EVERY = {**FAMILIES, **MORE_FAMILIES}
OWN_WAY = ("bloom", "mpt", "falcon_new", "falcon_multi_query", "falcon_per_head", "gpt_neo", "xglm")
RECORDED = [family for family in EVERY if family not in OWN_WAY]
IDS = torch.randint(6, VOCAB, (1, 40), generator=torch.Generator().manual_seed(1))
FLOOR = 1e-2


@pytest.fixture(scope="module")
def task(table: Path) -> Task:
    return Task.load(data=table, text_column="review", label_column="verdict", shots=2)


def loaded(family: str, **tokens: Any) -> LoadedModel:
    return load_model(build(family), tokenizer=tiny_tokenizer(**tokens))


def record(family: str) -> list[Parts]:
    return Recorder(Anatomy.of(build(family)))(IDS[0].tolist())


# ---------------------------------------------------------------- recording


@pytest.mark.parametrize("family", RECORDED)
@torch.no_grad()
def test_outputs_computed_from_what_was_recorded_are_the_models_own(family: str) -> None:
    model = build(family)
    before = model(IDS).logits
    implementation = model.config._attn_implementation
    parts = Recorder(Anatomy.of(model))(IDS[0].tolist())
    assert len(parts) == LAYERS
    assert max(residual(p).max() for p in parts) < 2e-6
    assert model.config._attn_implementation == implementation
    assert torch.equal(model(IDS).logits, before)


@pytest.mark.parametrize("family", RECORDED)
def test_queries_keys_and_values_are_the_models_own(family: str) -> None:
    model = build(family)
    anatomy = Anatomy.of(model)
    states = attention_states(model, anatomy.blocks[1], IDS)
    parts = Recorder(anatomy)(IDS[0].tolist())[1]
    close(parts.query, states["q"][0, :, -1])
    close(parts.keys, states["k"][0])
    close(parts.values, states["v"][0])


def close(found: np.ndarray, expected: Tensor) -> None:
    np.testing.assert_allclose(found, expected.double().numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", RECORDED)
def test_a_prompt_read_in_two_goes_is_the_whole_prompt(family: str) -> None:
    recorder, ids = Recorder(Anatomy.of(build(family))), IDS[0].tolist()
    whole, beginning = recorder(ids), recorder.begin(ids[:25])
    for _ in range(2):  # the beginning serves any number of prompts
        for one, two in zip(whole, recorder(ids[25:], beginning), strict=True):
            assert (one.scale, one.softcap) == (two.scale, two.softcap)
            np.testing.assert_array_equal(np.isfinite(one.bias), np.isfinite(two.bias))
            for name in ("query", "keys", "values", "output"):
                np.testing.assert_allclose(
                    getattr(one, name), getattr(two, name), rtol=1e-4, atol=1e-5
                )


@pytest.mark.parametrize("family", OWN_WAY)
def test_attention_that_cannot_be_recorded_is_refused_by_name(family: str, task: Task) -> None:
    kind = family.partition("_new")[0].partition("_multi")[0].partition("_per")[0]
    with pytest.raises(
        ModelError, match=f"a '{kind}' model computes the attention of layer 0 by itself"
    ):
        Prober(loaded(family), task)


def test_sliding_windows_are_the_models_own() -> None:
    seen_tokens = [
        [int(np.isfinite(p.bias).sum()) for p in record(f)] for f in ("mistral", "gemma2", "llama")
    ]
    assert seen_tokens == [[16, 16, 16], [16, 40, 16], [40, 40, 40]]
    window, *_ = record("mistral")
    assert np.flatnonzero(seen(window, 0, 30)).tolist() == list(range(24, 30))


def test_sinks_take_their_share_and_give_nothing() -> None:
    everything = np.ones(40, dtype=bool)
    with_sinks, without = (
        attended(record(family)[1], everything) for family in ("gpt_oss", "llama")
    )
    np.testing.assert_allclose(without.share, 1)
    assert (with_sinks.share < 0.999).all()


def test_something_between_attention_and_projection_is_noticed(task: Task) -> None:
    model = loaded("llama")
    gate = model.model.model.layers[1].self_attn.o_proj
    gate.register_forward_pre_hook(lambda module, inputs: (inputs[0] * 0.9,))
    with pytest.raises(ModelError, match=r"layer 1: a head's output is 1.1e-01 away.*'llama'"):
        Prober(model, task)()


# ---------------------------------------------------------------- the prompts


@pytest.mark.parametrize("bos", [False, True])
def test_the_demonstrations_tokens_are_those_of_their_text(task: Task, bos: bool) -> None:
    instructed = replace(task, format=replace(task.format, instruction="Judge the food."))
    for shown in (task, instructed):
        prober = Prober(loaded("llama", add_bos=bos), shown, prompts=3)
        text = shown.format.frame(shown.shown).before
        for row, example in zip(prober.rows, task.validation, strict=False):
            decode = prober.model.tokenizer.decode
            instruction = "Judge the food.\n" if shown is instructed else ""
            assert instruction + decode(row.tokens[row.start : row.stop]) == text
            assert decode(row.tokens[row.stop :]) == example.text
            assert row.start == len(prober.model.tokenizer(instruction)["input_ids"])


def test_fewer_rows_than_asked_for_are_all_read(task: Task) -> None:
    assert Prober(loaded("llama"), task, prompts=1000).rows[-1].tokens
    assert len(Prober(loaded("llama"), task, prompts=1000).rows) == len(task.validation)


# ---------------------------------------------------------------- the quantities


@pytest.fixture(scope="module")
def read(task: Task) -> tuple[Prober, Probe]:
    prober = Prober(loaded("llama"), task, prompts=2, floor=FLOOR)
    return prober, prober()


def test_every_quantity_is_that_of_a_plain_loop(read: tuple[Prober, Probe]) -> None:
    prober, found = read
    model = prober.model.model
    for p, row in enumerate(prober.rows):
        path = np.zeros(32)
        for layer in found.layers:
            states = attention_states(
                model, model.model.layers[layer.layer], torch.tensor([row.tokens])
            )
            q, k, v = (states[name][0].double().numpy() for name in "qkv")
            updates = []
            for head in range(4):
                shown = range(row.start, row.stop)
                expected, update = by_hand(q[head, -1], k[head // 2], v[head // 2], shown)
                updates.append(update)
                for name, value in expected.items():
                    assert getattr(layer, name)[p, head] == pytest.approx(value, rel=2e-4), name
            output = (
                model.model.layers[layer.layer].self_attn.o_proj.weight.detach().double().numpy()
            )
            step = output @ np.concatenate(updates)
            path = path + step
            assert layer.tokens[p] == row.stop - row.start
            assert layer.step_norm[p] == pytest.approx(np.linalg.norm(step), rel=1e-4)
            assert layer.path_norm[p] == pytest.approx(np.linalg.norm(path), rel=1e-4)


def by_hand(
    query: np.ndarray, keys: np.ndarray, values: np.ndarray, shown: range
) -> tuple[dict[str, float], np.ndarray]:
    """Return one head's quantities, one demonstration token after the other."""
    scale = 1 / math.sqrt(len(query))
    weights = [math.exp(scale * float(query @ key)) for key in keys]
    normaliser = sum(weights)
    update = sum(weights[i] / normaliser * values[i] for i in shown)
    square = sum(
        float(values[i] @ values[j]) * math.exp(scale * float(keys[i] @ keys[j]))
        for i in shown
        for j in shown
    )
    gradients = [np.outer(values[i], keys[i]).ravel() for i in shown]
    n, step = len(gradients), sum(gradients)
    covariance = np.cov(n * np.array(gradients).T, bias=True) * (n - n // 2) / (n // 2 * (n - 1))
    noise = covariance + FLOOR * np.eye(len(covariance))
    norm_term = len(noise) * math.log((float(step @ step) + np.trace(noise)) / len(noise))
    log_determinant = float(np.linalg.slogdet(noise)[1])
    return {
        "log_normaliser": math.log(normaliser),
        "share": sum(weights[i] for i in shown) / normaliser,
        "log_norm": math.log(math.sqrt(square) / normaliser),
        "update_norm": float(np.linalg.norm(update)),
        "linear_norm": float(np.linalg.norm(step)),
        "mean_variance": float(np.trace(covariance)) / len(covariance),
        "norm_term": norm_term,
        "log_determinant": log_determinant,
        "term": norm_term - log_determinant,
    }, update


def test_the_norm_is_that_of_the_softmax_dual() -> None:
    parts = record("llama")[1]
    shown = seen(parts, 3, 30)
    update, used = update_of(parts, shown), attended(parts, shown)
    for head in range(4):
        values, keys = parts.values[head // 2].T, parts.keys[head // 2].T
        dual = softmax_dual(
            values[:, shown], keys[:, shown], parts.query[head], keys[:, ~shown], parts.scale**-2
        )
        np.testing.assert_allclose(update.log_norm[head] - used.log_normaliser[head], dual.log_norm)
        np.testing.assert_allclose(used.log_normaliser[head], dual.log_normaliser)
        np.testing.assert_allclose(used.update[head], dual.update)


def test_the_rank_is_at_most_the_number_of_tokens_and_of_value_features(
    read: tuple[Prober, Probe],
) -> None:
    parts = record("llama")[1]
    ranks = [update_of(parts, seen(parts, 3, 3 + n)).rank.tolist() for n in (1, 5, 8, 20)]
    assert ranks == [[1.0] * 4, [5.0] * 4, [8.0] * 4, [8.0] * 4]
    layers = read[1].layers
    assert all((layer.rank <= np.minimum(layer.tokens, 8)[:, None]).all() for layer in layers)
    assert all((layer.stable_rank >= 1 - 1e-12).all() for layer in layers)
    assert all((layer.stable_rank <= layer.rank + 1e-9).all() for layer in layers)


def test_a_mask_that_adds_to_scores_makes_features_longer() -> None:
    parts = record("llama")[1]
    bias = np.where(
        np.isfinite(parts.bias), np.linspace(-1, 0.5, 4)[:, None] * np.arange(40) / 20, -np.inf
    )
    biased, shown = replace(parts, bias=bias), seen(parts, 3, 30)
    found = update_of(biased, shown)
    for head in range(4):
        keys, values = parts.keys[head // 2][shown], parts.values[head // 2][shown]
        lengths = np.exp(bias[head, shown])
        kernel = np.exp(parts.scale * keys @ keys.T) * np.outer(lengths, lengths)
        assert found.log_norm[head] == pytest.approx(
            0.5 * math.log((values @ values.T * kernel).sum())
        )
    unbiased = update_of(parts, shown)
    np.testing.assert_allclose(found.linear_norm, unbiased.linear_norm)
    weights = np.exp(parts.scale * parts.query @ parts.keys[0].T + bias)[0]
    assert attended(biased, shown).share[0] == pytest.approx(weights[shown].sum() / weights.sum())


def test_a_soft_cap_leaves_no_norm_in_feature_space(task: Task) -> None:
    found = Prober(loaded("gemma2"), task, prompts=2)()
    for layer in found.layers:
        assert np.isnan([layer.log_norm, layer.rank, layer.stable_rank]).all()
    wide = found.layers[1]  # the other layers' windows end before the demonstrations
    assert np.isfinite([wide.update_norm, wide.linear_norm, wide.term]).all()
    assert (wide.share > 0).all()
    assert found.to_json()["layers"][0]["heads"][0]["log_norm"] is None
    assert found.residual < 2e-6


def test_a_soft_caps_kernel_has_a_gram_matrix_that_is_none() -> None:
    points, cap = np.linspace(-6, 6, 41), 2.0
    gram = np.exp(cap * np.tanh(np.outer(points, points) / cap))
    values = np.linalg.eigvalsh(gram)
    assert values[0] < -1e-3 * values[-1]


def test_demonstrations_out_of_the_window_add_nothing(task: Task) -> None:
    layer, *_ = Prober(loaded("mistral"), task, prompts=2)().layers
    assert layer.tokens.max() < 16
    parts = record("mistral")[0]
    gone = seen(parts, 2, 20)
    assert not gone.any()
    update, used = update_of(parts, gone), attended(parts, gone)
    assert (update.log_norm == -np.inf).all()
    assert not update.rank.any()
    assert not used.share.any()
    assert not used.update.any()
    assert np.isnan(replace(layer, variances=(update.variances,) * 2).norm_term).all()


def test_one_reading_has_every_floor(task: Task) -> None:
    model, edit = loaded("llama"), Edit(1, "attn", 0.5)
    found = Prober(model, task, prompts=2, floor=FLOOR)(edit)
    for floor in (1e-3, FLOOR, 1.0):
        alone, at = Prober(model, task, prompts=2, floor=floor)(edit), found.at(floor)
        for name in QUANTITIES:
            np.testing.assert_allclose(at.means(name), alone.means(name), rtol=1e-12)
        assert (at.floor, at.edits, at.reach) == (floor, alone.edits, alone.reach)
    with pytest.raises(EditError, match="floor 0: both are to be positive"):
        found.at(0.0)


def test_the_mean_variance_is_that_of_a_plain_loop(read: tuple[Prober, Probe]) -> None:
    _, found = read
    means = np.mean([layer.mean_variance for layer in found.layers])
    assert found.mean_variance == pytest.approx(means)


# ---------------------------------------------------------------- clipping


@pytest.mark.parametrize(
    ("part", "rate", "own"),
    [
        ("v", 0.5, {"update_norm", "log_norm", "term"}),
        ("q", 0.9, {"share"}),
        ("o", 0.9, {"step_norm"}),
        ("mlp", 0.9, set()),
    ],
)
def test_only_the_clipped_layer_and_those_above_move(
    read: tuple[Prober, Probe], part: str, rate: float, own: set[str]
) -> None:
    prober, before = read
    moved = before.compare(prober(Edit(1, part, rate)))
    assert moved.reach == (2 if part == "mlp" else 1)
    assert moved.moved_below == 0.0
    for name in QUANTITIES:
        change = moved.change(name)
        assert not change[: moved.reach].any()
        if name not in ("rank",):
            assert change[2] != 0, name
    assert {name for name in own if moved.change(name)[1]} == own


def test_what_an_edit_leaves_alone_in_its_own_layer(read: tuple[Prober, Probe]) -> None:
    prober, before = read
    through_output = before.compare(prober(Edit(1, "o", 0.9)))
    assert not any(through_output.change(name)[1] for name in OF_HEADS)
    through_query = before.compare(prober(Edit(1, "q", 0.9)))
    without_query = {"linear_norm", "norm_term", "log_determinant", "term", "rank", "stable_rank"}
    assert {name for name in QUANTITIES if through_query.change(name)[1] == 0} == without_query


def test_a_number_that_moves_below_is_told(read: tuple[Prober, Probe]) -> None:
    prober, before = read
    after = prober(Edit(2, "mlp", 0.5))
    assert before.compare(after).reach == 3
    share = after.layers[0].share.copy()
    share[1, 2] += 1e-9
    broken = replace(after, layers=(replace(after.layers[0], share=share), *after.layers[1:]))
    assert before.compare(broken).moved_below == pytest.approx(1e-9)
    undefined = replace(
        after, layers=(replace(after.layers[0], share=share * np.nan), *after.layers[1:])
    )
    assert before.compare(undefined).moved_below == math.inf


def test_a_second_reading_is_a_fresh_ones(task: Task, read: tuple[Prober, Probe]) -> None:
    prober, before = read
    edits = [Edit(-1, "attn", 0.75), Edit(0, "up", 0.9)]
    again, fresh = (
        prober(edits),
        probe(build("llama"), task, edits, tokenizer=tiny_tokenizer(), prompts=2, floor=FLOOR),
    )
    assert again.edits == (Edit(0, "up", 0.9), Edit(2, "attn", 0.75))
    assert same(again, fresh)
    assert same(prober(), before)
    assert same(prober(Edit(1, "v", 0.0)), before)


def same(a: Probe, b: Probe) -> bool:
    return all(
        np.array_equal(getattr(x, name), getattr(y, name))
        for x, y in zip(a.layers, b.layers, strict=True)
        for name in (*QUANTITIES, "tokens", "residual")
    )


@pytest.mark.parametrize("fault", ["raises", "differs"])
def test_prompts_are_read_whole_where_reading_in_two_goes_fails(
    task: Task, read: tuple[Prober, Probe], monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    assert read[0]._shared >= read[0].rows[0].stop

    def begin(self: Recorder, tokens: Sequence[int]) -> Any:
        if fault == "raises":
            raise TypeError("no keys and values")
        return right(self, [*tokens[:-1], tokens[-1] - 1])

    right = Recorder.begin
    monkeypatch.setattr(Recorder, "begin", begin)
    prober = Prober(loaded("llama"), task, prompts=2, floor=FLOOR)
    assert prober._shared == 0
    for one, other in zip(prober().layers, read[1].layers, strict=True):
        np.testing.assert_allclose(one.log_norm, other.log_norm, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(one.path_norm, other.path_norm, rtol=1e-4)


def test_the_document_holds_means_of_every_head(read: tuple[Prober, Probe]) -> None:
    prober, before = read
    document = before.compare(prober(Edit(1, "v", 0.5))).to_json()
    assert document["layers"][1]["heads"][3]["share"] == pytest.approx(
        before.layers[1].share[:, 3].mean()
    )
    assert document["clipped"]["edits"] == ["1:v:0.5"]
    assert set(document["change"]) == set(QUANTITIES)
    assert document["change"]["share"][0] == 0
    assert (document["first_layer_that_may_move"], document["moved_below"]) == (1, 0.0)


@pytest.mark.parametrize(
    ("dtype", "passes", "refused"),
    [
        (torch.float32, 1.0 - 5e-5, 1.0 - 2e-4),
        (torch.float16, 0.99, 0.97),
        (torch.bfloat16, 0.95, 0.85),
    ],
)
def test_every_dtype_is_read_with_its_own_tolerance(
    task: Task, dtype: torch.dtype, passes: float, refused: float
) -> None:
    """What the heads hand on is made smaller by a factor, which is the residual but for
    rounding."""

    def shrink(module: Any, inputs: tuple[Tensor]) -> tuple[Tensor]:
        return (inputs[0] * factor,)

    factor = 1.0
    model = load_model(build("llama").to(dtype), tokenizer=tiny_tokenizer())
    prober = Prober(model, task, prompts=2)
    plain = prober().residual
    assert plain < {torch.float32: 2e-6, torch.float16: 3e-3, torch.bfloat16: 2e-2}[dtype]
    model.model.model.layers[1].self_attn.o_proj.register_forward_pre_hook(shrink)
    factor = passes
    assert prober().residual > max(plain, 0.7 * (1 - factor))
    factor = refused
    with pytest.raises(ModelError, match="layer 1: a head's output is"):
        prober()


def test_updates_are_shared_by_prompts_and_edits_to_the_bit(
    task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A layer below the edit takes what is known; keys that are off by one rounding do not."""
    made: list[int] = []

    def counted(parts: Parts, shown: Any) -> Any:
        made.append(1)
        return update_of(parts, shown)

    monkeypatch.setattr("eckart.paper.probe.prober.update_of", counted)
    prober = Prober(loaded("llama"), task, prompts=3)
    prober()
    assert len(made) == LAYERS  # one for all prompts
    prober(Edit(1, "mlp", 0.9))
    assert len(made) == LAYERS + 1
    row, parts = prober.rows[0], prober.recorder(prober.rows[0].tokens)[0]
    shown = seen(parts, row.start, row.stop)
    prober._update(0, parts, shown)
    known = len(made)
    keys = parts.keys.copy()
    keys[0, row.start, 0] = np.nextafter(keys[0, row.start, 0], np.inf)
    prober._update(0, replace(parts, keys=keys), shown)
    assert len(made) == known + 1
    prober._update(0, parts, shown)
    assert len(made) == known + 1


# ---------------------------------------------------------------- what is refused


def test_what_cannot_be_probed_is_refused(task: Task, read: tuple[Prober, Probe]) -> None:
    model = loaded("llama")
    refused: list[tuple[type[EckartError], str, Any]] = [
        (TaskError, "shows no demonstrations", lambda: Prober(model, task.redrawn(shots=0))),
        (EditError, "0 prompts and floor", lambda: Prober(model, task, prompts=0)),
        (EditError, "floor 0", lambda: Prober(model, task, floor=0.0)),
        (TaskError, "no split 'train'", lambda: Prober(model, task, split="train")),
        (EditError, "no layer 7", lambda: read[0](Edit(7, "mlp", 0.5))),
        (
            EditError,
            "floor 0.01 and 1.0 cannot be",
            lambda: read[1].compare(replace(read[1], floor=1.0)),
        ),
    ]
    for error, words, call in refused:
        with pytest.raises(error, match=words):
            call()


def test_probes_of_other_tokens_are_not_compared(task: Task, read: tuple[Prober, Probe]) -> None:
    """Same task, split, shots and number of prompts: other demonstrations are other tokens all the
    same."""
    before = read[1]
    same_rows = Prober(loaded("llama"), task, prompts=2, floor=FLOOR)()
    assert before.compare(same_rows).moved_below == 0
    for other in (
        Prober(loaded("llama"), task.redrawn(seed=task.seed + 1), prompts=2, floor=FLOOR)(),
        Prober(loaded("llama", add_bos=True), task, prompts=2, floor=FLOOR)(),
    ):
        assert (other.task, other.split, other.shots, other.prompts) == (
            before.task,
            before.split,
            before.shots,
            before.prompts,
        )
        with pytest.raises(
            EditError, match=r"^probes read different tokens \(2 validation prompts of .*Prober$"
        ):
            before.compare(other)


def test_a_prompt_longer_than_the_model_reads_is_refused_or_shortened(task: Task) -> None:
    model = loaded("llama")
    longest = max(len(row.tokens) for row in Prober(model, task, prompts=1000).rows)
    model.model.config.max_position_embeddings = longest - 20
    with pytest.raises(TaskError, match="reads at most"):
        Prober(model, task)
    found = Prober(model, task, truncate_demonstrations=True, prompts=2)()
    assert (found.layers[0].tokens > 0).all()
