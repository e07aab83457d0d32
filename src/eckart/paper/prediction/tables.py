"""What was predicted and what was measured, as tables for the terminal, and the answer in a
sentence."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType

from eckart.analysis.outcomes import SPLITS, short_name
from eckart.paper.prediction.agreement import Agreement
from eckart.paper.prediction.screens import Screened
from eckart.paper.prediction.study import Prediction
from eckart.reports.table import p_text, points
from eckart.reports.terminal import Said, Sheet, titled
from eckart.statistics.crossed import Estimate

AMONG = {"all": "all edits of a task", "layers": "layers, at one part and rate"}


def prediction_report(found: Prediction) -> RenderableType:
    """Return the tables of the correlations and of the screens, and the answer."""
    tables = [
        _ranks(found, split)
        for split in SPLITS
        if any(a.cells for a in found.agreements if a.split == split)
    ]
    screens = [_screens(found.screens), _blind(found.screens)] if found.screens else []
    return Group(Said(f"{answer(found)}\n", "bold"), _heading(found), *tables, *screens)


def answer(found: Prediction) -> str:
    """Say whether a screen by the theory beats a random layer, in a search and without any
    label."""
    theory = [screen for screen in found.screens if screen.theory]
    if not theory:
        return (
            "No run scored several layers whole on validation and test rows: no screen can be"
            " judged."
        )
    at_rates = {screen.screen: (screen.each_rate, screen.each_rate_p_holm) for screen in theory}
    in_search = {screen.screen: (screen.over_random, screen.p_holm) for screen in theory}
    return "\n".join(
        [
            _beaten(
                "With the rate by validation, as in a search",
                in_search,
                [s.screen for s in found.beating],
            ),
            _beaten(
                "At the same rate for all layers",
                at_rates,
                [s.screen for s in theory if s.beats_random_at_each_rate],
            ),
        ]
    )


def _beaten(where: str, leads: dict[str, tuple[Estimate, float]], beating: Sequence[str]) -> str:
    best = max(leads, key=lambda name: leads[name][0].mean)
    estimate, p = leads[best]
    said = (
        f"{where}, {len(beating) or 'none'} of the theory's {len(leads)} screens beats a random"
        " layer"
    )
    named = f": {', '.join(beating)}" if beating else ""
    return (
        f"{said}{named}. The best, {best}: {_points(estimate)} points, p = {p_text(p)} corrected."
    )


def _heading(found: Prediction) -> RenderableType:
    groups = ", ".join(f"{short_name(model)} {task}" for model, task in found.groups)
    how = found.how
    seeds = "1 draw" if how.seeds == 1 else f"up to {how.seeds} draws"
    return Said(
        f"{len(found.cells)} cells of {len(found.groups)} models and tasks: {groups}\nread:"
        f" {how.prompts} validation prompts, no label of theirs, of {seeds} of demonstrations;"
        " floors as shares of the unpruned mean variance",
        "dim",
    )


def _ranks(found: Prediction, split: str) -> RenderableType:
    ranked = {among: found.agreement(split, among) for among in AMONG}
    columns = ["predictor"]
    for among, name in AMONG.items():
        some = ranked[among][0]
        columns += [f"{name} ({some.cells} cells, {some.groups} groups)", "p, corrected"]
    rows = [
        [
            agreements[0].predictor.name,
            *(text for agreement in agreements for text in _rank(agreement)),
        ]
        for agreements in zip(*ranked.values(), strict=True)
    ]
    theory = [agreement.predictor.theory for agreement in ranked["all"]]
    title = (
        f"rank correlation with the gain on {split} rows; above 0: in the direction that the theory"
        " claims"
    )
    return _titled(title, columns, rows, theory)


def _rank(found: Agreement) -> list[str]:
    if found.rank is None or found.p_holm is None:
        return ["-", "-"]
    low, high = found.rank.interval
    return [f"{found.rank.value:+.2f} ({low:+.2f} to {high:+.2f})", p_text(found.p_holm)]


def _screens(found: Sequence[Screened]) -> RenderableType:
    first = found[0]
    title = (
        f"as a screen for the layer: {first.units} choices in {first.groups} models and tasks, in"
        " points on test rows\neach layer at the rate that validation chose for it; sure: choices"
        " whose own interval is above, below 0; turned: in the direction that does better on the"
        " other groups"
    )
    columns = (
        "chosen by",
        "gain",
        "over a random layer",
        "p, corrected",
        "sure",
        "below hindsight",
        "turned: over random",
    )
    rows = [
        [
            screen.screen,
            points(screen.gain),
            _points(screen.over_random),
            p_text(screen.p_holm),
            f"{screen.better}, {screen.worse}",
            points(screen.below_best),
            _points(screen.learned),
        ]
        for screen in found
    ]
    return _titled(title, columns, rows, [screen.theory for screen in found])


def _blind(found: Sequence[Screened]) -> RenderableType:
    title = (
        "the same without any label: the layer at each rate, leads averaged over the rates; and the"
        " layer and the rate, the lead being that over a random layer at this rate"
    )
    columns = (
        "chosen by",
        "layer: over random",
        "p, corrected",
        "layer and rate: gain",
        "over random",
    )
    rows = [
        [
            screen.screen,
            _points(screen.each_rate),
            p_text(screen.each_rate_p_holm),
            "-" if screen.blind_gain is None else points(screen.blind_gain),
            _points(screen.blind),
        ]
        for screen in found
    ]
    return _titled(title, columns, rows, [screen.theory for screen in found])


def _points(estimate: Estimate | None) -> str:
    if estimate is None:
        return "-"
    low, high = estimate.interval
    return f"{points(estimate.mean)} ({points(low)} to {points(high)})"


def _titled(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], theory: Sequence[bool]
) -> RenderableType:
    """Return a table in which baselines stand apart from the theory's rows."""
    named = [
        [name if is_theory else f"baseline: {name}", *cells]
        for (name, *cells), is_theory in sorted(
            zip(rows, theory, strict=True), key=lambda pair: not pair[1]
        )
    ]
    return titled(title, Sheet(columns, named))
