"""Tables for the terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from eckart.evaluation import Evaluation
from eckart.records import MatrixSpectrum
from eckart.reports.tabular import points
from eckart.scores import Score
from eckart.selection.racing import Race
from eckart.selection.study import Study
from eckart.statistics import accuracy_interval

RECORD_NOTE = (
    "differs, cannot tell: whatever the pairs of rows before and after, which are not known; depends: on the pairs\n"
    "log is the authors'. Intervals and p values: eckart report published --format md"
)
WIDEST = 8
"""The most labels whose confusion matrix is printed."""


def study_report(study: Study) -> RenderableType:
    """Return everything that a search found, in the order in which it was found."""
    parts: list[RenderableType] = []
    if study.condition_numbers:
        parts.append(layers_table(study))
    parts += [candidates_table(study)]
    if study.race:
        parts.append(Text(race_summary(study.race), style="dim"))
    parts.append(outcome_table(study))
    if study.published:
        parts.append(published_table(study))
    parts += [Text(f"note: {note}", style="dim") for note in study.notes]
    parts.append(Text(f"\n{conclusion(study)}", style="bold"))
    return Group(*parts)


def layers_table(study: Study) -> RenderableType:
    """Return condition numbers by layer, the chosen layer marked."""
    how = f"top {study.settings['top_k']}, deepest of them; {study.settings['combine']} over the matrices"
    table = _table("layer", "condition number", "")
    for layer, value in study.condition_numbers.items():
        table.add_row(str(layer), condition(value), "chosen" if layer == study.layer else "")
    return _titled(f"condition number of {study.part} by layer ({how})", table)


def candidates_table(study: Study) -> RenderableType:
    """Return every rate with its validation scores, and in a race the rows that it saw, the chosen rate marked."""
    title = f"validation: layer {study.layer}, {study.part} (n = {study.chosen.seen})"
    raced = ["rows"] if study.race else []
    table = _table("rate", "ranks", *raced, "accuracy", "balanced", "macro-F1", "log-loss", "majority", "")
    dropped = {drop.rate for drop in study.race.drops} if study.race else set()
    for candidate in study.candidates:
        score, rate = candidate.trial.labelled, candidate.rate
        numbers = ["failed", "", "", "", ""] if score is None else _metrics(score)
        fate = "chosen" if rate == study.rate else "dropped" if rate in dropped else ""
        seen = [str(candidate.seen)] if study.race else []
        table.add_row(f"{rate:g}", _ranks(candidate.ranks), *seen, *numbers, fate)
    return _titled(title, table)


def race_summary(race: Race) -> str:
    """Return what a race read and what that is worth."""
    return (
        f"raced: {race.rows_read} of {race.rows_without} rows read, looks at {', '.join(map(str, race.looks))}; with "
        f"probability {1 - race.alpha:g} or more the choice is that of the search that reads them all"
    )


def outcome_table(study: Study) -> RenderableType:
    """Return the test set's verdict: unpruned and clipped on the same rows; unpruned alone where nothing is clipped."""
    paired = study.comparison
    table = _table("", "accuracy", "95% interval", "balanced", "macro-F1", "log-loss", "majority")
    trials = {"unpruned": study.baseline} | ({"clipped": study.clipped} if study.rate else {})
    for name, trial in trials.items():
        assert trial.labelled is not None
        low, high = accuracy_interval(trial.labelled)
        first, *rest = _metrics(trial.labelled)
        table.add_row(name, first, f"{low:.4f} to {high:.4f}", *rest)
    if study.rate:
        low, high = paired.interval
        table.add_row("difference", f"{paired.difference:+.4f}", f"{low:+.4f} to {high:+.4f}", "", "", "", "")
    choice = "the frozen choice" if study.rate else "nothing is clipped"
    return _titled(f"test: {choice}, looked at once (n = {paired.n})", table)


