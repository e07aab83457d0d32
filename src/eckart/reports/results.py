"""Tables for the terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from eckart.reports.table import points
from eckart.reports.terminal import Said, Sheet, listed, titled
from eckart.scores import Score
from eckart.scoring.evaluation import Evaluation
from eckart.selection.racing import Race
from eckart.selection.study import Candidate, Study, drawn
from eckart.statistics.crossed import nothing_learned
from eckart.statistics.paired import accuracy_interval
from eckart.tasks.prompts import Prompt
from eckart.weights.conditioning import MatrixSpectrum

RECORD_NOTE = (
    "differs, cannot tell: whatever the pairs of rows before and after, which are not known;"
    " depends: on the pairs\nlog is the authors'. Intervals and p values: eckart report published"
    " --format md"
)
LEGEND = (
    "balanced: accuracy averaged over the labels; macro-F1: F1 averaged over them; log-loss in"
    " nats; majority: the share of the most frequent label"
)
ROUNDING_NOTE = (
    "* within rounding: storage in this dtype may move a singular value by as much as this one is,"
    " so how close to singular the matrix was before is not known"
)
WIDEST = 8
"""The most labels whose confusion matrix is printed."""


def study_report(study: Study) -> RenderableType:
    """Return everything that a search found: the verdict first, then what it rests on, condition
    numbers after that."""
    failed = [c for c in study.candidates if c.trial.score is None]
    parts: list[RenderableType] = [
        Said(f"{conclusion(study)}\n", "bold"),
        outcome_table(study),
        Said(f"{LEGEND}\n", "dim"),
        candidates_table(study),
        *(Said(f"failed at {candidate.rate:g}: {candidate.trial.error}") for candidate in failed),
    ]
    if study.race:
        parts.append(Said(race_summary(study.race), "dim"))
    if study.published:
        parts.append(published_table(study))
    if study.condition_numbers:
        parts.append(layers_list(study))
    parts += [Said(f"note: {note}", "dim") for note in study.notes]
    return Group(*parts)


def layers_list(study: Study) -> RenderableType:
    """Return condition numbers by layer, the chosen layer marked."""
    how = (
        f"top {study.settings['top_k']}, deepest of them; {study.settings['combine']} over the"
        " matrices"
    )
    entries = [
        f"{'*' if layer == study.layer else ''}{layer}: {condition(value)}"
        for layer, value in study.condition_numbers.items()
    ]
    return titled(f"condition number of {study.part} by layer, * chosen ({how})", listed(entries))


def candidates_table(study: Study) -> RenderableType:
    """Return every rate with its validation scores, and in a race the rows that it saw, the chosen
    rate marked."""
    title = f"validation: layer {study.layer}, {study.part} (n = {study.chosen.seen})"
    seen = ["rows"] if study.race else []
    columns = [
        "rate",
        "ranks",
        *seen,
        "accuracy",
        "balanced",
        "macro-F1",
        "log-loss",
        "majority",
        "",
    ]
    return titled(title, Sheet(columns, [_candidate(study, c) for c in study.candidates], names=2))


def _candidate(study: Study, candidate: Candidate) -> list[str]:
    score, rate = candidate.trial.labelled, candidate.rate
    numbers = ["failed", "", "", "", ""] if score is None else _metrics(score)
    dropped = {drop.rate for drop in study.race.drops} if study.race else set()
    fate = "chosen" if rate == study.rate else "dropped" if rate in dropped else ""
    seen = [str(candidate.seen)] if study.race else []
    return [f"{rate:g}", _ranks(candidate.ranks), *seen, *numbers, fate]


def race_summary(race: Race) -> str:
    """Return what a race read and what that is worth."""
    return (
        f"raced: {race.rows_read} of {race.rows_without} rows read, looks at"
        f" {', '.join(map(str, race.looks))}; with probability {1 - race.alpha:g} or more the"
        " choice is that of the search that reads them all"
    )


def outcome_table(study: Study) -> RenderableType:
    """Return the test set's outcome: unpruned and clipped on the same rows; unpruned alone where
    nothing is clipped."""
    paired = study.comparison
    columns = ["", "accuracy", "95% interval", "balanced", "macro-F1", "log-loss"]
    rows, majority = [], ""
    for name, trial in study.tested.items():
        assert trial.labelled is not None
        low, high = accuracy_interval(trial.labelled)
        first, *rest, majority = _metrics(trial.labelled)
        rows.append([name, first, f"{low:.4f} to {high:.4f}", *rest])
    if study.rate:
        low, high = paired.interval
        rows.append(
            ["difference", f"{paired.difference:+.4f}", f"{low:+.4f} to {high:+.4f}", *[""] * 3]
        )
    choice = "the frozen choice" if study.rate else "nothing is clipped"
    return titled(
        f"test: {choice}, looked at once (n = {paired.n}; majority {majority})",
        Sheet(columns, rows),
    )


def published_table(study: Study) -> RenderableType:
    """Return what the paper and its authors' logs report for the same model, task and part."""
    columns = ["source", "layer", "rate", "unpruned", "clipped"]
    rows = [
        [
            row["source"],
            str(row["layer"]),
            f"{row['rate']:g}",
            f"{row['test_baseline']:.4f}",
            f"{row['test_clipped']:.4f}",
        ]
        for row in study.published
    ]
    return titled("published for this model, task and part", Sheet(columns, rows))


