"""One result for the terminal: a search, a score, spectra, a model, the published record."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.text import Text

from eckart.analysis.findings import find
from eckart.reports.controls import controls_report
from eckart.reports.searched import deployed_table, rivals_table, screen_list, steps_table
from eckart.reports.sentences import evaluation_verdict, race_summary, summary, worst_matrix
from eckart.reports.table import Column, Table
from eckart.reports.tables import ACCURACY, OTHERS, PLACE, spectra_table
from eckart.reports.terminal import Said, listed, printable, titled
from eckart.reports.turned import WIDEST, confusion_table
from eckart.selection.drawn import interval
from eckart.selection.tested import Tested
from eckart.statistics.scores import Score

if TYPE_CHECKING:
    from eckart.algorithm1 import Scored
    from eckart.scoring.evaluation import Evaluation
    from eckart.selection.guarded import Guarded
    from eckart.selection.result import Candidate, GreedyResult, SearchResult
    from eckart.tasks.prompts import Prompt
    from eckart.weights.anatomy import Anatomy, Weight
    from eckart.weights.conditioning import MatrixSpectrum

METRICS = tuple(Column(key, title, "share") for key, title in (ACCURACY | OTHERS).items())
LEGEND = (
    "balanced: accuracy averaged over the labels; macro-F1: F1 averaged over them; log-loss in"
    " nats; majority: the share of the most frequent label"
)
RECORD_NOTE = (
    "differs, cannot tell: whatever the pairs of rows before and after, which are not known;"
    " depends: on the pairs\nlog is the authors'. Intervals and p values: eckart report published"
    " --format md"
)


def search_report(result: SearchResult) -> RenderableType:
    """Return everything that a search found: the verdict first, condition numbers last."""
    failed = [c for c in result.candidates if c.trial.score is None]
    parts: list[RenderableType] = [
        Said(f"{' '.join(summary(find(result.run)))}\n", "bold"),
        *tested_report(result),
        candidates_table(result),
        *(Said(f"failed at {candidate.rate:g}: {candidate.trial.error}") for candidate in failed),
    ]
    if result.race:
        parts.append(Said(race_summary(result.race), "dim"))
    if result.published:
        parts.append(beside_table(result))
    if result.condition_numbers:
        parts.append(layers_list(result))
    if result.order:
        parts.append(screen_list(result.order))
    parts += [Said(f"note: {note}", "dim") for note in result.notes]
    return Group(*parts)


def greedy_report(result: GreedyResult) -> RenderableType:
    """Return everything that a greedy search found: the verdict first, then its course."""
    document = result.to_json()
    return Group(
        *(Said(text, "bold") for text in document["says"]),
        Said(""),
        *tested_report(result),
        steps_table(document),
        *(Said(f"note: {note}", "dim") for note in result.notes),
    )


def tested_report(result: Tested) -> list[RenderableType]:
    """Return what every search says of its choice: the words, then what they rest on."""
    return [
        *([Said(f"{result.rivals}\n", "bold")] if result.rivals else []),
        *(Said(f"{each}\n") for each in (result.guarded, result.looks) if each),
        outcome_table(result),
        Said(f"{LEGEND}\n", "dim"),
        *([rivals_table(result.rivals)] if result.rivals else []),
        *([deployed_table(result.deployed)] if result.deployed else []),
        *(controls_report(result) if result.against_controls() else []),
    ]


def layers_list(result: SearchResult) -> RenderableType:
    """Return condition numbers by layer, the chosen layer marked."""
    how = (
        f"top {result.settings['top_k']}, deepest of them; {result.settings['combine']} over the"
        " matrices"
    )
    entries = [
        f"{'*' if layer == result.layer else ''}{layer}: {condition(value)}"
        for layer, value in result.condition_numbers.items()
    ]
    return titled(f"condition number of {result.part} by layer, * chosen ({how})", listed(entries))


def candidates_table(result: SearchResult) -> Table:
    """Return every rate with its validation scores, and in a race the rows that it saw, the chosen
    rate marked."""
    columns = (
        Column("rate", "rate", "rate"),
        Column("ranks", "ranks"),
        Column("rows", "rows", "count"),
        *METRICS,
        Column("fate", ""),
    )
    rows = [_candidate(result, candidate) for candidate in result.candidates]
    title = (
        f"validation: layer {result.layer}, {result.part} (n ="
        f" {result.chosen.seen}{_means(result)})"
    )
    return Table("candidates", title, "", columns, rows)


def _candidate(result: SearchResult, candidate: Candidate) -> dict[str, Any]:
    dropped = {drop.rate for drop in result.race.drops} if result.race else set()
    score, rate = candidate.trial.score, candidate.rate
    fates = {"chosen": rate == result.rate, "dropped": rate in dropped, "failed": score is None}
    return {
        **(score.summary() if score else {}),
        "rate": rate,
        "ranks": _ranks(candidate.ranks),
        "rows": candidate.seen if result.race else None,
        "fate": next((fate for fate, is_so in fates.items() if is_so), ""),
    }


def outcome_table(result: Tested) -> Table:
    """Return the test set's outcome, of the clipped model too where anything is clipped."""
    columns = (
        Column("name", ""),
        Column("accuracy", "accuracy", "written"),
        Column("interval", "95% interval", "written"),
        *METRICS[1:-1],
    )
    rows = [_tested(name, look) for name, look in result.tested.items()]
    paired = result.comparison
    if result.edits:
        difference = _interval(paired.mean, paired.interval, "+")
        rows.append({"name": "difference", **difference})
    choice = "the frozen choice" if result.edits else "nothing is clipped"
    majority = f"majority {rows[0]['majority_rate']:.4f}"
    once = "looked at once" + " by this run" * (result.looks is None or bool(result.looks))
    title = f"test: {choice}, {once} (n = {paired.n}{_means(result)}; {majority})"
    return Table("outcome", title, "", columns, rows)


