"""Tokens that the tokenizer has and the model has not are named before the model is asked for
them."""

import pytest
from families import VOCAB, build, save_family, tiny_tokenizer

import eckart
from eckart.errors import ModelError
from eckart.scoring.requests import vocabulary_size


@pytest.fixture
def larger(tmp_path):
    folder = save_family("llama", tmp_path / "llama")
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens([f"<|extra{i}|>" for i in range(VOCAB - len(tokenizer))] + ["<|verdict|>"])
    tokenizer.save_pretrained(folder)
    return folder


def task(table, template):
    return eckart.Task.load(data=table, template=template, label_column="verdict", shots=1)


@pytest.mark.parametrize(
    "template", ["{{ review }}\n<|verdict|>", "<|verdict|>{{ review }}\nverdict:"]
)
def test_a_token_that_was_added_to_the_tokenizer_alone(larger, table, template):
    with pytest.raises(
        ModelError, match=rf"embeddings for {VOCAB} tokens.*token {VOCAB} .*verdict"
    ):
        eckart.evaluate(larger, task(table, template))
    with pytest.raises(ModelError, match=r"added to the tokenizer alone"):
        eckart.sweep(str(larger), task(table, template), layers=[0], rates=[0.5])


def test_a_label_word_that_the_model_has_no_token_for(larger, table):
    labelled = eckart.Task.load(
        data=table,
        text_column="review",
        label_column="verdict",
        shots=0,
        labels={"good": "<|verdict|>", "bad": "bad"},
    )
    with pytest.raises(ModelError, match="verdict"):
        eckart.evaluate(larger, labelled)


def test_tokens_that_no_row_uses_are_no_matter(larger, table):
    eckart.evaluate(larger, task(table, "{{ review }}\nverdict:"))


@pytest.mark.parametrize("family", ["llama", "gpt2", "opt"])
def test_the_size_is_the_embeddings(family):
    assert vocabulary_size(build(family)) == VOCAB
