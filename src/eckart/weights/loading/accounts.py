"""The accounts of a checkpoint: every tensor of its files is used, or named here as harmless,
or it is refused."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from itertools import pairwise
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor
from transformers import PreTrainedModel

from eckart.errors import ModelError
from eckart.weights.loading.config import MERGE_IT, UNQUANTISED
from eckart.weights.loading.files import FLOATS, StoredTensor

Shape = tuple[int, ...] | None


def _mask(shape: Shape) -> bool:
    """Whether a tensor is a table of which token sees which; a projection's bias is a vector."""
    return shape is None or (len(shape) == 4 and shape[:2] == (1, 1) and shape[2] == shape[3])


def _single(shape: Shape) -> bool:
    return shape in (None, (), (1,))


HARMLESS: dict[str, Callable[[Shape], bool]] = {
    # Rotary angles, computed from the configuration.
    r"(^|[._])(inv_freq|cos_cached|sin_cached|freqs_cis)$": lambda shape: True,
    r"(^|\.)rope\.freqs$": lambda shape: True,
    # Causal masks of GPT-2, GPT-J, GPT-Neo, GPT-NeoX, CodeGen and models after them.
    r"(^|\.)(attn|attention|self_attention|crossattention)\.(bias|causal_mask)$": _mask,
    r"(^|\.)(attn|attention|self_attention|crossattention)\.masked_bias$": _single,
    # Positions that are counted, or waves.
    r"(^|\.)position_ids$": lambda shape: True,
    r"(^|\.)(attn|attention)\.embed_positions$": lambda shape: True,
    r"(^|\.)embed_positions\.weights$": lambda shape: True,
    r"(^|\.)embed_positions\._float_tensor$": _single,
    r"(^|\.)(encoder|decoder)\.version$": _single,
}
"""Buffers that old checkpoints carry and no weight is in, by the end of their names, and the shapes
they have."""

FURTHER_TOKENS = r"(^|\.)(mtp|mtp_\w+|nextn_\w+)\."
"""Modules that guess the tokens after the next one, to speed up generation: the next one's scores
do without."""

OTHER_SENSES = (
    r"(^|\.)(visual|vision\w*|image_\w+|audio\w*|speech\w*|multi_modal_projector|mm_projector|embed_vision|embed_audio|"
    r"talker|code2wav|token2wav)\."
)
"""Modules of a multimodal checkpoint that text does not pass through."""

LAYER = re.compile(r"(?:^|\.)(?:layers|layer|h|blocks|block)\.(\d+)\.")


def refuse_unaccounted(
    name: str,
    model: PreTrainedModel,
    stored: Mapping[str, StoredTensor],
    report: Mapping[str, Any],
    config: Mapping[str, Any],
) -> None:
    """Refuse a checkpoint that is not, tensor by tensor, the model that was made from it.

    The files' own headers count: the library's report hides what a model's class calls ignorable.

    Arguments:
        name: what the model was asked for by.
        model: as it was loaded.
        stored: every tensor of the files.
        report: the loading information of `from_pretrained`.
        config: the checkpoint's config.json.

    Raises:
        ModelError: a tensor is missing, of another shape, left out, quantised, or contradicts one
            that it is tied to.
    """
    used = _used(model, stored)
    twice = {key: home for home, keys in used.items() for key in keys[1:]}
    unused = [
        key for key in _unused(model, stored, used, report) if not _harmless(key, stored, config)
    ]
    refuse_other_shapes(name, report)
    missing = _missing(model, used, report)
    if missing:
        raise ModelError(_lacking(name, missing, unused, config))
    if unused:
        raise _left_out(name, unused, config)
    if twice:
        key, home = next(iter(twice.items()))
        raise ModelError(
            f"model '{name}' holds {home} under two names, such as {key}; which of the two is meant"
            " nobody can tell: remove one"
        )
    _refuse_codes(name, model, stored, used)
    _refuse_untied(name, model, stored, used)


def refuse_left_out(
    name: str, model: PreTrainedModel, stored: Mapping[str, StoredTensor], config: Mapping[str, Any]
) -> None:
    """Refuse a checkpoint of which something would be left out, as far as its files' headers tell:
    they do where each of the model's parameters, with or without weights, stands in the files under
    its own name."""
    used = _used(model, stored)
    if all(path in used for path, _ in model.named_parameters()):
        direct = {key for keys in used.values() for key in keys}
        unused = [key for key in stored if key not in direct and not _harmless(key, stored, config)]
        if unused:
            raise _left_out(name, unused, config)


