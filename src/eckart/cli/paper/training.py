"""A training's progress, and how it ends."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from eckart.cli.console import Log, bar, print_json, say, say_run, typed
from eckart.paper.functions.training import (
    Training,
    doubling_steps,
    kept_models,
    read_losses,
    train,
)

LAST = 100
"""How many steps the loss that is told is averaged over."""


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
    """Train as `train` does, show how far it is, and say where the model lies.

    Models are kept after steps that double where `checkpoints` is None, and threads are torch's own
    choice.
    """
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
    """Show steps done, the running loss and the time left; where standard error is no terminal, a
    line now and then."""
    running: float | None = None
    with bar() as shown:
        job, log = shown.add_task("loss", total=steps), Log()

        def watch(step: int, loss: float) -> None:
            nonlocal running
            running = loss if running is None else running + (loss - running) / LAST
            shown.update(job, completed=step + 1, description=f"loss {running:.4f}")
            log(lambda: f"step {step + 1:,} of {steps:,}: loss {running:.4f}")

        yield watch
