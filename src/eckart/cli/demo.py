"""The demo: the main job on the embedded model, and whether that model reads its demonstrations at
all."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from eckart.cli.console import print_json, progress_bar, say, say_run, show
from eckart.cli.options import read_model
from eckart.cli.results import write_search
from eckart.demo import MODEL
from eckart.demo.corpus import TEMPLATE, tasks, write
from eckart.errors import RunError, TaskError
from eckart.reports.figures import condition_curves, draw_condition_numbers, save_figure
from eckart.reports.shown import report_of
from eckart.scoring.evaluator import Evaluator
from eckart.selection.plan import Plan
from eckart.selection.search import run_plan
from eckart.statistics.scores import Score
from eckart.tasks import Task
from eckart.weights.anatomy import Anatomy
from eckart.weights.models import LoadedModel
from eckart.weights.options import ModelOptions
from eckart.weights.spectrum import matrices, spectra


def run_demo(name: str, part: str, shots: int, out: Path, as_json: bool) -> None:
    """Write the corpus, search, test, and show what came of it.

    Arguments:
        name: one of the demo's tasks.
        part: what is clipped.
        shots: demonstrations in the prompt.
        out: a folder for data, run and figures.
        as_json: print one JSON document instead of tables.

    Raises:
        EckartError: there is no such task or part, or the folder cannot be written.
    """
    if name not in tasks():
        raise TaskError(f"no demo task '{name}'; the tasks are {', '.join(tasks())}")
    data = _write_corpus(out)[name]
    loaded = read_model(str(MODEL), ModelOptions(dtype="float32", device="cpu"))
    model = replace(loaded, name="demo model", live=True)
    run = out / f"{name}-{part}-{shots}-shots"
    say_run(run)
    result = run_plan(
        Plan(part=part), Evaluator(model, _task(data, name, shots), progress=progress_bar), run
    )
    write_search(result, run)
    _draw_spectra(model, out)
    by_shots = {n: _unpruned(model, _task(data, name, n)) for n in (0, 10)}
    if as_json:
        print_json(
            {
                **result.to_json(),
                "unpruned": {str(n): score.summary() for n, score in by_shots.items()},
            }
        )
        return
    show(report_of(result))
    show(
        f"Does the model read its demonstrations? Unpruned, on {by_shots[0].n} validation rows, it"
        f" is right in {by_shots[0].accuracy:.3f} of them without demonstrations, and in"
        f" {by_shots[10].accuracy:.3f} with 10."
    )
    say(f"data: {data}; figures: {run / 'validation.png'}, {out / 'condition-numbers.png'}")


def _write_corpus(out: Path) -> dict[str, Path]:
    try:
        return write(out / "data")
    except OSError as error:
        raise RunError(
            f"'{out}' cannot be written ({error.strerror}); choose another folder with --out"
        ) from error


def _task(data: Path, name: str, shots: int) -> Task:
    return Task.load(
        data=data, template=TEMPLATE, label_column="label", name=f"demo-{name}", shots=shots
    )


def _unpruned(model: LoadedModel, task: Task) -> Score:
    say(f"the unpruned model with {task.shots} demonstrations, to see whether it reads them:")
    score = Evaluator(model, task, progress=progress_bar)([], "validation").labelled
    assert score is not None
    return score


def _draw_spectra(model: LoadedModel, out: Path) -> None:
    curves = condition_curves(spectra(matrices(Anatomy.of(model.model))))
    save_figure(draw_condition_numbers(curves, "the demo model"), out / "condition-numbers.png")
