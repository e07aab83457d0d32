"""What a trial's outcome depends on is in its key, one thing at a time; and nothing else is."""

import json
import shutil

import pytest
import torch
from families import BOS, build, save_family, tiny_tokenizer
from safetensors.torch import load_file, save_file
from tokenizers import processors
from transformers import AutoConfig, LlamaForCausalLM

from eckart import Edit, Task, evaluate, search
from eckart.errors import RunError
from eckart.scoring.evaluator import Evaluator
from eckart.weights.identity import identify
from eckart.weights.models import load_model

EDITS = (Edit(1, "mlp", 0.5),)
COLUMNS = {"text_column": "review", "label_column": "verdict"}
CODE = """
from transformers import LlamaForCausalLM
from .inner import SCALE


class Scaled(LlamaForCausalLM):
    def forward(self, *args, **kwargs):
        output = super().forward(*args, **kwargs)
        output.logits = output.logits * SCALE
        return output
"""


@pytest.fixture
def folder(model, tmp_path):
    """A model's folder of one's own."""
    return shutil.copytree(model, tmp_path / "model")


@pytest.fixture
def data(table, tmp_path):
    return shutil.copy(table, tmp_path / "reviews.csv")


def key_of(model, data, *, edits=EDITS, dtype="float32", how=None, split="validation", **task):
    drawn = Task.load(data=data, **({"shots": 2, "split_sizes": (20, 20)} | COLUMNS | task))
    return Evaluator(load_model(model, dtype=dtype), drawn, **(how or {})).key(edits, split)


def change_json(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def change_weight(folder):
    tensors = load_file(folder / "model.safetensors")
    tensors["model.layers.0.mlp.up_proj.weight"][0, 0] += 1e-3
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def change_merges(folder):
    values = json.loads((folder / "tokenizer.json").read_text())
    values["model"]["merges"].pop()
    (folder / "tokenizer.json").write_text(json.dumps(values))


def change_tokenizer(folder, change):
    tokenizer = tiny_tokenizer()
    change(tokenizer)
    tokenizer.save_pretrained(folder)


def bos_in_front(tokenizer):
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A $B", special_tokens=[(BOS, 0)]
    )


FILES = {
    "a weight": change_weight,
    "a value of the configuration": lambda folder: change_json(
        folder / "config.json", rms_norm_eps=1e-3
    ),
    "a merge": change_merges,
    "an added token": lambda folder: change_tokenizer(
        folder, lambda t: t.add_tokens(["good food"])
    ),
    "the first token": lambda folder: change_tokenizer(folder, bos_in_front),
}


@pytest.mark.parametrize("what", FILES)
def test_a_model_s_files_are_in_the_key(folder, data, what):
    before = key_of(folder, data)
    FILES[what](folder)
    assert key_of(folder, data) != before


def lines_of(data):
    return data.read_text(encoding="utf-8").splitlines()


def rewrite(data, lines):
    data.write_text("\n".join(lines) + "\n", encoding="utf-8")


def swap_label(line):
    return line.replace(",good,", ",bad,") if ",good," in line else line.replace(",bad,", ",good,")


ROWS = {
    "a row's text": lambda lines: [lines[0], *(line.replace("town", "city") for line in lines[1:])],
    "the rows' order": lambda lines: [lines[0], *reversed(lines[1:])],
    "the labels": lambda lines: [lines[0], *map(swap_label, lines[1:])],
    "some rows fewer": lambda lines: [line for i, line in enumerate(lines) if i % 9 != 8],
}


@pytest.mark.parametrize("what", ROWS)
def test_rows_are_in_the_key(model, data, what):
    before = key_of(model, data)
    rewrite(data, ROWS[what](lines_of(data)))
    assert key_of(model, data) != before


TASKS = {
    "the template": {"template": "text: {{ review }}\nverdict:"},
    "the instruction": {"instruction": "Judge."},
    "the label join": {"label_join": "  "},
    "the separator": {"separator": "\n\n"},
    "the label words": {"labels": {"good": "fine", "bad": "poor"}},
    "the seed": {"seed": 1},
    "the split's seed": {"split_seed": 1},
    "the shots": {"shots": 4},
    "no shots": {"shots": 0},
    "how demonstrations are drawn": {"balanced": False, "shots": 3},
    "the sizes": {"split_sizes": (21, 20)},
    "the edit's layer": {"edits": (Edit(0, "mlp", 0.5),)},
    "the edit's part": {"edits": (Edit(1, "attn", 0.5),)},
    "the edit's rate": {"edits": (Edit(1, "mlp", 0.50000001),)},
    "no edit": {"edits": ()},
    "the split": {"split": "test"},
    "some of the rows": {"split": "validation[0:10]"},
    "the scoring": {"how": {"scoring": "mean"}},
    "the dtype": {"dtype": "bfloat16"},
}


