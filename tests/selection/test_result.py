"""What a finished search says: no more than the test set allows."""

import io
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from families import build, save_family, tiny_tokenizer
from rich.console import Console
from samples import trial

from eckart import Anatomy, Task, search
from eckart.analysis.findings import find
from eckart.records import Edit, Row, Rows, Trial
from eckart.reports.results import outcome_table
from eckart.reports.sentences import summary
from eckart.selection import search as module
from eckart.selection.plan import Plan
from eckart.selection.result import Candidate, SearchResult
from eckart.selection.settings import default_folder
from eckart.statistics.scores import Score
from eckart.weights.conditioning import layer_condition_numbers
from eckart.weights.models import load_model
from eckart.weights.spectrum import matrices, spectra


def rows(right: list[bool]) -> Score:
    """Return a score of two-class rows whose label is always 0."""
    predictions = tuple(0 if ok else 1 for ok in right)
    n = len(right)
    return Score(
        n=n,
        accuracy=sum(right) / n,
        balanced_accuracy=sum(right) / n,
        macro_f1=0.5,
        log_loss=0.5,
        majority_rate=1.0,
        confusion=((sum(right), n - sum(right)), (0, 0)),
        labels=(0,) * n,
        predictions=predictions,
        log_likelihoods=((-1.0, -2.0),) * n,
    )


def rows_of(split: str, n: int) -> Rows:
    return Rows(("a", "b"), tuple(Row(f"{split}:{i}", "text", 0) for i in range(n)))


def conclusion(found: SearchResult) -> str:
    return " ".join(summary(find(found.run)))


def study(fixed: int, broken: int, same: int = 60, rate: float = 0.9) -> SearchResult:
    before = [False] * fixed + [True] * broken + [True] * same
    after = [True] * fixed + [False] * broken + [True] * same
    tried, tested = rows_of("validation", 2), rows_of("test", len(before))
    chosen = (Edit(1, "mlp", rate),) if rate else ()

    def scored(split, edits, score, rows):
        return trial(f"{split} {edits}", split=split, edits=edits, score=score, rows=rows.digest)

    validation = {
        0.0: scored("validation", (), rows([False, True]), tried),
        0.9: scored("validation", (Edit(1, "mlp", 0.9),), rows([bool(rate)] * 2), tried),
    }
    return SearchResult(
        settings={
            "model": "m",
            "task": "t",
            "top_k": 3,
            "combine": "geometric",
            "scoring": "sum",
            "shots": 2,
            "seed": 0,
        },
        labels=("a", "b"),
        part="mlp",
        layer=1,
        rate=rate,
        condition_numbers={0: 3.0, 1: float("inf")},
        candidates=tuple(Candidate(r, {"up": 4}, t, 2) for r, t in validation.items()),
        baseline=scored("test", (), rows(before), tested),
        clipped=scored("test", chosen, rows(after), tested),
        parameters={"dense": 100, "factored": 20, "saved": 80},
        published=(),
        notes=(),
        rows=(tried, tested),
    )


@pytest.mark.parametrize(
    ("fixed", "broken", "says"),
    [(30, 2, "gain"), (2, 30, "loss"), (6, 4, "cannot tell")],
)
def test_the_verdict(fixed, broken, says):
    found = study(fixed, broken)
    n = fixed + broken + 60
    assert (
        found.verdict() == f"{says} with n = {n} test rows and one draw of demonstrations, seed 0"
    )
    assert found.verdict()[1:] in conclusion(found)
    assert found.verdict() in str(found)
    assert f"by {100 * (fixed - broken) / n:+.2f} points" in conclusion(found)
    turned = f"{fixed} fixed, {broken} broken; {fixed + broken} predictions turned)"
    assert turned in conclusion(found)
    assert conclusion(found).endswith(
        "Tried on 2 validation rows: 1 edit beside the unpruned model."
    )


def test_the_verdict_of_no_demonstrations_speaks_of_none():
    found = study(30, 2)
    assert (
        replace(found, settings={**found.settings, "shots": 0})
        .verdict()
        .endswith("and no demonstrations")
    )


def share(trial_: Trial, majority: float) -> Trial:
    """Return a trial on rows whose most frequent label has another share."""
    return replace(trial_, score=replace(trial_.score, majority_rate=majority))


@pytest.mark.parametrize(
    ("fixed", "broken", "majority", "named"),
    [
        (30, 2, 0.95, ["unpruned 0.6739", "clipped 0.9783"]),
        (30, 2, 0.6, []),  # the clipped one does better: that is what clipping gained
        (2, 30, 0.6, ["clipped"]),
        (2, 30, 0.1, []),
    ],
)
def test_a_model_that_does_not_beat_the_most_frequent_label_is_the_first_thing_said(
    fixed, broken, majority, named
):
    found = study(fixed, broken)
    looks = {"baseline": share(found.baseline, majority), "clipped": share(found.clipped, majority)}
    found = replace(found, **looks)
    for said in (conclusion(found), str(found)):
        assert said.startswith(
            "The model learned nothing here, as far as accuracy on n = 92 rows shows: "
        ) == bool(named)
        first = said.partition(";")[0]
        assert all(f"{name}" in first for name in named)
        assert bool(named) == (f"the most frequent label scores {majority:.4f}." in said)


