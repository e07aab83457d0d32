"""The tables of the paper: its claims judged by a run, and its numbers with their certainty."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import numpy as np
from scipy.stats import binomtest, fisher_exact

from eckart.analysis.claims import Ruled, Steadiness, curses, ruled, steadiness
from eckart.analysis.findings import Choice, Findings
from eckart.analysis.outcomes import Target
from eckart.published import named, record, sizes
from eckart.reports.table import SIZES, UNITS, Column, Table, gain_columns
from eckart.reports.tables import PLACE, TARGET, WHERE
from eckart.statistics.gain import LEVEL
from eckart.statistics.paired import mcnemar_exact

STEADY_NOTE = (
    "The spread is the standard deviation of the gain over the rates, the worst the gain at the"
    " rate that is worst for the layer{unit}. 'As measured' is read off the layer's cells:"
    " noise makes the spread larger and the worst lower than they are. 'Held out' takes that away:"
    " other rows and seeds than those that are read say which rate is worst and where the middle"
    " is. It is noisier, and with few seeds that are unlike each other it may lie outside the range"
    " of the layer's cells. 'Deep less shallow' compares the last half of the layers that were run"
    " with the first half: below 0 in spread, above 0 in the worst, where deep layers are steadier."
)
ADDED_NOTE = (
    "The interval of a worst gain is made with a row of each kind added, one fixed and one broken,"
    " so that a layer where no row turned has an interval as well."
)


def steadiness_table(findings: Findings) -> Table:
    """Return one row a layer, and one that compares the deep half with the shallow half."""
    units = UNITS[findings.kind]
    columns = (
        *TARGET,
        Column("split", "split"),
        Column("layer", "layer"),
        Column("plain_spread", "spread over rates, as measured", units.gain),
        Column("spread", "spread, held out", units.gain),
        Column("spread_interval", "95% interval", units.gains),
        Column("plain_worst", "worst rate, as measured", units.gain),
        Column("worst", "worst rate, held out", units.gain),
        Column("worst_interval", "95% interval", units.gains),
        *SIZES,
    )
    compared = list(steadiness(findings))
    rows = [row for steady in compared for row in _steady_rows(steady)]
    notes = [STEADY_NOTE.format(unit=units.unit and ", in points")]
    notes += [ADDED_NOTE] if findings.kind.bounds else []
    note = " ".join([*notes, *sorted({_middle(steady) for steady in compared} - {""})])
    return Table("steadiness", "Are deep layers steadier?", note, columns, rows)


def rule_table(findings: Findings) -> Table:
    """Return one row a condition and part: what choosing a layer by condition number is worth."""
    units = UNITS[findings.kind]
    columns = (
        *TARGET,
        Column("chosen_layer", "chosen layer", "count"),
        Column("layers", "layers", "count"),
        *gain_columns(units, "over a random layer", "over_random"),
        Column("p_value", "p", "p"),
        *gain_columns(units, "below the best in hindsight", "below_best"),
        Column("rank", "rank", "count"),
        Column("rank_interval", "95% interval of the rank"),
    )
    note = (
        "Every layer has the rate that validation selected for it; gains are on the test rows. The"
        " best in hindsight was found on these very rows, so the distance to it is overstated; its"
        " interval is not. p values are not corrected."
    )
    return Table(
        "rule",
        "Does the condition number choose well?",
        note,
        columns,
        [_rule_row(ruling) for ruling in ruled(findings)],
    )


def curse_table(findings: Findings) -> Table:
    """Return one row a condition and part: how far validation gains shrink on the test rows."""
    units = UNITS[findings.kind]
    columns = (
        *TARGET,
        Column("cells", "cells", "count"),
        Column("slope", "slope of test on validation gains", "number"),
        Column("validation", f"best on validation{units.column}", units.gain),
        Column("test", f"the same on test{units.column}", units.gain),
        Column("gap", f"overstated by{units.column}", units.gain),
    )
    note = (
        "The winner's curse: the slope is that of the least-squares line through all cells: 1 where"
        " test gains are as large, 0 where validation ranks noise. A few cells with large losses"
        " can make it near 1."
    )
    rows = [{**_place(curse.target), **asdict(curse.measured)} for curse in curses(findings)]
    return Table("curse", "What is a validation gain worth?", note, columns, rows)


def _steady_rows(steady: Steadiness) -> Iterator[dict[str, Any]]:
    s = steady.measured
    sizes = {"rows": steady.rows, "seeds": steady.seeds}
    where = {**_place(steady.target), "split": steady.split, **sizes}
    plain = steady.cells.std(axis=1, ddof=1), steady.cells.min(axis=1)
    for layer, plain_spread, plain_worst, spread, worst in zip(
        steady.layers, *plain, s.spread, s.worst, strict=True
    ):
        yield {
            **where,
            "layer": str(layer),
            "plain_spread": float(plain_spread),
            "plain_worst": float(plain_worst),
            "spread": spread.value,
            "spread_interval": spread.interval,
            "worst": worst.mean,
            "worst_interval": worst.interval,
        }
    deep, shallow = (_plain_half(steady, half) for half in (steady.deep, steady.shallow))
    yield {
        **where,
        "layer": f"deep less shallow: {_listed(steady.deep)} less {_listed(steady.shallow)}",
        "plain_spread": deep[0] - shallow[0],
        "plain_worst": deep[1] - shallow[1],
        "spread": s.spread_difference.value,
        "spread_interval": s.spread_difference.interval,
        "worst": s.worst_difference.mean,
        "worst_interval": s.worst_difference.interval,
    }


def _plain_half(steady: Steadiness, half: tuple[int, ...]) -> tuple[float, float]:
    """Return the root mean square spread of some layers, and their mean worst gain, as measured."""
    cells = steady.cells[[steady.layers.index(layer) for layer in half]]
    return float(np.sqrt(cells.var(axis=1, ddof=1).mean())), float(cells.min(axis=1).mean())


def _middle(steady: Steadiness) -> str:
    """Say which layer is in neither half; nothing where none is."""
    left = {*steady.layers} - {*steady.deep} - {*steady.shallow}
    return "".join(f"Layer {layer} is the middle one, and is in neither half." for layer in left)


def _rule_row(ruling: Ruled) -> dict[str, Any]:
    rule = ruling.rule
    return {
        **_place(ruling.target),
        "chosen_layer": ruling.chosen,
        "layers": rule.layers,
        "over_random": rule.over_random.mean,
        "over_random_interval": rule.over_random.interval,
        "p_value": rule.over_random.p_value,
        "below_best": rule.below_best.value,
        "below_best_interval": rule.below_best.interval,
        "rank": rule.rank,
        "rank_interval": f"{rule.rank_interval[0]} to {rule.rank_interval[1]}",
    }


def _place(target: Target) -> dict[str, Any]:
    return {**asdict(target.condition), "part": target.part}


def _listed(layers: tuple[int, ...]) -> str:
    return ", ".join(map(str, layers))


PUBLISHED_NOTE = (
    "Accuracies as printed. n is the size of the test set (Appendix C.3), and the counts of right"
    " answers that the accuracies stand for give exact (Clopper and Pearson) 95% intervals. Which"
    " rows were right before and after is not known, so only bounds can be given of what a paired"
    " comparison would say: 'unpaired p' is Fisher's exact test, which ignores the pairing; 'least"
    " p' is exact McNemar's if no more rows changed than the totals require, 'most p' if as many"
    " did as the totals allow. p values are not corrected for the number of lines."
)


def published_table(findings: Findings | None = None) -> Table:
    """Return the published record; of a run's models, tasks and parts only, if there is one, beside
    its own choice."""
    rows = [
        {**_line(row), **beside}
        for row in sorted(
            record(), key=lambda row: row["source"]
        )  # the tables by number, then the logs
        for beside in ([{}] if findings is None else _own(findings, row))
    ]
    columns = (
        Column("source", "source"),
        *WHERE[:2],
        *PLACE,
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
        *(Column(f"run_{key}", title, kind) for key, title, kind in _OWN if findings),
    )
    title = "Published results" if findings is None else "Beside the published results"
    return Table("published", title, PUBLISHED_NOTE, columns, rows)


_OWN = (
    ("shots", "this run: shots", "count"),
    ("scoring", "this run: scoring", "text"),
    ("unpruned", "this run: unpruned", "share"),
    ("gain", "this run: gain, points", "points"),
    ("interval", "this run: 95% interval", "range"),
    ("outcome", "this run: verdict", "text"),
)


def _own(findings: Findings, row: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a run's choices of a published row's model, task and part."""
    return [
        _beside(findings, choice)
        for choice in findings.choices
        if (named(choice.condition.model), choice.condition.task_name, choice.part)
        == (row["model"], row["task"], row["part"])
    ]


def _beside(findings: Findings, choice: Choice) -> dict[str, Any]:
    where, gain = choice.condition, choice.gain
    before = findings.measured(where, None, findings.split(choice))
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
