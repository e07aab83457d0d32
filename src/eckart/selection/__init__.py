"""Deciding what to score: the search of Algorithm 1, and sweeps over grids."""

from eckart.selection.plan import search
from eckart.selection.study import Study
from eckart.selection.sweeps import sweep

__all__ = ["Study", "search", "sweep"]
