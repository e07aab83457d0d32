"""The analysis of a run's trials: gains, choices, claims, flips. No torch, and no drawing."""
