"""The verbs of what leaves the program: models as files, and labels of new rows."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from eckart.cli import options as o
from eckart.cli.console import answer, progress_bar, say, typed
from eckart.cli.flags import with_options
from eckart.errors import EditError
from eckart.records import Edit
from eckart.tasks.spec import DrawnTask
from eckart.weights.options import ModelOptions, ReadingOptions


@with_options()
def export(
    source: Annotated[
        str,
        typer.Argument(help="A finished run's folder; or a model to clip.", metavar="RUN|MODEL"),
    ],
    out: o.Exported,
    edit: o.Edits = None,
    choice: o.Choice = None,
    base: o.Base = None,
    unclipped: o.Unclipped = False,
    format_: o.Written = "safetensors",
    gguf: o.GgufBase = None,
    type_: o.GgufTypes = None,
    push_to_hub: o.Repository = None,
    private: o.Private = False,
    scoring: o.ScoringMethod = None,
    json_: o.Json = False,
    *,
    task: DrawnTask,
    reading: ReadingOptions,
    loading: ModelOptions,
) -> None:
    """Write a clipped model as files that others load, with its prompt, its recipe and a model
    card: what a run chose, or one's own edits. Only the clipped matrices are read."""
    from eckart.cli.results import run_export
    from eckart.exports.dense import export as write
    from eckart.exports.folder import check_repository

    o.quieten()
    if push_to_hub is not None:
        check_repository(push_to_hub)
    elif private:
        raise EditError("--private is of a repository; add --push-to-hub, or leave it out")
    scored = task.task is not None or task.data is not None
    rows = o.read_task(task) if scored else None
    how: dict[str, Any] = {}
    if scored:
        how = {"scoring": scoring, "progress": progress_bar, **reading.only(ReadingOptions)}
    saved = write(
        source,
        out,
        base,
        rows,
        edits=edit or [],
        choice=choice,
        unclipped=unclipped,
        format=format_,
        gguf=gguf,
        type_=type_,
        command=typed(),
        **loading.only(ModelOptions),
        **how,
    )
    run_export(saved, push_to_hub, private, as_json=json_)


def apply(
    recipe: Annotated[
        Path, typer.Argument(help="An eckart.json, or a folder that holds one.", metavar="RECIPE")
    ],
    out: o.Exported,
    model: Annotated[
        str | None,
        typer.Argument(help="Where the base model lies, if elsewhere.", metavar="[MODEL]"),
    ] = None,
    inexact: Annotated[
        bool,
        o.flag("Keep clipped matrices that are rounded otherwise on this machine.", "--inexact"),
    ] = False,
    json_: o.Json = False,
    trust_remote_code: o.RemoteCode = False,
) -> None:
    """Make an exported folder again, from its recipe and the base model; every byte is checked."""
    from eckart.exports.folder import apply as make

    o.quieten()
    code = trust_remote_code
    other: list[str] = []
    made = make(recipe, out, model, trust_remote_code=code, inexact=inexact, tell=other.append)
    for line in other:
        say(line)
    how = "not byte for byte as in the recipe" if other else "byte for byte as in the recipe"
    document = {"path": str(out), **made.model_dump(mode="json")}
    said = f"{out}: {made.model} with {', '.join(made.edits) or 'nothing'} clipped, {how}"
    answer(json_, document, said)


@with_options()
def predict(
    source: Annotated[
        str,
        typer.Argument(
            help="A finished run's folder, a folder that export wrote, or a model.",
            metavar="RUN|FOLDER|MODEL",
        ),
    ],
    rows: o.NewRows = None,
    text: o.Texts = None,
    edit: o.Edits = None,
    compare: o.Compare = False,
    choice: o.Choice = None,
    base: o.Base = None,
    format_: o.Format = None,
    out: o.Labelled = None,
    interactive: o.Interactive = False,
    continue_: o.Continue = 16,
    scoring: o.ScoringMethod = None,
    json_: o.Json = False,
    *,
    task: DrawnTask,
    reading: ReadingOptions,
    loading: ModelOptions,
) -> None:
    """Label new rows: of a table, of standard input (-), or --text. With labels of their own or
    without."""
    from eckart.cli import predict as p
    from eckart.exports.predictions import labeller_of
    from eckart.exports.predictions import predict as label

    form = p.check_format(format_, out)
    if out is not None:
        p.check_place(out)
    asked = None if interactive else p.new_rows(rows, text or [])
    o.quieten()
    said = o.read_task(task) if task.task is not None or task.data is not None else None
    found = source, [Edit.parse(each) for each in edit or []]
    how = {"scoring": scoring, "choice": choice, "base": base, **reading.only(ReadingOptions)}
    loads = loading.only(ModelOptions)
    if asked is None:
        labeller = labeller_of(found[0], said, found[1], loading=loads, **how)
        p.run_interactive(labeller, continue_, as_json=json_)
        return
    predictions = label(found[0], asked, said, found[1], compare=compare, **how, **loads)
    p.run_predict(predictions, out, form, as_json=json_)
