from __future__ import annotations

import csv
import doctest
import itertools
import json

import episodes
import pytest

from eckart.demo import corpus
from eckart.demo.words import ATTRIBUTES, LABEL_GROUPS, TEMPLATES
from eckart.errors import TaskError

SPLITS = tuple(corpus.SIZES)
TASKS = tuple(corpus.tasks())


def test_the_same_seed_gives_the_same_rows_and_another_seed_gives_others():
    assert corpus.rows("mood", "test", 50, seed=3) == corpus.rows("mood", "test", 50, seed=3)
    assert corpus.rows("mood", "test", 50, seed=3) != corpus.rows("mood", "test", 50, seed=4)


def test_the_examples_of_the_training_script_hold():
    found = doctest.testmod(episodes)
    assert found.attempted >= 2
    assert found.failed == 0


def test_the_same_seed_gives_the_same_episodes():
    first, second = (list(itertools.islice(episodes.training_episodes(5), 20)) for _ in range(2))
    assert first == second


@pytest.mark.parametrize("task", TASKS)
def test_rows_are_distinct_balanced_and_labelled_by_what_the_text_says(task):
    labels = corpus.tasks()[task].labels
    for split, size in corpus.SIZES.items():
        table = corpus.rows(task, split, size)
        assert len({row["text"] for row in table}) == size
        counts = [sum(row["label"] == word for row in table) for word in labels.values()]
        assert max(counts) - min(counts) <= 1
        assert all(row["label"] == labels[episodes.reading(row["text"])[task]] for row in table)


@pytest.mark.parametrize("task", TASKS)
def test_splits_share_no_text_whatever_their_seeds(task):
    texts = {
        split: {r["text"] for s in (0, 1) for r in corpus.rows(task, split, 300, s)}
        for split in SPLITS
    }
    for one, other in itertools.combinations(SPLITS, 2):
        assert not texts[one] & texts[other]


def test_no_text_of_a_task_can_occur_in_training():
    assert all(
        corpus.is_held_out(r["text"])
        for task in TASKS
        for s in SPLITS
        for r in corpus.rows(task, s, 100)
    )
    seen = [
        text for e in itertools.islice(episodes.training_episodes(0), 300) for text, _ in e.rows
    ]
    assert not any(corpus.is_held_out(text) for text in seen)


def test_label_words_of_a_task_never_serve_together_in_training():
    group = {word: i for i, words in enumerate(LABEL_GROUPS) for word in words}
    for task in corpus.tasks().values():
        assert len({group[word] for word in task.labels.values()}) == 1
    for episode in itertools.islice(episodes.training_episodes(0, ease=0.5), 1000):
        used = {word for _, word in episode.rows}
        assert len({group[word] for word in used}) == len(used)


def test_no_word_has_two_meanings():
    said = [word for classes in ATTRIBUTES.values() for words in classes.values() for word in words]
    labels = [word for words in LABEL_GROUPS for word in words]
    glue = {word for template in TEMPLATES for word in template.split() if "{" not in word}
    names = {name for pair in episodes.FIELDS for name in pair}
    every = [*said, *labels, *glue, *names]
    assert len(every) == len(set(every))
    assert set(every) == set(episodes.vocabulary())


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_write_gives_the_rows_back(tmp_path, form):
    folders = corpus.write(tmp_path, form=form)
    assert list(folders) == list(TASKS)
    with (folders["topic"] / f"validation.{form}").open(encoding="utf-8", newline="") as file:
        read = list(csv.DictReader(file)) if form == "csv" else [json.loads(line) for line in file]
    assert read == corpus.rows("topic", "validation", corpus.SIZES["validation"])


def test_an_unknown_task_or_split_is_refused_by_name():
    with pytest.raises(TaskError, match="mood, topic, weather"):
        corpus.rows("colour", "test", 1)
    with pytest.raises(TaskError, match="train, validation, test"):
        corpus.rows("mood", "dev", 1)
