"""What a user can get wrong: each is one line on standard error, status 2, and nothing
half-written."""

import json
import shutil

import pytest
import torch
from families import build, tiny_tokenizer
from results import refused
from safetensors.torch import load_file, save_file

OWN = ["--text-column", "review", "--label-column", "verdict", "--shots", "4"]


@pytest.fixture
def copy(model, tmp_path):
    """A copy of the model that a test may damage."""
    return shutil.copytree(model, tmp_path / "copy")


MODELS = {
    "no such folder": (["./nothing"], "no model folder './nothing'"),
    "no such absolute folder": (["/no/such/model"], "no model folder '/no/such/model'"),
    "a file": (["reviews.csv"], "'reviews.csv' is a file"),
    "no checkpoint": (["."], "holds no config.json"),
}


@pytest.mark.parametrize(("arguments", "words"), MODELS.values(), ids=MODELS)
@pytest.mark.parametrize("verb", ["inspect", "spectrum", "search"])
def test_models_that_are_none(eckart, table, tmp_path, verb, arguments, words):
    shutil.copy(table, tmp_path / "reviews.csv")
    task = ["--data", table, *OWN] if verb == "search" else []
    refused(eckart(verb, *arguments, *task), words)
    assert {p.name for p in tmp_path.iterdir()} == {"reviews.csv"}


