"""Where a model runs, and in which dtype."""

from __future__ import annotations

import inspect
from typing import Any

import torch

from eckart.errors import ModelError
from eckart.weights.loading.failures import first_line

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
DEVICE_MAPS = ("auto", "balanced", "balanced_low_0", "sequential")


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
            f"device '{device}' is not usable here ({first_line(error)}); try --device cpu"
        ) from None
    return target


def pick_dtype(dtype: str, device: torch.device) -> torch.dtype:
    """Resolve `auto` to bfloat16 where a device multiplies it fast, and to float32 elsewhere.

    Never to float16: activations that bfloat16 and float32 hold overflow it.

    Raises:
        ModelError: the dtype is none of those offered.
    """
    if dtype == "auto":
        return torch.bfloat16 if _multiplies_bfloat16(device) else torch.float32
    if dtype not in DTYPES:
        raise ModelError(f"no dtype '{dtype}'; the dtypes are {', '.join(DTYPES)} and auto")
    return DTYPES[dtype]


def check_device_map(device_map: str | dict[str, Any] | None) -> None:
    """Refuse a device map's name that is none.

    Raises:
        ModelError: it is neither one of `DEVICE_MAPS` nor a device.
    """
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
