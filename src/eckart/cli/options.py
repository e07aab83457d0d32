"""The options of verbs that are declared nowhere else, and what verbs make of those that are."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from eckart.cli.flags import declared
from eckart.records import RATES
from eckart.tasks.spec import DrawnTask
from eckart.weights.options import ModelOptions

if TYPE_CHECKING:
    from eckart.tasks import Task
    from eckart.weights.models import LoadedModel

RUN = "The run"

Model = Annotated[
    str,
    typer.Argument(help="A hub id, or a folder with config.json and safetensors.", metavar="MODEL"),
]
Part = Annotated[
    str, typer.Option(help="attn, mlp, all, or one matrix: q k v o gate up down fc_in fc_out.")
]
Plot = Annotated[Path | None, typer.Option(help="Where the figure goes (.png, .svg or .pdf).")]
Edits = Annotated[
    list[str] | None,
    typer.Option(
        "--edit",
        help=(
            "LAYER:PART:RATE, such as 26:mlp:0.95; several are clipped together. Control arms:"
            " 26:mlp:0.95:random, or random1, ..., or largest; 26:mlp:drop."
        ),
    ),
]
Split = Annotated[
    str, typer.Option(help="validation, test, or all: every row that is no demonstration.")
]
DEFAULT_RATES = ",".join(f"{rate:g}" for rate in RATES)
Rates = Annotated[str, typer.Option(help="Clipping rates to try; 0 is always among them.")]
Layer = Annotated[
    str, typer.Option(help="auto: by condition number; or a layer, negative from the last.")
]
Layers = Annotated[
    str | None, typer.Option(help="Only these layers, such as 0,1,-1: negative ones from the last.")
]
TopK = Annotated[
    int, typer.Option(help="auto takes the deepest of the K worst-conditioned layers.")
]
Combine = Annotated[
    str,
    typer.Option(
        help="A layer's condition number from its matrices': geometric, mean, max or min."
    ),
]
Metric = Annotated[
    str | None,
    typer.Option(
        help=(
            "Compared on validation: accuracy, balanced_accuracy or macro_f1. The task's own by"
            " default."
        )
    ),
]
Race = Annotated[
    bool,
    typer.Option(
        "--race",
        help=(
            "Stop reading a rate once it is clearly beaten; the choice is the same, 19 times in 20."
        ),
    ),
]
Controls = Annotated[
    bool,
    typer.Option(
        "--controls",
        help=(
            "Test the choice beside its control arms: random directions, the largest, and the part"
            " dropped."
        ),
    ),
]
DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run",
        help=(
            "Say what the run would cost, by counting and by timing each model on 64 rows; keep"
            " nothing."
        ),
        rich_help_panel=RUN,
    ),
]
Cluster = Annotated[
    str | None,
    typer.Option(
        help="Score units on a Ray cluster: its address, auto, or local.", rich_help_panel=RUN
    ),
]
Cpus = Annotated[
    float, typer.Option(help="On a cluster: processors a unit takes.", min=0, rich_help_panel=RUN)
]
Gpus = Annotated[
    float, typer.Option(help="On a cluster: GPUs a unit takes.", min=0, rich_help_panel=RUN)
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output.")]
Out = Annotated[
    Path | None,
    typer.Option(
        help="The run's folder; by default under runs/, named by its settings.", rich_help_panel=RUN
    ),
]
Save = Annotated[
    Path | None,
    typer.Option(help="Write the clipped model here, as a checkpoint.", rich_help_panel=RUN),
]
Predictions = Annotated[
    Path | None, typer.Option(help="Write one JSON line a row.", rich_help_panel=RUN)
]
WithPrompts = Annotated[
    bool,
    typer.Option(
        "--prompts", help="With each prediction, what the model read.", rich_help_panel=RUN
    ),
]
ShowPrompts = Annotated[
    int,
    typer.Option(
        "--show",
        help="Print the first N prompts as the model reads them.",
        min=0,
        rich_help_panel=RUN,
    ),
]
ScoringMethod = Annotated[
    str | None,
    typer.Option(
        help=(
            "sum (labels), mean per token (choices), byte; or calibrated: prior, contextual (less"
            " what empty prompts give), batch (less the mean over the rows)."
        ),
        rich_help_panel=RUN,
    ),
]
Device = Annotated[str, declared(ModelOptions, "device")]
RemoteCode = Annotated[bool, declared(ModelOptions, "trust_remote_code")]


def quieten() -> None:
    """Let only our own lines be heard, not the model library's."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


def read_model(name: str, loading: ModelOptions) -> LoadedModel:
    """Load a model, with nothing said but by ourselves."""
    from eckart.weights.models import load_model

    quieten()
    return load_model(name, **loading.only(ModelOptions))


def read_task(task: DrawnTask) -> Task:
    from eckart.tasks import Task

    said = task.only(DrawnTask)
    return Task.load(said.pop("task"), **said)
