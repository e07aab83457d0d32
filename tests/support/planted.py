"""A tiny Llama whose matrices hold task information in known singular directions, and noise in
others: which edits help is known, and by how much."""

from __future__ import annotations

import csv
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

HIDDEN, LAYERS = 16, 6
LABELS = ("bad", "good")
BIAS, LABEL, NOISE, TASK_OUT, NOISE_OUT = 0, 1, 2, 8, 9
"""Coordinates of the residual stream: a constant; what the label follows from; from `NOISE` on what
has nothing to do with it; and the two that the head reads."""


def save_planted(
    folder: Path, rows: int, noisy: tuple[int, ...] = (2, 4), flipped: float = 0.1, seed: int = 0
) -> tuple[Path, Path]:
    """Write a model and a table of rows whose last word says all.

    Every layer's `down` writes the label with its 5th singular value. Those of the noisy layers
    write something else with their 12th, so that a rate of 0.5, which leaves 8 of 16, takes the
    noise away and a rate of 0.9, which leaves one, the label too.

    Arguments:
        folder: a new one for the model, the table beside it.
        rows: how many rows, each of a word of its own.
        noisy: the layers that hold noise.
        flipped: the share of rows whose label is wrong.
        seed: draws words and labels.
    """
    draw = torch.Generator().manual_seed(seed)
    truth = torch.randint(2, (rows,), generator=draw)
    labels = torch.where(torch.rand(rows, generator=draw) < flipped, 1 - truth, truth)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=3 + rows,
            hidden_size=HIDDEN,
            intermediate_size=HIDDEN,
            num_hidden_layers=LAYERS,
            num_attention_heads=2,
            max_position_embeddings=64,
            tie_word_embeddings=False,
            bos_token_id=0,
            eos_token_id=0,
        )
    )
    with torch.no_grad():
        _plant(model, truth, noisy, draw)
    model.save_pretrained(folder)
    words = ["<end>", *LABELS, *(f"w{row}" for row in range(rows))]
    tokens = Tokenizer(
        models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<end>")
    )
    tokens.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=tokens, eos_token="<end>").save_pretrained(folder)
    table = folder.with_suffix(".csv")
    with table.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["review", "verdict"])
        writer.writerows([f"w{row}", LABELS[label]] for row, label in enumerate(labels.tolist()))
    return folder, table


def _plant(
    model: LlamaForCausalLM,
    truth: torch.Tensor,
    noisy: tuple[int, ...],
    draw: torch.Generator,
) -> None:
    rows, (bad, good) = len(truth), (1, 2)
    embeddings, head = model.model.embed_tokens.weight, model.lm_head.weight
    embeddings.zero_()
    embeddings[:, BIAS] = 1.0
    embeddings[3:, LABEL] = 0.12 * truth - 0.06
    embeddings[3:, NOISE : NOISE + LAYERS] = torch.randn(rows, LAYERS, generator=draw)
    head.zero_()
    for sign, label in ((-1.0, bad), (1.0, good)):
        head[label, TASK_OUT] = head[label, NOISE_OUT] = sign
    for number, layer in enumerate(model.model.layers):
        layer.self_attn.o_proj.weight.zero_()
        gate, up, down = (
            getattr(layer.mlp, f"{name}_proj").weight for name in ("gate", "up", "down")
        )
        gate.zero_(), up.zero_(), down.zero_()
        gate[:, BIAS] = 4.0
        up[0, LABEL] = 1.0
        up[1, NOISE + number] = 1.0
        values = torch.linspace(0.8, 0.05, HIDDEN)
        free = [axis for axis in range(HIDDEN) if axis not in (TASK_OUT, NOISE_OUT)]
        silent = iter(range(2, HIDDEN))  # features that are always zero
        for place, value in enumerate(values.tolist()):
            if place == 4:
                down[TASK_OUT, 0] = value
            elif place == 11 and number in noisy:
                down[NOISE_OUT, 1] = value
            elif free and (feature := next(silent, None)) is not None:
                down[free.pop(), feature] = value
