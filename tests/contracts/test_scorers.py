"""What every scorer promises: one verb, whatever the task asks for."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from families import build, tiny_tokenizer

from eckart import Edit, Task
from eckart.errors import EditError, NotANumberError, TaskError
from eckart.records import Trial
from eckart.scoring.evaluator import Evaluator, scorer_of
from eckart.scoring.scorer import Scorer
from eckart.selection.recorded import Recorded
from eckart.weights.models import load_model

Make = Callable[[], Scorer]


@pytest.fixture(scope="module")
def labels(table) -> Make:
    task = Task.load(data=table, text_column="review", label_column="verdict", shots=2)
    return lambda: Evaluator(load_model(build("llama"), tokenizer=tiny_tokenizer()), task)


@pytest.fixture(scope="module")
def choices(tmp_path_factory) -> Make:
    path = tmp_path_factory.mktemp("data") / "choices.csv"
    rows = [f"the view {i} is,good {i},bad {i},{i % 2}" for i in range(40)]
    path.write_text("question,one,two,right\n" + "\n".join(rows) + "\n")
    task = Task.load(
        data=path,
        template="{{ question }}",
        choices=["one", "two"],
        label_column="right",
        shots=0,
        split_sizes=(12, 12),
    )
    return lambda: Evaluator(load_model(build("gpt2"), tokenizer=tiny_tokenizer()), task)


@pytest.fixture(scope="module")
def numbers() -> Make:
    loading = pytest.importorskip("eckart.paper.functions.loading")
    tasks = pytest.importorskip("eckart.paper.functions.task")
    task = tasks.FunctionTask("linear", dimension=5, shots=4, size=12)
    return lambda: scorer_of(task, loading.loaded_model("linear-5", device="cpu"))


@pytest.fixture(params=["labels", "choices", "numbers"])
def make(request) -> Make:
    return request.getfixturevalue(request.param)


@pytest.fixture
def scorer(make) -> Scorer:
    return make()


CANDIDATES = [
    (Edit(0, "attn", 0.9),),
    (Edit(1, "mlp", 0.5),),
    (),
    (Edit(-1, "attn", 0.5), Edit(0, "mlp", 0.9)),
    (Edit(-1, "mlp", 0.5),),
    (Edit(1, "mlp", 0.0),),  # the unpruned model once more
]


def values(trial: Trial) -> np.ndarray:
    found = trial.score
    return np.array(found.log_likelihoods if hasattr(found, "log_likelihoods") else found.errors)


def readings(scorer: Scorer, monkeypatch) -> list:
    """What a scorer reads from now on."""
    seen, real = [], scorer.outcomes

    def counted(edits, split, scorings):
        seen.append((edits, split, tuple(scorings)))
        return real(edits, split, scorings)

    monkeypatch.setattr(scorer, "outcomes", counted)
    return seen


def test_each_candidate_is_read_once_and_named_as_trials_name_it(scorer, monkeypatch):
    seen = readings(scorer, monkeypatch)
    trials = list(scorer.score(CANDIDATES, "validation"))
    assert [trial.edits for trial in trials] == list(scorer.asked(CANDIDATES, "validation"))
    assert len(trials) == len(seen) == len({scorer.canonical(edits) for edits in CANDIDATES})
    for trial in trials:
        assert trial.key == scorer.key(trial.edits, "validation")
        assert trial.setting == scorer.setting
        assert trial.rows == scorer.rows("validation").digest
        assert trial.score.n == len(scorer.rows("validation").rows)
        assert (trial.status, trial.split, trial.error) == ("done", "validation", None)
        assert trial.seconds > 0


def test_the_unpruned_model_comes_first_then_the_deepest(scorer):
    first, *others = scorer.asked(CANDIDATES, "validation")
    assert first == ()
    lowest = [min(edit.layer for edit in edits) for edits in others]
    assert lowest == sorted(lowest, reverse=True)


def test_together_in_any_order_is_as_alone(make):
    alone = {}
    for edits in CANDIDATES:
        (trial,) = make().score([edits], "validation")
        alone[trial.edits] = trial
    scorer = make()
    for candidates in (CANDIDATES, CANDIDATES[::-1], CANDIDATES[:2]):
        for trial in scorer.score(candidates, "validation"):
            assert trial.key == alone[trial.edits].key
            assert np.allclose(values(trial), values(alone[trial.edits]), atol=1e-5)


def test_scorer_of_one_is_the_verb_on_one(scorer):
    (trial,) = scorer.score([CANDIDATES[0]], "test")
    assert scorer(CANDIDATES[0], "test").score == trial.score


def test_some_rows_are_those_of_the_whole(scorer):
    (whole,) = scorer.score([CANDIDATES[1]], "validation")
    (part,) = scorer.score([CANDIDATES[1]], "validation[3:7]")
    assert np.allclose(values(part), values(whole)[3:7], atol=1e-5)
    assert part.rows == whole.rows
    assert part.key != whole.key


def test_trials_come_one_by_one_and_the_model_is_left_as_it_was(scorer, monkeypatch):
    seen = readings(scorer, monkeypatch)
    before = {name: t.clone() for name, t in scorer.model.model.state_dict().items()}
    trials = scorer.score(CANDIDATES, "validation")
    next(trials)
    assert len(seen) == 1
    next(trials)
    assert len(seen) == 2
    trials.close()
    after = scorer.model.model.state_dict()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())


def test_a_call_within_a_call_changes_neither(make):
    plain = {t.edits: values(t) for t in make().score(CANDIDATES, "validation")}
    scorer = make()
    for trial in scorer.score(CANDIDATES, "validation"):
        within = scorer(CANDIDATES[1], "validation")
        assert np.allclose(values(within), plain[CANDIDATES[1]], atol=1e-5)
        assert np.allclose(values(trial), plain[trial.edits], atol=1e-5)


def test_scorings_of_each_candidate(scorer, monkeypatch):
    seen = readings(scorer, monkeypatch)
    edits = CANDIDATES[0]
    trials = list(scorer.score({(): [scorer.scoring], edits: []}, "validation", [scorer.scoring]))
    assert [trial.edits for trial in trials] == [(), edits]
    assert [trial.setting.scoring for trial in trials] == [scorer.scoring] * 2
    assert len(seen) == 2


@pytest.mark.parametrize(
    ("candidates", "scorings", "error"),
    [([()], ["best"], TaskError), ([(), (Edit(99, "mlp", 0.5),)], [], EditError)],
)
def test_what_cannot_be_asked_is_refused_before_anything_is_read(
    scorer, monkeypatch, candidates, scorings, error
):
    seen = readings(scorer, monkeypatch)
    with pytest.raises(error):
        list(scorer.score(candidates, "validation", scorings))
    assert seen == []


def test_a_candidate_that_gives_no_numbers_fails_and_the_others_do_not(scorer, monkeypatch):
    real = scorer.outcomes

    def outcomes(edits, split, scorings):
        if edits == CANDIDATES[1]:
            raise NotANumberError("these overflow")
        return real(edits, split, scorings)

    monkeypatch.setattr(scorer, "outcomes", outcomes)
    trials = {trial.edits: trial for trial in scorer.score(CANDIDATES[:3], "validation")}
    failed = trials.pop(CANDIDATES[1])
    assert (failed.status, failed.score, failed.error) == ("failed", None, "these overflow")
    assert failed.key == scorer.key(CANDIDATES[1], "validation")
    assert all(trial.status == "done" for trial in trials.values())
    with pytest.raises(NotANumberError, match="these overflow"):
        scorer(CANDIDATES[1], "validation")


def test_another_model_is_scored_alike(scorer):
    again = scorer.on(scorer.model)
    assert again.key(CANDIDATES[0], "test") == scorer.key(CANDIDATES[0], "test")
    assert again([], "test").score == scorer([], "test").score


def test_tokens_are_counted_without_reading(scorer, monkeypatch):
    seen = readings(scorer, monkeypatch)
    assert scorer.tokens("validation") > len(scorer.rows("validation").rows)
    assert seen == []


def test_recorded_without_a_ledger_is_the_scorer(scorer):
    plain = [trial.key for trial in scorer.score(CANDIDATES, "test")]
    assert [trial.key for trial in Recorded(scorer, None).score(CANDIDATES, "test")] == plain
