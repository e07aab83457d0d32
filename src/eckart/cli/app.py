"""The verbs. Heavy libraries are imported inside them, so that `eckart --help` answers at once."""

from __future__ import annotations

import json
import sys
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from eckart.cli import options as o
from eckart.cli.console import answer, progress_bar, say, say_run, show, typed
from eckart.cli.flags import finish_verbs, parse_numbers, such_as, with_options
from eckart.cli.out import apply, export, predict
from eckart.cli.paper.functions import functions
from eckart.cli.paper.theory import theory
from eckart.cli.runs import carry_out, run_spectrum, show_plan, show_study
from eckart.errors import EditError
from eckart.records import Edit, Split
from eckart.selection.plan import GuardOptions, Plan, listed
from eckart.sweeps.grid import Grid
from eckart.tasks.spec import DrawnTask, TaskOptions
from eckart.weights.options import ModelOptions, ReadingOptions

if TYPE_CHECKING:
    from eckart.scoring.evaluator import Evaluator
    from eckart.tasks import Task

app = typer.Typer(
    name="eckart",
    help=(
        "Make a language model better at your task, without training, by cutting singular values;"
        " and know honestly whether it helped."
    ),
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)
app.add_typer(theory)
app.add_typer(functions)

FIRST = """eckart clips singular values out of a model's matrices, and says whether that helped.

Try first:
  eckart demo                     a whole search, on a model that comes with the package
  eckart inspect MODEL            a hub id, a folder, or a GGUF file: its layers and matrices
  eckart evaluate MODEL --data reviews.csv --text-column review --label-column verdict --show 2
                                  what the model reads of your table, and how often it is right
  eckart search -h                what a search may be asked; `eckart -h` lists all verbs

eckart --install-completion completes verbs and options in your shell."""


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[bool, o.flag("Print the version.", "--version")] = False,
) -> None:
    if version:
        typer.echo(metadata.version("eckart"))
    elif context.invoked_subcommand is None:
        typer.echo(FIRST)


@app.command(epilog=such_as("eckart inspect MODEL"))
def inspect(model: o.Model, json_: o.Json = False, trust_remote_code: o.RemoteCode = False) -> None:
    """Show a model's layers and matrices: parts, shapes, what is fused or tied. Reads no
    weights."""
    from eckart.reports.results import anatomy_document, anatomy_table
    from eckart.weights.anatomy import Anatomy
    from eckart.weights.models import empty_model

    options = ModelOptions(trust_remote_code=trust_remote_code)
    document = anatomy_document(model, Anatomy.of(empty_model(model, options)))
    answer(json_, document, anatomy_table(document))


@app.command(epilog=such_as("eckart spectrum MODEL --part mlp --plot condition-numbers.png"))
def spectrum(
    model: o.Model,
    part: o.Part = "all",
    layers: o.Layers = None,
    plot: o.Plot = None,
    out: o.Out = None,
    json_: o.Json = False,
    device: o.Device = "auto",
    trust_remote_code: o.RemoteCode = False,
) -> None:
    """Print the condition number of every matrix, and draw them by layer (Figure 3 of the paper).

    Matrices are read from the checkpoint one at a time and kept as they are done: a stopped command
    goes on.
    """
    chosen = None if layers is None else parse_numbers(layers, "--layers", "0,1,-1")
    from eckart.reports.figures import check_figure_path
    from eckart.runs import folder_name
    from eckart.weights.stored import StoredWeights

    folder = out or Path("runs") / f"{folder_name(model)}-spectrum"
    figure = plot or folder / "condition-numbers.png"
    if plot is not None:
        check_figure_path(plot)
    o.quieten()
    stored = StoredWeights.of(model, ModelOptions(trust_remote_code=trust_remote_code))
    run_spectrum(stored, part, chosen, device, folder, figure, as_json=json_)


