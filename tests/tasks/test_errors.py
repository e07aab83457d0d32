"""Whatever is wrong with a task is one line that says so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from eckart.errors import TaskError
from eckart.tasks import Task

ROWS = "review,verdict\n" + "".join(f"film {i},{'bad' if i % 2 else 'good'}\n" for i in range(40))


def refused(source: Any = None, **options: Any) -> str:
    with pytest.raises(TaskError) as caught:
        Task.load(source, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "mine.csv"
    path.write_text(ROWS)
    return path


def test_no_such_task() -> None:
    assert (
        "no task 'sst-2'; did you mean 'sst2'? (known: ag_news, cb, copa, emo, mrpc, rte, sst2)"
        in refused("sst-2")
    )
    assert "did you mean 'ag_news'?" in refused("agnews")
    assert "known: ag_news" in refused("what is this")
    assert "name one, such as sst2" in refused()


def test_no_such_variant() -> None:
    assert (
        refused("sst2", variant="relased")
        == "task 'sst2' has no variant 'relased'; it has released"
    )


def test_data_in_place_of_a_task(data: Path) -> None:
    assert f"--data '{data}' (data='{data}' from Python)" in refused(str(data))


def test_no_such_file(tmp_path: Path) -> None:
    assert (
        refused(data=tmp_path / "no.csv")
        == f"no data at '{tmp_path / 'no.csv'}'; is the path right?"
    )
    assert refused(tmp_path / "no.yaml").startswith("no task file '")
    assert "cannot read" in refused(data=tmp_path / ("x" * 300))


FILES = {
    "unknown ending": (
        "mine.xlsx",
        b"PK",
        "ends in none of .parquet, .arrow, .feather, .csv, .tsv, .jsonl",
    ),
    "empty file": ("mine.csv", b"", "has no rows"),
    "header alone": ("mine.csv", b"review,verdict\n", "has no rows"),
    "empty JSON Lines": ("mine.jsonl", b"\n\n", "has no rows"),
    "empty parquet": ("mine.parquet", b"", "is no whole parquet file"),
    "not UTF-8": (
        "mine.csv",
        b"review,verdict\ncaf\xe9,1\n",
        "line 2 is not UTF-8 (byte 0xe9); save the file as UTF-8",
    ),
    "ragged": (
        "mine.csv",
        b"review,verdict\na, b,1\n",
        "line 2: 3 fields, where the first line has 2",
    ),
    "open quote": ("mine.csv", b'review,verdict\n"a,1\nb,0\n', "line 3: unexpected end of data"),
    "two columns of one name": ("mine.csv", b"a,a\n1,2\n", "two columns of one name"),
    "broken JSON": (
        "mine.jsonl",
        b'{"review": "a", "verdict": 1}\n{"review"\n',
        "line 2 is not whole JSON",
    ),
    "JSON of other things": ("mine.jsonl", b"1\n2\n", "line 1 is not an object"),
    "cut off JSON": ("mine.json", b'[{"review": "a"', "is not whole JSON"),
    "deep JSON": ("mine.json", b"[" * 100_000, "is not whole JSON"),
    "bytes": (
        "mine.jsonl",
        b'{"review": "\\ud800", "verdict": 1}\n{"review": "a", "verdict": 0}\n',
        "half a character",
    ),
}


@pytest.mark.parametrize("case", FILES)
def test_unreadable_files(tmp_path: Path, case: str) -> None:
    name, content, message = FILES[case]
    path = tmp_path / name
    path.write_bytes(content)
    assert message in refused(data=path, text_column="review", label_column="verdict", shots=0)


def test_truncated_parquet(tmp_path: Path) -> None:
    path = tmp_path / "mine.parquet"
    rows = [{"review": f"{i} " * 99, "verdict": i % 2} for i in range(999)]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    path.write_bytes(path.read_bytes()[:-500])
    assert "was it copied to its end?" in refused(data=path)


def test_folders_without_data(tmp_path: Path) -> None:
    assert refused(data=tmp_path).endswith("it holds nothing")
    (tmp_path / "notes.txt").write_text("none")
    assert refused(data=tmp_path).endswith("such as train.csv or test.parquet; it holds notes.txt")


def test_missing_columns(data: Path) -> None:
    assert refused(data=data).endswith(
        "no column 'label'; say which of its columns is the label (--label-column): review, verdict"
    )
    assert "no column 'label'" in refused(data=data, template="{{ review }}")
    message = refused(data=data, label_column="verdict", text_column="reviews")
    assert (
        "no column 'reviews', which the template or the choices name; did you mean 'review'?"
        in message
    )
    assert "no column 'revue'" in refused(data=data, label_column="verdict", template="{{ revue }}")
    assert "no column 'b'" in refused(
        data=data, label_column="verdict", template="{{ review }}", choices=["review", "b"]
    )


def test_which_column_is_the_text(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text("id,review,label\n1,a,0\n2,b,1\n")
    assert "say which one is the text" in refused(data=path)


TEMPLATES = {
    "{{ review": "is broken: unexpected end of template",
    "{{ review | nosuch }}": "'nosuch' is not for prompts",
    "{{ review.__class__ }}": "access to attribute '__class__' of 'str' object is unsafe",
    "{{ review }}{{ ''.__class__.__mro__ }}": "access to attribute '__class__'",
    "{{ review.nosuch }}": "has no attribute 'nosuch'",
    "{{ row['nosuch'] }}": "has no attribute 'nosuch'",
    "{{ row['verdict'] }}": "has no attribute 'verdict'",
    "{{ review }} {{ verdict }}": "shows the label column 'verdict', which gives the answer away",
    "{% for i in range(10**9) %}{{ review }}{% endfor %}": "'for' is not for prompts",
    "{% for a in review %}{% for b in review %}{{ review }}{% endfor %}{% endfor %}": (
        "'for' is not for prompts"
    ),
    "{{ review.ljust(3000000000) }}": "'call' is not for prompts",
    "{{ '%3000000000d' % 1 }}{{ review }}": "'mod' is not for prompts",
    "{{ review | center(3000000000) }}": "'center' is not for prompts",
    "{{ '{:>3000000000}'.format(review) }}": "'call' is not for prompts",
    "{% set a = review ~ review %}{{ a }}": "'assign' is not for prompts",
    "{{ review | random }}": "'random' is not for prompts",
    "{{ review }}{{ 9**9**9**9 }}": "'pow' is not for prompts",
    "{{ review * 999999999999 }}": "'mul' is not for prompts",
    "{{ review + 1 }}": "cannot be filled in: can only concatenate str",
    "{% include review %}": "'include' is not for prompts",
    "{{ review }}{{ row.update({}) }}": "'call' is not for prompts",
    "verdict:": "names no column",
    "{% if review == 'x' %}{{ review }}{% endif %}": (
        "the template renders to nothing for row train:0"
    ),
}


ENDLESS = {
    "{{ review }} {{ review | length | round(99999999999, 'ceil') }}": (
        "round to 99999999999 places"
    ),
    "{{ review | length | round(-99999999999) }}": "round to -99999999999 places",
    "{{ " + "(" * 3000 + "review" + ")" * 3000 + " }}": "nested too deeply",
    "{{ " + "not " * 4000 + "review }}": "nested",
    "{{ " + "not " * 100 + "review }}": "nested more than",
    "{{ " + "[" * 100 + "0" + "]" * 100 + " }}{{ review }}": "is broken",
    "{% if review %}" * 150 + "{{ review }}" + "{% endif %}" * 150: "is broken",
    "{{ review }} {{ " + "9" * 19_000 + " }}": "is broken",
    "{{ review|trim }}" * 1100: "is broken: it has more than 2,000 parts",
    "{{ review }}" + "x" * 30_000: "is broken: it has more than 20,000 characters",
}


@pytest.mark.parametrize("template", ENDLESS, ids=range(len(ENDLESS)))
def test_a_template_ends_whatever_it_computes(data: Path, template: str) -> None:
    message = refused(data=data, label_column="verdict", template=template)
    assert ENDLESS[template] in message
    assert len(message) < 700


def test_a_template_that_shows_a_long_row_too_often(tmp_path: Path) -> None:
    path = tmp_path / "long.csv"
    path.write_text(
        "review,verdict\n" + "".join(f"{i}{'long' * 50_000},{i % 2}\n" for i in range(4))
    )
    assert "renders to more than" in refused(
        data=path, label_column="verdict", template="{{ review }}" * 500
    )


@pytest.mark.parametrize("template", TEMPLATES)
def test_templates(data: Path, template: str) -> None:
    assert TEMPLATES[template] in refused(data=data, label_column="verdict", template=template)


def own(data: Path, **options: Any) -> str:
    return refused(data=data, text_column="review", label_column="verdict", **options)


def test_labels(data: Path, tmp_path: Path) -> None:
    assert (
        "holds the label 'good', and the task knows 0, 1; map them all in labels (--labels"
        " 'good=...,bad=...')" in own(data, labels={0: "a", 1: "b"})
    )
    assert "holds one label, 'fine'" in own(data, labels={"good": "fine", "bad": "fine"})
    assert "a label word is empty" in own(data, labels={"good": " ", "bad": "bad"})
    assert "differ in white space only" in own(data, labels={"good": "fine", "bad": "fine "})
    assert "is no column of the choices" in own(
        data, choices=["review", "verdict"], labels={"good": "x", "bad": "review"}
    )
    assert "the task: labels is 'good': it must be values under keys" in own(data, labels="good")
    one = tmp_path / "one.csv"
    one.write_text("review,verdict\n" + "".join(f"film {i},good\n" for i in range(40)))
    assert own(one).endswith(
        "holds one label, 'good'; two classes are needed, so add rows or map labels"
    )
    none = tmp_path / "none.csv"
    none.write_text("review,verdict\n" + "".join(f"film {i},\n" for i in range(40)))
    assert "holds no label; two classes are needed" in own(none)
    many = tmp_path / "many.csv"
    many.write_text("review,verdict\n" + "".join(f"film {i},{i}\n" for i in range(40)))
    assert "has 40 values; is it the label column?" in own(many)


def test_too_few_rows(data: Path) -> None:
    assert "42 balanced shots need 21 rows of each class, and train has 20 of 'bad'" in own(
        data, shots=42
    )
    assert "--unbalanced (balanced=False from Python)" in own(data, shots=42)
    assert "41 shots need 41 rows of train, which has 40" in own(data, shots=41, balanced=False)
    assert "validation is left empty: besides the demonstrations train has 0 rows;" in own(
        data, shots=40
    )
    assert "validation is left empty: besides the demonstrations train has 1 row;" in own(
        data, shots=39
    )
    message = own(data, shots=10, split_sizes=(20, 20))
    assert (
        "validation and test want 40 rows of train, which has 30 without repeats and demonstrations"
        in message
    )
    assert "want 99 rows of train, which has 30" in own(data, split_sizes=(99, 1))


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ("many", "split size 'many' is no number"),
        ((0, 5), "split size 0 is neither"),
        ((1.5, 5), "split size 1.5 is neither"),
        ((1, 2, 3), "are not (validation, test)"),
        ({"train": 3}, "are not (validation, test)"),
        ((True, 2), "split size True is neither"),
        ((0.7, 0.7), "validation and test want 42 rows of train, which has 30"),
    ],
)
def test_split_sizes(data: Path, sizes: Any, message: str) -> None:
    assert message in own(data, split_sizes=sizes)


def test_shots(data: Path) -> None:
    assert own(data, shots=-1) == "the task: shots is -1: it must be at least 0"
    assert "shots is 2.5" in own(data, shots=2.5)


def test_splits_that_are_not_there(tmp_path: Path) -> None:
    (tmp_path / "test.csv").write_text("sentence,label\na,0\nb,1\n")
    assert "the task wants a split 'train', and" in refused("sst2", data=tmp_path)
    (tmp_path / "train.csv").write_text(
        "sentence,label\n" + "".join(f"row {i},{i % 2}\n" for i in range(90))
    )
    assert "want 8,000 rows of train, which has 80 without repeats and demonstrations" in refused(
        "sst2", data=tmp_path
    )
    task = Task.load("sst2", data=tmp_path, split_sizes=(30, 30))
    with pytest.raises(TaskError, match="no split 'train'; the splits are validation, test, all"):
        task.prompts("train")


YAML = {
    "a: b: c\n": "task.yaml line 1: broken YAML: mapping values are not allowed here",
    "data: mine.csv\nlabels: {0: bad\n": "task.yaml line 3: broken YAML",
    "data: mine.csv\ndata: mine.csv\n": "task.yaml line 2: broken YAML: 'data' stands twice",
    "data: \x07\n": "task.yaml: broken YAML",
    "": "is no task file",
    "just words\n": "is no task file",
    "lable: verdict\n": "unknown key 'lable'; did you mean 'label'",
    "splits: {train: x}\n": "splits.demonstrations is missing",
    "shots: many\n": "shots is 'many': it must be a whole number",
    "shots: -1\n": "shots is '-1': it must be at least 0",
    "labels: good\n": "labels is 'good': it must be values under keys",
    "choices: [one]\n": "choices is",
    "variants: {a: {temple: x}}\n": "unknown key 'variants.a.temple'",
    "label: verdict\n": "task 'task' says neither data nor hub",
    "data: no.csv\n": "no data at",
    "data: mine.csv\nlabel: verdict\ndemonstration_words: {goood: x}\n": (
        "'goood', which is no label; did you mean"
    ),
}


BOMB = "labels:\n  k0: &k0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"  k{i}: &k{i} [{', '.join([f'*k{i - 1}'] * 9)}]\n" for i in range(1, 10)
)
LARGE = {
    "aliases": (BOMB, "it holds more than 20,000 values"),
    "depth": ("labels: " + "[" * 5000 + "]" * 5000, "nested too deeply"),
    "a cycle": ("labels: &a [*a]\n", "nested too deeply"),
    "size": ("template: " + "x" * 300_000, "is larger than 256 KiB"),
    "a list for a word": ("labels: {good: [a, b], bad: c}\n", "labels.good is ['a', 'b']"),
}


@pytest.mark.parametrize("case", LARGE)
def test_a_task_file_is_read_in_bounded_memory(data: Path, case: str) -> None:
    text, message = LARGE[case]
    path = data.parent / "task.yaml"
    path.write_text(text)
    assert message in refused(path)


@pytest.mark.parametrize("name", ["", " ", "a\0b", "a\nb", "a\x1b[31mb", "n" * 400])
def test_names_that_cannot_be_a_folders(data: Path, name: str) -> None:
    assert "a task's name is one line" in own(data, name=name)


@pytest.mark.parametrize("text", YAML)
def test_task_files(data: Path, text: str) -> None:
    path = data.parent / "task.yaml"
    path.write_text(text)
    assert YAML[text] in refused(path)


def test_a_task_file_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "task.yaml").write_bytes(b"name: caf\xe9\n")
    assert "cannot read task file" in refused(tmp_path / "task.yaml")
