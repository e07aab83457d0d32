"""The shape and type checks of `jaxtyping.jaxtyped`, at a fraction of their price.

Its import hook checks arguments twice, keeps the sizes of arrays for functions that take none, and
makes the checks of an inner function anew at each call of its outer one: half of what the tests of
scoring cost. Here arguments are checked once, sizes are kept where arrays are annotated, and an
inner function's checks are made once.
"""

from collections.abc import Callable
from dataclasses import is_dataclass
from functools import wraps
from importlib import import_module
from inspect import isgeneratorfunction
from types import FunctionType
from typing import Any, get_args

import jaxtyping
from beartype import BeartypeConf, beartype
from jaxtyping import AbstractArray, TypeCheckError, install_import_hook
from jaxtyping._storage import pop_shape_memo, push_shape_memo, shape_str

# In the tower an int passes for a float, as it does for mypy.
typed = beartype(conf=BeartypeConf(is_pep484_tower=True, violation_type=TypeCheckError))
original = jaxtyping.jaxtyped
# What a module under the hook imports is compiled anew, so these are imported before.
LIBRARIES = ("transformers.modeling_utils", "scipy.stats")
inner: dict[tuple, tuple[Callable, Callable, bool]] = {}


def check_on_import(modules: list[str]) -> None:
    """Check the functions and the dataclasses of the modules that are imported from now on."""
    for library in LIBRARIES:
        import_module(library)
    jaxtyping.jaxtyped = jaxtyped
    install_import_hook(modules, "beartype.beartype")


def jaxtyped(*given, **options):
    """What the hook's decorators look up; any other call is as it was."""
    return original(*given, **options) if given else checked


def checked(thing):
    """Check a function, or what a dataclass is made with."""
    if not isinstance(thing, type):
        return checked_inner(thing) if "<locals>" in thing.__qualname__ else checked_outer(thing)
    if is_dataclass(thing) and "__init__" in vars(thing):
        thing.__init__ = checked_outer(thing.__init__)
    return thing


def checked_outer(function: FunctionType) -> Callable:
    made, arrays = with_checks(function)
    return with_sizes(made) if arrays else made


def checked_inner(function: FunctionType) -> Callable:
    """Check an inner function by what was made for the first one of its code."""
    key = (function.__module__, function.__qualname__, function.__code__)
    if key not in inner:
        inner[key] = (function, *with_checks(function))
    first, made, arrays = inner[key]
    if made is first:  # nothing is annotated
        return function
    assert first in made.__kwdefaults__.values(), "beartype no longer hands over what it wraps"
    fresh = wraps(function)(FunctionType(made.__code__, made.__globals__))
    given = made.__kwdefaults__.items()
    fresh.__kwdefaults__ = {name: function if v is first else v for name, v in given}
    return with_sizes(fresh) if arrays else fresh


def with_checks(function: FunctionType) -> tuple[Callable, bool]:
    """Return a function that checks its types, and whether there are arrays among them."""
    written = function.__annotations__
    meant = {name: read(hint, function) for name, hint in written.items()}
    function.__annotations__ = meant
    made = typed(function)
    function.__annotations__ = made.__annotations__ = written  # as whoever asks is to read them
    return made, any(map(is_array, meant.values()))


def with_sizes(function: Callable) -> Callable:
    """Let what one array says of a size bind the others. No size of ours is said by an argument's
    name, as `{name}`, so arguments need not be told apart, which costs more than all else."""
    if isgeneratorfunction(function.__wrapped__):
        return original(function, typechecker=None)

    @wraps(function)
    def sized(*args, **kwargs):
        memos = push_shape_memo({})
        try:
            return function(*args, **kwargs)
        except TypeCheckError as error:
            error.add_note(shape_str(memos))
            raise
        finally:
            pop_shape_memo()

    return sized


def read(hint: Any, function: FunctionType) -> Any:
    """Return what an annotation means: anything, where it names a class that is not there yet."""
    try:
        return eval(hint, function.__globals__) if isinstance(hint, str) else hint
    except NameError:
        return Any


def is_array(hint: Any) -> bool:
    if isinstance(hint, type) and issubclass(hint, AbstractArray):
        return True
    return any(map(is_array, get_args(hint)))
