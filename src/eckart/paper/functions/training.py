"""Training a model on functions from nothing: one folder, resumable to the step, bit for bit."""

from __future__ import annotations

import math
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from jaxtyping import Float
from pydantic import Field, model_validator
from safetensors import SafetensorError, safe_open
from safetensors import torch as safetensors
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from torch.optim import AdamW

from eckart.errors import NotANumberError, RunError, TaskError
from eckart.files import drafted, home, write_whole
from eckart.paper.functions.classes import (
    SEEDS,
    Prompts,
    draw_prompts,
    find_class,
    training_generator,
)
from eckart.paper.functions.models import (
    FunctionModel,
    InContextModel,
    LinearAttentionModel,
    without_bars,
)
from eckart.paper.functions.options import TrainingOptions
from eckart.runs import RunStore
from eckart.weights.models import pick_device

STATE = "state.safetensors"
STEPS = "steps"
LOSSES = "losses"
CLIPPED_NORM = 1.0
"""Gradients are scaled down to this norm."""
BETAS = (0.9, 0.98)


class Training(TrainingOptions):
    """How a model is trained, checked as a whole; see `TrainingOptions`."""

    seed: Annotated[int, Field(ge=0, lt=SEEDS)] = 0

    @model_validator(mode="after")
    def _fits(self) -> Training:
        find_class(self.function)
        unused = ("width", "heads", "layout") if self.model == "linear" else ()
        for name in unused:
            if getattr(self, name) != type(self).model_fields[name].default:
                raise TaskError(
                    f"{name} {getattr(self, name)} is of model gpt2; a linear model has none: leave"
                    " it out"
                )
        last = self.curriculum * (self.dimension - math.ceil(self.dimension / 4))
        if self.curriculum and last >= self.steps:
            raise TaskError(
                f"curriculum {self.curriculum} lets in the last of {self.dimension} coordinates at"
                f" step {last:,}, and there are {self.steps:,} steps; choose fewer steps a"
                " coordinate, or more steps"
            )
        if self.width % self.heads:
            raise TaskError(
                f"width {self.width} is not a multiple of {self.heads} heads; change one of them"
            )
        return self

    @property
    def longest(self) -> int:
        """The most points of a prompt."""
        return self.points or 2 * self.dimension + 1

    def new_model(self) -> FunctionModel:
        """Return the untrained model; its configuration says what it is to learn."""
        torch.manual_seed(self.seed)
        sizes = self.dimension, self.longest, self.layers
        model: FunctionModel
        if self.model == "linear":
            model = LinearAttentionModel.of_size(*sizes)
        else:
            model = InContextModel.of_size(*sizes, self.width, self.heads, self.layout)
        model.config.function = self.function
        return model

    def stage(self, step: int) -> tuple[int, int]:
        """Return how many coordinates and points the prompts of a step have."""
        if not self.curriculum:
            return self.dimension, self.longest
        active = min(self.dimension, math.ceil(self.dimension / 4) + step // self.curriculum)
        return active, min(self.longest, 2 * active + 1)

    def prompts(self, step: int) -> Prompts:
        """Return the prompts of a step; they depend on the seed and the step alone."""
        active, points = self.stage(step)
        generator = training_generator(self.seed, step)
        prompts = draw_prompts(find_class(self.function), generator, self.batch, points, active)
        x = torch.cat([prompts.x, torch.zeros(self.batch, points, self.dimension - active)], dim=2)
        return Prompts(x, prompts.y)

    def learning_rate(self, step: int) -> float:
        warm = self.rate * min(1.0, (step + 1) / self.warmup)
        return warm * (1 + math.cos(math.pi * step / self.steps)) / 2


@dataclass(eq=False)
class _State:
    """A model on its way, and what is needed to go on as if nothing had happened."""

    model: FunctionModel
    optimizer: AdamW
    step: int
    losses: Tensor
    whole: bool = True
    """Whether no step is half taken."""

    @classmethod
    def new(cls, training: Training, device: torch.device) -> _State:
        model = training.new_model()
        model.to(device)  # type: ignore[arg-type]
        optimizer = AdamW(model.parameters(), lr=training.rate, betas=BETAS, weight_decay=0.0)
        return cls(model, optimizer, 0, torch.zeros(training.steps))

    def to_bytes(self) -> bytes:
        """Return everything as one safetensors file."""
        tensors = {f"model.{name}": tensor for name, tensor in self.model.state_dict().items()}
        moments = {
            f"optimizer.{i}.{name}": value
            for i, kept in self.optimizer.state_dict()["state"].items()
            for name, value in kept.items()
        }
        everything = {**tensors, **moments, LOSSES: self.losses, "step": torch.tensor(self.step)}
        return safetensors.save({name: value.contiguous() for name, value in everything.items()})

    def read_(self, content: bytes) -> None:
        """Take over what `to_bytes` wrote."""
        everything = safetensors.load(content)
        self.step, self.losses = int(everything.pop("step")), everything.pop(LOSSES)
        moments: dict[int, dict[str, Tensor]] = {}
        for name in [name for name in everything if name.startswith("optimizer.")]:
            _, number, what = name.split(".")
            moments.setdefault(int(number), {})[what] = everything.pop(name)
        self.model.load_state_dict({k.removeprefix("model."): v for k, v in everything.items()})
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": moments, "param_groups": groups})


def train(
    training: Training,
    out: str | Path,
    *,
    checkpoints: Iterable[int] = (),
    save_every: int = 250,
    device: str = "auto",
    command: str | None = None,
    watch: Callable[[int, float], None] = lambda step, loss: None,
) -> FunctionModel:
    """Train a model, or go on where training in this folder was stopped; the result is the same.

    The folder holds the run's settings, `state.safetensors`, and the model after each chosen step
    and after the last in `steps/`, as `save_pretrained` writes it.

    Arguments:
        training: what is trained, and how.
        out: the folder.
        checkpoints: after how many steps the model is kept, beside the last.
        save_every: after how many steps the state is written; a kill loses these at most, an
            interrupt none.
        device: where to train; see `load_model`.
        command: what the user typed; a new run notes it.
        watch: told of every step and its loss, the mean squared error over the variance of f on the
            coordinates that the step has.

    Raises:
        RunError: the folder is not usable, or holds another training.
        ModelError: there is no such device, or the loss is not a number any more.
        TaskError: a checkpoint is no step of this training.
    """
    wanted = {*checkpoints, training.steps}
    wrong = sorted(step for step in wanted if not 0 <= step <= training.steps)
    if wrong:
        raise TaskError(
            f"no checkpoint after step {wrong[0]}: training has {training.steps:,} steps"
        )
    target = pick_device(device)
    settings = {"kind": "training", **training.model_dump(mode="json")}
    with RunStore(out, settings, command) as store, _interrupts_held() as let_through:
        state = _State.new(training, target)
        path = store.folder / STATE
        if path.exists():
            with _readable(path):
                state.read_(path.read_bytes())
        try:
            for step in range(state.step, training.steps + 1):
                if step in wanted:
                    _keep_model(state.model, store.folder / STEPS / f"{step:07d}")
                if step == training.steps:
                    break
                watch(step, _step_(state, training))
                let_through()
                if state.step % save_every == 0:
                    write_whole(path, state.to_bytes())
        finally:
            if state.whole:
                write_whole(path, state.to_bytes())
    return state.model.eval()  # type: ignore[no-untyped-call]


def doubling_steps(steps: int) -> tuple[int, ...]:
    """Return the steps after which a model is kept if nobody says otherwise: each twice the one
    before.

    >>> doubling_steps(10_000)
    (156, 312, 625, 1250, 2500, 5000, 10000)
    """
    return tuple(sorted({steps >> i for i in range(7)} - {0}))


def read_losses(folder: str | Path) -> Float[Tensor, " steps"]:
    """Return the loss of every step that a training's folder has come to; a RunError where it holds
    no state, or a damaged one."""
    path = home(folder) / STATE
    with _readable(path), safe_open(path, "pt") as file:
        return file.get_tensor(LOSSES)[: int(file.get_tensor("step"))]


def kept_models(folder: str | Path) -> dict[int, Path]:
    """Return the models that a training kept, by the number of steps."""
    kept = (path for path in (home(folder) / STEPS).glob("[0-9]*") if path.is_dir())
    return {int(path.name): path for path in sorted(kept)}


@contextmanager
def _interrupts_held() -> Iterator[Callable[[], None]]:
    """Hold interrupts back until they are let through: from the middle of a step there is no going
    on."""
    held: list[tuple[Any, ...]] = []
    handler = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(handler):
        yield lambda: None  # nobody interrupts this thread
        return

    def let_through() -> None:
        if held:
            handler(*held.pop())

    signal.signal(signal.SIGINT, lambda *interrupt: held.append(interrupt))
    try:
        yield let_through
    finally:
        signal.signal(signal.SIGINT, handler)
    let_through()


def _step_(state: _State, training: Training) -> float:
    """Take one gradient step, and return the loss before it."""
    prompts = training.prompts(state.step)
    x, y = prompts.x.to(state.model.device), prompts.y.to(state.model.device)
    counts = range(y.shape[1]) if training.model == "gpt2" else [y.shape[1] - 1]
    for group in state.optimizer.param_groups:
        group["lr"] = training.learning_rate(state.step)
    variance, active = find_class(training.function).variance, training.stage(state.step)[0]
    errors = (state.model(x, y, counts) - y[:, list(counts)]).square()
    loss = errors.mean() / variance(training.dimension)
    value = float(loss.detach()) * variance(training.dimension) / variance(active)
    # A linear model is a polynomial: one prompt can overflow it, and its batch is passed over.
    if not math.isfinite(value) and state.step and not math.isfinite(state.losses[state.step - 1]):
        raise NotANumberError(
            f"the loss at step {state.step:,} is {value}: training came apart; begin again in"
            f" another folder, with a smaller --learning-rate than {training.rate:g}, or a longer"
            " --warmup"
        )
    state.optimizer.zero_grad()
    loss.backward()
    norm = clip_grad_norm_(state.model.parameters(), CLIPPED_NORM)
    state.whole = False
    if norm.isfinite():
        state.optimizer.step()
    state.losses[state.step] = value
    state.step += 1
    state.whole = True
    return value


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Say in one line what is wrong with a training's state."""
    try:
        yield
    except (SafetensorError, OSError, KeyError, ValueError, RuntimeError) as error:
        raise RunError(
            f"'{path}' is damaged or cannot be read ({type(error).__name__}); restore it, or choose"
            " another --out"
        ) from error


def _keep_model(model: FunctionModel, folder: Path) -> None:
    if folder.exists():
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    with drafted(folder) as draft, without_bars():
        model.save_pretrained(draft)
