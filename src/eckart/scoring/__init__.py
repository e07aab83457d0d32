"""Scoring a model on a task. Importing the package imports nothing."""
