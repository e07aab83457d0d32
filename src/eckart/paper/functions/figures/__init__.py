"""Figures of in-context functions."""
