"""What a finished search leaves behind: tables, figures, a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from eckart.cli.console import print_json, say, show
from eckart.exports.dense import Saved, export
from eckart.files import write_whole
from eckart.reports.figures import draw_rates, rate_points, save_figure
from eckart.reports.results import study_report
from eckart.reports.terminal import as_text
from eckart.selection.study import Study


def finish_search(study: Study, folder: Path, save: Path | None, as_json: bool) -> None:
    """Write the result as text and figure into the run's folder, save the clipped model, and
    print."""
    write_search(study, folder)
    kept = None if save is None else export(study, save)
    if as_json:
        print_json(
            {
                **study.to_json(),
                "run": str(folder),
                **({"saved": _document(kept, study)} if kept else {}),
            }
        )
        return
    show(study_report(study))
    say(f"run: {folder} (result.json, result.txt, validation.png)")
    if kept:
        say(saved_sentences(kept, study))


def saved_sentences(saved: Saved, study: Study) -> str:
    """Say where a model was saved, and what clipping turned apart from what rounding to the stored
    dtype turned."""
    n, dtype = saved.score.n, study.settings["dtype"]
    clipping = (
        f"clipping turned {study.turned} of {n} (unpruned against clipped, both in {dtype})"
        if study.rate
        else "nothing was clipped"
    )
    return (
        f"saved{' before, by the same command' * saved.before}: {saved.path} in {saved.dtype};"
        f" loaded again and scored again on the same {n} test rows: accuracy"
        f" {saved.score.accuracy:.4f}\npredictions: {clipping}; apart from that, rounding to"
        f" {saved.dtype} turned {saved.changed} of {n} (as scored against as stored; ranked values"
        f" moved by up to {saved.largest_change:.2g} nats)"
    )


def _document(saved: Saved, study: Study) -> dict[str, Any]:
    return {
        "path": str(saved.path),
        "dtype": saved.dtype,
        "accuracy": saved.score.accuracy,
        "predictions_changed": saved.changed,
        "predictions_turned_by_clipping": study.turned,
        "largest_change": saved.largest_change,
        "written_before": saved.before,
    }


def write_search(study: Study, folder: Path) -> None:
    """Write `result.txt` and `validation.png`."""
    write_whole(folder / "result.txt", as_text(study_report(study)).encode())
    score = study.chosen.trial.labelled
    assert score is not None
    title = (
        f"{Path(study.settings['model']).name} on {study.settings['task']}: {study.part} of layer"
        f" {study.layer}"
    )
    figure = draw_rates(rate_points(study), study.rate, score.majority_rate, title)
    save_figure(figure, folder / "validation.png")
