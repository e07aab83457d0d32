"""A run as one page: what was found, how sure it is, and everything that it rests on."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from eckart.analysis.findings import find
from eckart.analysis.outcomes import kept_result, short_name
from eckart.errors import RunError
from eckart.files import KEPT, Read, check_outputs, check_writable, home, write_whole
from eckart.published import slips
from eckart.reports.claims import (
    curse_table,
    published_table,
    rule_table,
    steadiness_table,
)
from eckart.reports.controls import controls_table
from eckart.reports.figures import figure_bytes, save_figure
from eckart.reports.figures.gallery import Picture, gallery
from eckart.reports.glossary import GLOSSARY, anchor, explained, words_in, words_of
from eckart.reports.opening import Opening, opening
from eckart.reports.provenance import Provenance, provenance
from eckart.reports.searched import (
    RIVALS_NOTE,
    deployed_table,
    guard_tables,
    guards,
    rivals_table,
    screen_of,
    screen_table,
    steps_table,
)
from eckart.reports.sentences import PLAIN, Headline, ordered, summary, verdicts, worst_matrix
from eckart.reports.table import UNITS, Table, Units, escaped
from eckart.reports.tables import (
    calibration_table,
    cells_table,
    choices_table,
    failures_table,
    seeds_table,
    spectra_by_model,
    spectra_table,
)
from eckart.reports.terminal import utf8
from eckart.reports.turned import Flipped, flipped
from eckart.runs import Run, read_run
from eckart.selection.deployed import Deployed
from eckart.selection.looks import Looks
from eckart.selection.rivals import Rivals
from eckart.statistics.scores import Outcome, Score

MOST_VERDICTS = 24
MOST_ROWS = 400
MOST_FIGURES = 10
MOST_FLIPS = 1000
MOST_FLIPPED = 12
"""How many verdicts, rows of a table, figures, and flipped rows of how many choices a page
shows."""
MOST_WRITTEN = 40
"""How many flipped rows of a choice Markdown has."""


@dataclass(frozen=True, eq=False)
class Report:
    """A run, ready to be shown.

    Arguments:
        title: what the run is about.
        summary: what was found, in sentences.
        verdicts: one a choice.
        tables: by name, without those that are empty.
        pictures: the figures, undrawn.
        flipped: which rows the choices turned.
        provenance: settings, versions, cost, the command.
        kind: of its outcomes: on labels, or on numbers.
        opening: the first screen; None where nothing was chosen.
    """

    title: str
    summary: tuple[str, ...]
    verdicts: tuple[Headline, ...]
    tables: dict[str, Table]
    pictures: tuple[Picture, ...]
    flipped: tuple[Flipped, ...]
    provenance: Provenance
    kind: type[Outcome] = Score
    opening: Opening | None = None

    @classmethod
    def of(cls, run: Run) -> Report:
        """Work out everything about a run."""
        findings = find(run)
        origin = provenance(run)
        rivals = Rivals.in_run(run) if run.rivals else None
        deployed = Deployed.in_run(run) if run.deployed else None
        order = screen_of(run)
        tables = (
            choices_table(findings),
            steps_table(kept_result(run) or {}),
            controls_table(findings),
            *([rivals_table(rivals, RIVALS_NOTE)] if rivals else []),
            *([deployed_table(deployed)] if deployed else []),
            *guard_tables(run),
            published_table(findings),
            calibration_table(findings),
            steadiness_table(findings),
            rule_table(findings),
            curse_table(findings),
            seeds_table(findings),
            cells_table(findings),
            failures_table(findings),
            *([screen_table(order)] if order else []),
            spectra_table(spectra_by_model(run)),
        )
        chosen = [choice for choice in ordered(findings) if choice.edit]
        rows = [flipped(findings, choice) for choice in chosen[:MOST_FLIPPED]]
        return cls(
            title=origin.title,
            summary=tuple(
                [*origin.warnings, *summary(findings), *_beside(run, rivals, deployed)]
                if findings.cells
                else origin.warnings or _nothing(run)
            ),
            verdicts=tuple(verdicts(findings)),
            tables={table.name: table for table in tables if table.rows},
            pictures=tuple(gallery(findings)),
            flipped=tuple(entry for entry in rows if entry.fixed or entry.broken),
            opening=opening(findings, rivals),
            provenance=origin,
            kind=findings.kind,
        )

    @property
    def tab(self) -> str:
        """What the browser's tab says."""
        return self.opening.tab if self.opening else self.title

    @property
    def units(self) -> Units:
        """How means and gains are written."""
        return UNITS[self.kind]

    def to_json(self) -> dict[str, Any]:
        return {
            "title": self.title,
            "summary": list(self.summary),
            "verdicts": [asdict(verdict) for verdict in self.verdicts],
            "tables": {name: table.to_json() for name, table in self.tables.items()},
            "figures": [
                {"name": p.name, "title": p.title, "caption": p.caption} for p in self.pictures
            ],
            "flips": [entry.to_json() for entry in self.flipped],
            **self.provenance.to_json(),
        }

    def to_csv(self) -> str:
        """Return the table of cells as CSV; of spectra where nothing was scored, of all choices
        where there are several runs."""
        known = map(self.tables.get, ("cells", "spectra", "leaderboard"))
        table = next(filter(None, known), None)
        if table is None:
            raise RunError(
                "the run holds no trial and no spectrum yet, so there is no table to write"
            )
        return table.to_csv()

    def to_html(self) -> str:
        """Return the page: one file that needs nothing from anywhere."""
        return _render(
            "report.html",
            report=self,
            insets=[_embedded(p) for p in self.opening.insets] if self.opening else [],
            figures=[_embedded(p) for p in self.pictures[:MOST_FIGURES]],
        )

    def to_markdown(self) -> str:
        """Return the page as Markdown, without figures."""
        return _render("report.md", report=self)

    def write(self, path: Path, format: str) -> None:
        """Write the report into one file, in one of `FORMATS`; beside a page its first picture, a
        PNG.

        Raises:
            RunError: the file cannot be written, or is to be a table and there is none.
        """
        write_whole(path, utf8(FORMATS[format](self)))
        if format == "html" and self.opening and self.opening.picture and path.is_file():
            save_figure(self.opening.picture.titled(), path.with_name(f"{path.stem}.png"))

    def write_figures(self, folder: Path) -> list[Path]:
        """Write every figure as PNG, SVG and PDF.

        Raises:
            RunError: the folder cannot be made or written.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(
                f"folder '{folder}' cannot be made ({error.strerror}); choose another for figures"
            ) from error
        written = []
        for picture in self.pictures:
            figure = picture.titled()
            for suffix in (".png", ".svg", ".pdf"):
                written.append(folder / f"{picture.name}{suffix}")
                save_figure(figure, written[-1])
        return written


FORMATS: dict[str, Callable[[Report], str]] = {
    "html": Report.to_html,
    "md": Report.to_markdown,
    "csv": Report.to_csv,
    "json": lambda report: json.dumps(report.to_json(), indent=2, allow_nan=False) + "\n",
}


def report(
    run: str | Path,
    out: str | Path | None = None,
    *,
    format: str = "html",
    figures: str | Path | None = None,
) -> Path:
    """Write what a run found into one file.

    Arguments:
        run: the folder of a search, a sweep or a spectrum; it may be unfinished, and is not changed
            otherwise.
        out: the file; by default `report.html` (or `.md`, `.csv`, `.json`) in the run's folder.
        format: `html`, `md`, `csv` (the table of cells) or `json` (everything).
        figures: a folder for every figure as PNG, SVG and PDF; by default none is written.

    Returns:
        the file.

    Raises:
        RunError: there is no run, it is damaged or in use, the format is unknown, or a file cannot
            be written.
    """
    path = home(out) if out is not None else home(run) / f"report.{format}"
    found = read_report(run, path, format)
    found.write(path, format)
    if figures is not None:
        found.write_figures(home(figures))
    return path


def read_report(run: str | Path, path: Path | None, format: str) -> Report:
    """Work out everything about a run, once it is sure that it can be written.

    Arguments:
        run: its folder.
        path: where the report is to go; None where it is not to be written.
        format: one of `FORMATS`.

    Raises:
        RunError: there is no run, it is damaged or in use, the format is unknown, or the file
            cannot be written.
    """
    check_format(format)
    return Report.of(checked_run(run, path))


def checked_run(run: str | Path, path: Path | None) -> Run:
    """Read a run, once it is sure that a report may be written to a path, if it is to be."""
    kept = read_run(run)
    if path is not None:
        check_outputs([("out", path)], [Read("the run", kept.folder / name) for name in KEPT])
        check_writable(path)
    return kept


def check_format(name: str) -> None:
    """Refuse a format that there is not."""
    if name not in FORMATS:
        raise RunError(f"no report format '{name}'; the formats are {', '.join(FORMATS)}")


def published_page(format: str) -> str:
    """Return the whole published record with its certainty, in one of the formats of `report`."""
    check_format(format)
    table = published_table()
    if format == "json":
        return json.dumps({"published": table.to_json(), "slips": slips()}, indent=2) + "\n"
    return table.to_csv() if format == "csv" else _render(f"published.{format}", data=table)


def _beside(run: Run, rivals: Rivals | None, deployed: Deployed | None) -> list[str]:
    """Say whether clipping helps beyond what is free, and at other precisions; who else looked at
    the test rows, and what else each choice did, as far as it was looked at."""
    own = [str(each) for each in (rivals, deployed) if each]
    looks = [str(looks)] if (looks := Looks(**run.looks)) else []
    several = len({trial.setting.model for trial in run.guarded}) > 1
    guarded = [f"{f'{model}: ' * several}{said}" for model, said in guards(run)[:MOST_FLIPPED]]
    return [*own, *looks, *guarded]


def _nothing(run: Run) -> list[str]:
    by_model = spectra_by_model(run)
    said = [
        worst_matrix(short_name(model), spectra) for model, spectra in by_model.items() if spectra
    ]
    return said or ["The run holds nothing yet."]


def _embedded(picture: Picture) -> dict[str, Any]:
    figure = picture.titled()
    image = base64.b64encode(figure_bytes(figure, "svg")).decode()
    about = {"name": picture.name, "title": picture.title, "caption": picture.caption}
    return {**about, "image": image, "width": round(72 * figure.get_figwidth())}


def _render(template: str, **values: Any) -> str:
    environment = Environment(
        loader=PackageLoader("eckart.reports"),
        autoescape=lambda name: bool(name) and ".html" in str(name),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    met: set[str] = set()  # the page's end explains the words that stand on it, and no others

    def marked(text: str) -> str:
        met.update(words_in(text))
        return explained(text)

    def marked_words(table: Table) -> list[str]:
        found = words_of(table)
        met.update(found)
        return found

    environment.globals.update(
        most_rows=MOST_ROWS,
        most_verdicts=MOST_VERDICTS,
        most_flips=MOST_FLIPS,
        most_written=MOST_WRITTEN,
        slips=slips(),
        words_of=marked_words,
        glossary=lambda: {word: said for word, said in GLOSSARY.items() if word in met},
    )
    environment.filters.update(
        cell=escaped, explained=marked, anchor=anchor, plain=lambda word: PLAIN.get(word, word)
    )
    return environment.get_template(f"{template}.j2").render(**values)
