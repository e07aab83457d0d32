"""What the trials of a run show: gains, choices, claims, flips. No torch, and no drawing."""
