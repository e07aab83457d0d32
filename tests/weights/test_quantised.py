"""Weights that went through a type of GGUF files: those of a plain loop with gguf's quantiser, and
the model's own bytes again afterwards."""

import families
import gguf
import numpy as np
import pytest
import torch
from gguf_files import MODELS, build

from eckart.errors import ModelError
from eckart.weights.anatomy import Anatomy
from eckart.weights.options import GGUF_TYPES
from eckart.weights.quantised import GgufType, check_rows, quantised


def rounded(numbers: torch.Tensor, kind: str) -> torch.Tensor:
    stored = gguf.GGMLQuantizationType[kind.upper()]
    packed = gguf.quantize(np.ascontiguousarray(numbers.numpy()), stored)
    return torch.tensor(np.array(gguf.dequantize(packed, stored)))


@pytest.mark.parametrize(
    ("family", "kind"), [("llama", "q8_0"), *((family, "q4_0") for family in MODELS)]
)
def test_a_model_has_what_a_plain_loop_makes(family, kind):
    model = build(family)
    anatomy = Anatomy.of(model)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    matrices = {w.path: w for layer in anatomy.layers for w in layer}
    output, begins = model.get_output_embeddings().weight, model.get_input_embeddings().weight
    with quantised(anatomy, GgufType.of(kind)):
        changed = 0
        for path, parameter in model.named_parameters():
            was, now = before[path], parameter.detach()
            if path in matrices and matrices[path].transposed:
                was, now = was.transpose(-1, -2), now.transpose(-1, -2)
            if parameter is output:
                expected = rounded(was, "q8_0")
            elif path in matrices or parameter is begins:
                expected = rounded(was, kind)
            else:
                assert torch.equal(now, was), path
                continue
            assert torch.equal(now, expected), path
            changed += not torch.equal(now, was)
        assert changed > len(matrices) / 2
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name


@pytest.mark.parametrize("kind", GGUF_TYPES)
def test_every_type_holds_a_row(kind):
    numbers = torch.randn(4, 64, generator=torch.Generator().manual_seed(0))
    found = GgufType.of(kind).rounded(numbers, "it")
    assert torch.equal(found, rounded(numbers, kind))
    assert 0 < (found - numbers).norm() / numbers.norm() < 0.15
    packed = GgufType.of(kind).packed(numbers.numpy(), "it")
    assert GgufType.of(kind).size(numbers.numel()) == packed.nbytes


def test_what_does_not_go():
    with pytest.raises(ModelError, match=r"no GGUF type 'q4_k'.*known: f16, bf16, q8_0"):
        GgufType.of("q4_k")
    with pytest.raises(ModelError, match=r"it has numbers up to 1e\+06, and F16 holds none"):
        GgufType.of("f16").packed(np.full((1, 32), 1e6), "it")
    narrow = families.build("llama")
    with pytest.raises(ModelError, match=r"down .*has rows of 44 numbers, and Q4_0 takes them"):
        check_rows(Anatomy.of(narrow), GgufType.of("q4_0"))
    check_rows(Anatomy.of(narrow), GgufType.of("bf16"))


def test_bytes_come_back_however_the_block_ends():
    model = build("llama")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(KeyboardInterrupt), quantised(Anatomy.of(model), GgufType.of("q4_0")):
        raise KeyboardInterrupt
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