def published_table(study: Study) -> RenderableType:
    """Return what the paper and its authors' logs report for the same model, task and part."""
    table = _table("source", "layer", "rate", "unpruned", "clipped")
    for row in study.published:
        numbers = f"{row['rate']:g}", f"{row['test_baseline']:.4f}", f"{row['test_clipped']:.4f}"
        table.add_row(row["source"], str(row["layer"]), *numbers)
    return _titled("published for this model, task and part", table)


def record_table(rows: Sequence[Mapping[str, Any]]) -> RenderableType:
    """Return the published record, a table a model: accuracies, and whether any pairing of the rows tells them apart.

    Arguments:
        rows: of `eckart.reports.record.published_table`.
    """
    models = sorted({row["model"] for row in rows})
    tables = [_titled(name, _record_of([row for row in rows if row["model"] == name])) for name in models]
    return Group(*tables, Text(RECORD_NOTE, style="dim"))


def _record_of(rows: Sequence[Mapping[str, Any]]) -> Table:
    table = _table("source", "edit", "n", "before", "after", "points", "so")
    table.padding = (0, 1, 0, 0)  # fits a terminal of 80 columns
    for row in rows:
        source = "{source}: {task}".format(**row).removeprefix("authors' ")
        edit = f"{row['layer']}:{row['part']}:{row['rate']:g}"
        accuracies = f"{row['test_baseline']:.4f}", f"{row['test_clipped']:.4f}", points(row["gain"])
        says = row["says"].partition(",")[0].removesuffix(" on the pairs")
        table.add_row(source, edit, str(row["n"]), *accuracies, says)
    return table


def conclusion(study: Study) -> str:
    """Return the result in a few sentences that claim no more than the test set allows."""
    paired, score = study.comparison, study.clipped.labelled
    assert score is not None
    verdict = f"{study.verdict()[0].upper()}{study.verdict()[1:]}."
    trivial = (
        f" Always answering the most frequent label would be right in {score.majority_rate:.4f} of the test rows, "
        "which is no worse."
        if score.accuracy <= score.majority_rate
        else ""
    )
    if study.rate == 0:
        tried = f"{study.tried()} beside the unpruned model"
        return f"{verdict} Tried on {study.chosen.seen} validation rows: {tried}.{trivial}"
    low, high = paired.interval
    saved = study.parameters["saved"] / study.parameters["dense"]
    return (
        f"{verdict} Clipping {study.part} of layer {study.layer} at {study.rate:g} changes test accuracy by "
        f"{100 * paired.difference:+.2f} points (95% interval {100 * low:+.2f} to {100 * high:+.2f}; exact McNemar "
        f"p = {paired.p_value:.3g}; {paired.fixed} rows fixed, {paired.broken} broken; {study.tried()} "
        f"tried on validation beside the unpruned model; one draw of demonstrations, seed {study.settings['seed']})."
        f"{trivial} Stored as factors, that part would be {100 * saved:.0f}% smaller."
    )


def score_table(score: Score, labels: Sequence[str], title: str) -> RenderableType:
    """Return a score's metrics and its confusion matrix."""
    metrics = _table("n", "accuracy", "balanced", "macro-F1", "log-loss", "majority")
    metrics.add_row(str(score.n), *_metrics(score))
    if len(labels) > WIDEST:
        return Group(
            _titled(title, metrics), Text(f"confusion of {len(labels)} labels: see --json", style="dim")
        )
    confusion = _table("label", *(f"predicted {printable(label)}" for label in labels))
    for label, counts in zip(labels, score.confusion, strict=True):
        confusion.add_row(printable(label), *map(str, counts))
    return _titled(title, metrics, confusion)


def evaluation_report(result: Evaluation, shown: int = 0) -> RenderableType:
    """Return a score, and the first rows as the model reads them."""
    edits = ", ".join(map(str, result.trial.edits)) or "unpruned"
    how = f"{result.dtype}, {result.task.shots} shots"
    title = f"{result.model} on {result.task.name} {result.trial.split}: {edits} ({how})"
    parts: list[RenderableType] = []
    for prompt in result.prompts[:shown]:
        parts += [Text(f"--- {prompt.id}", style="dim"), Text(printable(prompt.context))]
        parts += [
            Text(repr(text), style="bold" if i == prompt.label else "")
            for i, text in enumerate(prompt.continuations)
        ]
    parts.append(score_table(result.score, result.task.labels, title))
    low, high = accuracy_interval(result.score)
    parts.append(Text(f"accuracy {result.score.accuracy:.4f}, 95% interval {low:.4f} to {high:.4f}"))
    parts += [Text(f"note: {note}", style="dim") for note in result.notes]
    return Group(*parts)


