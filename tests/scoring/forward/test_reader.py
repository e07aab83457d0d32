"""The fast path against a plain loop, written independently of it, on every family."""

import errno
import itertools
import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from families import FAMILIES, build, tiny_tokenizer

from eckart.records import Edit
from eckart.scoring.forward import attention
from eckart.scoring.forward.packed import Packed, can_pack
from eckart.scoring.forward.padded import Padded
from eckart.scoring.forward.plain import read_plainly, sizes
from eckart.scoring.forward.reader import PREFIX, is_out_of_memory, run_halving
from eckart.scoring.forward.states import StateStore
from eckart.scoring.forward.trunk import LayerPoint, Pass, Trunk
from eckart.scoring.requests import build_requests
from eckart.tasks.prompts import Prompt
from eckart.weights.anatomy import Anatomy
from eckart.weights.edits import clip

DEMONSTRATIONS = "the food is good yes\nthe view is bad no\nthe inn is edited maybe so\n"
LABELS = (" yes", " no", " maybe so")


TOLERANCE = {"float64": 1e-6, "float32": 1e-4, "float16": 0.03, "bfloat16": 0.25}  # nats a token


WAYS = {"packed": Packed, "padded": Padded}
PADDED_ONLY = {"gpt_neo", "bloom", "mpt", "falcon_new", "falcon_multi_query", "falcon_per_head"}


def reader(way, model, requests, budget=512, memory=1 << 30):
    return WAYS[way](model, requests, budget, Trunk(Anatomy.of(model)), StateStore(memory))


def every_way(model):
    return ["packed", "padded"] if can_pack(Trunk(Anatomy.of(model))) else ["padded"]


def log_likelihoods(model, requests, budget, advance=lambda done: None, way="padded"):
    return reader(way, model, requests, budget).log_likelihoods(advance=advance)


def prompts(shots: bool = True) -> list[Prompt]:
    texts = [
        "the bed is soft and wide",
        "bad",
        "the tea is the best in the town, and the rest is not",
    ]
    return [
        Prompt(f"test:{i}", (DEMONSTRATIONS if shots else "") + text, LABELS, 0)
        for i, text in enumerate(texts)
    ]


def choices() -> list[Prompt]:
    ends = [
        ("\nhe ran home at once.", "\nno."),
        ("\nit broke.", "\nit was a fine day, and they sat outside."),
    ]
    return [
        Prompt(f"test:{i}", DEMONSTRATIONS + "the rain began", end, 1) for i, end in enumerate(ends)
    ]


def few(shots: bool = True) -> list[Prompt]:
    """The shortest and the longest of the prompts, each with a short label and a long one."""
    return [replace(prompt, continuations=LABELS[1:]) for prompt in prompts(shots)[1:]]


@torch.no_grad()
def by_hand(model, tokenizer, prompt: Prompt) -> list[float]:
    """Score each continuation in a forward pass of its own: all logits, float64, no cache, no
    batch."""
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
    ("rows", "budgets"),
    [(few(), [64]), (few(shots=False), [10_000]), (choices(), [1, 10_000])],
    ids=["labels", "0-shot", "choices"],
)
def test_equals_a_plain_loop(family, rows, budgets):
    model, tokenizer = build(family), tiny_tokenizer(add_bos=True)
    requests = build_requests(rows, tokenizer)
    expected = [by_hand(model, tokenizer, prompt) for prompt in rows]
    for way, budget in itertools.product(every_way(model), budgets):
        found = log_likelihoods(model, requests, budget, way=way)
        assert found.shape == (len(rows), len(rows[0].continuations))
        assert found.tolist() == [pytest.approx(row, abs=1e-4) for row in expected]
    assert read_plainly(model, requests.without_prefix()).values.tolist() == [
        pytest.approx(row, abs=1e-4) for row in expected
    ]


@torch.no_grad()
def mean_logits_by_hand(model, tokenizer, prompt: Prompt) -> list[float]:
    """Average all logits at the positions that predict each continuation, in a forward pass of its
    own."""
    found = []
    for continuation in prompt.continuations:
        start = len(tokenizer(prompt.context)["input_ids"])
        whole = tokenizer(prompt.context + continuation)["input_ids"]
        logits = model(torch.tensor([whole])).logits[0].double()
        found.append(float(logits[start - 1 : len(whole) - 1].mean()))
    return found


