"""Calibrated scorings against numpy on plain log-likelihoods, and several scorings from one
reading."""

import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from families import build, tiny_tokenizer

from eckart import Edit, Task
from eckart.errors import TaskError
from eckart.scoring.evaluator import Evaluator
from eckart.scoring.forward.plain import read_plainly
from eckart.scoring.forward.reader import Reader
from eckart.scoring.methods import METHODS, check_method
from eckart.scoring.requests import build_requests
from eckart.selection.plan import Plan
from eckart.selection.search import run_plan
from eckart.weights.edits import clip
from eckart.weights.models import load_model

EDITS = [Edit(1, "mlp", 0.7)]


@pytest.fixture(scope="module")
def task(table) -> Task:
    return Task.load(data=table, text_column="review", label_column="verdict", shots=4)


@pytest.fixture(scope="module")
def choices(tmp_path_factory) -> Task:
    lines = [f"goal {i},way {i},the other way,{i % 2}" for i in range(30)]
    table = tmp_path_factory.mktemp("choices") / "goals.csv"
    table.write_text("\n".join(["goal,one,two,right", *lines]) + "\n")
    return Task.load(
        data=table,
        template="{{ goal }}",
        choices=["one", "two"],
        label_column="right",
        shots=2,
        split_sizes=(8, 8),
    )


def double(family: str):
    return load_model(build(family).double(), tokenizer=tiny_tokenizer())


def plain(model, prompts) -> np.ndarray:
    requests = build_requests(prompts, model.tokenizer)
    return read_plainly(model.model, requests.without_prefix()).values


def shares(values: np.ndarray) -> np.ndarray:
    """Return the distribution over the labels."""
    likelihoods = np.exp(values - values.max(axis=-1, keepdims=True))
    return likelihoods / likelihoods.sum(axis=-1, keepdims=True)


def after(model, task, prompts, text: str) -> np.ndarray:
    """Score the prompts' continuations after the demonstrations and a query whose every input is
    `text`."""
    empty = task.format.frame(task.shown).before + task.format.query(
        dict.fromkeys(("text", "goal"), text)
    )
    return plain(model, [type(p)(p.id, empty, p.continuations, p.label) for p in prompts])


@pytest.mark.parametrize("edits", [[], EDITS], ids=["unpruned", "clipped"])
@pytest.mark.parametrize("family", ["llama", "gpt2", "bloom"])
@pytest.mark.parametrize("kind", ["labels", "choices"])
def test_calibrated_values_are_those_computed_by_hand(request, kind, family, edits):
    task = request.getfixturevalue("task" if kind == "labels" else "choices")
    model = double(family)
    prompts = task.prompts("validation")
    with clip(model.model, edits):
        sums = plain(model, prompts)
        na, nothing, mask = (after(model, task, prompts, text) for text in ("N/A", "", "[MASK]"))
    mean = (shares(na) + shares(nothing) + shares(mask)) / 3
    expected = {"prior": sums - na, "contextual": np.log(shares(sums) / mean)}
    if kind == "labels":
        expected["batch"] = np.log(shares(sums) / shares(sums).mean(axis=0))
    found = Evaluator(model, task).score([edits], "validation", list(expected))
    for trial, values in zip(found, expected.values(), strict=True):
        assert np.allclose(trial.score.log_likelihoods, values, atol=1e-5)
        assert trial.score.predictions == tuple(values.argmax(axis=1))


@torch.no_grad()
def test_the_mean_of_all_logits_ranks_by_what_the_authors_code_did(choices):
    model = double("llama")

    def mean_logit(context: str, continuation: str) -> float:
        before, whole = (
            model.tokenizer(text)["input_ids"] for text in (context, context + continuation)
        )
        logits = model.model(torch.tensor([whole])).logits[0]
        return float(logits[len(before) - 1 : len(whole) - 1].mean())

    trial = Evaluator(model, choices, scoring="logit")([], "validation")
    expected = [
        [mean_logit(p.context, text) for text in p.continuations]
        for p in choices.prompts("validation")
    ]
    assert np.allclose(trial.score.log_likelihoods, expected, atol=1e-6)
    assert trial.score.predictions == tuple(np.argmax(expected, axis=1))


def usable(task) -> list[str]:
    return [
        method for method in METHODS if method != ("batch" if task.kind == "choices" else "logit")
    ]


@pytest.mark.parametrize("kind", ["labels", "choices"])
def test_several_methods_from_one_reading_equal_one_by_one(request, kind, monkeypatch):
    task = request.getfixturevalue("task" if kind == "labels" else "choices")
    model = load_model(build("llama"), tokenizer=tiny_tokenizer())
    methods = usable(task)
    alone = [Evaluator(model, task, scoring=method)(EDITS, "validation") for method in methods]
    evaluator = Evaluator(model, task)
    evaluator.prepare("validation", methods)
    reader, read = evaluator.prepare("validation").reader, []
    real = Reader.sums
    monkeypatch.setattr(
        Reader,
        "sums",
        lambda reader, *args, **kw: (read.append(reader), real(reader, *args, **kw))[1],
    )
    start = time.perf_counter()
    together = list(evaluator.score([EDITS], "validation", methods))
    elapsed = time.perf_counter() - start
    assert read.count(reader) == 1
    assert [trial.score for trial in together] == [trial.score for trial in alone]
    assert [trial.key for trial in together] == [trial.key for trial in alone]
    assert len({trial.key for trial in together}) == len(methods)
    assert 0 < sum(trial.seconds for trial in together) <= elapsed, (
        "one reading is not counted several times"
    )


