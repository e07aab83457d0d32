"""Cautions of a page of several runs: what was not learned, not clipped, or not alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from eckart.analysis.findings import Choice, Findings
from eckart.analysis.outcomes import short_name
from eckart.analysis.pairs import ChoicePair
from eckart.reports.sentences import learned_nothing
from eckart.selection.controls import joined

Named = dict[str, Findings]
"""Findings by the run's name; the first is the one that others are compared with."""
Pair = tuple[str, ChoicePair]
"""A run's name, and its choice beside the first run's."""


def cautions(found: Named, paired: Sequence[Pair]) -> tuple[str, ...]:
    """Return each in a sentence."""
    unlearned = _where(found, _all(learned_nothing))
    unclipped = _where(found, _all(lambda choice, _: choice.conclusion == "nothing clipped"))
    unchosen = _where(found, lambda findings: not findings.choices)
    said = {
        _models(found): True,
        "No better than always answering the most frequent label, as far as these rows show:"
        f" {unlearned}.": unlearned,
        f"Nothing is clipped in {unclipped}: there the unpruned model stands.": unclipped,
        f"Nothing was chosen in {unchosen}: see its own report.": unchosen,
        _differ(next(iter(found.values())), paired): True,
    }
    return tuple(sentence for sentence, holds in said.items() if sentence and holds)


def in_a_line(said: Sequence[str]) -> list[str]:
    """Return cautions as one sentence for a terminal."""
    return [f"Mind: {' '.join(said)}"] * bool(said)


def _where(found: Named, holds: Callable[[Findings], bool]) -> str:
    names = [f"'{name}'" for name, findings in found.items() if holds(findings)]
    return joined(names) if names else ""


def _all(what: Callable[[Choice, Findings], Any]) -> Callable[[Findings], bool]:
    return lambda own: bool(own.choices) and all(what(choice, own) for choice in own.choices)


def _models(found: Named) -> str:
    names = {
        name: joined(sorted({short_name(choice.condition.model) for choice in own.choices}))
        for name, own in found.items()
        if own.choices
    }
    apart = "; ".join(f"{model} in '{name}'" for name, model in names.items())
    return f"The models differ: {apart}." if len({*names.values()}) > 1 else ""


def _differ(first: Findings, paired: Sequence[Pair]) -> str:
    """Say in what the runs differ besides what they clip."""
    found: dict[tuple[str, Any, Any], list[str]] = {}
    for name, each in paired:
        for fact, one, other in _facts(each, first):
            if one != other:
                found.setdefault((fact, one, other), []).append(f"'{name}'")
    said = [
        f"{fact} {one} there, {other} in {joined(list(dict.fromkeys(names)))}"
        for (fact, one, other), names in found.items()
    ]
    more = f"from '{first.run.folder.name}' in more than what they clip: {'; '.join(said)}."
    return f"They differ {more}" if said else ""


def _facts(each: ChoicePair, first: Findings) -> list[tuple[str, Any, Any]]:
    assert each.first is not None  # as of all that is paired
    one, other = each.first, each.second
    a, b = one.condition, other.condition
    shown = first.block(one)
    assert shown is not None  # as of all that is paired
    return [
        ("shots", a.shots, b.shots),
        ("scoring", a.scoring, b.scoring),
        ("part", one.part, other.part),
        ("draws", len(one.picks), len(other.picks)),
        ("rows", len(shown.ids), each.asked),
    ]
