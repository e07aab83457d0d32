"""Requests to a model: the token rows that it reads for some prompts, and which of its outputs are
scored."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from eckart.errors import ModelError, TaskError
from eckart.scoring.encoding import CHUNK, Encoder, Tokens, common_prefix
from eckart.tasks.prompts import Prompt
from eckart.weights.models import LoadedModel, Model, Tokenizer, needed_tokenizer


@dataclass(frozen=True)
class Continuation:
    """A label or a choice, as tokens of one row.

    Arguments:
        row: index of the row that holds it.
        start: index in the row, counted after the shared prefix, of the token that predicts its
            first token.
        tokens: what is scored, never empty; token i is predicted at `start + i`.
        bytes: length of its text in UTF-8.
    """

    row: int
    start: int
    tokens: Tokens
    bytes: int


@dataclass(frozen=True)
class Requests:
    """Everything that the model has to be asked for a set of prompts.

    Arguments:
        prefix: the tokens that all rows begin with, the demonstrations above all; run once.
        rows: what each row adds to the prefix, never empty.
        continuations: one a label or choice, for each prompt in order.
    """

    prefix: Tokens
    rows: tuple[Tokens, ...]
    continuations: tuple[tuple[Continuation, ...], ...]

    def length(self, row: int) -> int:
        """Return how many tokens are fed for a row."""
        return len(self.prefix) + len(self.rows[row])

    def without_prefix(self) -> Requests:
        """Return the same requests with the prefix written out in every row."""
        shift = len(self.prefix)
        return Requests(
            prefix=(),
            rows=tuple(self.prefix + row for row in self.rows),
            continuations=tuple(
                tuple(replace(c, start=c.start + shift) for c in choices)
                for choices in self.continuations
            ),
        )

    def subset(self, prompts: Sequence[int]) -> Requests:
        """Return the requests of some of the prompts."""
        found = [self.continuations[prompt] for prompt in prompts]
        kept = sorted({c.row for choices in found for c in choices})
        place = {row: index for index, row in enumerate(kept)}
        return Requests(
            prefix=self.prefix,
            rows=tuple(self.rows[row] for row in kept),
            continuations=tuple(
                tuple(replace(c, row=place[c.row]) for c in choices) for choices in found
            ),
        )


def build_requests(
    prompts: Sequence[Prompt],
    tokenizer: Tokenizer,
    window: int | None = None,
    advance: Callable[[int], None] = lambda prompts: None,
    regime: Callable[[int], object] = lambda length: None,
) -> Requests:
    """Turn prompts into the fewest token rows that score all their continuations.

    Context and continuation are encoded together. What follows the token prefix that a prompt's
    context shares with every one of its candidates is scored, so a tokenizer that merges across the
    boundary changes neither which text is scored nor the comparison between candidates.

    Arguments:
        prompts: what to score.
        tokenizer: the model's own.
        window: the most tokens that the model reads, or None where it has no limit.
        advance: told of prompts done.
        regime: tells lengths apart that the model reads otherwise; a row serves continuations of
            one regime.

    Raises:
        TaskError: a prompt is longer than the window.
        TaskError: two different candidates are the same tokens.
        ModelError: the tokenizer gives nothing to predict the first token from, or drops a
            candidate.
    """
    encoder = Encoder(tokenizer, prompts)
    rows = _Rows()
    choices: list[tuple[Continuation, ...]] = []
    for start in range(0, len(prompts), CHUNK):
        chunk = prompts[start : start + CHUNK]
        contexts = encoder([prompt.context for prompt in chunk])
        candidates = iter(
            encoder([p.context + choice for p in chunk for choice in p.continuations])
        )
        for prompt, context in zip(chunk, contexts, strict=True):
            tokens = [next(candidates) for _ in prompt.continuations]
            _check_length(prompt, tokens, window)
            choices.append(_place(prompt, tokens, _split(prompt, context, tokens), rows, regime))
        advance(len(chunk))
    shift = len(rows.prefix)
    return Requests(
        prefix=rows.prefix,
        rows=tuple(rows.tails),
        continuations=tuple(
            tuple(replace(c, start=c.start - shift) for c in found) for found in choices
        ),
    )


class _Rows:
    """Rows with what they share kept once from the start: 60,000 prompts of 10 demonstrations fit
    into memory.

    The token before the first scored one is computed anew in every row, so it is never in the
    prefix.
    """

    def __init__(self) -> None:
        self.prefix: Tokens = ()
        self.tails: list[Tokens] = []

    def add(self, row: Tokens, split: int) -> int:
        """Take a row whose scored part begins at `split`; return its index."""
        shared = (
            row[: split - 1] if not self.tails else common_prefix([self.prefix, row[: split - 1]])
        )
        if len(shared) < len(self.prefix):
            rest = self.prefix[len(shared) :]
            self.tails = [rest + tail for tail in self.tails]
        self.prefix = shared
        self.tails.append(row[len(shared) :])
        return len(self.tails) - 1


def _split(prompt: Prompt, context: Tokens, candidates: list[Tokens]) -> int:
    _check_told_apart(prompt, candidates)
    split = len(common_prefix([context, *candidates]))
    if split == 0:
        raise ModelError(
            f"row {prompt.id} has no token before its label: the prompt is empty and the tokenizer"
            " adds no BOS; give the template some text"
        )
    if min(map(len, candidates)) == split:
        raise ModelError(
            f"row {prompt.id}: the tokenizer drops the label that follows the prompt; check the"
            " label"
        )
    return split


def _check_told_apart(prompt: Prompt, candidates: list[Tokens]) -> None:
    """Refuse words that are the same tokens: every row would be a tie, and ties go to the first."""
    seen: dict[Tokens, str] = {}
    for text, tokens in zip(prompt.continuations, candidates, strict=True):
        other = seen.setdefault(tokens, text)
        if other != text:
            raise TaskError(
                f"row {prompt.id}: '{other.strip()}' and '{text.strip()}' are the same tokens for"
                " this model, which cannot tell them apart; choose other label words"
            )


def _place(
    prompt: Prompt,
    candidates: list[Tokens],
    split: int,
    rows: _Rows,
    regime: Callable[[int], object],
) -> tuple[Continuation, ...]:
    """Give each candidate a row; one that another's row begins with shares it, so one row serves
    most labels."""
    fed = [tokens[:-1] for tokens in candidates]
    own: dict[Tokens, int] = {}
    for tokens in sorted(set(fed), key=len, reverse=True):
        serves = (
            row
            for longer, row in own.items()
            if longer[: len(tokens)] == tokens and regime(len(longer)) == regime(len(tokens))
        )
        home = next(serves, None)
        if home is None:
            home = rows.add(tokens, split)
        own[tokens] = home
    return tuple(
        Continuation(own[read], split - 1, tokens[split:], len(text.encode()))
        for read, tokens, text in zip(fed, candidates, prompt.continuations, strict=True)
    )


def _check_length(prompt: Prompt, candidates: list[Tokens], window: int | None) -> None:
    length = max(map(len, candidates)) - 1
    if window is not None and length > window:
        raise TaskError(
            f"row {prompt.id} is {length} tokens long with its demonstrations, but the model reads"
            f" at most {window}; use fewer --shots, --truncate-demonstrations, or --drop-long-rows"
        )


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