@app.command(
    epilog=such_as(
        "eckart evaluate MODEL --data reviews.csv --text-column review --label-column verdict",
        "eckart evaluate MODEL --task sst2 --edit -1:mlp:0.95",
    )
)
@with_options()
def evaluate(
    model: o.Model,
    edit: o.Edits = None,
    as_: o.As = None,
    split: o.Split = "validation",
    limit: o.Limit = None,
    predictions: o.Predictions = None,
    prompts: o.WithPrompts = False,
    show_prompts: o.ShowPrompts = 0,
    scoring: o.ScoringMethod = None,
    json_: o.Json = False,
    *,
    guard: GuardOptions,
    task: DrawnTask,
    reading: ReadingOptions,
    loading: ModelOptions,
) -> None:
    """Score a model on a task, with any number of edits at once, beside the unpruned model."""
    chosen = [Edit.parse(text) for text in edit or []]
    if guard.guard and not chosen:
        raise EditError("--guard says what else an edit does, and there is none; add --edit")
    rows = o.read_task(task)
    from eckart.reports.results import evaluation_report, prompts_report

    if predictions is not None:
        from eckart.files import check_writable, write_whole

        check_writable(predictions)
    o.check_stored(model, loading, as_)
    evaluator = o.stored(_evaluator(model, rows, scoring, reading, loading), as_)
    guarding = o.read_guard(guard, evaluator)
    rows_read = evaluator.fitted(split).prompts  # before the model reads them
    if show_prompts and not json_:
        show(prompts_report(rows_read[:show_prompts]))
    if limit is not None and limit < len(rows_read):
        split = Split.part(split, 0, limit)
    evaluation = evaluator.evaluate(chosen, split)
    guarded = None if guarding is None else guarding.look(chosen)
    if predictions is not None:
        lines = [json.dumps(row, ensure_ascii=False) for row in evaluation.rows(prompts)]
        write_whole(predictions, ("\n".join(lines) + "\n").encode())
        say(f"predictions: {predictions}")
    more = {"guard": guarded.to_json()} if guarded else {}
    report = evaluation_report(evaluation, guarded)
    answer(json_, {**evaluation.to_json(), **more}, report)


@app.command(
    epilog=such_as(
        "eckart search MODEL --task sst2 --dry-run",
        "eckart search MODEL --task verdicts.yaml --shots 4 --rivals --out runs/verdicts",
    )
)
@with_options({"rates": None})
def search(
    model: o.Model,
    out: o.Out = None,
    save: o.Save = None,
    dry_run: o.DryRun = False,
    scoring: o.ScoringMethod = None,
    json_: o.Json = False,
    *,
    plan: Plan,
    guard: GuardOptions,
    task: DrawnTask,
    reading: ReadingOptions,
    loading: ModelOptions,
) -> None:
    """Algorithm 1: choose the layer by condition number or another screen, the rate on validation,
    and test the choice once."""
    rows = o.read_draws(task, plan)
    from eckart.cli.results import finish_search
    from eckart.exports.dense import check_target
    from eckart.selection.screens import check_layer
    from eckart.selection.search import run_plan
    from eckart.selection.settings import default_folder

    check_layer(plan.layer)
    if save is not None:
        check_target(save)
    evaluator = _evaluator(model, rows, scoring, reading, loading)
    if save is not None:
        check_target(save, evaluator.model)
    guarding = o.read_guard(guard, evaluator)
    folder = out or default_folder(plan, evaluator)
    if dry_run:
        show_plan(plan, evaluator, folder, as_json=json_)
        return
    say_run(folder)
    result = run_plan(plan, evaluator, folder, tell=say, command=typed(), guard=guarding)
    finish_search(result, evaluator, folder, save, as_json=json_)


def _evaluator(
    model: str,
    task: Task,
    scoring: str | None,
    reading: ReadingOptions,
    loading: ModelOptions,
) -> Evaluator:
    from eckart.scoring.evaluator import Evaluator

    return Evaluator(
        o.read_model(model, loading),
        task,
        scoring=scoring,
        **reading.only(ReadingOptions),
        progress=progress_bar,
    )


@app.command(
    epilog=such_as(
        "eckart sweep MODEL --task verdicts.yaml --layers 0,-1 --rates 0.5,0.9 --dry-run",
        "eckart sweep figure3-small --model MODEL",
    )
)
@with_options(helps={"data": "The task's data; of several tasks, a folder with one for each."})
def sweep(
    source: Annotated[
        str | None,
        typer.Argument(
            help=(
                "A model, as of every verb; or a study: a file (.yaml), or one that comes with the"
                " package, such as figure1-small."
            ),
            metavar="[MODEL|STUDY]",
        ),
    ] = None,
    metric: o.Metric = None,
    out: o.Out = None,
    dry_run: o.DryRun = False,
    quick: o.Quick = False,
    cluster: o.Cluster = None,
    cpus: o.Cpus = 1,
    gpus: o.Gpus = 0,
    json_: o.Json = False,
    *,
    said: Annotated[dict[str, Any], Grid, GuardOptions, TaskOptions, ReadingOptions, ModelOptions],
) -> None:
    """Run a grid over models, tasks, layers, parts, rates, shots, seeds and scorings; stop and go
    on at will."""
    from eckart.sweeps.cluster import on_cluster
    from eckart.sweeps.files import QUICK, is_study, read_study, with_model
    from eckart.sweeps.sources import Sources, settle
    from eckart.sweeps.sweep import default_folder, locally

    said |= {} if metric is None else {"metric": metric}
    if "task" in said:
        said["tasks"] = [*listed(said.get("tasks", [])), said.pop("task")]
    if source is not None and not is_study(source):
        said = with_model(source, said)
        source = None
    grid = read_study(source, {**QUICK, **said} if quick else said)
    execute = locally if cluster is None else on_cluster(cluster, cpus, gpus)
    o.quieten()
    say(
        "units to check (models, layers, parts, tasks, the length of every row):"
        f" {len(list(grid.units))}"
    )
    sources = Sources()  # one for all that follows: a task's rows are read once
    grid = settle(grid, sources)
    folder = out or default_folder(grid)
    if dry_run:
        show_study(grid, folder, sources, as_json=json_)
    else:
        carry_out(grid, folder, sources, execute, as_json=json_)


