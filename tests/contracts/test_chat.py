"""A chat is read, searched, kept, exported and labelled as plain prompts are; the plain twin of its
scores is transformers' own template and forward."""

import csv
import json

import numpy as np
import pytest
import torch
from chats import INST, MODES, SYSTEM, chatting, turns
from families import FAMILIES, build, save_family
from fresh import labels
from typer.testing import CliRunner

import eckart
from eckart import Edit, Task, search
from eckart.cli.app import app
from eckart.errors import TaskError
from eckart.exports.dense import export
from eckart.runs import read_run
from eckart.scoring.evaluator import Evaluator
from eckart.scoring.requests import build_requests
from eckart.weights.edits import clip
from eckart.weights.models import load_model

EDIT = Edit(1, "mlp", 0.5)
OWN = {"text_column": "review", "label_column": "verdict", "split_sizes": (4, 6)}


@pytest.fixture(scope="module")
def load(table):
    return lambda chat, shots=2, **more: Task.load(
        data=table, **OWN, shots=shots, chat=chat, **more
    )


@pytest.fixture(scope="module")
def talks(tmp_path_factory):
    """A model that has a chat template, as a folder."""
    folder = tmp_path_factory.mktemp("models") / "talks"
    save_family("llama", folder)
    chatting(SYSTEM, add_bos=True).save_pretrained(folder)
    return folder


@torch.no_grad()
def plainly(model, tokenizer, task: Task, split: str) -> np.ndarray:
    """Return the log-likelihood of every label of every row, one after the other."""
    found = []
    for example in task.examples(split):
        said = turns(task, example, task.shots)
        asked = tokenizer.apply_chat_template(
            said, add_generation_prompt=True, return_tensors="pt", return_dict=False
        )
        for word in task.labels:
            answer = tokenizer(word, add_special_tokens=False, return_tensors="pt")["input_ids"]
            shares = model(torch.cat([asked, answer], 1)).logits[0].double().log_softmax(-1)
            place = torch.arange(asked.shape[1] - 1, asked.shape[1] + answer.shape[1] - 1)
            found.append(shares[place, answer[0]].sum().item())
    return np.reshape(found, (-1, len(task.labels)))


@pytest.mark.parametrize("family", FAMILIES)
def test_scores_are_those_of_a_plain_loop(family, load):
    tokenizer = chatting(SYSTEM, add_bos=True)
    live, task = load_model(build(family), tokenizer=tokenizer), load("multiturn")
    evaluator = Evaluator(live, task)
    trials = {t.edits: t.labelled for t in evaluator.score([(), [EDIT]], "validation")}
    for edits, score in trials.items():
        with clip(live.model, edits):
            expected = plainly(live.model, tokenizer, task, "validation")
        assert np.allclose(score.log_likelihoods, expected, atol=2e-4)


def test_in_one_turn_too(load):
    tokenizer = chatting(SYSTEM, add_bos=True)
    live, task = load_model(build("llama"), tokenizer=tokenizer), load("single")
    found = Evaluator(live, task)([], "validation").labelled.log_likelihoods
    assert np.allclose(found, plainly(live.model, tokenizer, task, "validation"), atol=2e-4)


@pytest.mark.parametrize("add_bos", [True, False])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("template", "once"), [(INST, 1), (INST.replace("{{ bos_token }}", ""), 0)]
)
def test_the_template_alone_says_whether_there_is_a_bos(load, template, once, mode, add_bos):
    tokenizer = chatting(template, add_bos=add_bos)
    task = load(mode).for_tokenizer(tokenizer)
    requests = build_requests(task.prompts("validation"), tokenizer).without_prefix()
    for choices, example in zip(requests.continuations, task.validation, strict=True):
        row = requests.rows[choices[0].row]
        assert row.count(tokenizer.bos_token_id) == once
        said = turns(task, example, task.shots)
        asked = tokenizer.apply_chat_template(said, add_generation_prompt=True)["input_ids"]
        assert row[: len(asked)] == tuple(asked)


def test_a_row_that_is_too_long_shows_fewer_turns(load, monkeypatch):
    tokenizer = chatting(SYSTEM)
    model = build("llama")
    task = load("multiturn", shots=4)
    longest = max(len(tokenizer(p.context)["input_ids"]) for p in
                  task.for_tokenizer(tokenizer).prompts("test"))  # fmt: skip
    monkeypatch.setattr(model.config, "max_position_embeddings", longest - 20)
    evaluator = Evaluator(
        load_model(model, tokenizer=tokenizer), task, truncate_demonstrations=True
    )
    shots = evaluator.fitted("test").shots
    assert min(shots) < 4
    for prompt, shown in zip(evaluator.fitted("test").prompts, shots, strict=True):
        assert prompt.context.count("<|user|>") == shown + 1
    assert evaluator([], "test").labelled.n == 6


