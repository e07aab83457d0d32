"""What Python programs may rely on: the names of the package, and how each is called."""

import dataclasses
import inspect
import re
from typing import Any

import eckart
from frozen.kept import frozen


def test_public_names():
    frozen("public", {"all": sorted(eckart.__all__), "dir": dir(eckart), **_described()})


def _described() -> dict[str, Any]:
    public = {name: getattr(eckart, name) for name in sorted(eckart.__all__)}
    return {
        name: _members(it) if inspect.isclass(it) else _signature(it) for name, it in public.items()
    }


def _members(kind: type) -> dict[str, Any]:
    names = [n for n in dir(kind) if not n.startswith("_") and not hasattr(Exception, n)]
    fields = (
        {f.name: _bare(f.type) for f in dataclasses.fields(kind)}
        if dataclasses.is_dataclass(kind)
        else {}
    )
    return {
        "()": _signature(kind),
        "fields": fields,
        "exception": issubclass(kind, Exception),
        **{name: _member(inspect.getattr_static(kind, name)) for name in names},
    }


def _member(it: Any) -> str:
    if isinstance(it, classmethod | staticmethod):
        return f"{type(it).__name__} {_signature(it.__func__)}"
    if callable(it):
        return _signature(it)
    read = getattr(it, "fget", None) or getattr(it, "func", None)
    return "value" if read is None else f"{type(it).__name__} {_signature(read)}"


def _signature(it: Any) -> str:
    """Return how it is called, each type by its own name: where types live is free to change."""
    try:
        return _bare(inspect.signature(it))
    except ValueError:  # an exception that takes what Exception takes
        return "built in"


def _bare(it: Any) -> str:
    text = re.sub(r"<class '(.*?)'>", r"\1", str(it.__name__ if inspect.isclass(it) else it))
    return re.sub(r" at 0x\w+", "", re.sub(r"\b(?:[A-Za-z_]\w*\.)+(?=\w)", "", text))
