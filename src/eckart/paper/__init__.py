"""The paper's theory and its other experiments: nothing outside this folder and cli/paper imports
it."""