def _left_out(name: str, unused: list[str], config: Mapping[str, Any]) -> ModelError:
    return ModelError(
        f"model '{name}' holds {len(unused)} tensor(s) that would be left out, such as {unused[0]}:"
        f" {_cause(unused, config)}"
    )


def _used(model: PreTrainedModel, stored: Iterable[str]) -> dict[str, list[str]]:
    """Return which tensors of the files are which of the model's, by the model's names."""
    state, prefix = model.state_dict(), f"{model.base_model_prefix}."
    used: dict[str, list[str]] = {}
    for key in stored:
        home = next((k for k in (key, key.removeprefix(prefix), prefix + key) if k in state), None)
        if home is not None:
            used.setdefault(home, []).append(key)
    return used


def _unused(
    model: PreTrainedModel,
    stored: Iterable[str],
    used: Mapping[str, list[str]],
    report: Mapping[str, Any],
) -> list[str]:
    """Return which tensors went nowhere.

    Where the library renames or joins tensors on loading, its report says it, with what the model's
    class hides.
    """
    direct = {key for keys in used.values() for key in keys}
    rest = [key for key in stored if key not in direct]
    if _one_for_one(model):
        return rest
    hidden = [re.compile(pattern) for pattern in model._keys_to_ignore_on_load_unexpected or ()]
    ignored = [key for key in rest if any(pattern.search(key) for pattern in hidden)]
    return sorted({*map(str, report["unexpected_keys"]), *ignored})


def _missing(
    model: PreTrainedModel, used: Mapping[str, list[str]], report: Mapping[str, Any]
) -> list[str]:
    """Return what the model asks for and the files lack."""
    missing = {*map(str, report["missing_keys"])}
    if _one_for_one(model):
        parameters = dict(model.named_parameters(remove_duplicate=False))
        filled = {id(parameters[home]) for home in used if home in parameters}
        missing |= {path for path, parameter in parameters.items() if id(parameter) not in filled}
    return sorted(missing)


def refuse_other_shapes(name: str, report: Mapping[str, Any]) -> None:
    """Refuse tensors of another shape than the configuration asks for, by the report of
    `from_pretrained`."""
    for key, stored, wanted in sorted(report["mismatched_keys"]):
        held, asked = (" x ".join(map(str, shape)) for shape in (stored, wanted))
        raise ModelError(
            f"model '{name}' holds {key} as {held}, and its configuration asks for {asked};"
            f" {len(report['mismatched_keys'])} tensor(s) have another shape: they belong to"
            " another configuration"
        )


def _one_for_one(model: PreTrainedModel) -> bool:
    """Whether the library loaded every tensor as it is stored, under its name."""
    return getattr(model, "_weight_conversions", None) == []


def _harmless(key: str, stored: Mapping[str, StoredTensor], config: Mapping[str, Any]) -> bool:
    shape = stored[key].shape if key in stored else None
    if any(re.search(pattern, key) and fits(shape) for pattern, fits in HARMLESS.items()):
        return True
    if re.search(FURTHER_TOKENS, key) or _is_further_layer(key, config):
        return True
    return any("vision" in k or "audio" in k for k in config) and bool(re.search(OTHER_SENSES, key))


def _is_further_layer(key: str, config: Mapping[str, Any]) -> bool:
    """Whether a tensor is of one of the layers that a configuration declares to guess further
    tokens."""
    depth, further = _depth(config), config.get("num_nextn_predict_layers")
    layer = LAYER.search(key)
    if layer is None or depth is None or not isinstance(further, int):
        return False
    return depth <= int(layer[1]) < depth + further


def _depth(config: Mapping[str, Any]) -> int | None:
    for settings in (config, config.get("text_config") or {}):
        for key in ("num_hidden_layers", "n_layer", "n_layers", "num_layers"):
            if isinstance(settings.get(key), int):
                return int(settings[key])
    return None


def _lacking(name: str, missing: list[str], unused: list[str], config: Mapping[str, Any]) -> str:
    said = (
        f"model '{name}' lacks {len(missing)} tensor(s) that its configuration asks for, such as"
        f" {missing[0]}"
    )
    if not unused:
        return f"{said}; the checkpoint is incomplete or belongs to another configuration"
    return (
        f"{said}, and holds {len(unused)} that it has no use for, such as {unused[0]}:"
        f" {_cause(unused, config)}"
    )


