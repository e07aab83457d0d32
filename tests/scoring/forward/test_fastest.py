"""Each check of a way of reading fails where that way is broken, in float32 and in half precision
alike."""

import numpy as np
import pytest
import torch
from families import build, tiny_tokenizer

from eckart import Edit, Task
from eckart.scoring.evaluator import Evaluator
from eckart.scoring.forward import attention, fastest, padded, patches
from eckart.scoring.forward.fastest import CheckedReader
from eckart.scoring.forward.packed import Packed
from eckart.scoring.forward.padded import SharedPrefix
from eckart.scoring.forward.plain import read_plainly
from eckart.weights.edits import clip
from eckart.weights.hooks import in_float32
from eckart.weights.models import load_model

DTYPES = ["float32", "bfloat16", "float16"]


@pytest.fixture(scope="module")
def task(table) -> Task:
    return Task.load(
        data=table, text_column="review", label_column="verdict", shots=4, split_sizes=(12, 12)
    )


def evaluator(task, family="llama", dtype="float32", **options):
    return Evaluator(
        load_model(build(family).to(getattr(torch, dtype)), tokenizer=tiny_tokenizer()),
        task,
        **options,
    )


def without_window(monkeypatch):
    real = attention.attend
    monkeypatch.setattr(
        attention, "attend", lambda *args, window=None, **kw: real(*args, window=None, **kw)
    )


def without_known_prefix(monkeypatch):
    monkeypatch.setattr(Packed, "_run_prefix", lambda self, prefix, wanted: None)


def without_places_of_the_prefix(monkeypatch):
    real = Packed._run

    def run(self, batch, name, told, first, *args, **kwargs):
        return real(self, batch, name, told, 0, *args, **kwargs)

    monkeypatch.setattr(Packed, "_run", run)


def seeing_what_comes_after(monkeypatch):
    monkeypatch.setattr(
        attention.Pack,
        "visible",
        lambda self: torch.ones(len(self.tokens), self.paths.shape[1], dtype=torch.bool),
    )


def without_repeated_prefix(monkeypatch):
    monkeypatch.setattr(SharedPrefix, "for_rows", lambda self, rows: {"use_cache": False})


def padded_on_the_left(monkeypatch):
    def pad(rows, device):
        width = max(map(len, rows))
        return torch.tensor([(0,) * (width - len(row)) + row for row in rows], device=device)

    monkeypatch.setattr(padded, "pad", pad)


def with_another_activation(monkeypatch):
    monkeypatch.setattr(patches, "gelu", lambda hidden, approximate: torch.tanh(hidden))