def test_a_hub_id_that_cannot_be_had(eckart, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    refused(
        eckart("inspect", "nobody/no-such-model"),
        "no model 'nobody/no-such-model'",
        "check the name",
    )


def test_a_truncated_safetensors_file(eckart, copy, table):
    whole = (copy / "model.safetensors").read_bytes()
    (copy / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    refused(eckart("evaluate", copy, "--data", table, *OWN), "damaged safetensors")
    refused(eckart("spectrum", copy), "damaged safetensors")


def test_a_safetensors_file_that_is_none(eckart, copy, table):
    (copy / "model.safetensors").write_bytes(b"nonsense")
    refused(eckart("evaluate", copy, "--data", table, *OWN), "damaged safetensors")


def test_a_checkpoint_that_lacks_a_tensor(eckart, copy, table):
    tensors = load_file(copy / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, copy / "model.safetensors", metadata={"format": "pt"})
    refused(
        eckart("evaluate", copy, "--data", table, *OWN), "lacks 1 tensor", "layers.1.mlp.up_proj"
    )


def test_a_pickled_checkpoint(eckart, copy, table):
    torch.save({}, copy / "pytorch_model.bin")
    (copy / "model.safetensors").unlink()
    refused(eckart("evaluate", copy, "--data", table, *OWN), "pickle", "safetensors")


def test_a_broken_config(eckart, copy):
    (copy / "config.json").write_text("{broken")
    refused(eckart("inspect", copy), "cannot be loaded")


def test_an_unknown_architecture(eckart, copy):
    (copy / "config.json").write_text('{"model_type": "hal9000"}')
    refused(eckart("inspect", copy), "hal9000")


def test_a_model_that_is_no_decoder(eckart, copy):
    (copy / "config.json").write_text('{"model_type": "vit"}')
    refused(eckart("inspect", copy), "cannot be loaded")


def test_a_model_without_a_tokenizer(eckart, copy, table):
    for path in copy.glob("tokenizer*"):
        path.unlink()
    refused(eckart("evaluate", copy, "--data", table, *OWN), "no usable tokenizer")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers(eckart, copy, table, value):
    tensors = load_file(copy / "model.safetensors")
    tensors["model.layers.1.mlp.up_proj.weight"][3, 4] = value
    save_file(tensors, copy / "model.safetensors", metadata={"format": "pt"})
    refused(eckart("spectrum", copy), "layer 1", "model.layers.1.mlp.up_proj.weight")
    refused(
        eckart("search", copy, "--data", table, *OWN, "--out", "run"),
        "model.layers.1.mlp.up_proj.weight",
    )


TASKS = {
    "no task at all": ([], "no task"),
    "no such task": (["--task", "sst3"], "sst2"),
    "no such task file": (["--task", "mine.yaml"], "mine.yaml"),
    "no such data": (["--data", "nothing.csv", *OWN], "nothing.csv"),
    "a data format that is not read": (["--data", "data.xyz", *OWN], "data.xyz"),
    "an empty file": (["--data", "empty.csv", *OWN], "empty.csv"),
    "a header alone": (["--data", "header.csv", *OWN], "header.csv"),
    "no such text column": (
        ["--data", "TABLE", "--text-column", "text", "--label-column", "verdict"],
        "review",
    ),
    "no such label column": (
        ["--data", "TABLE", "--text-column", "review", "--label-column", "label"],
        "verdict",
    ),
    "a template with a missing column": (
        ["--data", "TABLE", *OWN, "--template", "x: {{ body }}"],
        "body",
    ),
    "a broken template": (["--data", "TABLE", *OWN, "--template", "x: {{ review "], "template"),
    "a template that reaches for Python": (
        ["--data", "TABLE", *OWN, "--template", "{{ review.__class__.__mro__ }}"],
        "template",
    ),
    "a template that says nothing": (["--data", "TABLE", *OWN, "--template", "{# #}"], "template"),
    "labels that are not all mapped": (["--data", "TABLE", *OWN, "--labels", "good=yes"], "bad"),
    "labels that are no map": (["--data", "TABLE", *OWN, "--labels", "good"], "VALUE=WORD"),
    "one class only": (["--data", "one.csv", *OWN], "one"),
    "too few rows for the demonstrations": (["--data", "few.csv", *OWN, "--shots", "30"], "rows"),
    "negative shots": (["--data", "TABLE", *OWN, "--shots", "-1"], "shots"),
    "more rows than there are": (["--data", "TABLE", *OWN, "--split-sizes", "50,50"], "rows"),
    "sizes that are none": (["--data", "TABLE", *OWN, "--split-sizes", "many"], "many"),
    "broken YAML": (["--task", "broken.yaml"], "broken.yaml"),
    "an unknown key": (["--task", "key.yaml"], "tempalte"),
    "bytes that are not UTF-8": (["--data", "latin.csv", *OWN], "UTF-8"),
    "a truncated parquet": (["--data", "half.parquet", *OWN], "half.parquet"),
    "an empty folder": (["--data", "nothing", *OWN], "nothing"),
    "no such variant": (["--task", "sst2", "--variant", "mine", "--data", "TABLE"], "released"),
    "no such split": (["--data", "TABLE", *OWN, "--split", "dev"], "validation, test, all"),
    "no such scoring": (
        ["--data", "TABLE", *OWN, "--scoring", "best"],
        "sum, mean, byte, character, prior",
    ),
    "the mean over rows that are not alike": (
        ["--task", "goals.yaml", "--scoring", "batch"],
        "its own candidates",
    ),
    "logits of labels": (["--data", "TABLE", *OWN, "--scoring", "logit"], "choose 'sum'"),
    "the mean over some rows": (
        ["--data", "TABLE", *OWN, "--scoring", "batch", "--split", "validation[0:4]"],
        "all rows of a split",
    ),
    "a prompt longer than the context": (["--data", "long.csv", *OWN], "--truncate-demonstrations"),
}


@pytest.fixture
def files(tmp_path):
    """Data that is wrong in one way each."""
    (tmp_path / "data.xyz").write_text("review,verdict\n")
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "header.csv").write_text("review,verdict\n")
    (tmp_path / "one.csv").write_text(
        "review,verdict\n" + "".join(f"text {i},good\n" for i in range(20))
    )
    (tmp_path / "few.csv").write_text(
        "review,verdict\n" + "".join(f"t {i},{'ab'[i % 2]}\n" for i in range(20))
    )
    long = "word " * 3000
    (tmp_path / "long.csv").write_text(
        "review,verdict\n" + "".join(f"{long} {i},{'ab'[i % 2]}\n" for i in range(20))
    )
    (tmp_path / "broken.yaml").write_text("name: [unclosed\nlabel: x")
    (tmp_path / "goals.csv").write_text(
        "goal,one,two,right\n" + "".join(f"goal {i},way {i},the other,{i % 2}\n" for i in range(30))
    )
    (tmp_path / "goals.yaml").write_text(
        "template: '{{ goal }}'\ndata: goals.csv\nchoices: [one, two]\nlabel: right\nshots: 2\n"
    )
    (tmp_path / "key.yaml").write_text("name: x\ntempalte: 'x'\ndata: reviews.csv\n")
    (tmp_path / "latin.csv").write_bytes("review,verdict\ncafé,good\ntea,bad\n".encode("latin-1"))
    (tmp_path / "half.parquet").write_bytes(b"PAR1half")
    (tmp_path / "nothing").mkdir()
    return tmp_path


@pytest.mark.parametrize(("arguments", "words"), TASKS.values(), ids=TASKS)
def test_tasks_that_are_not_usable(eckart, model, table, files, arguments, words):
    before = {p.name for p in files.iterdir()}
    given = [table if a == "TABLE" else a for a in arguments]
    refused(eckart("evaluate", model, *given, "--json"), words)
    assert {p.name for p in files.iterdir()} == before


EDITS = {
    "no edit": (["--edit", "mlp"], "LAYER:PART:RATE"),
    "a rate of one": (["--edit", "0:mlp:1"], "outside [0, 1)"),
    "a negative rate": (["--edit", "0:mlp:-0.1"], "outside [0, 1)"),
    "a rate that is no number": (["--edit", "0:mlp:nan"], "outside [0, 1)"),
    "a layer beyond the last": (["--edit", "3:mlp:0.5"], "3"),
    "a layer before the first": (["--edit", "-4:mlp:0.5"], "-4"),
    "no such part": (["--edit", "0:ffn:0.5"], "gate"),
    "a part that this model lacks": (["--edit", "0:fc_in:0.5"], "gate"),
    "one matrix twice": (["--edit", "0:mlp:0.5", "--edit", "0:gate:0.9"], "twice"),
    "another cut": (["--edit", "0:mlp:0.5:randomish"], "no cut 'randomish'"),
    "a seed that is none": (["--edit", "0:mlp:0.5:random-1"], "no cut 'random-1'"),
    "a cut without a rate": (["--edit", "0:mlp:random"], "is not LAYER:PART:RATE"),
    "a cut of nothing": (["--edit", "0:mlp:0:largest"], "rate 0 cuts nothing"),
    "a cut before its rate": (["--edit", "0:mlp:random:0.5"], "is not LAYER:PART:RATE"),
    "two cuts": (["--edit", "0:mlp:0.5:random:largest"], "is not LAYER:PART:RATE"),
    "a drop at a rate": (["--edit", "0:mlp:0.5:drop"], "drop takes no rate"),
    "a drop of one matrix": (["--edit", "0:q:drop"], "'q' is one matrix"),
    "a drop of an output projection": (["--edit", "0:down:drop"], "'down' is one matrix"),
    "a drop beyond the last layer": (["--edit", "3:mlp:drop"], "no layer 3"),
    "a drop of what is clipped": (
        ["--edit", "0:mlp:drop", "--edit", "0:up:0.5"],
        "at rates drop and 0.5",
    ),
    "one part cut two ways": (
        ["--edit", "0:mlp:0.5", "--edit", "0:mlp:0.5:largest"],
        "is named twice, at rates",
    ),
    "no such dtype": (["--dtype", "float8"], "float32, bfloat16, float16"),
    "no such device": (["--device", "abacus"], "abacus"),
    "a device that is not here": (["--device", "cuda:7"], "cuda:7"),
    "predictions into nowhere": (["--predictions", "no/such/rows.jsonl"], "cannot be written"),
    "predictions over a folder": (["--predictions", "."], "cannot be written"),
    "an option that does not exist": (["--show-me", "4"], "--show-me"),
    "a number that is none": (["--seed", "x"], "--seed"),
}


@pytest.mark.parametrize(("arguments", "words"), EDITS.values(), ids=EDITS)
def test_evaluations_that_cannot_be(eckart, model, table, tmp_path, arguments, words):
    if "cuda:7" in arguments and torch.cuda.device_count() > 7:
        pytest.skip("this machine has eight GPUs")
    refused(eckart("evaluate", model, "--data", table, *OWN, *arguments), words)
    assert not list(tmp_path.iterdir())


SEARCHES = {
    "a rate outside the range": (["--rates", "0,1.5"], "outside [0, 1)"),
    "rates that are no numbers": (["--rates", "0,half"], "rates '0,half'"),
    "a layer beyond the last": (["--layer", "9"], "9"),
    "no such screen": (["--layer", "gradiant"], "did you mean 'gradient'?"),
    "a draw without a seed": (["--layer", "random"], "random:0"),
    "a seed of what is not drawn": (["--layer", "last:1"], "the others without"),
    "rows for no gradient": (["--layer", "last", "--screen-rows", "5"], "add --layer gradient"),
    "no rows for a gradient": (["--layer", "gradient", "--screen-rows", "0"], "--screen-rows is 0"),
    "no rows left for a gradient": (["--layer", "gradient", "--shots", "10"], "none is left"),
    "a screen for nothing": (["--layer", "gradient", "--rates", "0"], "rate 0 cuts nothing"),
    "a screen by a scoring that needs all rows": (
        ["--layer", "validation", "--scoring", "batch"],
        "--layer validation read a split in parts",
    ),
    "the worst-conditioned of one layer": (
        ["--layer", "1", "--top-k", "2"],
        "--top-k 2 is of condition numbers",
    ),
    "condition numbers of the deepest": (
        ["--strategy", "greedy", "--combine", "max"],
        "add --layer condition-number",
    ),
    "no layers at all": (["--top-k", "0"], "--top-k is 0"),
    "no such combination": (["--combine", "median"], "geometric, mean, max, min"),
    "no such metric": (["--metric", "bleu"], "accuracy, balanced_accuracy, macro_f1"),
    "a race by log-loss": (["--race", "--metric", "log_loss"], "leave out --race"),
    "no such strategy": (["--strategy", "greed"], "greedy"),
    "a greedy race": (["--strategy", "greedy", "--race"], "leave out --race"),
    "greedy by what no row has": (
        ["--strategy", "greedy", "--metric", "macro_f1"],
        "choose --metric accuracy or log_loss",
    ),
    "greedy by a scoring that needs all rows": (
        ["--strategy", "greedy", "--scoring", "batch"],
        "a greedy search and --layer validation read",
    ),
    "greedy by a screen on the rows that test": (
        ["--strategy", "greedy", "--layer", "validation"],
        "choose --layer gradient",
    ),
    "greedy without candidates": (["--strategy", "greedy", "--rates", "0"], "add others"),
    "a budget without a greedy search": (["--evaluations", "100"], "add --strategy greedy"),
    "no budget at all": (["--strategy", "greedy", "--evaluations", "0"], "evaluations is 0"),
    "no time at all": (["--strategy", "greedy", "--minutes", "-1"], "minutes is -1"),
    "places that are no number": (["--strategy", "greedy", "--places", "all"], "places"),
    "a part that this model lacks": (["--part", "fc_in"], "gate"),
    "no such part": (["--part", "ffn"], "attn"),
    "a run below a file": (["--out", "file/run"], "cannot be made"),
    "a checkpoint below a file": (["--save", "file/model"], "cannot be made"),
    "a checkpoint over something": (["--save", "taken"], "not an empty folder"),
    "a race by a scoring that needs all rows": (
        ["--race", "--scoring", "batch"],
        "a race, a greedy search",
    ),
    "controls with a value": (["--controls", "random"], "random"),
    "a control arm as a rate": (["--rates", "0.5:random"], "0.5:random"),
    "a checkpoint over a file": (["--save", "file"], "not an empty folder"),
    "seeds that are none": (["--seeds", "few"], "'few' is no whole number"),
    "seeds that run down": (["--seeds", "4..0"], "runs down; say 0..4"),
    "seeds that draw nothing": (["--seeds", "0,1", "--shots", "0"], "leave out --seeds"),
    "a seed and seeds": (["--seeds", "0,1", "--seed", "3"], "--seed 3 names one"),
    "a race over several draws": (["--seeds", "0,1", "--race"], "leave out --race"),
    "templates of no task file": (["--templates", "all"], "its own prompts alone"),
}


@pytest.mark.parametrize(("arguments", "words"), SEARCHES.values(), ids=SEARCHES)
def test_searches_that_cannot_be(eckart, model, table, tmp_path, arguments, words):
    (tmp_path / "file").write_text("")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "thesis.txt").write_text("years of work")
    refused(eckart("search", model, "--data", table, *OWN, "--out", "run", *arguments), words)
    assert {p.name for p in tmp_path.iterdir()} <= {"file", "taken"}
    assert (tmp_path / "taken" / "thesis.txt").read_text() == "years of work"


