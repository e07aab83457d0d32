"""The analysis of a run needs nothing heavy: no model, and no drawing."""

import json
import subprocess
import sys

ANALYSIS = ("outcomes", "measured", "findings", "claims", "calibration", "flips")
IMPORTS = """
import importlib, json, sys
heavy, *modules = map(str.split, sys.argv[1:])
found = {}
for (module,) in modules:
    importlib.import_module(module)
    found[module] = sorted({*heavy} & {*sys.modules})
print(json.dumps(found))
"""


def loaded(heavy: str, *modules: str) -> dict[str, list[str]]:
    """Return which heavy packages are there once each module is, one after the other, in a fresh
    interpreter."""
    ended = subprocess.run(
        [sys.executable, "-c", IMPORTS, heavy, *modules], capture_output=True, text=True, check=True
    )
    return json.loads(ended.stdout)


def test_analysis_loads_no_torch_and_no_drawing():
    modules = [f"eckart.analysis.{name}" for name in ANALYSIS]
    assert loaded("torch transformers matplotlib", *modules) == {name: [] for name in modules}


def test_a_report_loads_no_torch():
    assert loaded("torch transformers", "eckart.reports.page") == {"eckart.reports.page": []}


def test_what_is_heavy_is_seen():
    assert loaded("json torch", "json") == {"json": ["json"]}
