"""Loading a model of functions: from wherever, whole, and nothing else."""

import json
import shutil

import pytest
import torch
from families import save_family
from safetensors.torch import load_file, save_file

from eckart.errors import ModelError
from eckart.paper.functions import loading
from eckart.paper.functions.loading import load_function_model, shipped_models, training_models
from eckart.paper.functions.models import InContextModel, LinearAttentionModel


def weights(model) -> dict[str, torch.Tensor]:
    return dict(model.state_dict())


def same(one, other) -> bool:
    first, second = weights(one), weights(other)
    return first.keys() == second.keys() and all(
        torch.equal(first[name], second[name]) for name in first
    )


@pytest.mark.parametrize("kind", ["gpt2", "linear"])
def test_a_folder_comes_back_as_it_was_saved(kind, tmp_path, capfd):
    model = (
        LinearAttentionModel.of_size(3, 7, 2)
        if kind == "linear"
        else InContextModel.of_size(3, 7, layers=1, width=8, heads=2, layout="separate")
    )
    model.save_pretrained(tmp_path / "model")
    capfd.readouterr()
    loaded = load_function_model(tmp_path / "model")
    assert capfd.readouterr() == ("", "")
    assert type(loaded) is type(model)
    assert same(loaded, model)
    assert not loaded.training
    assert loaded.points == 7
    assert getattr(loaded.config, "layout", None) == getattr(model.config, "layout", None)


def test_a_trainings_folder_is_its_last_model(trained):
    assert list(training_models(trained)) == [0, 5, 20]
    last = load_function_model(trained)
    assert same(last, load_function_model(trained / "steps" / "0000020"))
    assert not same(last, load_function_model(str(trained / "steps" / "0000005")))
    assert last.config.function == "linear"


def test_a_live_model_is_itself():
    model = LinearAttentionModel.of_size(2, 5, 1).eval()
    assert load_function_model(model) is model


def test_models_that_come_with_the_package_are_known_by_name(trained, tmp_path, monkeypatch):
    shutil.copytree(trained / "steps" / "0000020", tmp_path / "shipped" / "linear-2")
    (tmp_path / "shipped" / "notes").mkdir()
    monkeypatch.setattr(loading, "SHIPPED", tmp_path / "shipped")
    assert shipped_models() == ("linear-2",)
    assert same(load_function_model("linear-2"), load_function_model(trained))
    with pytest.raises(
        ModelError, match=r"no model 'linear-3': there is no such folder, .* are linear-2"
    ):
        load_function_model("linear-3")


@pytest.fixture
def copy(trained, tmp_path):
    return shutil.copytree(trained / "steps" / "0000020", tmp_path / "copy")


def test_a_checkpoint_that_lacks_a_tensor_is_refused(copy):
    tensors = load_file(copy / "model.safetensors")
    del tensors["read_in.weight"]
    save_file(tensors, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"lacks 1 tensor\(s\) .* such as read_in.weight"):
        load_function_model(copy)


def test_a_tensor_of_another_shape_is_refused(copy):
    tensors = load_file(copy / "model.safetensors")
    tensors["read_out.weight"] = torch.zeros(1, 9)
    save_file(tensors, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"read_out\.weight"):
        load_function_model(copy)


def test_a_damaged_file_is_refused(copy):
    content = (copy / "model.safetensors").read_bytes()
    (copy / "model.safetensors").write_bytes(content[: len(content) // 2])
    with pytest.raises(ModelError, match="damaged safetensors file"):
        load_function_model(copy)


def test_a_pickle_is_never_loaded(copy):
    tensors = load_file(copy / "model.safetensors")
    (copy / "model.safetensors").unlink()
    torch.save(tensors, copy / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"saved as a pickle|cannot be loaded"):
        load_function_model(copy)


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"model_type": "llama"}', '{"model_type": "gpt2"}']
)
def test_a_configuration_of_something_else_is_refused(copy, content):
    (copy / "config.json").write_text(content)
    with pytest.raises(ModelError, match=r"no model of functions|cannot be loaded|no JSON object"):
        load_function_model(copy)


def test_a_language_model_is_no_model_of_functions(tmp_path):
    save_family("gpt2", tmp_path / "gpt2")
    with pytest.raises(ModelError, match=r"no model of functions .*eckart functions train"):
        load_function_model(tmp_path / "gpt2")


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(ModelError, match=r"holds no config.json"):
        load_function_model(tmp_path)
    with pytest.raises(ModelError, match="no training's folder"):
        training_models(tmp_path)


def test_a_training_before_its_first_checkpoint_is_refused(trained, tmp_path):
    shutil.copy(trained / "state.safetensors", tmp_path)
    with pytest.raises(ModelError, match="has not come to its first checkpoint"):
        load_function_model(tmp_path)


def test_a_kept_model_says_what_it_learnt(trained):
    config = json.loads((trained / "steps" / "0000020" / "config.json").read_text())
    assert (config["function"], config["dimension"], config["layout"]) == ("linear", 2, "paired")
