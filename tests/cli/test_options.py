"""What `Task.load` takes of a task, every way of asking takes: each verb, and a study file."""

import inspect
import json

import pytest
import yaml
from results import refused
from typer.main import get_command

from eckart.cli.app import app
from eckart.cli.flags import SPELLINGS
from eckart.errors import TaskError
from eckart.runs import read_run
from eckart.scoring.evaluator import Evaluator
from eckart.sweeps.grid import TaskEntry
from eckart.tasks import Task
from eckart.tasks.spec import DrawnTask, TaskSpec
from eckart.weights.models import load_model
from eckart.weights.options import ModelOptions

OWN = {
    "instruction": "Judge each.",
    "label_join": " => ",
    "label_end": "!",
    "separator": " | ",
    "name": "mine",
    "balanced": False,
}
FLAGS = [
    *["--instruction", "Judge each.", "--label-join", " => ", "--label-end", "!"],
    *["--separator", " | ", "--name", "mine", "--unbalanced"],
]
CUT = ["--layers", "0", "--rates", "0.5", "--parts", "mlp", "--dtype", "float32"]


NUMBERS = {
    "spectrum": ("--layer 0 --parts mlp", "--layers 0 --part mlp", "matrices"),
    "search": ("--layers=1 --rate 0.5 --dry-run", "--layer=1 --rates 0.5 --dry-run", "trials"),
    "sweep": ("--layer 1 --part mlp --dry-run", "--layers 1 --parts mlp --dry-run", "trials"),
}


@pytest.mark.parametrize("verb", NUMBERS)
def test_a_flag_is_taken_in_the_singular_and_the_plural(eckart, model, own_task, verb):
    typed, meant, compared = NUMBERS[verb]
    task = [] if verb == "spectrum" else own_task
    one, other = (
        json.loads(eckart(verb, model, *task, *flags.split(), "--json").out)[compared]
        for flags in (typed, meant)
    )
    assert one == other
    refused(eckart(verb, model, *task, "--nothings", "1"), "No such option: --nothings")


@pytest.mark.parametrize("verb", ["evaluate", "search", "sweep", "export", "explore"])
def test_what_is_wrong_is_said_of_the_flag(eckart, model, own_task, verb, tmp_path):
    more = {"export": ["--edit", "0:mlp:0.5", "--out", "out"]}
    ended = eckart(verb, model, *own_task[:-2], *more.get(verb, ()), "--shots", "-1")
    refused(ended, "error: --shots is -1: it must be at least 0")
    refused(eckart("sweep", model, *own_task, "--top-k", "0"), "error: --top-k is 0")
    assert list(tmp_path.iterdir()) == []


def test_an_error_has_its_option_and_keeps_what_is_said_of_it():
    with pytest.raises(
        TaskError, match=r"^the task: shots is -1: it must be at least 0$"
    ) as raised:
        Task.load("sst2", shots=-1)
    assert raised.value.option == "shots"
    assert raised.value.said == "is -1: it must be at least 0"


def test_what_a_file_says_is_no_flag(eckart, model, table, tmp_path):
    task = {"data": str(table), "text_column": "review", "label_column": "verdict"}
    study = {"models": [str(model)], "tasks": [task], "shots": -1}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(study))
    refused(eckart("sweep", "mine.yaml"), "error: mine.yaml: shots.0 is -1: it must be at least 0")
    flags = ["--seeds", "0..1"]
    refused(eckart("sweep", "mine.yaml", *flags), "error: mine.yaml: shots.0 is -1")


def keywords(called) -> set[str]:
    return {
        p.name
        for p in inspect.signature(called).parameters.values()
        if p.kind is inspect.Parameter.KEYWORD_ONLY
    }


def test_options_are_the_arguments_of_what_they_are_for():
    assert keywords(Task.load) == DrawnTask.model_fields.keys() - {"task"}
    assert keywords(load_model) == ModelOptions.model_fields.keys() | {"tokenizer"}
    assert keywords(Evaluator) == {"scoring", "progress"}, "and those of ReadingOptions"


def test_a_misspelt_keyword_is_told():
    with pytest.raises(TaskError, match="the task: unknown key 'shoots'; did you mean 'shots'"):
        Task.load("sst2", shoots=4)


@pytest.mark.parametrize("verb", ["evaluate", "search", "sweep", "theory probe"])
def test_every_verb_takes_all_that_is_said_of_a_task(verb):
    command = get_command(app)
    for name in verb.split():
        command = command.commands[name]
    asked = DrawnTask.model_fields.keys() - ({"seed"} if verb == "sweep" else set())  # --seeds
    spelled = {SPELLINGS[name].name or name if name in SPELLINGS else name for name in asked}
    assert spelled <= {parameter.name for parameter in command.params}


def test_a_study_file_takes_all_that_is_said_of_a_task():
    assert TaskEntry.model_fields.keys() >= DrawnTask.model_fields.keys() - {"shots", "seed"}


def test_a_task_file_says_no_less():
    """It calls the columns `text` and `label`, and draws nothing."""
    own = {"task", "variant", "text_column", "label_column", "seed", "split_seed", "split_sizes"}
    assert TaskSpec.model_fields.keys() >= DrawnTask.model_fields.keys() - own - {"balanced"}


def test_prompts_are_as_the_options_say(eckart, model, own_task, tmp_path):
    rows = ["--predictions", "rows.jsonl", "--with-prompts"]
    ended = eckart("evaluate", model, *own_task, *FLAGS, *rows, "--json")
    assert ended.status == 0, ended.err
    assert json.loads(ended.out)["task"] == "mine"
    row = json.loads((tmp_path / "rows.jsonl").read_text().splitlines()[0])
    assert row["context"].startswith("Judge each. | review: ")
    assert row["context"].count("! | review: ") == 4, "one for each demonstration"
    assert "verdict: => " in row["context"]


