"""The published numbers: complete, and only beside the models that they are about."""

import csv
from types import SimpleNamespace

import pytest

from eckart.published import identify, published_rows
from eckart.records import RATES

GPTJ = SimpleNamespace(model_type="gptj", num_hidden_layers=28, hidden_size=4096)
LLAMA = SimpleNamespace(model_type="llama", num_hidden_layers=32, hidden_size=4096)
TASKS = ["sst2", "ag_news", "emo", "mrpc", "rte", "cb", "copa"]


@pytest.mark.parametrize(
    ("name", "config", "expected"),
    [
        ("EleutherAI/gpt-j-6b", GPTJ, "gpt-j-6b"),
        ("EleutherAI/gpt-j-6B", GPTJ, "gpt-j-6b"),
        ("/models/gpt-j-6b/", GPTJ, "gpt-j-6b"),
        ("meta-llama/Llama-2-7b-hf", LLAMA, "llama-2-7b"),
        ("meta-llama/Llama-2-7b-chat-hf", LLAMA, "llama-2-7b-chat"),
        ("lmsys/vicuna-7b-v1.5", LLAMA, None),
        (
            "someone/gpt-j-6b",
            SimpleNamespace(model_type="gptj", num_hidden_layers=2, hidden_size=32),
            None,
        ),
        ("gpt2", SimpleNamespace(model_type="gpt2", num_hidden_layers=12, hidden_size=768), None),
    ],
)
def test_which_checkpoint_is_the_papers(name, config, expected):
    assert identify(name, config) == expected


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("part", ["mlp", "attn"])
@pytest.mark.parametrize("model", ["gpt-j-6b", "llama-2-7b"])
def test_every_row_of_the_tables_is_found(model, task, part):
    tables = [row for row in published_rows(model, task, part) if row["source"].startswith("Table")]
    assert len(tables) == 1
    assert tables[0]["rate"] in RATES


def test_table_2_as_printed():
    assert published_rows("gpt-j-6b", "sst2", "mlp") == [
        {
            "source": "Table 2",
            "layer": 26,
            "rate": 0.95,
            "test_baseline": 0.7527,
            "test_clipped": 0.8437,
        }
    ]


def test_logs_stand_beside_the_tables():
    sources = [(row["source"], row["layer"]) for row in published_rows("gpt-j-6b", "copa", "mlp")]
    assert sources == [("Table 8", 26), *(("authors' log", layer) for layer in (0, 1, 26, 27))]


def test_nothing_for_other_models():
    assert published_rows(None, "sst2", "mlp") == []
    assert published_rows("gpt-j-6b", "demo-mood", "mlp") == []


@pytest.mark.parametrize("name", ["algorithm1_tables.csv", "author_logs.csv"])
def test_the_packages_copy_is_the_record(shared, name):
    from importlib import resources

    ours = resources.files("eckart.published").joinpath(name).read_text(encoding="utf-8")
    theirs = (shared / "published" / name).read_text(encoding="utf-8")
    assert list(csv.reader(ours.splitlines())) == list(csv.reader(theirs.splitlines()))


def test_accuracy_as_the_authors_count_it():
    """CB's test split has 56 rows, and their code divides by the last row's index: 32 of them right
    is what their log says of the unpruned model."""
    rows = published_rows("gpt-j-6b", "cb", "attn")
    assert 32 / 55 in {row["test_baseline"] for row in rows if "log" in row["source"]}
