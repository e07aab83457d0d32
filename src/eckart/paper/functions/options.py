"""Options of a training: each declared once, with its help. Needs no torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from eckart.files import Closed, option


class _Functions(Closed):
    heading = "The functions"
    function: str = option(
        "linear", "linear, sparse-linear, noisy-linear, decision-tree or relu-network."
    )
    dimension: PositiveInt = option(5, "d, the length of a point.")
    points: Annotated[int, Field(ge=2)] | None = option(
        None, "The most points of a prompt; 2 d + 1 by default."
    )


class _Decoder(Closed):
    heading = "The model"
    model: Literal["gpt2", "linear"] = option(
        "gpt2", "gpt2: GPT-2's blocks; linear: linear attention, for which Theorem 1 holds exactly."
    )
    layers: PositiveInt = option(4, "How many.")
    width: PositiveInt = option(64, "Of gpt2; linear attention has width d + 1.")
    heads: PositiveInt = option(4, "Of gpt2.")
    layout: Literal["paired", "separate"] = option(
        "paired",
        "Of gpt2: a value's token holds its point too (paired), or nothing else (separate;"
        " slower).",
    )


class TrainingOptions(_Decoder, _Functions):
    """How a model is trained: all that its weights depend on, but for the number of threads and the
    device.

    Arguments:
        points: as Garg et al. have it where it is None.
        model: GPT-2's blocks learn from the error at every point; linear attention from the error
            at the last.
        curriculum: begins with a quarter of the coordinates, and with as many points as suit those
            (Garg et al., Appendix A).
    """

    heading = "The training"
    called = "training"
    steps: PositiveInt = option(10_000, "Gradient steps.")
    batch: PositiveInt = option(128, "Prompts in a step.")
    rate: PositiveFloat = option(
        1e-3, "The learning rate after the warm-up; it falls to 0 as a cosine."
    )
    warmup: PositiveInt = option(200, "Steps until the learning rate is reached.")
    curriculum: NonNegativeInt = option(
        0, "One more coordinate after so many steps, from a quarter on; 0: all at once."
    )
    seed: NonNegativeInt = option(0, "Draws the first weights and every prompt.")
