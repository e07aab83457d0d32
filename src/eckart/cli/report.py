"""A run's report, written and said."""

from __future__ import annotations

import sys
from pathlib import Path

from eckart.cli.console import print_json, say, show
from eckart.errors import RunError
from eckart.files import write_whole
from eckart.reports.page import published_page, read_report
from eckart.reports.published import published_table
from eckart.reports.results import record_report


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


def run_published(out: Path | None, name: str | None, figures: Path | None, as_json: bool) -> None:
    """Print the published record with its certainty, or write it into a file.

    Arguments:
        out: the file; None to print.
        name: the format; without one a page is written, and a table printed.
        figures: refused, for there are none.
        as_json: the format is JSON.

    Raises:
        RunError: figures were asked for, the format is unknown, or the file cannot be written.
    """
    if figures is not None:
        raise RunError("the published record has no figures; leave out --figures")
    form = "json" if as_json else name
    if out is not None:
        write_whole(out, published_page(form or "html").encode())
        say(f"published results: {out}")
    elif form is not None:
        sys.stdout.write(published_page(form))
    else:
        show(record_report(published_table().rows))
