"""What is kept in `data/`, and how what comes out today is compared with it."""

import json
import math
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from frozen.door import HERE, MODEL

DATA = HERE / "data"
RENEW = "ECKART_FREEZE"
"""Set by freeze.py: what comes out is kept instead of compared."""
RELATIVE, ABSOLUTE = 1e-4, 1e-6
FLEETING = frozenset({"seconds", "versions", "command", "cost", "seconds, all trials"})
"""Keys of what another machine or another day says otherwise."""
SHOWN = 20


def frozen(name: str, found: Any) -> None:
    """Compare JSON values with what is kept under a name: floats nearly, everything else
    exactly."""
    path = DATA / f"{name}.json"
    found = json.loads(json.dumps(found))
    if os.environ.get(RENEW):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    same(json.loads(path.read_text(encoding="utf-8")), found, name)


def same(kept: Any, found: Any, name: str = "") -> None:
    """Fail with a list of the differences, if there are any."""
    found = list(differences(kept, found))
    more = f"\n... and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    assert not found, f"{name}:\n" + "\n".join(found[:SHOWN]) + more


def differences(kept: Any, found: Any, place: str = "") -> Iterator[str]:
    """Say what differs, a line each."""
    if isinstance(kept, dict) and isinstance(found, dict):
        yield from (
            f"{place}/{key}: gone, was {_short(kept[key])}" for key in kept if key not in found
        )
        yield from (f"{place}/{key}: new, {_short(found[key])}" for key in found if key not in kept)
        for key in kept.keys() & found.keys():
            yield from differences(kept[key], found[key], f"{place}/{key}")
    elif isinstance(kept, list) and isinstance(found, list):
        if len(kept) != len(found):
            yield f"{place}: {len(kept)} items, now {len(found)}"
        for number, pair in enumerate(zip(kept, found, strict=False)):
            yield from differences(*pair, f"{place}/{number}")
    elif isinstance(kept, float) and isinstance(found, float):
        if not math.isclose(kept, found, rel_tol=RELATIVE, abs_tol=ABSOLUTE):
            yield f"{place}: {kept!r}, now {found!r}"
    elif type(kept) is not type(found) or kept != found:
        yield f"{place}: {_short(kept)}, now {_short(found)}"


def steady(value: Any, *folders: Path) -> Any:
    """Return JSON values without what is fleeting; the model and the folders are named, not
    located."""
    if isinstance(value, Mapping):
        return {
            steady(k, *folders): steady(v, *folders) for k, v in value.items() if k not in FLEETING
        }
    if isinstance(value, list):
        return [steady(item, *folders) for item in value]
    return unlocated(value, *folders) if isinstance(value, str) else value


def unlocated(text: str, *folders: Path) -> str:
    """Return a text with the model and the folders named."""
    for name, path in {
        "@MODEL@": MODEL,
        **{f"@{n}@": folder for n, folder in enumerate(folders)},
    }.items():
        for written in (
            str(path),
            str(path).replace("_", r"\_"),
        ):  # as JSON and as Markdown have it
            text = text.replace(written, name)
    return text


def wording(text: str, *folders: Path) -> list[str]:
    """Return the lines of a page for people, without what is fleeting and the blanks of its
    layout."""
    lines = [" ".join(line.split()) for line in unlocated(text, *folders).splitlines()]
    return [
        re.sub(r"\b[\d.,]+ s\b", "@ s", re.sub(r"[─━-]{2,}", "--", line)) for line in lines if line
    ]


def _short(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)[:200]
