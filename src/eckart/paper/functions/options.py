"""Options of a training: each declared once, with its help. Needs no torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from eckart.files import Closed


class _Functions(Closed):
    heading = "The functions"
    function: str = Field(
        default="linear",
        description="linear, sparse-linear, noisy-linear, decision-tree or relu-network.",
    )
    dimension: PositiveInt = Field(default=5, description="d, the length of a point.")
    points: Annotated[int, Field(ge=2)] | None = Field(
        default=None, description="The most points of a prompt; 2 d + 1 by default."
    )


class _Decoder(Closed):
    heading = "The model"
    model: Literal["gpt2", "linear"] = Field(
        default="gpt2",
        description=(
            "gpt2: GPT-2's blocks; linear: linear attention, for which Theorem 1 holds exactly."
        ),
    )
    layers: PositiveInt = Field(default=4, description="How many.")
    width: PositiveInt = Field(default=64, description="Of gpt2; linear attention has width d + 1.")
    heads: PositiveInt = Field(default=4, description="Of gpt2.")
    layout: Literal["paired", "separate"] = Field(
        default="paired",
        description=(
            "Of gpt2: a value's token holds its point too (paired), or nothing else (separate;"
            " slower)."
        ),
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
    steps: PositiveInt = Field(default=10_000, description="Gradient steps.")
    batch: PositiveInt = Field(default=128, description="Prompts in a step.")
    rate: PositiveFloat = Field(
        default=1e-3, description="The learning rate after the warm-up; it falls to 0 as a cosine."
    )
    warmup: PositiveInt = Field(
        default=200, description="Steps until the learning rate is reached."
    )
    curriculum: NonNegativeInt = Field(
        default=0,
        description="One more coordinate after so many steps, from a quarter on; 0: all at once.",
    )
    seed: NonNegativeInt = Field(default=0, description="Draws the first weights and every prompt.")
