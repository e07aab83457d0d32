"""Views, selection, and what is refused by name; the families themselves are in
tests/contracts/test_families.py."""

from __future__ import annotations

import pytest
import torch
import transformers as hf
from families import EOS, LAYERS, VOCAB, build, save_family, tiny_tokenizer
from torch import nn
from transformers import PreTrainedModel

from eckart.errors import EckartError, EditError, ModelError
from eckart.records import PARTS
from eckart.weights.anatomy import Anatomy
from eckart.weights.architectures import Rule, table

# ---------------------------------------------------------------- the tiny models themselves


def test_a_seed_gives_the_same_model_and_another_seed_another() -> None:
    one, same, other = build("llama"), build("llama"), build("llama", seed=1)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), same.parameters(), strict=True))
    assert not torch.equal(one.lm_head.weight, other.lm_head.weight)


def test_building_leaves_the_random_state_alone() -> None:
    state = torch.get_rng_state()
    build("gpt2")
    assert torch.equal(state, torch.get_rng_state())


def test_the_tokenizer_brings_any_text_back_and_fits_the_models() -> None:
    tokenizer = tiny_tokenizer()
    text = "The film is good, and naïve 日本\n\t2 > 1"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert tokenizer.eos_token == EOS
    assert len(tokenizer) <= VOCAB
    assert len(tokenizer.tokenize(" good")) == 1
    assert tiny_tokenizer(add_bos=True)("x")["input_ids"][0] == tokenizer.bos_token_id


def test_a_saved_family_loads_as_from_the_hub(tmp_path) -> None:
    folder = save_family("qwen3_moe", tmp_path)
    loaded = hf.AutoModelForCausalLM.from_pretrained(folder)
    expected, found = build("qwen3_moe").state_dict(), loaded.state_dict()
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert (
        hf.AutoTokenizer.from_pretrained(folder)("good")["input_ids"]
        == tiny_tokenizer()("good")["input_ids"]
    )


# ---------------------------------------------------------------- selection


@pytest.fixture
def anatomy() -> Anatomy:
    return Anatomy.of(build("llama"))


def test_negative_layers_count_from_the_last(anatomy: Anatomy) -> None:
    assert [anatomy.layer_index(layer) for layer in (0, 2, -1, -3)] == [0, 2, 2, 0]
    assert anatomy.select(-1, "q")[0] is anatomy.select(2, "q")[0]


@pytest.mark.parametrize("layer", [3, -4, 1000])
def test_a_layer_that_is_not_there_is_refused_with_the_range(anatomy: Anatomy, layer: int) -> None:
    with pytest.raises(
        EditError, match=rf"no layer {layer}: the model has 3 layers, 0 to 2 \(or -3 to -1\)"
    ):
        anatomy.select(layer, "mlp")


@pytest.mark.parametrize(
    ("part", "names"),
    [
        ("attn", ["q", "k", "v", "o"]),
        ("mlp", ["gate", "up", "down"]),
        ("all", ["q", "k", "v", "o", "gate", "up", "down"]),
        ("down", ["down"]),
    ],
)
def test_a_part_selects_its_matrices(anatomy: Anatomy, part: str, names: list[str]) -> None:
    assert [weight.name for weight in anatomy.select(1, part)] == names
    assert {weight.part for weight in anatomy.select(1, part)} <= {"attn", "mlp"}


def test_a_part_that_the_layer_lacks_is_refused_with_what_it_has(anatomy: Anatomy) -> None:
    with pytest.raises(
        EditError, match="layer 1 of this llama has no 'fc_in'; it has q, k, v, o, gate, up, down"
    ):
        anatomy.select(1, "fc_in")
    with pytest.raises(EditError, match=f"no part 'ffn'; the parts are {', '.join(PARTS)}"):
        anatomy.select(1, "ffn")


