"""Multiple choice: one column of lists, and questions whose candidates stand in another order."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from eckart.errors import TaskError
from eckart.tasks import Task

WORDS = ["one", "two", "three"]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def load(path: Path, **options: Any) -> Task:
    said = {"template": "{{ q }}", "choices": "c", "label_column": "answer", "shots": 2}
    return Task.load(data=path, **(said | options))


def rows(cell: Any, answers: list[Any], n: int = 18) -> list[dict[str, Any]]:
    return [
        {"q": f"question {i}", "c": cell, "answer": answers[i % len(answers)]} for i in range(n)
    ]


FORMS: dict[str, tuple[Any, list[Any]]] = {
    "a list and a place": (WORDS, [0, 1, 2]),
    "a place that is text": (WORDS, ["0", "1", "2"]),
    "a list and a letter": (WORDS, ["A", "B", "C"]),
    "texts with letters": ({"text": WORDS, "label": ["A", "B", "C"]}, ["A", "B", "C"]),
    "texts with numbers": ({"text": WORDS, "label": ["1", "2", "3"]}, ["1", "2", "3"]),
    "objects with letters": (
        [{"text": t, "label": n} for t, n in zip(WORDS, "ABC", strict=True)],
        ["A", "B", "C"],
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_candidates_from_one_column(tmp_path: Path, form: str) -> None:
    cell, answers = FORMS[form]
    task = load(write(tmp_path / "a.jsonl", rows(cell, answers)))
    assert task.kind == "choices"
    for example in (*task.demonstrations, *task.all):
        assert example.choices == ("one", "two", "three")
        assert example.label == int(example.id.split(":")[1]) % 3
    assert task.prompts("test")[0].continuations == (" one", " two", " three")


def test_places_that_count_from_one_are_mapped(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", rows(WORDS, [1, 2, 3]))
    with pytest.raises(
        TaskError, match="the label '3' in column 'answer' means none of the 3 candidates"
    ):
        load(path)
    task = load(path, labels={1: 0, 2: 1, 3: 2})
    assert {e.label for e in task.all} == {0, 1, 2}


def test_rows_with_other_numbers_of_candidates_are_counted(tmp_path: Path) -> None:
    more = [{"q": f"longer {i}", "c": [*WORDS, "four"], "answer": 3} for i in range(2)]
    task = load(write(tmp_path / "a.jsonl", rows(WORDS, [0, 1, 2]) + more))
    assert "train: left out 2 rows with other than 3 candidates, which most rows have" in task.notes
    assert len(task.all) == 16


def test_a_task_file_names_the_column(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", rows(WORDS, [0, 1, 2]))
    (tmp_path / "t.yaml").write_text(
        "data: a.jsonl\ntemplate: '{{ q }}'\nchoices: c\nlabel: answer\nshots: 1\n"
    )
    assert Task.load(tmp_path / "t.yaml").labels == ("0", "1", "2")


@pytest.mark.parametrize(
    ("cell", "choices", "message"),
    [
        (WORDS, ["c", "q"], "a column of lists stands alone: choices: c"),
        ([["x"], ["y"]], "c", "a candidate in column 'c' is a list"),
        ("one", "c", "no list of candidates"),
        (WORDS, ["c"], "name two columns or more, or one that holds lists: choices: c"),
    ],
)
def test_what_is_no_list_of_candidates(
    tmp_path: Path, cell: Any, choices: Any, message: str
) -> None:
    with pytest.raises(TaskError) as caught:
        load(write(tmp_path / "a.jsonl", rows(cell, [0, 1])), choices=choices)
    assert message in str(caught.value)


def quiz(order: tuple[int, int, int], listed: bool) -> list[dict[str, Any]]:
    found = []
    for i in range(12):
        options = [f"{word} {i}" for word in WORDS]
        shown = [options[place] for place in order]
        cells = {"c": shown} if listed else dict(zip("abc", shown, strict=True))
        found.append({"q": f"question {i}", **cells, "answer": order.index(i % 3)})
    return found


@pytest.mark.parametrize("listed", [True, False])
@pytest.mark.parametrize("shows", [True, False])
def test_candidates_in_another_order_make_the_same_question(
    tmp_path: Path, listed: bool, shows: bool
) -> None:
    write(
        tmp_path / "train.jsonl",
        quiz((0, 1, 2), listed)
        + [{**row, "q": f"more {row['q']}"} for row in quiz((0, 1, 2), listed)],
    )
    write(tmp_path / "test.jsonl", quiz((2, 0, 1), listed))
    shown = (
        ("{{ c[0] }} {{ c[1] }} {{ c[2] }}" if listed else "{{ a }} {{ b }} {{ c }}")
        if shows
        else ""
    )
    task = load(
        tmp_path, template=f"{{{{ q }}}} {shown}?", choices="c" if listed else ["a", "b", "c"]
    )
    assert "train: left out 12 rows for repeating an input" in task.notes
    asked = {example.fields["q"] for example in task.test}
    assert asked == {f"question {i}" for i in range(12)}
    assert not asked & {example.fields["q"] for example in (*task.demonstrations, *task.validation)}


@pytest.mark.parametrize(
    "near", ["FILM {0} is fine", "film {0}  is fine", "film {0} is fine!", "film {0} is \ufb01ne"]
)
def test_near_repeats_are_kept_and_counted(tmp_path: Path, near: str) -> None:
    first = [{"text": f"film {i} is fine", "label": "ab"[i % 2]} for i in range(12)]
    write(tmp_path / "train.jsonl", first)
    write(
        tmp_path / "test.jsonl", [{"text": near.format(i), "label": "ab"[i % 2]} for i in range(4)]
    )
    task = Task.load(data=tmp_path, shots=2)
    assert len(task.test) == 4
    assert any("kept 4 rows that repeat a row of test but for case" in note for note in task.notes)
