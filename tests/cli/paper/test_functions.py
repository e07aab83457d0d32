"""The verbs of `functions`: what they print and write, how they are interrupted, and what they
refuse."""

import json
import signal

import pytest
import torch
from results import refused

from eckart.paper.functions import training as library
from eckart.paper.functions.training import Training, kept_models, read_losses
from eckart.runs import read_run

TINY = [
    "--dimension",
    "2",
    "--layers",
    "1",
    "--width",
    "8",
    "--heads",
    "2",
    "--batch",
    "4",
    "--device",
    "cpu",
]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A training's folder."""
    folder = tmp_path_factory.mktemp("trained") / "tiny"
    tiny = Training(
        dimension=2, layers=1, width=8, heads=2, batch=4, steps=16, function="decision-tree"
    )
    library.train(tiny, folder, checkpoints=[2, 4], device="cpu")
    return folder


def test_train_says_where_the_model_is_and_goes_on(eckart, tmp_path):
    arguments = ["functions", "train", *TINY, "--steps", "64", "--out", "run", "--seed", "3"]
    ended = eckart(*arguments)
    assert ended.status == 0, ended.err
    assert "run: run\n" in ended.err
    assert (
        "squared error over variance, mean of all points of a prompt and the last 64 steps"
        in ended.err
    )
    assert "Writing" not in ended.err
    assert list(kept_models("run")) == [1, 2, 4, 8, 16, 32, 64]
    before = (tmp_path / "run" / "state.safetensors").read_bytes()
    again = eckart(*arguments, "--checkpoints", "5,64")
    assert again.status == 0
    assert "note: the model after steps 5 was not kept" in again.err
    assert (tmp_path / "run" / "state.safetensors").read_bytes() == before


def test_the_document_of_train(eckart):
    ended = eckart(
        "functions",
        "train",
        *TINY,
        "--steps",
        "8",
        "--checkpoints",
        "0,4",
        "--json",
        "--threads",
        "1",
    )
    document = json.loads(ended.out)
    assert document["training"] == Training(
        dimension=2, layers=1, width=8, heads=2, batch=4, steps=8
    ).model_dump(mode="json")
    assert document["run"].startswith("runs/linear-2-")
    assert list(kept_models(document["run"])) == [0, 4, 8]
    assert document["model"] == str(kept_models(document["run"])[8])
    assert document["loss"] == pytest.approx(float(read_losses(document["run"]).mean()))
    assert torch.get_num_threads() == 1


def test_an_interrupted_training_is_kept_and_goes_on(eckart, monkeypatch):
    step, taken = library.AdamW.step, []

    def interrupted(self, *given):
        taken.append(len(taken))
        if len(taken) == 6:
            signal.raise_signal(signal.SIGINT)
        return step(self, *given)

    arguments = ["functions", "train", *TINY, "--steps", "12", "--out", "run"]
    with monkeypatch.context() as patch:
        patch.setattr(library.AdamW, "step", interrupted)
        ended = eckart(*arguments)
    assert ended.status == 130
    assert "what was finished is kept, and the same command goes on from there" in ended.err
    assert "Traceback" not in ended.err
    assert len(read_losses("run")) == 6
    assert eckart(*arguments).status == 0
    assert eckart(*[a if a != "run" else "calm" for a in arguments]).status == 0
    assert torch.equal(read_losses("run"), read_losses("calm"))


def test_a_log_is_told_now_and_then_where_training_is(eckart, monkeypatch):
    monkeypatch.setattr("eckart.cli.console.SILENCE", 0.0)
    ended = eckart("functions", "train", *TINY, "--steps", "3", "--out", "run")
    told = [line for line in ended.err.splitlines() if line.startswith("step ")]
    assert [line.split(":")[0] for line in told] == [f"step {i} of 3" for i in (1, 2, 3)]
    assert all("loss " in line for line in told)


def test_interrupting_before_a_training_goes_on_does_not_deny_what_is_kept(eckart, monkeypatch):
    arguments = ["functions", "train", *TINY, "--steps", "2", "--out", "run"]
    assert eckart(*arguments).status == 0

    def interrupted(*_):
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Training, "of", interrupted)  # nothing is read of the folder yet
    ended = eckart(*arguments)
    assert ended.status == 130
    assert "what was finished is kept" in ended.err
    assert "nothing new was kept" in eckart(*arguments[:-2]).err