def _means(result: Tested) -> str:
    draws = len(result.baseline.trials)
    return f", means over {draws} draws" if draws > 1 else ""


def _tested(name: str, look: Scored) -> dict[str, Any]:
    assert look.score is not None
    found = look.score.summary()
    return {**found, "name": name, **_interval(found["accuracy"], interval(look))}


def _interval(value: float, interval: tuple[float, float], sign: str = "") -> dict[str, str]:
    low, high = interval
    return {
        "accuracy": f"{value:{sign}.4f}",
        "interval": f"{low:{sign}.4f} to {high:{sign}.4f}",
    }


PUBLISHED = (
    Column("source", "source"),
    *PLACE[1:],
    Column("test_baseline", "unpruned", "share"),
    Column("test_clipped", "clipped", "share"),
)


def beside_table(result: SearchResult) -> Table:
    """Return what the paper and its authors' logs report for the same model, task and part."""
    title = "published for this model, task and part"
    return Table("beside", title, "", PUBLISHED, result.published)


def record_report(rows: Sequence[Mapping[str, Any]]) -> RenderableType:
    """Return the published record, a table a model: accuracies, and whether any pairing of the rows
    tells them apart.

    Arguments:
        rows: of `eckart.reports.claims.published_table`.
    """
    columns = (
        Column("source", "source"),
        Column("edit", "edit", "written"),
        Column("n", "n", "count"),
        Column("test_baseline", "before", "share"),
        Column("test_clipped", "after", "share"),
        Column("gain", "points", "points"),
        Column("says", "so"),
    )
    by_model = groupby(sorted(rows, key=lambda row: row["model"]), key=lambda row: row["model"])
    tables = [
        Table("published", model, "", columns, [_recorded(row) for row in own])
        for model, own in by_model
    ]
    return Group(*tables, Said(RECORD_NOTE, "dim"))


def _recorded(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **row,
        "source": "{source}: {task}".format(**row).removeprefix("authors' "),
        "edit": f"{row['layer']}:{row['part']}:{row['rate']:g}",
        "says": row["says"].partition(",")[0].removesuffix(" on the pairs"),
    }


def score_report(score: Score, labels: Sequence[str], title: str) -> RenderableType:
    """Return a score's metrics and its confusion matrix."""
    columns = (Column("n", "n", "count"), *METRICS)
    metrics = Table("metrics", title, "", columns, [vars(score)])
    if len(labels) > WIDEST:
        return Group(metrics, Said(f"confusion of {len(labels)} labels: see --json", "dim"))
    return Group(metrics, confusion_table(score.confusion, labels))


def evaluation_report(result: Evaluation, guarded: Guarded | None = None) -> RenderableType:
    """Return a score, the verdict first."""
    title = f"{result.dtype}, {result.task.shots} shots, scoring {result.scoring}"
    return Group(
        Said(f"{evaluation_verdict(result)}\n", "bold"),
        *([Said(f"{guarded}\n")] if guarded else []),
        score_report(result.score, result.task.labels, title),
        Said(LEGEND, "dim"),
        *(Said(f"note: {note}", "dim") for note in result.notes),
    )


