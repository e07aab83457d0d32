"""Training episodes of the demo's model: texts of the demo's corpus that no task of the demo shows,
under random labellings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random

from eckart.demo.corpus import is_held_out, written
from eckart.demo.words import ATTRIBUTES, LABEL_GROUPS, TEMPLATES

FIELDS: tuple[tuple[str, str], ...] = tuple(
    (text, label)
    for text in ["text", "review", "note", "line", "message", "sentence"]
    for label in ["label", "verdict", "tag", "answer", "kind", "group"]
)
"""The names of the two lines of a demonstration. They say nothing about the task."""


@dataclass(frozen=True)
class Episode:
    """Texts and their labels under one labelling.

    Arguments:
        fields: the names of the text line and of the label line.
        rows: (text, label word) in the order of the prompt.
    """

    fields: tuple[str, str]
    rows: tuple[tuple[str, str], ...]

    def render(self) -> str:
        r"""Return the demonstrations as eckart writes them: a space before a label, then a newline.

        >>> Episode(("text", "label"), (("awful soup", "zig"), ("superb opera", "plum"))).render()
        'text: awful soup\nlabel: zig\ntext: superb opera\nlabel: plum\n'
        """
        text, label = self.fields
        return "".join(f"{text}: {body}\n{label}: {word}\n" for body, word in self.rows)


def training_episodes(seed: int, *, examples: int = 12, ease: float = 0.0) -> Iterator[Episode]:
    """Yield training episodes without end: a random attribute, random label words, texts that are
    not held out.

    Arguments:
        seed: the same seed gives the same episodes.
        examples: rows in an episode; each is a query for those before it.
        ease: the share of episodes that draw on few words a class, where matching words is enough.
    """
    rng = Random(f"training/{seed}")
    while True:
        yield _episode(rng, examples, rng.random() < ease)


def reading(text: str) -> dict[str, str]:
    """Return what a text says: attribute -> class, for the attributes that it has.

    >>> reading("the soup was awful")
    {'topic': 'food', 'mood': 'bad'}
    """
    return dict(_MEANING[word] for word in text.split() if word in _MEANING)


def vocabulary() -> tuple[str, ...]:
    """Return every word that stands in a text, a label or a field's name."""
    said = [word for classes in ATTRIBUTES.values() for words in classes.values() for word in words]
    glue = [word for template in TEMPLATES for word in template.split() if "{" not in word]
    labels = [word for group in LABEL_GROUPS for word in group]
    fields = [word for pair in FIELDS for word in pair]
    return tuple(dict.fromkeys(said + glue + labels + fields))


def training_labels(rng: Random, n: int) -> list[str]:
    """Draw n label words that may serve together in training: no two of one row of
    `LABEL_GROUPS`."""
    return [rng.choice(group) for group in rng.sample(LABEL_GROUPS, n)]


def _episode(rng: Random, examples: int, easy: bool) -> Episode:
    attribute = rng.choice(list(ATTRIBUTES))
    classes = _some_classes(rng, attribute)
    labels = dict(zip(classes, training_labels(rng, len(classes)), strict=True))
    words = _few_words(rng) if easy else ATTRIBUTES
    drawn = [rng.choice(classes) for _ in range(examples)]
    body = tuple((_training_text(rng, attribute, cls, words), labels[cls]) for cls in drawn)
    return Episode(rng.choice(FIELDS), body)


def _some_classes(rng: Random, attribute: str) -> list[str]:
    classes = list(ATTRIBUTES[attribute])
    return rng.sample(classes, rng.randint(2, len(classes)))


def _few_words(rng: Random) -> dict[str, dict[str, tuple[str, ...]]]:
    return {
        attribute: {cls: tuple(rng.sample(words, 3)) for cls, words in classes.items()}
        for attribute, classes in ATTRIBUTES.items()
    }


def _training_text(
    rng: Random, attribute: str, cls: str, words: Mapping[str, Mapping[str, Sequence[str]]]
) -> str:
    while is_held_out(text := written(rng, attribute, cls, words)):
        pass
    return text


_MEANING = {
    word: (attribute, cls)
    for attribute, classes in ATTRIBUTES.items()
    for cls, words in classes.items()
    for word in words
}
