"""The options of `eckart functions train`, its progress, and how it ends."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from eckart.cli.console import Rate, errors, print_json, say, say_run, typed
from eckart.options import Closed, checked

if TYPE_CHECKING:
    from eckart.paper.functions.training import Training

LAST = 100
"""How many steps the loss that is told is averaged over."""


class _Functions(Closed):
    heading = "The functions"
    function: str = Field(
        default="linear",
        description="linear, sparse-linear, noisy-linear, decision-tree or relu-network.",
    )
    dimension: int = Field(default=5, description="d, the length of a point.")
    points: int | None = Field(
        default=None, description="The most points of a prompt; 2 d + 1 by default."
    )


class _Decoder(Closed):
    heading = "The model"
    model: str = Field(
        default="gpt2",
        description=(
            "gpt2: GPT-2's blocks; linear: linear attention, for which Theorem 1 holds exactly."
        ),
    )
    layers: int = Field(default=4, description="How many.")
    width: int = Field(default=64, description="Of gpt2; linear attention has width d + 1.")
    heads: int = Field(default=4, description="Of gpt2.")
    layout: str = Field(
        default="paired",
        description=(
            "Of gpt2: a value's token holds its point too (paired), or nothing else (separate;"
            " slower)."
        ),
    )


class Settings(_Decoder, _Functions):
    """How a model is trained, as the command line says it: one option for each field of
    `Training`, which checks them."""

    heading = "The training"
    steps: int = Field(default=10_000, description="Gradient steps.")
    batch: int = Field(default=128, description="Prompts in a step.")
    rate: float = Field(
        default=1e-3, description="The learning rate after the warm-up; it falls to 0 as a cosine."
    )
    warmup: int = Field(default=200, description="Steps until the learning rate is reached.")
    curriculum: int = Field(
        default=0,
        description="One more coordinate after so many steps, from a quarter on; 0: all at once.",
    )
    seed: int = Field(default=0, description="Draws the first weights and every prompt.")

    def training(self) -> Training:
        """Return what is trained, and how.

        Raises:
            TaskError: a value is out of range.
        """
        from eckart.paper.functions.training import Training

        return checked(Training, self.model_dump(), "training")


def default_folder(training: Training) -> Path:
    """Return where a training is kept if nobody says otherwise."""
    settings = json.dumps(training.model_dump(mode="json"), sort_keys=True)
    digest = hashlib.blake2b(settings.encode(), digest_size=4).hexdigest()
    return Path("runs") / f"{training.function}-{training.dimension}-{digest}"


def run_training(
    training: Training,
    folder: Path,
    checkpoints: Sequence[int] | None,
    save_every: int,
    device: str,
    threads: int | None,
    as_json: bool,
) -> None:
    """Train, show how far it is, and say where the model lies.

    Arguments:
        training: what is trained, and how.
        folder: keeps state and models.
        checkpoints: after how many steps the model is kept; doubling where it is None.
        save_every, device: see `train`.
        threads: of torch; its own choice where it is None.
        as_json: print one JSON document instead of a line.

    Raises:
        EckartError: as `train`.
    """
    import torch

    from eckart.paper.functions.training import doubling_steps, kept_models, read_losses, train

    kept = doubling_steps(training.steps) if checkpoints is None else checkpoints
    if threads is not None:
        torch.set_num_threads(threads)
    say_run(folder)
    with loss_bar(training.steps) as watch:
        train(
            training,
            folder,
            checkpoints=kept,
            save_every=save_every,
            device=device,
            command=typed(),
            watch=watch,
        )
    models, loss = kept_models(folder), float(read_losses(folder)[-LAST:].mean())
    model, passed = models[training.steps], sorted({*kept} - {*models})
    if passed:
        say(
            f"note: the model after steps {', '.join(map(str, passed))} was not kept: training was"
            " past them"
        )
    if as_json:
        print_json(
            {
                "run": str(folder),
                "model": str(model),
                "steps": training.steps,
                "loss": loss,
                "training": training.model_dump(mode="json"),
            }
        )
        return
    last = min(LAST, training.steps)
    where = (
        "all points of a prompt"
        if training.model == "gpt2"
        else "the last point, where one prompt can decide it"
    )
    said = f"squared error over variance, mean of {where} and the last {last} steps"
    say(f"model: {model}; training loss {loss:.4g}: {said}")
    say(f"its error by the number of examples: eckart functions evaluate {folder}")


@contextmanager
def loss_bar(steps: int) -> Iterator[Callable[[int, float], None]]:
    """Show steps done, the running loss and the time left, where standard error is a terminal."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        Rate(),
        TimeRemainingColumn(),
    )
    running: float | None = None
    with Progress(*columns, console=errors, transient=True, disable=not errors.is_terminal) as bar:
        job = bar.add_task("loss", total=steps)

        def watch(step: int, loss: float) -> None:
            """Show a step and its loss."""
            nonlocal running
            running = loss if running is None else running + (loss - running) / LAST
            bar.update(job, completed=step + 1, description=f"loss {running:.4f}")

        yield watch
