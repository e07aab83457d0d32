"""A model is causal if a later token leaves earlier outputs as they were; what it is called does
not count."""

import pytest
import torch
import transformers as hf
from families import COMMON, DECODER, FAMILIES, GROUPED, build, fill_, tiny_tokenizer
from transformers import PreTrainedModel

from eckart.errors import ModelError
from eckart.weights.loading.live import check_causal
from eckart.weights.models import load_model

SMALL = {**DECODER, "intermediate_size": 44}
ENCODERS = {
    "bert": lambda: hf.BertLMHeadModel(hf.BertConfig(**SMALL)),
    "roberta": lambda: hf.RobertaForCausalLM(hf.RobertaConfig(**SMALL)),
    "electra": lambda: hf.ElectraForCausalLM(hf.ElectraConfig(**SMALL, embedding_size=32)),
    "xlnet": lambda: hf.XLNetLMHeadModel(
        hf.XLNetConfig(**COMMON, d_model=32, n_layer=2, n_head=4, d_inner=44)
    ),
    "xlm": lambda: hf.XLMWithLMHeadModel(
        hf.XLMConfig(**COMMON, emb_dim=32, n_layers=2, n_heads=4, n_langs=1)
    ),
    "gemma3": lambda: hf.Gemma3ForCausalLM(
        hf.Gemma3TextConfig(**GROUPED, head_dim=12, use_bidirectional_attention=True)
    ),
    "llama": lambda: hf.LlamaForCausalLM(hf.LlamaConfig(**GROUPED, is_causal=False)),
}
DECODERS = {
    "bert": lambda: hf.BertLMHeadModel(hf.BertConfig(**SMALL, is_decoder=True)),
    "mamba": lambda: hf.MambaForCausalLM(
        hf.MambaConfig(**COMMON, hidden_size=32, num_hidden_layers=2)
    ),
    "short": lambda: hf.GPT2LMHeadModel(
        hf.GPT2Config(**COMMON, n_embd=32, n_layer=2, n_head=4, n_positions=6)
    ),
}


def made(build_one, dtype=torch.float32) -> PreTrainedModel:
    torch.manual_seed(0)
    model = build_one().eval()
    fill_(model)
    return model.to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", ENCODERS)
def test_what_sees_later_tokens_is_refused(kind, dtype):
    model = made(ENCODERS[kind], dtype)
    with pytest.raises(ModelError, match=f"'{kind}'.*not a causal decoder.*encoder"):
        check_causal(model, kind)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_encoder_that_was_never_trained_hardly_moves_and_is_refused(dtype):
    torch.manual_seed(0)
    with pytest.raises(ModelError, match="not a causal decoder"):
        check_causal(ENCODERS["bert"]().eval().to(dtype), "bert")


@pytest.mark.parametrize("kind", DECODERS)
def test_what_does_not_is_taken(kind):
    check_causal(made(DECODERS[kind]), kind)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_causal(family, dtype):
    check_causal(build(family).to(dtype), family)


class TestLoading:
    def test_a_checkpoint(self, tmp_path):
        made(ENCODERS["bert"]).save_pretrained(tmp_path)
        tiny_tokenizer().save_pretrained(tmp_path)
        with pytest.raises(ModelError, match="not a causal decoder"):
            load_model(tmp_path)

    def test_a_live_model(self):
        with pytest.raises(ModelError, match="not a causal decoder"):
            load_model(made(ENCODERS["electra"]), tokenizer=tiny_tokenizer())

    def test_a_live_encoder_decoder(self):
        sizes = {"d_model": 32, "d_kv": 8, "d_ff": 44, "num_layers": 2, "num_heads": 4}
        model = hf.T5ForConditionalGeneration(hf.T5Config(vocab_size=304, **sizes)).eval()
        with pytest.raises(ModelError, match="encoder-decoder"):
            load_model(model, tokenizer=tiny_tokenizer())

    def test_weights_that_are_no_numbers_are_left_to_the_scorer(self):
        model = build("llama")
        model.model.layers[0].mlp.up_proj.weight.data[0, 0] = torch.nan
        check_causal(model, "llama")
