"""Errors of transformers, safetensors and the hub about a user's model, in one line each."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from huggingface_hub.errors import HFValidationError, StrictDataclassError
from safetensors import SafetensorError

from eckart.errors import ModelError
from eckart.files import home

REMOTE_CODE = "trust_remote_code"


@contextmanager
def explained(name: str) -> Iterator[None]:
    """Turn whatever the model libraries raise about a user's model, by its name, into a ModelError
    of one line."""
    try:
        yield
    except SafetensorError as error:
        raise ModelError(
            f"model '{name}' has a damaged safetensors file ({first_line(error)}); copy it again"
        ) from error
    except StrictDataclassError as error:
        raise ModelError(_wrong_type(name, error)) from error
    except (HFValidationError, OSError) as error:
        raise ModelError(_absent(name, error)) from error
    except (
        ValueError,
        KeyError,
        ImportError,
        RuntimeError,
        TypeError,
        AttributeError,
        AssertionError,
    ) as error:
        if REMOTE_CODE in str(error):
            raise ModelError(needs_code(name)) from error
        raise ModelError(f"model '{name}' cannot be loaded: {first_line(error)}") from error


def needs_code(name: str) -> str:
    """Say that a model brings code of its own, and how to let it run."""
    return (
        f"model '{name}' brings code of its own, which runs only if you allow it: read its *.py"
        " files, then pass --trust-remote-code (trust_remote_code=True in Python)"
    )


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, shortened."""
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:300]


def _wrong_type(name: str, error: BaseException) -> str:
    """Say which key of a configuration has which wrong value; the library says it in several
    lines."""
    said = " ".join(str(error).split())
    field = re.search(r"[Ff]ield '([^']+)'", said)
    value = re.search(r"\(value: (.*?)\)(?:;|$)", said) or re.search(
        r"with value (.*?) doesn't match", said
    )
    wanted = re.search(r"expected (?:an? )?([\w.]+), got (\w+)", said)
    if field is None or value is None or wanted is None:
        return (
            f"model '{name}' has a config.json that transformers refuses: {said[:300]}; mend"
            " that key"
        )
    return (
        f"model '{name}' has {field[1]}: {value[1]} in its config.json, of type {wanted[2]} where"
        f" {wanted[1]} is expected; mend that key (a number stands without quotation marks)"
    )


def _absent(name: str, error: BaseException) -> str:
    path = home(name)
    if not path.exists():
        return (
            f"no model '{name}': there is no such folder, and the hub gave none"
            f" ({first_line(error)}); check the name, the network, or a login for a gated model"
        )
    if any(path.glob("*.bin")) and not any(path.glob("*.safetensors")):
        return (
            f"model '{name}' is saved as a pickle (.bin), which is never loaded; convert it to"
            " safetensors first"
        )
    return f"model '{name}' cannot be loaded: {first_line(error)}"
