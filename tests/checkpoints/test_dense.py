"""Saving a clipped model: plain transformers loads it, it scores the same, and nothing is left half-written."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from eckart import Edit, Task, clip, export, search
from eckart.checkpoints import dense
from eckart.errors import RunError
from eckart.models import load_model
from families import build, save_family, tiny_tokenizer


@pytest.fixture(scope="module")
def task(table) -> Task:
    return Task.load(data=table, text_column="review", label_column="verdict", shots=4)


def study_of(source, task, **options):
    """Return a study that chose to clip: a random model need not prefer it."""
    study = search(source, task, rates=[0.5], layer=1, **options)
    clipped = study.scorer([Edit(1, "mlp", 0.5)], "test")
    return replace(study, rate=0.5, clipped=clipped)


@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox", "mixtral"])
def test_a_saved_model_is_the_clipped_one(family, task, tmp_path):
    source = save_family(family, tmp_path / "source")
    study = study_of(source, task, dtype="float32")
    saved = export(study, tmp_path / "saved")
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "saved").state_dict()
    loaded = load_model(source, dtype="float32")
    with clip(loaded.model, study.edit):
        for name, tensor in loaded.model.state_dict().items():
            assert torch.equal(plain[name], tensor), name
    assert (saved.changed, saved.largest_change) == (0, pytest.approx(0, abs=1e-5))
    assert saved.score.accuracy == study.clipped.score.accuracy


def test_half_precision_stays_half_precision(task, tmp_path):
    build("llama").to(torch.float16).save_pretrained(tmp_path / "source")
    tiny_tokenizer().save_pretrained(tmp_path / "source")
    saved = export(study_of(tmp_path / "source", task), tmp_path / "saved")
    assert saved.dtype == "float16"
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "saved").dtype == torch.float16


def test_a_live_model_is_saved_and_left_alone(task, tmp_path):
    live = build("llama")
    before = {name: tensor.clone() for name, tensor in live.state_dict().items()}
    study = study_of(live, task, tokenizer=tiny_tokenizer())
    export(study, tmp_path / "saved")
    assert all(torch.equal(before[name], tensor) for name, tensor in live.state_dict().items())
    about = json.loads((tmp_path / "saved" / "eckart.json").read_text())
    assert about["edits"] == [str(study.edit)]


def test_a_checkpoint_that_scores_differently_is_not_kept(task, tmp_path, monkeypatch):
    source = save_family("llama", tmp_path / "source")
    study = study_of(source, task)

    real = dense.copy_clipped

    def spoiled(source, edits, folder):
        real(source, edits, folder)
        tensors = load_file(folder / "model.safetensors")
        tensors["lm_head.weight"].mul_(-1)
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})

    monkeypatch.setattr(dense, "copy_clipped", spoiled)
    with pytest.raises(RunError, match="scores differently"):
        export(study, tmp_path / "saved")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source"]


def test_a_full_disk_leaves_nothing_behind(task, tmp_path, monkeypatch):
    study = study_of(save_family("llama", tmp_path / "source"), task)

    def full(source, edits, folder):
        (folder / "model.safetensors").write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(dense, "copy_clipped", full)
    with pytest.raises(RunError, match="No space left on device"):
        export(study, tmp_path / "saved")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source"]


def test_an_empty_folder_is_taken_and_a_full_one_is_not(task, tmp_path):
    study = study_of(save_family("llama", tmp_path / "source"), task)
    (tmp_path / "empty").mkdir()
    assert export(study, tmp_path / "empty").path == tmp_path / "empty"
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("years of work")
    with pytest.raises(RunError, match="not an empty folder"):
        export(study, tmp_path / "full")


def test_long_rows_are_scored_again_as_they_were(task, tmp_path):
    source = save_family("llama", tmp_path / "source")
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 160}))
    study = study_of(source, task, truncate_demonstrations=True, drop_long_rows=True)
    assert any("fewer demonstrations" in note for note in study.notes)
    assert export(study, tmp_path / "saved").changed == 0


def test_float64_is_saved_too(task, tmp_path):
    build("llama").double().save_pretrained(tmp_path / "source")
    tiny_tokenizer().save_pretrained(tmp_path / "source")
    assert export(study_of(tmp_path / "source", task), tmp_path / "saved").dtype == "float64"


def test_a_draft_of_somebody_elses_is_left_alone(task, tmp_path):
    (tmp_path / ".saved.part").mkdir()
    (tmp_path / ".saved.part" / "thesis.txt").write_text("years of work")
    export(study_of(save_family("llama", tmp_path / "source"), task), tmp_path / "saved")
    assert (tmp_path / ".saved.part" / "thesis.txt").read_text() == "years of work"
    assert sorted(path.name for path in tmp_path.iterdir()) == [".saved.part", "saved", "source"]
