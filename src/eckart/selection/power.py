"""The share of rows that turn, measured on the first validation rows before anything else is
read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from eckart.errors import numbered
from eckart.records import Edit, Split, Trial
from eckart.scoring.methods import OF_ALL_ROWS
from eckart.selection.alike import apart
from eckart.selection.draws import Draws
from eckart.selection.racing import FIRST_LOOK, Tell, nobody, plan_looks
from eckart.selection.recorded import Recorded
from eckart.statistics.gain import LEVEL
from eckart.statistics.power import Outlook, Turned
from eckart.statistics.scores import SQUARED_ERROR
from eckart.weights.anatomy import Anatomy


def outlook(
    recorded: Recorded,
    edits: Iterable[Edit],
    split: str | None = None,
    *,
    scoring: str | None = None,
    draws: int = 1,
    level: float = LEVEL,
) -> Outlook | None:
    """Return what the test rows can show, going by how many of the first validation rows turn.

    The trials are kept like any others, so that nothing is read twice where a run goes on; where
    those of all validation rows are kept, their first rows do.

    Arguments:
        recorded: scores the model on the task.
        edits: the first of them that can be scored is looked at, beside the unpruned model.
        split: the rows to read; the first 64 of validation by default, or all of them where the
            scoring cannot do with some.
        scoring: how outcomes are made; the scorer's own by default.
        draws: over how many draws of demonstrations the gain will be tested.
        level: of the test.

    Returns:
        None where nothing can be said: the task asks for numbers, none of which is right or wrong,
        or nothing could be scored.
    """
    look = _look(recorded, edits, split, scoring)
    return None if look is None else _outlook(recorded, look, draws, level)


def _look(
    recorded: Recorded, edits: Iterable[Edit], split: str | None, scoring: str | None = None
) -> tuple[Trial, Trial] | None:
    """Return the unpruned model's trial and that of the first edit that can be scored, on the same
    rows."""
    scorer = recorded.scorer
    if SQUARED_ERROR in scorer.task.metrics:
        return None
    scoring = scoring or scorer.scoring
    for edit in edits:
        rows = split or _first_rows(recorded, edit, scoring)
        trials = {t.edits: t for t in recorded.score([(), (edit,)], rows, (scoring,))}
        before, after = trials[()], trials[scorer.canonical((edit,))]
        if before.labelled is None:
            return None
        if after.labelled is not None:
            return before, after
    return None


def _outlook(recorded: Recorded, look: tuple[Trial, Trial], draws: int, level: float) -> Outlook:
    before, after = (trial.labelled for trial in look)
    assert before is not None
    assert after is not None
    pairs = [*zip(before.right, after.right, strict=True)][:FIRST_LOOK]
    turned = Turned(sum(was != now for was, now in pairs), len(pairs), str(look[1].edits[0]))
    return Outlook.after(turned, len(recorded.scorer.rows("test").rows), draws, level)


def foresee(draws: Draws, edits: Iterable[Edit], raced: int | None = None) -> Outlook | None:
    """Return what a search's test can show, measured under the first of its draws.

    Arguments:
        edits: see `outlook`.
        raced: how many rows are read in looks; the first of these serves both. None where they are
            read at once.
    """
    found = _foreseen(draws, edits, raced)
    return None if found is None else found[0]


def _foreseen(
    draws: Draws, edits: Iterable[Edit], raced: int | None
) -> tuple[Outlook, tuple[Trial, Trial]] | None:
    first = Split.part("validation", 0, plan_looks(raced)[0]) if raced else None
    recorded = _first(draws)
    look = _look(recorded, edits, first)
    if look is None:
        return None
    drawn = {scorer.task.seed for scorer in draws.testing}  # several prompts of one are one draw
    return _outlook(recorded, look, len(drawn), LEVEL), look


def _first(draws: Draws) -> Recorded:
    return Recorded(draws.first, draws.ledger, shared=len(draws.every) > 1)


def foretell(
    tell: Tell,
    draws: Draws,
    edits: Sequence[Edit],
    raced: int | None = None,
    arms: int = 0,
    step: str = "how long it takes",
) -> None:
    """Tell what a search's test can show, and about how long the search takes; where nobody is
    told, nothing is read for it.

    Arguments:
        edits, raced: see `foresee`.
        arms: how many control arms are tested beside the choice.
        step: what it is that takes so long.
    """
    found = None if tell is nobody else _foreseen(draws, edits, raced)
    if found is None:
        return
    outlook, look = found
    tell(f"what can be seen: {outlook}")
    if not _first(draws).has([(), *((edit,) for edit in edits)], "validation"):
        many = numbered(len(edits), "edit")
        took = lasting(_seconds(draws, look, len(edits), 1 + arms))
        tell(
            f"{step}: up to {took} on this machine, going by these"
            f" rows: {many} on validation, and the choice on test"
        )


def _seconds(draws: Draws, look: tuple[Trial, Trial], tried: int, tested: int) -> float:
    """Return how long so many edits take on validation and on test, and the unpruned model, if a
    row takes what it took in a look: too much, for the look has also done what is done once."""
    paces = [trial.seconds / trial.labelled.n for trial in look if trial.labelled is not None]
    return sum(
        len(rows.rows) * (paces[0] + edits * paces[1])
        for split, edits in (("validation", tried), ("test", tested))
        for rows in draws.rows(split)
    )


def lasting(seconds: float) -> str:
    """Say about how long that is.

    >>> lasting(0.2), lasting(48.3), lasting(400), lasting(9000)
    ('about a second', 'about 48 seconds', 'about 7 minutes', 'about 2.5 hours')
    """
    if seconds < 1.5:
        return "about a second"
    if seconds < 90:
        return f"about {seconds:.0f} seconds"
    if seconds < 5400:
        return f"about {seconds / 60:.0f} minutes"
    return f"about {seconds / 3600:.1f} hours"


def largest_first(anatomy: Anatomy, layer: int, part: str, rates: Iterable[float]) -> list[Edit]:
    """Return the candidates of a layer in the order in which they are looked at.

    The largest rate turns the most rows, and the more turn, the larger a gain must be to be told:
    what is said of it holds for the smaller rates too.
    """
    edits = [Edit(layer, part, rate) for rate in sorted(rates) if rate]
    return apart(anatomy, edits)[::-1]


def _first_rows(recorded: Recorded, edit: Edit, scoring: str) -> str:
    whole = "validation"
    few = len(recorded.scorer.rows(whole).rows) <= FIRST_LOOK
    if few or scoring in OF_ALL_ROWS or recorded.has([(), (edit,)], whole, (scoring,)):
        return whole
    return Split.part(whole, 0, FIRST_LOOK)
