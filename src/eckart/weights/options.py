"""Options of a model: how it is loaded, and how it reads rows; each declared once, with its help.

`load_model` and `Evaluator` take them as arguments, study files as keys, and the command line as
flags, as they take those of a task (`TaskOptions`); tests hold all of these together. Needs no
torch.
"""

from __future__ import annotations

from pydantic import NonNegativeInt, PositiveInt

from eckart.files import Closed, option


class ModelOptions(Closed):
    """How a model is loaded; see `load_model`."""

    heading = "The model"
    called = "the model"
    dtype: str = option(
        "auto", "float32, bfloat16, float16, or auto: bfloat16 where the device multiplies it fast."
    )
    device: str = option("auto", "auto, cpu, cuda, cuda:1, mps, ...")
    device_map: str | None = option(
        None,
        "Spread a model that is larger than one device: auto, balanced or sequential (needs"
        " accelerate).",
    )
    trust_remote_code: bool = option(False, "Run code that the model's repository brings.")


PLAIN = ModelOptions()
GGUF_TYPES = ("f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0")
"""The types of GGUF files that the package gguf has a quantiser for, and models come in."""


class FitOptions(Closed):
    """What is done with rows that are longer than the model reads."""

    heading = "The run"
    called = "the reading"
    truncate_demonstrations: bool = option(
        False, "Show fewer demonstrations in a row that is longer than the model reads."
    )
    drop_long_rows: bool = option(False, "Leave out rows that are longer than the model reads.")


class ReadingOptions(FitOptions):
    """How rows are read; see `Evaluator`. No result depends on the last two."""

    batch_tokens: PositiveInt | None = option(None, "The most tokens in a batch; chosen by device.")
    cache_memory: NonNegativeInt | None = option(
        None,
        "Memory for what candidates share, such as 200MB; a quarter of what is free by default."
        " The rest goes to a temporary file.",
    )