def test_a_kind_selects_every_experts_matrix_and_never_the_router() -> None:
    anatomy = Anatomy.of(build("qwen2_moe"))
    assert [w.name for w in anatomy.select(0, "gate")] == ["gate"]  # this layer is dense
    assert [w.name for w in anatomy.select(1, "gate")] == [
        f"gate[{e}]" for e in (0, 1, 2, 3, "shared")
    ]
    assert not any(
        "shared_expert_gate" in w.path or w.path.endswith("mlp.gate.weight")
        for w in anatomy.layers[1]
    )
    with pytest.raises(EditError, match=r"it has q, k, v, o, gate, up, down$"):
        anatomy.select(1, "fc_out")


def test_the_blocks_are_the_decoder_layers_even_beside_a_longer_list() -> None:
    model = build("gemma3_vision")
    anatomy = Anatomy.of(model)
    assert list(anatomy.blocks) == list(model.model.language_model.layers)
    assert len(model.model.vision_tower.encoder.layers) > LAYERS
    assert anatomy.model_type == "gemma3_text"


def test_the_numbers_of_tied_embeddings_count_once() -> None:
    model = build("qwen2")
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert Anatomy.of(model).parameters == sum(p.numel() for p in model.parameters())


def test_a_base_model_without_a_head_has_the_same_matrices() -> None:
    model = build("gpt_neox")
    inner, outer = Anatomy.of(model.gpt_neox), Anatomy.of(model)
    assert [w.shape for w in inner.layers[1]] == [w.shape for w in outer.layers[1]]
    assert inner.layers[1][0].parameter is outer.layers[1][0].parameter


# ---------------------------------------------------------------- views


def test_a_view_is_named_for_messages_and_for_memos() -> None:
    anatomy = Anatomy.of(build("mixtral"))
    weight = anatomy.select(1, "up")[2]
    assert weight.label == "layer 1 up[2] (model.layers.1.mlp.experts.gate_up_proj)"
    assert (weight.kind, weight.part, weight.fused, weight.expert) == ("up", "mlp", True, 2)
    keys = [w.key for layer in anatomy.layers for w in layer]
    assert len(set(keys)) == len(keys)


def test_reading_is_a_copy(anatomy: Anatomy) -> None:
    q = anatomy.select(0, "q")[0]
    q.read().zero_()
    assert q.read().any()


@pytest.mark.parametrize("family", ["llama", "gpt2", "falcon_new", "gpt_oss"])
def test_writing_casts_to_the_parameters_dtype_and_leaves_the_rest(family: str) -> None:
    model = build(family).to(torch.bfloat16)
    weight = Anatomy.of(model).select(1, "q")[0]
    others = [w.read() for w in Anatomy.of(model).layers[1] if w.name != "q"]
    matrix = torch.randn(weight.shape, dtype=torch.float64)
    weight.write_(matrix)
    assert torch.equal(weight.read(), matrix.to(torch.bfloat16))
    after = [w.read() for w in Anatomy.of(model).layers[1] if w.name != "q"]
    assert all(torch.equal(a, b) for a, b in zip(others, after, strict=True))


def test_writing_another_shape_is_refused(anatomy: Anatomy) -> None:
    k = anatomy.select(0, "k")[0]
    with pytest.raises(
        ModelError, match=r"layer 0 k \(.*k_proj.weight\) has shape \(16, 32\); \(32, 16\) does not"
    ):
        k.write_(torch.zeros(32, 16))
    with pytest.raises(ModelError, match=r"\(1, 32\) does not fit"):
        k.write_(torch.zeros(1, 32))


def test_reading_and_writing_record_no_gradient(anatomy: Anatomy) -> None:
    q = anatomy.select(0, "q")[0]
    assert not q.read().requires_grad
    q.write_(torch.zeros(q.shape, requires_grad=True))
    assert q.parameter.requires_grad
    assert q.parameter.is_leaf


# ---------------------------------------------------------------- tied matrices


def test_tied_matrices_name_each_other() -> None:
    model = build("llama")
    model.model.layers[2].mlp.down_proj.weight = model.model.layers[0].mlp.down_proj.weight
    anatomy = Anatomy.of(model)
    assert anatomy.select(0, "down")[0].tied == ("model.layers.2.mlp.down_proj.weight",)
    assert anatomy.select(2, "down")[0].tied == ("model.layers.0.mlp.down_proj.weight",)
    assert not anatomy.select(1, "down")[0].tied


