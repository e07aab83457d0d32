"""GGUF files that are patched: what is read of them is the clipped model, and all that was not
clipped is the base's, byte for byte."""

from pathlib import Path

import gguf
import gguf_files
import numpy as np
import pytest
import torch
from families import tiny_tokenizer

from eckart import Edit
from eckart.errors import EditError, ModelError
from eckart.exports import gguf as patching
from eckart.exports.folder import source_of
from eckart.weights.edits import clip_, targets_of
from eckart.weights.models import load_checkpoint, load_model

EDITS = (Edit(1, "attn", 0.5), Edit(-1, "mlp", 0.75))
STORED = {kind: gguf.GGMLQuantizationType[kind.upper()] for kind in ("f16", "bf16", "q8_0")}


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return gguf_files.write(tmp_path_factory.mktemp("gguf") / "base.gguf", kind="Q4_0")


def patch(base: Path, edits, target: Path, *how, **more):
    source = source_of(str(base))
    return patching.patch(source.file, source.model, edits, target, *how, **more)


def through(numbers: torch.Tensor, kind: str) -> torch.Tensor:
    stored = STORED[kind]
    return torch.tensor(gguf.dequantize(gguf.quantize(numbers.numpy(), stored), stored))


@torch.no_grad()
def expected(base: Path, edits, kind: str) -> dict[str, torch.Tensor]:
    """Return the base's weights, dequantised and clipped, the edited tensors rounded to a type."""
    model = load_checkpoint(str(base), torch.float32)
    paths = {weight.path: weight for weight in targets_of(model, edits)}
    clip_(model, edits)
    found = dict(model.state_dict())
    for path, weight in paths.items():
        numbers = found[path].T.contiguous() if weight.transposed else found[path]
        rounded = through(numbers, kind)
        found[path] = rounded.T if weight.transposed else rounded
    return found


def pieces(path: Path) -> tuple[dict, dict]:
    """Return the bytes of every key and of every tensor, in the file's order."""
    reader = gguf.GGUFReader(path)
    keys = {
        name: b"".join(part.tobytes() for part in field.parts)
        for name, field in reader.fields.items()
    }
    return keys, {t.name: (t.tensor_type.name, t.data.tobytes()) for t in reader.tensors}


WAYS = (("Q4_0", "f16"), ("F16", "q8_0"), ("F32", "bf16"))


@pytest.mark.parametrize(
    ("family", "kind", "type_"),
    [
        *(("llama", *way) for way in WAYS),
        *((family, *way) for family, way in zip([*gguf_files.MODELS][1:], WAYS * 2, strict=True)),
    ],
)
def test_a_patched_file_is_the_clipped_model(family, kind, type_, tmp_path):
    base = gguf_files.write(tmp_path / "base.gguf", family, kind)
    patched = patch(base, EDITS, tmp_path / "patched.gguf", type_)
    found = load_checkpoint(str(tmp_path / "patched.gguf"), torch.float32).state_dict()
    for name, numbers in expected(base, EDITS, type_).items():
        assert torch.equal(found[name], numbers), name
    keys, tensors = pieces(base)
    now_keys, now = pieces(tmp_path / "patched.gguf")
    assert list(keys.items()) == list(now_keys.items())
    assert list(tensors) == list(now)
    edited = {tensor.name: tensor for tensor in patched.tensors}
    assert edited
    assert len(now) - len(edited) == patched.kept
    for name, stored in now.items():
        if name in edited:
            assert (edited[name].before, edited[name].after) == (tensors[name][0], stored[0])
            assert stored[0] == type_.upper()
        else:
            assert stored == tensors[name]


def test_nothing_clipped_is_the_very_file(base, tmp_path):
    for number, edits in enumerate([(), (Edit(1, "mlp", 0.0),)]):
        patched = patch(base, edits, tmp_path / f"{number}.gguf")
        assert (tmp_path / f"{number}.gguf").read_bytes() == base.read_bytes()
        assert "nothing is clipped" in str(patched)


def test_places_keep_to_an_alignment_of_their_own(tmp_path):
    def wide(made, held):
        made.add_custom_alignment(256)

    base = gguf_files.write(tmp_path / "base.gguf", kind="Q8_0", change=wide)
    patch(base, [Edit(0, "q", 0.5)], tmp_path / "patched.gguf")
    reader = gguf.GGUFReader(tmp_path / "patched.gguf")
    assert reader.alignment == 256
    assert all(tensor.data_offset % 256 == 0 for tensor in reader.tensors)
    assert torch.equal(
        load_checkpoint(str(tmp_path / "patched.gguf"), torch.float32).state_dict()[
            "model.layers.0.self_attn.q_proj.weight"
        ],
        expected(base, [Edit(0, "q", 0.5)], "f16")["model.layers.0.self_attn.q_proj.weight"],
    )