CHANGES = {
    "another part": ["--part", "attn"],
    "other rates": ["--rates", "0,0.9"],
    "other demonstrations": ["--seed", "1"],
    "fewer shots": ["--shots", "2"],
    "another scoring": ["--scoring", "mean"],
    "another dtype": ["--dtype", "float16"],
    "another layer": ["--layer", "0"],
    "other rows": ["--split-sizes", "10,10"],
    "another template": ["--template", "{{ review }} was"],
}


@pytest.fixture(scope="module")
def finished(model, table, tmp_path_factory):
    """A finished run."""
    from eckart import Task, search

    folder = tmp_path_factory.mktemp("runs") / "run"
    task = Task.load(data=table, text_column="review", label_column="verdict", shots=4)
    search(model, task, rates=[0, 0.5], out=folder)
    return folder


@pytest.mark.parametrize("changes", CHANGES.values(), ids=CHANGES)
def test_a_run_does_not_go_on_with_another_setting(eckart, model, table, finished, changes):
    before = (finished / "result.json").read_bytes()
    refused(
        eckart(
            "search", model, "--data", table, *OWN, "--rates", "0,0.5", "--out", finished, *changes
        ),
        "other settings",
        "--out",
    )
    assert (finished / "result.json").read_bytes() == before


def test_a_run_does_not_go_on_with_another_model(eckart, copy, table, finished):
    tensors = load_file(copy / "model.safetensors")
    tensors["model.layers.1.mlp.up_proj.weight"][3, 4] += 1e-3
    save_file(tensors, copy / "model.safetensors", metadata={"format": "pt"})
    ended = eckart("search", copy, "--data", table, *OWN, "--rates", "0,0.5", "--out", finished)
    refused(ended, "other settings", "weights")


