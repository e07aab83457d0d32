"""`eckart export` and `eckart apply`: what they write, and what they refuse, in one line each."""

import hashlib
import json
import shutil
import sys
from pathlib import Path

import hub
import pytest
from fresh import labels
from huggingface_hub import ModelCard
from made_runs import Made
from results import refused
from transformers import AutoModelForCausalLM, AutoTokenizer

from eckart import Task, search
from eckart.demo import MODEL
from eckart.exports.folder import push
from eckart.runs import RunStore, read_run
from eckart.tasks.portable import PortableTask

SHORT = Path(__file__).parents[1] / "frozen" / "tasks" / "short.yaml"


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> Path:
    """A search of the embedded model that chose to clip."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    task = Task.load(SHORT, shots=0)
    result = search(MODEL, task, layer=4, rates=[0.5], dtype="float32", out=folder)
    assert result.edits
    return folder


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_a_run_goes_out_and_its_recipe_makes_it_again(eckart, finished, tmp_path):
    ended = eckart("export", finished, "--out", "out")
    assert ended.status == 0, ended.err
    written = files(tmp_path / "out")
    assert set(written) == {
        *("README.md", "SHA256SUMS", "config.json", "eckart.json", "generation_config.json"),
        *("model.safetensors", "prompt.jinja", "tokenizer.json", "tokenizer_config.json", "use.py"),
    }
    listed = dict(line.split("  ")[::-1] for line in written["SHA256SUMS"].decode().splitlines())
    del written["SHA256SUMS"]
    assert listed == {n: hashlib.sha256(content).hexdigest() for n, content in written.items()}

    recipe = json.loads(written["eckart.json"])
    result = json.loads((finished / "result.json").read_text())
    assert recipe["weights"] == result["settings"]["weights"]
    assert recipe["edits"] == ["4:mlp:0.5"]
    assert recipe["scores"]["clipped"] == result["test"]["clipped"]
    assert recipe["scores"]["comparison"]["interval"] == result["test"]["interval"]
    assert PortableTask.from_json(recipe["task"]).digest == result["settings"]["prompts"]
    assert recipe["command"].split()[0] == "eckart"

    assert not [n for n, content in written.items() if str(MODEL.parent).encode() in content]

    ended = eckart("apply", "out/eckart.json", MODEL, "--out", "again", "--json")
    assert ended.status == 0, ended.err
    assert json.loads(ended.out)["edits"] == ["4:mlp:0.5"]
    assert files(tmp_path / "again") == files(tmp_path / "out")


def test_a_search_saves_what_it_chose(eckart, finished, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    line = ["search", MODEL, "--task", SHORT, "--shots", 0, "--layer", 4, "--rates", "0.5"]
    ended = eckart(*line, "--dtype", "float32", "--out", "run", "--save", "clipped", "--json")
    assert ended.status == 0, ended.err
    found = json.loads(ended.out)
    assert found["saved"]["accuracy"] == found["test"]["clipped"]["accuracy"]
    saved = AutoModelForCausalLM.from_pretrained(tmp_path / "clipped")
    assert AutoTokenizer.from_pretrained(tmp_path / "clipped")("good")["input_ids"]
    assert len(saved.model.layers) == 5


def test_the_program_predicts_what_the_run_predicted(eckart, finished, tmp_path, monkeypatch):
    assert eckart("export", finished, "--out", "out").status == 0
    trials = read_run(finished).trials.values()
    (trial,) = (t for t in trials if t.split == "test" and t.edits)
    asked = Task.load(SHORT, shots=0)
    rows = [json.dumps({"text": example.fields["text"]}) for example in asked.test]
    (tmp_path / "rows.jsonl").write_text("\n".join(rows))
    monkeypatch.setattr(sys, "stdin", None)
    monkeypatch.setitem(sys.modules, "eckart", None)
    found = labels(str(tmp_path / "out"), str(tmp_path / "rows.jsonl"))
    assert found == [asked.labels[label] for label in trial.score.predictions]
    assert len((tmp_path / "out" / "use.py").read_text().splitlines()) == 17


def test_the_card_says_the_verdict_first_and_carries_the_licence(eckart, finished, tmp_path):
    base = shutil.copytree(MODEL, tmp_path / "base")
    (base / "README.md").write_text("---\nlicense: mit\nlanguage: en\n---\n\nA base model.\n")
    assert eckart("export", finished, "--base", base, "--out", "out").status == 0
    card = ModelCard.load(tmp_path / "out" / "README.md")
    said = card.data.to_dict()
    assert (said["license"], said["language"]) == ("mit", "en")
    (result,) = said["model-index"][0]["results"]
    assert result["metrics"][0]["value"] == pytest.approx(0.475)
    title, first = card.text.strip().split("\n\n")[:2]
    assert title.startswith("# ")
    assert "Cannot tell with n = 40 test rows" in first
    assert str(tmp_path) not in card.text
    kept = (tmp_path / "out" / "README.base.md").read_text()
    assert kept == (base / "README.md").read_text()
    assert eckart("apply", "out", base, "--out", "again").status == 0
    assert files(tmp_path / "again") == files(tmp_path / "out")


def test_edits_of_ones_own_are_scored_where_there_is_a_task(eckart, tmp_path):
    edits = ["--edit", "-1:mlp:0.5", "--edit", "0:q:0.9"]
    ended = eckart("export", MODEL, *edits, "--out", "out", "--json")
    assert ended.status == 0, ended.err
    said = json.loads(ended.out)
    assert (said["edits"], said["task"], said["scores"]) == (["0:q:0.9", "4:mlp:0.5"], None, None)
    assert "was not measured" in (tmp_path / "out" / "README.md").read_text()
    assert not (tmp_path / "out" / "use.py").exists()
    scored = ["--task", SHORT, "--shots", "2", "--dtype", "float32"]
    ended = eckart("export", MODEL, *edits, *scored, "--out", "scored", "--json")
    said = json.loads(ended.out)
    assert len(said["task"]["demonstrations"]) == 2
    assert said["scores"]["unpruned"]["n"] == said["scores"]["clipped"]["n"] == 40
    prompt = (tmp_path / "scored" / "prompt.jinja").read_text()
    assert prompt.startswith(said["task"]["demonstrations"][0] + "\n")


def test_a_sweeps_choice_is_named(eckart, model, table, tmp_path):
    own = ["--data", table, "--text-column", "review", "--label-column", "verdict"]
    grid = ["--shots", "2", "--layers", "1,2", "--rates", "0.5,0.9", "--parts", "attn,mlp"]
    assert eckart("sweep", model, *own, *grid, "--out", "swept").status == 0
    refused(eckart("export", "swept", "--out", "out"), "2 choices", "--choice", "mlp")
    refused(eckart("export", "swept", "--choice", "q", "--out", "out"), "0 choices named 'q'")
    for part in ("attn", "mlp"):
        ended = eckart("export", "swept", "--choice", part, "--out", part, "--unclipped", "--json")
        said = json.loads(ended.out)
        assert len(said["task"]["demonstrations"]) == 2
        assert all(edit.split(":")[1] == part for edit in said["edits"])


def unclipped(folder: Path) -> None:
    """Make a finished search one that chose nothing."""
    found = json.loads((folder / "result.json").read_text())
    (folder / "result.json").write_text(json.dumps({**found, "rate": 0}))


def test_a_run_that_clips_nothing_writes_nothing_unless_asked(eckart, finished, tmp_path):
    run = shutil.copytree(finished, tmp_path / "none")
    unclipped(run)
    refused(eckart("export", "none", "--out", "out"), "chose to clip nothing", "--unclipped")
    assert not (tmp_path / "out").exists()
    assert eckart("export", "none", "--out", "out", "--unclipped").status == 0
    weights = (tmp_path / "out" / "model.safetensors").read_bytes()
    assert weights == (MODEL / "model.safetensors").read_bytes()
    card = (tmp_path / "out" / "README.md").read_text()
    assert "# model\n" in card
    assert ", clipped\n" not in card


def test_what_export_refuses(eckart, finished, model, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("years of work")
    Made().write(tmp_path / "made")
    with RunStore(tmp_path / "spectra", {"kind": "spectrum"}):
        pass
    unfinished = shutil.copytree(finished, tmp_path / "unfinished")
    (unfinished / "result.json").unlink()
    damaged = shutil.copytree(finished, tmp_path / "damaged")
    (damaged / "result.json").write_text("{}")
    edit = ["--edit", "1:mlp:0.5"]
    out = ["--out", "out"]
    for arguments, *words in [
        ([MODEL, *out], "no edit of"),
        ([MODEL, "--edit", "1:mlp:0", *out], "clip nothing"),
        ([MODEL, "--edit", "9:mlp:0.5", *out], "no layer 9"),
        ([MODEL, "--edit", "mlp", *out], "is not LAYER:PART:RATE"),
        (["./nosuch", *edit, *out], "no model folder './nosuch'"),
        ([finished, *edit, *out], "is a run"),
        ([MODEL, *edit, "--choice", "mlp", *out], "is no run's folder", "leave it out"),
        ([finished, "--base", model, *out], "the weights that were searched", "--base"),
        ([finished, "--task", SHORT, *out], "has its own task"),
        (["spectra", *out], "of kind spectrum"),
        (["unfinished", *out], "is not finished"),
        (["damaged", *out], "damaged result.json"),
        ([finished, "--out", "full"], "is not an empty folder"),
        ([finished, "--out", "full/thesis.txt"], "is not an empty folder"),
        ([finished, "--out", "full/thesis.txt/x"], "cannot be made"),
    ]:
        refused(eckart("export", *arguments), *words)
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".*"))


def test_a_disk_that_is_full_leaves_nothing(eckart, tmp_path, monkeypatch):
    def full(path, target):
        target.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("eckart.exports.copying.copied", full)
    refused(
        eckart("export", MODEL, "--edit", "1:mlp:0.5", "--out", "out"), "No space left on device"
    )
    assert not list(tmp_path.iterdir())


@pytest.fixture
def recipe(eckart, tmp_path) -> Path:
    assert eckart("export", MODEL, "--edit", "1:mlp:0.5", "--out", "first").status == 0
    shutil.copy(tmp_path / "first" / "eckart.json", tmp_path / "recipe.json")
    (tmp_path / "model").symlink_to(MODEL)
    return tmp_path / "recipe.json"


def test_what_apply_refuses(eckart, recipe, model, tmp_path):
    said = json.loads(recipe.read_text())
    digests = {**said["files"], "model.safetensors": "0" * 64}
    for values, *words in [
        ("{", "is damaged: it is no JSON"),
        ("[]", "is no recipe"),
        (
            {"eckart": "0.0.1", "model": "m", "weights": "", "edits": [], "dtype": ""},
            "eckart 0.0.1",
        ),
        ({**said, "scored_in": "float32).__class__"}, "scored_in"),
        ("[" * 100_000, "is damaged: it is no JSON"),
        ({**said, "recipe": 7}, "in another form (7, and this version reads 1)"),
        ({**said, "edits": ["x"]}, "edits.0 is 'x'"),
        ({**said, "nosuch": 1}, "unknown key 'nosuch'"),
        ({**said, "base": {}}, "lay in memory"),
        ({**said, "files": digests}, "model.safetensors differ from", "--inexact"),
        ({**said, "model": "gone"}, "'gone' lies neither here nor beside", "apply RECIPE MODEL"),
        ({**said, "model": "me/gone", "revision": "0" * 40}, "in revision 000000000000", "MODEL"),
    ]:
        text = values if isinstance(values, str) else json.dumps(values)
        (tmp_path / "other.json").write_text(text)
        refused(eckart("apply", "other.json", "--out", "out"), *words)
    refused(eckart("apply", recipe, model, "--out", "out"), "is not the recipe's base model")
    refused(eckart("apply", "nosuch.json", "--out", "out"), "no recipe 'nosuch.json'")
    refused(eckart("apply", recipe, "--out", "first"), "is not an empty folder")
    there = {path.name for path in tmp_path.iterdir()}
    assert there == {"first", "model", "other.json", "recipe.json"}


def test_what_is_rounded_otherwise_is_kept_where_asked(eckart, recipe, tmp_path):
    said = json.loads(recipe.read_text())
    said["files"]["model.safetensors"] = "0" * 64
    recipe.write_text(json.dumps(said))
    ended = eckart("apply", recipe, "--out", "out", "--inexact")
    assert ended.status == 0, ended.err
    assert "not as in the recipe, and kept: model.safetensors" in ended.err
    assert "clipped, not byte for byte as in the recipe" in ended.out
    written = json.loads((tmp_path / "out" / "eckart.json").read_text())
    assert written["files"]["model.safetensors"] != "0" * 64


def test_a_folder_is_sent_to_the_hub(eckart, tmp_path, monkeypatch):
    edit = ["--edit", "1:mlp:0.5", "--push-to-hub", "me/clipped"]
    with hub.hub() as server:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", server.url)
        monkeypatch.setenv("HF_TOKEN", hub.TOKEN)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        sent = push_to(server, monkeypatch)
        server.files = {"model-00002-of-00002.safetensors": b"another model's", "notes": b"mine"}
        ended = eckart("export", MODEL, *edit, "--private", "--out", "out", "--json")
        assert ended.status == 0, ended.err
        assert sent == [True]
        assert json.loads(ended.out)["hub"] == f"{server.url}/me/clipped"
        assert server.made[0]["visibility"] == "private"
        assert server.files == {**files(tmp_path / "out"), "notes": b"mine"}
        server.public = True
        again = eckart("export", MODEL, *edit, "--private", "--out", "again")
        refused(again, "written and not sent", "is there, and public")
        server.files.clear()
        monkeypatch.setenv("HF_TOKEN", "hf_wrong")
        refused(eckart("export", MODEL, *edit, "--out", "other"), "'me/clipped' did not take it")
        assert (tmp_path / "other" / "eckart.json").is_file()
        wrong = ["--edit", "1:mlp:0.5", "--push-to-hub", "no//name", "--out", "none"]
        refused(eckart("export", MODEL, *wrong), "no repository can be called 'no//name'")
        assert not (tmp_path / "none").exists()


def push_to(server: hub.Hub, monkeypatch) -> list[bool]:
    """Let the verb send to a stub, and return whether what it sends is private."""
    sent = []

    def sending(folder, repo, *, private=False):
        sent.append(private)
        return push(folder, repo, private=private, endpoint=server.url)

    monkeypatch.setattr("eckart.exports.folder.push", sending)
    return sent