def test_without_methods_the_evaluators_own_is_meant(task):
    evaluator = Evaluator(
        load_model(build("gpt2"), tokenizer=tiny_tokenizer()), task, scoring="byte"
    )
    (only,) = evaluator.score([EDITS], "test")
    assert (only.key, only.score) == (evaluator.key(EDITS, "test"), evaluator(EDITS, "test").score)
    assert only.key == evaluator.key(EDITS, "test", "byte") != evaluator.key(EDITS, "test", "sum")


def test_prompts_without_content_are_prepared_once_and_only_where_needed(task, monkeypatch):
    asked = []
    real = Task.null_prompt
    monkeypatch.setattr(
        Task, "null_prompt", lambda self, *args: (asked.append(args[2]), real(self, *args))[1]
    )
    evaluator = Evaluator(load_model(build("llama"), tokenizer=tiny_tokenizer()), task)
    list(evaluator.score([()], "validation", ["sum", "mean", "byte", "batch"]))
    assert asked == []
    for edits in ([], EDITS):
        list(evaluator.score([edits], "validation", ["contextual", "sum"]))
    rows = len(task.validation)
    assert asked == ["N/A"] * rows + [""] * rows + ["[MASK]"] * rows


def test_a_scoring_that_the_unpruned_pass_did_not_need_is_right_for_candidates(task):
    """The pass that leaves states for candidates read no prompts without content, so these begin at
    the bottom."""
    model = load_model(build("llama"), tokenizer=tiny_tokenizer())
    alone = Evaluator(model, task, scoring="contextual")(EDITS, "validation").score
    evaluator = Evaluator(model, task)
    asked = {(): ["sum"], tuple(EDITS): ["contextual"]}
    unpruned, found = evaluator.score(asked, "validation")
    assert [t.setting.scoring for t in (unpruned, found)] == ["sum", "contextual"]
    assert np.allclose(found.score.log_likelihoods, alone.log_likelihoods, atol=1e-5)


def test_some_rows_score_as_they_do_in_the_whole_split(task):
    evaluator = Evaluator(double("llama"), task)
    methods = ["sum", "contextual", "prior"]
    for whole, part in zip(
        evaluator.score([EDITS], "validation", methods),
        evaluator.score([EDITS], "validation[3:7]", methods),
        strict=True,
    ):
        assert np.allclose(part.score.log_likelihoods, whole.score.log_likelihoods[3:7], atol=1e-5)


def test_a_model_that_favours_one_label_is_balanced_by_its_rows(task):
    model = double("llama")
    head = model.model.lm_head
    favoured = model.tokenizer(task.format.label_join + task.labels[0])["input_ids"][-1]
    head.bias = torch.nn.Parameter(torch.zeros(head.out_features, dtype=torch.float64))
    with torch.no_grad():
        head.bias[favoured] = 8.0
    evaluator = Evaluator(model, task)
    skewed, balanced = evaluator.score([()], "all", ["sum", "batch"])
    n = skewed.score.n
    assert sum(label == 0 for label in skewed.score.predictions) == n
    assert 0.25 * n < sum(label == 0 for label in balanced.score.predictions) < 0.75 * n


def test_batch_does_not_see_labels(task):
    model = double("gpt2")
    turned = tuple(replace(example, label=1 - example.label) for example in task.validation)
    asked, other = (
        Evaluator(model, which, scoring="batch")([], "validation").score
        for which in (task, replace(task, validation=turned))
    )
    assert other.labels == tuple(1 - label for label in asked.labels)
    assert other.log_likelihoods == asked.log_likelihoods
    assert np.allclose(np.exp(asked.log_likelihoods).mean(axis=0), 1), (
        "a label is on average as likely as its prior"
    )


def test_batch_needs_all_rows_and_the_same_labels_in_each(task, choices):
    evaluator = Evaluator(load_model(build("llama"), tokenizer=tiny_tokenizer()), task)
    with pytest.raises(TaskError, match=r"all rows of a split.*'validation\[0:4\]'.*a race"):
        list(evaluator.score([()], "validation[0:4]", ["sum", "batch"]))
    with pytest.raises(TaskError, match="its own candidates"):
        Evaluator(evaluator.model, choices, scoring="batch")
    with pytest.raises(TaskError, match="its own candidates"):
        list(Evaluator(evaluator.model, choices).score([()], "validation", ["batch"]))
    with pytest.raises(TaskError, match="no scoring 'best'"):
        list(evaluator.score([()], "validation", ["best"]))
    assert check_method("batch", "classification", "validation") == "batch"


def test_a_race_by_batch_is_refused_before_anything_is_read(task, tmp_path, monkeypatch):
    evaluator = Evaluator(
        load_model(build("llama"), tokenizer=tiny_tokenizer()), task, scoring="batch"
    )
    monkeypatch.setattr(Reader, "sums", None)
    with pytest.raises(TaskError, match="a race, a greedy search"):
        run_plan(Plan(rates=(0.0, 0.5), layer=1, race=True), evaluator, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_search_by_a_calibrated_scoring_records_it(task):
    evaluator = Evaluator(
        load_model(build("llama"), tokenizer=tiny_tokenizer()), task, scoring="contextual"
    )
    study = run_plan(Plan(rates=(0.0, 0.5), layer=1), evaluator)
    assert study.settings["scoring"] == "contextual"
