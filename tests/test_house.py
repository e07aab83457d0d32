"""The house: imports only point down, no cycles, nothing too long, no room too small, no name
twice, nothing heavy at the door, and the product stands without the paper."""

import ast
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
from collections import defaultdict
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
    "statistics",
    "records",
    "algorithm1",
    "published",
    "runs",
    "weights",
    "tasks",
    "scoring",
    "selection",
    "sweeps",
    "analysis",
    "reports",
    "exports",
    "demo",
    "paper",
    "cli",
    "__main__",
]
INNER = {
    "cli": "console paths flags results runs options predict out demo explore paper app",
    "exports": "recipe card copying choices gguf folder dense predictions harness",
    "paper.functions": """
        classes models options baselines task training curves clipping loading readings cells
        views
    """,
    "paper.theory": """
        arrays attention duals norms bound claims plainly slips identities inequalities checks
    """,
    "reports": """
        terminal table searched provenance sentences tables claims controls turned figures results
        opening glossary shown page cautions compared
    """,
    "scoring": """
        encoding requests fitting forward gradients methods scorer evaluation evaluator labelling
        text
    """,
    "selection": """
        plan alike order recorded drawn draws controls looks rivals deployed free guarded guard
        tested racing power course result greedy screens settings byhand search
    """,
    "scoring.forward": "trunk attention states patches reader padded packed plain fastest windows",
    "statistics": "scores paired crossed gain power multiplicity metrics harm grids",
    "tasks": """
        tables chat spec prompts choices columns files sources labels splits examples task portable
        harness_files harness
    """,
    "weights": """
        options hooks linalg loading architectures anatomy conditioning identity gguf models
        edits stored quantised spectrum
    """,
}
"""The order inside packages of more than eight modules, lowest first."""

AT_THE_TOP = 18

# The test of the house without the paper copies this file to a house that has none.
WITHOUT_PAPER = not (SOURCE / "paper").is_dir()
if WITHOUT_PAPER:
    ORDER.remove("paper")
    INNER = {name: order for name, order in INNER.items() if not name.startswith("paper")}
    INNER["cli"] = INNER["cli"].replace("paper", "")
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


@pytest.mark.parametrize("package", INNER)
def test_imports_only_point_down_inside_a_package_too(package):
    place = {name: place for place, name in enumerate(INNER[package].split())}
    prefix = f"eckart.{package}."
    inside = {module for module in MODULES if module.startswith(prefix)}
    assert {module.removeprefix(prefix).split(".")[0] for module in inside} == set(place)
    for module in inside:
        own = module.removeprefix(prefix).split(".")[0]
        for name in GRAPH[module] & inside:
            other = name.removeprefix(prefix).split(".")[0]
            assert other == own or place[other] < place[own], (
                f"{module} imports {name}, which stands above it"
            )


def test_every_large_package_has_an_order_of_its_own():
    sizes = defaultdict(set)
    for module in MODULES:
        package, _, name = module.removeprefix("eckart.").rpartition(".")
        sizes[package].add(name)
    assert {name for name, rooms in sizes.items() if name and len(rooms) > 8} <= set(INNER)


def test_the_top_is_small():
    left_out = ("__init__.py", "__main__.py", "py.typed", "__pycache__")
    entries = [path.name for path in SOURCE.iterdir() if path.name not in left_out]
    assert len(entries) <= AT_THE_TOP, sorted(entries)


def test_no_public_class_has_the_name_of_another():
    homes = defaultdict(list)
    for path in FILES:
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                homes[node.name].append(module_of(path))
    twice = {name for name, modules in homes.items() if len(modules) > 1}
    assert twice == set()


def test_no_room_is_too_small():
    """Under 80 lines with a single importer: it belongs to that one, or beside its like."""
    importers = defaultdict(set)
    for module, names in GRAPH.items():
        for name in names:
            importers[name].add(module)
    small = {
        module_of(path).removeprefix("eckart.")
        for path in FILES
        if not path.name.startswith("__")
        and path.read_text(encoding="utf-8").count("\n") < 80
        and len(importers[module_of(path)]) < 2
    }
    assert small == set()


def test_a_module_says_its_noun_first():
    riddles = {
        module_of(path).removeprefix("eckart.")
        for path in FILES
        if re.match(
            r"(What|Where|Which|Whether|From|How)\b",
            ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "",
        )
    }
    assert riddles == set()


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
        "statistics/scores",
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


def test_only_the_paper_imports_the_paper():
    wings = ("eckart.paper", "eckart.cli.paper")
    others = {m: names for m, names in GRAPH.items() if not m.startswith(wings)}
    found = {m: {n for n in names if n.startswith(wings)} for m, names in others.items()}
    assert {m for m, names in found.items() if names} <= {"eckart.cli.app"}
    assert len(found["eckart.cli.app"]) <= 2


QUICK = "imports or cycles or level or torch or order or TestMcNemar or records"


@pytest.mark.skipif(WITHOUT_PAPER, reason="this is the house without the paper")
def test_the_product_stands_without_the_paper(tmp_path):
    """Delete paper/, cli/paper/ and their lines in cli/app.py: the product searches and reports."""
    left_out = shutil.ignore_patterns("paper", "runs", "__pycache__")
    for name in ("src", "tests"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=left_out)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    app = tmp_path / "src" / "eckart" / "cli" / "app.py"
    kept = app.read_text(encoding="utf-8").splitlines(keepends=True)
    wing = re.compile(r"eckart\.cli\.paper|app\.add_typer\(")
    app.write_text("".join(line for line in kept if not wing.search(line)), encoding="utf-8")

    task, model = "tests/frozen/tasks/short.yaml", "src/eckart/demo/model"
    how = "--shots 0 --layer 0 --rates 0.5 --dtype float32 --out run"
    commands = (f"search {model} --task {task} {how}", "report run --out page.html")
    files = ("test_house.py", "test_records.py", "statistics/test_paired.py")
    tests = ["-q", "-p", "no:cacheprovider", "-W", REWRITTEN, "--noconftest", "-k", QUICK]
    ended = subprocess.run(
        [sys.executable, "-c", IN_ANOTHER_HOUSE, *commands],
        input=json.dumps([*tests, *(f"tests/{name}" for name in files)]),
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "src"), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "<html" in (tmp_path / "page.html").read_text(encoding="utf-8")


# A search that ran before in the same process has imported what a plugin of pytest brings.
REWRITTEN = "ignore::pytest.PytestAssertRewriteWarning"
IN_ANOTHER_HOUSE = """
import json, pytest, sys
ended = pytest.main(json.load(sys.stdin))
from eckart.cli.app import app
for command in sys.argv[1:]:
    app(command.split(), standalone_mode=False)
sys.exit(ended)
"""
