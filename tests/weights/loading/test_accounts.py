"""What is scored is the checkpoint: each tensor of its files is used, harmless by name, or refused
in one line."""

import json

import pytest
import torch
from families import LAYERS, VOCAB, build, save_family, tiny_tokenizer
from safetensors.torch import load_file, save_file

from eckart.errors import ModelError
from eckart.weights.models import load_checkpoint, load_model
from eckart.weights.stored import StoredWeights

Q = "model.layers.1.self_attn.q_proj"


def mend(folder, **changes):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))


def put(folder, more, drop=()):
    tensors = {**load_file(folder / "model.safetensors"), **more}
    kept = {key: tensor for key, tensor in tensors.items() if key not in drop}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})


def refused(folder, *said):
    with pytest.raises(ModelError) as caught:
        load_model(folder, dtype="float32")
    message = str(caught.value)
    assert "\n" not in message
    assert str(folder) in message
    assert all(words in message for words in said), message


@pytest.fixture
def llama(tmp_path):
    return save_family("llama", tmp_path / "llama")


@pytest.mark.parametrize(
    ("names", "cause"),
    [
        ([f"{Q}.lora_A.default.weight", f"{Q}.lora_B.default.weight"], "merge_and_unload"),
        (["base_model.model." + Q + ".lora_A.weight"], "merge_and_unload"),
        ([f"{Q}.weight_scale_inv"], "scales of a quantisation"),
        ([f"{Q}.qzeros", f"{Q}.scales", f"{Q}.g_idx"], "scales of a quantisation"),
        ([f"{Q}.weight.absmax", f"{Q}.weight.quant_map"], "scales of a quantisation"),
        ([f"model.layers.{LAYERS}.mlp.up_proj.weight"], f"the layers from {LAYERS} on"),
        (["score.weight"], "another model's"),
        (["vision_tower.blocks.0.weight"], "another model's"),
    ],
)
def test_what_would_be_left_out_is_named_with_its_likely_cause(llama, names, cause):
    put(llama, {name: torch.ones(4, 4) for name in names})
    refused(llama, f"holds {len(names)} tensor(s) that would be left out", sorted(names)[0], cause)


@pytest.mark.parametrize(
    ("family", "changes", "cause"),
    [
        ("llama", {"num_hidden_layers": LAYERS - 1}, "layers from"),
        ("mixtral", {"num_hidden_layers": LAYERS - 1}, "layers from"),
        ("llama", {"attention_bias": False}, "biases"),
        ("llama", {"mlp_bias": False}, "biases"),
    ],
)
def test_a_configuration_that_asks_for_less_than_the_files_hold(tmp_path, family, changes, cause):
    folder = save_family(family, tmp_path / family)
    mend(folder, **changes)
    refused(folder, "left out", cause)
    if (
        family == "llama"
    ):  # the files' headers alone tell it, and every matrix that is measured stands there
        with pytest.raises(ModelError, match=f"left out.*{cause}"):
            StoredWeights.of(str(folder))


def test_what_the_model_class_itself_would_ignore_is_refused_all_the_same(tmp_path):
    folder = save_family(
        "gpt_neox", tmp_path / "neox"
    )  # its class ignores whatever is called attention.bias
    put(folder, {"gpt_neox.layers.0.attention.bias": torch.ones(32)})
    refused(folder, "gpt_neox.layers.0.attention.bias")


def test_a_tensor_under_two_names(llama):
    put(llama, {"layers.0.mlp.up_proj.weight": torch.ones(44, 32)})
    refused(llama, "under two names")


@pytest.mark.parametrize("more", [{}, {"_orig_mod.model.norm.weight": torch.ones(32)}])
def test_what_the_architecture_asks_for_and_the_files_lack(llama, more):
    put(llama, more, drop=["model.norm.weight"])
    refused(
        llama,
        "lacks 1 tensor(s)",
        "model.norm.weight",
        *(["_orig_mod", "compiled"] if more else []),
    )


MASK = torch.ones(1, 1, 8, 8).tril()


