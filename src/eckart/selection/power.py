"""The share of rows that turn, measured on the first validation rows before anything else is
read."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from eckart.records import Edit, Split
from eckart.scoring.methods import OF_ALL_ROWS
from eckart.selection.alike import apart
from eckart.selection.draws import Draws
from eckart.selection.racing import FIRST_LOOK, plan_looks
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
    scorer = recorded.scorer
    if SQUARED_ERROR in scorer.task.metrics:
        return None
    scoring = scoring or scorer.scoring
    for edit in edits:
        rows = split or _first_rows(recorded, edit, scoring)
        trials = recorded.score([(), (edit,)], rows, (scoring,))
        scores = {trial.edits: trial.labelled for trial in trials}
        before, after = scores[()], scores[scorer.canonical((edit,))]
        if before is None:
            return None
        if after is not None:
            pairs = [*zip(before.right, after.right, strict=True)][:FIRST_LOOK]
            turned = Turned(sum(was != now for was, now in pairs), len(pairs), str(edit))
            return Outlook.after(turned, len(scorer.rows("test").rows), draws, level)
    return None


def foresee(draws: Draws, edits: Iterable[Edit], raced: int | None = None) -> Outlook | None:
    """Return what a search's test can show, measured under the first of its draws.

    Arguments:
        edits: see `outlook`.
        raced: how many rows are read in looks; the first of these serves both. None where they are
            read at once.
    """
    first = Split.part("validation", 0, plan_looks(raced)[0]) if raced else None
    recorded = Recorded(draws.first, draws.ledger, shared=len(draws.every) > 1)
    drawn = {scorer.task.seed for scorer in draws.testing}  # several prompts of one are one draw
    return outlook(recorded, edits, first, draws=len(drawn))


def foretell(
    tell: Callable[[str], None], draws: Draws, edits: Iterable[Edit], raced: int | None = None
) -> None:
    """Tell what a search's test can show; where nobody is told, nothing is read for it."""
    found = None if tell is nobody else foresee(draws, edits, raced)
    if found is not None:
        tell(f"what can be seen: {found}")


def nobody(line: str) -> None:
    """Hear nothing."""


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
