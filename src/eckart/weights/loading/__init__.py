"""What is looked at before a model is trusted: its folder, its configuration, its tensors, and
whether it is causal."""
