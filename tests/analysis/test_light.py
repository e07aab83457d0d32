"""The analysis of a run needs nothing heavy: no model, and no drawing."""

import subprocess
import sys

import pytest


def loaded(module: str, heavy: set[str]) -> list[str]:
    """Return which heavy packages importing a module loads, in a fresh interpreter."""
    said = f"import sys, {module}; print(*sorted({heavy!r} & {{*sys.modules}}))"
    ended = subprocess.run([sys.executable, "-c", said], capture_output=True, text=True, check=True)
    return ended.stdout.split()


@pytest.mark.parametrize(
    "module", ["outcomes", "measured", "findings", "claims", "calibration", "flips"]
)
def test_analysis_loads_no_torch_and_no_drawing(module):
    assert loaded(f"eckart.analysis.{module}", {"torch", "transformers", "matplotlib"}) == []


def test_a_report_loads_no_torch():
    assert loaded("eckart.reports.page", {"torch", "transformers"}) == []
