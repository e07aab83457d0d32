"""Loading a causal language model and its tokenizer: from the hub, a local folder, or a live object."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import torch
from huggingface_hub.errors import HFValidationError
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from eckart.errors import ModelError
from eckart.files import home
from eckart.identity import Identity

Model: TypeAlias = PreTrainedModel
Tokenizer: TypeAlias = PreTrainedTokenizerBase

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
READS_NUMBERS = frozenset({"InContextModel", "LinearAttentionModel"})
"""The architectures of `eckart.functions`."""
DEVICE_MAPS = ("auto", "balanced", "balanced_low_0", "sequential")


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A causal language model, its tokenizer, and what identifies both.

    Arguments:
        model: in evaluation mode, on its device.
        tokenizer: the one that belongs to it; None for a model that reads numbers.
        name: the hub id or path it was asked for by.
        live: whether the caller brought it in memory, so that no checkpoint need hold the same weights.
        trust_remote_code: whether code that its repository brings may run.
    """

    model: Model
    tokenizer: Tokenizer | None
    name: str
    live: bool = False
    trust_remote_code: bool = False

    @property
    def dtype(self) -> str:
        """The dtype of the weights as they are computed with, such as `float32`."""
        return str(self.model.dtype).removeprefix("torch.")

    @cached_property
    def identity(self) -> Identity:
        """What the model is known by, whatever is done to it in memory."""
        return Identity(self.model, self.tokenizer)

    @property
    def fingerprint(self) -> str:
        """A hash of weights, configuration, tokenizer and code, as they are now; see `eckart.identity`."""
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
        source: a hub id, a local folder, a live `PreTrainedModel`, or what this function returned.
        tokenizer: for a live model whose `name_or_path` has none.
        dtype: `float32`, `bfloat16`, `float16`, or `auto`: bfloat16 on a GPU or CPU that multiplies it fast, else
            float16 on a GPU and float32 elsewhere. A live model keeps its own.
        device: `auto`, `cpu`, `cuda`, `cuda:1`, `mps`, ... A live model stays where it is.
        device_map: spread a model that is larger than one device over several, as transformers does: `auto`,
            `balanced`, `sequential`, or a device for each module. Needs accelerate.
        trust_remote_code: run code that the repository brings. Off unless asked for.

    Raises:
        ModelError: there is no such model, it is incomplete, damaged, not safetensors, or not a causal one.
    """
    if isinstance(source, LoadedModel):
        source.identity.renew()  # it may have been trained since
        return source
    if isinstance(source, Model):
        return _adopt(source, tokenizer, dtype, device)
    name = at_home(str(source))
    check_source(name)
    target = pick_device(device)
    _check_device_map(device_map)
    model = load_checkpoint(name, pick_dtype(dtype, target), trust_remote_code, device_map).eval()
    if device_map is None:
        model = model.to(target)
    elif any(parameter.is_meta for parameter in model.parameters()):
        raise ModelError(
            f"model '{name}' does not fit on the devices: parts of it were offloaded to memory or disk, where nothing "
            "can be clipped; use a smaller --dtype or more devices"
        )
    tokenizer = tokenizer or load_tokenizer(name, trust_remote_code)
    return LoadedModel(model, tokenizer, name, trust_remote_code=trust_remote_code)


def at_home(name: str) -> str:
    """Return a model's name; of a path that begins with `~`, the path that is meant."""
    return str(home(name)) if name.startswith("~") else name


def _check_device_map(device_map: str | dict[str, Any] | None) -> None:
    if isinstance(device_map, str) and device_map not in DEVICE_MAPS:
        try:
            torch.device(device_map)
        except RuntimeError:
            raise ModelError(
                f"no device map '{device_map}'; the device maps are {', '.join(DEVICE_MAPS)}, or a device's name"
            ) from None


def load_config(name: str, trust_remote_code: bool = False) -> Any:
    """Read a model's configuration alone.

    Raises:
        ModelError: there is none, or transformers does not know it.
    """
    check_source(name)
    _refuse_numbers(name)
    with explained(name):
        return AutoConfig.from_pretrained(at_home(name), trust_remote_code=trust_remote_code)


