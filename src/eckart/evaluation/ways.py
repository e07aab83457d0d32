"""Finding the fastest way of reading that agrees with the model's plain forward."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator

import numpy as np
from jaxtyping import Float, Int

from eckart.errors import ModelError
from eckart.evaluation.batching import is_out_of_memory
from eckart.evaluation.packed import Packed, can_pack
from eckart.evaluation.padding import can_share
from eckart.evaluation.reading import Padded, Reader, plain_log_likelihoods
from eckart.evaluation.requests import Requests
from eckart.evaluation.route import Route
from eckart.evaluation.trunk import Trunk
from eckart.models import LoadedModel

TOLERANCE = {"float64": 1e-6, "float32": 1e-3, "float16": 0.03, "bfloat16": 0.25}
"""How far, in nats per token, the fast path may be from the plain forward before it is given up, by dtype."""

Values = Float[np.ndarray, "prompts labels"]
Way = Callable[[Requests], Reader]
"""Makes a reader of requests."""


def find_reader(
    model: LoadedModel, requests: Requests, budget: int, route: Route | None, trunk: Trunk, what: str
) -> Reader:
    """Return the fastest reader of requests that agrees with the plain forward on two of the prompts.

    Arguments:
        model: the unedited model.
        requests: what to read.
        budget: the most tokens in a batch.
        route: None for a model that cannot be taken apart.
        trunk: where readers leave states.
        what: names the requests in messages.

    Raises:
        ModelError: no way of reading agrees.
    """
    sample = requests.subset(sample_of(requests))
    plain = plain_log_likelihoods(model.model, sample.without_prefix())
    for name, way in _ways(model, budget, route, trunk):
        if _reads_right(way, model, sample, plain):
            if name:
                warnings.warn(f"{what} rows are read {name}: sharing fails on this model", stacklevel=2)
            return way(requests)
    raise ModelError(
        f"{type(model.model).__name__} scores rows differently in a batch and alone, so no result could be "
        "trusted; is it a causal decoder?"
    )


def agrees(model: LoadedModel, found: Values, requests: Requests) -> bool:
    """Say whether log-likelihoods are those of the plain forward of the model as it is now."""
    return _close(model, found, plain_log_likelihoods(model.model, requests.without_prefix()), requests)


def _close(model: LoadedModel, found: Values, plain: Values, requests: Requests) -> bool:
    """Say whether two readings agree; where the plain one is not a number, nothing can be said against the other."""
    close = np.abs(found - plain) <= TOLERANCE[model.dtype] * sizes(requests)[0]
    return bool((close | ~np.isfinite(plain)).all())


def sample_of(requests: Requests) -> list[int]:
    """Return the prompt with the shortest and the one with the longest row."""
    lengths = [max(len(requests.rows[c.row]) for c in choices) for choices in requests.continuations]
    return sorted({int(np.argmin(lengths)), int(np.argmax(lengths))})


def sizes(requests: Requests) -> tuple[Int[np.ndarray, "prompts labels"], Int[np.ndarray, "prompts labels"]]:
    """Return the number of tokens, and of bytes, of every continuation."""
    tokens = [[len(c.tokens) for c in choices] for choices in requests.continuations]
    lengths = [[c.bytes for c in choices] for choices in requests.continuations]
    return np.array(tokens), np.array(lengths)


def _reads_right(way: Way, model: LoadedModel, sample: Requests, plain: Values) -> bool:
    try:
        return _close(model, way(sample).log_likelihoods(), plain, sample)
    except (RuntimeError, TypeError, ValueError, AttributeError, LookupError) as error:
        if is_out_of_memory(error):
            raise
        return False  # an architecture that is built otherwise than this way expects


def _ways(loaded: LoadedModel, budget: int, route: Route | None, trunk: Trunk) -> Iterator[tuple[str, Way]]:
    """Yield how rows can be read, fastest first, each with what to say of it where a faster one fails."""
    model = loaded.model
    packs = route is not None and can_pack(route)
    if route is not None and packs:
        yield "", lambda rows: Packed(model, rows, budget, route, trunk)
    if can_share(model):
        yield "padded" if packs else "", lambda rows: Padded(model, rows, budget, route, trunk)
    apart = "without sharing their demonstrations"
    yield apart, lambda rows: Padded(model, rows.without_prefix(), budget, route, trunk)
    yield "one by one", lambda rows: Padded(model, rows.without_prefix(), 1)