@app.command(epilog=such_as("eckart explore MODEL --task sst2 --shots 4"))
@with_options({"guard": True})
def explore(
    model: o.Model,
    out: o.Out = None,
    host: o.Host = "127.0.0.1",
    port: o.Port = 0,
    open_: o.Open = False,
    rows: o.Looked = o.LOOKED,
    scoring: o.ScoringMethod = None,
    json_: o.Json = False,
    *,
    guard: GuardOptions,
    task: DrawnTask,
    reading: ReadingOptions,
    loading: ModelOptions,
) -> None:
    """Open a page on this machine to play with: move a rate, see at once what it does to a task's
    validation rows, and test one choice."""
    from eckart.cli.explore.server import listening, serve

    with listening(host, port) as bound:
        read = o.read_task(task)
        from eckart.cli.explore.elsewhere import Elsewhere
        from eckart.cli.explore.explorer import Explorer

        same = Elsewhere(tuple(sys.argv[1:]), model, task, scoring, reading, loading, guard)
        evaluator = _evaluator(model, read, scoring, reading, loading)
        explorer = Explorer(evaluator, same, guard, out, rows)
        say_run(explorer.folder)
        serve(explorer, bound, open_, as_json=json_)


for verb, example in (
    (export, "eckart export RUN --out written --unclipped"),
    (apply, "eckart apply clipped/eckart.json MODEL --out again"),
    (predict, "eckart predict RUN new.csv --out labelled.csv"),
):
    app.command(epilog=such_as(example))(verb)


@app.command(epilog=such_as("eckart power --rows 500 --turns 0.1"))
def power(
    turns: o.Turns,
    rows: o.Rows = None,
    draws: o.Draws = 1,
    between: o.Between = None,
    gain: o.Gains = "1,2,5",
    chance: o.Chance = 0.8,
    level: o.Level = 0.05,
    json_: o.Json = False,
) -> None:
    """Say which gains some test rows can show, and how many rows a gain needs. Reads no model."""
    from eckart.statistics.power import Design, Outlook

    differ = None if between is None else between / 100
    points = parse_numbers(gain, "--gain", "1,2,5", float, "points")
    gains = tuple(number / 100 for number in points)
    outlook = Outlook(Design(turns, draws, differ, level), rows, gains, chance)
    answer(json_, outlook.to_json(), *filter(None, (str(outlook), outlook.had())))


@app.command(epilog=such_as("eckart report RUN", "eckart report published --out paper.html"))
def report(
    runs: o.Reported,
    out: o.Page = None,
    format_: o.PageFormat = None,
    figures: o.Figures = None,
    open_: o.Open = False,
    json_: o.Json = False,
) -> None:
    """Write what a search, a sweep or a spectrum found, and how sure it is, as one page that needs
    no network; or put several runs beside the first."""
    from eckart.cli.results import run_published, run_report

    if [*map(str, runs)] == ["published"] and not runs[0].exists():
        run_published(out, format_, figures, as_json=json_, open_=open_)
        return
    run_report(runs, out, format_ or "html", figures, json_, open_)


@app.command()
def demo(
    task: Annotated[str, o.flag("mood, topic, weather, who, or time.")] = "mood",
    part: o.Part = "mlp",
    shots: Annotated[int, o.flag("Demonstrations in the prompt.", metavar="N", min=0, max=10)] = 2,
    out: Annotated[Path, o.flag("Where data, run and figures go.")] = Path("eckart-demo"),
    json_: o.Json = False,
) -> None:
    """Algorithm 1 end to end on an embedded model and generated texts, in about a minute."""
    from eckart.cli.demo import run_demo

    run_demo(task, part, shots, out, as_json=json_)


finish_verbs(app)
