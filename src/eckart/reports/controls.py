"""The control arms of choices: beside a search's result in the terminal, a run's on its page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import RenderableType

from eckart.algorithm1 import arms_together
from eckart.analysis.findings import Choice, Findings, picked
from eckart.analysis.measured import reported
from eckart.analysis.outcomes import Block, Condition, blocks, edits_of, is_plain, pick_of
from eckart.reports.searched import versus_values
from eckart.reports.table import SIZES, UNITS, Column, Table, gain_columns
from eckart.reports.tables import TARGET
from eckart.reports.terminal import Said
from eckart.selection.controls import WORDS, Versus, adjusted
from eckart.statistics.crossed import mean_gain, turned

if TYPE_CHECKING:
    from eckart.selection.tested import Tested

NOTE = (
    "Each choice against other edits of the same place, on the same test rows: as many singular"
    " directions cut at random, or from the largest, and the whole part dropped. Above 0 the choice"
    " is better. Of a choice that beats none of them it is not shown that cutting the smallest"
    " singular values does more than doing something there; 'cannot be told from' is not 'equal'. p"
    " is corrected for all lines of this table."
)


def controls_report(result: Tested) -> list[RenderableType]:
    """Return a search's choice beside its control arms, and what that allows to be said."""
    units = UNITS[type(result.clipped.trials[0].score)]  # type: ignore[index]
    columns = (
        Column("arm", "arm", "written"),
        Column("merit", units.metric, units.mean),
        *gain_columns(units, "choice less arm"),
        Column("p_value", "p", "p"),
        Column("p_adjusted", "p, Holm", "p"),
        Column("says", "the choice"),
    )
    rows = [{**versus_values(arm), "arm": arm.name, "merit": arm.merit} for arm in result.against]
    n = result.comparison.n
    title = f"control arms: {result.place}, on the same test rows (n = {n})"
    tables = [Table("controls", title, "", columns, rows)] if rows else []
    said = result.against_controls()
    return [*tables, Said(f"{said[0].upper()}{said[1:]}.\n")]


def controls_table(findings: Findings) -> Table:
    """Return one row a choice and control arm, over the seeds whose choice had it."""
    units = UNITS[findings.kind]
    columns = (
        *TARGET,
        Column("arm", "arm"),
        Column("says", "the choice"),
        Column("choice", f"choice: {units.metric}", units.mean),
        Column("control", f"arm: {units.metric}", units.mean),
        *gain_columns(units, "choice less arm"),
        Column("p_value", "p", "p"),
        Column("p_adjusted", "p, corrected", "p"),
        *SIZES,
        Column("better", f"rows {findings.kind.turned[0]}", "count"),
        Column("worse", f"rows {findings.kind.turned[1]}", "count"),
    )
    gathered = blocks(findings.run, controls=True)
    compared = [
        pair
        for choice in findings.choices
        if (block := gathered.get((choice.condition, "test")))
        for pair in _against(choice, block)
    ]
    judged = adjusted([found for _, found in compared])
    rows = [
        {**facts, **versus_values(found)}
        for (facts, _), found in zip(compared, judged, strict=True)
    ]
    says = Counter(row["says"] for row in rows)
    told = ", ".join(f"{word} {says[word]}" for word in WORDS.values() if says[word])
    note = f"Of {len(rows)} comparisons, the choice {told}. {NOTE}"
    title = "Does the choice beat its control arms?"
    return Table("controls", title, note, columns, [*rows, *_failed(findings)])


def _against(choice: Choice, block: Block) -> Iterator[tuple[dict[str, Any], Versus]]:
    """Give the choice against each of its arms, with what was measured of both."""
    picks = {
        seed: edits_of(pick)
        for seed, pick in choice.picks.items()
        if pick and is_plain(edits_of(pick)) and (pick, seed) in block.trials
    }
    arms = {
        (arm[0].cut, seed): pick_of(arm)
        for seed, edits in picks.items()
        for arm in arms_together(edits, droppable=True)
        if (pick_of(arm), seed) in block.trials
    }
    for cut in dict.fromkeys(cut for cut, _ in arms):
        scored = {seed: arms[cut, seed] for seed in picks if (cut, seed) in arms}
        own = picked(block, {seed: choice.picks[seed] for seed in scored})
        others = picked(block, scored)
        gain = mean_gain(own - others, block.kind)
        if gain is None:
            continue
        better, worse = turned(own - others)
        facts = {
            **asdict(choice.condition),
            "part": choice.part,
            "arm": cut,
            "choice": reported(block.kind, float(np.nanmean(own))),
            "control": reported(block.kind, float(np.nanmean(others))),
            "better": better,
            "worse": worse,
        }
        yield facts, Versus(gain=gain)


def _failed(findings: Findings) -> Iterator[dict[str, Any]]:
    for trial in findings.run.trials.values():
        if not is_plain(trial.edits) and trial.score is None:
            where = asdict(Condition.of(trial, findings.run.asked.prompts))
            parts = ", ".join(dict.fromkeys(edit.part for edit in trial.edits))
            failed = {"arm": trial.edits[0].cut, "says": f"failed: {trial.error}"}
            yield {**where, "part": parts, **failed}