@pytest.mark.parametrize("family", FAMILIES)
def test_mean_logits_equal_a_plain_loop(family):
    model, tokenizer = build(family), tiny_tokenizer(add_bos=True)
    rows = choices()
    requests = build_requests(rows, tokenizer)
    expected = [mean_logits_by_hand(model, tokenizer, prompt) for prompt in rows]
    assert all(len(set(np.round(row, 4))) == 2 for row in expected)
    readers = [
        *(
            reader(way, model, requests, budget)
            for way in every_way(model)
            for budget in (64, 10_000)
        ),
        Padded(model, requests.without_prefix(), 1),
    ]
    for read in readers:
        log_likelihoods, logit_sums = read.sums(logits=True)
        assert (logit_sums / sizes(requests)[0]).tolist() == [
            pytest.approx(row, abs=1e-5) for row in expected
        ]
        assert log_likelihoods.tolist() == read.log_likelihoods().tolist()


EDITS = {
    "first attn": [Edit(0, "attn", 0.7)],
    "first mlp": [Edit(0, "mlp", 0.7)],
    "middle attn": [Edit(1, "attn", 0.7)],
    "middle mlp": [Edit(1, "mlp", 0.7)],
    "last attn": [Edit(2, "attn", 0.7)],
    "last mlp": [Edit(2, "mlp", 0.7)],
    "several": [Edit(1, "mlp", 0.5), Edit(1, "q", 0.5), Edit(2, "mlp", 0.75)],
    "first and last": [Edit(0, "mlp", 0.5), Edit(-1, "attn", 0.75)],
}
SOME = ["first mlp", "middle attn", "last mlp"]
"""What is read without demonstrations: of every layer one, on either side of an attention."""
REST = [name for name in EDITS if name not in SOME]
AGAIN = ["last attn", "middle mlp"]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("shots", "names"), [(10, [*REST, *AGAIN]), (0, SOME)], ids=[10, 0])
def test_passes_that_begin_at_the_edit_equal_a_plain_loop(family, shots, names):
    """The unpruned pass leaves its states at every point; each edit goes on from its own, some of
    them again after the others."""
    model, tokenizer = build(family), tiny_tokenizer(add_bos=True)
    requests, anatomy = build_requests(few(bool(shots)), tokenizer), Anatomy.of(model)
    clipped = partial(clip, model, anatomy=anatomy, factors={})
    expected = {}
    edits = {name: EDITS[name] for name in names}
    for name in edits:
        with clipped(edits[name]):
            expected[name] = read_plainly(model, requests.without_prefix()).values
    assert len({values.tobytes() for values in expected.values()}) == len(edits)
    for way in every_way(model):
        read = reader(way, model, requests, budget=40)
        resolved = {name: [replace(e, layer=e.layer % 3) for e in edits[name]] for name in edits}
        points = {name: read.trunk.point(resolved[name]) for name in resolved}
        before = read.log_likelihoods(keep=set(points.values()) - {LayerPoint(0)})
        kept = {p for p in points.values() if way == "packed" and 0 < p.unchanged < 3}
        assert all(read.has_states(PREFIX, Pass(p)) for p in kept) or not requests.prefix
        for name in names:
            with clipped(edits[name]):
                found = read.log_likelihoods(points[name])
            assert np.abs(found - expected[name]).max() < 1e-4, name
        assert read.log_likelihoods().tolist() == before.tolist()


def test_most_families_are_packed():
    assert {family for family in FAMILIES if every_way(build(family)) == ["padded"]} == PADDED_ONLY


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("part", ["attn", "mlp"])
def test_a_candidate_runs_the_edited_layer_and_those_above_alone(way, part):
    model = build("llama")
    requests = build_requests(prompts(), tiny_tokenizer())
    # padded rows need the prefix's keys in every layer, for the model to know its length
    read = reader(way, model, requests if way == "packed" else requests.without_prefix())
    point = read.trunk.point([Edit(1, part, 0.5)])
    full = read.log_likelihoods(keep=[point])
    ran = []
    hooks = [
        module.register_forward_hook(lambda *_, name=name: ran.append(name))
        for name, module in model.named_modules()
        if name.endswith(("q_proj", "down_proj"))
    ]
    assert read.log_likelihoods(point).tolist() == full.tolist()
    for hook in hooks:
        hook.remove()
    layers = {name.split(".")[2]: set() for name in ran}
    for name in ran:
        layers[name.split(".")[2]].add(name.rpartition(".")[2])
    assert layers == {
        "1": {"down_proj"} | ({"q_proj"} if part == "attn" else set()),
        "2": {"down_proj", "q_proj"},
    }


