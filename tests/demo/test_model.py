from __future__ import annotations

import json
from random import Random

import episodes
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from eckart.demo import MODEL, corpus

ROWS, SHOTS = 60, 10


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(MODEL)


@pytest.fixture(scope="module")
def model():
    return AutoModelForCausalLM.from_pretrained(MODEL).eval()


def test_the_model_is_small_and_its_recipe_lies_beside_it():
    assert sum(path.stat().st_size for path in MODEL.iterdir()) < 8e6
    recipe = json.loads((MODEL / "recipe.json").read_text(encoding="utf-8"))
    assert {"seed", "steps"} <= set(recipe["arguments"])


def test_the_tokenizer_keeps_any_text_and_begins_with_its_mark(tokenizer):
    text = "text: héllo ☃ 漢字\n\n  x\ty\nlabel: zig\n"
    tokens = tokenizer.encode(text)
    assert tokens[0] == tokenizer.bos_token_id
    assert tokenizer.decode(tokens[1:]) == text


def test_every_word_with_its_space_is_one_token(tokenizer):
    assert all(
        len(tokenizer.encode(f" {w}", add_special_tokens=False)) == 1 for w in episodes.vocabulary()
    )


@pytest.mark.parametrize("task", ["mood", "topic"])
def test_it_learns_from_the_demonstrations(model, tokenizer, task):
    words = list(corpus.tasks()[task].labels.values())
    without = accuracy(model, tokenizer, task, shots=0, shown=words)
    assert without < 1 / len(words) + 0.1
    assert accuracy(model, tokenizer, task, shots=SHOTS, shown=words) > without + 0.2


def test_it_follows_the_words_that_are_shown(model, tokenizer):
    words = list(corpus.tasks()["mood"].labels.values())
    assert accuracy(model, tokenizer, "mood", shots=SHOTS, shown=words[::-1]) < 0.3


@torch.inference_mode()
def accuracy(model, tokenizer, task, *, shots, shown):
    """Return the share of test rows that get their class's word, after demonstrations that show
    `shown` instead."""
    words = list(corpus.tasks()[task].labels.values())
    renamed = dict(zip(words, shown, strict=True))
    train, rng, right = corpus.rows(task, "train", 100), Random(0), 0
    for row in corpus.rows(task, "test", ROWS):
        rows = tuple((r["text"], renamed[r["label"]]) for r in rng.sample(train, shots))
        prompt = episodes.Episode(("text", "label"), rows).render() + f"text: {row['text']}\nlabel:"
        logits = model(**tokenizer(prompt, return_tensors="pt")).logits[0, -1]
        choices = [tokenizer.encode(f" {word}", add_special_tokens=False)[0] for word in words]
        right += words[int(logits[choices].argmax())] == row["label"]
    return right / ROWS
