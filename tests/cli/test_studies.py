"""Study files: every shipped one is read, flags go before the file, and the small ones run."""

import json
from pathlib import Path

import pytest
from results import refused

from eckart.errors import StudyError
from eckart.records import RATES
from eckart.runs import read_run
from eckart.sweeps.files import read_study, shipped
from eckart.tasks import Task

PAPER = {"figure1": 3, "figure2": 1, "figure3": 0, "figure4": 7}
BESIDE = Path(__file__).parents[3]
"""The folder in which the repository lies."""


@pytest.mark.parametrize("name", shipped())
def test_every_shipped_study_is_read(name):
    study = read_study(name, {"models": "gpt2"} if name.endswith("-small") else {})
    assert study.parts == ("attn", "mlp")
    if name in PAPER:
        assert study.rates == RATES
        assert [model.name for model in study.models] == [
            "EleutherAI/gpt-j-6b",
            "meta-llama/Llama-2-7b-hf",
        ]
        assert len(study.tasks) == PAPER[name]


def test_there_is_a_small_one_for_every_figure():
    small = {name.removesuffix("-small") for name in shipped() if name.endswith("-small")}
    assert small == {*PAPER, "calibration", "layers"}


@pytest.mark.parametrize("name", [name for name in shipped() if name.startswith("real-")])
def test_what_the_studies_of_a_real_model_read_lies_beside_the_repository(name):
    study = read_study(name)
    read = [model.name for model in study.models] + [task.data for task in study.tasks]
    folders = {Path(path).relative_to(BESIDE).parts[0] for path in read}
    assert folders <= {"shared", "models"}
    assert all(Path(path).is_file() for path in study.guard_task)


SMALL = [name for name in shipped() if name.endswith("-small")]


@pytest.mark.parametrize("name", SMALL)
def test_a_small_study_is_of_anybodys_model_and_of_the_hubs_rows(eckart, name):
    refused(eckart("sweep", name), "there is no model; name a hub id or a folder, as in --model")
    assert not any(task.data for task in read_study(name, {"models": "gpt2"}).tasks)


def test_a_quick_look_is_what_nobody_said_otherwise(eckart, model, own_task, tmp_path):
    (tmp_path / "mine.yaml").write_text("tasks: [{name: mine}]\nseeds: 0..4\nlayers: 0\n")
    line = ["sweep", "mine.yaml", "--model", model, *own_task, "--quick", "--dry-run", "--json"]
    found = json.loads(eckart(*line, "--rates", "0.9", "--split-sizes", "20,8").out)
    assert (found["units"], found["rows"]) == (1, 28)
    assert found["trials"] == (1 + 2) * 2
    refused(eckart(*line), "such as --split-sizes 25,25")


@pytest.mark.parametrize("name", SMALL)
def test_a_cut_of_every_small_study_runs(eckart, some_rows, model, name):
    cut = ["--model", model, "--split-sizes", "4,4"]
    tasks = [str(task.task) for task in read_study(name, {"models": "gpt2"}).tasks]
    if tasks:
        cut += ["--seeds", "0", "--shots", "2", "--rates", "0.9", "--layers", "-1"]
        cut += ["--data", some_rows if tasks[1:] else some_rows / tasks[0]]
    ended = eckart("sweep", name, *cut, "--out", "run")
    assert ended.status == 0, ended.err
    assert "run: run" in ended.err


def test_flags_go_before_the_file(tmp_path):
    (tmp_path / "study.yaml").write_text(
        "models: [{name: gpt2, dtype: bfloat16}]\ntasks: [sst2, {task: rte, data: rows}]\nseeds:"
        " 0..4\n"
    )
    plain = read_study(tmp_path / "study.yaml")
    assert (plain.seeds, plain.models[0].dtype) == ((0, 1, 2, 3, 4), "bfloat16")
    assert plain.tasks[1].data == str(tmp_path / "rows"), "relative to the file"
    said = {
        "seeds": "7",
        "dtype": "float32",
        "variant": "released",
        "data": "all",
        "layers": "0,-1",
    }
    study = read_study(tmp_path / "study.yaml", said, tmp_path / "desk")
    assert (study.seeds, study.models[0].dtype, study.layers) == ((7,), "float32", (0, -1))
    assert [task.variant for task in study.tasks] == ["released"] * 2
    assert [task.data for task in study.tasks] == [
        str(tmp_path / "desk" / "all" / name) for name in ("sst2", "rte")
    ]


