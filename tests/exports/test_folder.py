"""Exported folders: every family, loaded by plain transformers in a fresh process, says what the
trial said; what is not clipped stays; the recipe makes the folder again, byte for byte."""

import csv
import json
import os
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
import torch
from families import FAMILIES, build, tiny_tokenizer
from safetensors import safe_open

from eckart import Edit, Task, export
from eckart.exports.folder import apply
from eckart.exports.recipe import sha256
from eckart.scoring.evaluator import Evaluator
from eckart.weights.loading.files import Checkpoint
from eckart.weights.models import load_model

DTYPES = ("float32", "bfloat16", "float16")
FRESH = Path(__file__).parents[1] / "support" / "fresh.py"
EVERY = bool(os.environ.get("ECKART_EVERY_DTYPE"))
"""Every family in every dtype takes minutes; without, each in one, and three in all."""
EDITS = ("1:mlp:0.5", "-1:q:0.75")


MIXTURES = ("mixtral", "qwen2_moe", "qwen3_moe")
"""In half precision torch multiplies no experts as narrow as these."""


def made(family: str) -> tuple[str, ...]:
    if family in MIXTURES:
        return DTYPES[:1]
    if EVERY or family in ("llama", "gpt2", "qwen2"):
        return DTYPES
    return (DTYPES[zlib.crc32(family.encode()) % 3],)


@pytest.fixture(scope="module")
def task(table) -> Task:
    return Task.load(
        data=table,
        text_column="review",
        label_column="verdict",
        shots=2,
        split_sizes=(4, 6),
    )


@pytest.fixture(scope="module")
def rows(task, table, tmp_path_factory) -> Path:
    """The test rows as a user has them: without labels."""
    with table.open(encoding="utf-8", newline="") as file:
        every = list(csv.DictReader(file))
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    asked = [every[int(e.id.partition(":")[2])] for e in task.test]
    path.write_text("".join(json.dumps({"review": row["review"]}) + "\n" for row in asked))
    return path


def stored(folder: Path, family: str, dtype: str, **saving) -> Path:
    build(family).to(getattr(torch, dtype)).save_pretrained(folder, **saving)
    tiny_tokenizer(add_bos=family == "llama").save_pretrained(folder)
    return folder


def tensors(folder: Path) -> dict[str, bytes]:
    found = {}
    for key, place in Checkpoint(str(folder)).tensors.items():
        with safe_open(place.file, framework="pt") as file:
            found[key] = bytes(file.get_tensor(key).flatten().view(torch.uint8).numpy())
    return found


def files(folder: Path) -> dict[str, str]:
    return {path.name: sha256(path) for path in sorted(folder.iterdir())}


def fresh(rows: Path, *folders: Path) -> list[list[str]]:
    """Return what each folder's own program says of the rows."""
    ended = subprocess.run(
        [sys.executable, FRESH, rows, *folders],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert ended.returncode == 0, ended.stderr
    return [json.loads(line) for line in ended.stdout.splitlines()]


CASES = [(family, dtype) for family in FAMILIES for dtype in made(family)]


@pytest.fixture(scope="module")
def told() -> dict[Path, list[str]]:
    """What the trial of each exported folder predicted, filled by the tests."""
    return {}


def gone_out(family: str, dtype: str, task: Task, told: dict, folder: Path) -> tuple[Path, Path]:
    """Export a clipped model, note what its trial predicted, and return where both lie."""
    source = stored(folder / "source", family, dtype)
    written = folder / "written"
    edits = [Edit.parse(edit) for edit in EDITS]
    model = load_model(source, dtype=dtype)
    saved = export(source, written, task=task, edits=edits, dtype=dtype, batch_tokens=4096)
    trial = Evaluator(model, task, batch_tokens=4096).evaluate(saved.recipe.parsed, "test")
    told[written] = [task.labels[label] for label in trial.score.predictions]
    return source, written


@pytest.mark.parametrize(("family", "dtype"), CASES)
def test_a_family_goes_out_and_its_recipe_makes_it_again(family, dtype, task, told, tmp_path):
    source, written = gone_out(family, dtype, task, told, tmp_path)

    before, after = tensors(source), tensors(written)
    assert before.keys() == after.keys()
    changed = [key for key in before if before[key] != after[key]]
    assert changed
    assert all({"1", "2"} & set(key.split(".")) for key in changed), changed

    apply(written / "eckart.json", tmp_path / "again")
    assert files(tmp_path / "again") == files(written)


def test_plain_transformers_says_the_same_in_a_fresh_process(task, told, rows, tmp_path):
    """Of every folder that the tests above made in this process, and of one of its own."""
    gone_out("llama", "bfloat16", task, told, tmp_path)
    assert dict(zip(told, fresh(rows, *told), strict=True)) == told