def test_a_damaged_run(eckart, model, table, finished, tmp_path):
    run = shutil.copytree(finished, tmp_path / "run")
    (run / "run.sqlite").write_bytes(b"\0" * 5000)
    arguments = ["search", model, "--data", table, *OWN, "--rates", "0,0.5", "--out", run]
    refused(eckart(*arguments), "run.sqlite")


def test_a_figure_that_cannot_be(eckart, model):
    refused(eckart("spectrum", model, "--plot", "figure.gif"), ".png")
    refused(eckart("spectrum", model, "--plot", "no/such/figure.png"), "there is no folder")


def test_bad_layers_and_runs_of_a_spectrum(eckart, model, tmp_path):
    refused(eckart("spectrum", model, "--layers", "1-3"), "--layers '1-3'", "0,1,-1")
    refused(eckart("spectrum", model, "--layers", "0,7"), "no layer 7")
    refused(eckart("spectrum", model, "--device", "cuda:99"), "device 'cuda:99'")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("")
    refused(eckart("spectrum", model, "--out", "file"), "run folder 'file'", "--out")


@pytest.mark.parametrize("verb", ["spectrum", "evaluate"])
def test_a_missing_shard(eckart, tmp_path, table, verb):
    build("llama").save_pretrained(tmp_path / "sharded", max_shard_size="60KB")
    tiny_tokenizer().save_pretrained(tmp_path / "sharded")
    sorted((tmp_path / "sharded").glob("*.safetensors"))[1].unlink()
    task = ["--data", table, *OWN] if verb == "evaluate" else []
    refused(eckart(verb, "sharded", *task), "'sharded'", "model-00002")


