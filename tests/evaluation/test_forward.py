"""The fast path against a plain loop, written independently of it, on every family."""

import math

import numpy as np
import pytest
import torch

from eckart.edits import clip
from eckart.evaluation.batching import is_out_of_memory, pad, plan_batches, run_halving
from eckart.evaluation.evaluator import TOLERANCE
from eckart.evaluation.forward import log_likelihoods, plain_log_likelihoods
from eckart.evaluation.requests import build_requests
from eckart.records import Edit
from eckart.tasks.prompts import Prompt
from families import FAMILIES, build, tiny_tokenizer

DEMONSTRATIONS = "the food is good yes\nthe view is bad no\nthe inn is edited maybe so\n"
LABELS = (" yes", " no", " maybe so")


def prompts(shots: bool = True) -> list[Prompt]:
    texts = ["the bed is soft and wide", "bad", "the tea is the best in the town, and the rest is not"]
    return [
        Prompt(f"test:{i}", (DEMONSTRATIONS if shots else "") + text, LABELS, 0)
        for i, text in enumerate(texts)
    ]


def choices() -> list[Prompt]:
    ends = [
        ("\nhe ran home at once.", "\nno."),
        ("\nit broke.", "\nit was a fine day, and they sat outside."),
    ]
    return [Prompt(f"test:{i}", DEMONSTRATIONS + "the rain began", end, 1) for i, end in enumerate(ends)]


@torch.no_grad()
def by_hand(model, tokenizer, prompt: Prompt) -> list[float]:
    """Score each continuation in a forward pass of its own: all logits, float64, no cache, no batch."""
    found = []
    for continuation in prompt.continuations:
        context = tokenizer(prompt.context)["input_ids"]
        whole = tokenizer(prompt.context + continuation)["input_ids"]
        assert whole[: len(context)] == context, (
            "this loop is for texts whose tokens do not merge at the boundary"
        )
        logits = model(torch.tensor([whole])).logits[0].double()
        steps = range(len(context), len(whole))
        found.append(sum(float(logits[i - 1].log_softmax(-1)[whole[i]]) for i in steps))
    return found


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    "rows", [prompts(), prompts(shots=False), choices()], ids=["labels", "0-shot", "choices"]
)
def test_equals_a_plain_loop(family, rows):
    model, tokenizer = build(family), tiny_tokenizer(add_bos=True)
    requests = build_requests(rows, tokenizer)
    expected = [by_hand(model, tokenizer, prompt) for prompt in rows]
    for budget in (1, 64, 10_000):
        found = log_likelihoods(model, requests, budget)
        assert found.shape == (len(rows), len(rows[0].continuations))
        assert found.tolist() == [pytest.approx(row, abs=1e-4) for row in expected]
    assert plain_log_likelihoods(model, requests.without_prefix()).tolist() == [
        pytest.approx(row, abs=1e-4) for row in expected
    ]


@pytest.mark.parametrize("family", FAMILIES)
def test_equals_a_plain_loop_when_clipped(family):
    model, tokenizer = build(family), tiny_tokenizer(add_bos=True)
    requests = build_requests(prompts(), tokenizer)
    before = log_likelihoods(model, requests, 512)
    with clip(model, [Edit(0, "attn", 0.5), Edit(-1, "mlp", 0.75)]):
        expected = [by_hand(model, tokenizer, prompt) for prompt in prompts()]
        assert log_likelihoods(model, requests, 512).tolist() == [
            pytest.approx(row, abs=1e-4) for row in expected
        ]
    assert log_likelihoods(model, requests, 512).tolist() == before.tolist()
    assert abs(before - expected).max() > 1e-3


@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox"])
def test_choices_equal_a_plain_loop_when_clipped(family):
    model, tokenizer = build(family), tiny_tokenizer(add_bos=True)
    requests = build_requests(choices(), tokenizer)
    before = log_likelihoods(model, requests, 512)
    with clip(model, [Edit(1, "mlp", 0.9)]):
        expected = [by_hand(model, tokenizer, prompt) for prompt in choices()]
        assert log_likelihoods(model, requests, 512).tolist() == [
            pytest.approx(row, abs=1e-4) for row in expected
        ]
    assert abs(before - expected).max() > 1e-3


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dtype", ["float64", "bfloat16", "float16"])
def test_every_dtype_equals_its_own_plain_forward(family, dtype):
    model = build(family).to(getattr(torch, dtype))
    # torch's grouped product of experts wants sizes that are multiples of 16 bytes, which tiny models have not
    model.set_experts_implementation("eager")
    requests = build_requests(prompts(), tiny_tokenizer())
    tokens = np.array([[len(c.tokens) for c in found] for found in requests.continuations])
    plain = plain_log_likelihoods(model, requests.without_prefix())
    assert (abs(log_likelihoods(model, requests, 512) - plain) <= TOLERANCE[dtype] * tokens).all()