def prompts_report(prompts: Sequence[Prompt]) -> RenderableType:
    """Return rows as the model reads them."""
    return Group(*(part for prompt in prompts for part in _prompt(prompt)), "")


def _prompt(prompt: Prompt) -> list[RenderableType]:
    """Return a row as the model reads it, the right answer marked: never wrapped, for every space
    counts."""
    answers = [
        Text(repr(text), "bold" if i == prompt.label else "", no_wrap=True, overflow="ignore")
        for i, text in enumerate(prompt.continuations)
    ]
    context = Text(printable(prompt.context), no_wrap=True, overflow="ignore")
    return [Text(f"--- {prompt.id}", "dim"), context, *answers]


def spectrum_report(matrices: Sequence[MatrixSpectrum]) -> RenderableType:
    """Return the worst-conditioned matrix, and both ends of every spectrum."""
    values = [matrix.to_json() for matrix in matrices]
    return Group(Said(worst_matrix("", values), "bold"), spectra_table({"": values}))


def anatomy_document(name: str, anatomy: Anatomy) -> dict[str, Any]:
    """Return a model's layers and matrices as JSON values.

    Arguments:
        name: hub id or path.
        anatomy: of a model, which may be on the meta device.
    """
    in_layers = {id(w.parameter): w.parameter.numel() for layer in anatomy.layers for w in layer}
    return {
        "model": name,
        "model_type": anatomy.model_type,
        "parameters": anatomy.parameters,
        "matrix_parameters": sum(in_layers.values()),
        "layers": [
            {"layer": index, "matrices": [_matrix(weight) for weight in layer]}
            for index, layer in enumerate(anatomy.layers)
        ],
    }


def _matrix(weight: Weight) -> dict[str, Any]:
    return {
        "name": weight.name,
        "part": weight.part,
        "shape": list(weight.shape),
        "fused": weight.fused,
        "tied": bool(weight.tied),
        "tied_to": list(weight.tied),
        "path": weight.path,
    }


def anatomy_table(document: Mapping[str, Any]) -> Table:
    """Return the layers and matrices of an `anatomy_document`, those of equal layers once."""
    columns = (
        Column("layers", "layers"),
        Column("name", "matrix"),
        Column("part", "part"),
        Column("size", "shape", "written"),
        Column("parameters", "parameters", "count"),
        Column("share", "of model", "written"),
        Column("stored", "stored"),
    )
    rows = [
        {
            **matrix,
            "layers": layers if index == 0 else "",
            "size": "{} x {}".format(*matrix["shape"]),
            "parameters": math.prod(matrix["shape"]),
            "share": f"{100 * math.prod(matrix['shape']) / document['parameters']:.2f}%",
            "stored": ", ".join(word for word in ("fused", "tied") if matrix[word]),
        }
        for layers, matrices in _alike(document["layers"])
        for index, matrix in enumerate(matrices)
    ]
    title = f"{document['model']}: {document['model_type']}, {document['parameters']:,} parameters"
    return Table("anatomy", title, "", columns, rows, keys=2)


def _alike(layers: Sequence[dict[str, Any]]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Join neighbouring layers that hold the same matrices into one entry."""
    for _, group in groupby(layers, key=lambda layer: [_facts(m) for m in layer["matrices"]]):
        same = list(group)
        first, last = same[0]["layer"], same[-1]["layer"]
        yield str(first) if first == last else f"{first} to {last}", same[-1]["matrices"]


def _facts(matrix: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(matrix[key] for key in ("name", "part", "shape", "fused", "tied"))


def condition(value: float) -> str:
    """Write a condition number."""
    return "singular" if math.isinf(value) else f"{value:.6g}"


def _ranks(ranks: Mapping[str, int]) -> str:
    """Write each rank once, with the matrices that it is left of where they differ.

    >>> _ranks({"q": 288, "k": 96, "v": 96, "o": 288}), _ranks({"up": 16, "down": 16})
    ('288 q o, 96 k v', '16')
    """
    names = {rank: " ".join(n for n in ranks if ranks[n] == rank) for rank in ranks.values()}
    if len(names) == 1:
        return str(*names)
    return ", ".join(f"{rank} {of}" for rank, of in names.items())
