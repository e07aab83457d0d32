"""The figures of a run, each with what a reader must know to read it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Any

from matplotlib.figure import Figure

from eckart.analysis.calibration import scorings
from eckart.analysis.findings import Choice, Findings
from eckart.analysis.outcomes import Condition, sample, short_name
from eckart.published import named, published_rows
from eckart.reports.figures import condition_curves, draw_condition_numbers
from eckart.reports.figures.accuracy import MOST_LINES, accuracy_panel, draw_accuracy
from eckart.reports.figures.bars import calibration_panel, draw_bars, outcome_panel
from eckart.reports.figures.gains import (
    MOST_LABELS,
    draw_gain_maps,
    draw_gain_pairs,
    gain_map,
    gain_pairs,
)
from eckart.reports.table import UNITS
from eckart.reports.tables import spectra_by_model
from eckart.runs import Run, folder_name
from eckart.statistics.scores import Score
from eckart.weights.conditioning import MatrixSpectrum

HOLLOW = (
    " Hollow marks: the smallest singular value is within what rounding to the stored dtype, or a"
    " GGUF file's quantisation, may change, so how close to singular the matrix was before is not"
    " known."
)
MOST_PANELS = 12
"""A figure of more panels becomes several."""


@dataclass(frozen=True, eq=False)
class Picture:
    """A figure of a report.

    Arguments:
        name: a file's, without its ending.
        title, caption: what it shows, and on what.
        draw: makes the figure.
        sample: of what it was made, in a few words that stand in the figure.
    """

    name: str
    title: str
    caption: str
    draw: Callable[[], Figure]
    sample: str = ""

    def titled(self) -> Figure:
        """Draw the figure with its sample above it."""
        figure = self.draw()
        if self.sample:
            figure.suptitle(self.sample, fontsize=9, color="0.25", parse_math=False)
        return figure


def _metric(findings: Findings) -> str:
    return UNITS[findings.kind].metric


def gallery(findings: Findings) -> list[Picture]:
    """Return every figure that a run has the data for, undrawn."""
    return [
        *_conditions(findings.run),
        *_outcomes(findings),
        *_pairs(findings),
        *_calibrations(findings),
        *_accuracies(findings),
        *_maps(findings),
        *_shots(findings),
    ]


def _grid_split(findings: Findings) -> str:
    """Return the split on which whole grids are shown: test where all edits were scored there, else
    validation."""
    counts = {
        split: sum(split in cell.measured for cell in findings.cells.values())
        for split in ("test", "validation")
    }
    return max(counts, key=lambda split: counts[split])


def _published_pairs(choice: Choice) -> list[tuple[float, float]]:
    """Return the accuracies, unpruned and clipped, that the paper's tables have for a choice's
    model, task and part."""
    where = choice.condition
    rows = published_rows(named(where.model), where.task_name, choice.part)
    tables = (row for row in rows if row["source"].startswith("Table"))
    return [(row["test_baseline"], row["test_clipped"]) for row in tables]


def _conditions(run: Run) -> Iterator[Picture]:
    for model, spectra in spectra_by_model(run).items():
        if not spectra:
            continue
        title = f"Condition numbers{': ' if model else ''}{short_name(model)}"
        caption = (
            f"2-norm condition numbers of {len(spectra)} stored matrices by layer (Figure 3 of the"
            " paper). They are computed, not sampled: there is no interval."
            + ("" if all(values["resolved"] for values in spectra) else HOLLOW)
        )
        yield Picture(
            _name("condition-numbers", short_name(model)),
            title,
            caption,
            partial(_draw_conditions, spectra, title),
        )


def _draw_conditions(spectra: Sequence[dict[str, Any]], title: str) -> Figure:
    return draw_condition_numbers(condition_curves(map(MatrixSpectrum.from_json, spectra)), title)


def _outcomes(findings: Findings) -> Iterator[Picture]:
    tasks = len({choice.condition.task for choice in findings.choices})
    split = "test" if any(where == "test" for _, where in findings.blocks) else "validation"
    for (shots, scoring), choices in _by(findings.choices, _setting):
        panels = [
            outcome_panel(findings, own, split, _published_pairs) for _, own in _by(choices, _model)
        ]
        known = [panel for panel in panels if panel]
        if not known:
            continue
        hollow = any(bar.published for panel in known for bar in panel.bars)
        caption = (
            f"The unpruned model and each part's choice on the {split} rows, {shots} shots, scoring"
            f" {scoring} (Figure 4 of the paper). {_size(findings, choices, split)}. Bars are means"
            " over seeds with 95% intervals; neighbouring bars share rows, so whether they differ"
            " is read off the table of choices, not off the overlap."
            + (
                " Hollow diamonds: the paper's tables, for its own rows and demonstrations."
                if hollow
                else ""
            )
            + (
                ""
                if split == "test"
                else " These rows also chose, so the clipped bars are optimistic."
            )
            + (
                " Tasks that were asked with other shots or scored otherwise, as those whose rows"
                " bring their own candidates are, stand in figures of their own."
                if len({choice.condition.task for choice in choices}) < tasks
                else ""
            )
        )
        yield Picture(
            _name("outcomes", shots, scoring),
            f"Unpruned and clipped, task by task: {shots} shots, scoring {scoring}",
            caption,
            partial(draw_bars, known, 3, split),
            _sample(findings, choices, split),
        )


def _accuracies(findings: Findings) -> Iterator[Picture]:
    split = _grid_split(findings)
    for (shots, scoring), choices in _by(findings.choices, _setting):
        columns = max(1, min(4, len({(c.condition.model, c.part) for c in choices})))
        panels = [accuracy_panel(findings, c.target, split) for c in choices]
        for number, page in _pages([panel for panel in panels if panel]):
            yield Picture(
                _name(f"{_metric(findings)}-by-rate", shots, scoring, number),
                f"{_metric(findings).capitalize()} against the clipping rate: {shots} shots,"
                f" scoring {scoring}",
                _accuracy_caption(
                    findings,
                    split,
                    f"{shots} shots, scoring {scoring} (Figure 1 of the paper)",
                    _size(findings, choices, split),
                ),
                partial(draw_accuracy, page, columns, split),
                _sample(findings, choices, split),
            )


def _shots(findings: Findings) -> Iterator[Picture]:
    split = _grid_split(findings)

    def bench(choice: Choice) -> tuple[str, str, str]:
        return choice.condition.model, choice.condition.task, choice.condition.scoring

    for (model, task, scoring), choices in _by(findings.choices, bench):
        ordered = sorted(choices, key=lambda choice: (choice.condition.shots, choice.part))
        panels = [
            accuracy_panel(findings, c.target, split, f"{c.condition.shots} shots, {c.part}")
            for c in ordered
        ]
        known = [panel for panel in panels if panel]
        if len({choice.condition.shots for choice in choices}) < 2 or not known:
            continue
        columns = len({choice.part for choice in choices})
        where = (
            f"{task}, {short_name(model)}, scoring {scoring}; a row a number of shots (Figure 2 of"
            " the paper)"
        )
        yield Picture(
            _name(f"{_metric(findings)}-by-shots", short_name(model), task, scoring),
            f"{_metric(findings).capitalize()} and the number of shots: {task},"
            f" {short_name(model)}, scoring {scoring}",
            _accuracy_caption(findings, split, where, _size(findings, choices, split)),
            partial(draw_accuracy, known, columns, split),
            f"scoring {scoring}; {_sample(findings, choices, split)}",
        )


def _maps(findings: Findings) -> Iterator[Picture]:
    split = _grid_split(findings)
    for (shots, scoring), choices in _by(findings.choices, _setting):
        maps = [gains for choice in choices if (gains := gain_map(findings, choice, split))]
        for number, page in _pages(maps):
            caption = (
                f"Gain over the unpruned model in {_points(findings)} on the {split} rows, by layer"
                f" and clipping rate, {shots} shots, scoring {scoring}."
                f" {_size(findings, choices, split)}. The choice is framed, where all seeds made"
                " the same. No cell's interval is shown here: the table of cells has them, with p"
                " values corrected for their number."
            )
            yield Picture(
                _name("gains", shots, scoring, number),
                f"Gains by layer and rate: {shots} shots, scoring {scoring}",
                caption,
                partial(draw_gain_maps, page, 3, split),
                _sample(findings, choices, split),
            )


def _pairs(findings: Findings) -> Iterator[Picture]:
    pairs = gain_pairs(findings)
    chosen = [pair for pair in pairs if pair.chosen]
    if len(pairs) < 2:
        return
    means = (
        [
            sum(values) / len(chosen)
            for values in ([p.validation for p in chosen], [p.test for p in chosen])
        ]
        if chosen
        else []
    )
    points, signed = (" points", "+.2f") if findings.kind is Score else ("", "+.4g")
    lost = (
        f" The chosen ones average {means[0]:{signed}}{points} on validation and"
        f" {means[1]:{signed}} on test."
        if means
        else ""
    )
    named = 0 < len(chosen) <= MOST_LABELS
    caption = (
        f"{_marks(len(chosen), len(pairs) - len(chosen))},"
        f" {_size(findings, findings.choices, 'test')} on test. Choosing the highest on"
        " validation also chooses luck, which the test rows take"
        f" back (the winner's curse).{lost}"
        + (" Lines are 95% intervals of the choices' test gains, not corrected." if named else "")
    )
    yield Picture(
        "validation-and-test",
        "Validation gains and test gains",
        caption,
        partial(draw_gain_pairs, pairs),
        _sample(findings, findings.choices, "test"),
    )


def _marks(choices: int, others: int) -> str:
    """Say what the marks of the scatter are."""
    said = [f"{choices} choices"] if choices else []
    return " and ".join(
        [*said, f"{others} other edits that were scored on both splits"] if others else said
    )


def _calibrations(findings: Findings) -> Iterator[Picture]:
    split = "test" if any(where == "test" for _, where in findings.blocks) else "validation"
    panels = [calibration_panel(findings, group, split) for group in scorings(findings)]
    for number, page in _pages([panel for panel in panels if panel]):
        caption = (
            f"The unpruned and the clipped model under every scoring, on the {split} rows."
            f" {_size(findings, findings.choices, split)}. Bars are means over seeds with 95%"
            " intervals; dots are single seeds. Whether clipping adds to calibrating is tested pair"
            " by pair in the table below."
        )
        yield Picture(
            _name("calibration", number),
            "Clipping and calibration",
            caption,
            partial(draw_bars, page, 3, split, seeds=True),
            _sample(findings, findings.choices, split),
        )


def _points(findings: Findings) -> str:
    return "points" if findings.kind is Score else "squared error, above 0 where it is smaller,"


def _accuracy_caption(findings: Findings, split: str, where: str, size: str) -> str:
    labels = findings.kind is Score
    guess = ", a dotted one always answering the most frequent label" if labels else ""
    beyond = "above" if labels else "below"
    return (
        f"{_metric(findings).capitalize()} on the {split} rows by clipping rate, {where}. {size}."
        f" Bands are 95% intervals; a dashed line is the unpruned model{guess}; a star marks a"
        f" layer's best rate, where it is {beyond} the unpruned model. Of more than {MOST_LINES}"
        " layers the first two, the last two and the best are drawn."
    )


def _size(findings: Findings, choices: Iterable[Choice], split: str) -> str:
    blocks = [b for c in choices if (b := findings.blocks.get((c.condition, split)))]
    return sample(blocks)


def _sample(findings: Findings, choices: Sequence[Choice], split: str) -> str:
    """Return what stands in a figure: shots and scoring, where they are the same for all, and how
    many rows."""
    settings = {_setting(choice) for choice in choices}
    shared = (
        [f"{shots} shots, {scoring}; " for shots, scoring in settings] if len(settings) == 1 else []
    )
    return f"{''.join(shared)}{split}, {_size(findings, choices, split)}"


def _by(choices: Iterable[Choice], key: Callable[[Choice], Any]) -> list[tuple[Any, list[Choice]]]:
    ordered = sorted(choices, key=lambda choice: (key(choice), _order(choice)))
    return [(value, list(group)) for value, group in groupby(ordered, key=key)]


def _order(choice: Choice) -> tuple[str, Condition, str]:
    return choice.condition.task, choice.condition, choice.part


def _setting(choice: Choice) -> tuple[int, str]:
    return choice.condition.shots, choice.condition.scoring


def _model(choice: Choice) -> str:
    return choice.condition.model


def _pages(panels: Sequence[Any]) -> Iterator[tuple[int | str, Any]]:
    """Yield each page's number, '' where it is the only one, and its panels."""
    for number, start in enumerate(range(0, len(panels), MOST_PANELS), start=1):
        yield number if len(panels) > MOST_PANELS else "", panels[start : start + MOST_PANELS]


def _name(*parts: object) -> str:
    return "-".join(folder_name(str(part)) for part in parts if part != "")
