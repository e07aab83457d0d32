"""Data is read as its owner means it, or refused in one line; never read otherwise in silence."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from eckart.cli.flags import parse_labels
from eckart.errors import TaskError
from eckart.tasks import Task

PAIRS = [(f"film {i}, seen", ("bad", "good")[i % 2]) for i in range(24)]
ROWS = [{"review": text, "verdict": label} for text, label in PAIRS]


def put(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def table(
    separator: str = ",", pairs: Any = PAIRS, head: tuple[str, ...] = ("review", "verdict")
) -> str:
    def cell(value: str) -> str:
        return f'"{value}"' if separator in value else value

    return "".join(separator.join(map(cell, row)) + "\n" for row in [head, *pairs])


def lines(rows: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def load(path: Path, **options: Any) -> Task:
    options = {"text_column": "review", "label_column": "verdict", "shots": 2} | options
    return Task.load(data=path, **options)


def refused(path: Path, **options: Any) -> str:
    with pytest.raises(TaskError) as caught:
        load(path, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 900
    return message


def ids(task: Task) -> list[tuple[str, ...]]:
    return [
        tuple(e.id for e in rows)
        for rows in (task.demonstrations, task.validation, task.test, task.all)
    ]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("reviews_v2.csv", table()),
        ("TEST.CSV", table()),
        ("folder/reviews.csv", table()),
        ("folder/test.csv", table()),
        ("folder/training.csv", table()),
        ("reviews.tsv", table("\t")),
        ("reviews.jsonl", lines(ROWS)),
        ("reviews.csv.gz", gzip.compress(table().encode())),
        ("reviews.jsonl.bz2", bz2.compress(lines(ROWS).encode())),
        ("reviews.json.xz", lzma.compress(json.dumps(ROWS).encode())),
        ("reviews.csv.zst", pyarrow.compress(table().encode(), "zstd", asbytes=True)),
        ("semicolons.csv", table(";")),
        ("bars.csv", table("|")),
        ("tabs.csv", table("\t")),
        ("excel.csv", "sep=;\r\n" + table(";")),
        ("commas.tsv", table()),
        ("spaces.csv", "review, verdict\n" + "".join(f'"{a}", "{b}"\n' for a, b in PAIRS)),
        ("empty.csv", "review,verdict,,,\n" + "".join(f'"{a}",{b},,,\n' for a, b in PAIRS)),
        ("short.csv", "review,verdict,,,\n" + "".join(f'"{a}",{b}\n' for a, b in PAIRS)),
        (
            "columns.json",
            json.dumps({key: {str(i): row[key] for i, row in enumerate(ROWS)} for key in ROWS[0]}),
        ),
        ("index.json", json.dumps({str(i): row for i, row in enumerate(ROWS)})),
        ("list.json", json.dumps({key: [row[key] for row in ROWS] for key in ROWS[0]})),
        (
            "split.json",
            json.dumps({"columns": ["review", "verdict"], "index": [*range(24)], "data": PAIRS}),
        ),
        ("table.json", json.dumps({"schema": {"fields": []}, "data": ROWS})),
    ],
)
def test_neither_name_nor_form_of_a_file_decides_anything(
    tmp_path: Path, name: str, content: Any
) -> None:
    plain = load(put(tmp_path / "plain", "reviews.csv", table()))
    path = put(tmp_path / "other", name, content)
    task = load(path.parent if path.parent.name == "folder" else path)
    assert ids(task) == ids(plain)
    assert (task.digest, task.labels) == (plain.digest, plain.labels)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", table() + table(), "line 26: repeats the first line"),
        (
            "a.csv",
            "review,verdict,,\n" + "".join(f'"{a}",{b},,x\n' for a, b in PAIRS),
            "the first line has 2 with a name",
        ),
        ("a.csv", "review;verdict\na; b;bad\n", "the first line is separated by semicolons"),
        (
            "a.csv",
            "review,,,verdict\n" + "a,x,y,bad\n" * 9,
            "several columns with values have no name",
        ),
        (
            "a.jsonl",
            '{"review": "a", "verdict": 1, "verdict": 0}\n',
            "line 1 names 'verdict' twice",
        ),
        ("a.json", '[{"review": "a", "verdict": 1, "verdict": 0}]', "names 'verdict' twice"),
        ("a.json", json.dumps({"review": ["a", "b"], "verdict": ["x"]}), "not of one length"),
        ("a.json", json.dumps({"review": {"x": "a"}, "verdict": {"x": "b"}}), "orient='records'"),
        ("a.json", json.dumps([list(pair) for pair in PAIRS]), "item 0 is not an object"),
        ("a.json", json.dumps({"train": ROWS, "test": ROWS}), "several tables: 'train', 'test'"),
        ("a.csv.gz", gzip.compress(table().encode())[:-9], "cannot be unpacked"),
        ("a.csv.gz", b"no", "cannot be unpacked"),
        ("a.csv.zst", b"no", "cannot be unpacked"),
        ("a.arrow", b"no", "is no whole arrow file"),
    ],
)
def test_what_cannot_be_told_is_refused(
    tmp_path: Path, name: str, content: Any, message: str
) -> None:
    assert message in refused(put(tmp_path, name, content))


def test_a_file_that_unpacks_to_far_more_than_its_size_is_refused(
    tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr("eckart.tasks.files.LEAST_LIMIT", 10_000)
    path = put(tmp_path, "a.csv.gz", gzip.compress(b"0" * 1_000_000))
    assert "unpacks to more than" in refused(path)


def test_two_columns_of_one_name_in_a_parquet_file(tmp_path: Path) -> None:
    columns = [[a for a, _ in PAIRS], [b for _, b in PAIRS], [b for _, b in PAIRS]]
    pyarrow.parquet.write_table(
        pyarrow.table(columns, names=["review", "verdict", "verdict"]), tmp_path / "a.parquet"
    )
    assert "two columns of one name" in refused(tmp_path / "a.parquet")


@pytest.mark.parametrize(
    "written",
    ["Good", "g ood", "go\u200bod", "\ufeffgood", "go\u00adod", "\uff47ood", "gOOd", "good\u2060"],
)
def test_a_label_written_in_two_ways_is_named_with_a_remedy_that_works(
    tmp_path: Path, written: str
) -> None:
    pairs = [(a, written if i % 4 == 1 else b) for i, (a, b) in enumerate(PAIRS)]
    path = put(tmp_path, "a.jsonl", lines([{"review": a, "verdict": b} for a, b in pairs]))
    message = refused(path)
    assert ascii(written) in message
    assert message.isascii()
    remedy = message.rsplit("--labels '", 1)[1].removesuffix("'")
    task = load(path, labels=parse_labels(remedy))
    assert len(task.labels) == 2
    assert len(task.all) == 22


@pytest.mark.parametrize(("one", "other"), [("1", "1.0"), ("1", "01"), ("1", "+1"), ("0.5", ".50")])
def test_numbers_written_in_two_ways(tmp_path: Path, one: str, other: str) -> None:
    pairs = [(a, ("7", one, "7", other)[i % 4]) for i, (a, _) in enumerate(PAIRS)]
    assert "number form" in refused(put(tmp_path, "a.csv", table(pairs=pairs)))
    assert len(load(tmp_path / "a.csv", labels={"7": "x", one: "y", other: "y"}).labels) == 2


@pytest.mark.parametrize(
    ("missing", "labels"),
    [
        (None, ("bad", "good")),
        (float("nan"), ("bad", "good")),
        ("NaN", ("bad", "good")),
        ("<NA>", ("bad", "good")),
        (-1, ("bad", "good")),
        ("-1.0", ("bad", "good")),
        ("None", ("0", "1")),
        ("N/A", ("0", "1")),
    ],
)
def test_what_stands_for_no_label_is_counted(
    tmp_path: Path, missing: Any, labels: tuple[str, str]
) -> None:
    rows = [
        {"review": a, "verdict": labels[i % 2] if i % 4 else missing}
        for i, (a, _) in enumerate(PAIRS)
    ]
    task = load(put(tmp_path, "a.jsonl", lines(rows)))
    assert task.labels == labels
    note = next(note for note in task.notes if "left out 6 rows with" in note)
    assert "without a label" in note or repr(str(missing)) in note
    if isinstance(missing, str | int):
        mapped = {label: label for label in labels} | {missing: "none"}
        assert len(load(tmp_path / "a.jsonl", labels=mapped).labels) == 3


def test_words_that_may_be_labels_stay_labels(tmp_path: Path) -> None:
    pairs = [(a, ("None", "null", "favor")[i % 3]) for i, (a, _) in enumerate(PAIRS)]
    assert load(put(tmp_path, "a.csv", table(pairs=pairs))).labels == ("None", "favor", "null")


@pytest.mark.parametrize(
    ("label", "kind"),
    [(["good"], "a list"), ({"label": "good"}, "an object"), (b"\xff\xfe", "bytes")],
)
def test_what_is_no_label_is_named(tmp_path: Path, label: Any, kind: str) -> None:
    rows = [{"review": a, "verdict": label} for a, _ in PAIRS]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "a.parquet")
    message = refused(tmp_path / "a.parquet")
    assert kind in message
    assert "'verdict'" in message


def test_dates_are_no_labels(tmp_path: Path) -> None:
    import datetime

    rows = [
        {"review": a, "verdict": datetime.date(2026, 1, 1 + i % 2)}
        for i, (a, _) in enumerate(PAIRS)
    ]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "a.parquet")
    assert "a date for a label" in refused(tmp_path / "a.parquet")


def test_bytes_that_are_text_are_read_as_text(tmp_path: Path) -> None:
    rows = [{"review": a.encode(), "verdict": b.encode()} for a, b in PAIRS]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "a.parquet")
    assert load(tmp_path / "a.parquet").labels == ("bad", "good")


def test_nan_is_never_a_word(tmp_path: Path) -> None:
    rows = [
        {
            "review": float("nan") if i % 6 == 0 else a,
            "more": [float("nan"), None, "x"],
            "verdict": b,
        }
        for i, (a, b) in enumerate(PAIRS)
    ]
    path = put(tmp_path, "a.json", json.dumps(rows))
    assert "train: left out 4 rows without an input" in load(path).notes
    shown = load(
        path, text_column=None, template="{{ review }} {{ more[0] }}{{ more[1] }}{{ more[2] }}"
    )
    assert not any("nan" in example.text or "None" in example.text for example in shown.all)


def test_a_value_that_is_mapped_twice_is_refused(tmp_path: Path) -> None:
    path = put(tmp_path, "a.csv", table())
    assert "stands twice" in refused(path, labels={1: "a", "1": "b"})
    assert "an empty value is no label" in refused(path, labels={None: "a", "good": "b"})
    with pytest.raises(TaskError, match="names the value 'good' twice"):
        parse_labels("good=a,bad=b,good=c")
    assert parse_labels(r"a\,b=x\=y,c\u200b=\\n") == {"a,b": "x=y", "c\u200b": r"\n"}


def test_the_files_own_names_for_its_classes(tmp_path: Path) -> None:
    import datasets

    features = datasets.Features(
        {"review": datasets.Value("string"), "verdict": datasets.ClassLabel(names=["poor", "fine"])}
    )
    columns = {"review": [a for a, _ in PAIRS], "verdict": [i % 2 for i in range(24)]}
    whole = datasets.Dataset.from_dict(columns, features=features)
    whole.to_parquet(tmp_path / "a.parquet")
    whole.save_to_disk(tmp_path / "one", num_shards=2)
    datasets.DatasetDict(whole.train_test_split(0.5, seed=0)).save_to_disk(tmp_path / "two")
    for path in (tmp_path / "a.parquet", tmp_path / "one", tmp_path / "two"):
        task = load(path)
        assert task.labels == ("poor", "fine")
        assert any("0 is poor, 1 is fine" in note for note in task.notes)
        assert load(path, labels={0: "no", 1: "yes"}).labels == ("no", "yes")
    assert load(tmp_path / "one").name == "one"
    assert {e.id.split(":")[0] for e in load(tmp_path / "two").test} == {"test"}
    assert ids(load(tmp_path / "one")) == ids(load(tmp_path / "a.parquet"))


def test_files_that_name_their_classes_differently(tmp_path: Path) -> None:
    import datasets

    for split, names in (("train", ["poor", "fine"]), ("test", ["fine", "poor"])):
        features = datasets.Features(
            {"review": datasets.Value("string"), "verdict": datasets.ClassLabel(names=names)}
        )
        columns = {
            "review": [f"{split} {i}" for i in range(9)],
            "verdict": [i % 2 for i in range(9)],
        }
        datasets.Dataset.from_dict(columns, features=features).to_parquet(
            tmp_path / f"{split}.parquet"
        )
    assert "name the classes of 'verdict' differently" in refused(tmp_path)
