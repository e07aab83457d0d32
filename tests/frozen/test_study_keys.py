"""Every key of a study file and of a task file: which there are, what they do, what they are where
nothing is said."""

import json
from pathlib import Path

import pytest

from frozen.door import MODEL, command
from frozen.kept import frozen, steady, wording

# Of the keys of a study file: the name of the known ones is in the message.
UNKNOWN = {
    "a study": ("study", "models: [MODEL]\ntasks: [short.yaml]\nzzz: 1"),
    "a model": ("study", "models: [{name: MODEL, zzz: 1}]\ntasks: [short.yaml]"),
    "a task": ("study", "models: [MODEL]\ntasks: [{task: short.yaml, zzz: 1}]"),
    "a live model": ("study", "models: [{name: MODEL, live: true}]\ntasks: [short.yaml]"),
    "a task in memory": ("study", "models: [MODEL]\ntasks: [{task: short.yaml, digest: a}]"),
    "a task file": ("task", "zzz: 1"),
    "splits": (
        "task",
        "splits: {demonstrations: a, validation: {from: a}, test: {from: b}, zzz: 1}",
    ),
    "a split": (
        "task",
        "splits: {demonstrations: a, validation: {from: a, zzz: 1}, test: {from: b}}",
    ),
    "a variant": ("task", "variants: {odd: {zzz: 1}}"),
}
SHIPPED = [
    *["calibration-small", "figure1", "figure1-small", "figure2", "figure2-small"],
    *["figure3", "figure3-small", "figure4", "figure4-small", "layers-small"],
]
STUDY = r"""
models:
- {name: MODEL, dtype: float32, device: cpu, trust_remote_code: true}
tasks:
- data: short
  template: "{{ text }} it is"
  text_column: text
  label_column: label
  labels: {dax: good, onyx: bad}
  instruction: Say which.
  label_end: "\n"
  name: everything
  split_seed: 3
  split_sizes: "20,10"
  balanced: false
  metric: macro_f1
- {task: everything.yaml, variant: other}
- data: chosen.jsonl
  name: chosen
  template: "{{ question }}"
  choices: [first, second]
  label_column: right
shots: [1]
seeds: 5
scorings: [sum, byte]
layers: [1]
parts: [gate, v]
rates: [0.5]
test: all
combine: mean
top_k: 2
spectra: true
truncate_demonstrations: true
drop_long_rows: true
batch_tokens: 512
cache_memory: 1000000
"""
TASK = r"""
name: everything
data: short
text: text
label: label
instruction: Say which.
template: "it says {{ text }} so"
query_template: "it says {{ text }} and"
label_join: " -> "
label_end: "!"
separator: " ; "
strip: false
labels: {dax: good, onyx: bad}
demonstration_words: {good: fine}
shots: 2
metric: macro_f1
splits:
  demonstrations: train
  validation: {from: validation, rows: 12}
  test: {from: test, rows: 14}
variants:
  other:
    template: "{{ text }} ="
    query_template: "{{ text }} ?"
    instruction: ""
    label_join: ""
    label_end: "."
    separator: "|"
    strip: true
    labels: {dax: a, onyx: b}
    demonstration_words: {a: A}
    shots: 1
"""


def written(name: str, text: str) -> Path:
    path = Path(name)
    path.write_text(text.replace("MODEL", str(MODEL)), encoding="utf-8")
    return path


def test_unknown_keys(desk):
    """The messages list the keys that are known."""
    said = {}
    for name, (kind, text) in UNKNOWN.items():
        file = written("mine.yaml", text)
        task = ["evaluate", MODEL, "--task", file]
        ended = command(*(["sweep", file, "--dry-run"] if kind == "study" else task))
        assert ended.status == 2, name
        said[name] = wording(ended.err, desk)
    frozen("keys/unknown", said)


@pytest.fixture
def everything(desk) -> Path:
    written("everything.yaml", TASK)
    rows = [
        {"question": f"text: {i}", "first": "dax", "second": "onyx", "right": i % 2}
        for i in range(40)
    ]
    written("chosen.jsonl", "\n".join(map(json.dumps, rows)))
    return written("all.yaml", STUDY)


def test_a_study_that_says_everything(desk, everything):
    ended = command("sweep", everything, "--out", "run", "--json")
    assert ended.status == 0, ended.err
    found = steady(json.loads(ended.out), desk)
    again = steady((desk / "run" / "study.yaml").read_text(encoding="utf-8").splitlines(), desk)
    frozen("keys/study", {"document": found, "study.yaml": again})


@pytest.mark.parametrize("variant", [[], ["--variant", "other"]])
def test_a_task_file_that_says_everything(desk, everything, variant):
    ended = command(
        *["evaluate", MODEL, "--task", "everything.yaml", *variant, "--dtype", "float32"],
        *["--predictions", "rows.jsonl", "--with-prompts", "--json"],
    )
    assert ended.status == 0, ended.err
    rows = [
        json.loads(line) for line in Path("rows.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    name = "-".join(["keys/task", *variant[1:]])
    frozen(name, {"document": steady(json.loads(ended.out), desk), "rows": rows})


def test_what_is_where_nothing_is_said(desk):
    """The settings of a study that names a model and a task, and no more."""
    study = written("least.yaml", "models: MODEL\ntasks: short.yaml")
    ended = command("sweep", study, "--out", "run", "--json", "--dtype", "float32", "--layers", "0")
    assert ended.status == 0, ended.err
    frozen("keys/defaults", steady(json.loads(ended.out), desk)["settings"])


def test_shipped_studies(desk):
    """Each with the demo's model and a small task in the place of its own: what is left of it is
    its grid."""
    task = ["--model", MODEL, "--tasks", "short.yaml", "--dtype", "float32"]
    found = {}
    for name in SHIPPED:
        ended = command("sweep", name, *task, "--dry-run", "--json")
        assert ended.status == 0, ended.err
        cost = json.loads(ended.out)
        found[name] = {
            key: cost[key] for key in ("units", "trials", "kept", "rows", "tokens", "disk")
        }
    found["none such"] = wording(command("sweep", "nothing").err)
    frozen("keys/shipped", found)