def test_an_edit_of_the_last_mlp_runs_on_the_scored_tokens_alone():
    model, fed = build("llama"), []
    requests = build_requests(prompts(), tiny_tokenizer())
    read = reader("packed", model, requests)
    point = read.trunk.point([Edit(2, "mlp", 0.5)])
    read.log_likelihoods(keep=[point])
    hook = model.model.layers[2].mlp.register_forward_hook(
        lambda *_: fed.append(_[2].shape[:2].numel())
    )
    layers = [
        module.register_forward_hook(lambda *_: fed.append("ran"))
        for name, module in model.named_modules()
        if name.endswith("q_proj")
    ]
    read.log_likelihoods(point)
    for one in [hook, *layers]:
        one.remove()
    rows, places = requests.rows, [c for found in requests.continuations for c in found]
    scored = {rows[c.row][: c.start + i + 1] for c in places for i in range(len(c.tokens))}
    assert fed == [len(scored)]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("memory", [0, 10_000, 1 << 30], ids=["none", "some", "all"])
def test_states_beyond_the_budget_go_to_files_and_give_the_same_result(way, memory):
    model = build("llama")
    requests = build_requests(prompts() + choices(), tiny_tokenizer())
    expected = reader(way, model, requests).log_likelihoods().tolist()
    read = reader(way, model, requests, budget=30, memory=memory)
    point = LayerPoint(1, after_attention=True)
    read.log_likelihoods(keep=[point])
    assert read.states.held <= memory
    assert bool(read.states.filed) == (memory < 1 << 30)
    assert read.log_likelihoods(point).tolist() == [
        pytest.approx(row, abs=1e-5) for row in expected
    ]
    read.states.clear()
    assert (read.states.held, read.states.filed) == (0, 0)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("lost", ["prefix", "first", "every second"])
@pytest.mark.parametrize(
    "edit", [Edit(1, "attn", 0.7), Edit(1, "mlp", 0.7), Edit(2, "mlp", 0.7)], ids=str
)
def test_states_that_were_lost_are_computed_again_with_the_right_prefix(
    way, lost, edit, monkeypatch
):
    """Edits of lower layers come between: their keys would show if they were taken for the unedited
    ones."""
    put, names = StateStore.put, []

    def lossy(store, batch, point, states):
        names.append(batch)
        gone = {
            "prefix": PREFIX in batch,
            "first": len(names) == 1,
            "every second": len(names) % 2 == 1,
        }
        if not gone[lost]:
            put(store, batch, point, states)

    monkeypatch.setattr(StateStore, "put", lossy)
    model = build("llama")
    requests, anatomy = build_requests(few() * 3, tiny_tokenizer()), Anatomy.of(model)
    read = reader(way, model, requests, budget=20)
    read.log_likelihoods(keep=[read.trunk.point([edit])])
    monkeypatch.undo()
    assert names
    for below in (Edit(0, "attn", 0.8), Edit(0, "mlp", 0.8), edit):
        with clip(model, below, anatomy=anatomy):
            found = read.log_likelihoods(read.trunk.point([below]))
            expected = read_plainly(model, requests.without_prefix()).values
        assert np.allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("way", WAYS)
def test_a_head_that_runs_out_of_memory_counts_nothing_twice(way, monkeypatch):
    model = build("llama")
    requests = build_requests(prompts() + choices(), tiny_tokenizer())
    expected = reader(way, model, requests, 10_000).log_likelihoods()
    real, sizes, done = torch.Tensor.logsumexp, [], []

    def short(logits, *args):
        sizes.append(len(logits))
        if len(logits) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(logits, *args)

    monkeypatch.setattr(torch.Tensor, "logsumexp", short)
    found = reader(way, model, requests, 10_000).log_likelihoods(advance=done.append)
    assert np.allclose(found, expected, atol=1e-5)
    assert max(sizes) > 3
    assert sum(done) == len(requests.continuations)


@pytest.mark.parametrize("way", WAYS)
def test_states_that_fit_nowhere_are_computed_again(way, monkeypatch):
    model = build("llama")
    read = reader(way, model, build_requests(prompts(), tiny_tokenizer()), budget=30, memory=0)
    expected = read.log_likelihoods().tolist()

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("tempfile.TemporaryFile", full)
    read.log_likelihoods(keep=[LayerPoint(1)])
    assert read.log_likelihoods(LayerPoint(1)).tolist() == expected


def test_rows_that_begin_alike_share_what_they_begin_with():
    texts = ["the bed is soft", "the bed is hard", "the bed is wide"]
    rows = [Prompt(f"t{i}", DEMONSTRATIONS + text, LABELS, 0) for i, text in enumerate(texts)]
    requests = build_requests(rows, tiny_tokenizer())
    model, fed = build("llama"), []
    hook = model.model.embed_tokens.register_forward_hook(
        lambda _, inputs, out: fed.append(out.shape[:2].numel())
    )
    log_likelihoods(model, requests, 10_000, way="packed")
    hook.remove()
    by_length = {
        (len(row).bit_length(), row[: i + 1]) for row in requests.rows for i in range(len(row))
    }
    assert fed[:2] == [len(requests.prefix), len(by_length)]
    assert len(by_length) < sum(map(len, requests.rows))