def test_two_parameters_on_the_same_memory_are_tied() -> None:
    model = build("llama")
    first, last = model.model.layers[0].self_attn, model.model.layers[2].self_attn
    last.q_proj.weight = nn.Parameter(first.q_proj.weight.data)
    assert Anatomy.of(model).select(0, "q")[0].tied == ("model.layers.2.self_attn.q_proj.weight",)


# ---------------------------------------------------------------- what is refused


def refused(model: PreTrainedModel, message: str) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        Anatomy.of(model)
    assert isinstance(caught.value, EckartError)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "settings", [{"quant_method": "gptq", "bits": 4}, hf.BitsAndBytesConfig(load_in_8bit=True)]
)
def test_a_quantised_config_is_refused_by_its_method(settings: object) -> None:
    model = build("llama")
    model.config.quantization_config = settings
    refused(
        model, r"this 'llama' model is quantised \((gptq|.*bitsandbytes.*)\).*load it unquantised"
    )


@pytest.mark.parametrize(
    "name", ["Linear4bit", "Linear8bitLt", "QuantLinear", "WQLinear_GEMM", "FP8Linear"]
)
def test_quantised_modules_are_refused_by_their_class(name: str) -> None:
    model = build("llama")
    model.model.layers[1].mlp.up_proj = type(name, (nn.Linear,), {})(32, 44)
    refused(model, rf"quantised modules \({name}\); load it unquantised")


def test_weights_that_are_not_floating_are_refused_by_their_path() -> None:
    model = build("llama")
    packed = torch.zeros(44, 32, dtype=torch.int8)
    model.model.layers[1].mlp.up_proj.weight = nn.Parameter(packed, requires_grad=False)
    refused(
        model,
        r"model\.layers\.1\.mlp\.up_proj\.weight is stored as Parameter of torch\.int8, and so"
        r" quantised",
    )


def test_weights_of_one_byte_floats_are_refused() -> None:
    model = build("llama")
    packed = model.model.layers[1].mlp.up_proj.weight.detach().to(torch.float8_e4m3fn)
    model.model.layers[1].mlp.up_proj.weight = nn.Parameter(packed, requires_grad=False)
    refused(model, r"up_proj\.weight is stored as Parameter of torch\.float8_e4m3fn")


def test_packed_parameter_classes_are_refused() -> None:
    class Params4bit(nn.Parameter):
        pass

    model = build("llama")
    packed = Params4bit(torch.zeros(44, 32))
    assert type(packed) is Params4bit
    model.model.layers[1].mlp.up_proj.weight = packed
    refused(model, r"up_proj\.weight is stored as Params4bit of torch\.float32")


def test_an_encoder_decoder_is_refused() -> None:
    config = hf.T5Config(vocab_size=32, d_model=16, d_kv=4, d_ff=20, num_layers=1, num_heads=2)
    refused(
        hf.T5ForConditionalGeneration(config), "'t5' is an encoder-decoder; load a decoder-only"
    )


def test_an_adapter_is_refused_with_the_remedy() -> None:
    model = build("llama")
    model.model.layers[1].self_attn.q_proj.lora_A = nn.Linear(32, 2, bias=False)
    refused(
        model,
        r"self_attn\.q_proj\.lora_A\.weight \(2, 32\) is not .* a 'llama' is known to have;"
        r" .*merge",
    )


def test_a_state_space_model_is_refused_with_what_was_seen() -> None:
    config = hf.MambaConfig(vocab_size=32, hidden_size=16, num_hidden_layers=2, state_size=4)
    refused(
        hf.MambaForCausalLM(config),
        r"'mamba' is not in architectures.yaml, .*holds .*mixer\.in_proj\.weight \(64, 16\)",
    )


def test_a_model_without_layers_of_matrices_is_refused_with_the_lists_seen() -> None:
    model = build("llama")
    model.model.layers = nn.ModuleList([nn.LayerNorm(32), nn.LayerNorm(32)])
    refused(model, r"no list of layers with weight matrices .* lists seen: model\.layers \(2\)")


