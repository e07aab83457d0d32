"""Makes the runs."""


def make_runs() -> int:
    return 0