def test_not_to_clip_is_said_plainly():
    found = study(0, 0, rate=0.0)
    assert "nothing is clipped (one draw of demonstrations, seed 0)" in found.verdict()
    assert "nothing is clipped (one draw of demonstrations, seed 0). Tried" in conclusion(found)
    assert conclusion(found).endswith(
        "Tried on 2 validation rows: 1 edit beside the unpruned model."
    )


def test_where_nothing_is_clipped_the_same_model_does_not_stand_there_twice():
    found = study(0, 0, rate=0.0)
    for said in (printed(outcome_table(found)), str(found)):
        assert "unpruned" in said
        assert "clipped " not in said.replace("nothing is clipped", "")
        assert "difference" not in said
    assert "difference" in printed(outcome_table(study(30, 2)))


def printed(table) -> str:
    text = io.StringIO()
    Console(file=text, width=120).print(table)
    return text.getvalue()


def test_the_document_counts_what_it_says():
    found = study(30, 2).to_json()
    assert found["test"]["fixed"] == 30
    assert found["test"]["broken"] == 2
    assert found["test"]["difference"] == pytest.approx(28 / 92)
    assert found["test"]["interval"][0] > 0
    assert found["condition_numbers"] == {"0": 3.0, "1": None}
    assert found["candidates_tried"] == 2


@pytest.fixture(scope="module")
def task(table) -> Task:
    return Task.load(data=table, text_column="review", label_column="verdict", shots=4)


def test_a_published_row_stands_beside_its_model(table, monkeypatch):
    monkeypatch.setattr(module, "identify", lambda name, config: "gpt-j-6b")
    sst2 = Task.load(data=table, text_column="review", label_column="verdict", shots=4, name="sst2")
    found = search(build("gptj"), sst2, rates=[0.5], layer=1, tokenizer=tiny_tokenizer())
    assert [row["source"] for row in found.published] == ["Table 2"]


def test_parameters_count_what_factoring_saves(task):
    found = search(build("llama"), task, rates=[0.9], layer=1, tokenizer=tiny_tokenizer())
    dense = 3 * 32 * 44
    rank = {0.0: 32, 0.9: 3}[found.rate]
    factored = 3 * min(32 * 44, rank * (32 + 44))
    assert found.parameters == {"dense": dense, "factored": factored, "saved": dense - factored}


def test_the_layer_does_not_depend_on_the_dtype(task, tmp_path):
    folder = save_family("llama", tmp_path)
    single = search(load_model(folder), task, part="attn", rates=[0.5])
    half = search(load_model(folder, dtype="bfloat16"), task, part="attn", rates=[0.5])
    assert half.condition_numbers == single.condition_numbers
    assert half.settings["dtype"] == "bfloat16"


def test_exact_numbers_need_no_second_model(task, tmp_path, monkeypatch):
    folder = save_family("llama", tmp_path)
    half = load_model(folder, dtype="bfloat16")
    monkeypatch.setattr("eckart.weights.models.load_checkpoint", None)
    monkeypatch.setattr("eckart.weights.stored.load_checkpoint", None)
    found = search(half, task, part="mlp", rates=[0.5])
    exact = layer_condition_numbers(spectra(matrices(Anatomy.of(build("llama")), "mlp")))
    assert found.condition_numbers == pytest.approx(exact, rel=1e-12)
    live = search(half.model, task, part="mlp", rates=[0.5], tokenizer=half.tokenizer)
    assert live.condition_numbers != found.condition_numbers, "a live model is measured as it is"


def test_rates_that_differ_in_the_last_digit_are_two_trials(task):
    found = search(
        build("llama"), task, rates=[0.5, 0.50000001], layer=1, tokenizer=tiny_tokenizer()
    )
    scores = [candidate.trial.score for candidate in found.candidates]
    assert found.candidates[1].ranks != found.candidates[2].ranks
    assert scores[1] != scores[2]


@pytest.mark.parametrize(
    "name", ["../../../escaped", "/etc/passwd", "..", "a b/c", "n" * 120, "\u4e2d" * 120]
)
def test_a_run_stays_in_its_folder_whatever_the_task_is_called(table, name):
    own = Task.load(data=table, text_column="review", label_column="verdict", shots=2, name=name)
    model = SimpleNamespace(name="models/../m", fingerprint="f", dtype="float32", file=None)
    scorer = SimpleNamespace(
        model=model, task=own, digest=lambda split: split, scoring="sum", reading_key={}
    )
    folder = default_folder(Plan(part="mlp", rates=(0.5,)), scorer)
    assert folder.parent == Path("runs")
    assert len(folder.name.encode()) < 200
    assert folder.name not in (".", "..")
