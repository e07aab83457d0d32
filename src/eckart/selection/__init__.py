"""Deciding what to score: Algorithm 1."""

from eckart.selection.plan import search
from eckart.selection.study import Study

__all__ = ["Study", "search"]
