"""Every verb of the command line, and everything about each of its parameters but the words of its
help."""

from typing import Any

from frozen.door import verbs
from frozen.kept import frozen


def test_options():
    frozen("options", dict(_walked(verbs(), "eckart")))


def _walked(command: Any, name: str):
    yield name, _described(command)
    for sub in sorted(getattr(command, "commands", {})):
        yield from _walked(command.commands[sub], f"{name} {sub}")


def _described(command: Any) -> dict[str, Any]:
    return {
        "hidden": command.hidden,
        "commands": sorted(getattr(command, "commands", {})),
        "arguments": [p.name for p in command.params if p.param_type_name == "argument"],
        "parameters": {p.name: _parameter(p) for p in sorted(command.params, key=lambda p: p.name)},
    }


def _parameter(parameter: Any) -> dict[str, Any]:
    return {
        "kind": parameter.param_type_name,
        "flags": [*parameter.opts, *parameter.secondary_opts],
        "type": _type(parameter),
        "required": parameter.required,
        "default": _plain(parameter.default),
        "multiple": getattr(parameter, "multiple", False),
        "nargs": parameter.nargs,
        "is_flag": getattr(parameter, "is_flag", False),
        "hidden": getattr(parameter, "hidden", False),
        "envvar": parameter.envvar,
    }


def _type(parameter: Any) -> dict[str, Any]:
    """Return the type as typer holds it: older ones as click's, newer ones as the annotation."""
    kind = getattr(parameter, "type", None)
    if kind is not None:
        return {
            "name": kind.name,
            **{key: _plain(getattr(kind, key, None)) for key in ("min", "max", "choices")},
        }
    kind = parameter.type_descriptor.annotation
    name = getattr(kind, "__name__", str(kind))
    choices = [str(choice.value) for choice in kind] if hasattr(kind, "__members__") else None
    return {"name": name, "min": parameter.min, "max": parameter.max, "choices": choices}


def _plain(value: Any) -> Any:
    return value if isinstance(value, int | float | str | list | None) else str(value)
