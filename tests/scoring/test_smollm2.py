"""A real pretrained decoder: what is read of it is what a plain loop over transformers reads, to
1e-4 nats."""

import os
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from eckart import Edit, Task
from eckart.scoring.evaluator import Evaluator
from eckart.weights.models import load_model

CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
EDITS = [
    (),
    (Edit(26, "mlp", 0.95),),
    (Edit(1, "attn", 0.9),),
    (Edit(14, "mlp", 0.5), Edit(29, "attn", 0.75)),
]
MATRICES = {
    "attn": [f"self_attn.{name}_proj" for name in "qkvo"],
    "mlp": [f"mlp.{name}_proj" for name in ("gate", "up", "down")],
}


@pytest.fixture(scope="module")
def smollm2() -> Path:
    folder = CACHE / "eckart-models" / "smollm2-135m-instruct"
    if not (folder / "config.json").is_file():
        pytest.skip(f"no SmolLM2-135M-Instruct at {folder}")
    return folder


@pytest.fixture(scope="module")
def ours(smollm2):
    return load_model(smollm2, dtype="float32", device="cpu")


@pytest.fixture(scope="module")
def plain(smollm2):
    return AutoModelForCausalLM.from_pretrained(smollm2, dtype=torch.float32).eval()


@cache
def truncated(weight, rate):
    u, s, vt = torch.linalg.svd(weight.detach().double(), full_matrices=False)
    rank = max(1, int((1 - rate) * len(s) + 1e-9))
    return (u[:, :rank] * s[:rank]) @ vt[:rank]


@contextmanager
def clipped_by_hand(model, edits):
    changed = {}
    for edit in edits:
        for name in MATRICES[edit.part]:
            weight = model.get_submodule(f"model.layers.{edit.layer}.{name}").weight
            clipped = truncated(weight, edit.rate)
            changed[weight] = weight.detach().clone()
            weight.detach().copy_(clipped)
    yield
    for weight, before in changed.items():
        weight.detach().copy_(before)


@torch.no_grad()
def by_hand(model, tokenizer, prompt, mean):
    """Score each continuation in a pass of its own; what is scored begins where any of the texts
    parts. Its last token is not read, so labels of one token have one pass."""
    rows = [tokenizer(prompt.context + text)["input_ids"] for text in prompt.continuations]
    context = tokenizer(prompt.context)["input_ids"]
    start = next(
        i
        for i in range(len(context) + 1)
        if len({tuple(row[: i + 1]) for row in [context, *rows]}) > 1
    )
    read = {
        row: model(torch.tensor([row]), use_cache=False).logits[0, start - 1 :].double()
        for row in {tuple(row[:-1]) for row in rows}
    }
    found = []
    for row in rows:
        logits = read[tuple(row[:-1])].log_softmax(-1)
        values = [float(logits[i, token]) for i, token in enumerate(row[start:])]
        found.append(np.mean(values) if mean else np.sum(values))
    return found


@pytest.mark.parametrize(
    ("name", "edits"), [("sst2", EDITS), ("rte", EDITS[::3]), ("copa", EDITS[::3])]
)
def test_rows_equal_a_plain_loop(smollm2, ours, plain, some_rows, name, edits):
    """Clipped in several places, one after the other, from what the unpruned pass left."""
    task = Task.load(name, data=some_rows / name, shots=2, split_sizes=(2, 2))
    found = {trial.edits: trial for trial in Evaluator(ours, task).score(edits, "validation")}
    tokenizer = AutoTokenizer.from_pretrained(smollm2)
    for clipped in edits:
        with clipped_by_hand(plain, clipped):
            expected = [
                by_hand(plain, tokenizer, prompt, task.kind == "choices")
                for prompt in task.prompts("validation")
            ]
        values = np.array(found[clipped].score.log_likelihoods)
        assert np.abs(values - np.array(expected)).max() < 1e-4, clipped


def test_no_edit_in_bfloat16_is_taken_for_a_way_that_does_not_agree(smollm2, some_rows):
    """Warnings are errors here. The whole grid, every layer at five rates, is a command of
    docs/performance.md."""
    task = Task.load("sst2", data=some_rows / "sst2", shots=0, split_sizes=(2, 2))
    scorer = Evaluator(load_model(smollm2, dtype="bfloat16", device="cpu"), task)
    places = ((0, "mlp"), (1, "attn"), (15, "mlp"), (29, "attn"))
    edits = [Edit(layer, part, 0.995) for layer, part in places]
    for trial in scorer.score([(), *((edit,) for edit in edits)], "validation"):
        assert trial.score is not None