def test_a_calibrated_scoring_shows_the_empty_prompts_the_same_turns(load):
    live = load_model(build("llama"), tokenizer=chatting(SYSTEM))
    evaluator = Evaluator(live, load("multiturn"), scoring="prior")
    task = evaluator.task
    (null,) = {task.null_prompt(p).context for p in task.prompts("validation")}
    bare = Evaluator(live, load("multiturn"))([], "validation").labelled.log_likelihoods
    found = evaluator([], "validation").labelled.log_likelihoods
    tokens = live.tokenizer(null, return_tensors="pt", add_special_tokens=False)["input_ids"]
    ends = [live.tokenizer(word, add_special_tokens=False)["input_ids"] for word in task.labels]
    priors = []
    for end in ends:
        read = torch.cat([tokens, torch.tensor([end])], 1)
        with torch.no_grad():
            shares = live.model(read).logits[0, tokens.shape[1] - 1 : -1].log_softmax(-1)
        priors.append(shares.gather(1, torch.tensor(end)[:, None]).sum().item())
    assert np.allclose(np.array(bare) - priors, found, atol=1e-3)


HOW = {"layer": 1, "rates": [0.5], "part": "mlp"}


def test_a_search_goes_on_and_is_exported_with_its_conversation(load, talks, table, tmp_path):
    found = search(talks, load("multiturn"), **HOW, dtype="float32", out=tmp_path / "run")
    kept = read_run(tmp_path / "run")
    again = search(talks, load("multiturn"), **HOW, dtype="float32", out=tmp_path / "run")
    assert again.to_json()["test"] == found.to_json()["test"]
    assert read_run(tmp_path / "run").trials.keys() == kept.trials.keys()
    with pytest.raises(eckart.errors.EckartError, match="prompts"):
        search(talks, load("single"), **HOW, dtype="float32", out=tmp_path / "run")

    saved = export(tmp_path / "run", tmp_path / "out", unclipped=True)
    assert "<|user|>" in (tmp_path / "out" / "prompt.jinja").read_text()
    task = load("multiturn")
    rows = list(csv.DictReader(table.read_text(encoding="utf-8").splitlines()))
    asked = [{"review": rows[int(e.id.partition(":")[2])]["review"]} for e in task.test]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in asked))
    trial = Evaluator(load_model(talks, dtype="float32"), task).evaluate(
        saved.recipe.parsed, "test"
    )
    expected = [task.labels[p] for p in trial.score.predictions]
    assert labels(tmp_path / "out", tmp_path / "rows.jsonl") == expected
    for source in (tmp_path / "run", tmp_path / "out"):
        said = eckart.predict(source, asked)
        assert [row["prediction"] for row in said] == expected


def invoke(*arguments):
    return CliRunner().invoke(app, list(map(str, arguments)), catch_exceptions=True)


def typed(table, *more):
    return ("--data", table, "--text-column", "review", "--label-column", "verdict", "--shots", "2",
            "--split-sizes", "4,6", *more)  # fmt: skip


def test_show_prints_the_conversation(talks, table, load):
    ran = invoke("evaluate", talks, *typed(table, "--chat", "multiturn", "--show", "1"))
    task = load("multiturn").for_tokenizer(chatting(SYSTEM))
    assert ran.exit_code == 0, ran.output
    assert task.prompt(task.validation[0]).context in ran.output
    assert "chat template, demonstrations as turns" in ran.output


def test_a_sweep_keeps_its_conversation_for_new_rows(talks, table, tmp_path):
    out = ("--out", tmp_path / "run")
    how = ("--layers", "1", "--parts", "mlp", "--rates", "0,0.5", "--chat", "single")
    ran = invoke("sweep", talks, *typed(table), *how, *out)
    assert ran.exit_code == 0, ran.output
    (kept,) = read_run(tmp_path / "run").portable.values()
    assert kept["format"]["chat"] == {"mode": "single", "template": None, "tokens": {}}
    ran = invoke("predict", tmp_path / "run", "--text", "good food", "--format", "jsonl")
    assert ran.exit_code == 0, ran.output
    assert "prediction" in ran.stdout


def test_a_model_without_a_template_is_refused_in_a_line(model, table):
    with pytest.raises(TaskError, match="has no chat template"):
        Evaluator(load_model(model), Task.load(data=table, **OWN, shots=2, chat="single"))


def test_where_the_prompts_are_another_programs_a_chat_is_refused():
    pytest.importorskip("lm_eval")
    with pytest.raises(TaskError, match="leave out chat"):
        Task.load("lm-eval:copa", chat="single")
