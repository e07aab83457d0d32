"""The options that verbs share, each described once."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from eckart.errors import EditError, RunError, TaskError
from eckart.records import RATES

if TYPE_CHECKING:
    from eckart.weights.models import LoadedModel

MODEL = "The model"
TASK = "The task"
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
        "--edit", help="LAYER:PART:RATE, such as 26:mlp:0.95; several are clipped together."
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
Dtype = Annotated[
    str,
    typer.Option(
        help="float32, bfloat16, float16, or auto: bfloat16 where the device multiplies it fast.",
        rich_help_panel=MODEL,
    ),
]
Device = Annotated[
    str, typer.Option(help="auto, cpu, cuda, cuda:1, mps, ...", rich_help_panel=MODEL)
]
DeviceMap = Annotated[
    str | None,
    typer.Option(
        help=(
            "Spread a model that is larger than one device: auto, balanced or sequential (needs"
            " accelerate)."
        ),
        rich_help_panel=MODEL,
    ),
]
RemoteCode = Annotated[
    bool,
    typer.Option(
        "--trust-remote-code",
        help="Run code that the model's repository brings.",
        rich_help_panel=MODEL,
    ),
]
TaskName = Annotated[
    str | None,
    typer.Option(
        "--task",
        help="sst2, ag_news, emo, mrpc, rte, cb, copa, or a task file (YAML).",
        rich_help_panel=TASK,
    ),
]
Data = Annotated[
    Path | None,
    typer.Option(
        help="Parquet, Arrow, JSON or CSV, or a folder with train, validation and test files.",
        rich_help_panel=TASK,
    ),
]
TextColumn = Annotated[
    str | None, typer.Option(help="The column that is read.", rich_help_panel=TASK)
]
LabelColumn = Annotated[
    str | None, typer.Option(help="The column that is predicted.", rich_help_panel=TASK)
]
Template = Annotated[
    str | None,
    typer.Option(
        help=r"The prompt, such as 'review: {{ review }}\nverdict:'.", rich_help_panel=TASK
    ),
]
Labels = Annotated[
    str | None,
    typer.Option(
        help=(
            "Label words by the column's values: 0=bad,1=good. By default the values, or the file's"
            " words."
        ),
        rich_help_panel=TASK,
    ),
]
LabelEnd = Annotated[
    str | None,
    typer.Option(
        help=r"Scored with every label, after it: '\n', say, where a label begins with another.",
        rich_help_panel=TASK,
    ),
]
Variant = Annotated[
    str | None,
    typer.Option(help="released: prompts as in the paper's released code.", rich_help_panel=TASK),
]
Shots = Annotated[
    int | None,
    typer.Option(
        help="Demonstrations in the prompt; the task's own by default.", rich_help_panel=TASK
    ),
]
Seed = Annotated[int, typer.Option(help="Draws the demonstrations.", rich_help_panel=TASK)]
SplitSeed = Annotated[
    int, typer.Option(help="Draws validation and test rows.", rich_help_panel=TASK)
]
SplitSizes = Annotated[
    str | None,
    typer.Option(
        help="Validation and test rows, as numbers (200,500) or shares (0.3,0.7).",
        rich_help_panel=TASK,
    ),
]
Unbalanced = Annotated[
    bool,
    typer.Option(
        "--unbalanced",
        help="Draw demonstrations at random, not evenly from the classes.",
        rich_help_panel=TASK,
    ),
]
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
Prompts = Annotated[
    bool,
    typer.Option(
        "--prompts", help="With each prediction, what the model read.", rich_help_panel=RUN
    ),
]
Show = Annotated[
    int,
    typer.Option(
        "--show",
        help="Print the first N prompts as the model reads them.",
        min=0,
        rich_help_panel=RUN,
    ),
]
Scoring = Annotated[
    str | None,
    typer.Option(
        help=(
            "sum (labels), mean per token (choices), byte; or calibrated: prior, contextual (less"
            " what empty prompts give), batch (less the mean over the rows)."
        ),
        rich_help_panel=RUN,
    ),
]
BatchTokens = Annotated[
    int | None,
    typer.Option(help="The most tokens in a batch; chosen by device.", min=1, rich_help_panel=RUN),
]
CacheMemory = Annotated[
    str | None,
    typer.Option(
        help=(
            "Memory for what candidates share, such as 200MB; a quarter of what is free by default."
            " The rest goes to a temporary file."
        ),
        rich_help_panel=RUN,
    ),
]
Truncate = Annotated[
    bool,
    typer.Option(
        "--truncate-demonstrations",
        help="Show fewer demonstrations in a row that is longer than the model reads.",
        rich_help_panel=RUN,
    ),
]

Floor = Annotated[
    float,
    typer.Option(
        help="The noise's variance in every direction, in the linear form's part of Theorem 2.",
        rich_help_panel=RUN,
    ),
]
DropLong = Annotated[
    bool,
    typer.Option(
        "--drop-long-rows",
        help="Leave out rows that are longer than the model reads.",
        rich_help_panel=RUN,
    ),
]


def quieten() -> None:
    """Let only our own lines be heard, not the model library's."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