def spectrum_table(matrices: Sequence[MatrixSpectrum]) -> RenderableType:
    """Return both ends of every matrix's spectrum, and which lower ends storage may have made."""
    table = _table("layer", "matrix", "shape", "sigma max", "sigma min", "condition number", "rounding", "")
    for m in matrices:
        says = f"singular (rank {m.rank} of {min(m.shape)})" if m.singular else condition(m.condition_number)
        shape = f"{m.shape[0]} x {m.shape[1]}"
        ends = f"{m.sigma_max:.6g}", f"{m.sigma_min:.6g}"
        mark = "" if m.resolved else "within rounding"
        table.add_row(str(m.layer), m.name, shape, *ends, says, f"{m.rounding:.2g}", mark)
    if all(m.resolved for m in matrices):
        return table
    return Group(
        table,
        Text(
            "within rounding: storage in this dtype may move a singular value by as much as this one is, so how "
            "close to singular the matrix was before is not known",
            style="dim",
        ),
    )


def anatomy_table(document: dict[str, Any]) -> RenderableType:
    """Return a model's layers and matrices, those of equal layers once."""
    title = f"{document['model']}: {document['model_type']}, {document['parameters']:,} parameters"
    table = _table("layers", "matrix", "part", "shape", "parameters", "of model", "stored")
    for layers, matrices in _alike(document["layers"]):
        for index, m in enumerate(matrices):
            count = m["shape"][0] * m["shape"][1]
            stored = ", ".join(word for word, yes in (("fused", m["fused"]), ("tied", m["tied"])) if yes)
            share = f"{100 * count / document['parameters']:.2f}%"
            shape = f"{m['shape'][0]} x {m['shape'][1]}"
            table.add_row(
                layers if index == 0 else "", m["name"], m["part"], shape, f"{count:,}", share, stored
            )
    return _titled(title, table)


def printable(text: str) -> str:
    """Return a text whose control characters, line breaks apart, are spelled out: data does not steer a terminal."""
    return "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in text)


def condition(value: float) -> str:
    """Write a condition number."""
    return "singular" if math.isinf(value) else f"{value:.6g}"


def _alike(layers: list[dict[str, Any]]) -> list[tuple[str, list[dict[str, Any]]]]:
    """Join neighbouring layers that hold the same matrices into one entry."""
    joined: list[tuple[int, int, list[dict[str, Any]]]] = []
    for layer in layers:
        same = joined and [_facts(m) for m in joined[-1][2]] == [_facts(m) for m in layer["matrices"]]
        first = joined.pop()[0] if same else layer["layer"]
        joined.append((first, layer["layer"], layer["matrices"]))
    return [(str(a) if a == b else f"{a} to {b}", matrices) for a, b, matrices in joined]


def _facts(matrix: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(matrix[key] for key in ("name", "part", "shape", "fused", "tied"))


def _metrics(score: Score) -> list[str]:
    values = (score.accuracy, score.balanced_accuracy, score.macro_f1, score.log_loss, score.majority_rate)
    return [f"{value:.4f}" for value in values]


def _titled(title: str, *tables: Table) -> RenderableType:
    """Put a title over tables; rich's own would be as narrow as its table."""
    return Group(Text(title, style="bold"), *tables)


def _ranks(ranks: dict[str, int]) -> str:
    """Write ranks once where all matrices share them."""
    distinct = set(ranks.values())
    return (
        str(distinct.pop())
        if len(distinct) == 1
        else ", ".join(f"{name} {rank}" for name, rank in ranks.items())
    )


def _table(*columns: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index == 0 else "right", no_wrap=True)
    return table
