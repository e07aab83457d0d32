"""The program beside an export says what the labeller says, whatever a row's labels are."""

import json

import numpy as np
import pytest
from families import save_family, tiny_tokenizer
from fresh import rows_of
from scipy.special import softmax

from eckart import Edit, Task, export, predict

EDIT = Edit(1, "mlp", 0.5)
QUIZ = [
    {
        "q": f"{i} is",
        "note": f"n{i}",
        "one": f"odd {i}",
        "two": f"even {i}",
        "listed": [f"a {i}", f"b {i}"],
        "named": {"text": [f"a {i}", f"b {i}"], "label": ["A", "B"]},
        "each": [{"text": f"a {i}", "label": "A"}, {"text": f"b {i}", "label": "B"}],
        "right": "AB"[i % 2],
    }
    for i in range(40)
]
TASKS = {
    "labels": ({"template": "{{ q }}"}, "sum"),
    "the whole row": (
        {"template": "{{ row['q'] }} ({{ row['note'] }})", "label_end": "\n"},
        "byte",
    ),
    "columns": (
        {
            "template": "{{ q }}",
            "choices": ("one", "two"),
            "labels": {"A": "one", "B": "two"},
        },
        "mean",
    ),
    "a list": ({"template": "{{ q }}", "choices": "listed"}, "character"),
    "a list with names": ({"template": "{{ q }}", "choices": "named"}, "mean"),
    "a list of names": ({"template": "{{ q }}", "choices": "each"}, "sum"),
}


@pytest.mark.parametrize(("options", "scoring"), TASKS.values(), ids=TASKS)
def test_it_says_what_predict_says(options, scoring, tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps(row) + "\n" for row in QUIZ))
    save_family("gpt2", tmp_path / "source")
    tiny_tokenizer(add_bos=True).save_pretrained(tmp_path / "source")
    task = Task.load(data=rows, **options, label_column="right", shots=2, split_sizes=(4, 4))
    out = tmp_path / "out"
    export(tmp_path / "source", out, task=task, edits=[EDIT], dtype="float32", scoring=scoring)
    said = list(predict(out, QUIZ))
    found = rows_of(str(out), str(rows))
    for each, values in zip(said, (row["values"] for row in found), strict=True):
        shares = [each[f"probability_{label}"] for label in task.labels]
        assert np.allclose(softmax(values), shares, atol=1e-5)
        assert task.labels[int(np.argmax(values))] == each["prediction"]
    assert len((out / "use.py").read_text().splitlines()) <= 18
