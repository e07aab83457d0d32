"""The options of verbs that are declared nowhere else, and what verbs make of those that are."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from eckart.cli.flags import declared
from eckart.errors import ModelError, TaskError
from eckart.selection.plan import GuardOptions, Plan
from eckart.tasks.spec import DrawnTask
from eckart.weights.options import ModelOptions

if TYPE_CHECKING:
    from eckart.scoring.evaluator import Evaluator
    from eckart.scoring.scorer import Scorer
    from eckart.selection.guard import Guard
    from eckart.tasks import Task
    from eckart.weights.models import LoadedModel

RUN = "The run"


def flag(help_: str, *flags: str, **more: Any) -> Any:
    """Return an option by its help, and its flags where they are not its name."""
    return typer.Option(*flags, help=help_, **more)


def run_flag(help_: str, *flags: str, **more: Any) -> Any:
    return flag(help_, *flags, rich_help_panel=RUN, **more)


def number_flag(help_: str, least: int, *flags: str) -> Any:
    return flag(help_, *flags, metavar="N", min=least)


Model = Annotated[
    str,
    typer.Argument(
        help=(
            "A hub id, a folder with config.json and safetensors, or a GGUF file (a path, or"
            " hub-id:file.gguf)."
        ),
        metavar="MODEL",
    ),
]
Part = Annotated[str, declared(Plan, "part")]
Plot = Annotated[Path | None, flag("Where the figure goes (.png, .svg or .pdf).")]
Edits = Annotated[
    list[str] | None,
    flag(
        "LAYER:PART:RATE, such as 26:mlp:0.95; several are clipped together. Control arms:"
        " 26:mlp:0.95:random, or random1, ..., or largest; 26:mlp:drop.",
        "--edit",
    ),
]
As = Annotated[
    str | None,
    run_flag(
        "Quantise the clipped weights to a type of GGUF files, and dequantise them: q8_0, q4_0,"
        " f16, ...",
        "--as",
    ),
]
Split = Annotated[str, flag("validation, test, or all: every row that is no demonstration.")]
Limit = Annotated[int | None, number_flag("Read the first N rows of the split alone.", 1)]
Layers = Annotated[
    str | None, flag("Only these layers, such as 0,1,-1: negative ones from the last.")
]
DryRun = Annotated[
    bool,
    run_flag(
        "Say what the run would cost and what it could see, by counting and by reading 64"
        " rows; keep nothing.",
        "--dry-run",
    ),
]
Quick = Annotated[
    bool,
    run_flag(
        "A first look: one draw, rates 0.5 and 0.9, 40 and 60 rows, where you do not say"
        " otherwise.",
        "--quick",
    ),
]
Cluster = Annotated[
    str | None, run_flag("Score units on a Ray cluster: its address, auto, or local.")
]
Cpus = Annotated[float, run_flag("On a cluster: processors a unit takes.", metavar="N", min=0)]
Gpus = Annotated[float, run_flag("On a cluster: GPUs a unit takes.", metavar="N", min=0)]
Json = Annotated[bool, flag("Print one JSON document on standard output.", "--json")]
Out = Annotated[
    Path | None, run_flag("The run's folder; by default under runs/, named by its settings.")
]
Save = Annotated[Path | None, run_flag("Write the clipped model here, as a checkpoint.")]
Host = Annotated[str, flag("Where the page is served: an address of loopback.")]
Port = Annotated[int, flag("The page's port; 0 is any that is free.", min=0, max=65535)]
LOOKED = 400
Looked = Annotated[int, flag("How many validation rows a look reads: the first, at random.", min=2)]
Open = Annotated[bool, flag("Open the page in the browser.", "--open")]
Exported = Annotated[Path, run_flag("The folder to write: a new one, or empty.", "--out")]
Choice = Annotated[
    str | None, flag("Which of a sweep's choices, by words of its name: 'sst2, 10 shots, mlp'.")
]
Base = Annotated[str | None, flag("Where the model of a run, or of an exported folder, lies now.")]
Unclipped = Annotated[bool, flag("Write the model where a run clips nothing, too.", "--unclipped")]
Written = Annotated[
    str, flag("safetensors, as the model is; or gguf, for llama.cpp and Ollama.", "--format")
]
GgufBase = Annotated[
    str | None, flag("The GGUF file to patch, where the model is none: the same model.", "--gguf")
]
GgufTypes = Annotated[
    str | None, flag("Of edited tensors in a GGUF file: f16 (default), bf16 or q8_0.", "--type")
]
Repository = Annotated[
    str | None,
    run_flag(
        "Send the folder to this repository of the hub (NAME or OWNER/NAME), with the token"
        " of `hf auth login` or HF_TOKEN.",
        "--push-to-hub",
    ),
]
Private = Annotated[bool, run_flag("Make that repository a private one.", "--private")]
NewRows = Annotated[
    str | None,
    typer.Argument(
        help="A table (CSV, TSV, JSON Lines, parquet), or - for standard input: a table, JSON"
        " Lines, or a text a line.",
        metavar="[ROWS]",
    ),
]
Texts = Annotated[list[str] | None, flag("A text to label; or several.", "--text")]
Compare = Annotated[
    bool, flag("The unpruned model's predictions beside the clipped's.", "--compare")
]
Format = Annotated[
    str | None,
    run_flag(
        "csv, jsonl or table; by default as --out ends, a table on a terminal, or else csv.",
        "--format",
    ),
]
Interactive = Annotated[
    bool,
    flag(
        "Type texts, or pipe them in, and see what both models make of each, up to an empty line.",
        "--interactive",
    ),
]
Continue = Annotated[
    int,
    number_flag("Tokens that each model writes after a text, with --interactive.", 0, "--continue"),
]
Labelled = Annotated[
    Path | None,
    run_flag(
        "The file, new; a stopped command goes on where it was, and it is there once whole.",
        "--out",
    ),
]
Predictions = Annotated[Path | None, run_flag("Write one JSON line a row.")]
WithPrompts = Annotated[
    bool, run_flag("With each prediction, what the model read.", "--with-prompts")
]
ShowPrompts = Annotated[
    int,
    run_flag("Print the first N prompts as the model reads them.", "--show", metavar="N", min=0),
]
ScoringMethod = Annotated[
    str | None,
    run_flag(
        "sum (labels), mean per token (choices), byte; or calibrated: prior, contextual (less"
        " what empty prompts give), batch (less the mean over the rows)."
    ),
]
Turns = Annotated[
    float,
    flag("The share of rows that turn, right to wrong or back, such as 0.05; a search says it."),
]
Rows = Annotated[int | None, number_flag("Test rows.", 1)]
Draws = Annotated[int, number_flag("Draws of demonstrations that are tested.", 1)]
Between = Annotated[
    float | None, flag("The standard deviation of the gain between draws, in points, if known.")
]
Gains = Annotated[str, flag("Gains in points, joined by commas.", "--gain")]
Chance = Annotated[float, flag("The probability of telling a gain.", "--power")]
Level = Annotated[float, flag("Of the two-sided test; divide 0.05 by the number of choices.")]
Reported = Annotated[
    list[Path],
    typer.Argument(
        help="A run's folder, or several to compare with the first; or 'published' for the paper's"
        " own record.",
        metavar="RUN...",
    ),
]
Page = Annotated[
    Path | None,
    flag("The file; by default report.html in the run's folder (of several: comparison.html)."),
]
PageFormat = Annotated[
    str | None, flag("html (the default), md, csv (the cells) or json.", "--format")
]
Figures = Annotated[Path | None, flag("A folder for every figure, as PNG, SVG and PDF.")]
Rates = Annotated[str, declared(Plan, "rates")]
Metric = Annotated[str | None, declared(Plan, "metric")]
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

    return Task.of(task)


def read_draws(task: DrawnTask, plan: Plan) -> Task:
    """Return a task as a search's first draw has it.

    Raises:
        TaskError: a seed or a variant is said in two ways, or the draws are not usable.
    """
    from eckart.selection.draws import drawn_tasks

    for one, several in (("seed", "seeds"), ("variant", "templates")):
        if getattr(task, one) and getattr(plan, several):
            raise TaskError(
                f"--{one} {getattr(task, one)} names one, and --{several} several; leave out one"
                " of the two"
            )
    first, *_ = drawn_tasks(read_task(task), plan.seeds, plan.templates)
    return cast("Task", first)


def check_stored(model: str, loading: ModelOptions, kind: str | None) -> None:
    """Refuse a type of GGUF files that does not go with a model before its weights are read."""
    if kind is None:
        return
    from eckart.weights.anatomy import Anatomy
    from eckart.weights.models import empty_model
    from eckart.weights.quantised import GgufType, check_rows

    check_rows(Anatomy.of(empty_model(model, loading)), GgufType.of(kind))


def stored(evaluator: Evaluator, kind: str | None) -> Evaluator:
    """Return an evaluator of the weights as a type of GGUF files has them, if one was named."""
    from eckart.scoring.scorer import storing

    return evaluator if kind is None else storing(evaluator, kind)


def read_guard(said: GuardOptions, scorer: Scorer) -> Guard | None:
    """Return the guard that was asked for, ready to read edits; None where there is none."""
    if not said.guard:
        return None
    if scorer.stored_as:
        raise ModelError(
            f"--as {scorer.stored_as} is not guarded: the guard reads the model as it is loaded;"
            " leave out one of the two"
        )
    from eckart.selection.guard import Guard

    return Guard(scorer, said.guard_text, said.guard_task, said.guard_margin)