def read_model(
    name: str, dtype: str, device: str, trust_remote_code: bool, device_map: str | None = None
) -> LoadedModel:
    """Load the model that the options name."""
    from eckart.weights.models import load_model

    quieten()
    return load_model(
        name, dtype=dtype, device=device, device_map=device_map, trust_remote_code=trust_remote_code
    )


def parse_labels(text: str | None) -> dict[str, str] | None:
    r"""Read `0=bad,1=good`.

    A backslash takes away what `,` and `=` mean, and begins escapes such as `\u200b`.

    >>> parse_labels("0=bad,1=good"), parse_labels(r"yes\, sir=yes,no=no")
    ({'0': 'bad', '1': 'good'}, {'yes, sir': 'yes', 'no': 'no'})
    """
    if text is None:
        return None
    pairs = [_pair.fullmatch(pair) for pair in _split_at_commas(text)]
    found: dict[str, str] = {}
    for pair in pairs:
        value, word = map(_unescaped, pair.groups()) if pair else ("", "")
        if not (value and word):
            raise TaskError(f"--labels '{text}' is not VALUE=WORD,VALUE=WORD, such as 0=bad,1=good")
        if value in found:
            raise TaskError(
                f"--labels names the value '{value}' twice, as '{found[value]}' and '{word}'; give"
                " it one word"
            )
        found[value] = word
    return found


_pair = re.compile(r"\s*((?:[^=\\]|\\.)+)=(.+)", re.DOTALL)
_escape = re.compile(r"\\(?:u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([,=\\]))")


def _split_at_commas(text: str) -> list[str]:
    """Split at the commas that no backslash stands before, unless that one has a backslash before
    it itself."""
    parts = [""]
    for piece in re.findall(r"\\.|\\$|,|[^\\,]+", text, re.DOTALL):
        if piece == ",":
            parts.append("")
        else:
            parts[-1] += piece
    return parts


def _unescaped(text: str) -> str:
    def meant(found: re.Match[str]) -> str:
        code = found[1] or found[2]
        return chr(int(code, 16)) if code and int(code, 16) < 0x110000 else found[3] or found[0]

    return _escape.sub(meant, text.strip())


def parse_memory(text: str | None) -> int | None:
    """Read `200MB`, `2GiB` or a number of bytes.

    >>> parse_memory("200MB"), parse_memory("1.5 GiB"), parse_memory("0")
    (200000000, 1610612736, 0)
    """
    if text is None:
        return None
    found = re.fullmatch(r"\s*([\d.]+)\s*([KMGT]?)(i?)B?\s*", text, re.IGNORECASE)
    try:
        number, unit, binary = found.groups() if found else ("", "", "")
        return int(float(number) * (1024 if binary else 1000) ** " KMGT".index(unit.upper() or " "))
    except ValueError:
        raise RunError(
            f"--cache-memory '{text}' is no amount of memory, such as 200MB or 4GiB"
        ) from None


def parse_rates(text: str) -> tuple[float, ...]:
    """Read `0,0.5,0.9`."""
    try:
        return tuple(float(rate) for rate in text.split(","))
    except ValueError:
        raise EditError(
            f"--rates '{text}' are not numbers joined by commas, such as 0,0.5,0.9"
        ) from None


def parse_layer(text: str) -> int | None:
    """Read a layer, or `auto` as None."""
    if text == "auto":
        return None
    try:
        return int(text)
    except ValueError:
        raise EditError(
            f"--layer '{text}' is neither auto nor a number, such as 26 or -1"
        ) from None


def parse_layers(text: str | None) -> list[int] | None:
    """Read `0,1,-1`; nothing is all of them."""
    try:
        return None if text is None else [int(layer) for layer in text.split(",")]
    except ValueError:
        raise EditError(
            f"--layers '{text}' are not whole numbers joined by commas, such as 0,1,-1"
        ) from None


def parse_steps(text: str | None) -> list[int] | None:
    """Read `500,1000`; nothing is for the verb to choose."""
    try:
        return None if text is None else [int(step) for step in text.split(",")]
    except ValueError:
        raise TaskError(
            f"--checkpoints '{text}' are not whole numbers joined by commas, such as 500,1000"
        ) from None


def parse_names(text: str | None) -> list[str] | None:
    """Read `lasso,tree`; nothing is for the verb to choose, and `none` is none of them.

    >>> parse_names("lasso, tree"), parse_names("none"), parse_names(None)
    (['lasso', 'tree'], [], None)
    """
    if text is None or text.strip() == "none":
        return None if text is None else []
    return [name.strip() for name in text.split(",")]
