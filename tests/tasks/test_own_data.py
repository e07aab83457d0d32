"""A user's own rows: files, folders, flags and task files."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from eckart.cli.flags import parse_labels
from eckart.errors import TaskError
from eckart.tasks import Prompt, Task
from eckart.tasks.labels import escaped
from eckart.tasks.tables import read_json


def reviews(n: int = 40) -> list[dict[str, Any]]:
    return [{"review": f"film number {i}", "verdict": i % 2} for i in range(n)]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Write rows as the path's ending says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows))
    elif path.suffix == ".jsonl":
        path.write_text("\n".join(map(json.dumps, rows)) + "\n")
    else:
        mark = "\t" if path.suffix == ".tsv" else ","
        lines = [mark.join(rows[0])] + [mark.join(map(str, row.values())) for row in rows]
        path.write_text("\n".join(lines) + "\n")
    return path


def load(data: Path, **options: Any) -> Task:
    options = {"text_column": "review", "label_column": "verdict", "shots": 4} | options
    return Task.load(data=data, **options)


def everything(task: Task) -> dict[str, str]:
    return {example.id: example.text for example in (*task.demonstrations, *task.all)}


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".json", ".parquet"])
def test_every_kind_of_file_gives_the_same_task(tmp_path: Path, suffix: str) -> None:
    task = load(write(tmp_path / f"mine{suffix}", reviews()))
    assert task.labels == ("0", "1")
    assert task.name == "mine"
    assert len(task.demonstrations) == 4
    assert (len(task.validation), len(task.test), len(task.all)) == (15, 15, 36)
    assert task.digest == load(write(tmp_path / "x" / "mine.jsonl", reviews())).digest
    prompt = task.prompts("test")[0]
    row = int(prompt.id.removeprefix("train:"))
    assert prompt.context.endswith(f"\nreview: film number {row}\nverdict:")
    assert prompt.continuations == (" 0", " 1")
    assert prompt.label == row % 2


def test_flags_say_all_that_a_task_file_says(tmp_path: Path) -> None:
    task = load(
        write(tmp_path / "mine.csv", reviews()),
        template=r"review: {{ review }}\nverdict:",  # as it is typed in a shell
        labels={"0": "bad", 1: "good"},
        instruction="Judge the film.",
        separator="\n\n",
        label_join=" -> ",
        name="films",
    )
    assert (task.name, task.labels) == ("films", ("bad", "good"))
    context = task.prompts("test")[0].context
    assert context.startswith("Judge the film.\n\nreview: film number ")
    assert context.count("\n\nreview: ") == 5
    assert {"verdict: -> bad\n", "verdict: -> good\n"} <= {
        line + "\n" for line in context.split("\n")
    }
    assert task.prompts("test")[0].continuations == (" -> bad", " -> good")


def test_a_task_file_is_enough(tmp_path: Path) -> None:
    write(tmp_path / "rows" / "reviews.csv", reviews())
    (tmp_path / "verdicts.yaml").write_text(
        "data: rows/reviews.csv\n"
        'template: "review: {{ review }}\\nverdict:"\n'
        "label: verdict\n"
        "labels: {0: no, 1: yes}\n"
        "shots: 2\n"
    )
    task = Task.load(tmp_path / "verdicts.yaml")
    assert (task.name, task.labels, task.shots) == ("verdicts", ("no", "yes"), 2)
    assert Task.load(tmp_path / "verdicts.yaml", shots=6).shots == 6


def test_without_flags_the_columns_speak_for_themselves(tmp_path: Path) -> None:
    rows = [{"sentence": f"row {i}", "label": "ab"[i % 2]} for i in range(30)]
    task = Task.load(data=write(tmp_path / "mine.csv", rows))
    assert task.prompts("test")[0].context.endswith("\nlabel:")
    assert task.labels == ("a", "b")
    rows = [{"id": i, "text": f"row {i}", "label": i % 2} for i in range(30)]
    assert (
        everything(Task.load(data=write(tmp_path / "other.csv", rows)))["train:3"]
        == "text: row 3\nlabel:"
    )


def test_text_stays_text(tmp_path: Path) -> None:
    texts = [
        "NA",
        "null",
        "1e5",
        "",
        "007",
        "None",
        'he said "no"',
        "one,two",
        "two\nlines",
        "  spaces  ",
        "ü€😀",
    ]
    lines = "\r\n".join(
        '"' + text.replace('"', '""') + f'",{i % 2}' for i, text in enumerate(texts)
    )
    path = tmp_path / "mine.csv"
    path.write_bytes(b"\xef\xbb\xbfreview,verdict\r\n" + lines.encode() + b"\r\n")
    task = load(path, shots=2)
    assert everything(task) == {
        f"train:{i}": f"review: {t.strip()}\nverdict:" for i, t in enumerate(texts) if t
    }
    assert task.labels == ("0", "1")
    assert "train: left out 1 row without an input" in task.notes


def test_unquoted_tab_separated_text_keeps_its_quotation_marks(tmp_path: Path) -> None:
    path = tmp_path / "mine.tsv"
    path.write_text(
        "review\tverdict\n"
        + "".join(f'" opened and never closed {i}\t{i % 2}\n' for i in range(20))
    )
    assert everything(load(path))["train:3"] == 'review: " opened and never closed 3\nverdict:'
    path.write_text('review\tverdict\n" one\t0\ntwo\t1\nthree"\t0\nfour\t1\nfive\t0\nsix\t1\n')
    assert len(everything(load(path, shots=2))) == 6
    path.write_text(
        "review\tverdict\n" + "".join(f'"say ""hi""\t{i}"\t{i % 2}\n' for i in range(20))
    )
    assert everything(load(path))["train:3"] == 'review: say "hi"\t3\nverdict:'


def test_integer_like_labels_are_one_label(tmp_path: Path) -> None:
    rows = [{"review": f"film {i}", "verdict": float(i % 2)} for i in range(30)]
    assert load(write(tmp_path / "mine.parquet", rows)).labels == ("0", "1")
    rows = [{"review": f"film {i}", "verdict": i % 2 == 0} for i in range(30)]
    assert load(write(tmp_path / "mine.jsonl", rows)).labels == ("false", "true")
    rows = [{"review": f"film {i}", "verdict": (i % 3) * 5} for i in range(30)]
    assert load(write(tmp_path / "mine.csv", rows)).labels == ("0", "5", "10")


def test_markup_is_not_escaped(tmp_path: Path) -> None:
    rows = [{"review": f"<b>it's</b> & {{{{ 7 }}}} {i}", "verdict": i % 2} for i in range(20)]
    assert (
        everything(load(write(tmp_path / "mine.jsonl", rows)))["train:0"]
        == "review: <b>it's</b> & {{ 7 }} 0\nverdict:"
    )


def test_a_column_with_an_awkward_name(tmp_path: Path) -> None:
    rows = [{"the review": f"film {i}", "my label": i % 2} for i in range(20)]
    path = write(tmp_path / "mine.csv", rows)
    plain = Task.load(data=path, text_column="the review", label_column="my label", shots=2)
    by_row = Task.load(
        data=path,
        template='the review: {{ row["the review"] }}\\nmy label:',
        label_column="my label",
        shots=2,
    )
    assert plain.digest != by_row.digest
    assert everything(plain) == everything(by_row)
    prompt = by_row.prompts("test")[0]
    assert by_row.null_prompt(prompt).context == plain.null_prompt(prompt).context


def test_a_long_field_is_read_and_the_limit_comes_back(tmp_path: Path) -> None:
    import csv

    before = csv.field_size_limit()
    rows = [{"review": f"{i} " + "long " * 50_000, "verdict": i % 2} for i in range(6)]
    assert len(everything(load(write(tmp_path / "mine.csv", rows), shots=2))["train:1"]) > 200_000
    assert csv.field_size_limit() == before


@pytest.mark.parametrize(
    ("files", "sources"),
    [
        (["train.parquet", "validation.parquet", "test.parquet"], ("train", "validation", "test")),
        (["train.csv", "dev.csv", "test.csv"], ("train", "validation", "test")),
        (
            ["data/train-00000-of-00001.parquet", "data/val-00000-of-00001.parquet"],
            ("train", "train", "validation"),
        ),
        (["train.jsonl", "test.jsonl"], ("train", "train", "test")),
        (["train/0000.parquet", "valid/0000.parquet"], ("train", "train", "validation")),
        (["train.csv"], ("train", "train", "train")),
        (["mine.csv"], ("train", "train", "train")),
        (["test.csv"], ("train", "train", "train")),
    ],
)
def test_folders_like_the_hubs(
    tmp_path: Path, files: list[str], sources: tuple[str, str, str]
) -> None:
    for index, file in enumerate(files):
        write(tmp_path / file, [{"review": f"{index} {i}", "verdict": i % 2} for i in range(30)])
    (tmp_path / "README.md").write_text("nothing to read")
    task = load(tmp_path)
    splits = (task.demonstrations, task.validation, task.test)
    assert tuple({e.id.split(":")[0] for e in split}.pop() for split in splits) == sources
    if len(files) == 3:
        assert (len(task.validation), len(task.test)) == (30, 30)
    else:
        assert len(task.notes) == 1


def test_shards_are_one_split(tmp_path: Path) -> None:
    for index in range(2):
        rows = [{"review": f"{index} {i}", "verdict": i % 2} for i in range(20)]
        write(tmp_path / f"train-0000{index}-of-00002.parquet", rows)
    texts = everything(load(tmp_path))
    assert texts["train:0"] == "review: 0 0\nverdict:"
    assert texts["train:20"] == "review: 1 0\nverdict:"
    (tmp_path / "train-00001-of-00002.parquet").unlink()
    with pytest.raises(TaskError, match="the train split has 1 of its 2 files"):
        load(tmp_path)


def test_a_copy_beside_the_original_is_not_read_too(tmp_path: Path) -> None:
    write(tmp_path / "train.csv", reviews())
    write(tmp_path / "train.parquet", reviews())
    with pytest.raises(
        TaskError, match=r"more than one file is the train split: train\.csv, train\.parquet"
    ):
        load(tmp_path)


def test_the_same_text_in_two_splits_stays_in_test_then_validation(tmp_path: Path) -> None:
    def rows(*numbers: int) -> list[dict[str, Any]]:
        return [{"review": f"film {n}", "verdict": n % 2} for n in numbers]

    write(tmp_path / "train.csv", rows(*range(20), 3, 4))
    write(tmp_path / "validation.csv", rows(*range(10, 30)))
    write(tmp_path / "test.csv", rows(*range(15, 45)))
    task = load(tmp_path, shots=2)
    assert {e.id for e in task.test} == {f"test:{i}" for i in range(30)}
    assert {e.id for e in task.validation} == {f"validation:{i}" for i in range(5)}
    assert {e.id for e in task.all} - {e.id for e in (*task.test, *task.validation)} < {
        f"train:{i}" for i in range(10)
    }
    assert task.notes == (
        "validation: left out 15 rows for repeating an input",
        "train: left out 12 rows for repeating an input",
    )


def test_a_repeat_with_another_label_is_told(tmp_path: Path) -> None:
    rows = [*reviews(20), {"review": " film number 3 ", "verdict": 0}]
    assert (
        load(write(tmp_path / "mine.jsonl", rows)).notes[-1]
        == "train: left out 1 row for repeating an input (1 with another label)"
    )


def test_rows_without_a_label_are_told(tmp_path: Path) -> None:
    rows = [*reviews(20), {"review": "a", "verdict": None}, {"review": "c"}]
    task = load(write(tmp_path / "mine.jsonl", rows))
    assert len(task.all) == 16
    assert "train: left out 2 rows without a label" in task.notes


def test_minus_one_can_be_a_label(tmp_path: Path) -> None:
    path = write(
        tmp_path / "mine.csv",
        [{"review": f"film {i}", "verdict": 1 - 2 * (i % 2)} for i in range(20)],
    )
    assert load(path, labels={-1: "bad", 1: "good"}).labels == ("bad", "good")
    with pytest.raises(
        TaskError, match="'-1' stands for none unless --labels maps it; two classes are needed"
    ):
        load(path)


def test_a_split_whose_every_label_is_minus_one_has_none(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", reviews(40))
    write(
        tmp_path / "validation.jsonl",
        [{**row, "review": f"other {i}"} for i, row in enumerate(reviews(20))],
    )
    write(tmp_path / "test.jsonl", [{"review": f"hidden {i}", "verdict": -1} for i in range(20)])
    task = load(tmp_path)
    assert len(task.labels) == 2
    assert all(example.id.startswith("validation:") for example in task.test)


def test_labels_that_read_as_no_number_are_words(tmp_path: Path) -> None:
    labels = ["null", "good", "2", "None", "inf"]
    path = write(
        tmp_path / "mine.csv",
        [{"review": f"film {i}", "verdict": labels[i % 5]} for i in range(50)],
    )
    assert load(path).labels == ("2", "None", "good", "inf", "null")


@pytest.mark.parametrize(
    "template",
    [
        "{{ review | trim | lower }}:",
        "{{ review.strip().title() }}:",
        "{% if review == 'x' %}{{ review }}{% else %}{{ row['review'] ~ '!' }}{% endif %}:",
        "{{ review[:40] }} {{ review | truncate(20) | default('-') }}:",
        "{{ 'yes' if review is string and review.startswith('f') else 'no' }} {{ review }}:",
    ],
)
def test_what_a_prompt_needs_is_allowed(tmp_path: Path, template: str) -> None:
    assert load(write(tmp_path / "mine.csv", reviews()), template=template).prompts("test")


def test_shots_are_beginnings_of_one_order_and_stay_balanced(tmp_path: Path) -> None:
    path = write(
        tmp_path / "mine.csv", [{"review": f"film {i}", "verdict": i % 3} for i in range(90)]
    )
    longest = load(path, shots=10)
    for shots in range(10):
        task = load(path, shots=shots)
        assert task.demonstrations == longest.demonstrations[:shots]
        assert (task.validation, task.test) == (longest.validation, longest.test)
        counts = [sum(e.label == label for e in task.demonstrations) for label in range(3)]
        assert max(counts) - min(counts) <= 1
        assert len(task.all) == 90 - shots
        assert task.prompts("test")[0].context.count("film") == shots + 1


def test_seeds_change_what_they_name(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.csv", reviews(200))
    task, seeded, divided = load(path), load(path, seed=1), load(path, split_seed=1)
    assert task.digest == load(path).digest
    assert task.prompts("test") == load(path).prompts("test")
    assert seeded.demonstrations != task.demonstrations
    assert len({e.id for e in seeded.test} ^ {e.id for e in task.test}) <= 20
    assert divided.demonstrations == task.demonstrations
    assert len({e.id for e in divided.test} & {e.id for e in task.test}) < 70
    assert len({t.prompts("test") for t in (task, seeded, divided)}) == 3


def test_shots_drawn_at_random_need_no_balance(tmp_path: Path) -> None:
    rows = [{"review": f"film {i}", "verdict": int(i == 7)} for i in range(40)]
    path = write(tmp_path / "mine.csv", rows)
    assert load(path, balanced=False).shots == 4
    with pytest.raises(
        TaskError, match="4 balanced shots need 2 rows of each class, and train has 1 of '1'"
    ):
        load(path)


@pytest.mark.parametrize(
    ("sizes", "validation", "test"),
    [
        ((10, 20), 10, 20),
        ("10,20", 10, 20),
        ({"test": 8}, 22, 8),
        ((0.5, 0.25), 15, 7),
        ("0.2", 6, 24),
        (5, 5, 25),
        (",3", 27, 3),
    ],
)
def test_split_sizes(tmp_path: Path, sizes: Any, validation: int, test: int) -> None:
    task = load(write(tmp_path / "mine.csv", reviews()), split_sizes=sizes)
    assert (len(task.validation), len(task.test)) == (validation, test)
    assert {e.id for e in task.validation}.isdisjoint(e.id for e in task.test)


def test_choices_from_flags(tmp_path: Path) -> None:
    rows = [
        {"goal": f"goal {i}", "a": f"way {i}", "b": f"other {i}", "right": "AB"[i % 2]}
        for i in range(30)
    ]
    rows.append({"goal": "a goal", "a": "same", "b": "same", "right": "A"})
    options = {
        "template": "{{ goal }}",
        "choices": ["a", "b"],
        "label_column": "right",
        "labels": {"A": "a", "B": "b"},
    }
    task = Task.load(data=write(tmp_path / "mine.csv", rows), shots=2, **options)  # type: ignore[arg-type]
    assert (task.kind, task.labels, task.default_score) == ("choices", ("a", "b"), "mean")
    prompt = task.prompts("test")[0]
    number = int(prompt.id.removeprefix("train:"))
    assert prompt.context.endswith(f"\ngoal {number}")
    assert prompt.continuations == (f" way {number}", f" other {number}")
    assert prompt.label == number % 2
    null = task.null_prompt(prompt)
    assert null.context == prompt.context.removesuffix(f"goal {number}") + "N/A"
    assert (null.continuations, null.label) == (prompt.continuations, prompt.label)
    assert "train: left out 1 row with an empty choice or two equal ones" in task.notes


@pytest.mark.parametrize(
    ("written", "options", "join"),
    [
        ("verdict:", {}, " "),
        ("verdict: ", {}, " "),
        ("verdict:\n", {}, "\n"),
        ("verdict: \n\n", {}, " \n\n"),
        ("verdict:\n", {"label_join": "- "}, "\n- "),
        ("verdict:", {"label_join": ""}, ""),
    ],
)
def test_the_line_breaks_that_a_template_ends_in_are_kept(
    tmp_path: Path, written: str, options: dict[str, Any], join: str
) -> None:
    task = load(
        write(tmp_path / "mine.csv", reviews()),
        template="{{ review }}\n" + written,
        shots=1,
        **options,
    )
    prompt = task.prompts("test")[0]
    assert prompt.continuations == (f"{join}0", f"{join}1")
    shown = task.demonstrations[0]
    assert prompt.context.startswith(f"{shown.fields['review']}\nverdict:{join}{shown.label}\n")
    assert prompt.context.endswith("\nverdict:")


@pytest.mark.parametrize(
    ("block", "join"),
    [("|", " "), (">", " "), ("|-", " "), ("|+", "\n"), ("|2+", "\n"), ("| # a+b", " ")],
)
def test_a_block_of_yaml_ends_in_a_line_break_that_nobody_wrote(
    tmp_path: Path, block: str, join: str
) -> None:
    write(tmp_path / "mine.csv", reviews())
    (tmp_path / "t.yaml").write_text(
        f"template: {block}\n  {{{{ review }}}} verdict:\ndata: mine.csv\nlabel:"
        " verdict\nshots: 1\n"
    )
    assert Task.load(tmp_path / "t.yaml").prompts("test")[0].continuations[0] == f"{join}0"


def test_null_prompt_keeps_all_but_the_input(tmp_path: Path) -> None:
    task = load(write(tmp_path / "mine.csv", reviews()), shots=2)
    prompt = task.prompts("test")[0]
    shown = "".join(task.format.demonstration(example) + "\n" for example in task.demonstrations)
    expected = Prompt(
        f"{prompt.id}:null", f"{shown}review: N/A\nverdict:", (" 0", " 1"), prompt.label, (1, 1)
    )
    assert task.null_prompt(prompt) == expected


@pytest.mark.parametrize(
    "change",
    [
        {"template": "x {{ review }}"},
        {"separator": "\n\n"},
        {"label_join": "  "},
        {"labels": {0: "bad", 1: "good"}},
        {"instruction": "Judge."},
        {"shots": 2},
        {"seed": 5},
    ],
)
def test_the_digest_changes_with_all_that_prompts_depend_on(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    path = write(tmp_path / "mine.csv", reviews())
    assert load(path).digest != load(path, **change).digest
    assert load(path).prompts("test") != load(path, **change).prompts("test")


def test_importing_tasks_imports_neither_torch_nor_readers() -> None:
    heavy = ["torch", "transformers", "datasets", "pandas", "pyarrow"]
    code = f"import sys, eckart.tasks; print([m for m in {heavy} if m in sys.modules])"
    assert (
        subprocess.run(
            [sys.executable, "-c", code], check=True, capture_output=True, text=True
        ).stdout
        == "[]\n"
    )


def test_the_hub_out_of_reach_is_one_line(tmp_path: Path) -> None:
    code = (
        "from eckart.tasks import Task\ntry:\n Task.load('sst2')\nexcept Exception as e:"
        " print(type(e).__name__, e)"
    )
    environment = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "PATH": ""}
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, env=environment
    )
    assert done.stdout.startswith("TaskError cannot load 'nyu-mll/glue' from the hub (")
    assert done.stdout.endswith("with the data on this machine, give it as --data\n")
    assert done.stdout.count("\n") == 1


ROWS_OF_TWO = [{"review": "a"}, {"review": "b"}]
WORDS = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=1)


@example(["a\\", "b"])
@given(st.lists(WORDS, unique_by=str.strip, min_size=1, max_size=4))
def test_labels_are_read_back_as_messages_write_them(labels):
    labels = [label for label in labels if label == label.strip()]
    written = ",".join(f"{escaped(value)}={escaped(value)}" for value in labels)
    assert not labels or parse_labels(written) == {label: label for label in labels}


@pytest.mark.parametrize(
    "whole", [{"data": ROWS_OF_TWO, "version": "1.1"}, {"anything": ROWS_OF_TWO}]
)
def test_a_table_stands_in_an_object_beside_what_is_said_of_it(whole):
    assert read_json(json.dumps(whole)) == ROWS_OF_TWO


@pytest.mark.parametrize("table", ["choices", "examples", "items"])
def test_a_record_is_no_table_of_its_candidates(table):
    """Whichever was meant, something would be dropped without a word."""
    with pytest.raises(TaskError, match="a table, or one row with a list"):
        read_json(json.dumps({"question": "q", table: ROWS_OF_TWO, "answer": "A"}))
