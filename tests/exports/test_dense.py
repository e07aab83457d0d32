"""Saving a clipped model: plain transformers loads it, it scores the same, and nothing is left
half-written."""

import json
import zlib
from dataclasses import replace

import pytest
import torch
from families import build, save_family, tiny_tokenizer
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from eckart import Edit, Task, clip, export, search
from eckart.errors import ModelError, RunError
from eckart.exports import folder as written
from eckart.exports.copying import copy_clipped
from eckart.scoring.evaluator import scorer_of
from eckart.weights.edits import clip_
from eckart.weights.loading.files import Checkpoint
from eckart.weights.models import LoadedModel, load_checkpoint, load_model


@pytest.fixture(scope="module")
def task(table) -> Task:
    return Task.load(data=table, text_column="review", label_column="verdict", shots=4)


def study_of(source, task, dtype="auto", tokenizer=None, **options):
    """Return a study that chose to clip, as a random model need not, and what exports it."""
    model = load_model(source, dtype=dtype, tokenizer=tokenizer)
    study = search(model, task, rates=[0.5], layer=1, **options)
    clipped = scorer_of(task, model, **options)([Edit(1, "mlp", 0.5)], "test")
    study = replace(study, rate=0.5, clipped=clipped)
    return study, lambda folder: export(study, folder, source, task, tokenizer=tokenizer, **options)


@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox", "mixtral"])
def test_a_saved_model_is_the_clipped_one(family, task, tmp_path):
    source = save_family(family, tmp_path / "source")
    study, save = study_of(source, task, dtype="float32")
    saved = save(tmp_path / "saved")
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
    saved = study_of(tmp_path / "source", task)[1](tmp_path / "saved")
    assert saved.dtype == "float16"
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "saved").dtype == torch.float16


def test_a_live_model_is_saved_and_left_alone(task, tmp_path):
    live = build("llama")
    before = {name: tensor.clone() for name, tensor in live.state_dict().items()}
    study, save = study_of(live, task, tokenizer=tiny_tokenizer())
    save(tmp_path / "saved")
    assert all(torch.equal(before[name], tensor) for name, tensor in live.state_dict().items())
    about = json.loads((tmp_path / "saved" / "eckart.json").read_text())
    assert about["edits"] == [str(study.edit)]


def test_a_checkpoint_that_scores_differently_is_not_kept(task, tmp_path, monkeypatch):
    source = save_family("llama", tmp_path / "source")
    _, save = study_of(source, task)

    real = written.copy_clipped

    def spoiled(source, edits, folder, wanted):
        copied = real(source, edits, folder, wanted)
        tensors = load_file(folder / "model.safetensors")
        tensors["lm_head.weight"].mul_(-1)
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        return copied

    monkeypatch.setattr(written, "copy_clipped", spoiled)
    with pytest.raises(RunError, match="scores differently"):
        save(tmp_path / "saved")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source"]


def test_a_full_disk_leaves_nothing_behind(task, tmp_path, monkeypatch):
    _, save = study_of(save_family("llama", tmp_path / "source"), task)

    def full(source, edits, folder, wanted):
        (folder / "model.safetensors").write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(written, "copy_clipped", full)
    with pytest.raises(RunError, match="No space left on device"):
        save(tmp_path / "saved")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source"]


def test_an_empty_folder_is_taken_and_a_full_one_is_not(task, tmp_path):
    _, save = study_of(save_family("llama", tmp_path / "source"), task)
    (tmp_path / "empty").mkdir()
    assert save(tmp_path / "empty").path == tmp_path / "empty"
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("years of work")
    with pytest.raises(RunError, match="not an empty folder"):
        save(tmp_path / "full")


def test_long_rows_are_scored_again_as_they_were(task, tmp_path):
    source = save_family("llama", tmp_path / "source")
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 160}))
    study, save = study_of(source, task, truncate_demonstrations=True, drop_long_rows=True)
    assert any("fewer demonstrations" in note for note in study.notes)
    assert save(tmp_path / "saved").changed == 0


def test_float64_is_saved_too(task, tmp_path):
    build("llama").double().save_pretrained(tmp_path / "source")
    tiny_tokenizer().save_pretrained(tmp_path / "source")
    assert study_of(tmp_path / "source", task)[1](tmp_path / "saved").dtype == "float64"


def test_a_draft_of_somebody_elses_is_left_alone(task, tmp_path):
    (tmp_path / ".saved.part").mkdir()
    (tmp_path / ".saved.part" / "thesis.txt").write_text("years of work")
    study_of(save_family("llama", tmp_path / "source"), task)[1](tmp_path / "saved")
    assert (tmp_path / ".saved.part" / "thesis.txt").read_text() == "years of work"
    assert sorted(path.name for path in tmp_path.iterdir()) == [".saved.part", "saved", "source"]