@pytest.mark.parametrize(
    ("family", "buffers"),
    [
        (
            "llama",
            {
                f"model.layers.{i}.self_attn.rotary_emb.inv_freq": torch.ones(4)
                for i in range(LAYERS)
            },
        ),
        (
            "llama",
            {
                "rope.freqs": torch.ones(4),
                "model.layers.0.self_attn.rotary_emb.cos_cached": torch.ones(9, 4),
            },
        ),
        (
            "gpt2",
            {
                "transformer.h.0.attn.bias": MASK,
                "transformer.h.0.attn.masked_bias": torch.tensor(-1e4),
            },
        ),
        ("gpt_neo", {"transformer.h.0.attn.attention.bias": MASK.bool()}),
        ("gpt_neox", {"gpt_neox.layers.0.attention.bias": MASK}),
        ("gpt_neox", {"gpt_neox.layers.0.attention.masked_bias": torch.tensor(-1e9)}),
        ("gptj", {"transformer.h.0.attn.causal_mask": MASK.bool()}),
        ("opt", {"model.decoder.version": torch.ones(1)}),
        ("bloom", {"transformer.position_ids": torch.arange(9)[None]}),
        ("llama", {"mtp.layers.0.mlp.up_proj.weight": torch.ones(44, 32)}),
    ],
)
def test_harmless_buffers_change_nothing(tmp_path, family, buffers):
    folder = save_family(family, tmp_path / family)
    before = load_model(folder, dtype="float32").model.state_dict()
    put(folder, buffers)
    after = load_model(folder, dtype="float32").model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_layers_that_guess_further_tokens_are_harmless_where_the_configuration_declares_them(llama):
    put(llama, {f"model.layers.{LAYERS}.mlp.up_proj.weight": torch.ones(44, 32)})
    mend(llama, num_nextn_predict_layers=1)
    load_model(llama)


def test_eyes_are_harmless_where_the_configuration_declares_them(llama):
    put(llama, {"vision_tower.blocks.0.weight": torch.ones(4, 4)})
    mend(llama, vision_config={"hidden_size": 4})
    load_model(llama)


class TestTied:
    @pytest.fixture
    def twice(self, tmp_path):
        folder = save_family("qwen2", tmp_path / "qwen2")
        embedding = load_file(folder / "model.safetensors")["model.embed_tokens.weight"]
        put(folder, {"lm_head.weight": embedding.clone()})
        return folder

    def test_the_same_twice_is_used(self, twice):
        model = load_model(twice).model
        assert model.lm_head.weight is model.model.embed_tokens.weight

    def test_two_that_differ_are_refused(self, twice):
        put(twice, {"lm_head.weight": torch.ones(VOCAB, 32)})
        refused(twice, "lm_head.weight", "they differ", "tie_word_embeddings")


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2, torch.int8, torch.uint8])
@pytest.mark.parametrize("asked", ["float32", "bfloat16"])
def test_codes_without_their_scales_are_no_weights(llama, dtype, asked):
    put(llama, {f"{Q}.weight": torch.ones(32, 32).to(dtype)})
    with pytest.raises(ModelError, match="quantised"):
        load_model(llama, dtype=asked)


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"quant_method": "fp8"}, "fp8"),
        ({"quant_method": "gptq", "bits": 4}, "gptq"),
        ({"load_in_4bit": True}, "bitsandbytes"),
        ({"bits": 4}, "by an unnamed method"),
    ],
)
def test_quantised_weights_are_refused_by_name_by_every_verb(llama, settings, name):
    mend(llama, quantization_config=settings)
    refused(llama, f"quantised ({name})")
    with pytest.raises(ModelError, match="quantised"):
        StoredWeights.of(str(llama))


@pytest.mark.parametrize("kept", [["float32"], ["float32", "bfloat16"], ["float64", "float16"]])
def test_every_number_is_held_by_the_dtype_of_the_files(tmp_path, kept):
    model = build("llama")
    for i, parameter in enumerate(model.parameters()):
        parameter.data = parameter.data.to(getattr(torch, kept[i % len(kept)]))
    state = {key: tensor.contiguous() for key, tensor in model.state_dict().items()}
    folder = save_family("llama", tmp_path / "mixed")
    tiny_tokenizer().save_pretrained(folder)
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    loaded = load_checkpoint(str(folder), None).state_dict()
    assert all(torch.equal(loaded[key].double(), tensor.double()) for key, tensor in state.items())


def test_a_tensor_of_another_shape_is_named_with_both(llama):
    put(llama, {"model.layers.0.mlp.up_proj.weight": torch.ones(40, 32)})
    refused(llama, "model.layers.0.mlp.up_proj.weight as 40 x 32", "asks for 44 x 32")
