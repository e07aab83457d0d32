"""What the tests of searches share."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def mood(tmp_path_factory) -> Path:
    """The demonstration corpus's task on which clipping its model's second layer gains."""
    # Not at the top: the package is to be imported after the hook.
    from eckart.demo import corpus

    return corpus.write(tmp_path_factory.mktemp("corpus"))["mood"]


@pytest.fixture(scope="session")
def task(mood):
    from eckart import Task
    from eckart.demo import corpus

    return Task.load(
        data=mood,
        template=corpus.TEMPLATE,
        label_column="label",
        shots=2,
        split_sizes=(80, 60),
    )
