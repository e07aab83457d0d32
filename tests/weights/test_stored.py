"""What is read from a checkpoint's files a matrix at a time is what the model has when it is loaded
whole."""

import json
import warnings

import pytest
import torch
from families import FAMILIES, build, save_family, tiny_tokenizer
from safetensors.torch import load_file, save_file

from eckart.errors import ModelError
from eckart.weights.anatomy import Anatomy
from eckart.weights.models import load_model
from eckart.weights.stored import StoredWeights, rounded

JOINED_ON_LOADING = {"mixtral", "qwen2_moe", "qwen3_moe", "gemma3_vision"}


def all_weights(anatomy):
    return [weight for layer in anatomy.layers for weight in layer]


def same(stored, model) -> bool:
    """Whether a checkpoint gives the bytes of a live model's matrices, in the same order."""
    ours, theirs = list(stored.read(all_weights(stored.anatomy))), all_weights(Anatomy.of(model))
    assert [weight.key for weight in ours] == [weight.key for weight in theirs]
    return all(torch.equal(a.read(), b.read()) for a, b in zip(ours, theirs, strict=True))


def open_quietly(folder):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return StoredWeights.of(str(folder))


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_reads_as_it_loads(family, tmp_path):
    model = build(family)
    model.save_pretrained(tmp_path)
    stored = open_quietly(tmp_path)
    assert stored.whole == (family in JOINED_ON_LOADING)
    assert same(stored, model)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_shards_and_stored_dtypes(family, dtype, tmp_path):
    model = build(family).to(dtype)
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    assert same(StoredWeights.of(str(tmp_path)), model)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_checkpoint_of_the_decoder_alone(family, tmp_path):
    model = build(family)
    model.save_pretrained(tmp_path)
    prefix = f"{model.base_model_prefix}."
    tensors = load_file(tmp_path / "model.safetensors")
    bare = {key.removeprefix(prefix): tensor for key, tensor in tensors.items()}
    save_file(bare, tmp_path / "model.safetensors", metadata={"format": "pt"})
    stored = StoredWeights.of(str(tmp_path))
    assert not stored.whole
    assert same(stored, model)


def test_what_is_joined_on_loading_is_loaded_whole_and_said(tmp_path):
    build("mixtral").save_pretrained(tmp_path)
    with pytest.warns(UserWarning, match="one for one: it is loaded whole"):
        assert StoredWeights.of(str(tmp_path)).whole


def test_a_parameter_is_read_once_for_its_matrices_and_let_go(tmp_path, monkeypatch):
    build("phi3").save_pretrained(tmp_path)
    stored = StoredWeights.of(str(tmp_path))
    real, read = StoredWeights._numbers, []
    monkeypatch.setattr(
        StoredWeights, "_numbers", lambda s, path: (read.append(path), real(s, path))[1]
    )
    for weight in stored.read(stored.anatomy.layers[0]):
        assert not weight.parameter.is_meta
    assert [path.split(".")[-2] for path in read] == [
        "qkv_proj",
        "o_proj",
        "gate_up_proj",
        "down_proj",
    ]
    assert all(weight.parameter.is_meta for weight in all_weights(stored.anatomy)), (
        "nothing stays in memory"
    )


class TestDamage:
    @pytest.fixture
    def sharded(self, tmp_path):
        build("llama").save_pretrained(tmp_path, max_shard_size="60KB")
        return tmp_path

    def refused(self, folder, says: str) -> None:
        with pytest.raises(ModelError, match=says) as caught:
            StoredWeights.of(str(folder))
        assert "\n" not in str(caught.value)
        assert str(folder) in str(caught.value)

    def test_a_missing_shard(self, sharded):
        sorted(sharded.glob("*.safetensors"))[1].unlink()
        self.refused(sharded, "cannot be loaded.*model-00002")

    @pytest.mark.parametrize("kept", [0.5, 0.99])
    def test_a_truncated_shard(self, sharded, kept):
        path = sorted(sharded.glob("*.safetensors"))[1]
        content = path.read_bytes()
        path.write_bytes(content[: int(kept * len(content))])
        self.refused(sharded, "damaged safetensors file")

    def test_an_index_that_is_none(self, sharded):
        (sharded / "model.safetensors.index.json").write_text("{")
        self.refused(sharded, "cannot be loaded")

    def test_an_index_that_names_the_wrong_file(self, sharded):
        index = json.loads((sharded / "model.safetensors.index.json").read_text())
        files = sorted(set(index["weight_map"].values()))
        key = "model.layers.1.mlp.up_proj.weight"
        index["weight_map"][key] = next(file for file in files if file != index["weight_map"][key])
        (sharded / "model.safetensors.index.json").write_text(json.dumps(index))
        self.refused(sharded, key)

    @pytest.mark.filterwarnings("ignore:the checkpoint of")
    def test_a_tensor_that_is_missing_or_of_another_shape(self, tmp_path):
        save_family("llama", tmp_path)
        tensors = load_file(tmp_path / "model.safetensors")
        for change in (tensors["model.layers.1.mlp.up_proj.weight"][:-1].clone(), None):
            changed = {**tensors, "model.layers.1.mlp.up_proj.weight": change}
            kept = {key: tensor for key, tensor in changed.items() if tensor is not None}
            save_file(kept, tmp_path / "model.safetensors", metadata={"format": "pt"})
            self.refused(tmp_path, "layers.1.mlp.up_proj")

    def test_a_file_that_goes_while_it_is_read(self, sharded):
        stored = StoredWeights.of(str(sharded))
        for path in sharded.glob("*.safetensors"):
            path.unlink()
        with pytest.raises(ModelError, match="cannot be loaded"):
            list(stored.read(stored.anatomy.layers[0]))


class TestRounded:
    @pytest.mark.parametrize(
        ("stored", "loaded", "expected"),
        [
            ("float32", "bfloat16", True),
            ("float32", "float32", False),
            ("bfloat16", "bfloat16", False),
            ("float16", "bfloat16", True),
            ("float16", "float32", False),
            ("float64", "float32", True),
        ],
    )
    def test_by_what_the_files_hold(self, tmp_path, stored, loaded, expected):
        build("llama").to(getattr(torch, stored)).save_pretrained(tmp_path, max_shard_size="60KB")
        tiny_tokenizer().save_pretrained(tmp_path)
        assert rounded(load_model(tmp_path, dtype=loaded)) == expected

    def test_what_the_configuration_says_does_not_count(self, tmp_path):
        folder = save_family("llama", tmp_path)
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, "dtype": "bfloat16"}))
        assert rounded(load_model(folder, dtype="bfloat16"))

    def test_a_live_model_is_what_it_is(self):
        assert not rounded(
            load_model(build("llama").to(torch.bfloat16), tokenizer=tiny_tokenizer())
        )