def test_predictions_do_not_overwrite_the_data(eckart, model, table, tmp_path):
    data = shutil.copy(table, tmp_path / "d.csv")
    before = data.read_bytes()
    refused(
        eckart("evaluate", model, "--data", "d.csv", *OWN, "--predictions", "./d.csv"),
        "is the data itself",
    )
    assert data.read_bytes() == before


def test_a_prompt_that_is_too_long_leaves_no_run(eckart, model, files):
    before = {p.name for p in files.iterdir()}
    refused(
        eckart("search", model, "--data", "long.csv", *OWN, "--out", "run"),
        "--truncate-demonstrations",
    )
    assert {p.name for p in files.iterdir()} == before


def test_no_such_verb_and_no_model(eckart):
    refused(eckart("improve"), "improve")
    refused(eckart("inspect"), "MODEL")


def test_json_errors_stay_off_standard_output(eckart, model):
    assert eckart("inspect", "./nothing", "--json").out == ""
    assert json.loads(eckart("inspect", model, "--json").out)["layers"]


SWEEPS = {
    "no study": (["nothing"], "no study 'nothing'"),
    "a misspelt study": (["figure1-smal"], "did you mean 'figure1-small'"),
    "no study file": (["./nothing.yaml"], "no study file"),
    "no grid": ([], "the grid is empty: there is no model"),
    "no tasks": (["--model", "MODEL"], "the grid is empty"),
    "an unknown key": (
        ["unknown.yaml"],
        "unknown.yaml: unknown key 'modls'; did you mean 'models'",
    ),
    "an unknown key of a task": (
        ["task.yaml"],
        "task 1: unknown key 'varient'; did you mean 'variant'",
    ),
    "broken YAML": (["broken.yaml"], "broken.yaml line 2: broken YAML"),
    "no YAML": (["text.yaml"], "is no study file"),
    "no such layer": (["--layers", "0,99"], "no layer 99"),
    "no such layer in one of two models": (["--layers", "2", "--model", "OTHER"], "no layer 2"),
    "no numbers": (["--layers", "first"], "'first' is no whole number"),
    "no such part": (["--parts", "head"], "no part 'head'"),
    "no such scoring": (["--scorings", "best"], "no scoring 'best'"),
    "no such test policy": (["--test", "some"], "no test policy 'some'"),
}