@pytest.mark.parametrize("family", ["llama", "gemma2", "cohere"])
def test_labels_do_not_tie_in_half_precision(family):
    """Two labels whose columns differ by less than bfloat16 resolves at their logits' size are
    still told apart."""
    model, tokenizer = build(family).to(torch.bfloat16), tiny_tokenizer()
    requests = build_requests(
        [Prompt(p.id, p.context, (" good", " bad"), 0) for p in prompts()], tokenizer
    )
    good, bad = (c.tokens[0] for c in requests.continuations[0])
    with torch.no_grad():
        weight = model.get_output_embeddings().weight
        weight[bad] = weight[good]
        weight[bad, ::7] *= 1 + 2**-7
    found = {way: log_likelihoods(model, requests, 512, way=way) for way in WAYS}
    for values in found.values():
        assert (values[:, 0] != values[:, 1]).all()
    assert (found["packed"] - found["padded"]).max() < 0.1


def test_the_prefix_is_not_copied_for_each_row():
    model, seen = build("llama"), []
    requests = build_requests(prompts() * 20, tiny_tokenizer())
    real = attention.attend

    def spy(query, own, prefix, view, **options):
        if prefix is None:  # the prefix itself is read
            return real(query, own, prefix, view, **options)
        seen.append((prefix[0].shape, prefix[0].untyped_storage().nbytes(), len(view.keys)))
        return real(query, own, prefix, view, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention, "attend", spy)
        log_likelihoods(model, requests, 10_000, way="packed")
    for shape, size, rows in seen:
        assert rows > 1
        assert size == 4 * shape.numel()


@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox"])
def test_choices_equal_a_plain_loop_when_clipped(family):
    model, tokenizer = build(family), tiny_tokenizer(add_bos=True)
    requests = build_requests(choices(), tokenizer)
    before = log_likelihoods(model, requests, 512)
    with clip(model, [Edit(1, "mlp", 0.9)]):
        expected = [by_hand(model, tokenizer, prompt) for prompt in choices()]
        for way in every_way(model):
            assert log_likelihoods(model, requests, 512, way=way).tolist() == [
                pytest.approx(row, abs=1e-4) for row in expected
            ]
    assert abs(before - expected).max() > 1e-3


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dtype", ["float64", "bfloat16", "float16"])
def test_every_dtype_equals_its_own_plain_forward(family, dtype):
    model = build(family).to(getattr(torch, dtype))
    # torch's grouped product of experts wants sizes that are multiples of 16 bytes, which tiny
    # models have not
    model.set_experts_implementation("eager")
    requests = build_requests(few(), tiny_tokenizer())
    tokens = np.array([[len(c.tokens) for c in found] for found in requests.continuations])
    plain = read_plainly(model, requests.without_prefix()).values
    for way in every_way(model):
        assert (
            abs(log_likelihoods(model, requests, 512, way=way) - plain) <= TOLERANCE[dtype] * tokens
        ).all()


@pytest.mark.parametrize("family", ["llama", "gpt2", "opt", "bloom", "gptj"])
@pytest.mark.parametrize("side", ["left", "right"])
@torch.no_grad()
def test_equals_a_batch_that_transformers_pads_on_either_side(family, side):
    model, tokenizer = build(family), tiny_tokenizer()
    tokenizer.padding_side = side
    rows = [Prompt(p.id, p.context, (" yes",), 0) for p in prompts()]
    texts = [prompt.context + " yes" for prompt in rows]
    batch = tokenizer(texts, return_tensors="pt", padding=True)
    if (
        family == "gpt2"
    ):  # its positions are learned, and transformers does not shift them by itself
        batch["position_ids"] = (batch["attention_mask"].cumsum(-1) - 1).clamp(min=0)
    logits = model(**batch).logits.double().log_softmax(-1)
    found = log_likelihoods(model, build_requests(rows, tokenizer), 512)
    for row, (ids, mask) in enumerate(
        zip(batch["input_ids"], batch["attention_mask"], strict=True)
    ):
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
        (c.row, c.start + i)
        for found in requests.continuations
        for c in found
        for i in range(len(c.tokens))
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


def test_uniform_logits_give_the_log_of_the_vocabulary():
    model = build("llama")
    with torch.no_grad():
        model.lm_head.weight.zero_()
    requests = build_requests([Prompt("a", "x", (" y", " z"), 0)], tiny_tokenizer())
    tokens = [len(c.tokens) for c in requests.continuations[0]]
    expected = [-n * math.log(model.config.vocab_size) for n in tokens]
    assert log_likelihoods(model, requests, 9)[0].tolist() == pytest.approx(expected, abs=1e-4)