def test_two_lists_of_layers_are_refused_with_both() -> None:
    model = build("llama")
    model.model.more = nn.ModuleList(model.model.layers[:2])
    refused(model, r"several lists of such layers: model\.layers \(3\), model\.more \(2\)")


def test_torchs_own_quantizable_linear_is_not_quantised() -> None:
    model = build("llama")
    model.model.layers[1].mlp.up_proj = nn.MultiheadAttention(44, 1).out_proj.__class__(32, 44)
    assert "Quantizable" in type(model.model.layers[1].mlp.up_proj).__name__
    assert Anatomy.of(model).select(1, "up")[0].shape == (44, 32)


def test_a_config_that_does_not_fit_its_fused_weights_is_refused() -> None:
    model = build("phi3")
    model.config.num_attention_heads = 7
    refused(model, r"qkv_proj\.weight has 64 output rows, which are not 7 query heads of 4 rows")


def test_an_odd_fused_feed_forward_is_refused() -> None:
    model = build("phi3")
    model.model.layers[0].mlp.gate_up_proj = nn.Linear(32, 87)
    refused(
        model, r"gate_up_proj\.weight has 87 output rows, which gate and up do not share evenly"
    )


# ---------------------------------------------------------------- model types that the table does
# not have


def novel(**replaced: nn.Module) -> PreTrainedModel:
    """A model of an unknown type: Llama's layers, with some modules renamed or replaced in the
    first."""
    model = build("llama")
    model.config.model_type = "novel"
    for path, module in replaced.items():
        owner, _, name = path.rpartition("__")
        setattr(model.model.layers[0].get_submodule(owner.replace("__", ".")), name, module)
    return model


def test_an_unknown_type_is_read_by_its_names() -> None:
    anatomy = Anatomy.of(novel())
    assert anatomy.model_type == "novel"
    assert [w.name for w in anatomy.layers[0]] == ["q", "k", "v", "o", "gate", "up", "down"]


def test_an_unknown_type_without_a_gate_has_fc_in_and_fc_out() -> None:
    model = build("nemotron")
    model.config.model_type = "novel"
    assert [w.name for w in Anatomy.of(model).select(0, "mlp")] == ["fc_in", "fc_out"]


@pytest.mark.parametrize(
    ("path", "module"),
    [
        ("self_attn__qkv_proj", nn.Linear(32, 64)),  # fused: q, k, v in an order that no name tells
        ("mlp__mystery", nn.Linear(32, 32)),
        ("mlp__up_proj", nn.Embedding(44, 32)),  # not an nn.Linear: the orientation is unknown
        ("mlp__down_proj", nn.Linear(32, 44)),  # the wrong way round for what its name says
    ],
)
def test_what_cannot_be_read_off_is_refused_with_all_that_was_seen(
    path: str, module: nn.Module
) -> None:
    name = path.replace("__", r"\.")
    refused(
        novel(**{path: module}),
        rf"what .*{name}\.weight is cannot be .*layer 0 holds .*q_proj\.weight \(32, 32\)",
    )


def test_two_matrices_of_one_meaning_are_refused() -> None:
    refused(
        novel(self_attn__wq=nn.Linear(32, 32)),
        "layer 0 of this 'novel' model has several .* seem to be q$",
    )


def test_experts_of_an_unknown_type_are_refused() -> None:
    model = build("mixtral")
    model.config.model_type = "novel"
    refused(model, r"what mlp\.\S+ is cannot be read off")


# ---------------------------------------------------------------- the table


def test_every_rule_names_known_matrices() -> None:
    rules = [rule for entry in table().values() for rule in entry.values()]
    assert {name for rule in rules for name in rule.names} == {*PARTS["all"], "router"}
    assert {rule.each for rule in rules} == {None, "key_head", "row"}


def test_a_value_of_the_table_may_be_a_name_a_list_or_a_mapping() -> None:
    assert Rule.parse("q") == Rule(("q",))
    assert Rule.parse(["gate", "up"]) == Rule(("gate", "up"))
    assert Rule.parse({"names": ["q"], "transposed": True}) == Rule(("q",), transposed=True)
