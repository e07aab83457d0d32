"""A folder for llama.cpp and Ollama: the file, the prompt, and what the file scores as written."""

import json
import os
import signal
import time

import gguf_files
import numpy as np
import pytest
import torch
from chats import INST, MODES, chatting
from families import tiny_tokenizer
from typer.testing import CliRunner

from eckart import Edit, Task, export, predict, search
from eckart.cli.app import app
from eckart.errors import EditError, ModelError, RunError
from eckart.exports.card import modelfile
from eckart.exports.folder import apply
from eckart.exports.gguf import _Patch
from eckart.exports.recipe import Recipe
from eckart.scoring.evaluator import Evaluator
from eckart.tasks.portable import PortableTask
from eckart.weights.edits import clip_
from eckart.weights.models import load_model

EDITS = (Edit(1, "mlp", 0.5),)


def recipe(task: PortableTask | None = None, model: str = "a model") -> Recipe:
    return Recipe(eckart="0", model=model, edits=["1:mlp:0.5"], dtype="f16", task=task)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return gguf_files.write(tmp_path_factory.mktemp("gguf") / "tiny.Q4_0.gguf", kind="Q4_0")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The same model as a folder with safetensors."""
    path = tmp_path_factory.mktemp("models") / "llama"
    gguf_files.build("llama").save_pretrained(path)
    tiny_tokenizer().save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def task(table) -> Task:
    return Task.load(data=table, text_column="review", label_column="verdict", shots=4)


def asked(table, *more):
    said = ("--data", table, "--text-column", "review", "--label-column", "verdict", "--shots", 4)
    return list(map(str, (*said, *more)))


def read(text):
    """Return what Ollama's parser makes of a Modelfile: comments left out, quotes taken away."""
    found, lines = {}, iter(text.splitlines(keepends=True))
    for line in lines:
        if line.startswith("#"):
            continue
        while line.count('"""') == 1:
            line += next(lines)
        words = line.split(" ", 2) if line.startswith("PARAMETER") else line.split(" ", 1)
        found[" ".join(words[:-1])] = words[-1].strip().removeprefix('"""').removesuffix('"""')
    return found


def filled(template, prompt):
    """Return what Go's templates make of one that has strings and the prompt alone."""
    found = ""
    while "{{" in template:
        before, _, rest = template.partition("{{")
        action, _, template = rest.partition("}}")
        action = action.strip()
        assert action == ".Prompt" or action.startswith('"'), action
        found += before + (prompt if action == ".Prompt" else json.loads(action))
    return found + template


def test_the_command_writes_the_file_the_prompt_and_what_it_scores(base, table, task, tmp_path):
    out = tmp_path / "out"
    said = ["export", str(base), "--format", "gguf", "--edit", "1:mlp:0.5", "--out", str(out)]
    done = CliRunner().invoke(app, [*said, *asked(table, "--json")])
    document = json.loads(done.stdout)
    assert sorted(p.name for p in out.iterdir()) == [
        *("Modelfile", "README.md", "SHA256SUMS", "eckart.json", "prompt.jinja"),
        "tiny.Q4_0.clipped.gguf",
    ]
    kept = json.loads((out / "eckart.json").read_text())
    assert document == {"path": str(out), **kept}
    assert (kept["model"], kept["dtype"]) == ("tiny.Q4_0.gguf", "f16")
    assert {tensor["after"] for tensor in kept["gguf"]["tensors"]} == {"F16"}
    texts = [path.read_text() for path in out.iterdir() if path.suffix != ".gguf"]
    assert not [text for text in texts if str(tmp_path) in text or str(base.parent) in text]
    card = (out / "README.md").read_text()
    assert "test rows through both files as they are written, dequantised" in card
    assert f"Accuracy, n = {len(task.test)}" in card
    patched, before = (
        Evaluator(load_model(path, dtype="float32"), task)([], "test").labelled
        for path in (out, base)
    )
    assert kept["as_written"]["clipped"]["accuracy"] == patched.accuracy
    assert kept["as_written"]["unpruned"]["accuracy"] == before.accuracy
    assert kept["as_written"]["comparison"]["n"] == patched.n
    edited = load_model(base, dtype="float32")
    clip_(edited.model, EDITS)
    near = Evaluator(load_model(edited.model, tokenizer=edited.tokenizer), task)([], "test")
    moved = np.array(near.labelled.log_likelihoods) - np.array(patched.log_likelihoods)
    assert np.abs(moved).max() < 0.01  # of F16 alone
    found = read((out / "Modelfile").read_text())
    assert found["FROM"] == "./tiny.Q4_0.clipped.gguf"
    assert found["PARAMETER temperature"] == "0"
    assert found["PARAMETER stop"] == "\n"
    example = task.test[0]
    words = example.fields["text"]
    context = PortableTask.of(task).prompt({"review": words}, "it").context
    assert filled(found["TEMPLATE"], words) == context


