"""What a finished search leaves behind: tables, figures, a checkpoint."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from rich.console import Console

from eckart.checkpoints import export
from eckart.cli.console import print_json, say, show
from eckart.reports.figures import draw_rates, rate_points, save_figure
from eckart.reports.tables import study_report
from eckart.runs import write_whole
from eckart.selection import Study


def finish_search(study: Study, folder: Path, save: Path | None, as_json: bool) -> None:
    """Write the result as text and figure into the run's folder, save the clipped model, and print."""
    write_search(study, folder)
    saved: dict[str, Any] | None = None
    if save is not None:
        kept = export(study, save)
        saved = {
            "path": str(kept.path),
            "dtype": kept.dtype,
            "accuracy": kept.score.accuracy,
            "predictions_turned_by_clipping": kept.turned,
            "predictions_changed": kept.changed,
            "largest_change": kept.largest_change,
            "run_dtype": study.scorer.model.dtype,
            "written_before": kept.before,
        }
    if as_json:
        print_json({**study.to_json(), "run": str(folder), **({"saved": saved} if saved else {})})
        return
    show(study_report(study))
    say(f"run: {folder} (result.json, result.txt, validation.png)")
    if saved:
        say(_saved_line(saved))


def _saved_line(saved: dict[str, Any]) -> str:
    """Say what was saved, and keep apart what clipping turned and what rounding did."""
    clipping, rounding = saved["predictions_turned_by_clipping"], saved["predictions_changed"]
    before = " before, by the same command" * saved["written_before"]
    hint = (
        "; with --dtype float32 rounding turns fewer" if rounding and saved["run_dtype"] != "float32" else ""
    )
    return (
        f"saved{before}: {saved['path']} in {saved['dtype']}; loaded again and scored again on the test rows: accuracy "
        f"{saved['accuracy']:.4f}. Of the unpruned model's predictions clipping turned {clipping}; of the clipped "
        f"model's, rounding to {saved['dtype']} turned {rounding}{hint}"
    )


def write_search(study: Study, folder: Path) -> None:
    """Write `result.txt` and `validation.png`."""
    text = io.StringIO()
    Console(file=text, width=120, markup=False, emoji=False).print(study_report(study), highlight=False)
    write_whole(folder / "result.txt", text.getvalue().encode())
    score = study.chosen.trial.labelled
    assert score is not None
    title = f"{Path(study.settings['model']).name} on {study.settings['task']}: {study.part} of layer {study.layer}"
    figure = draw_rates(rate_points(study), study.rate, score.majority_rate, title)
    save_figure(figure, folder / "validation.png")
