"""Loading a causal language model and its tokenizer: from the hub, a local folder, or a live
object."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from eckart.errors import ModelError
from eckart.weights.gguf import GgufFile
from eckart.weights.identity import Identity
from eckart.weights.loading.accounts import load_accounted
from eckart.weights.loading.config import check_config
from eckart.weights.loading.failures import REMOTE_CODE, explained, first_line, needs_code
from eckart.weights.loading.files import check_source, checked, located
from eckart.weights.loading.live import check_causal, check_live, refuse_wrapper, unwrapped
from eckart.weights.options import PLAIN, ModelOptions

Model: TypeAlias = PreTrainedModel
Tokenizer: TypeAlias = PreTrainedTokenizerBase

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
DEVICE_MAPS = ("auto", "balanced", "balanced_low_0", "sequential")


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A causal language model, its tokenizer, and what identifies both.

    Arguments:
        model: in evaluation mode, on its device.
        tokenizer: the one that belongs to it; None for a model that reads numbers.
        name: the hub id or path it was asked for by.
        live: whether the caller brought it in memory, so that no checkpoint need hold the same
            weights.
        options: how it was loaded; what is loaded of it later runs no other code.
        file: the GGUF file that it was loaded from; None where it was none.
    """

    model: Model
    tokenizer: Tokenizer | None
    name: str
    live: bool = False
    options: ModelOptions = PLAIN
    file: GgufFile | None = None

    @property
    def dtype(self) -> str:
        """The dtype of the weights as they are computed with, such as `float32`."""
        return str(self.model.dtype).removeprefix("torch.")

    @cached_property
    def identity(self) -> Identity:
        """What the model is known by, whatever is done to it in memory."""
        return Identity(self.model, self.tokenizer, self.file.digest if self.file else "")

    @property
    def fingerprint(self) -> str:
        """A hash of weights, configuration, tokenizer and code, as they are now; see
        `eckart.weights.identity`."""
        return self.identity.fingerprint


def load_model(
    source: str | Path | Model | LoadedModel,
    *,
    tokenizer: Tokenizer | None = None,
    dtype: str = "auto",
    device: str = "auto",
    device_map: str | dict[str, Any] | None = None,
    trust_remote_code: bool = False,
) -> LoadedModel:
    """Load a causal language model for scoring.

    Arguments:
        source: a hub id, a local folder, a GGUF file (its path, a folder or hub repository that
            holds one, or `hub-id:file.gguf`), a live `PreTrainedModel` in evaluation mode, or what
            this function returned.
        tokenizer: for a live model whose `name_or_path` has none.
        dtype: `float32`, `bfloat16`, `float16`, or `auto`: bfloat16 on a GPU or CPU that multiplies
            it fast, float32 elsewhere, float16 never. A live model keeps its own.
        device: `auto`, `cpu`, `cuda`, `cuda:1`, `mps`, ... A live model stays where it is.
        device_map: spread a model that is larger than one device over several, as transformers
            does: `auto`, `balanced`, `sequential`, or a device for each module. Needs accelerate.
        trust_remote_code: run code that the repository brings. Off unless asked for.

    Raises:
        ModelError: there is no such model, it is incomplete, damaged, quantised, neither
            safetensors nor GGUF, or not a causal one; its files hold tensors that nothing would
            read; or a live model is in training mode or has an adapter.
    """
    if isinstance(source, LoadedModel):
        source.identity.renew()  # it may have been trained since
        return source
    if not isinstance(source, str | Path):
        return _adopt(source, tokenizer, dtype, device)
    name = located(str(source))
    file = GgufFile.of(name)
    if file is None:
        check_source(name)
    target = pick_device(device)
    check_device_map(device_map)
    chosen = pick_dtype(dtype, target)
    options = ModelOptions(dtype=dtype, device=str(device), trust_remote_code=trust_remote_code)
    model = load_checkpoint(name, chosen, options, device_map).eval()
    if device_map is None:
        model = model.to(target)
    elif any(parameter.is_meta for parameter in model.parameters()):
        raise ModelError(
            f"model '{name}' does not fit on the devices: parts of it were offloaded to memory or"
            " disk, where nothing can be clipped; use a smaller --dtype or more devices"
        )
    check_causal(model, name)
    tokenizer = tokenizer or load_tokenizer(name, options)
    return LoadedModel(model, tokenizer, name, options=options, file=file)


def load_config(name: str, options: ModelOptions = PLAIN) -> Any:
    """Read a model's configuration alone; a ModelError where there is none, or transformers does
    not know it."""
    file = GgufFile.of(name)
    if file is not None:
        return file.config()
    check_config(name, checked(name).config)
    with explained(name):
        return AutoConfig.from_pretrained(
            located(name), trust_remote_code=options.trust_remote_code
        )


def empty_model(name: str, options: ModelOptions = PLAIN) -> Model:
    """Build a model's modules on the meta device: every name and shape, no weights, no memory."""
    config = load_config(name, options)
    with explained(name), torch.device("meta"):
        return AutoModelForCausalLM.from_config(config, trust_remote_code=options.trust_remote_code)


def outlined_model(name: str, options: ModelOptions = PLAIN) -> LoadedModel:
    """Return a model without its weights, and its tokenizer: enough to see which rows it can
    read."""
    return LoadedModel(
        empty_model(name, options), load_tokenizer(name, options), name, options=options
    )