def test_the_recipe_makes_the_folder_again_and_predict_reads_it(base, task, table, tmp_path):
    out = tmp_path / "out"
    export(base, out, task=task, edits=EDITS, format="gguf", scoring="mean")
    apply(out, tmp_path / "again", base)
    every = (
        {path.name: path.read_bytes() for path in f.iterdir()} for f in (out, tmp_path / "again")
    )
    assert next(every) == next(every)
    rows = [example.fields["text"] for example in task.test]
    found = list(predict(out, rows, compare=True, base=base))
    for name, path in (("unpruned_", base), ("", out)):
        score = Evaluator(load_model(path, dtype="float32"), task, scoring="mean")([], "test")
        labels = [task.labels[label] for label in score.labelled.predictions]
        assert [row[f"{name}prediction"] for row in found] == labels


def test_a_run_on_the_folder_patches_the_gguf_file_of_the_same_model(
    base, folder, table, task, tmp_path
):
    run, how = tmp_path / "run", {"format": "gguf", "gguf": base, "unclipped": True}
    study = search(folder, task, rates=[0.5], layer=1, dtype="float32", out=run)
    found = export(run, tmp_path / "run-out", task=task, **how).recipe
    assert (found.parsed, found.model) == (study.edits, "tiny.Q4_0.gguf")
    assert found.scores is not None
    assert found.as_written is not None
    near = export(folder, tmp_path / "out", edits=EDITS, type_="q8_0", **how).recipe.gguf
    assert 0.01 < near.distance < 0.2
    assert {tensor.after for tensor in near.tensors} == {"Q8_0"}
    other = Task.load(data=table, text_column="review", label_column="verdict", shots=2)
    with pytest.raises(RunError, match="searched other prompts"):
        export(run, tmp_path / "other", task=other, **how)


def test_a_kill_leaves_no_folder_and_the_next_export_clears_away(base, tmp_path, monkeypatch):
    """Killed after some of the tensors."""
    desk, begun = tmp_path / "desk", tmp_path / "begun"
    desk.mkdir()
    child = os.fork()
    if child == 0:
        torch.set_num_threads(1)
        monkeypatch.setattr(_Patch, "content", lambda _: (begun.touch(), time.sleep(60)))
        try:
            export(base, desk / "out", edits=EDITS, format="gguf")
        finally:
            os._exit(1)
    while not begun.exists():
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert not (desk / "out").exists()
    export(base, desk / "out", edits=EDITS, format="gguf")
    assert [path.name for path in desk.iterdir()] == ["out"]


@pytest.mark.parametrize(
    "word", ['say """ "so"', "{{ .Prompt }}", "}} a {{", "\tas\tis ", '{"film": {"good": 1}}']
)
def test_a_modelfile_holds_any_demonstration(word, task, base):
    made = PortableTask.of(task).model_copy(update={"demonstrations": (f"review: {word}",)})
    text = modelfile("a.gguf", recipe(made))
    prompt = made.prompt({"review": "fine"}, "it").context
    assert filled(read(text)["TEMPLATE"], "fine") == prompt
    assert read(modelfile("a.gguf", recipe(model="m\nFROM x"))) == {
        "FROM": "./a.gguf",
        "PARAMETER temperature": "0",
        "TEMPLATE": "{{ .Prompt }}",
    }