def test_a_zero_is_something_said(eckart, model, own_task, tmp_path):
    (tmp_path / "mine.yaml").write_text(f"models: [{model}]\ntasks: [{{split_seed: 3}}]\n")
    zero = ["--split-seed", "0", "--cache-memory", "0", "--layers", "0", "--rates", "0.5"]
    ended = eckart("sweep", "mine.yaml", *own_task, *zero, "--out", "run", "--json")
    assert ended.status == 0, ended.err
    study = read_study(tmp_path / "run" / "study.yaml")
    assert (study.tasks[0].split_seed, study.cache_memory) == (0, 0)


def test_the_data_of_several_tasks_is_named_by_their_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a.yaml", "b.yaml"):
        (tmp_path / name).write_text("x: 1\n")
    study = read_study(None, {"models": "gpt2", "tasks": "a.yaml,b.yaml,sst2", "data": "all"})
    assert [task.data for task in study.tasks] == [
        str(tmp_path / "all" / name) for name in ("a", "b", "sst2")
    ]
    (tmp_path / "study.yaml").write_text(
        "models: gpt2\ntasks: [sst2, {name: mine, data: rows.csv}]\n"
    )
    with pytest.raises(StudyError, match="task 'mine' has no 'task'"):
        read_study(tmp_path / "study.yaml", {"data": "all"})


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("models: [{name: gpt2, live: true}]\ntasks: [sst2]\n", "live"),
        ("models: [gpt2]\ntasks: [{task: sst2, digest: abc}]\n", "digest"),
    ],
)
def test_no_file_names_what_lies_in_memory(tmp_path, text, key):
    (tmp_path / "study.yaml").write_text(text)
    with pytest.raises(StudyError, match=f"'{key}' is for what lies in the memory"):
        read_study(tmp_path / "study.yaml")


@pytest.mark.parametrize(
    "text", ["models: {a: b}\n", "models: [[x]]\n", "tasks: [sst2]\n", "models: [gpt2]\nseeds: x\n"]
)
def test_what_a_study_cannot_say(tmp_path, text):
    (tmp_path / "study.yaml").write_text(text)
    with pytest.raises(StudyError) as caught:
        read_study(tmp_path / "study.yaml")
    assert "\n" not in str(caught.value)


def test_the_resolved_study_runs_again(eckart, model, table, tmp_path):
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "rows.csv").write_bytes(Path(table).read_bytes())
    (tmp_path / "here" / "mine.yaml").write_text(
        f"models: [{model}]\n"
        "tasks: [{data: rows.csv, text_column: review, label_column: verdict}]\n"
        "layers: [-1]\nrates: [0.5]\nshots: [2]\n"
    )
    first = eckart("sweep", "here/mine.yaml", "--out", "run", "--json")
    assert first.status == 0, first.err
    kept = read_run(tmp_path / "run")
    again = eckart("sweep", "run/study.yaml", "--out", "run", "--json")
    assert (again.status, again.out) == (0, first.out)
    assert read_run(tmp_path / "run") == kept
    assert eckart("sweep", "run/study.yaml", "--out", "other").status == 0
    assert set(read_run(tmp_path / "other").trials) == set(kept.trials)


def test_a_dry_run_keeps_nothing(eckart, model, table, tmp_path):
    grid = [
        "sweep",
        "--model",
        model,
        "--data",
        table,
        "--text-column",
        "review",
        "--label-column",
        "verdict",
    ]
    cut = [
        "--layers",
        "0,1",
        "--rates",
        "0.5,0.9",
        "--shots",
        "0,2",
        "--seeds",
        "0..2",
        "--split-sizes",
        "12,12",
        "--out",
        "run",
    ]
    ended = eckart(*grid, *cut, "--test", "all", "--dry-run")
    assert ended.status == 0, ended.err
    assert "units to check (models, layers, parts, tasks, the length of every row): 4" in ended.err
    assert "4 units, up to 72 trials, 0 of them kept already" in ended.out
    assert not (tmp_path / "run").exists()
    done = eckart(*grid, *cut, "--test", "all")
    assert done.status == 0
    first, *_, last = done.out.splitlines()
    assert first.startswith("8 choices: ")
    assert " cannot tell on test rows" in first
    assert first.endswith("(not corrected for their number; 'eckart report run' corrects them)")
    assert last == "72 trials"
    assert len(read_run(tmp_path / "run").trials) == 72
    assert (
        "72 trials, 72 of them kept already"
        in eckart(*grid, *cut, "--test", "all", "--dry-run").out
    )


@pytest.mark.parametrize("options", [[], ["--dry-run"]])
def test_a_sweep_reads_a_task_once(eckart, model, own_task, monkeypatch, options):
    read, of = [], Task.of
    monkeypatch.setattr(Task, "of", lambda said: read.append(said) or of(said))
    cut = ["--layers", "0", "--rates", "0.5", "--seeds", "0,1", *own_task]
    assert eckart("sweep", "--model", model, *cut, *options).status == 0
    assert len(read) == 1