@pytest.mark.parametrize(("arguments", "words"), SWEEPS.values(), ids=SWEEPS)
def test_sweeps_that_cannot_be(eckart, model, table, tmp_path, tmp_path_factory, arguments, words):
    studies = {
        "unknown": "modls: [x]\n",
        "task": "models: [x]\ntasks: [{task: sst2, varient: released}]\n",
        "broken": "models: [x]\n  tasks: [\n",
        "text": "sst2\n",
    }
    for name, text in studies.items():
        (tmp_path / f"{name}.yaml").write_text(text)
    if "OTHER" in arguments:
        shallow = build("gpt2")
        shallow.transformer.h = shallow.transformer.h[:2]
        shallow.config.n_layer = 2
        folder = tmp_path_factory.mktemp("shallow")
        shallow.save_pretrained(folder)
        tiny_tokenizer().save_pretrained(folder)
        arguments = [str(folder) if a == "OTHER" else a for a in arguments]
    arguments = [str(model) if a == "MODEL" else a for a in arguments]
    grid = (
        ["--model", model, "--data", table, *OWN]
        if arguments[:1] and arguments[0] in GRID_FLAGS
        else []
    )
    refused(eckart("sweep", *arguments, *grid), words)
    assert not (tmp_path / "runs").exists()


GRID_FLAGS = ("--layers", "--parts", "--scorings", "--test")


def test_a_folder_of_another_sweep(eckart, model, table, tmp_path):
    grid = ["sweep", "--model", model, "--data", table, *OWN, "--layers", "0", "--out", "run"]
    assert eckart(*grid, "--rates", "0.5").status == 0
    refused(
        eckart(*grid, "--rates", "0.9"),
        "study.rates [0.0, 0.5], now [0.0, 0.9]",
        "choose another --out",
    )


NOWHERE = {
    "nothing answers": ("127.0.0.1:1", "no Ray cluster at '127.0.0.1:1'"),
    "Ray's client": ("ray://127.0.0.1:10001", "ray://"),
    "no port": ("127.0.0.1", "HOST:PORT"),
    "no such port": ("127.0.0.1:99999", "no Ray cluster at"),
}


@pytest.mark.parametrize(("address", "words"), NOWHERE.values(), ids=NOWHERE)
def test_a_cluster_that_is_not_there(eckart, model, table, tmp_path, address, words):
    pytest.importorskip("ray", reason="needs Ray: pip install 'eckart[cluster]'")
    grid = ["sweep", "--model", model, "--data", table, *OWN, "--layers", "0", "--out", "run"]
    refused(eckart(*grid, "--cluster", address), words)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_made(eckart, model, table, tmp_path):
    (tmp_path / "file").write_text("")
    grid = ["sweep", "--model", model, "--data", table, *OWN, "--layers", "0", "--out", "file/run"]
    refused(eckart(*grid), "cannot be made")
