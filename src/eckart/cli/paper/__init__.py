"""The verbs of the paper's theory and experiments."""
