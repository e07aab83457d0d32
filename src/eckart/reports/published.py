"""The published numbers with the certainty that they allow, beside what a run found."""

from __future__ import annotations

from typing import Any

from scipy.stats import binomtest, fisher_exact

from eckart.analysis.findings import Choice, Findings
from eckart.published import named, record, sizes
from eckart.reports.table import Column, Table
from eckart.statistics.paired import mcnemar_exact

LEVEL = 0.05
NOTE = (
    "Accuracies as printed. n is the size of the test set (Appendix C.3), and the counts of right"
    " answers that the accuracies stand for give exact (Clopper and Pearson) 95% intervals. Which"
    " rows were right before and after is not known, so only bounds can be given of what a paired"
    " comparison would say: 'unpaired p' is Fisher's exact test, which ignores the pairing; 'least"
    " p' is exact McNemar's if no more rows changed than the totals require, 'most p' if as many"
    " did as the totals allow. p values are not corrected for the number of lines."
)


def published_table(found: Findings | None = None) -> Table:
    """Return the published record; of a run's models, tasks and parts only, if there is one, beside
    its own choice."""
    rows = [
        {**_line(row), **beside}
        for row in sorted(
            record(), key=lambda row: row["source"]
        )  # the tables by number, then the logs
        for beside in ([{}] if found is None else _own(found, row))
    ]
    columns = (
        Column("source", "source"),
        Column("model", "model"),
        Column("task", "task"),
        Column("part", "part"),
        Column("layer", "layer", "count"),
        Column("rate", "rate", "rate"),
        Column("n", "n", "count"),
        Column("test_baseline", "unpruned", "share"),
        Column("baseline_interval", "unpruned, 95%", "shares"),
        Column("test_clipped", "clipped", "share"),
        Column("clipped_interval", "clipped, 95%", "shares"),
        Column("gain", "gain, points", "points"),
        Column("unpaired_p", "unpaired p", "p"),
        Column("least_p", "least p", "p"),
        Column("most_p", "most p", "p"),
        Column("says", "so"),
        *(Column(f"run_{key}", title, kind) for key, title, kind in _OWN if found),
    )
    title = "Published results" if found is None else "Beside the published results"
    return Table("published", title, NOTE, columns, rows)


_OWN = (
    ("shots", "this run: shots", "count"),
    ("scoring", "this run: scoring", "text"),
    ("unpruned", "this run: unpruned", "share"),
    ("gain", "this run: gain, points", "points"),
    ("interval", "this run: 95% interval", "range"),
    ("outcome", "this run: verdict", "text"),
)


def _own(found: Findings, row: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a run's choices of a published row's model, task and part."""
    return [
        _beside(found, choice)
        for choice in found.choices
        if (named(choice.condition.model), choice.condition.task_name, choice.part)
        == (row["model"], row["task"], row["part"])
    ]


def _beside(found: Findings, choice: Choice) -> dict[str, Any]:
    where, gain = choice.condition, choice.gain
    before = found.measured(where, None, found.split(choice))
    return {
        "run_shots": where.shots,
        "run_scoring": where.scoring,
        "run_unpruned": before.mean if before else None,
        "run_gain": gain.mean if gain else None,
        "run_interval": gain.interval if gain else None,
        "run_outcome": choice.conclusion,
    }


def _line(row: dict[str, Any]) -> dict[str, Any]:
    n, divisor = sizes(row["task"])
    before, after = (min(n, round(row[key] * divisor)) for key in ("test_baseline", "test_clipped"))
    least, most = paired_bounds(before, after, n)
    return {
        **row,
        "n": n,
        "gain": row["test_clipped"] - row["test_baseline"],
        "baseline_interval": exact_interval(before, n),
        "clipped_interval": exact_interval(after, n),
        "unpaired_p": _unpaired_p(before, after, n),
        "least_p": least,
        "most_p": most,
        "says": _says(least, most),
    }


def exact_interval(right: int, n: int) -> tuple[float, float]:
    """Return the 95% interval of Clopper and Pearson (1934, Biometrika 26, 404-413) for a
    proportion.

    >>> low, high = exact_interval(32, 56)
    >>> f"{low:.3f} to {high:.3f}"
    '0.432 to 0.703'
    """
    interval = binomtest(right, n).proportion_ci(0.95, method="exact")
    return float(interval.low), float(interval.high)


def _unpaired_p(before: int, after: int, n: int) -> float:
    """Return the p value of Fisher's exact test of two counts of n, as if the rows were not the
    same."""
    return float(fisher_exact([[before, n - before], [after, n - after]]).pvalue)


def paired_bounds(before: int, after: int, n: int) -> tuple[float, float]:
    """Return the least and the largest p value that exact McNemar's test can have, given two counts
    of the same n rows.

    The rows that were fixed less those that were broken are `after - before`, whatever the pairs.
    The p value is least where nothing else changed, and largest where as many rows changed as can
    have: no more were fixed than had been wrong, nor broken than had been right.

    >>> [round(p, 3) for p in paired_bounds(32, 37, 56)]
    [0.062, 0.542]
    """
    more, fewer = max(after - before, 0), max(before - after, 0)
    both = min(n - before - more, before - fewer)
    return mcnemar_exact(more, fewer), mcnemar_exact(more + both, fewer + both)


def _says(least: float, most: float) -> str:
    if most <= LEVEL:
        return "differs, whatever the pairs"
    return "depends on the pairs" if least <= LEVEL else "cannot tell, whatever the pairs"
