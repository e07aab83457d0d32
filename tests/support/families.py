"""Tiny random models, one a family, and a tiny tokenizer: no network, deterministic.

Sizes differ on purpose (hidden, intermediate, key-value heads, head size), and every bias and norm
is random, so that a matrix that is read the wrong way round or cut in the wrong place shows in the
outputs.
"""

from __future__ import annotations

import copy
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch
import transformers as hf
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerFast

BOS, EOS, PAD = "<bos>", "<eos>", "<pad>"
MERGES = (
    "Ġt he Ġa in re on Ġs er at en it is or es an ed is ing the The and Ġthe Ġis Ġand Ġw Ġb Ġgood"
    " Ġbad"
)
VOCAB, HIDDEN, LAYERS, POSITIONS = 304, 32, 3, 2048
COMMON = {"vocab_size": VOCAB, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
DECODER = {
    **COMMON,
    "hidden_size": HIDDEN,
    "intermediate_size": 44,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "max_position_embeddings": POSITIONS,
}
GROUPED = {**DECODER, "num_key_value_heads": 2}  # two query heads share a key head
LONG = {
    **GROUPED,
    "max_position_embeddings": 1 << 17,
}  # more than what their rotary embeddings are scaled from
GPT = {**COMMON, "n_embd": HIDDEN, "n_layer": LAYERS, "n_head": 4, "n_positions": POSITIONS}
NEO = {
    "hidden_size": HIDDEN,
    "num_layers": LAYERS,
    "num_heads": 4,
    "intermediate_size": 44,
    "max_position_embeddings": POSITIONS,
    "window_size": 16,
    "attention_types": [[["global", "local", "global"], 1]],
}
FALCON = {
    **COMMON,
    "hidden_size": HIDDEN,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "bias": True,
}
MOE = {**GROUPED, "num_experts_per_tok": 2, "moe_intermediate_size": 20}
VISION = {
    "hidden_size": 24,
    "intermediate_size": 28,
    "num_hidden_layers": (
        5
    ),  # more than the text model's, so that the longest list is not the decoder
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}


def _of(kind: str, model: str | None = None, **settings: Any) -> Callable[[], PreTrainedModel]:
    """Return a function that builds `<kind>ForCausalLM`, or `model`, from `<kind>Config`."""

    def build_one() -> PreTrainedModel:
        return getattr(hf, model or f"{kind}ForCausalLM")(getattr(hf, f"{kind}Config")(**settings))

    return build_one


FAMILIES: dict[str, Callable[[], PreTrainedModel]] = {
    "llama": _of("Llama", **GROUPED, attention_bias=True, mlp_bias=True),
    "mistral": _of("Mistral", **GROUPED, sliding_window=16),
    "qwen2": _of("Qwen2", **GROUPED, tie_word_embeddings=True),
    "qwen3": _of("Qwen3", **GROUPED, head_dim=12),
    "gemma": _of("Gemma", **{**GROUPED, "num_key_value_heads": 1}, head_dim=12),
    "gemma2": _of("Gemma2", **GROUPED, head_dim=12, query_pre_attn_scalar=12, sliding_window=16),
    "gemma3": _of(
        "Gemma3Text",
        "Gemma3ForCausalLM",
        **GROUPED,
        head_dim=12,
        query_pre_attn_scalar=12,
        sliding_window=16,
    ),
    "phi": _of("Phi", **GROUPED),
    "phi3": _of("Phi3", **GROUPED),
    "olmo": _of("Olmo", **GROUPED),
    "olmo2": _of("Olmo2", **GROUPED),
    "granite": _of(
        "Granite", **GROUPED, attention_bias=True, embedding_multiplier=2.0, residual_multiplier=0.7
    ),
    "stablelm": _of("StableLm", **GROUPED, use_qkv_bias=True),
    "smollm3": _of("SmolLM3", **GROUPED),
    "starcoder2": _of("Starcoder2", **GROUPED, sliding_window=16),
    "cohere": _of("Cohere", **GROUPED, logit_scale=1.0),
    "gpt2": _of("GPT2", "GPT2LMHeadModel", **GPT, n_inner=44),
    "gptj": _of("GPTJ", **GPT, n_inner=44, rotary_dim=4, tie_word_embeddings=False),
    "gpt_neo": _of("GPTNeo", **COMMON, **NEO),
    "gpt_neox": _of("GPTNeoX", **DECODER),
    "gpt_bigcode": _of("GPTBigCode", **GPT, n_inner=44, multi_query=True),
    "gpt_bigcode_per_head": _of("GPTBigCode", **GPT, n_inner=44, multi_query=False),
    "opt": _of("OPT", **{**DECODER, "ffn_dim": 44}),
    "bloom": _of("Bloom", **COMMON, hidden_size=HIDDEN, n_layer=LAYERS, n_head=4),
    "mpt": _of(
        "Mpt",
        **COMMON,
        d_model=HIDDEN,
        n_layers=LAYERS,
        n_heads=4,
        expansion_ratio=2,
        max_seq_len=POSITIONS,
    ),
    "falcon_new": _of(
        "Falcon", **FALCON, new_decoder_architecture=True, num_kv_heads=2, ffn_hidden_size=44
    ),
    "falcon_multi_query": _of("Falcon", **FALCON, multi_query=True, ffn_hidden_size=44),
    "falcon_per_head": _of("Falcon", **FALCON, multi_query=False, alibi=True, ffn_hidden_size=44),
    "mixtral": _of("Mixtral", **GROUPED, num_local_experts=4),
    "qwen2_moe": _of(
        "Qwen2Moe", **MOE, num_experts=4, shared_expert_intermediate_size=28, mlp_only_layers=[0]
    ),
    "qwen3_moe": _of("Qwen3Moe", **MOE, num_experts=4, head_dim=12),
    "gemma3_vision": _of(
        "Gemma3",
        "Gemma3ForConditionalGeneration",
        text_config={**GROUPED, "head_dim": 12, "sliding_window": 16},
        vision_config=VISION,
        mm_tokens_per_image=4,
        image_token_index=3,
        boi_token_index=4,
        eoi_token_index=5,
    ),
}

MORE_FAMILIES: dict[str, Callable[[], PreTrainedModel]] = {  # for the anatomy's own suite
    "apertus": _of("Apertus", **LONG),
    "arcee": _of("Arcee", **GROUPED),
    "biogpt": _of("BioGpt", **DECODER),
    "cohere_norms": _of("Cohere", **GROUPED, use_qk_norm=True),
    "cohere2": _of("Cohere2", **GROUPED, logit_scale=1.0),
    "ernie4_5": _of("Ernie4_5", **GROUPED, head_dim=12),
    "exaone4": _of("Exaone4", **GROUPED, sliding_window=16),
    "glm": _of("Glm", **GROUPED, head_dim=12, attention_bias=True),
    "glm4": _of("Glm4", **GROUPED, head_dim=12, attention_bias=True),
    "gpt_oss": _of("GptOss", **LONG, head_dim=12, num_local_experts=4, num_experts_per_tok=2),
    "helium": _of("Helium", **GROUPED, head_dim=8),
    "hunyuan_v1_dense": _of("HunYuanDenseV1", **GROUPED, head_dim=12),
    "ministral": _of("Ministral", **GROUPED, head_dim=12, sliding_window=16),
    "nemotron": _of("Nemotron", **GROUPED),
    "olmo3": _of("Olmo3", **GROUPED, sliding_window=16),
    "olmoe": _of("Olmoe", **GROUPED, num_experts=4, num_experts_per_tok=2),
    "persimmon": _of("Persimmon", **DECODER),
    "seed_oss": _of("SeedOss", **GROUPED, head_dim=12),
    "xglm": _of("XGLM", **COMMON, d_model=HIDDEN, ffn_dim=44, num_layers=LAYERS, attention_heads=4),
}


def _scaled(kind: str, **settings: Any) -> dict[str, Any]:
    """Return rotary parameters of a kind."""
    return {"rope_type": kind, "rope_theta": 10000.0, **settings}


SWITCH = 64
"""Where the models below read longer rows otherwise than shorter ones."""

FACTORS = {
    "short_factor": [1.0] * 4,
    "long_factor": [8.0] * 4,
    "factor": POSITIONS / SWITCH,
    "original_max_position_embeddings": SWITCH,
}
LLAMA4 = {
    **MOE,
    "intermediate_size_mlp": 44,
    "head_dim": 8,
    "num_local_experts": 4,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
}

SWITCHING: dict[
    str, Callable[[], PreTrainedModel]
] = {  # what a forward decides by length: rows on either side differ
    "longrope": _of(
        "Phi3",
        **GROUPED,
        original_max_position_embeddings=SWITCH,
        rope_parameters=_scaled("longrope", **FACTORS),
    ),
    "longrope_scaled": _of(
        "Phimoe",
        **GROUPED,
        num_local_experts=4,
        rope_parameters=_scaled("longrope", **FACTORS, short_mscale=1.1, long_mscale=1.3),
    ),
    "dynamic_ntk": _of(
        "Llama",
        **{**GROUPED, "max_position_embeddings": SWITCH},
        rope_parameters=_scaled("dynamic", factor=4.0),
    ),
    "window": _of("Mistral", **GROUPED, sliding_window=SWITCH),
    "window_not_handed_on": _of(
        "Qwen2Moe",
        **MOE,
        num_experts=4,
        shared_expert_intermediate_size=28,
        use_sliding_window=True,
        max_window_layers=1,
        sliding_window=SWITCH,
    ),
    "chunks": _of("Llama4Text", "Llama4ForCausalLM", **LLAMA4, attention_chunk_size=SWITCH),
    "scaled_logits": _of(
        "Llama4Text",
        "Llama4ForCausalLM",
        **LLAMA4,
        attention_chunk_size=POSITIONS,
        no_rope_layers=[1, 0, 1],
        attn_temperature_tuning=True,
        floor_scale=SWITCH,
        attn_scale=0.5,
    ),
    "scaled_logits_by_position": _of(
        "Ministral3",
        **GROUPED,
        head_dim=8,
        rope_parameters=_scaled(
            "yarn",
            factor=POSITIONS / SWITCH,
            original_max_position_embeddings=SWITCH,
            llama_4_scaling_beta=0.5,
        ),
    ),
}


def build(name: str, *, seed: int = 0) -> PreTrainedModel:
    """Return a fresh random model of a family: float32, evaluation mode, the same for the same
    seed. A copy is made in half the time of a model."""
    return copy.deepcopy(_built(name, seed))


@cache
def _built(name: str, seed: int) -> PreTrainedModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = (FAMILIES | MORE_FAMILIES | SWITCHING)[name]()
    fill_(model, seed=seed)
    return model.eval()


@torch.no_grad()
def fill_(model: PreTrainedModel, *, seed: int = 0) -> None:
    """Give every parameter random values: a matrix keeps the size of its input, a vector moves a
    little."""
    for name, parameter in model.named_parameters():
        generator = torch.Generator().manual_seed(seed + zlib.crc32(name.encode()))
        noise = torch.randn(parameter.shape, generator=generator)
        if parameter.ndim == 1:
            parameter.add_(0.2 * noise)
        else:
            parameter.copy_(noise / HIDDEN**0.5)


def tiny_tokenizer(*, add_bos: bool = False) -> PreTrainedTokenizerFast:
    """Return a byte-level BPE tokenizer with a few merges: any text round-trips, common words are
    one token.

    Arguments:
        add_bos: put `<bos>` in front of every text that is encoded with special tokens, as Llama's
            does.
    """
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces, merges = [BOS, EOS, PAD, *alphabet], []
    for word in MERGES.split():
        left = word[0]
        for character in word[1:]:
            if (left, character) not in merges:
                merges.append((left, character))
                pieces.append(left + character)
            left += character
    tokenizer = Tokenizer(
        models.BPE(vocab={piece: i for i, piece in enumerate(pieces)}, merges=merges)
    )
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    if add_bos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{BOS} $A", pair=f"{BOS} $A $B", special_tokens=[(BOS, 0)]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        model_max_length=POSITIONS,
        clean_up_tokenization_spaces=False,
    )


def save_family(name: str, directory: str | Path, *, seed: int = 0) -> Path:
    """Write a family's tiny model and the tiny tokenizer as a local folder, laid out as on the
    hub."""
    folder = Path(directory)
    build(name, seed=seed).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def bits(model: PreTrainedModel) -> dict[str, Tensor]:
    """Return a copy of every byte of a model's state, by the names of its tensors."""
    return {
        name: tensor.flatten().clone().view(torch.uint8)
        for name, tensor in model.state_dict().items()
    }


def same_bits(model: PreTrainedModel, before: dict[str, Tensor]) -> bool:
    return all(torch.equal(tensor, before[name]) for name, tensor in bits(model).items())