def test_a_tensor_that_loading_would_leave_out_is_copied(tmp_path):
    """As of Llama 3.1, whose rotary factors transformers has no place for."""

    def factors(made, held):
        held["rope_freqs.weight"] = np.ones(4, dtype=np.float32)

    base = gguf_files.write(tmp_path / "base.gguf", kind="Q8_0", change=factors)
    patch(base, [Edit(0, "q", 0.5)], tmp_path / "patched.gguf")
    assert (
        pieces(tmp_path / "patched.gguf")[1]["rope_freqs.weight"]
        == pieces(base)[1]["rope_freqs.weight"]
    )


def test_a_dropped_part_adds_nothing(tmp_path):
    base = gguf_files.write(tmp_path / "base.gguf", "gpt2", "F16")
    patch(base, [Edit(1, "mlp", cut="drop")], tmp_path / "patched.gguf")
    found = load_checkpoint(str(tmp_path / "patched.gguf"), torch.float32).state_dict()
    for name in ("mlp.c_fc.weight", "mlp.c_proj.weight", "mlp.c_proj.bias"):
        assert not found[f"transformer.h.1.{name}"].any()
    assert found["transformer.h.1.mlp.c_fc.bias"].any()


def test_the_base_of_a_model_is_told_from_another(base, tmp_path):
    model = load_model(gguf_files.build("llama"), tokenizer=tiny_tokenizer())
    patched = patch(base, EDITS, tmp_path / "patched.gguf", near=model)
    assert 0.01 < patched.distance < 0.2
    assert f"within {patched.distance:.2%} of the model's" in str(patched)
    other = gguf_files.build("llama")
    with torch.no_grad():
        other.model.layers[1].self_attn.v_proj.weight.normal_()
    for live, words in {
        other: "is another model than .*: it has layer 1 v .* of the model's away from it",
        gguf_files.build("gpt2"): "another model than .*: it has 3 layers of .*, and the model",
    }.items():
        loaded = load_model(live, tokenizer=tiny_tokenizer())
        with pytest.raises(ModelError, match=words) as refusal:
            patch(base, EDITS, tmp_path / "other.gguf", near=loaded)
        assert "\n" not in str(refusal.value)


def enormous(made, held):
    held["blk.1.ffn_up.weight"][:] = 1e6 * np.eye(*held["blk.1.ffn_up.weight"].shape)


def in_parts(made, held):
    made.add_uint16("split.count", 3)


REFUSED = {
    "a type": (ModelError, {"type_": "q4_k"}, "no GGUF type 'q4_k'.*known: f16, bf16, q8_0"),
    "a layer": (EditError, {"edits": [Edit(9, "mlp", 0.5)]}, "no layer 9"),
    "cut short": (ModelError, {"base": "short.gguf"}, "is cut short or damaged"),
    "a part": (ModelError, {"base": "parts.gguf"}, "one of 3 parts of a model; join them first"),
    "too large": (ModelError, {"base": "enormous.gguf"}, r"ffn_up.weight has numbers.*F16 holds"),
}


@pytest.mark.parametrize(("wrong", "asked", "words"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused_is_refused_in_a_line(base, wrong, asked, words, tmp_path):
    (tmp_path / "base.gguf").write_bytes(base.read_bytes())
    (tmp_path / "short.gguf").write_bytes(base.read_bytes()[: base.stat().st_size // 2])
    gguf_files.write(tmp_path / "enormous.gguf", change=enormous)
    gguf_files.write(tmp_path / "parts.gguf", change=in_parts)
    said = {"edits": [Edit(1, "mlp", 0.1)], "type_": "f16", "base": "base.gguf"} | asked
    with pytest.raises(wrong, match=words) as refusal:
        patch(tmp_path / said["base"], said["edits"], tmp_path / "out.gguf", said["type_"])
    assert "\n" not in str(refusal.value)


def test_rows_that_are_no_whole_blocks(tmp_path):
    sizes = {"hidden_size": 32, "intermediate_size": 48}
    narrow = type(gguf_files.build("llama"))(
        gguf_files.build("llama").config.__class__(
            **{**gguf_files.build("llama").config.to_dict(), **sizes}
        )
    )

    def length(made, held):
        made.kv_data[0]["llama.feed_forward_length"].value = 48

    base = gguf_files.write(tmp_path / "base.gguf", model=narrow.eval(), change=length)
    with pytest.raises(ModelError, match=r"ffn_down.weight has rows of 48 numbers, and Q8_0"):
        patch(base, [Edit(1, "mlp", 0.5)], tmp_path / "out.gguf", "q8_0")
    assert patch(base, [Edit(1, "mlp", 0.5)], tmp_path / "out.gguf").tensors


def test_experts_are_refused_by_name(base, tmp_path, monkeypatch):
    """Their gate and up projections are one parameter here, and two tensors there."""

    def places(self):
        return {path: t for path, t in real(self).items() if "up_proj" not in path}

    real = patching.GgufTensors._places.func
    monkeypatch.setattr(patching.GgufTensors, "_places", property(places))
    with pytest.raises(ModelError, match=r"no one tensor that is model.layers.1.mlp.up_proj"):
        patch(base, [Edit(1, "mlp", 0.5)], tmp_path / "out.gguf")
    assert patch(base, [Edit(1, "attn", 0.5)], tmp_path / "out.gguf").tensors
