"""The accounts of a checkpoint: every tensor of its files is used, or named here as harmless,
or it is refused."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from itertools import pairwise
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor
from transformers import PreTrainedModel

from eckart.errors import ModelError
from eckart.weights.loading.config import MERGE_IT, UNQUANTISED
from eckart.weights.loading.failures import explained
from eckart.weights.loading.files import FLOATS, Checkpoint, StoredTensor, located

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

SIGNS = {
    r"(?i)lora|adapter|\.ia3_|hada_w|modules_to_save|base_layer|prompt_enc": (
        f"an adapter's, never merged into the weights; {MERGE_IT}"
    ),
    r"(?i)_?scales?(_inv)?$|zeros?(_point)?$|qweight|absmax|quant|g_idx|\.SCB$|_amax$|_packed$": (
        f"the scales of a quantisation that its config.json does not name; {UNQUANTISED}"
    ),
    r"^_orig_mod\.|^module\.": (
        "a compiled or parallel model's names; save the model inside it (model._orig_mod,"
        " model.module)"
    ),
}
"""Why tensors are most likely left out, and what to do, by what their names hold."""

LAYER = re.compile(r"(?:^|\.)(?:layers|layer|h|blocks|block)\.(\d+)\.")


def load_accounted(checkpoint: Checkpoint, kind: Any, **options: Any) -> Any:
    """Load a checkpoint by a class of transformers, every tensor of its files accounted for.

    Arguments:
        checkpoint: its files.
        kind: has `from_pretrained`.
        options: of that, beside what the accounts ask for.

    Raises:
        ModelError: the files are damaged; or a tensor is missing, of another shape, left out,
            quantised, or contradicts one that it is tied to.
    """
    with explained(checkpoint.name):
        _ = checkpoint.tensors  # what is wrong with the files is said before they are loaded
        loaded: Any = kind.from_pretrained(
            located(checkpoint.name),
            use_safetensors=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are in the report, and refused by name
            **options,
        )
    model, report = loaded
    _Accounts(checkpoint, model).refuse_unaccounted(report)
    return model


def refuse_left_out(checkpoint: Checkpoint, model: PreTrainedModel) -> None:
    """Refuse a checkpoint of which something would be left out, as far as its files' headers tell:
    they do where each of the model's parameters, with or without weights, stands in the files under
    its own name."""
    accounts = _Accounts(checkpoint, model)
    if all(path in accounts.used for path, _ in model.named_parameters()):
        unused = [key for key in accounts.rest if not accounts.harmless(key)]
        if unused:
            raise accounts.left_out(unused)


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


class _Accounts:
    """The tensors of a checkpoint's files beside those of the model that was made from it.

    The files' own headers count: the library's report hides what a model's class calls ignorable.
    """

    def __init__(self, checkpoint: Checkpoint, model: PreTrainedModel) -> None:
        self.name, self.stored, self.config = checkpoint.name, checkpoint.tensors, checkpoint.config
        self.model = model
        # Whether the library loaded every tensor as it is stored, under its name.
        self.one_for_one = getattr(model, "_weight_conversions", None) == []
        self.used = self._used()
        """Which tensors of the files are which of the model's, by the model's names."""
        direct = {key for keys in self.used.values() for key in keys}
        self.rest = [key for key in self.stored if key not in direct]

    def refuse_unaccounted(self, report: Mapping[str, Any]) -> None:
        """Refuse a checkpoint that is not, tensor by tensor, the model that was loaded from it."""
        unused = [key for key in self._unused(report) if not self.harmless(key)]
        refuse_other_shapes(self.name, report)
        missing = self._missing(report)
        if missing:
            raise self._lacking(missing, unused)
        if unused:
            raise self.left_out(unused)
        twice = next((home for home, keys in self.used.items() if len(keys) > 1), None)
        if twice is not None:
            raise ModelError(
                f"model '{self.name}' holds {twice} under two names, such as"
                f" {self.used[twice][1]}; which of the two is meant nobody can tell: remove one"
            )
        self._refuse_codes()
        self._refuse_untied()

    def left_out(self, unused: list[str]) -> ModelError:
        return ModelError(
            f"model '{self.name}' holds {len(unused)} tensor(s) that would be left out, such as"
            f" {unused[0]}: {_cause(unused, self.config)}"
        )

    def harmless(self, key: str) -> bool:
        if self._in_no_weight(key) or _is_further_layer(key, self.config):
            return True
        senses = any("vision" in name or "audio" in name for name in self.config)
        return senses and bool(re.search(OTHER_SENSES, key))

    def _in_no_weight(self, key: str) -> bool:
        shape = self.stored[key].shape if key in self.stored else None
        buffer = any(re.search(pattern, key) and fits(shape) for pattern, fits in HARMLESS.items())
        return buffer or bool(re.search(FURTHER_TOKENS, key))

    def _used(self) -> dict[str, list[str]]:
        state, prefix = self.model.state_dict(), f"{self.model.base_model_prefix}."
        used: dict[str, list[str]] = {}
        for key in self.stored:
            names = (key, key.removeprefix(prefix), prefix + key)
            home = next((name for name in names if name in state), None)
            if home is not None:
                used.setdefault(home, []).append(key)
        return used

    def _unused(self, report: Mapping[str, Any]) -> list[str]:
        """Return which tensors went nowhere.

        Where the library renames or joins tensors on loading, its report says it, with what the
        model's class hides.
        """
        if self.one_for_one:
            return self.rest
        hidden = list(map(re.compile, self.model._keys_to_ignore_on_load_unexpected or ()))
        ignored = [key for key in self.rest if any(pattern.search(key) for pattern in hidden)]
        return sorted({*map(str, report["unexpected_keys"]), *ignored})

    def _missing(self, report: Mapping[str, Any]) -> list[str]:
        missing = {*map(str, report["missing_keys"])}
        if self.one_for_one:
            parameters = dict(self.model.named_parameters(remove_duplicate=False))
            filled = {id(parameters[home]) for home in self.used if home in parameters}
            missing |= {path for path, held in parameters.items() if id(held) not in filled}
        return sorted(missing)

    def _lacking(self, missing: list[str], unused: list[str]) -> ModelError:
        cause = (
            f", and holds {len(unused)} that it has no use for, such as {unused[0]}:"
            f" {_cause(unused, self.config)}"
            if unused
            else "; the checkpoint is incomplete or belongs to another configuration"
        )
        return ModelError(
            f"model '{self.name}' lacks {len(missing)} tensor(s) that its configuration asks for,"
            f" such as {missing[0]}{cause}"
        )

    def _refuse_codes(self) -> None:
        """Refuse weights that are stored as integers or in 8 bits: without their scales they are no
        weights."""
        direct = {keys[0]: home for home, keys in self.used.items()}
        state = self.model.state_dict()
        for key, tensor in self.stored.items():
            home = direct.get(key)
            wanted = not self.one_for_one if home is None else state[home].is_floating_point()
            if wanted and tensor.dtype not in FLOATS and not self._in_no_weight(key):
                raise ModelError(
                    f"model '{self.name}' holds {key} as {tensor.dtype}, and so quantised, though"
                    f" its config.json does not say so; {UNQUANTISED}"
                )

    def _refuse_untied(self) -> None:
        """Refuse tensors that are one by the configuration, are stored twice, and differ."""
        for names in _tied(self.model):
            places = [self.stored[self.used[path][0]] for path in names if path in self.used]
            for first, other in pairwise(places):
                if not torch.equal(*_numbers(first, other)):
                    raise ModelError(
                        f"model '{self.name}' holds {first.key} and {other.key}, which its"
                        " config.json ties, and they differ; set tie_word_embeddings to false there"
                        " if the second was trained by itself, or remove it"
                    )


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


def _cause(keys: Collection[str], config: Mapping[str, Any]) -> str:
    for sign, cause in SIGNS.items():
        if any(re.search(sign, key) for key in keys):
            return cause
    depth = _depth(config)
    layers = [int(found[1]) for found in map(LAYER.search, keys) if found]
    if depth is not None and any(layer >= depth for layer in layers):
        return (
            f"the layers from {depth} on, while its config.json names {depth}; mend the number of"
            " layers there"
        )
    if all(key.endswith("bias") for key in keys):
        return (
            "biases that its config.json turns off; mend it there (attention_bias, mlp_bias, or the"
            " like)"
        )
    return (
        "its config.json, or the class that it names, is another model's; give the configuration"
        " that it was saved with, or remove what is no part of the model"
    )


def _tied(model: PreTrainedModel) -> list[list[str]]:
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