def record_table(rows: Sequence[Mapping[str, Any]]) -> RenderableType:
    """Return the published record, a table a model: accuracies, and whether any pairing of the rows
    tells them apart.

    Arguments:
        rows: of `eckart.reports.published.published_table`.
    """
    models = sorted({row["model"] for row in rows})
    tables = [
        titled(name, _record_of([row for row in rows if row["model"] == name])) for name in models
    ]
    return Group(*tables, Said(RECORD_NOTE, "dim"))


def _record_of(rows: Sequence[Mapping[str, Any]]) -> Sheet:
    cells = []
    for row in rows:
        source = "{source}: {task}".format(**row).removeprefix("authors' ")
        edit = f"{row['layer']}:{row['part']}:{row['rate']:g}"
        accuracies = (
            f"{row['test_baseline']:.4f}",
            f"{row['test_clipped']:.4f}",
            points(row["gain"]),
        )
        says = row["says"].partition(",")[0].removesuffix(" on the pairs")
        cells.append([source, edit, str(row["n"]), *accuracies, says])
    return Sheet(["source", "edit", "n", "before", "after", "points", "so"], cells)


def conclusion(study: Study) -> str:
    """Return the result in a few sentences that claim no more than the test set allows.

    First comes a model that does not beat always answering the most frequent label, then what
    clipping does.
    """
    paired, verdict = study.comparison, study.verdict()
    said = [study.caution()] if study.caution() else []
    tried = (
        f"Tried on {study.chosen.seen} validation rows: {study.tried()} beside the unpruned model."
    )
    if study.rate == 0:
        return " ".join([*said, f"{_capital(verdict)}.", tried])
    low, high = paired.interval
    said.append(
        f"{_capital(verdict)}: clipping {study.part} of layer {study.layer} at {study.rate:g}"
        f" changes test accuracy by {100 * paired.difference:+.2f} points (95% interval"
        f" {100 * low:+.2f} to {100 * high:+.2f}; exact McNemar p = {paired.p_value:.3g};"
        f" {paired.fixed} rows fixed, {paired.broken} broken; {study.turned} predictions turned)."
    )
    return " ".join([*said, tried])


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def score_table(score: Score, labels: Sequence[str], title: str) -> RenderableType:
    """Return a score's metrics and its confusion matrix."""
    metrics = Sheet(
        ["n", "accuracy", "balanced", "macro-F1", "log-loss", "majority"],
        [[str(score.n), *_metrics(score)]],
        names=0,
    )
    if len(labels) > WIDEST:
        return titled(title, metrics, Said(f"confusion of {len(labels)} labels: see --json", "dim"))
    shown = [" ".join(printable(label).split()) for label in labels]
    confusion = Sheet(
        ["label", *(f"predicted {label}" for label in shown)],
        [[label, *map(str, counts)] for label, counts in zip(shown, score.confusion, strict=True)],
    )
    return titled(title, metrics, confusion)


def evaluation_report(result: Evaluation, shown: int = 0) -> RenderableType:
    """Return a score, the verdict first, and in the end the first rows as the model reads them."""
    title = f"{result.dtype}, {result.task.shots} shots, scoring {result.scoring}"
    return Group(
        Said(f"{evaluation_verdict(result)}\n", "bold"),
        score_table(result.score, result.task.labels, title),
        Said(LEGEND, "dim"),
        *(Said(f"note: {note}", "dim") for note in result.notes),
        *(part for prompt in result.prompts[:shown] for part in _prompt(prompt)),
    )


def evaluation_verdict(result: Evaluation) -> str:
    """Say how often a model is right, of how many rows, and under which demonstrations."""
    score, task = result.score, result.task
    edits = ", ".join(map(str, result.trial.edits)) or "unpruned"
    low, high = accuracy_interval(score)
    right = (
        f"{result.model} on {task.name} {result.trial.split}, {edits}: accuracy"
        f" {score.accuracy:.4f} (95% interval {low:.4f} to {high:.4f}; n = {score.n};"
        f" {drawn(task.shots, task.seed)})."
    )
    name = "clipped" if result.trial.edits else "unpruned"
    return f"{nothing_learned({name: score})} {right}".lstrip()


