"""The demo's corpus: short texts with several attributes each, and labelling tasks over them.

A labelling task is one attribute and a word for each of its classes. The words are arbitrary, so
nothing but the demonstrations says which attribute counts and what its classes are called.
Everything is made from a seed.
"""

from __future__ import annotations

import csv
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Literal

from eckart.demo.words import ATTRIBUTES, LABEL_GROUPS, TEMPLATES
from eckart.errors import TaskError

Split = Literal["train", "validation", "test"]
SIZES: dict[Split, int] = {"train": 400, "validation": 400, "test": 600}
"""How many rows of each split `write` makes."""
TEMPLATE = "text: {{ text }}\nlabel:"
"""The Jinja template under which the tasks' rows read as the model was trained."""

# The first free row of LABEL_GROUPS with which the model's 0-shot accuracy on the train split is
# within 0.03 of chance. Other rows often agree or disagree with a task by accident
# (docs/demo-model.md).
_ROWS = {"mood": 1, "topic": 0, "weather": 2, "who": 6, "time": 8}
_SHARES: dict[Split, range] = {"train": range(3), "validation": range(3, 6), "test": range(6, 10)}


@dataclass(frozen=True)
class DemoTask:
    """Name one attribute of a text, in words that were never used together in training: class ->
    label word, all from one row of `LABEL_GROUPS`."""

    name: str
    attribute: str
    labels: Mapping[str, str]


def tasks() -> dict[str, DemoTask]:
    """Return the demo's tasks by name.

    >>> dict(tasks()["mood"].labels)
    {'good': 'dax', 'bad': 'onyx'}
    """
    return {
        name: DemoTask(name, name, dict(zip(ATTRIBUTES[name], LABEL_GROUPS[row], strict=False)))
        for name, row in _ROWS.items()
    }


def rows(task: str, split: Split, n: int, seed: int = 0) -> list[dict[str, str]]:
    """Return labelled rows of a task: n distinct texts, each with `text` and `label`, classes
    balanced, none seen in training; a TaskError where there is no such task or split.

    A text belongs to one split whatever the seed and n, so that splits never share one. Another
    seed draws other texts from the same split.

    >>> rows("mood", "test", 2) == rows("mood", "test", 2)
    True
    """
    chosen = _find(task)
    if split not in _SHARES:
        raise TaskError(
            f"no split '{split}' of the demo's tasks; the splits are {', '.join(_SHARES)}"
        )
    rng = Random(f"{seed}/{task}/{split}")
    texts: dict[str, str] = {}
    while len(texts) < n:
        cls = list(chosen.labels)[len(texts) % len(chosen.labels)]
        text = _held_out_text(rng, chosen.attribute, cls, split, texts)
        texts[text] = chosen.labels[cls]
    result = [{"text": text, "label": label} for text, label in texts.items()]
    rng.shuffle(result)
    return result


def write(
    directory: str | Path, *, form: Literal["csv", "jsonl"] = "csv", seed: int = 0
) -> dict[str, Path]:
    """Write every task's splits as `<directory>/<task>/<split>.<form>`, and return each task's
    folder, ready for `--data` with `TEMPLATE`."""
    folders = {name: Path(directory) / name for name in tasks()}
    for name, folder in folders.items():
        folder.mkdir(parents=True, exist_ok=True)
        for split, n in SIZES.items():
            _write_rows(folder / f"{split}.{form}", rows(name, split, n, seed))
    return folders


def is_held_out(text: str) -> bool:
    """Tell whether a text is kept from training: one in five pairs of a thing and what it was like.

    >>> is_held_out("the soup was awful") == is_held_out("awful soup at dusk")
    True
    """
    words = set(text.split())
    key = " ".join(sorted(words & _PAIRED))
    return zlib.crc32(key.encode()) % 5 == 0


def written(
    rng: Random,
    attribute: str,
    cls: str,
    words: Mapping[str, Mapping[str, Sequence[str]]] = ATTRIBUTES,
) -> str:
    """Write a text that says a class of an attribute, and anything of the others that it names."""
    template = rng.choice([t for t in TEMPLATES if f"{{{attribute}}}" in t])
    chosen = {name: rng.choice(list(classes)) for name, classes in words.items()} | {attribute: cls}
    return template.format(**{name: rng.choice(words[name][c]) for name, c in chosen.items()})


def _find(task: str) -> DemoTask:
    if task not in tasks():
        raise TaskError(f"no demo task '{task}'; the tasks are {', '.join(tasks())}")
    return tasks()[task]


def _held_out_text(
    rng: Random, attribute: str, cls: str, split: Split, taken: Mapping[str, str]
) -> str:
    while True:
        text = written(rng, attribute, cls)
        share = zlib.crc32(f"split/{text}".encode()) % 10
        if is_held_out(text) and share in _SHARES[split] and text not in taken:
            return text


def _write_rows(path: Path, table: Sequence[Mapping[str, str]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        if path.suffix == ".jsonl":
            file.writelines(json.dumps(row) + "\n" for row in table)
            return
        writer = csv.DictWriter(file, ["text", "label"], lineterminator="\n")
        writer.writeheader()
        writer.writerows(table)


_PAIRED = {
    word for name in ("mood", "topic") for words in ATTRIBUTES[name].values() for word in words
}
