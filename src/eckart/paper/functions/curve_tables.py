"""Tables of error curves, for the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import RenderableType

from eckart.reports.terminal import Said, Sheet, titled

if TYPE_CHECKING:
    from eckart.paper.functions.curves import Curve, ErrorCurves, StepCurves

NOTE = (
    "95% intervals, Student's over the prompts; squared errors have heavy tails, which they take"
    " too lightly"
)
STEPS_NOTE = "means over the prompts; their 95% intervals are in the figure (--plot) and in --json"


def error_table(curves: ErrorCurves) -> RenderableType:
    """Return errors by the number of examples, a model's beside the baselines', and its excess over
    least squares."""
    columns = [
        "examples",
        curves.model.name,
        *(b.name for b in curves.baselines),
        "excess over least squares",
        "n",
    ]
    rows = [
        [
            str(count),
            _with_interval(curves.model, i),
            *(_number(b.means[i]) for b in curves.baselines),
            _with_interval(curves.excess, i),
            f"{curves.n:,}",
        ]
        for i, count in enumerate(curves.counts)
    ]
    return _titled(curves, columns, rows, NOTE)


def step_table(curves: StepCurves) -> RenderableType:
    """Return errors by the number of examples, a column for each kept model of a training."""
    columns = ["examples", *(model.name for model in curves.models), curves.reference.name, "n"]
    rows = [
        [
            str(count),
            *(_number(model.means[i]) for model in curves.models),
            _number(curves.reference.means[i]),
            f"{curves.n:,}",
        ]
        for i, count in enumerate(curves.counts)
    ]
    return _titled(curves, columns, rows, STEPS_NOTE)


def _titled(
    curves: ErrorCurves | StepCurves, columns: list[str], rows: list[list[str]], note: str
) -> RenderableType:
    title = f"{curves.function}, d = {curves.dimension}: squared error over the variance of f"
    return titled(title, Sheet(columns, rows, names=0), Said(note, "dim"))


def _with_interval(curve: Curve, i: int) -> str:
    return f"{_number(curve.means[i])} [{_number(curve.lows[i])}, {_number(curve.highs[i])}]"


def _number(value: float) -> str:
    """Return three decimals, or fewer digits where there are more before the point.

    >>> _number(0.01234), _number(-1e-17), _number(3684.704)
    ('0.012', '0.000', '3,685')
    """
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{round(value, 3) + 0.0:.3f}"
