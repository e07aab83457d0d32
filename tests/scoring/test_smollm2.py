"""A real pretrained decoder: what is read of it is what a plain loop over transformers reads, to
1e-4 nats."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from eckart import Edit, Task
from eckart.scoring.evaluator import Evaluator
from eckart.weights.models import load_model

CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
EDITS = {
    "unpruned": (),
    "a deep mlp": (Edit(26, "mlp", 0.95),),
    "a low attention": (Edit(1, "attn", 0.9),),
    "two at once": (Edit(14, "mlp", 0.5), Edit(29, "attn", 0.75)),
}
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


@torch.no_grad()
def clipped_by_hand(folder: Path, edits):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    for edit in edits:
        for name in MATRICES[edit.part]:
            weight = model.get_submodule(f"model.layers.{edit.layer}.{name}").weight
            u, s, vt = torch.linalg.svd(weight.double(), full_matrices=False)
            rank = max(1, int((1 - edit.rate) * len(s) + 1e-9))
            weight.copy_((u[:, :rank] * s[:rank]) @ vt[:rank])
    return model


@torch.no_grad()
def by_hand(model, tokenizer, prompt, mean):
    """Score each continuation in a pass of its own; what is scored begins where any of the texts
    parts."""
    rows = [tokenizer(prompt.context + text)["input_ids"] for text in prompt.continuations]
    context = tokenizer(prompt.context)["input_ids"]
    start = next(
        i
        for i in range(len(context) + 1)
        if len({tuple(row[: i + 1]) for row in [context, *rows]}) > 1
    )
    found = []
    for row in rows:
        logits = model(torch.tensor([row]), use_cache=False).logits[0].double().log_softmax(-1)
        values = [float(logits[i - 1, row[i]]) for i in range(start, len(row))]
        found.append(np.mean(values) if mean else np.sum(values))
    return found


@pytest.mark.parametrize("edits", EDITS.values(), ids=EDITS)
def test_rows_equal_a_plain_loop(smollm2, shared, edits):
    tokenizer, model = AutoTokenizer.from_pretrained(smollm2), clipped_by_hand(smollm2, edits)
    ours = load_model(smollm2, dtype="float32", device="cpu")
    for name in ("sst2", "rte", "copa"):
        task = Task.load(name, data=shared / "data" / name, shots=2, split_sizes=(6, 6))
        found = Evaluator(ours, task)(edits, "validation").labelled.log_likelihoods
        expected = [
            by_hand(model, tokenizer, prompt, task.kind == "choices")
            for prompt in task.prompts("validation")
        ]
        assert np.abs(np.array(found) - np.array(expected)).max() < 1e-4, name


def test_no_edit_in_bfloat16_is_taken_for_a_way_that_does_not_agree(smollm2, shared):
    """Warnings are errors here. The whole grid, every layer at five rates, is a command of
    docs/performance.md."""
    task = Task.load("sst2", data=shared / "data" / "sst2", shots=0, split_sizes=(8, 8))
    scorer = Evaluator(load_model(smollm2, dtype="bfloat16", device="cpu"), task)
    edits = [Edit(layer, part, 0.995) for layer in (0, 1, 15, 29) for part in ("mlp", "attn")]
    for trial in scorer.score([(), *((edit,) for edit in edits)], "validation"):
        assert trial.score is not None
