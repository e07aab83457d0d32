"""A run's report, written and said."""

from __future__ import annotations

from pathlib import Path

from eckart.cli.console import print_json, say, show
from eckart.reports.page import published_page, read_report
from eckart.runs import write_whole


def run_report(run: Path, out: Path | None, name: str, figures: Path | None, as_json: bool) -> None:
    """Write a run's report and figures, and say what was found.

    Arguments:
        run: the run's folder.
        out: the file; by default `report.html` (or `.md`, `.csv`, `.json`) in the run's folder.
        name: the format.
        figures: a folder for every figure; None for none.
        as_json: print everything as one JSON document, and write only what was asked for by name.

    Raises:
        RunError: there is no run, it is damaged or in use, or a file cannot be written.
    """
    path = out or (None if as_json else run / f"report.{name}")
    report = read_report(run, path, name)
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


def run_published(out: Path | None, name: str, as_json: bool) -> None:
    """Print the published record with its certainty, or write it into a file."""
    page = published_page("json" if as_json else name if out else "md")
    if out is None:
        show(page.rstrip("\n"))
        return
    write_whole(out, page.encode())
    say(f"published results: {out}")
