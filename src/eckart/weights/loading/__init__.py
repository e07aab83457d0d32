"""Checks before a model is trusted: its folder, its configuration, its tensors, and that it is
causal."""
