"""The encoder of texts: what all begin with, the demonstrations above all, is encoded once."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import tokenizers
from transformers.utils.hub import cached_file

from eckart.files import home
from eckart.tasks.prompts import Prompt
from eckart.weights.models import Tokenizer

Tokens = tuple[int, ...]

CHUNK = 256
"""Prompts that are tokenised at a time: a tokenizer's own record of a text is many times its
tokens' size."""

MARGIN = 32
"""Characters that all texts share behind a cut: more than any tokenizer looks ahead."""

WORTH = 16
"""Tokens that a cut must save in every text."""

PLACES = 200
"""Tokens from the end among which a place is looked for."""

LOOKED_AT = 256
"""Rows of a split whose tokens are compared with what tokenizer.json gives."""

BYTE = re.compile(r"<0x[0-9A-F]{2}>")


def common_prefix(rows: Iterable[Tokens]) -> Tokens:
    """Return the longest prefix that all rows share.

    >>> common_prefix([(1, 2, 3), (1, 2, 4)])
    (1, 2)
    """
    rows = iter(rows)
    shared = next(rows, ())
    for row in rows:
        if row[: len(shared)] != shared:
            shared = shared[
                : next(i for i, token in enumerate(shared) if row[i : i + 1] != (token,))
            ]
    return shared


def shared_text(prompts: Sequence[Prompt]) -> str:
    """Return the longest text that all prompts' contexts begin with."""
    contexts = [prompt.context for prompt in prompts]
    first = min(contexts, default="")
    last = max(contexts, default="")
    alike = next(
        (i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first)
    )
    return first[:alike]  # what the first and the last in order have in common, all have


@dataclass(frozen=True)
class _Cut:
    """A place in a text that no token spans, whatever follows.

    Arguments:
        tokens: those before the place.
        start: where a text is encoded from: one token before the place, so that it is not taken for
            a text's beginning.
        extra: how many tokens that one gives by itself.
    """

    tokens: Tokens
    start: int
    extra: int


class Encoder:
    """Text to tokens, with what the tokenizer puts in front (BOS) exactly once, and nothing at the
    end; of a chat, with what its template puts there.

    Arguments:
        tokenizer: the model's own.
        prompts: those that texts belong to. What all begin with, such as demonstrations, is encoded
            once where there is a place to cut.
    """

    def __init__(self, tokenizer: Tokenizer, prompts: Sequence[Prompt] = ()) -> None:
        self._tokenizer = tokenizer
        self._shared = shared_text(prompts)
        self._front: Tokens | None = None
        for prompt in prompts[:1]:
            if prompt.whole:
                self._front = ()
            self._look_in_front([prompt.context + prompt.continuations[0]])
        self._cut = self._find_cut(self._shared)

    def __call__(self, texts: Sequence[str]) -> list[Tokens]:
        """Encode texts; a text that already spells out the tokenizer's BOS does not get a second
        one."""
        self._look_in_front(texts)
        if self._cut is None or not all(text.startswith(self._shared) for text in texts):
            return [self._dressed(ids) for ids in self._encode(texts)]
        cut = self._cut
        return [
            cut.tokens + ids[cut.extra :]
            for ids in self._encode([text[cut.start :] for text in texts])
        ]

    def _encode(self, texts: Sequence[str]) -> list[Tokens]:
        if not texts:
            return []
        encoded = self._tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]
        return [tuple(ids) for ids in encoded]

    def _look_in_front(self, texts: Sequence[str]) -> None:
        """See what the tokenizer puts in front of the first of some texts that is not empty."""
        text = next(filter(None, texts), None)
        if self._front is None and text is not None:
            self._front = _tokens_in_front(self._tokenizer, text)

    def _dressed(self, ids: Tokens) -> Tokens:
        front = self._front or ()
        return ids if front and ids[: len(front)] == front else front + ids

    def _find_cut(self, shared: str) -> _Cut | None:
        """Return the last safe place of a text, or None.

        Tokens are pieces of the vocabulary. Where no piece holds the last character before a place
        and the first one behind it side by side, no token spans that place, and either side is
        encoded as if it stood alone, but for what a tokenizer looks ahead or does to the beginning
        of a text.
        """
        if not getattr(self._tokenizer, "is_fast", False) or len(shared) <= MARGIN:
            return None
        found = self._tokenizer(
            shared, add_special_tokens=False, return_offsets_mapping=True, verbose=False
        )
        ids = tuple(found["input_ids"])
        offsets = found["offset_mapping"]
        pieces = self._tokenizer.convert_ids_to_tokens(list(ids))
        vocabulary = list(self._tokenizer.get_vocab())
        for place in range(len(ids) - 1, max(WORTH, len(ids) - PLACES), -1):
            start, end = offsets[place - 1]
            if start < end == offsets[place][0] <= len(shared) - MARGIN and not _spanned(
                pieces[place - 1], pieces[place], vocabulary
            ):
                alone, rest = self._encode([shared[start:end], shared[start:]])
                cut = _Cut(self._dressed(ids[:place]), start, len(alone))
                return cut if ids[:place] + rest[len(alone) :] == ids else None
        return None