def empty_model(name: str, trust_remote_code: bool = False) -> Model:
    """Build a model's modules on the meta device: every name and shape, no weights, no memory."""
    config = load_config(name, trust_remote_code)
    with explained(name), torch.device("meta"):
        return AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code)


def outlined_model(name: str, trust_remote_code: bool = False) -> LoadedModel:
    """Return a model without its weights, and its tokenizer: enough to see which rows it can read."""
    return LoadedModel(empty_model(name, trust_remote_code), load_tokenizer(name, trust_remote_code), name)


def load_checkpoint(
    name: str,
    dtype: torch.dtype | str,
    trust_remote_code: bool,
    device_map: str | dict[str, Any] | None = None,
) -> Model:
    """Load a checkpoint's weights on the CPU, or where a device map says.

    Arguments:
        name: a hub id or a local folder.
        dtype: `auto` for the one that it is stored in.
        trust_remote_code: run code that the repository brings.
        device_map: see `load_model`.

    Raises:
        ModelError: there is no such model, or it is incomplete, damaged, not safetensors, or not a causal one.
    """
    _refuse_numbers(name)
    with explained(name):
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            at_home(name),
            dtype=dtype,
            use_safetensors=True,
            trust_remote_code=trust_remote_code,
            device_map=device_map,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are in the report, and refused below by name
        )
    model, report = loaded
    refuse_incomplete(name, report)
    return model


def refuse_incomplete(name: str, report: dict[str, Any]) -> None:
    """Refuse a checkpoint that lacks what its configuration asks for.

    transformers fills that with random numbers, and a score of those would be a lie.

    Arguments:
        name: what the model was asked for by.
        report: the loading information of `from_pretrained`.

    Raises:
        ModelError: a tensor is missing, or of another shape.
    """
    missing = sorted(report["missing_keys"]) + sorted(str(key) for key in report["mismatched_keys"])
    if missing:
        raise ModelError(
            f"model '{name}' lacks {len(missing)} tensor(s) that its configuration asks for, such as {missing[0]}; "
            "the checkpoint is incomplete or belongs to another configuration"
        )


def load_stored(loaded: LoadedModel) -> Model | None:
    """Load a model's checkpoint again, in the dtype it is stored in; None for a live model, which has no other."""
    if loaded.live:
        return None
    return load_checkpoint(loaded.name, "auto", loaded.trust_remote_code)


def load_tokenizer(name: str, trust_remote_code: bool = False) -> Tokenizer:
    """Load the tokenizer that belongs to a model.

    Raises:
        ModelError: the folder or repository has none.
    """
    try:
        return AutoTokenizer.from_pretrained(at_home(name), trust_remote_code=trust_remote_code)
    except Exception as error:
        raise ModelError(
            f"model '{name}' has no usable tokenizer ({_first_line(error)}); "
            "put tokenizer.json and tokenizer_config.json beside its config.json"
        ) from error


def needed_tokenizer(model: LoadedModel) -> Tokenizer:
    """Return a model's tokenizer.

    Raises:
        ModelError: it has none, since it reads numbers.
    """
    if model.tokenizer is None:
        raise ModelError(f"model '{model.name}' reads numbers and no text; it is scored on functions alone")
    return model.tokenizer


def pick_device(device: str) -> torch.device:
    """Resolve `auto` to the fastest device there is.

    Raises:
        ModelError: the device is unknown or absent.
    """
    if device == "auto":
        best = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        return best or torch.device("cpu")
    try:
        target = torch.device(device)
        torch.empty(1, device=target)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ModelError(
            f"device '{device}' is not usable here ({_first_line(error)}); try --device cpu"
        ) from None
    return target


