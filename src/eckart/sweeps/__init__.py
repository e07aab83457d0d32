"""Grids of trials: what they cross, where they run, and what they end with."""
