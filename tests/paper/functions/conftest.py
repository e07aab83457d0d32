"""A tiny training, for every test that needs one."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def trained(tmp_path_factory) -> Path:
    """The folder of a training of a few steps: linear functions of 2 coordinates, 5 points."""
    from eckart.paper.functions.training import Training, train

    folder = tmp_path_factory.mktemp("trained") / "tiny"
    tiny = Training(dimension=2, layers=1, width=8, heads=2, steps=20, batch=4, warmup=5)
    train(tiny, folder, checkpoints=[0, 5], device="cpu")
    return folder
