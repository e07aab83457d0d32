"""Loading: hub ids from a cache laid out like the hub's, folders, shards, live objects."""

import os
import shutil
import subprocess
import sys

import pytest
import torch
from families import build, save_family, tiny_tokenizer

from eckart.errors import ModelError
from eckart.weights.anatomy import Anatomy
from eckart.weights.models import empty_model, load_checkpoint, load_model, pick_device, pick_dtype

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def hub(model, tmp_path):
    """A hub cache that holds `someone/tiny-llama`."""
    repository = tmp_path / "hub" / "models--someone--tiny-llama"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(COMMIT)
    shutil.copytree(model, repository / "snapshots" / COMMIT)
    return tmp_path


LOADED = """
from eckart.weights.models import empty_model, load_model
from eckart.weights.stored import StoredWeights
loaded, stored = load_model('someone/tiny-llama'), StoredWeights.of('someone/tiny-llama')
print(loaded.name, loaded.fingerprint, empty_model('someone/tiny-llama').num_parameters())
layer = stored.read(stored.anatomy.layers[0])
print(stored.whole, sum(float(weight.read().sum()) for weight in layer))
"""


def test_a_hub_id_is_loaded_as_from_the_hub_whole_or_a_matrix_at_a_time(hub, model):
    environment = {**os.environ, "HF_HOME": str(hub), "HF_HUB_OFFLINE": "1"}
    run = subprocess.run(
        [sys.executable, "-c", LOADED], capture_output=True, text=True, check=True, env=environment
    )
    local = load_model(model, dtype="float32")
    layer = Anatomy.of(local.model).layers[0]
    assert run.stdout.split() == [
        "someone/tiny-llama",
        load_model(model).fingerprint,
        str(local.model.num_parameters()),
        "False",
        str(sum(float(weight.read().sum()) for weight in layer)),
    ]


def test_shards_are_one_model(model, tmp_path):
    whole = load_model(model)
    whole.model.save_pretrained(tmp_path / "sharded", max_shard_size="60KB")
    whole.tokenizer.save_pretrained(tmp_path / "sharded")
    assert len(list((tmp_path / "sharded").glob("*.safetensors"))) > 1
    assert load_model(tmp_path / "sharded").fingerprint == whole.fingerprint


def test_a_missing_shard_is_an_error(model, tmp_path):
    whole = load_model(model)
    whole.model.save_pretrained(tmp_path / "sharded", max_shard_size="60KB")
    whole.tokenizer.save_pretrained(tmp_path / "sharded")
    sorted((tmp_path / "sharded").glob("*.safetensors"))[-1].unlink()
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_model(tmp_path / "sharded")


def test_dtype_is_as_asked_and_the_stored_one_comes_back(tmp_path):
    build("llama").to(torch.float16).save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    loaded = load_model(tmp_path, dtype="float32")
    assert loaded.dtype == "float32"
    assert load_checkpoint(loaded.name, None).dtype == torch.float16
    assert load_model(tmp_path, dtype="bfloat16").dtype == "bfloat16"


@pytest.mark.parametrize(
    ("instructions", "dtype"),
    [
        ({"avx2": True}, torch.float32),
        ({"avx512_bf16": True}, torch.bfloat16),
        ({"amx_bf16": True, "avx512_bf16": False}, torch.bfloat16),
    ],
)
def test_auto_picks_what_the_processor_does_well(monkeypatch, instructions, dtype):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: instructions)
    assert pick_dtype("auto", torch.device("cpu")) == dtype
    assert pick_dtype("auto", torch.device("mps")) == torch.float32


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("old", [True, False])
def test_auto_is_never_float16(monkeypatch, native, old):
    asked = (
        (lambda: native)
        if old
        else (lambda including_emulation=True: including_emulation or native)
    )
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", asked)
    expected = torch.bfloat16 if native else torch.float32
    assert pick_dtype("auto", torch.device("cuda")) == expected


def test_an_older_torch_is_asked_otherwise(monkeypatch):
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    assert pick_dtype("auto", torch.device("cpu")) == torch.bfloat16


def test_devices_and_dtypes_that_are_not_offered():
    assert pick_device("cpu") == torch.device("cpu")
    with pytest.raises(ModelError, match="no dtype 'int8'"):
        pick_dtype("int8", torch.device("cpu"))


def test_a_loaded_model_passes_through():
    loaded = load_model(build("llama"), tokenizer=tiny_tokenizer())
    assert load_model(loaded) is loaded


def test_a_live_model_finds_its_tokenizer_by_name(tmp_path):
    save_family("gpt2", tmp_path)
    live = load_model(tmp_path).model
    assert load_model(live).tokenizer.encode("the food") == tiny_tokenizer().encode("the food")


def test_an_empty_model_takes_no_memory(model):
    assert {p.device.type for p in empty_model(str(model)).parameters()} == {"meta"}