KEPT = {
    "as the configuration says": ("llama", ["float16"], "float16"),
    "wider than the configuration says": ("llama", ["float32"], "bfloat16"),
    "another half than the configuration says": ("llama", ["bfloat16"], "float16"),
    "of several dtypes": ("llama", ["bfloat16", "float32", "float16"], "bfloat16"),
    "fused": ("phi3", ["bfloat16", "float32"], "float32"),
    "transposed and fused": ("gpt2", ["float16", "float32"], "float16"),
    "tied": ("qwen2", ["float32", "bfloat16"], "float16"),
    "joined on loading": ("mixtral", ["bfloat16", "float32"], "bfloat16"),
}


@pytest.mark.parametrize("kind", KEPT)
@pytest.mark.parametrize("shards", [None, "40KB"])
def test_what_is_not_clipped_keeps_its_dtype_and_its_bytes(kind, shards, tmp_path):
    family, dtypes, said = KEPT[kind]
    source = tmp_path / "source"
    model = build(family)
    model.save_pretrained(source, **({"max_shard_size": shards} if shards else {}))
    for file in source.glob("*.safetensors"):
        tensors = {
            key: tensor.to(getattr(torch, dtypes[zlib.crc32(key.encode()) % len(dtypes)]))
            for key, tensor in load_file(file).items()
        }
        save_file(tensors, file, metadata={"format": "pt", "by": "hand"})
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps({**config, "dtype": said}))
    before = Checkpoint(str(source)).tensors

    (tmp_path / "saved").mkdir()
    loaded = LoadedModel(model, None, str(source))
    copy_clipped(loaded, [Edit(1, "mlp", 0.5)], tmp_path / "saved")
    after = Checkpoint(str(tmp_path / "saved")).tensors
    assert [(t.key, t.dtype, t.shape, t.file.name) for t in before.values()] == [
        (t.key, t.dtype, t.shape, t.file.name) for t in after.values()
    ]
    changed = {key for key in before if not torch.equal(read(before[key]), read(after[key]))}
    assert changed
    assert all(".1." in key and "norm" not in key and "self_attn" not in key for key in changed), (
        changed
    )
    exact = load_checkpoint(str(source), None)
    clip_(exact, Edit(1, "mlp", 0.5))
    plain = load_checkpoint(str(tmp_path / "saved"), None).state_dict()
    for name, tensor in exact.state_dict().items():
        assert torch.allclose(plain[name], tensor, rtol=1e-2, atol=1e-3), name
    assert (tmp_path / "saved" / "config.json").read_bytes() == (
        source / "config.json"
    ).read_bytes()


@pytest.mark.parametrize("cut", ["drop", "largest", "random3"])
@pytest.mark.parametrize(
    "family",
    ["llama", "gpt2", "gptj", "gemma2", "falcon_new", "phi", "phi3", "qwen2", "mixtral", "gpt_oss"],
)
def test_a_control_arm_is_copied_as_it_is_in_memory(family, cut, tmp_path):
    source = tmp_path / "source"
    model = build(family)
    model.save_pretrained(source, max_shard_size="40KB")
    (tmp_path / "saved").mkdir()
    rate = 1.0 if cut == "drop" else 0.5
    edits = [Edit(1, "all", rate, cut), Edit(0, "mlp", 0.5)]
    copy_clipped(LoadedModel(model, None, str(source)), edits, tmp_path / "saved")
    clip_(model, edits)
    plain = load_checkpoint(str(tmp_path / "saved"), None).state_dict()
    for name, tensor in model.state_dict().items():
        assert torch.equal(plain[name], tensor), name


def read(place):
    with safe_open(place.file, framework="pt") as file:
        return file.get_tensor(place.key)


def test_what_belongs_to_a_checkpoint_is_copied_and_other_weights_are_not(task, tmp_path):
    source = save_family("llama", tmp_path / "source")
    for name in (
        "LICENSE",
        "chat_template.jinja",
        "modeling_mine.py",
        "pytorch_model.bin",
        "README.md",
    ):
        (source / name).write_text("x")
    study_of(source, task)[1](tmp_path / "saved")
    names = {path.name for path in (tmp_path / "saved").iterdir()}
    assert {
        "LICENSE",
        "chat_template.jinja",
        "modeling_mine.py",
        "tokenizer.json",
        "eckart.json",
        "README.base.md",
    } <= names
    assert "pytorch_model.bin" not in names
    assert (tmp_path / "saved" / "README.base.md").read_text() == "x"


