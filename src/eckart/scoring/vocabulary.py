"""Tokens that the tokenizer has and the model has not."""

from __future__ import annotations

from collections.abc import Iterable

from eckart.errors import ModelError
from eckart.scoring.encoding import Tokens
from eckart.scoring.requests import Requests
from eckart.weights.models import LoadedModel, Model, needed_tokenizer


def vocabulary_size(model: Model) -> int | None:
    """Return for how many tokens a model has an embedding; None where it does not say."""
    try:
        size = getattr(getattr(model.get_input_embeddings(), "weight", None), "shape", (None,))[0]
    except NotImplementedError:
        size = None
    return size if size is not None else getattr(model.config, "vocab_size", None)


def check_vocabulary(model: LoadedModel, requests: Requests) -> None:
    """Refuse rows with tokens that the model has no embedding for: added to the tokenizer, the
    model never resized.

    Raises:
        ModelError: there is such a token.
    """
    size = vocabulary_size(model.model)
    strange = max(map(max, filter(None, _read(requests))), default=0)
    if size is not None and strange >= size:
        piece = needed_tokenizer(model).convert_ids_to_tokens(strange)
        raise ModelError(
            f"model '{model.name}' has embeddings for {size} tokens, and its tokenizer reads token"
            f" {strange} ({piece!r}) in the rows: it was added to the tokenizer alone; take that"
            " text out of the template, or give the model that was resized and trained with it"
        )


def _read(requests: Requests) -> Iterable[Tokens]:
    yield requests.prefix
    yield from requests.rows
    yield from (
        continuation.tokens for choices in requests.continuations for continuation in choices
    )
