"""What a forward decides by the length of its batch is decided for each row: rows on both sides of
each switch."""

import copy
import logging

import numpy as np
import pytest
import torch
from families import FAMILIES, SWITCH, SWITCHING, build, tiny_tokenizer
from transformers.activations import ACT2FN

from eckart.errors import ModelError
from eckart.records import Edit
from eckart.scoring.forward.fastest import CheckedReader, Readers, reader_kinds
from eckart.scoring.forward.packed import Packed
from eckart.scoring.forward.patches import Lengths, fused_activations
from eckart.scoring.forward.plain import Alone, read_plainly, sample_of
from eckart.scoring.forward.states import StateStore
from eckart.scoring.forward.trunk import Trunk
from eckart.scoring.requests import build_requests
from eckart.tasks.prompts import Prompt
from eckart.weights.anatomy import Anatomy
from eckart.weights.edits import clip

LABELS = (" no", " maybe not, who can say of it")
PACKED = ("longrope", "dynamic_ntk", "window")
"""Those that the fastest way reads right, each row in its own regime."""
ROTARY = ("longrope", "longrope_scaled", "dynamic_ntk")


@pytest.fixture(autouse=True)
def quiet(caplog):
    """The model library warns of settings that tiny models have."""
    caplog.set_level(logging.CRITICAL)


def prompts(shots: bool) -> list[Prompt]:
    """Rows from well below the switch to well above it, and some whose labels end on either
    side."""
    shown = "the bed is good yes\nthe inn no\n" if shots else ""
    words = ["the", "food", "is", "good", "and", "the", "view", "is", "bad", "and", "edited"]
    return [
        Prompt(f"test:{n}", shown + " ".join((words * 4)[:n]), LABELS, n % 2)
        for n in (2, 5, 8, 9, 10, 11, 20, 33)
    ]


def readers_of(model):
    try:
        trunk = Trunk(Anatomy.of(model))
    except ModelError:  # it can be scored, and not clipped
        trunk = None
    return Readers(model, 256, trunk, StateStore(1 << 30), StateStore(1 << 30))


@torch.no_grad()
def by_hand(model, requests):
    """Score each continuation by a pass of its own through a model that has read nothing before."""
    found = []
    for choices in requests.without_prefix().continuations:
        values = []
        for c in choices:
            row = [*requests.prefix, *requests.rows[c.row]][: c.start + len(c.tokens)]
            logits = copy.deepcopy(model)(torch.tensor([row])).logits[0].double().log_softmax(-1)
            values.append(
                sum(float(logits[c.start + i, token]) for i, token in enumerate(c.tokens))
            )
        found.append(values)
    return np.array(found)


@pytest.mark.filterwarnings("ignore:.*(rows are read|candidates run)")
@pytest.mark.parametrize("shots", [True, False])
@pytest.mark.parametrize("family", SWITCHING)
def test_rows_on_both_sides_of_a_switch_equal_a_plain_loop(family, shots):
    model, tokenizer = build(family), tiny_tokenizer(add_bos=True)
    readers = readers_of(model)
    requests = build_requests(prompts(shots), tokenizer, regime=readers.lengths.regime)
    lengths = [requests.length(row) for row in range(len(requests.rows))]
    assert min(lengths) < SWITCH < max(lengths)
    expected = by_hand(model, requests)
    assert np.allclose(read_plainly(model, requests.without_prefix()).values, expected, atol=1e-4)
    rows = CheckedReader(readers, requests, "test")
    point = readers.trunk.point([Edit(1, "mlp", 0.5)]) if readers.trunk else None
    points = frozenset([point] if point else [])
    assert np.allclose(rows.sums(None, points, lambda done: None)[0], expected, atol=1e-4)
    part = rows.part([1, 4, 7])
    assert np.allclose(
        part.sums(None, points, lambda done: None)[0], expected[[1, 4, 7]], atol=1e-4
    )
    if point is None:
        return
    with clip(model, [Edit(1, "mlp", 0.7)]):
        clipped = by_hand(model, requests)
        assert not np.allclose(clipped, expected, atol=1e-2)
        assert np.allclose(rows.sums(point, points, lambda done: None)[0], clipped, atol=1e-4)
        assert np.allclose(
            Alone(model, requests.without_prefix(), 1).log_likelihoods(), clipped, atol=1e-4
        )