def pick_dtype(dtype: str, device: torch.device) -> torch.dtype:
    """Resolve `auto` to the dtype that a device does well.

    Raises:
        ModelError: the dtype is none of those offered.
    """
    if dtype == "auto":
        if device.type == "cuda":
            return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
        return torch.bfloat16 if device.type == "cpu" and _cpu_multiplies_bfloat16() else torch.float32
    if dtype not in DTYPES:
        raise ModelError(f"no dtype '{dtype}'; the dtypes are {', '.join(DTYPES)} and auto")
    return DTYPES[dtype]


def _cpu_multiplies_bfloat16() -> bool:
    """Say whether the processor has instructions for it, AMX or AVX-512-bf16; without, it is slower than float32."""
    if hasattr(torch.cpu, "get_capabilities"):
        found = torch.cpu.get_capabilities()
        return bool(found.get("amx_bf16") or found.get("avx512_bf16"))
    return torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()


def check_source(name: str) -> None:
    """Refuse a path that is not a model folder before a hub is asked for it.

    Raises:
        ModelError: the path does not exist, is a file, or holds no config.json.
    """
    path = home(name)
    looks_local = name.startswith((".", "/", "~")) or name.count("/") > 1
    if not path.exists():
        if looks_local:
            raise ModelError(f"no model folder '{name}'; give a hub id or a folder that holds config.json")
        return
    if not path.is_dir():
        raise ModelError(f"'{name}' is a file; give the folder that holds config.json and model.safetensors")
    if not (path / "config.json").is_file():
        raise ModelError(f"folder '{name}' holds no config.json, so it is no transformers checkpoint")


def _refuse_numbers(name: str) -> None:
    """Refuse a model of functions, whose decoder would pass for a language model with one word."""
    path = home(name) / "config.json"
    with explained(name):
        config = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    kinds = config.get("architectures") if isinstance(config, dict) else None
    if isinstance(kinds, list) and not READS_NUMBERS.isdisjoint(map(str, kinds)):
        raise ModelError(f"model '{name}' reads numbers and no text; it is scored by eckart functions")


@contextmanager
def explained(name: str) -> Iterator[None]:
    """Turn what transformers and safetensors raise about a user's model into one line.

    Raises:
        ModelError: whatever it was.
    """
    try:
        yield
    except SafetensorError as error:
        raise ModelError(
            f"model '{name}' has a damaged safetensors file ({_first_line(error)}); copy it again"
        ) from error
    except (HFValidationError, OSError) as error:
        raise ModelError(_absent(name, error)) from error
    except (ValueError, KeyError, ImportError, RuntimeError, TypeError, AttributeError) as error:
        raise ModelError(f"model '{name}' cannot be loaded: {_first_line(error)}") from error


def _adopt(model: Model, tokenizer: Tokenizer | None, dtype: str, device: str) -> LoadedModel:
    """Wrap a live model as it is: its dtype and device are the caller's."""
    if dtype not in ("auto", str(model.dtype).removeprefix("torch.")):
        raise ModelError(
            f"the live model is {model.dtype}, not {dtype}; convert it first with model.to(torch.{dtype})"
        )
    if device != "auto" and torch.device(device).type != model.device.type:
        raise ModelError(
            f"the live model is on {model.device}, not {device}; move it first with model.to('{device}')"
        )
    if tokenizer is None and model.main_input_name == "input_ids":
        if not model.name_or_path:
            raise ModelError("a live model without a name_or_path needs its tokenizer: pass tokenizer=...")
        tokenizer = load_tokenizer(model.name_or_path)
    return LoadedModel(model, tokenizer, model.name_or_path or type(model).__name__, live=True)


def _absent(name: str, error: BaseException) -> str:
    path = home(name)
    if not path.exists():
        return (
            f"no model '{name}': there is no such folder, and the hub gave none ({_first_line(error)}); "
            "check the name, the network, or a login for a gated model"
        )
    if any(path.glob("*.bin")) and not any(path.glob("*.safetensors")):
        return f"model '{name}' is saved as a pickle (.bin), which is never loaded; convert it to safetensors first"
    return f"model '{name}' cannot be loaded: {_first_line(error)}"


def _first_line(error: BaseException) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:300]