def test_choices(eckart, model, tmp_path):
    rows = [
        {"question": f"what is {i}", "one": "dax", "two": "onyx", "right": i % 2} for i in range(40)
    ]
    (tmp_path / "chosen.jsonl").write_text("\n".join(map(json.dumps, rows)))
    task = ["--data", "chosen.jsonl", "--template", "{{ question }}", "--label-column", "right"]
    ended = eckart("evaluate", model, *task, "--choices", "one,two", "--shots", "2", "--json")
    assert ended.status == 0, ended.err
    (tmp_path / "listed.jsonl").write_text(
        "\n".join(
            json.dumps(
                {"question": row["question"], "both": ["dax", "onyx"], "right": row["right"]}
            )
            for row in rows
        )
    )
    task[1] = "listed.jsonl"
    again = eckart("evaluate", model, *task, "--choices", "both", "--shots", "2", "--json")
    assert again.status == 0, again.err
    assert json.loads(again.out)["accuracy"] == json.loads(ended.out)["accuracy"]


def test_a_sweep_and_a_study_file_read_the_same_task(eckart, model, table, tmp_path):
    """As `search` does, whose trials are among theirs."""
    own = {"data": str(table), "text_column": "review", "label_column": "verdict", **OWN}
    grid = {"layers": [0], "rates": [0.5], "parts": ["mlp"], "shots": [4]}
    study = {"models": [{"name": str(model), "dtype": "float32"}], "tasks": [own], **grid}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(study))
    data = ["--data", table, "--text-column", "review", "--label-column", "verdict", "--shots", "4"]
    said = eckart("sweep", model, *data, *FLAGS, *CUT, "--out", "said")
    assert said.status == 0, said.err
    filed = eckart("sweep", "mine.yaml", "--out", "filed")
    assert filed.status == 0, filed.err
    one = ["--part", "mlp", "--layer", "0", "--rates", "0.5", "--dtype", "float32"]
    searched = eckart("search", model, *data, *FLAGS, *one, "--out", "searched")
    assert searched.status == 0, searched.err
    kept = {name: read_run(tmp_path / name) for name in ("said", "filed", "searched")}
    assert kept["said"].settings == kept["filed"].settings
    assert set(kept["said"].trials) == set(kept["filed"].trials)
    keys = {name: {trial.key for trial in run.trials.values()} for name, run in kept.items()}
    assert keys["searched"] <= keys["said"]
    again = eckart("sweep", "said/study.yaml", "--out", "said")
    assert (again.status, again.out) == (0, said.out)
    plain = eckart("sweep", model, *data, *CUT, "--out", "plain")
    assert plain.status == 0, plain.err
    assert not set(read_run(tmp_path / "plain").trials) & set(kept["said"].trials)


def test_the_probe_reads_the_same_task(eckart, model, own_task):
    found = [
        json.loads(
            eckart("theory", "probe", model, *own_task, *more, "--prompts", "1", "--json").out
        )
        for more in ([], FLAGS)
    ]
    assert [document["task"] for document in found] == ["reviews", "mine"]


class TestWhatASweepIsAskedFor:
    def test_a_model_is_its_argument_as_of_every_verb(self, eckart, model, own_task, tmp_path):
        for name, of in (("argument", [model]), ("option", ["--model", model])):
            ended = eckart("sweep", *of, *own_task, *CUT, "--test", "none", "--out", name)
            assert ended.status == 0, ended.err
        runs = [read_run(tmp_path / name) for name in ("argument", "option")]
        assert runs[0].settings == runs[1].settings

    def test_a_task_is_said_as_to_every_verb(self, eckart, model, own_task, tmp_path):
        (tmp_path / "mine.yaml").write_text("text: review\nlabel: verdict\n")
        dry = ["--data", own_task[1], "--dry-run", "--json"]
        ended = eckart("sweep", model, "--task", "mine.yaml", *CUT, *dry)
        assert ended.status == 0, ended.err
        assert json.loads(ended.out) | {"seconds": 0} == json.loads(
            eckart("sweep", model, "--tasks", "mine.yaml", *CUT, *dry).out
        ) | {"seconds": 0}

    def test_models_are_all_that_are_named(self, eckart, model):
        ended = eckart("sweep", model, "--model", model, "--task", "sst2")
        assert ended.status == 2
        assert "stands twice; a sweep reads each once" in ended.err

    @pytest.mark.parametrize(
        ("asked", "says"),
        [
            (["nothing"], "no study 'nothing', and no folder of a model; known: "),
            (["figure1-smal", "--task", "sst2"], "did you mean 'figure1-small'"),
            (["missing.yaml"], "no study file 'missing.yaml'; is the path right?"),
            (["folder/none", "--task", "sst2"], "folder/none"),
        ],
    )
    def test_what_is_neither(self, eckart, asked, says, monkeypatch):
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        ended = eckart("sweep", *asked)
        assert ended.status == 2
        assert says in ended.err
        assert ended.err.count("error: ") == 1

    def test_what_may_be_either(self, eckart, model, tmp_path):
        (tmp_path / "figure1-small").symlink_to(model)
        ended = eckart("sweep", "figure1-small", "--task", "sst2")
        assert ended.status == 2
        assert "is a study that comes with the package, and a model's folder; say" in ended.err
        assert "no task" in eckart("sweep", "./figure1-small").err