BROKEN = {
    "the window is left out": (without_window, "mistral", "padded"),
    "packs without the prefix": (without_known_prefix, "llama", "padded"),
    "packs at wrong positions": (without_places_of_the_prefix, "llama", "padded"),
    "packs see the future": (seeing_what_comes_after, "llama", "padded"),
    "batches without the prefix": (without_repeated_prefix, "bloom", "without sharing"),
    "another activation": (with_another_activation, "gpt2", "one by one"),
    "padding on the left": (padded_on_the_left, "bloom", "one by one"),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("broken", BROKEN)
def test_a_broken_way_is_left_for_one_that_agrees(task, monkeypatch, broken, dtype):
    breaks, family, said = BROKEN[broken]
    expected = evaluator(task, family, dtype)([], "validation").score
    breaks(monkeypatch)
    with pytest.warns(UserWarning, match=said):
        found = evaluator(task, family, dtype)([], "validation").score
    allowed = {"float32": 1e-4, "bfloat16": 0.3, "float16": 0.05}[dtype]
    assert np.allclose(found.log_likelihoods, expected.log_likelihoods, atol=allowed)


@pytest.mark.parametrize("value", [-torch.inf, torch.finfo(torch.float32).min])
@pytest.mark.parametrize("broken", ["packs see the future", "packs without the prefix"])
def test_a_masked_token_hides_no_broken_way(task, monkeypatch, broken, value):
    """Some models give tokens that are never meant minus infinity, or the least number there is."""

    def masked():
        scorer = evaluator(task)
        scorer.model.model.lm_head.register_forward_hook(
            lambda module, inputs, logits: logits.index_fill(-1, torch.tensor([300]), value)
        )
        return scorer

    expected = masked()([], "validation").score
    BROKEN[broken][0](monkeypatch)
    with pytest.warns(UserWarning, match="padded"):
        found = masked()([], "validation").score
    assert np.allclose(found.log_likelihoods, expected.log_likelihoods, atol=1e-4)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_logits_that_are_wrong_in_half_precision_alone_are_found_out(task, monkeypatch, dtype):
    """float32 needs no exact columns, so the look in float32 cannot see what is wrong with them."""
    expected = evaluator(task, "llama", dtype)([], "validation").score
    real = patches.linear

    def tripled(hidden, weight, bias=None):
        return real(hidden, weight, bias) * (3 if weight.dtype == torch.float32 else 1)

    monkeypatch.setattr(patches, "linear", tripled)
    with pytest.warns(UserWarning, match="one by one"):
        found = evaluator(task, "llama", dtype)([], "validation").score
    assert np.allclose(found.log_likelihoods, expected.log_likelihoods, atol=0.3)


def test_a_slower_way_is_looked_at_in_float32_too(task, monkeypatch):
    """What was seen of one way says nothing of the next."""
    real = CheckedReader._rounds_right
    monkeypatch.setattr(
        CheckedReader, "_rounds_right", lambda self: self._number > 0 and real(self)
    )
    without_repeated_prefix(monkeypatch)
    with pytest.warns(UserWarning, match="without sharing"):
        evaluator(task, "llama", "bfloat16")([], "validation")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_check_that_finds_no_room_is_left_out_and_said(task, monkeypatch, dtype):
    expected = evaluator(task, dtype=dtype)([], "validation").score

    def full(*_):
        raise MemoryError

    monkeypatch.setattr(fastest, "read_plainly", full)
    scorer = evaluator(task, dtype=dtype)
    with pytest.warns(UserWarning, match="memory is full") as told:
        found, _ = scorer.score([(), (Edit(1, "mlp", 0.5),)], "validation")
    assert len(told) == 1
    assert found.score == expected


@pytest.mark.parametrize("dtype", DTYPES)
def test_no_check_ends_a_run(task, dtype):
    """Harsh edits of every layer, in every dtype, are read as near to float32 as the plain forward
    is."""
    scorer = evaluator(task, "llama", dtype)
    edits = [
        Edit(layer, part, rate)
        for layer in range(3)
        for part in ("attn", "mlp")
        for rate in (0.5, 0.95, 0.995)
    ]
    requests = scorer.prepare("validation").requests.without_prefix()
    allowed = {"float32": 1e-4, "bfloat16": 0.3, "float16": 0.05}[dtype]
    for trial in scorer.score([(), *((edit,) for edit in edits)], "validation"):
        with clip(scorer.model.model, trial.edits):
            plain = read_plainly(scorer.model.model, requests)
        assert np.allclose(trial.score.log_likelihoods, plain.values, atol=allowed), trial.edits


def test_a_model_computes_in_float32_for_a_while_and_is_as_before():
    model = build("qwen2").bfloat16()  # its embeddings are tied
    wide = build("qwen2").bfloat16().float()
    ids = torch.arange(6, 30)[None]
    before = {
        name: (id(tensor), tensor.clone())
        for name, tensor in model.state_dict(keep_vars=True).items()
    }
    with torch.no_grad(), in_float32(model, list(model.model.layers)):
        assert model.dtype == torch.float32
        assert torch.allclose(model(ids).logits, wide(ids).logits, atol=1e-5)
    for name, tensor in model.state_dict(keep_vars=True).items():
        assert id(tensor) == before[name][0]
        assert torch.equal(tensor, before[name][1])


def test_the_look_in_float32_is_taken_once_and_again_for_longer_rows(task, monkeypatch):
    scorer, looks = evaluator(task, dtype="bfloat16"), []
    real = CheckedReader._made_right
    monkeypatch.setattr(
        CheckedReader, "_made_right", lambda self: looks.append(self.what) or real(self)
    )
    requests = scorer.prepare("validation").requests
    order = sorted(
        range(12),
        key=lambda prompt: max(requests.length(c.row) for c in requests.continuations[prompt]),
    )
    for what, prompts in (("short", order[:4]), ("shorter", order[:2]), ("long", order[4:])):
        CheckedReader(scorer.readers, requests.subset(prompts), what)
    assert looks == ["validation"]
    fresh = evaluator(task, dtype="bfloat16").readers
    for what, prompts in (("short", order[:4]), ("shorter", order[:2]), ("long", order[4:])):
        CheckedReader(fresh, requests.subset(prompts), what)
    assert looks == ["validation", "short", "long"]