def load_checkpoint(
    name: str,
    dtype: torch.dtype | None,
    options: ModelOptions = PLAIN,
    device_map: str | dict[str, Any] | None = None,
) -> Model:
    """Load a checkpoint's weights on the CPU, or where a device map says; in the dtype that holds
    every number of its files where none is given. Of the options, whether code may run is asked
    alone.

    Raises:
        ModelError: there is no such model, it is incomplete, damaged, quantised, or not
            safetensors, or its files hold tensors that nothing would read.
    """
    file = GgufFile.of(name)
    if file is not None:
        return file.model(dtype or torch.float32, device_map)
    checkpoint = checked(name)
    check_config(name, checkpoint.config)
    return load_accounted(
        checkpoint,
        AutoModelForCausalLM,
        dtype=dtype or checkpoint.exact_dtype,
        trust_remote_code=options.trust_remote_code,
        device_map=device_map,
    )


def load_tokenizer(name: str, options: ModelOptions = PLAIN) -> Tokenizer:
    """Load the tokenizer that belongs to a model; a ModelError where the folder or repository has
    none."""
    file = GgufFile.of(name)
    if file is not None:
        return file.tokenizer()
    try:
        return AutoTokenizer.from_pretrained(
            located(name), trust_remote_code=options.trust_remote_code
        )
    except Exception as error:
        if REMOTE_CODE in str(error):
            raise ModelError(needs_code(name)) from error
        raise ModelError(
            f"model '{name}' has no usable tokenizer ({first_line(error)}); "
            "put tokenizer.json and tokenizer_config.json beside its config.json"
        ) from error


def needed_tokenizer(model: LoadedModel) -> Tokenizer:
    """Return a model's tokenizer; a ModelError where it has none, since it reads numbers."""
    if model.tokenizer is None:
        raise ModelError(
            f"model '{model.name}' reads numbers and no text; it is scored on functions alone"
        )
    return model.tokenizer


def _adopt(source: Model, tokenizer: Tokenizer | None, dtype: str, device: str) -> LoadedModel:
    """Wrap a live model as it is: its dtype and device are the caller's."""
    model = unwrapped(source)
    if not isinstance(model, Model):
        refuse_wrapper(model)
    check_live(model)
    if dtype not in ("auto", str(model.dtype).removeprefix("torch.")):
        raise ModelError(
            f"the live model is {model.dtype}, not {dtype}; convert it first with"
            f" model.to(torch.{dtype})"
        )
    if device != "auto" and torch.device(device).type != model.device.type:
        raise ModelError(
            f"the live model is on {model.device}, not {device}; move it first with"
            f" model.to('{device}')"
        )
    reads_text = model.main_input_name == "input_ids"
    if reads_text:
        check_causal(model, model.name_or_path or type(model).__name__)
    if tokenizer is None and reads_text:
        if not model.name_or_path:
            raise ModelError(
                "a live model without a name_or_path needs its tokenizer: pass tokenizer=..."
            )
        tokenizer = load_tokenizer(model.name_or_path)
    return LoadedModel(model, tokenizer, model.name_or_path or type(model).__name__, live=True)


def pick_device(device: str) -> torch.device:
    """Resolve `auto` to the fastest device there is; a ModelError for one that is unknown or
    absent."""
    if device == "auto":
        best = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        return best or torch.device("cpu")
    try:
        target = torch.device(device)
        torch.empty(1, device=target)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ModelError(
            f"device '{device}' is not usable here ({first_line(error)}); try --device cpu"
        ) from None
    return target


def pick_dtype(dtype: str, device: torch.device) -> torch.dtype:
    """Resolve `auto` to bfloat16 where a device multiplies it fast, and to float32 elsewhere; never
    to float16: activations that bfloat16 and float32 hold overflow it. A ModelError for any other
    name than those of `DTYPES`."""
    if dtype == "auto":
        return torch.bfloat16 if _multiplies_bfloat16(device) else torch.float32
    if dtype not in DTYPES:
        raise ModelError(f"no dtype '{dtype}'; the dtypes are {', '.join(DTYPES)} and auto")
    return DTYPES[dtype]


def check_device_map(device_map: str | dict[str, Any] | None) -> None:
    """Refuse a device map that is neither one of `DEVICE_MAPS` nor a device."""
    if isinstance(device_map, str) and device_map not in DEVICE_MAPS:
        try:
            torch.device(device_map)
        except RuntimeError:
            raise ModelError(
                f"no device map '{device_map}'; the device maps are {', '.join(DEVICE_MAPS)}, or a"
                " device's name"
            ) from None


def _multiplies_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        # A card that emulates it multiplies it slower than float32.
        native = "including_emulation" in inspect.signature(torch.cuda.is_bf16_supported).parameters
        return torch.cuda.is_bf16_supported(**({"including_emulation": False} if native else {}))
    return device.type == "cpu" and _cpu_multiplies_bfloat16()


def _cpu_multiplies_bfloat16() -> bool:
    """Say whether the processor has instructions for it, AMX or AVX-512-bf16; without, it is slower
    than float32."""
    if hasattr(torch.cpu, "get_capabilities"):
        found = torch.cpu.get_capabilities()
        return bool(found.get("amx_bf16") or found.get("avx512_bf16"))
    return torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
