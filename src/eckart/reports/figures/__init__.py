"""Figures, with what is drawn separated from how."""

from eckart.reports.figures.base import check_figure_path, figure_bytes, save_figure
from eckart.reports.figures.conditions import (
    ConditionCurve,
    condition_curves,
    draw_condition_numbers,
)
from eckart.reports.figures.rates import RatePoint, draw_rates, rate_points

__all__ = [
    "ConditionCurve",
    "RatePoint",
    "check_figure_path",
    "condition_curves",
    "draw_condition_numbers",
    "draw_rates",
    "figure_bytes",
    "rate_points",
    "save_figure",
]
