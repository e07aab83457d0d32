"""GGUF files: what is read of them is the model that was written, dequantised; everything else is
refused in one line."""

import builtins
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import gguf
import gguf_files
import numpy as np
import pytest
import torch
from families import tiny_tokenizer

from eckart import Edit, Task, export, search
from eckart.errors import ModelError
from eckart.scoring.evaluator import Evaluator
from eckart.weights.anatomy import Anatomy
from eckart.weights.loading import gguf as finding
from eckart.weights.models import load_model, load_tokenizer
from eckart.weights.spectrum import exact_matrices, matrices, measure, spectra
from eckart.weights.stored import StoredWeights

KINDS = ("F32", "F16", "Q8_0", "Q4_0")
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "eckart-models"


@pytest.fixture(scope="module")
def task(table) -> Task:
    return Task.load(data=table, text_column="review", label_column="verdict", shots=4)


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    return gguf_files.write(tmp_path_factory.mktemp("gguf") / "tiny.gguf", kind="Q4_0")


@torch.no_grad()
def quantised(family: str, kind: str):
    """Return a family's model with every matrix quantised and dequantised in place."""
    model, stored = gguf_files.build(family), gguf.GGMLQuantizationType[kind]
    for path, parameter in model.named_parameters():
        if parameter.ndim == 2 and "wpe" not in path:
            # Rows are quantised by themselves, so that their order does not matter; GPT-2's are
            # columns here.
            turned = family == "gpt2" and ".h." in path
            numbers = (parameter.T if turned else parameter).contiguous().numpy()
            numbers = torch.tensor(gguf.dequantize(gguf.quantize(numbers, stored), stored))
            parameter.copy_(numbers.T if turned else numbers)
    return model


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", gguf_files.MODELS)
def test_a_file_reads_as_its_weights_dequantised(family, kind, task, tmp_path):
    path = gguf_files.write(tmp_path / "model.gguf", family, kind)
    loaded = load_model(path, dtype="float32", device="cpu")
    plain = load_model(quantised(family, kind), tokenizer=tiny_tokenizer())
    tokens = torch.randint(3, 260, (2, 40), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.allclose(
            loaded.model(tokens).logits, plain.model(tokens).logits, atol=1e-4, rtol=1e-4
        )
    for edits in ((), (Edit(1, "attn", 0.5),)):
        found, expected = (
            Evaluator(model, task)(edits, "test").labelled.log_likelihoods
            for model in (loaded, plain)
        )
        assert np.abs(np.array(found) - np.array(expected)).max() < 1e-3
    assert loaded.file.types[kind] >= 13


@pytest.mark.parametrize("family", gguf_files.MODELS)
def test_a_matrix_at_a_time_is_the_loaded_models(family, tmp_path):
    path = gguf_files.write(tmp_path / "model.gguf", family, "Q4_0")
    loaded, stored = load_model(path, dtype="float32"), StoredWeights.of(str(path))
    assert not stored.whole
    anatomy = Anatomy.of(loaded.model)
    for one, other in zip(stored.read(matrices(stored.anatomy)), matrices(anatomy), strict=True):
        assert one.key == other.key
        assert torch.equal(one.read(), other.read())
        found, plain = measure(one), measure(other)
        assert replace(found, rounding=0) == replace(plain, rounding=0)
        assert found.rounding > 100 * plain.rounding


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_0", "Q4_1", "Q5_1"])
def test_rounding_is_the_size_of_what_the_quantiser_did(kind, tmp_path):
    path = gguf_files.write(tmp_path / "model.gguf", kind=kind)
    before = {
        weight.key: weight.read() for weight in matrices(Anatomy.of(gguf_files.build("llama")))
    }
    stored = StoredWeights.of(str(path))
    for weight in stored.read(matrices(stored.anatomy)):
        moved = torch.linalg.matrix_norm(weight.read() - before[weight.key], ord=2)
        assert 0.6 < moved / measure(weight).rounding < 1.2
        rows = gguf.quantize(before[weight.key].numpy(), gguf.GGMLQuantizationType[kind])
        scales = rows.reshape(-1, weight.shape[1] // 32, rows.shape[1] * 32 // weight.shape[1])
        scales = np.sort(np.abs(scales[..., :2].copy().view(np.float16).astype(np.float32).ravel()))
        steps = np.sort(weight.spacing[:, ::32].numpy().ravel())
        assert np.abs(steps / scales - 1).max() < 2e-3


def test_numbers_that_were_not_quantised_are_rounded_to_their_dtype_alone(tmp_path):
    stored = StoredWeights.of(str(gguf_files.write(tmp_path / "model.gguf", kind="F32")))
    (weight,) = stored.read(matrices(stored.anatomy, "q", [0]))
    assert measure(weight).rounding < 1e-6


def test_a_store_keeps_the_same_numbers_quantised_and_not_apart(file):
    class Kept(dict):
        spectrum = dict.get
        keep_spectrum = dict.__setitem__

    loaded, store = load_model(file, dtype="float32"), Kept()
    for weights in (exact_matrices(loaded, "q"), matrices(Anatomy.of(loaded.model), "q")):
        spectra(weights, store=store)
    assert len(store) == 2 * 3


def test_trials_and_notes_say_what_the_file_is(file, task, tmp_path):
    loaded = load_model(file, dtype="float32")
    scorer = Evaluator(loaded, task)
    trial = scorer([], "test")
    assert trial.file == loaded.file.origin
    assert loaded.file.digest in trial.file
    assert trial.file.endswith(": 23 Q4_0, 7 F32")
    assert type(trial).from_json(trial.to_json()) == trial
    assert "tiny.gguf, dequantised; of its tensors are 23 Q4_0, 7 F32" in scorer.notes("test")[0]
    study = search(loaded, task, rates=[0.5], layer=0, out=tmp_path / "run")
    assert study.settings["file"] == trial.file


def test_a_way_of_splitting_text_that_is_not_known_is_said(file, task, tmp_path):
    def smollm(made, held):
        made.kv_data[0]["tokenizer.ggml.pre"].value = "smollm"

    assert len(load_model(file).file.notes) == 1
    loaded = load_model(gguf_files.write(tmp_path / "model.gguf", change=smollm))
    assert "split as 'smollm' splits it" in Evaluator(loaded, task).notes("test")[1]


def test_a_file_is_known_by_its_bytes(file, tmp_path):
    moved = shutil.copy(file, tmp_path / "moved.gguf")
    other = gguf_files.write(
        tmp_path / "other.gguf", kind="Q4_0", change=lambda made, held: made.add_name("other")
    )
    found = [load_model(path, dtype="float32").fingerprint for path in (file, moved, other)]
    assert found[0] == found[1] != found[2]


def test_what_lies_beside_a_file_has_no_say(file, tmp_path):
    shutil.copy(file, tmp_path / "tiny.gguf")
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 4}')
    (tmp_path / "tokenizer_config.json").write_text('{"add_bos_token": true, "bos_token": "the"}')
    (tmp_path / "generation_config.json").write_text("{")
    assert (
        load_model(tmp_path / "tiny.gguf", dtype="float32").fingerprint
        == load_model(file, dtype="float32").fingerprint
    )


def test_a_folder_and_a_repository_that_hold_one(file, monkeypatch):
    expected = load_model(file, dtype="float32").fingerprint
    assert load_model(file.parent, dtype="float32").fingerprint == expected
    held = ["README.md", "tiny.gguf"]
    monkeypatch.setattr(finding, "list_repo_files", lambda repository: held)
    monkeypatch.setattr(finding, "found", lambda name, wanted: None)
    monkeypatch.setattr(finding, "cached_file", lambda repository, name: str(file.parent / name))
    for name in ("somebody/model", "somebody/model:tiny.gguf"):
        loaded = load_model(name, dtype="float32")
        assert (loaded.name, loaded.fingerprint) == (name, expected)
    held.append("other.gguf")
    with pytest.raises(ModelError, match=r"holds 2 GGUF files, other\.gguf, tiny\.gguf"):
        load_model("somebody/model")


def test_a_loaded_model_can_be_handed_on_as_a_live_one(file):
    loaded = load_model(file, dtype="float32")
    live = load_model(loaded.model)
    assert live.tokenizer.get_vocab() == loaded.tokenizer.get_vocab()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_saved_model_is_an_ordinary_folder(file, task, tmp_path, dtype):
    source = load_model(file, dtype=dtype)
    study = search(source, task, rates=[0.5], layer=1)
    clipped = Evaluator(source, task)([Edit(1, "mlp", 0.5)], "test")
    study = replace(study, rate=0.5, clipped=clipped)
    saved = export(study, tmp_path / "saved", file, task)
    assert saved.dtype == "float32"
    assert (tmp_path / "saved" / "model.safetensors").is_file()
    again = load_model(tmp_path / "saved", dtype=dtype)
    assert again.file is None
    scored = Evaluator(again, task)([], "test").labelled.log_likelihoods
    assert np.abs(np.array(scored) - study.clipped.labelled.log_likelihoods).max() < (
        1e-4 if dtype == "float32" else 0.5
    )
    assert export(study, tmp_path / "saved", file, task).before


def test_rotary_positions_that_are_stretched(tmp_path):
    def stretched(made, held):
        made.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        made.add_rope_scaling_factor(4.0)

    loaded = load_model(gguf_files.write(tmp_path / "model.gguf", change=stretched))
    found = loaded.model.config.rope_parameters
    assert (found["rope_type"], found["factor"], found["rope_theta"]) == ("linear", 4.0, 5e4)


def without(key):
    """Take a setting out of a file that is written."""

    def change(made, held):
        for data in made.kv_data:
            data.pop(key, None)

    return change


def with_(name, *shape):
    """Put a tensor into a file that is written; of 32 x 32 numbers if nothing else is said."""
    value = np.ones(shape or (32, 32), dtype=np.float32)
    return lambda made, held: held.__setitem__(name, value)


def poisoned(made, held):
    held["blk.1.ffn_up.weight"][3, 4] = np.nan


def yarn(made, held):
    made.add_rope_scaling_type(gguf.RopeScalingType.YARN)


def merging(made, held):
    for data in made.kv_data:
        data.pop("tokenizer.ggml.merges", None)
    made.add_token_merges(["t q"])


FILES = {
    "of an encoder": ({"arch": "bert"}, "is of the family 'bert'.*llama"),
    "of an encoder-decoder": ({"arch": "t5"}, "is of the family 't5'.*llama"),
    "of a family not read": ({"arch": "rwkv7"}, "is of the family 'rwkv7'.*qwen3"),
    "no causal one": (
        {"change": lambda made, held: made.add_causal_attention(False)},
        "attention.causal is false",
    ),
    "yarn": ({"change": yarn}, "scales rotary positions .*yarn"),
    "rope factors": (
        {"change": with_("rope_freqs.weight", 4)},
        "would leave out, such as rope_freqs.weight: factors of rotary positions",
    ),
    "a tensor more": ({"change": with_("blk.0.odd.weight")}, "leave out, such as blk.0.odd.weight"),
    "a layer more": (
        {"change": with_("blk.3.attn_q.weight")},
        "leave out, such as blk.3.attn_q.weight",
    ),
    "a tensor less": (
        {"change": lambda made, held: held.pop("blk.2.ffn_up.weight")},
        "lacks 1 tensor.*layers.2.mlp.up_proj",
    ),
    "another shape": (
        {"change": with_("blk.0.ffn_up.weight")},
        "up_proj.weight as 32 x 32, and its configuration asks for 64 x 32",
    ),
    "no key heads": (
        {"change": without("llama.attention.head_count_kv")},
        "lacks llama.attention.head_count_kv",
    ),
    "no tokenizer": ({"tokens": None}, "holds no tokenizer"),
    "another tokenizer": ({"tokens": "rwkv"}, "tokenizer of the kind 'rwkv'.*not read"),
    "merges of no tokens": ({"change": merging}, "tokenizer of the kind 'gpt2'.*out of vocabulary"),
    "no tensors": ({"change": lambda made, held: held.clear()}, "has no tensors"),
    "a part": (
        {"change": lambda made, held: made.add_uint16("split.count", 3)},
        "one of 3 parts",
    ),
}


@pytest.mark.parametrize(("made", "words"), FILES.values(), ids=FILES)
def test_files_that_are_refused(made, words, tmp_path):
    path = gguf_files.write(tmp_path / "model.gguf", **made)
    with pytest.raises(ModelError, match=words) as refusal:
        load_model(path, dtype="float32")
    assert "\n" not in str(refusal.value)
    assert "model.gguf" in str(refusal.value)


def test_numbers_that_are_none(tmp_path, task):
    path = gguf_files.write(tmp_path / "model.gguf", change=poisoned)
    stored = StoredWeights.of(str(path))
    with pytest.raises(ModelError, match=r"layer 1 up .*NaN"):
        spectra(stored.read(matrices(stored.anatomy, "up")))


@pytest.mark.parametrize("share", [0.001, 0.3, 0.6, 0.99])
def test_a_file_that_is_cut_short(file, share, tmp_path):
    path = tmp_path / "short.gguf"
    path.write_bytes(file.read_bytes()[: max(8, int(share * file.stat().st_size))])
    with pytest.raises(ModelError, match=r"short.gguf' is cut short or damaged") as refusal:
        load_model(path)
    assert "\n" not in str(refusal.value)


def test_names_that_mean_no_file(file, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    (tmp_path / "text.gguf").write_text("once upon a time")
    (tmp_path / "empty.gguf").write_text("")
    (tmp_path / "pointer.gguf").write_text("version https://git-lfs.github.com/spec/v1\n")
    (tmp_path / "model.bin").write_bytes(file.read_bytes())
    for name, words in {
        str(tmp_path / "text.gguf"): "is no GGUF file",
        str(tmp_path / "empty.gguf"): "is no GGUF file",
        str(tmp_path / "pointer.gguf"): "Git LFS pointer",
        str(tmp_path / "absent.gguf"): "no GGUF file",
        str(tmp_path / "model.bin"): "is a file; give the folder .* or a GGUF file",
        str(tmp_path): "holds 3 GGUF files, empty.gguf, pointer.gguf, text.gguf; name one",
        "nobody/nothing:absent.gguf": "no GGUF file 'absent.gguf' in 'nobody/nothing'",
        "nobody/nothing": "no model 'nobody/nothing'",
    }.items():
        with pytest.raises(ModelError, match=words) as refusal:
            load_model(name)
        assert "\n" not in str(refusal.value), name


def test_parts_in_a_folder_are_named(file, tmp_path):
    for number in (1, 2):
        shutil.copy(file, tmp_path / f"model-0000{number}-of-00002.gguf")
    with pytest.raises(ModelError, match="parts of one model: join them first"):
        load_model(tmp_path)


def test_a_checkpoint_is_no_gguf_file_for_one_that_lies_there(model, file, tmp_path):
    folder = shutil.copytree(model, tmp_path / "both")
    shutil.copy(file, folder / "tiny.gguf")
    assert load_model(folder, dtype="float32").file is None


def test_without_the_packages_the_command_that_brings_them_is_said(file, tmp_path, monkeypatch):
    def refuse(name, *rest, **more):
        if name == "gguf":
            raise ImportError(name)
        return real(name, *rest, **more)

    real = builtins.__import__
    monkeypatch.setattr(builtins, "__import__", refuse)
    path = shutil.copy(file, tmp_path / "unread.gguf")
    with pytest.raises(ModelError, match=r"needs the packages gguf and accelerate: pip install"):
        load_model(path)


@pytest.fixture(scope="module")
def smollm2() -> Path:
    path = CACHE / "SmolLM2-135M-Instruct.Q4_1.gguf"
    if not path.is_file():
        pytest.skip(f"no SmolLM2-135M-Instruct.Q4_1.gguf at {path}")
    return path


def test_a_real_file_and_the_folder_made_of_it_score_alike(smollm2, some_rows, tmp_path):
    task = Task.load("sst2", data=some_rows / "sst2", shots=2, split_sizes=(2, 2))
    ours = load_model(smollm2, dtype="float32", device="cpu")
    ours.model.save_pretrained(tmp_path)
    ours.tokenizer.save_pretrained(tmp_path)
    edits = [(), (Edit(26, "mlp", 0.95), Edit(1, "q", 0.5))]

    def values(model):
        trials = Evaluator(model, task).score(edits, "validation")
        return np.array([trial.labelled.log_likelihoods for trial in trials])

    other = load_model(tmp_path, dtype="float32", device="cpu")
    assert np.abs(values(ours) - values(other)).max() < 1e-6
    assert ours.file.types == {"Q4_1": 210, "F32": 61, "Q8_0": 1}
    assert json.loads(load_tokenizer(str(smollm2)).backend_tokenizer.to_str())["model"]
