"""The arrays that the theory takes: of numbers, in float64, with shapes that fit each other."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar, get_type_hints

import numpy as np
from jaxtyping import AbstractArray, Float, jaxtyped

from eckart.errors import EckartError

P = ParamSpec("P")
T = TypeVar("T")

Numbers = Float[np.ndarray, "*batch"] | np.float64
"""One number for each of a batch; where there is no batch, NumPy makes it a scalar."""
Values = Float[np.ndarray, "*batch m n"]
Keys = Float[np.ndarray, "*batch k n"]
WQuery = Float[np.ndarray, "*batch k d"]


def shaped(function: Callable[P, T]) -> Callable[P, T]:
    """Make a function take arrays, lists or CPU tensors in float64, and refuse those that its
    signature does not fit.

    Its array arguments are annotated with shapes, such as `Float[np.ndarray, "*batch m n"]`. It
    raises an EckartError, in one line, for what is no array of finite numbers, and for shapes that
    disagree.

    >>> @shaped
    ... def total(values: Float[np.ndarray, "m n"], keys: Float[np.ndarray, "k n"]) -> float:
    ...     return float(values.sum() + keys.sum())
    >>> total([[1, 2]], [[3, 4]])
    10.0
    >>> total([[1, 2]], [[3]])  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    eckart.errors.EckartError: total: keys has shape (1, 1), and is to be (k, n) beside ...
    """
    signature = inspect.signature(function)
    shapes = {
        name: hint
        for name, hint in get_type_hints(function).items()
        if isinstance(hint, type) and issubclass(hint, AbstractArray)
    }

    @wraps(function)
    def checked(*args: P.args, **kwargs: P.kwargs) -> T:
        given = signature.bind(*args, **kwargs)
        arrays = {name: value for name, value in given.arguments.items() if name in shapes}
        given.arguments.update(_fitted(function.__name__, arrays, shapes))
        return function(*given.args, **given.kwargs)

    return checked


def transposed(matrix: np.ndarray) -> np.ndarray:
    """Return the transpose of a matrix, or of every matrix of a batch."""
    return np.swapaxes(matrix, -1, -2)


def root(d_scale: float) -> float:
    """Return what attention divides its scores by, sqrt(d_scale)."""
    if not d_scale > 0:
        raise EckartError(
            f"d_scale {d_scale}: scores are divided by its root; give 1, or the width of a head"
        )
    return math.sqrt(d_scale)


def squared_norm(matrix: np.ndarray) -> np.ndarray:
    """Return the squared Frobenius norm of a matrix, or of every matrix of a batch."""
    return np.asarray(np.square(matrix).sum(axis=(-1, -2)))


def _fitted(function: str, given: dict[str, Any], shapes: dict[str, Any]) -> dict[str, np.ndarray]:
    fitted: dict[str, np.ndarray] = {}
    with jaxtyped("context"):  # a size that one array has binds the others
        for name, value in given.items():
            array = _numbers(f"{function}: {name}", value)
            if not isinstance(array, shapes[name]):
                wanted = shapes[name].dim_str.replace("*batch", "...").replace(" ", ", ")
                others = ", ".join(f"{other} {found.shape}" for other, found in fitted.items())
                raise EckartError(
                    f"{function}: {name} has shape {array.shape}, and is to be ({wanted})"
                    f"{f' beside {others}' if others else ''}"
                )
            fitted[name] = array
    return fitted


def _numbers(name: str, value: Any) -> np.ndarray:
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        raise EckartError(
            f"{name} is no array of numbers ({type(value).__name__}); give a NumPy array"
        ) from None
    if not np.isfinite(array).all():
        raise EckartError(
            f"{name} holds NaN or infinity, as after an overflow; look where it was computed"
        )
    return array