@pytest.mark.parametrize("what", TASKS)
def test_what_is_asked_is_in_the_key(model, data, what):
    assert key_of(model, data, **TASKS[what]) != key_of(model, data)


def test_a_null_prompt_s_template_is_in_the_key_where_the_rows_do_not_give_it_away(model, data):
    # Both render every row alike, and a prompt without content differently.
    plain, fixed = (
        "{{ review }}\nfor:",
        "{{ review }}\n{{ 'for' if review|length > 3 else review }}:",
    )
    keys = {
        key_of(model, data, template=t, how={"scoring": "contextual"}, shots=0)
        for t in (plain, fixed)
    }
    assert len(keys) == 2


@pytest.mark.parametrize("option", ["truncate_demonstrations", "drop_long_rows"])
def test_options_of_reading_are_in_the_key_where_they_change_what_is_read(folder, data, option):
    whole = Task.load(data=data, **COLUMNS, shots=8, split_sizes=(20, 20))
    tokenizer = tiny_tokenizer()
    lengths = sorted(
        len(tokenizer(p.context + " good")["input_ids"]) for p in whole.prompts("validation")
    )
    change_json(folder / "config.json", max_position_embeddings=lengths[len(lengths) // 2])
    cut = key_of(folder, data, shots=8, how={option: True})
    change_json(folder / "config.json", max_position_embeddings=2048)
    assert key_of(folder, data, shots=8, how={option: True}) == key_of(folder, data, shots=8) != cut


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_batches_are_in_the_key_in_half_precision_alone(model, data, dtype):
    small, large = {"batch_tokens": 64}, {"batch_tokens": 512}
    assert key_of(model, data, how=small) == key_of(model, data, how=large)
    assert key_of(model, data, how=small, dtype=dtype) != key_of(
        model, data, how=large, dtype=dtype
    )


def test_paths_names_and_threads_are_not_in_the_key(folder, data, tmp_path):
    before, threads = key_of(folder, data), torch.get_num_threads()
    (tmp_path / "elsewhere").mkdir()
    moved = folder.rename(tmp_path / "elsewhere" / "another")
    copied = shutil.copy(data, tmp_path / "elsewhere")
    torch.set_num_threads(1)
    try:
        assert key_of(moved, copied, name="other") == before
    finally:
        torch.set_num_threads(threads)


def coded(folder, **changed):
    change_json(folder / "config.json", auto_map={"AutoModelForCausalLM": "mod.Scaled"})
    files = {
        "mod.py": CODE,
        "inner.py": "from .deep import SCALE\n",
        "deep.py": "SCALE = 1.0\n",
    } | changed
    for name, text in files.items():
        (folder / name).write_text(text)
    return load_model(folder, dtype="float32", trust_remote_code=True)


@pytest.mark.parametrize("file", ["mod.py", "inner.py", "deep.py"])
def test_code_of_the_model_s_folder_is_in_the_key_with_all_that_it_imports(model, tmp_path, file):
    # Folders of two names: a process imports a folder's code once.
    one, other = (
        shutil.copytree(model, tmp_path / f"{name}-{file[:-3]}") for name in ("one", "other")
    )
    same = shutil.copytree(model, tmp_path / f"same-{file[:-3]}")
    before = coded(one).fingerprint
    assert coded(same).fingerprint == before
    text = (one / file).read_text().replace("SCALE = 1.0", "SCALE = -3.0") + "# another\n"
    assert coded(other, **{file: text}).fingerprint != before


class Halved(LlamaForCausalLM):
    """A live model's own class."""

    def forward(self, *args, **kwargs):
        output = super().forward(*args, **kwargs)
        output.logits = output.logits / 2
        return output


def live(kind, folder):
    model = kind(AutoConfig.from_pretrained(folder)).eval()
    model.load_state_dict(build("llama").state_dict())
    return load_model(model, tokenizer=tiny_tokenizer())


def test_a_live_model_s_own_class_is_in_the_key(folder):
    assert live(Halved, folder).fingerprint != live(LlamaForCausalLM, folder).fingerprint


def trained(model):
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight.mul_(1.3)


def written_through_data(model):
    model.model.layers[1].mlp.up_proj.weight.data.mul_(1.3)


def replaced(model):
    layer = model.model.layers[1].mlp.up_proj
    layer.weight = torch.nn.Parameter(layer.weight.detach() * 1.3)


MEMORY = {
    "a step of training": trained,
    "a write past autograd": written_through_data,
    "another parameter": replaced,
    "a value of the configuration": lambda model: setattr(model.config, "rms_norm_eps", 1e-3),
    "the attention": lambda model: model.set_attn_implementation("eager"),
    "rotary frequencies": lambda model: model.model.rotary_emb.inv_freq.mul_(0.5),
}


@pytest.mark.parametrize("what", MEMORY)
def test_a_loaded_model_that_changes_in_memory_is_another(model, what):
    loaded = load_model(model, dtype="float32")
    before = loaded.fingerprint
    MEMORY[what](loaded.model)
    assert load_model(loaded).fingerprint != before


def test_a_tokenizer_that_changes_in_memory_is_another_and_one_that_was_used_is_not(model):
    loaded = load_model(model, dtype="float32")
    before = loaded.fingerprint
    loaded.tokenizer(["a", "the food"], padding=True, truncation=True, max_length=5)
    assert load_model(loaded).fingerprint == before
    loaded.tokenizer.add_tokens(["good food"])
    assert loaded.fingerprint != before


@pytest.mark.parametrize("change", [trained, written_through_data, replaced])
def test_an_evaluator_notices_that_its_model_was_trained(model, data, change):
    task = Task.load(data=data, **COLUMNS, shots=2, split_sizes=(20, 20))
    edits = [Edit(1, "mlp", 0.5), Edit(2, "mlp", 0.5)]
    loaded = load_model(model, dtype="float32")
    used = Evaluator(loaded, task)
    candidates = [(), *((edit,) for edit in reversed(edits))]
    before = list(used.score(candidates, "validation"))
    change(loaded.model)
    after = list(used.score(candidates, "validation"))
    fresh = [Evaluator(loaded, task)(chosen, "validation") for chosen in candidates]
    assert [trial.key for trial in after] == [trial.key for trial in fresh]
    assert not {trial.key for trial in before} & {trial.key for trial in after}
    for one, other in zip(after, fresh, strict=True):
        torch.testing.assert_close(
            torch.tensor(one.score.log_likelihoods),
            torch.tensor(other.score.log_likelihoods),
            atol=1e-4,
            rtol=0,
        )


def test_clipping_is_no_change(model, data, monkeypatch):
    task = Task.load(data=data, **COLUMNS, shots=2, split_sizes=(20, 20))
    loaded, hashed = load_model(model, dtype="float32"), []
    monkeypatch.setattr(
        "eckart.weights.identity.identify", lambda *of: hashed.append(1) or identify(*of)
    )
    evaluator = Evaluator(loaded, task)
    keys = {evaluator([Edit(1, "mlp", 0.5)], "validation").key for _ in range(3)}
    assert (len(keys), len(hashed)) == (1, 1)


def test_a_search_goes_on_with_the_same_model_alone(model, data, tmp_path):
    task = Task.load(data=data, **COLUMNS, shots=2, split_sizes=(20, 20))
    loaded = load_model(model, dtype="float32")

    def searched():
        return search(loaded, task, rates=[0.5], layer=1, out=tmp_path / "run").baseline

    first = searched()
    assert searched() == first
    trained(loaded.model)
    with pytest.raises(RunError, match="weights"):
        searched()
    assert evaluate(loaded, task, split="test").trial.key != first.key


def test_an_ordinary_model_keeps_its_fingerprint_whichever_way_it_is_given(tmp_path):
    from_files = load_model(save_family("gpt2", tmp_path / "one"), dtype="float32")
    alive = load_model(from_files.model, tokenizer=from_files.tokenizer)
    assert alive.fingerprint == from_files.fingerprint
