"""A model in memory is scored as its weights are, or refused in one line that says what to call
first."""

import pytest
import torch
from families import build, tiny_tokenizer
from torch import nn

import eckart
from eckart.errors import ModelError
from eckart.paper.functions.loading import load_function_model
from eckart.weights.models import load_model


def refused(model, *said):
    with pytest.raises(ModelError) as caught:
        load_model(model, tokenizer=tiny_tokenizer())
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 300
    assert all(words in message for words in said), message


@pytest.mark.parametrize("inner", [None, "lm_head", "model.layers.1.mlp"])
def test_a_model_in_training_mode_even_one_module_of_it(inner):
    model = build("llama")
    (model.get_submodule(inner) if inner else model).train()
    refused(model, "training mode", "model.eval()")
    assert any(module.training for module in model.modules())


@pytest.mark.parametrize("verb", [eckart.evaluate, eckart.search])
def test_every_verb_refuses_it(verb, table):
    task = eckart.Task.load(data=table, text_column="review", label_column="verdict", shots=1)
    with pytest.raises(ModelError, match=r"model\.eval\(\)"):
        verb(build("gpt2").train(), task, tokenizer=tiny_tokenizer())


def test_a_model_of_functions_in_training_mode():
    with pytest.raises(ModelError, match=r"model\.eval\(\)"):
        load_function_model(load_function_model("linear-5").train())


def test_a_compiled_model_is_the_one_inside_it():
    model = build("llama")
    assert (
        load_model(torch.compile(model, backend="eager"), tokenizer=tiny_tokenizer()).model is model
    )


def test_a_model_that_was_compiled_in_place():
    model = build("llama")
    model.compile(backend="eager")
    refused(model, "compiled in place")


@pytest.mark.parametrize(
    ("wrap", "said"), [(nn.DataParallel, "model.module"), (nn.Sequential, "PreTrainedModel")]
)
def test_a_wrapper_is_named_with_what_to_give_instead(wrap, said):
    wrapped = wrap(build("llama"))
    refused(wrapped.eval(), type(wrapped).__name__, said)


def test_an_adapter_in_the_model():
    model = build("llama")
    model._hf_peft_config_loaded = True
    refused(model, "adapter", "merge_and_unload")


def test_a_quantised_model():
    model = build("llama")
    model.config.quantization_config = {"quant_method": "hqq"}
    refused(model, "quantised (hqq)")
