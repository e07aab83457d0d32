"""Deciding what to score: Algorithm 1."""

from eckart.selection.plan import search
from eckart.selection.study import Study
from eckart.selection.sweeps import sweep

__all__ = ["Study", "search", "sweep"]