WRONG_TRAINING = {
    "function": (["--function", "cubic"], "no function class 'cubic'; the classes are linear"),
    "heads": (["--heads", "5"], "width 8 is not a multiple of 5 heads"),
    "rate": (["--learning-rate", "-1"], "--learning-rate is -1.0: it must be more than 0"),
    "dimension": (["--dimension", "0"], "dimension is 0"),
    "points": (["--points", "1"], "points is 1"),
    "model": (["--architecture", "rnn"], "--architecture is 'rnn': it must be 'gpt2' or 'linear'"),
    "layout": (["--layout", "odd"], "layout is 'odd'"),
    "seed": (["--seed", "-1"], "seed is -1"),
    "checkpoints": (["--checkpoints", "a,b"], "--checkpoints 'a,b' are not whole numbers"),
    "device": (["--device", "cuda:99"], "device 'cuda:99' is not usable here"),
}


@pytest.mark.parametrize(("wrong", "words"), WRONG_TRAINING.values(), ids=WRONG_TRAINING)
def test_trainings_that_are_refused(eckart, tmp_path, wrong, words):
    refused(eckart("functions", "train", *TINY, *wrong), words)
    assert not list(tmp_path.rglob("*"))


def test_another_training_in_the_folder_is_refused(eckart, trained):
    ended = eckart("functions", "train", *TINY, "--steps", "16", "--out", trained)
    refused(ended, "was made with other settings (function ", "choose another --out")


def test_evaluate_shows_the_model_beside_what_suits_its_class(eckart, trained, tmp_path):
    ended = eckart(
        "functions", "evaluate", trained, "--prompts", "60", "--plot", "five.png", "--device", "cpu"
    )
    assert ended.status == 0, ended.err
    for word in (
        "decision-tree, d = 2",
        "tiny",
        "tree",
        "3-nn",
        "averaging",
        "excess over 3-nn",
        "60",
    ):
        assert word in ended.out
    assert "figure: five.png" in ended.err
    assert (tmp_path / "five.png").read_bytes().startswith(b"\x89PNG")


def test_the_document_of_evaluate(eckart, trained, tmp_path):
    arguments = [
        "--prompts",
        "50",
        "--points",
        "3",
        "--function",
        "linear",
        "--baselines",
        "ridge,lasso",
    ]
    ended = eckart("functions", "evaluate", trained, *arguments, "--json")
    document = json.loads(ended.out)
    assert (document["function"], document["n"], document["counts"]) == ("linear", 50, [0, 1, 2])
    assert [curve["name"] for curve in document["baselines"]] == ["ridge", "lasso"]
    assert document["figure"] is None
    assert not list(tmp_path.iterdir())
    other = eckart("functions", "evaluate", trained, *arguments, "--json", "--seed", "1")
    assert json.loads(other.out)["model"]["means"] != document["model"]["means"]


def test_evaluate_by_steps(eckart, trained, tmp_path):
    arguments = ["functions", "evaluate", trained, "--by-steps", "--prompts", "50"]
    ended = eckart(*arguments, "--plot", "steps.svg")
    assert ended.status == 0, ended.err
    for word in ("2 steps", "4 steps", "16 steps", "3-nn"):
        assert word in ended.out
    assert "16 steps" in (tmp_path / "steps.svg").read_text()
    assert json.loads(eckart(*arguments, "--json").out)["steps"] == [2, 4, 16]


def test_without_baselines_there_is_the_model_alone(eckart, trained):
    ended = eckart(
        "functions", "evaluate", trained, "--baselines", "none", "--prompts", "10", "--json"
    )
    assert json.loads(ended.out)["baselines"] == []


WRONG_EVALUATION = {
    "model": (
        ["nothing"],
        "no model 'nothing': there is no such folder, and the models that come with",
    ),
    "empty": (["."], "holds no config.json"),
    "steps of none": ([".", "--by-steps"], "'.' is no training's folder"),
    "function": (["TRAINED", "--function", "cubic"], "no function class 'cubic'"),
    "baseline": (["TRAINED", "--baselines", "svm"], "no baseline 'svm'"),
    "points": (["TRAINED", "--points", "99"], "the model reads prompts of 1 to 5 points, not 99"),
    "seed": (["TRAINED", "--seed", str(2**31)], "choose another --seed"),
    "prompts": (["TRAINED", "--prompts", "1"], "--prompts"),
    "plot": (["TRAINED", "--plot", "five.gif"], "figure 'five.gif' ends in none of .png"),
    "both": (["TRAINED", "--by-steps", "--baselines", "tree"], "leave out --baselines"),
    "device": (["TRAINED", "--device", "cuda:99"], "device 'cuda:99' is not usable here"),
}