@pytest.mark.parametrize("mode", MODES)
def test_a_modelfile_holds_the_conversation(mode, table):
    said = {"text_column": "review", "label_column": "verdict", "shots": 2, "chat": mode}
    made = PortableTask.of(Task.load(data=table, **said)).for_tokenizer(chatting(INST))
    found = read(modelfile("a.gguf", recipe(made)))
    prompt = made.prompt({"review": "fine"}, "it").context
    assert "<bos>" + filled(found["TEMPLATE"], "fine") == prompt  # which llama.cpp puts there
    assert "PARAMETER stop" not in found  # a turn ends in the end of text


def test_a_gguf_file_is_asked_in_its_own_template(table, tmp_path):
    file = tmp_path / "talks.gguf"
    gguf_files.write(file, change=lambda writer, held: writer.add_chat_template(INST))
    said = {"text_column": "review", "label_column": "verdict", "shots": 4, "chat": "multiturn"}
    task = Task.load(data=table, **said)
    search(file, task, rates=[0.5], layer=1, dtype="float32", out=tmp_path / "run")
    for place, source, edits in (("a", tmp_path / "run", ()), ("b", file, EDITS)):
        export(source, tmp_path / place, task=task, edits=edits, format="gguf", unclipped=True)
        found = read((tmp_path / place / "Modelfile").read_text())["TEMPLATE"]
        read_, *_ = Evaluator(load_model(file), task).fitted("test").prompts
        text = read_.context.rpartition("review: ")[2].partition("\n")[0]
        assert "<bos>" + filled(found, text) == read_.context


def test_a_prompt_of_several_columns_is_asked_whole(table, tmp_path):
    task = Task.load(
        data=table, template="{{ review }} ({{ note }}):", label_column="verdict", shots=1
    )
    made = PortableTask.of(task)
    text = modelfile("a.gguf", recipe(made))
    assert "# A prompt is a whole query" in text
    query = "good food (n1):"
    prompt = made.prompt({"review": "good food", "note": "n1"}, "it").context
    assert filled(read(text)["TEMPLATE"], query) == prompt


REFUSED = {
    "no base": ({}, ModelError, "is no GGUF file; give the one to patch with --gguf"),
    "a format": ({"--format": "onnx"}, EditError, "no format 'onnx'"),
    "a base without a use": (
        {"--format": "safetensors", "--gguf": "a.gguf"},
        EditError,
        "add --format gguf",
    ),
    "a type without a file": (
        {"--format": "safetensors", "--type": "bf16"},
        EditError,
        "--type bf16 is of GGUF files; add --format gguf",
    ),
    "private alone": ({"--private": True}, EditError, "add --push-to-hub"),
    "a type": ({"--type": "q2_k"}, ModelError, "no GGUF type 'q2_k'"),
    "no edit": ({"--edit": None}, EditError, "give one, such as --edit"),
    "nothing clipped": ({"--edit": "1:mlp:0"}, EditError, "chose to clip nothing"),
}


@pytest.mark.parametrize(("said", "wrong", "words"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused_is_refused_in_a_line(said, wrong, words, folder, tmp_path):
    flags = {"--format": "gguf", "--edit": "1:mlp:0.5", "--out": str(tmp_path / "out"), **said}
    given = {flag: value for flag, value in flags.items() if value}
    words_ = [part for said in given.items() for part in said if part is not True]
    done = CliRunner().invoke(app, ["export", str(folder), *words_])
    assert isinstance(done.exception, wrong)
    assert words in str(done.exception)
    assert "\n" not in str(done.exception)
    assert not list(tmp_path.iterdir())
