"""The table of the paper's statements, each with what it came to on random instances."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from rich.console import Group, RenderableType

from eckart.errors import EckartError
from eckart.paper.theory import identities, inequalities, slips
from eckart.paper.theory.claims import Claim, Instances
from eckart.reports.table import Column, Table
from eckart.reports.terminal import Said

TOLERANCE = 1e-10
"""The largest relative residual of an identity, and of the side of an inequality that is to be
smaller."""

SIZES = ((1, 2), (2, 2), (2, 5), (3, 2), (3, 4), (4, 3), (4, 6), (5, 5), (5, 8), (6, 4))
"""The width d and number N of demonstrations of the random instances."""


TITLES = {
    "identity": "equal: the largest relative difference of the two sides",
    "inequality": (
        "no larger: the most by which it is, relative to the larger side; negative where there is"
        " room"
    ),
    "slip": "printed or suggested, and false: by how much, on one counter-example",
}
VERDICTS = {
    "holds": "hold",
    "false": "are false as printed or suggested",
    "FAILED": "are not as they are said to be",
}


@dataclass(frozen=True)
class Check:
    """What one statement of the paper came to.

    Arguments:
        statement, reference, kind: see `Claim`.
        instances: on how many instances; a slip has one counter-example.
        residual: the largest that `Claim.compute` gives; of an inequality negative where there is
            room.
        verdict: `holds`; of a slip `false`; `FAILED` where a statement is not as it is said to be.
    """

    statement: str
    reference: str
    kind: str
    instances: int
    residual: float
    verdict: str

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "residual": self.residual if math.isfinite(self.residual) else None}


def run_checks(instances: int = 1000, seed: int = 0) -> list[Check]:
    """Return a check for each statement, in the paper's order by kind: identities to 1e-10,
    inequalities, and counter-examples to what is false.

    Arguments:
        instances: random instances for each statement, spread over ten sizes.
        seed: of the random instances.

    Raises:
        EckartError: there are too few instances for one of each size, or the seed is negative.

    >>> sorted({check.verdict for check in run_checks(instances=20)})
    ['false', 'holds']
    """
    if instances < len(SIZES) or seed < 0:
        raise EckartError(
            f"{instances} instances with seed {seed}: give {len(SIZES)} instances or more, one of"
            " each size, and a seed of 0 or more"
        )
    random = np.random.default_rng(seed)
    batches = [
        Instances.draw(random, batch, d, n)
        for batch, (d, n) in zip(_parts(instances), SIZES, strict=True)
    ]
    measured = [_measured(claim, batches) for claim in (*identities.claims, *inequalities.claims)]
    return measured + [_refuted(claim) for claim in slips.claims]


def failures(checks: Iterable[Check]) -> list[Check]:
    """Return the checks of statements that are not as they are said to be."""
    return [check for check in checks if check.verdict == "FAILED"]


def _parts(instances: int) -> list[int]:
    each, more = divmod(instances, len(SIZES))
    return [each + (i < more) for i in range(len(SIZES))]


def _measured(claim: Claim, batches: list[Instances]) -> Check:
    residuals = [np.broadcast_to(claim.compute(batch), len(batch.h)) for batch in batches]
    largest = float(np.max(np.concatenate(residuals)))
    verdict = "holds" if largest <= TOLERANCE else "FAILED"  # NaN fails
    instances = sum(map(len, residuals))
    return Check(claim.statement, claim.reference, claim.kind, instances, largest, verdict)


def _refuted(claim: Claim) -> Check:
    violation = float(claim.compute())
    verdict = "false" if violation > TOLERANCE else "FAILED"
    return Check(claim.statement, claim.reference, claim.kind, 1, violation, verdict)


def check_report(checks: Sequence[Check]) -> RenderableType:
    """Return how many statements are as they are said to be, and a table for each kind."""
    counts = Counter(found.verdict for found in checks)
    said = ", ".join(
        f"{counts[verdict]} {words}" for verdict, words in VERDICTS.items() if counts[verdict]
    )
    return Group(
        Said(f"{len(checks)} statements: {said}\n", "bold"),
        *(_table(kind, [c for c in checks if c.kind == kind]) for kind in TITLES),
    )


def _table(kind: str, checks: Sequence[Check]) -> Table:
    columns = (
        Column("statement", "statement"),
        Column("reference", "where"),
        Column("residual", "residual", "written"),
        Column("verdict", "verdict"),
    )
    rows = [{**vars(found), "residual": f"{found.residual:.1e}"} for found in checks]
    note = f"{checks[0].instances:,} instances each" if checks[0].instances > 1 else ""
    return Table(kind, TITLES[kind], note, columns, rows)