def _prompt(prompt: Prompt) -> list[RenderableType]:
    """Return a row as the model reads it, the right answer marked: never wrapped, for every space
    counts."""
    answers = [
        Text(repr(text), "bold" if i == prompt.label else "", no_wrap=True, overflow="ignore")
        for i, text in enumerate(prompt.continuations)
    ]
    context = Text(printable(prompt.context), no_wrap=True, overflow="ignore")
    return [Text(f"--- {prompt.id}", "dim"), context, *answers]


def spectrum_table(matrices: Sequence[MatrixSpectrum]) -> RenderableType:
    """Return the worst-conditioned matrix, and both ends of every spectrum: which storage may have
    made is marked."""
    columns = [
        "layer",
        "matrix",
        "shape",
        "sigma max",
        "sigma min",
        "condition number",
        "rounding",
        "",
    ]
    rows = [
        [
            str(m.layer),
            m.name,
            f"{m.shape[0]} x {m.shape[1]}",
            f"{m.sigma_max:.6g}",
            f"{m.sigma_min:.6g}",
            condition(m.condition_number),
            f"{m.rounding:.2g}",
            f"rank {m.rank}" if m.singular else "" if m.resolved else "*",
        ]
        for m in matrices
    ]
    told = [] if all(m.resolved for m in matrices) else [Said(ROUNDING_NOTE, "dim")]
    return Group(Said(_worst(matrices), "bold"), Sheet(columns, rows, names=2, keys=2), *told)


def _worst(matrices: Sequence[MatrixSpectrum]) -> str:
    worst = max(matrices, key=lambda m: m.condition_number)
    unsure = sum(not m.resolved and not m.singular for m in matrices)
    within = f"; {unsure} within rounding (*)" if unsure else ""
    value = condition(worst.condition_number)
    return (
        f"worst conditioned of {len(matrices)} matrices: {worst.name} of layer {worst.layer},"
        f" {value}{within}"
    )


def anatomy_table(document: dict[str, Any]) -> RenderableType:
    """Return a model's layers and matrices, those of equal layers once."""
    title = f"{document['model']}: {document['model_type']}, {document['parameters']:,} parameters"
    rows = [
        [layers if index == 0 else "", *_matrix(m, document["parameters"])]
        for layers, matrices in _alike(document["layers"])
        for index, m in enumerate(matrices)
    ]
    columns = ["layers", "matrix", "part", "shape", "parameters", "of model", "stored"]
    return titled(title, Sheet(columns, rows, names=2, keys=2))


def _matrix(matrix: dict[str, Any], parameters: int) -> list[str]:
    (height, width), count = matrix["shape"], math.prod(matrix["shape"])
    stored = ", ".join(word for word in ("fused", "tied") if matrix[word])
    share = f"{100 * count / parameters:.2f}%"
    return [matrix["name"], matrix["part"], f"{height} x {width}", f"{count:,}", share, stored]


def printable(text: str) -> str:
    """Return a text whose control characters, line breaks apart, are spelled out: data does not
    steer a terminal."""
    return "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in text)


def condition(value: float) -> str:
    """Write a condition number."""
    return "singular" if math.isinf(value) else f"{value:.6g}"


def _alike(layers: list[dict[str, Any]]) -> list[tuple[str, list[dict[str, Any]]]]:
    """Join neighbouring layers that hold the same matrices into one entry."""
    joined: list[tuple[int, int, list[dict[str, Any]]]] = []
    for layer in layers:
        same = joined and [_facts(m) for m in joined[-1][2]] == [
            _facts(m) for m in layer["matrices"]
        ]
        first = joined.pop()[0] if same else layer["layer"]
        joined.append((first, layer["layer"], layer["matrices"]))
    return [(str(a) if a == b else f"{a} to {b}", matrices) for a, b, matrices in joined]


def _facts(matrix: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(matrix[key] for key in ("name", "part", "shape", "fused", "tied"))


def _metrics(score: Score) -> list[str]:
    values = (
        score.accuracy,
        score.balanced_accuracy,
        score.macro_f1,
        score.log_loss,
        score.majority_rate,
    )
    return [f"{value:.4f}" for value in values]


def _ranks(ranks: dict[str, int]) -> str:
    """Write each rank once, with the matrices that it is left of where they differ.

    >>> _ranks({"q": 288, "k": 96, "v": 96, "o": 288}), _ranks({"up": 16, "down": 16})
    ('288 q o, 96 k v', '16')
    """
    names = {rank: " ".join(n for n in ranks if ranks[n] == rank) for rank in ranks.values()}
    return (
        str(*names) if len(names) == 1 else ", ".join(f"{rank} {of}" for rank, of in names.items())
    )