@pytest.mark.parametrize(("wrong", "words"), WRONG_EVALUATION.values(), ids=WRONG_EVALUATION)
def test_evaluations_that_are_refused(eckart, trained, tmp_path, wrong, words):
    refused(
        eckart("functions", "evaluate", *[str(trained) if a == "TRAINED" else a for a in wrong]),
        words,
    )
    assert not list(tmp_path.iterdir())


ELSEWHERE = {
    "evaluate": "evaluate TRAINED --data TABLE --text-column review --label-column verdict",
    "search": "search TRAINED --data TABLE --text-column review --label-column verdict",
    "sweep": "sweep TRAINED --data TABLE --text-column review --label-column verdict --dry-run",
    "inspect": "inspect TRAINED",
    "spectrum": "spectrum TRAINED",
    "export": "export TRAINED --out written",
    "predict": "predict TRAINED --text good",
}


@pytest.mark.parametrize("line", ELSEWHERE.values(), ids=ELSEWHERE)
def test_every_other_verb_says_what_measures_a_training(eckart, trained, table, tmp_path, line):
    names = {"TRAINED": trained, "TABLE": table}
    ended = eckart(*[names.get(word, word) for word in line.split()])
    refused(ended, f"`eckart functions evaluate {trained}` measures")
    assert not list(tmp_path.iterdir())


def test_clip_searches_with_the_first_seed_and_each_part_once(eckart, trained):
    seeds = [
        "--seeds",
        "3,4",
        "--rates",
        "0.5",
        "--rows",
        "20",
        "--parts",
        "mlp,mlp",
        "--device",
        "cpu",
    ]
    ended = eckart("functions", "clip", trained, *seeds, "--out", "clipped")
    assert "Algorithm 1, examples of seed 3" in ended.out
    assert ended.out.count("beside the unpruned model, on n = 20 validation rows") == 1
    trial, *_ = read_run("clipped/mlp").trials.values()
    assert trial.setting.seed == 3


CLIP = ["--rows", "20", "--seeds", "0,1", "--rates", "0.5,0.9", "--device", "cpu"]


def test_clip_sweeps_searches_and_draws(eckart, trained, tmp_path):
    ended = eckart("functions", "clip", trained, *CLIP, "--out", "clipped")
    assert ended.status == 0, ended.err
    assert (
        "decision-tree, d = 2, 4 examples: squared error / variance of f, test rows (n = 20, 2"
        in ended.out
    )
    assert "after correction for 4 edits (Holm, 0.05)" in ended.out
    assert (
        ended.out.count("beside the unpruned model, on n = 20 validation rows") == 2
    )  # Algorithm 1, a part each
    assert (tmp_path / "clipped" / "clipping.png").read_bytes().startswith(b"\x89PNG")
    again = eckart("functions", "clip", trained, *CLIP, "--out", "clipped", "--json")
    document = json.loads(again.out)
    assert len(document["cells"]) == 4
    assert [study["part"] for study in document["algorithm1"]] == ["attn", "mlp"]
    assert document["metric"] == "squared_error"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--layers", "7"], "no layer 7"),
        (["--layers", "x"], "'x' is no whole number"),
        (["--parts", "head"], "no part 'head'"),
        (["--parts", "gate"], "has no 'gate'"),
        (["--rates", "1"], "outside [0, 1)"),
        (["--rates", "0"], "no rate above 0"),
        (["--shots", "9"], "choose --shots 4 or fewer"),
        (["--function", "cubic"], "no function class 'cubic'"),
        (["--seeds", "3..1"], "runs down"),
        (["--plot", "no/where.png"], "there is no folder 'no'"),
    ],
)
def test_clip_refuses_what_it_cannot_do(eckart, trained, tmp_path, arguments, words):
    refused(eckart("functions", "clip", trained, *CLIP, "--out", "clipped", *arguments), words)
    assert not (tmp_path / "clipped").exists()
