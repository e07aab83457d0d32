"""Count the lines of the package, by room and by what they are.

python scripts/lines.py
"""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "src" / "eckart"
KINDS = ("code", "raise", "docstring", "blank", "import", "comment")
"""A line of a `raise` is one of code that says what is wrong with an input; it is counted apart."""


def main() -> None:
    rooms: dict[str, Counter[str]] = {}
    for path in sorted(SOURCE.rglob("*.py")):
        parts = path.relative_to(SOURCE).parts
        room = "/".join(parts[:2] if parts[0] == "paper" else parts[:1]).removesuffix(".py")
        rooms.setdefault(room, Counter()).update(kinds(path.read_text(encoding="utf-8")))
    rooms["all"] = sum(rooms.values(), Counter())
    print(f"{'':20}{'lines':>9}{''.join(f'{kind:>11}' for kind in KINDS)}")
    for room, counts in sorted(rooms.items(), key=lambda item: item[1].total()):
        numbers = "".join(f"{counts[kind]:11,}" for kind in KINDS)
        print(f"{room:20}{counts.total():9,}{numbers}")


def kinds(text: str) -> list[str]:
    """Return what each line of a module is."""
    lines = text.splitlines()
    found = ["code"] * len(lines)
    for node in ast.walk(ast.parse(text)):
        kind = None
        if isinstance(node, ast.Raise):
            kind = "raise"
        elif isinstance(node, ast.Import | ast.ImportFrom):
            kind = "import"
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            kind = "docstring" if isinstance(node.value.value, str) else None
        if kind:
            found[node.lineno - 1 : node.end_lineno] = [kind] * (node.end_lineno - node.lineno + 1)
    for place, line in enumerate(lines):
        if found[place] == "code" and not line.strip():
            found[place] = "blank"
        elif found[place] == "code" and line.lstrip().startswith("#"):
            found[place] = "comment"
    return found


if __name__ == "__main__":
    main()