@pytest.mark.parametrize("family", ["llama", "gpt2", "opt", "bloom", "gptj"])
@pytest.mark.parametrize("side", ["left", "right"])
@torch.no_grad()
def test_equals_a_batch_that_transformers_pads_on_either_side(family, side):
    model, tokenizer = build(family), tiny_tokenizer()
    tokenizer.padding_side = side
    rows = [Prompt(p.id, p.context, (" yes",), 0) for p in prompts()]
    texts = [prompt.context + " yes" for prompt in rows]
    batch = tokenizer(texts, return_tensors="pt", padding=True)
    if family == "gpt2":  # its positions are learned, and transformers does not shift them by itself
        batch["position_ids"] = (batch["attention_mask"].cumsum(-1) - 1).clamp(min=0)
    logits = model(**batch).logits.double().log_softmax(-1)
    found = log_likelihoods(model, build_requests(rows, tokenizer), 512)
    for row, (ids, mask) in enumerate(zip(batch["input_ids"], batch["attention_mask"], strict=True)):
        end = int(mask.nonzero().max())
        count = len(tokenizer(" yes")["input_ids"])
        expected = sum(float(logits[row, i - 1, ids[i]]) for i in range(end - count + 1, end + 1))
        assert found[row, 0] == pytest.approx(expected, abs=1e-4)


def test_demonstrations_are_run_once():
    model, tokenizer = build("llama"), tiny_tokenizer()
    requests = build_requests(prompts(), tokenizer)
    demonstrations = tokenizer(DEMONSTRATIONS)["input_ids"]
    assert list(requests.prefix[: len(demonstrations)]) == demonstrations
    fed = []
    hook = model.model.embed_tokens.register_forward_hook(
        lambda _, inputs, output: fed.append(inputs[0].shape)
    )
    log_likelihoods(model, requests, 10_000)
    hook.remove()
    assert fed[0] == (1, len(requests.prefix))
    assert sum(rows for rows, _ in fed[1:]) == len(requests.rows)
    assert max(width for _, width in fed[1:]) < len(demonstrations)


def test_one_row_serves_labels_that_begin_alike():
    one_token_each = [Prompt("a", "the food is", (" good", " bad", " good and bad"), 0)]
    requests = build_requests(one_token_each, tiny_tokenizer())
    assert len(requests.rows) == 1
    assert [c.row for c in requests.continuations[0]] == [0, 0, 0]


def test_the_head_reads_only_scored_positions():
    model, tokenizer = build("llama"), tiny_tokenizer()
    requests = build_requests(prompts(), tokenizer)
    seen = []
    hook = model.lm_head.register_forward_hook(
        lambda _, inputs, output: seen.append(output.shape[:2].numel())
    )
    log_likelihoods(model, requests, 10_000)
    hook.remove()
    targets = {
        (c.row, c.start + i) for found in requests.continuations for c in found for i in range(len(c.tokens))
    }
    assert seen == [1, len(targets)]


def test_progress_counts_every_prompt_once():
    done = []
    log_likelihoods(build("gpt2"), build_requests(prompts(), tiny_tokenizer()), 40, done.append)
    assert sum(done) == len(prompts())


def test_out_of_memory_halves_the_batch_and_goes_on(monkeypatch):
    model, tokenizer = build("llama"), tiny_tokenizer()
    requests = build_requests(prompts(), tokenizer)
    expected = log_likelihoods(model, requests, 1).tolist()
    forward, sizes = model.forward, []

    def short_of_memory(*args, input_ids, **kwargs):
        sizes.append(len(input_ids))
        if len(input_ids) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return forward(*args, input_ids=input_ids, **kwargs)

    monkeypatch.setattr(model, "forward", short_of_memory)
    assert log_likelihoods(model, requests, 10_000).tolist() == [
        pytest.approx(row, abs=1e-5) for row in expected
    ]
    assert max(sizes) > 1


def test_batches_after_a_halving_start_no_larger():
    sizes = []

    def run(batch):
        if len(batch) > 2:
            raise MemoryError
        sizes.append(batch)

    run_halving(run, [[0, 1, 2, 3, 4], [5, 6, 7]], "test")
    assert sizes == [[0, 1], [2, 3], [4], [5, 6], [7]]


def test_other_errors_are_not_taken_for_full_memory():
    assert not is_out_of_memory(RuntimeError("shape mismatch"))

    def run(batch):
        raise RuntimeError("shape mismatch")

    with pytest.raises(RuntimeError, match="shape mismatch"):
        run_halving(run, [[0, 1]], "test")


def test_batches_hold_every_row_once_within_the_budget():
    rows = [(1,) * length for length in (5, 1, 9, 3, 3, 20, 2)]
    batches = plan_batches(rows, budget=12)
    assert sorted(i for batch in batches for i in batch) == list(range(len(rows)))
    assert all(len(b) == 1 or len(b) * max(len(rows[i]) for i in b) <= 12 for b in batches)


def test_padding_is_on_the_right():
    assert pad([(7, 8, 9), (5,)], torch.device("cpu")).tolist() == [[7, 8, 9], [5, 0, 0]]


def test_uniform_logits_give_the_log_of_the_vocabulary():
    model = build("llama")
    with torch.no_grad():
        model.lm_head.weight.zero_()
    requests = build_requests([Prompt("a", "x", (" y", " z"), 0)], tiny_tokenizer())
    tokens = [len(c.tokens) for c in requests.continuations[0]]
    expected = [-n * math.log(model.config.vocab_size) for n in tokens]
    assert log_likelihoods(model, requests, 9)[0].tolist() == pytest.approx(expected, abs=1e-4)


def test_a_long_prefix_makes_batches_smaller_since_every_row_holds_it():
    rows = [(1, 2)] * 100
    assert max(map(len, plan_batches(rows, budget=100))) == 50
    assert max(map(len, plan_batches(rows, budget=100, prefix=38))) == 10
    assert sum(map(len, plan_batches(rows, budget=1, prefix=10_000))) == 100
