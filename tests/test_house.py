"""The house: imports only point down, no cycles, nothing too long, nothing heavy at the door."""

import ast
import re
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

from eckart import _HOME

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "eckart"
FILES = sorted(SOURCE.rglob("*.py"))

# Lowest first. A module may import what stands before it, and its own package.
ORDER = [
    "errors",
    "files",
    "scores",
    "records",
    "options",
    "statistics",
    "algorithm1",
    "published",
    "runs",
    "weights",
    "tasks",
    "scoring",
    "selection",
    "exports",
    "sweeps",
    "analysis",
    "reports",
    "demo",
    "paper",
    "cli",
    "__main__",
]
PLACE = {name: place for place, name in enumerate(ORDER)}


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(SOURCE.parent).with_suffix("").parts).removesuffix(".__init__")


def imported(path: Path) -> set[str]:
    """Return the modules of eckart that a file imports, wherever in the file."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            # `from package import module` imports the module; any other name comes from the module
            # before `import`.
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= inner & NAMES or {str(node.module)}
            if (
                node.module == "eckart"
            ):  # what the package gives lazily comes from a module all the same
                found |= {_HOME[alias.name] for alias in node.names if alias.name in _HOME}
    return {name for name in found if name == "eckart" or name.startswith("eckart.")}


NAMES = {module_of(path) for path in FILES}
MODULES = {module_of(path): imported(path) for path in FILES}
GRAPH = {
    module: {name for name in names if name in MODULES} - {module}
    for module, names in MODULES.items()
}


@pytest.mark.parametrize("module", [m for m in MODULES if m != "eckart"])
def test_imports_only_point_down(module):
    own = module.split(".")[1]
    for name in GRAPH[module] - {"eckart"}:
        other = name.split(".")[1]
        assert other == own or PLACE[other] < PLACE[own], (
            f"{module} imports {name}, which stands above it"
        )


def test_every_module_has_a_level():
    assert {module.split(".")[1] for module in MODULES if module != "eckart"} == set(PLACE)


def test_there_are_no_cycles():
    # The package's own file imports lazily, inside __getattr__; what it names for type checkers
    # does not run.
    graph = {module: names - {"eckart"} for module, names in GRAPH.items() if module != "eckart"}
    for start in graph:
        seen, stack = set(), [start]
        while stack:
            for name in graph[stack.pop()] - seen:
                assert name != start, f"{start} is on an import cycle"
                seen.add(name)
                stack.append(name)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_files_are_at_most_400_lines(path):
    assert path.read_text(encoding="utf-8").count("\n") <= 400


def functions() -> list[tuple[str, int]]:
    nodes = [
        (f"{path.relative_to(SOURCE)}:{node.name}", node)
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef)
    ]
    return [(name, (node.end_lineno or 0) - node.lineno + 1) for name, node in nodes]


def test_functions_are_short():
    lengths = functions()
    assert [name for name, length in lengths if length > 80] == []
    assert statistics.median(length for _, length in lengths) <= 12


@pytest.mark.parametrize(
    "module",
    [
        "errors",
        "scores",
        "records",
        "algorithm1",
        "statistics/paired",
        "statistics/crossed",
        "weights/linalg",
    ],
)
def test_the_lowest_level_knows_no_transformers(module):
    tree = ast.parse((SOURCE / f"{module}.py").read_text(encoding="utf-8"))
    names = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
    }
    names |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert not any(name.split(".")[0] in ("transformers", "datasets", "pathlib") for name in names)


def test_one_module_makes_every_table_of_a_terminal():
    """Tables that make themselves cut numbers where a terminal is narrow."""
    makers = [
        path.name
        for path in FILES
        if re.search(r"rich\.table|rich import box", path.read_text("utf-8"))
    ]
    assert makers == ["terminal.py"]


def test_no_pickle_and_no_stub():
    for path in FILES:
        text = path.read_text(encoding="utf-8")
        for word in ("import pickle", "torch.load(", "raise NotImplementedError", "TODO", "FIXME"):
            assert word not in text, f"{path}: {word}"


def test_a_report_needs_neither_torch_nor_transformers():
    said = (
        "import sys, eckart.reports.page; print(sorted({'torch', 'transformers'} & {*sys.modules}))"
    )
    ended = subprocess.run([sys.executable, "-c", said], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "[]"
