"""The demo: the main job on the embedded model, and whether that model reads its demonstrations at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from eckart.anatomy import Anatomy
from eckart.cli.console import print_json, progress_bar, say, show
from eckart.cli.options import read_model
from eckart.cli.results import write_search
from eckart.demo import MODEL
from eckart.demo.corpus import TEMPLATE, tasks, write
from eckart.errors import RunError, TaskError
from eckart.evaluation import Evaluator
from eckart.models import LoadedModel
from eckart.records import Score
from eckart.reports.figures import condition_curves, draw_condition_numbers, save_figure
from eckart.reports.tables import study_report
from eckart.selection.search import Plan, run_plan
from eckart.selection.space import spectra
from eckart.tasks import Task


def run_demo(name: str, part: str, out: Path, as_json: bool) -> None:
    """Write the corpus, search, test, and show what came of it.

    Arguments:
        name: one of the demo's tasks.
        part: what is clipped.
        out: a folder for data, run and figures.
        as_json: print one JSON document instead of tables.

    Raises:
        EckartError: there is no such task or part, or the folder cannot be written.
    """
    if name not in tasks():
        raise TaskError(f"no demo task '{name}'; the tasks are {', '.join(tasks())}")
    data = _write_corpus(out)[name]
    model = read_model(str(MODEL), "float32", "cpu", False)
    shown = Evaluator(model, _task(data, name, 10), report=progress_bar)
    study = run_plan(Plan(part), shown, out / f"{name}-{part}")
    write_search(study, out / f"{name}-{part}")
    _draw_spectra(model, out)
    zero, ten = (
        _validation(Evaluator(model, _task(data, name, 0), report=progress_bar)),
        study.candidates[0].trial.score,
    )
    assert ten is not None
    if as_json:
        print_json({**study.to_json(), "zero_shot": zero.summary()})
        return
    show(study_report(study))
    show(
        f"The model reads its demonstrations: on validation, unpruned, it is right in {zero.accuracy:.3f} of "
        f"{zero.n} rows without demonstrations, and in {ten.accuracy:.3f} of {ten.n} with 10."
    )
    say(
        f"data: {data}; run: {out / f'{name}-{part}'}; figures: validation.png there, {out / 'condition-numbers.png'}"
    )


def _write_corpus(out: Path) -> dict[str, Path]:
    try:
        return write(out / "data")
    except OSError as error:
        raise RunError(
            f"'{out}' cannot be written ({error.strerror}); choose another folder with --out"
        ) from error


def _task(data: Path, name: str, shots: int) -> Task:
    return Task.load(data=data, template=TEMPLATE, label_column="label", name=f"demo-{name}", shots=shots)


def _validation(evaluator: Evaluator) -> Score:
    trial: Any = evaluator([], "validation")
    return trial.score


def _draw_spectra(model: LoadedModel, out: Path) -> None:
    curves = condition_curves(spectra(Anatomy.of(model.model)))
    save_figure(draw_condition_numbers(curves, "the demo model"), out / "condition-numbers.png")
