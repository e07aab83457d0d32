"""Tiny models as GGUF files, laid out as llama.cpp's converter lays them out."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from families import FAMILIES, GPT, GROUPED, VOCAB, _of, fill_, tiny_tokenizer
from transformers import PreTrainedModel

SIZES = {**GROUPED, "intermediate_size": 64}  # rows of whole blocks of 32
GEMMA = {"head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": 16}
THETA = {"rope_type": "default", "rope_theta": 5e4}

MODELS: dict[str, Callable[[], PreTrainedModel]] = {
    "llama": _of("Llama", **SIZES, rope_parameters=THETA),
    "qwen2": _of("Qwen2", **SIZES, tie_word_embeddings=True),
    "qwen3": _of("Qwen3", **SIZES, head_dim=16),
    "gemma2": _of("Gemma2", **SIZES, **GEMMA),
    "phi3": _of("Phi3", **SIZES, sliding_window=16),
    "starcoder2": _of("Starcoder2", **SIZES, rope_parameters=THETA),
    "gpt2": _of("GPT2", "GPT2LMHeadModel", **GPT, n_inner=64),
}
assert MODELS.keys() <= FAMILIES.keys()


def build(family: str) -> PreTrainedModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = MODELS[family]()
    fill_(model)
    return model.eval()


def permuted(rows: np.ndarray, heads: int) -> np.ndarray:
    """Return the rows of q or k as llama.cpp's rotary positions want them."""
    return rows.reshape(heads, 2, -1, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


def tensors(model: PreTrainedModel) -> dict[str, np.ndarray]:
    """Return a model's tensors under the names, and in the layout, of a GGUF file."""
    config, family = model.config, model.config.model_type
    arch = next(a for a, name in gguf.MODEL_ARCH_NAMES.items() if name == family)
    names = gguf.get_tensor_name_map(arch, config.num_hidden_layers)
    tied = config.tie_word_embeddings
    found = {}
    for path, tensor in model.state_dict().items():
        if tied and path == "lm_head.weight":
            continue
        stem, _, leaf = path.rpartition(".")
        name = f"{names.get_name(stem)}.{leaf}"
        numbers = tensor.float().numpy()
        if family == "llama" and ".attn_q." in name:
            numbers = permuted(numbers, config.num_attention_heads)
        if family == "llama" and ".attn_k." in name:
            numbers = permuted(numbers, config.num_key_value_heads)
        if family == "gemma2" and name.endswith("norm.weight"):
            numbers = numbers + 1
        if family == "gpt2" and numbers.ndim == 2 and path.startswith("transformer.h"):
            numbers = numbers.T
        found[name] = np.ascontiguousarray(numbers)
    return found


def write(
    path: Path,
    family: str = "llama",
    kind: str = "F32",
    *,
    model: PreTrainedModel | None = None,
    change: Callable[[gguf.GGUFWriter, dict[str, np.ndarray]], None] = lambda file, held: None,
    arch: str | None = None,
    tokens: str | None = "gpt2",
) -> Path:
    """Write a family's tiny model as a GGUF file.

    Arguments:
        path: the file.
        kind: what its matrices are stored as: F32, F16, Q8_0, Q4_0.
        model: another one of the family.
        change: is given the writer and the tensors before they are written.
        arch: another family's name, for a file that is not what it says.
        tokens: the kind of its tokenizer; None for a file that has none.
    """
    model = model or build(family)
    file = gguf.GGUFWriter(path, arch or family)
    _settings(file, model.config)
    if tokens is not None:
        _tokenizer(file, tokens)
    held = tensors(model)
    change(file, held)
    for name, numbers in held.items():
        whole = numbers.ndim == 1 or "position" in name
        stored = gguf.GGMLQuantizationType["F32" if whole else kind]
        packed = gguf.quantize(numbers, stored)
        file.add_tensor(name, packed, raw_dtype=stored)
    file.write_header_to_file()
    file.write_kv_data_to_file()
    file.write_tensors_to_file()
    file.close()
    return path


def _settings(file: gguf.GGUFWriter, config: Any) -> None:
    file.add_context_length(config.max_position_embeddings)
    file.add_embedding_length(config.hidden_size)
    file.add_block_count(config.num_hidden_layers)
    file.add_head_count(config.num_attention_heads)
    file.add_feed_forward_length(64)
    file.add_vocab_size(VOCAB)
    file.add_head_count_kv(getattr(config, "num_key_value_heads", config.num_attention_heads))
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    if config.model_type != "gpt2":
        file.add_rope_freq_base(config.rope_parameters["rope_theta"])
        file.add_rope_dimension_count(size)
    if config.model_type in ("qwen3", "gemma2"):
        file.add_key_length(size)
        file.add_value_length(size)
    if config.model_type in ("gemma2", "phi3"):
        file.add_sliding_window(config.sliding_window)
    for name in ("layer_norm_epsilon", "norm_epsilon"):
        if hasattr(config, name):
            file.add_layer_norm_eps(getattr(config, name))
    if hasattr(config, "rms_norm_eps"):
        file.add_layer_norm_rms_eps(config.rms_norm_eps)


def _tokenizer(file: gguf.GGUFWriter, kind: str) -> None:
    tokenizer = tiny_tokenizer()
    vocabulary = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().get)
    unused = [f"[PAD{number}]" for number in range(len(vocabulary), VOCAB)]
    kinds = [gguf.TokenType.CONTROL] * 3 + [gguf.TokenType.NORMAL] * (len(vocabulary) - 3)
    merges = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]
    file.add_tokenizer_model(kind)
    file.add_tokenizer_pre("gpt-2")
    file.add_token_list(vocabulary + unused)
    file.add_token_types(kinds + [gguf.TokenType.UNUSED] * len(unused))
    file.add_token_merges([" ".join(pair) for pair in merges])
    file.add_bos_token_id(0)
    file.add_eos_token_id(1)
    file.add_pad_token_id(2)
    file.add_add_bos_token(False)
