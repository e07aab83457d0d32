"""A task without its rows makes the prompts that the task made of them."""

import json
from dataclasses import replace

import pytest

from eckart import Task
from eckart.errors import TaskError
from eckart.tasks.portable import UNKNOWN, UNLABELLED, PortableTask

REVIEWS = [
    {"review": f" the view {i} <&> ", "stars": i % 2 if i % 3 else None, "note": f"n{i}"}
    for i in range(60)
]
QUIZ = [
    {"q": f"{i} is", "one": f"odd {i}", "two": f"even {i} ", "listed": [f"a {i}", f"b {i}"],
     "right": "AB"[i % 2]}
    for i in range(40)
]  # fmt: skip

TASKS = {
    "text": (REVIEWS, {"text_column": "review", "label_column": "stars"}),
    "words": (REVIEWS, {"template": "{{ review }}\nverdict:", "label_column": "stars",
                        "labels": {0: "bad", 1: "good"}, "label_end": "\n", "separator": "\n\n",
                        "instruction": "Is it good?"}),
    "row": (REVIEWS, {"template": "{{ row['review'] }} ({{ row['note'] }})",
                      "label_column": "stars"}),
    "columns": (QUIZ, {"template": "{{ q }}", "choices": ("one", "two"), "label_column": "right",
                       "labels": {"A": "one", "B": "two"}}),
    "list": (QUIZ, {"template": "{{ q }}", "choices": "listed", "label_column": "right"}),
}  # fmt: skip


@pytest.fixture(params=TASKS)
def made(request, tmp_path) -> tuple[list[dict], Task]:
    rows, options = TASKS[request.param]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return rows, Task.load(data=path, shots=3, **options)


def portable(task: Task) -> PortableTask:
    return PortableTask.from_json(json.loads(json.dumps(PortableTask.of(task).to_json())))


def test_its_prompts_are_the_tasks(made):
    rows, task = made
    again = portable(task)
    for example in task.all:
        row = rows[int(example.id.partition(":")[2])]
        assert again.prompt(row, example.id) == task.prompt(example)
        assert again.prompt(row, example.id, shots=1) == task.prompt(example, shots=1)


def test_an_unlabelled_row_has_the_same_prompt_and_no_label(made):
    rows, task = made
    again = portable(task)
    labelled = again.prompt(rows[1], "row 1")
    row = {name: value for name, value in rows[1].items() if name != again.columns.label}
    bare = again.prompt(row, "row 1")
    assert (bare.context, bare.continuations) == (labelled.context, labelled.continuations)
    assert bare.label == UNLABELLED != labelled.label
    other = again.prompt({**rows[1], again.columns.label: "nosuch"}, "row 1")
    assert other == replace(bare, label=UNKNOWN)


def test_it_says_of_itself_what_the_task_says(made):
    _, task = made
    again = portable(task)
    for name in ("name", "full_name", "kind", "labels", "shots", "seed", "digest"):
        assert getattr(again, name) == getattr(task, name)
    assert again == PortableTask.of(task)
    assert again.scoring == task.default_score
    assert PortableTask.of(task, "byte").scoring == "byte"


def test_its_null_prompts_are_the_tasks(made):
    _, task = made
    again, example = portable(task), task.test[0]
    prompt = task.prompt(example)
    assert again.null_prompt(prompt, text="") == task.null_prompt(prompt, text="")


@pytest.fixture
def reviews(tmp_path) -> PortableTask:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in REVIEWS))
    return portable(Task.load(data=path, text_column="review", label_column="stars", shots=2))


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"reviews": "fine"}, "row 7 has no column 'review'.*did you mean 'reviews'"),
        ({"review": " "}, "row 7 is empty in review"),
        ({"review": None}, "row 7 is empty in review"),
        ({"review": "\ud800"}, "row 7 holds half a character"),
    ],
)
def test_a_row_that_is_none(reviews, row, said):
    with pytest.raises(TaskError, match=said):
        reviews.prompt(row, "row 7")


def test_candidates_that_are_none(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in QUIZ))
    quiz = portable(Task.load(data=path, shots=1, **TASKS["list"][1]))
    for listed in (["a"], ["a", "a"], ["a", ""], ["a", "b", "c"]):
        with pytest.raises(TaskError, match="row 7 has not 2 candidates"):
            quiz.prompt({"q": "x", "listed": listed}, "row 7")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"nosuch": 1}, "the task: unknown key 'nosuch'"),
        ({"labels": ["one"]}, "the task: labels is"),
        ({"values": {"0": 7}}, "the task: values is .*a label that is not there"),
        ({"format": {"template": "{{ "}}, "the task: format is .*is broken"),
        ({"format": {"template": "{{ x }}", "nosuch": ""}}, "the task: format.nosuch is"),
        ({"columns": {"label": "y"}}, "the task: columns.fields is"),
        ({"seed": "x"}, "the task: seed is 'x'"),
    ],
)
def test_a_damaged_one_is_one_line(reviews, changes, said):
    with pytest.raises(TaskError, match=said) as error:
        PortableTask.from_json({**reviews.to_json(), **changes})
    assert "\n" not in str(error.value)


def test_what_is_no_task():
    with pytest.raises(TaskError, match="the recipe's task is no task"):
        PortableTask.from_json([1], "the recipe's task")
    spent = Task("t", "classification", ("a", "b"), None, (), (), (), ())
    with pytest.raises(TaskError, match=r"was not made by Task.load"):
        PortableTask.of(spent)
