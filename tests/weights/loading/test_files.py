"""What lies in a model's folder, and in its config.json, is looked at before anything is loaded."""

import json
import shutil

import pytest
import torch
from families import VOCAB, build, save_family
from safetensors.torch import load_file, save_file

from eckart.errors import ModelError
from eckart.weights.models import empty_model, load_model

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a21\nsize 5647256\n"
ADAPTER = {"peft_type": "LORA", "base_model_name_or_path": "someone/base", "r": 4}


@pytest.fixture
def llama(tmp_path):
    return save_family("llama", tmp_path / "llama")


@pytest.fixture
def sharded(llama):
    (llama / "model.safetensors").unlink()
    build("llama").save_pretrained(llama, max_shard_size="60KB")
    return llama


def mend(folder, **changes):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))


def refused(folder, *said):
    for load in (load_model, lambda name: empty_model(str(name))):
        with pytest.raises(ModelError) as caught:
            load(folder)
        message = str(caught.value)
        assert "\n" not in message
        assert all(words in message for words in said), message


class TestAdapters:
    def test_beside_the_model(self, llama):
        (llama / "adapter_config.json").write_text(json.dumps(ADAPTER))
        refused(llama, "holds an adapter", "someone/base", "merge_and_unload")

    @pytest.mark.parametrize("name", ["adapter_model.safetensors", "adapter_model.bin"])
    def test_its_weights_alone(self, llama, name):
        save_file({"a": torch.ones(1)}, llama / name)
        refused(llama, name, "merge_and_unload")

    def test_a_folder_of_nothing_else(self, tmp_path):
        (tmp_path / "adapter_config.json").write_text(json.dumps(ADAPTER))
        refused(tmp_path, "is an adapter", "someone/base", "merge_and_unload")


@pytest.mark.parametrize(
    "name",
    [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "tekken.json",
        "qwen.tiktoken",
        "chat_template.jinja",
    ],
)
def test_a_pointer_of_git_lfs_is_called_one(llama, name):
    (llama / name).write_text(POINTER)
    refused(llama, name, "Git LFS", "git lfs pull")


def test_an_index_or_a_shard_that_is_a_pointer(sharded):
    shard = sorted(sharded.glob("*.safetensors"))[1]
    kept = shard.read_bytes()
    shard.write_text(POINTER)
    refused(sharded, shard.name, "Git LFS")
    shard.write_bytes(kept)
    (sharded / "model.safetensors.index.json").write_text(POINTER)
    refused(sharded, "model.safetensors.index.json", "Git LFS")


def test_pointers_of_files_that_nobody_reads_are_none_of_our_business(llama):
    for name in ("pytorch_model.bin", "consolidated.safetensors", "tokenizer.model"):
        (llama / name).write_text(POINTER)
    load_model(llama)


class TestBeside:
    def test_other_weights(self, llama):
        save_file({"head": torch.ones(4)}, llama / "value_head.safetensors")
        refused(llama, "value_head.safetensors", "would not be scored")

    def test_shards_that_the_index_does_not_name(self, sharded):
        shutil.copy(
            sorted(sharded.glob("*.safetensors"))[0], sharded / "model-00009-of-00009.safetensors"
        )
        refused(sharded, "model-00009-of-00009.safetensors")

    def test_a_whole_file_beside_shards(self, sharded, tmp_path):
        build("llama", seed=1).save_pretrained(tmp_path / "other")
        shutil.copy(tmp_path / "other" / "model.safetensors", sharded)
        refused(sharded, "would not be scored")

    @pytest.mark.parametrize("name", ["consolidated.safetensors", "model.fp16.safetensors"])
    def test_the_same_weights_in_another_layout_are_no_others(self, llama, name):
        tensors = load_file(llama / "model.safetensors")
        save_file({f"other.{key}": tensor for key, tensor in tensors.items()}, llama / name)
        load_model(llama)
        save_file({"half": torch.ones(4)}, llama / name)
        refused(llama, name)

    def test_a_tensor_in_two_shards(self, sharded):
        first, second = sorted(sharded.glob("*.safetensors"))[:2]
        key, tensor = next(iter(load_file(first).items()))
        save_file({**load_file(second), key: tensor + 1}, second, metadata={"format": "pt"})
        with pytest.raises(ModelError, match=f"{key} twice"):
            load_model(sharded)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"max_position_embeddings": "2048"},
            ["max_position_embeddings", "2048", "quotation marks"],
        ),
        ({"rms_norm_eps": "1e-5"}, ["rms_norm_eps", "1e-5"]),
        ({"tie_word_embeddings": "false"}, ["tie_word_embeddings", "false"]),
        (
            {"rope_parameters": {"rope_type": "default", "rope_theta": "10000"}},
            ["rope_parameters.rope_theta"],
        ),
        ({"num_hidden_layers": 3.0}, ["num_hidden_layers", "3.0", "int"]),
        ({"vocab_size": None}, ["vocab_size", "int"]),
        ({"bos_token_id": "<s>"}, ["bos_token_id", "<s>"]),
        ({"hidden_act": 3}, ["hidden_act", "str"]),
        ({"dtype": "torch.float16"}, ["dtype", "torch.float16"]),
        ({"torch_dtype": "fp16"}, ["torch_dtype", "fp16"]),
        ({"pad_token_id": VOCAB}, ["pad_token_id", str(VOCAB)]),
    ],
)
def test_a_value_that_its_key_cannot_have_is_named_with_it(llama, changes, said):
    mend(llama, **changes)
    refused(llama, *said)


@pytest.mark.parametrize(
    "changes",
    [
        {"transformers_version": "4.40"},
        {"id2label": {"0": "1"}},
        {"pad_token_id": -1},
        {"dtype": "half"},
    ],
)
def test_what_only_looks_wrong_is_taken(llama, changes):
    mend(llama, **changes)
    empty_model(str(llama))


def test_code_of_its_own_names_the_option(llama):
    mend(llama, model_type="mine", auto_map={"AutoConfig": "configuration_mine.MineConfig"})
    (llama / "configuration_mine.py").write_text(
        "from transformers import LlamaConfig as MineConfig\n"
    )
    refused(llama, "--trust-remote-code")
