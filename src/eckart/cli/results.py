"""The result of a search and the report of a run: tables, figures, a checkpoint, a page."""

from __future__ import annotations

import sys
import webbrowser
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eckart.cli.console import print_json, say, show, typed
from eckart.errors import RunError
from eckart.files import write_whole
from eckart.reports.claims import published_table
from eckart.reports.compared import read_comparison
from eckart.reports.figures import draw_rates, rate_points, save_figure
from eckart.reports.page import published_page, read_report
from eckart.reports.results import record_report
from eckart.reports.shown import report_of
from eckart.reports.terminal import as_text, utf8
from eckart.selection.result import GreedyResult, SearchResult
from eckart.selection.tested import Tested

if TYPE_CHECKING:
    from eckart.exports.dense import Saved
    from eckart.scoring.scorer import Scorer


def finish_search(
    result: SearchResult | GreedyResult,
    scorer: Scorer,
    folder: Path,
    save: Path | None,
    as_json: bool,
) -> None:
    """Write the result as text and figure into the run's folder, save the clipped model where
    anything was clipped, and print."""
    written = write_search(result, folder)
    kept = None
    if save is not None and result.edits:
        from eckart.exports.dense import save_clipped  # torch, which a report does without

        kept = save_clipped(result, scorer, save, typed())
    if as_json:
        print_json(
            {
                **result.to_json(),
                "run": str(folder),
                **({"saved": kept and _document(kept, result)} if save is not None else {}),
            }
        )
        return
    show(report_of(result))
    say(f"run: {folder} (result.json, {', '.join(written)})")
    if kept:
        say(saved_sentences(kept, result))
    elif save is not None:
        say(
            f"nothing was clipped, so nothing was saved: {save} would be the same model again;"
            f" eckart export {folder} --out {save} --unclipped writes it, with its prompt"
        )


def saved_sentences(saved: Saved, result: Tested) -> str:
    """Say where a model was saved, and what clipping turned apart from what rounding to the stored
    dtype turned."""
    assert saved.score is not None
    n, dtype = saved.score.n, result.settings["dtype"]
    first = " under the first draw" if len(result.clipped.trials) > 1 else ""
    return (
        f"saved{' before, by the same command' * saved.before}: {saved.path} in {saved.dtype};"
        f" loaded again and scored again on the same {n} test rows{first}: accuracy"
        f" {saved.score.accuracy:.4f}\npredictions: clipping turned {result.turned} of"
        f" {n} (unpruned against clipped, both in {dtype}); apart from that, rounding to"
        f" {saved.dtype} turned {saved.changed} of {n} (as scored against as stored; ranked values"
        f" moved by up to {saved.largest_change:.2g} nats)"
    )


def _document(saved: Saved, result: Tested) -> dict[str, Any]:
    assert saved.score is not None
    return {
        "path": str(saved.path),
        "dtype": saved.dtype,
        "accuracy": saved.score.accuracy,
        "predictions_changed": saved.changed,
        "predictions_turned_by_clipping": result.turned,
        "largest_change": saved.largest_change,
        "written_before": saved.before,
    }


def run_export(saved: Saved, repo: str | None, private: bool, as_json: bool) -> None:
    """Send an exported folder to the hub, if it is to go there, and say what was written."""
    from eckart.exports.folder import push

    recipe = saved.recipe
    assert recipe is not None
    address = None if repo is None else push(saved.path, repo, private=private)
    for note in saved.notes:
        say(f"note: {note}")
    if as_json:
        sent = {} if address is None else {"hub": address}
        print_json({"path": str(saved.path), **sent, **recipe.model_dump(mode="json")})
        return
    for scores in filter(None, (recipe.scores, recipe.as_written)):
        for sentence in scores.says:
            show(sentence)
    if recipe.gguf is not None:
        show(str(recipe.gguf))
    clipped = ", ".join(recipe.edits) or "nothing"
    show(
        f"{saved.path}: {recipe.model} with {clipped} clipped, stored in {saved.dtype};"
        f" {len(recipe.files) + 2} files, by their SHA-256 in SHA256SUMS"
    )
    if address is not None:
        show(f"on the hub: {address}")


def write_search(result: SearchResult | GreedyResult, folder: Path) -> list[str]:
    """Write `result.txt`, and of Algorithm 1 `validation.png`; return their names."""
    write_whole(folder / "result.txt", utf8(as_text(report_of(result))))
    if isinstance(result, GreedyResult):
        return ["result.txt"]
    score = result.chosen.trial.score
    assert score is not None
    model = Path(result.settings["model"]).name
    title = f"{model} on {result.settings['task']}: {result.part} of layer {result.layer}"
    majority = score.summary()["majority_rate"]
    figure = draw_rates(rate_points(result), result.rate, majority, title)
    save_figure(figure, folder / "validation.png")
    return ["result.txt", "validation.png"]


def run_report(
    runs: Sequence[Path],
    out: Path | None,
    name: str,
    figures: Path | None,
    as_json: bool,
    open_: bool = False,
) -> None:
    """Write a run's report and figures, or several runs', and say what was found.

    Arguments:
        runs: their folders; the others are compared with the first.
        out: the file; by default `report.html` (or `.md`, `.csv`, `.json`) in the run's folder,
            `comparison.html` in the first's where there are several.
        name: the format.
        figures: a folder for every figure; None for none.
        as_json: print everything as one JSON document, and write only what was asked for by name.
        open_: show the page in the browser.

    Raises:
        RunError: there is no run, it is damaged or in use, or a file cannot be written; or what is
            to be opened is no page.
    """
    one = len(runs) == 1
    stem = "report" if one else "comparison"
    path = out or (None if as_json else runs[0] / f"{stem}.{name}")
    if open_ and (path is None or name != "html"):
        raise RunError("--open shows a page; leave out --json, and --format but for html")
    report = read_report(runs[0], path, name) if one else read_comparison(runs, path, name)
    if path is not None:
        report.write(path, name)
        say(f"report: {path}")
    if figures is not None:
        written = report.write_figures(figures)
        say(f"figures: {figures} ({len(written)} files)")
    if as_json:
        print_json(report.to_json())
        return
    for sentence in report.summary:
        show(sentence)
    if open_ and path is not None and not webbrowser.open(path.resolve().as_uri()):
        say(f"note: no browser was found here; open {path}")


def run_published(
    out: Path | None,
    name: str | None,
    figures: Path | None,
    as_json: bool,
    open_: bool = False,
) -> None:
    """Print the published record with its certainty, or write it into a file.

    Arguments:
        out: the file; None to print.
        name: the format; without one a page is written, and a table printed.
        figures: refused, for there are none.
        as_json: the format is JSON.
        open_: refused, for the record is read in the terminal unless it is written.

    Raises:
        RunError: figures or a browser were asked for, the format is unknown, or the file cannot be
            written.
    """
    if figures is not None:
        raise RunError("the published record has no figures; leave out --figures")
    if open_:
        raise RunError("--open is of a run's report; write this with --out FILE.html, and open it")
    form = "json" if as_json else name
    if out is not None:
        write_whole(out, published_page(form or "html").encode())
        say(f"published results: {out}")
    elif form is not None:
        sys.stdout.write(published_page(form))
    else:
        show(record_report(published_table().rows))