def _cause(keys: Collection[str], config: Mapping[str, Any]) -> str:
    """Say why tensors are most likely left out, and what to do."""
    depth = _depth(config)
    layers = [int(found[1]) for found in map(LAYER.search, keys) if found]
    causes = (
        (
            _any(keys, r"(?i)lora|adapter|\.ia3_|hada_w|modules_to_save|base_layer|prompt_enc"),
            (f"an adapter's, never merged into the weights; {MERGE_IT}"),
        ),
        (
            _any(
                keys,
                r"(?i)_?scales?(_inv)?$|zeros?(_point)?$|qweight|absmax|quant|g_idx|\.SCB$|_amax$|_packed$",
            ),
            f"the scales of a quantisation that its config.json does not name; {UNQUANTISED}",
        ),
        (
            _any(keys, r"^_orig_mod\.|^module\."),
            (
                "a compiled or parallel model's names; save the model inside it (model._orig_mod,"
                " model.module)"
            ),
        ),
        (
            depth is not None and any(layer >= depth for layer in layers),
            (
                f"the layers from {depth} on, while its config.json names {depth}; mend the number"
                " of layers there"
            ),
        ),
        (
            all(key.endswith("bias") for key in keys),
            (
                "biases that its config.json turns off; mend it there (attention_bias, mlp_bias, or"
                " the like)"
            ),
        ),
    )
    likely = next((text for holds, text in causes if holds), None)
    return likely or (
        "its config.json, or the class that it names, is another model's; give the configuration"
        " that it was saved with, or remove what is no part of the model"
    )


def _any(keys: Iterable[str], pattern: str) -> bool:
    return any(re.search(pattern, key) for key in keys)


def _refuse_codes(
    name: str,
    model: PreTrainedModel,
    stored: Mapping[str, StoredTensor],
    used: Mapping[str, list[str]],
) -> None:
    """Refuse weights that are stored as integers or in 8 bits: without their scales they are no
    weights."""
    direct = {keys[0]: home for home, keys in used.items()}
    floating = {path for path, tensor in model.state_dict().items() if tensor.is_floating_point()}
    for key, tensor in stored.items():
        wanted = direct.get(key) in floating if key in direct else not _one_for_one(model)
        if wanted and tensor.dtype not in FLOATS and not _harmless(key, stored, {}):
            raise ModelError(
                f"model '{name}' holds {key} as {tensor.dtype}, and so quantised, though its"
                f" config.json does not say so; {UNQUANTISED}"
            )


def _refuse_untied(
    name: str,
    model: PreTrainedModel,
    stored: Mapping[str, StoredTensor],
    used: Mapping[str, list[str]],
) -> None:
    """Refuse tensors that are one by the configuration, are stored twice, and differ."""
    for names in _tied(model):
        places = [stored[used[path][0]] for path in names if path in used]
        for first, other in pairwise(places):
            if not torch.equal(*_numbers(first, other)):
                raise ModelError(
                    f"model '{name}' holds {first.key} and {other.key}, which its config.json ties,"
                    " and they differ; set tie_word_embeddings to false there if the second was"
                    " trained by itself, or remove it"
                )


def _tied(model: PreTrainedModel) -> list[list[str]]:
    """Return the names that share one tensor, or should."""
    state = model.state_dict(keep_vars=True)
    names: dict[int, list[str]] = {}
    for path, tensor in state.items():
        names.setdefault(id(tensor), []).append(path)
    embedding, head = _ends(model)
    tie = getattr(model.config.get_text_config(decoder=True), "tie_word_embeddings", False)
    if (
        tie
        and hasattr(embedding, "weight")
        and hasattr(head, "weight")
        and embedding.weight is not head.weight
    ):
        # The library found that they differ, and did not tie them.
        names[-1] = [*names.get(id(embedding.weight), []), *names.get(id(head.weight), [])]
    return [paths for paths in names.values() if len(paths) > 1]


def _ends(model: PreTrainedModel) -> tuple[Any, Any]:
    try:
        return model.get_input_embeddings(), model.get_output_embeddings()
    except NotImplementedError:  # a model that says neither
        return None, None


def _numbers(first: StoredTensor, second: StoredTensor) -> tuple[Tensor, Tensor]:
    pair = []
    for tensor in (first, second):
        with safe_open(tensor.file, framework="pt") as file:
            pair.append(file.get_tensor(tensor.key))
    wide = torch.promote_types(pair[0].dtype, pair[1].dtype)
    return pair[0].to(wide), pair[1].to(wide)
