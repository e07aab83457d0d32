"""The tables of a run's report."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from eckart.analysis.calibration import crossings
from eckart.analysis.findings import Choice, Findings
from eckart.analysis.measured import Cell, Measured, reported
from eckart.analysis.outcomes import Pick, edits_of
from eckart.records import PARTS, SMALLEST, Edit
from eckart.reports.sentences import picks_text
from eckart.reports.table import POINTS, SIZES, UNITS, Column, Table, gain_columns, gain_values
from eckart.runs import Run
from eckart.selection.course import listed
from eckart.statistics.crossed import mean_gain, turned
from eckart.statistics.scores import Outcome, Score

WHERE = (
    Column("model", "model"),
    Column("task", "task"),
    Column("shots", "shots", "count"),
    Column("scoring", "scoring"),
)
ACCURACY = {"accuracy": "accuracy"}
OTHERS = {
    "balanced_accuracy": "balanced",
    "macro_f1": "macro-F1",
    "log_loss": "log-loss",
    "majority_rate": "majority",
}
ORDER = PARTS["all"]
PART = Column("part", "part")
PLACE = (PART, Column("layer", "layer", "count"), Column("rate", "rate", "rate"))
TARGET = (*WHERE, PART)


def choices_table(findings: Findings) -> Table:
    """Return one row a choice: what was chosen, and what it is worth."""
    units = UNITS[findings.kind]
    columns = (
        *TARGET,
        Column("outcome", "verdict"),
        *PLACE[1:],
        Column("picks", "chosen by seed"),
        *gain_columns(units, "gain"),
        Column("seed_spread", f"spread over seeds{units.column}", units.gain),
        Column("p_value", "p", "p"),
        Column("p_adjusted", "p, corrected", "p"),
        Column("naive", "gain where chosen", units.gain),
        Column("tried", "cells tried", "count"),
        *SIZES,
        *_turned_columns(findings.kind),
        Column("detectable", "detectable gain", units.gain),
        Column("basis", "measured on"),
    )
    note = (
        "One choice a model, task, number of shots, scoring and part. It was made on validation;"
        " its gain is read off rows that did not choose it. 'p, corrected' is Holm's over all"
        " choices. 'Gain where chosen' is the validation gain, which is optimistic. 'Detectable' is"
        " the smallest true gain that an experiment like this one would find four times in five."
        f" 'Spread over seeds' is the standard deviation of the unpruned model's {units.metric}"
        " over the draws of demonstrations: what another draw alone may change. 'Seed x row'"
        " counts a row once for every seed."
    )
    return Table(
        "choices",
        "What was chosen, and what it gains",
        note,
        columns,
        [choice_row(findings, choice) for choice in findings.choices],
    )


def cells_table(findings: Findings) -> Table:
    """Return one row a cell: every edit in every condition, and the unpruned model."""
    chosen = {
        (choice.condition, edit)
        for choice in findings.choices
        for edit in choice.picks.values()
        if edit
    }
    columns = (
        *TARGET,
        Column("chosen", "chosen"),
        *PLACE[1:],
        *(
            column
            for split in _splits(findings)
            for column in _measured_columns(split, findings.kind)
        ),
        Column("failed", "failed", "count"),
        Column("seconds", "seconds", "seconds"),
    )
    rows = [
        _cell_row(cell, (cell.condition, cell.edit) in chosen, findings.kind)
        for cell in _ordered(findings.cells.values())
    ]
    note = (
        "Every edit that was tried; without a layer, the unpruned model. Gains are against the"
        " unpruned model under the same demonstrations on the same rows. 'Holm' and 'FDR' are p"
        " values adjusted for all cells on that split. 'Seed x row' counts a row once for every"
        " seed."
    )
    return Table("cells", "Everything that was tried", note, columns, rows)


def seeds_table(findings: Findings) -> Table:
    """Return one row a choice and seed: the choice under each draw of demonstrations."""
    units = UNITS[findings.kind]
    test = findings.kind.test.removeprefix("exact ").removesuffix(" test,")
    columns = (
        *TARGET,
        *PLACE[1:],
        Column("split", "split"),
        Column("seed", "seed", "count"),
        Column("rows", "rows", "count"),
        Column("unpruned", "unpruned", units.mean),
        Column("clipped", "clipped", units.mean),
        Column("gain", f"gain{units.column}", units.gain),
        Column("fixed", f"rows {findings.kind.turned[0]}", "count"),
        Column("broken", f"rows {findings.kind.turned[1]}", "count"),
        Column("p_value", f"{test} p", "p"),
    )
    note = (
        f"The choice under each draw of demonstrations; p is {_test_name(findings.kind)} on that"
        " seed's rows, not corrected."
    )
    return Table(
        "seeds",
        "Seed by seed",
        note,
        columns,
        [row for c in findings.choices for row in _seed_rows(findings, c)],
    )


def calibration_table(findings: Findings) -> Table:
    """Return, wherever a plain and a calibrated scoring were both run, what clipping adds to
    calibrating."""
    columns = (
        *(column for column in WHERE if column.key != "scoring"),
        Column("part", "part"),
        Column("split", "split"),
        Column("comparison", "comparison"),
        Column("before", "before", "share"),
        Column("after", "after", "share"),
        *gain_columns(POINTS, "gain"),
        Column("p_value", "p", "p"),
        *SIZES,
    )
    note = (
        "Each line compares two ways of answering the same rows under the same demonstrations;"
        " 'clipped' is that scoring's own choice. p values are not corrected"
        + (
            "."
            if any(split == "test" for _, split in findings.blocks)
            else ", and the same rows chose."
        )
    )
    rows = [{**vars(crossing), **gain_values(crossing.gain)} for crossing in crossings(findings)]
    return Table("calibration", "Does clipping add anything over calibrating?", note, columns, rows)


def failures_table(findings: Findings) -> Table:
    """Return every trial that failed, and why."""
    columns = (
        *WHERE,
        Column("seed", "seed", "count"),
        *PLACE,
        Column("split", "split"),
        Column("error", "cause"),
    )
    rows = [
        {
            **asdict(cell.condition),
            **_place(cell.edit),
            "seed": trial.setting.seed,
            "split": trial.split,
            "error": trial.error or "not said",
        }
        for cell in _ordered(findings.cells.values())
        for trial in sorted(cell.failures, key=lambda trial: (trial.setting.seed, trial.split))
    ]
    note = (
        "Trials that could not be scored. They count nowhere: a cell that failed under one seed"
        " cannot be chosen."
    )
    return Table("failures", "Trials that failed", note, columns, rows)


def spectra_table(by_model: Mapping[str, Sequence[dict[str, Any]]]) -> Table:
    """Return one row a matrix whose spectrum is known, of each model."""
    columns = (
        WHERE[0],
        Column("layer", "layer", "count"),
        Column("name", "matrix"),
        Column("size", "shape", "written"),
        Column("sigma_max", "sigma max", "digits"),
        Column("sigma_min", "sigma min", "digits"),
        Column("condition_number", "condition number", "digits"),
        Column("rounding", "rounding", "size"),
        Column("says", ""),
    )
    rows = [
        {
            **values,
            "model": model,
            "size": " x ".join(map(str, values["shape"])),
            "says": _says(values),
        }
        for model, spectra in by_model.items()
        for values in spectra
    ]
    note = (
        "2-norm condition numbers of the stored weights. 'Within rounding': storage in this dtype,"
        " or a GGUF file's quantisation, may move a singular value by as much as the smallest one"
        " is, so how close to singular the matrix was before is not known."
    )
    return Table("spectra", "Condition numbers", note, columns, rows, keys=3)


def spectra_by_model(run: Run) -> dict[str, list[dict[str, Any]]]:
    """Return the known spectra of each model, by layer; the only model of a spectrum's run goes
    without a name."""
    names = {model: facts["spectra"] for model, facts in run.models.items()} or {
        "": list(run.spectra)
    }
    if run.asked.kind == "spectrum" and len(names) == 1:
        names = {"": next(iter(names.values()))}
    return {
        model: sorted(
            (run.spectra[name] for name in own if name in run.spectra), key=_place_of_matrix
        )
        for model, own in names.items()
    }


def _place_of_matrix(values: dict[str, Any]) -> tuple[int, int, str]:
    return values["layer"], ORDER.index(values["name"].split("[")[0]), values["path"]


def _says(values: dict[str, Any]) -> str:
    if values["singular"]:
        return f"singular, rank {values['rank']}"
    return "" if values["resolved"] else "within rounding"


def _splits(findings: Findings) -> list[str]:
    present = {split for _, split in findings.blocks}
    return [split for split in ("validation", "test", "all") if split in present]


def _test_name(kind: type[Outcome]) -> str:
    return "exact McNemar's" if kind is Score else "the paired t test's"


def _turned_columns(kind: type[Outcome], split: str = "") -> tuple[Column, Column]:
    better, worse = kind.turned
    key, title = (f"{split}_", f"{split}: ") if split else ("", "")
    return (
        Column(f"{key}fixed", f"{title}{better}, seed x row", "count"),
        Column(f"{key}broken", f"{title}{worse}, seed x row", "count"),
    )


def _measured_columns(split: str, kind: type[Outcome]) -> tuple[Column, ...]:
    units = UNITS[kind]
    before = (
        (kind.headline, units.metric, units.mean),
        ("gain", f"gain{units.column}", units.gain),
        ("interval", "gain, 95%", units.gains),
        ("p_value", "p", "p"),
        ("p_holm", "Holm", "p"),
        ("p_fdr", "FDR", "p"),
    )
    after = (
        ("rows", "rows", "count"),
        ("seeds", "seeds", "count"),
        (f"{kind.headline}_interval", f"{units.metric}, 95%", units.means),
        *((name, OTHERS[name], "share") for name in kind.others),
    )
    first, last = (
        [Column(f"{split}_{key}", f"{split}: {title}", form) for key, title, form in facts]
        for facts in (before, after)
    )
    return (*first, *_turned_columns(kind, split), *last)


def _cell_row(cell: Cell, chosen: bool, kind: type[Outcome]) -> dict[str, Any]:
    row = {**asdict(cell.condition), **_place(cell.edit), "chosen": "chosen" if chosen else ""}
    for split, measured in cell.measured.items():
        facts = _facts(measured, kind.headline, cell.edit is not None)
        row |= {f"{split}_{key}": value for key, value in facts.items()}
    return {**row, "failed": len(cell.failures), "seconds": cell.seconds}


def _facts(measured: Measured, metric: str, clipped: bool) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "rows": measured.rows,
        "seeds": measured.seeds,
        metric: measured.mean,
        f"{metric}_interval": measured.interval,
        **measured.others,
        "p_holm": measured.p_holm,
        "p_fdr": measured.p_fdr,
    }
    if clipped:
        facts |= {"fixed": measured.fixed, "broken": measured.broken}
    return gain_values(measured.gain) | facts if measured.gain else facts


def choice_row(findings: Findings, choice: Choice) -> dict[str, Any]:
    """Return a choice as a row of the table of choices."""
    edit, gain = choice.edit, choice.gain
    one = choice.agreed and (edit is None or isinstance(edit, Edit))
    row: dict[str, Any] = {
        **asdict(choice.condition),
        **_place(edit if one else None),
        "part": choice.part,
        "picks": None if one else picks_text(choice),
        "outcome": choice.conclusion,
        "naive": choice.naive,
        "tried": choice.tried,
        "seed_spread": _seed_spread(findings, choice),
        "basis": choice.basis if gain else None,
    }
    if gain is None:
        return row
    held_back = choice.basis != "cross-validated"
    tested = {"fixed": choice.fixed, "broken": choice.broken} if held_back else {}
    known = {"p_adjusted": choice.p_adjusted, "detectable": choice.detectable}
    return {**row, **tested, **gain_values(gain), **known}


def _seed_spread(findings: Findings, choice: Choice) -> float | None:
    """Return the standard deviation over seeds of the unpruned model's mean, on the rows that
    show the choice."""
    unpruned = findings.measured(choice.condition, None, findings.split(choice))
    if unpruned is None or unpruned.seeds < 2:
        return None
    return float(np.std(list(unpruned.by_seed.values()), ddof=1))


def _seed_rows(findings: Findings, choice: Choice) -> Iterator[dict[str, Any]]:
    split = findings.split(choice)
    block = findings.blocks.get((choice.condition, split))
    for seed, edit in choice.picks.items():
        if (
            choice.missing
            or block is None
            or seed not in block.seeds
            or (edit is not None and edit not in block.place)
        ):
            continue
        line = block.seeds.index(seed)
        before, after = block.unpruned[line], block.row_merits(edit)[line]
        both = ~np.isnan(before) & ~np.isnan(after)
        if not both.any():
            continue
        gains = (after - before)[both]
        gain = mean_gain(gains[None], block.kind)
        fixed, broken = turned(gains[None])
        yield {
            **asdict(choice.condition),
            **_place(edit),
            "part": choice.part,
            "split": split,
            "seed": seed,
            "rows": int(both.sum()),
            "unpruned": reported(block.kind, float(before[both].mean())),
            "clipped": reported(block.kind, float(after[both].mean())),
            "gain": float(gains.mean()),
            "fixed": fixed,
            "broken": broken,
            "p_value": gain.p_value if gain else 1.0,
        }


def _place(pick: Pick | None) -> dict[str, Any]:
    """Return part, layer and rate; of what has no one place and rate its text for a part."""
    if isinstance(pick, Edit) and pick.cut == SMALLEST:
        return {"part": pick.part, "layer": pick.layer, "rate": pick.rate}
    return {"part": listed(edits_of(pick))} if pick else {}


def _ordered(cells: Iterable[Cell]) -> list[Cell]:
    """Sort cells by condition, the unpruned model first."""
    return sorted(cells, key=lambda cell: (cell.condition, edits_of(cell.edit)))