def test_an_index_under_another_name_is_copied(task, tmp_path):
    source = save_family("llama", tmp_path / "source")
    (source / "model.safetensors").unlink()
    build("llama").save_pretrained(source, max_shard_size="60KB")
    (source / "model.safetensors.index.json").rename(source / "mine.safetensors.index.json")
    config = json.loads((source / "config.json").read_text())
    named = {**config, "transformers_weights": "mine.safetensors.index.json"}
    (source / "config.json").write_text(json.dumps(named))
    study_of(source, task)[1](tmp_path / "saved")
    assert (tmp_path / "saved" / "mine.safetensors.index.json").is_file()


@pytest.mark.parametrize("name", ["a/model.safetensors", "../outside.safetensors", "README.md"])
def test_an_index_that_names_other_places_is_refused(name, tmp_path):
    source = save_family("llama", tmp_path / "source")
    (source / name).parent.mkdir(exist_ok=True)
    (source / "model.safetensors").rename(source / name)
    keys = Checkpoint(str(save_family("llama", tmp_path / "other"))).tensors
    index = {"metadata": {}, "weight_map": dict.fromkeys(keys, name)}
    (source / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelError, match="keeps weights in"):
        export(source, tmp_path / "out", edits=[Edit(0, "mlp", 0.5)])
    assert not (tmp_path / "out").exists()


def test_another_tokenizer_that_was_asked_for_is_saved(task, tmp_path):
    source = save_family("llama", tmp_path / "source")
    _, save = study_of(source, task, tokenizer=tiny_tokenizer(add_bos=True))
    assert save(tmp_path / "saved").changed == 0
    assert load_model(tmp_path / "saved").tokenizer("a")["input_ids"][0] == 0


def test_what_reading_does_to_a_tokenizer_makes_it_no_other(task, tmp_path):
    """A call of the tokenizer clears the truncation that its file has."""
    source = save_family("llama", tmp_path / "source")
    path = source / "tokenizer.json"
    told = json.loads(path.read_text(encoding="utf-8"))
    told["truncation"] = {
        "direction": "Right",
        "max_length": 9,
        "strategy": "LongestFirst",
        "stride": 0,
    }
    path.write_text(json.dumps(told), encoding="utf-8")
    study_of(source, task)[1](tmp_path / "saved")
    assert (tmp_path / "saved" / "tokenizer.json").read_bytes() == path.read_bytes()


def test_the_same_again_is_scored_again_and_another_is_refused(task, tmp_path):
    study, save = study_of(save_family("llama", tmp_path / "source"), task)
    first = save(tmp_path / "saved")
    written = (tmp_path / "saved" / "model.safetensors").stat().st_mtime_ns
    again = save(tmp_path / "saved")
    assert again == replace(first, before=True)
    assert (tmp_path / "saved" / "model.safetensors").stat().st_mtime_ns == written
    edits = tuple(replace(edit, rate=0.25) for edit in study.edits)
    other = replace(study, clipped=replace(study.clipped, edits=edits))
    with pytest.raises(RunError, match="nor what this command writes"):
        export(other, tmp_path / "saved", tmp_path / "source", task)
    with pytest.raises(RunError, match="nor what this command writes"):
        study_of(save_family("llama", tmp_path / "other", seed=1), task)[1](tmp_path / "saved")


def test_what_clipping_turned_and_what_rounding_turned_are_counted_apart(task, tmp_path):
    study, save = study_of(save_family("llama", tmp_path / "source"), task, dtype="bfloat16")
    saved, run = save(tmp_path / "saved"), study.clipped.labelled.predictions
    unpruned = study.baseline.labelled.predictions
    assert study.turned == sum(a != b for a, b in zip(unpruned, run, strict=True))
    assert saved.changed == sum(a != b for a, b in zip(run, saved.score.predictions, strict=True))


def test_another_model_or_task_than_was_searched_is_refused(task, table, tmp_path):
    study, _ = study_of(save_family("llama", tmp_path / "source"), task)
    other = save_family("llama", tmp_path / "other", seed=1)
    with pytest.raises(RunError, match=r"are \w{12}, and those of '.*other' are"):
        export(study, tmp_path / "saved", other, task)
    fewer = Task.load(data=table, text_column="review", label_column="verdict", shots=2)
    with pytest.raises(RunError, match="searched with other prompts"):
        export(study, tmp_path / "saved", tmp_path / "source", fewer)
    assert not (tmp_path / "saved").exists()