@pytest.mark.parametrize("family", PACKED)
def test_regimes_are_read_in_the_fastest_way(family):
    model = build(family)
    readers = readers_of(model)
    requests = build_requests(prompts(True), tiny_tokenizer(), regime=readers.lengths.regime)
    # no warning, either: those are errors here
    assert isinstance(CheckedReader(readers, requests, "test").reader, Packed)


@pytest.mark.parametrize("family", ROTARY)
def test_the_check_has_a_row_on_each_side_of_a_switch(family):
    lengths = Lengths(build(family))
    requests = build_requests(prompts(False), tiny_tokenizer(), regime=lengths.regime)
    chosen = requests.subset(sample_of(requests, lengths)[0])
    found = [chosen.length(row) for row in range(len(chosen.rows))]
    assert len({lengths.regime(length) for length in found}) > 1


@pytest.mark.parametrize("family", ROTARY)
def test_a_way_that_mixes_rows_of_both_sides_is_found_out(family, monkeypatch):
    monkeypatch.setattr(Lengths, "regime", lambda self, length: b"")
    model = build(family)
    readers = readers_of(model)
    requests = build_requests(prompts(False), tiny_tokenizer())
    with pytest.warns(UserWarning, match="one by one"):
        rows = CheckedReader(readers, requests, "test")
    assert isinstance(rows.reader, Alone)


def test_a_row_serves_continuations_of_one_regime_alone():
    prompt = Prompt("test:0", "the food is good", (" the", " the" * 9), 0)
    lengths = Lengths(build("longrope"))
    assert next(n for n in range(1, 99) if lengths.regime(n) != lengths.regime(1)) == SWITCH + 1
    assert len(build_requests([prompt], tiny_tokenizer(), regime=lengths.regime).rows) == 1
    (whole,) = build_requests([prompt], tiny_tokenizer()).rows
    assert (
        len(build_requests([prompt], tiny_tokenizer(), regime=lambda n: n > len(whole)).rows) == 2
    )


@pytest.mark.parametrize("family", [*FAMILIES])
def test_models_without_a_switch_have_one_regime_and_are_left_as_they_were(family):
    model = build(family)
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    assert not Lengths(model).several(range(1, 2000))
    for name, buffer in model.named_buffers():
        assert torch.equal(buffer, before[name])


def test_a_dynamic_model_forgets_the_longest_row_that_it_has_read():
    """transformers keeps the frequencies of the longest batch so far, so that what is read before
    changes a row."""
    model, lengths = build("dynamic_ntk"), None
    ids = torch.arange(6, 6 + SWITCH + 8)[None]
    with torch.no_grad():
        fresh = copy.deepcopy(model)(ids).logits
        model(torch.arange(6, 6 + 4 * SWITCH)[None])
        assert not torch.allclose(model(ids).logits, fresh, atol=1e-3)
        lengths = Lengths(model)
        with lengths.pinned(None):
            assert torch.allclose(model(ids).logits, fresh, atol=1e-5)


def test_the_last_way_is_certain_and_no_other_is():
    model = build("llama")
    assert [
        kind.certain for kind in reader_kinds(model, 64, Trunk(Anatomy.of(model)), Lengths(model))
    ] == [
        False,
        False,
        False,
        True,
    ]


@pytest.mark.parametrize("activation", ["gelu_new", "gelu_fast"])
def test_an_activation_in_one_step_is_that_in_several(activation):
    model = build("gpt2")
    model.transformer.h[0].mlp.act = ACT2FN[activation]
    inputs = torch.linspace(-8, 8, 1001, dtype=torch.float64)
    act = model.transformer.h[0].mlp.act
    expected = act(inputs)
    with fused_activations(model):
        assert act.forward.func is torch.nn.functional.gelu
        assert torch.allclose(
            act(inputs), expected, rtol=0, atol=1e-9
        )  # gelu_fast has its constant to 10 digits
    assert "forward" not in act.__dict__
