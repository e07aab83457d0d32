"""Shapes and types are checked while the tests run; what several test files share."""

from pathlib import Path

import pytest
from jaxtyping import install_import_hook

TENSOR_MODULES = ["linalg", "statistics", "anatomy", "edits", "evaluation", "checkpoints"]

# Here and not in a fixture: the hook sees only what is imported after it. In the tower an int passes for a
# float, as it does for mypy.
install_import_hook(
    [f"eckart.{module}" for module in TENSOR_MODULES],
    "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))",
)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The data sets, small models and published tables that lie beside the repository, read-only."""
    folder = Path(__file__).parents[2] / "shared"
    if not folder.is_dir():
        pytest.skip(f"no shared data and models at {folder}")
    return folder