def _spanned(left: str, right: str, vocabulary: Iterable[str]) -> bool:
    """Say whether a piece of the vocabulary could span two pieces; one for a single byte is never
    merged."""
    if BYTE.fullmatch(left) or BYTE.fullmatch(right):
        return False
    if right.startswith("##"):  # inside a word, as WordPiece marks it
        return True
    pair = left[-1] + right[0]
    return any(pair in piece for piece in vocabulary)


def _tokens_in_front(tokenizer: Tokenizer, text: str) -> Tokens:
    """Return what a tokenizer puts in front of texts, as it does with this one."""
    plain, dressed = (
        tuple(tokenizer(text, add_special_tokens=added, verbose=False)["input_ids"])
        for added in (False, True)
    )
    starts = (
        start for start in range(len(dressed)) if dressed[start : start + len(plain)] == plain
    )
    special = set(tokenizer.all_special_ids)
    first = next((place for place, token in enumerate(dressed) if token not in special), 0)
    return dressed[: next(starts, first)]


def token_notes(split: str, prompts: Sequence[Prompt], tokenizer: Tokenizer) -> list[str]:
    """Say where tokenizer.json and the tokenizer's class differ on a split's own rows."""
    looked = prompts[:: max(1, len(prompts) // LOOKED_AT)]
    texts = [prompt.context + prompt.continuations[prompt.label] for prompt in looked]
    shared = len(shared_text(looked)) if len(looked) > 1 else 0
    differ = differently_encoded(tokenizer, [texts[0], *(text[shared:] for text in texts[1:])])
    name = type(tokenizer).__name__
    return [
        f"{split}: tokenizer.json and {name}, which transformers takes for it, give other"
        f" tokens for {differ} of {len(looked)} rows that were compared; the model reads those"
        f' of {name}. For the file\'s, write "tokenizer_class": "PreTrainedTokenizerFast" into'
        " tokenizer_config.json"
    ] * bool(differ)


def differently_encoded(tokenizer: Tokenizer, texts: Sequence[str]) -> int:
    """Return how many of some texts have other tokens by `tokenizer.json` than by the class that
    stands for it.

    transformers builds some classes' pre-tokenizers anew, whatever the file says of them; what a
    model was trained on is what its makers' own program read, which is mostly the file.
    """
    path = _tokenizer_file(tokenizer)
    if path is None:
        return 0
    try:
        plain = tokenizers.Tokenizer.from_file(path)
    except Exception:  # a file that this library cannot read says nothing against the class
        return 0
    plain.no_truncation()
    plain.no_padding()
    by_file = plain.encode_batch(list(texts), add_special_tokens=False)
    by_class = tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]
    return sum(found.ids != list(ids) for found, ids in zip(by_file, by_class, strict=True))


def _tokenizer_file(tokenizer: Tokenizer) -> str | None:
    if not getattr(tokenizer, "is_fast", False) or not tokenizer.name_or_path:
        return None
    try:
        return cached_file(
            str(home(tokenizer.name_or_path)), "tokenizer.json", local_files_only=True
        )
    except OSError:
        return None
