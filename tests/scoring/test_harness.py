"""Tasks of lm-evaluation-harness, scored by our evaluator, against its own runner; and its runner
with our edits. All but the refusals need it: pip install 'eckart[lm-eval]'."""

import json
import random
import re
import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest

from eckart import EckartError, Edit, Task, evaluate, search, sweep
from eckart.errors import TaskError
from eckart.exports.choices import Chosen
from eckart.exports.harness import parse_edits, register
from eckart.exports.recipe import Recipe
from eckart.tasks import harness_files

needs_harness = pytest.mark.skipif(
    find_spec("lm_eval") is None,
    reason="needs lm-evaluation-harness: pip install 'eckart[lm-eval]'",
)
WORDS = ["the", "food", "is", "good", "bad", "best", "town", "view"]
EDIT = Edit(1, "mlp", 0.5)
TASKS = {
    # Candidates of each row, other demonstrations for each row, and a split to choose with.
    "pick": """
        test_split: test
        doc_to_text: "{{q}}\\nAnswer:"
        doc_to_choice: "{{[a, b]}}"
        doc_to_target: y
        num_fewshot: 2
    """,
    # Classes; the context ends in white space, which goes to the continuation.
    "sort": """
        description: "Sort these.\\n\\n"
        doc_to_text: "{{q}} Is it? "
        doc_to_choice: ["good", "bad town"]
        doc_to_target: y
        target_delimiter: ""
        fewshot_delimiter: "\\n"
    """,
    # The answer as a text; as its COPA has it, with spaces on both sides; one row has no answer.
    "follow": """
        doc_to_text: "{{q}} because"
        doc_to_choice: "{{[' ' + a, ' ' + b]}}"
        doc_to_target: "{{' ' + (c if y else a)}}"
        fewshot_config: {sampler: first_n}
    """,
}


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    """Three task files, each with its rows beside it."""
    folder, draw = tmp_path_factory.mktemp("harness"), random.Random(0)

    def row(number):
        q, a, b = (" ".join(draw.choices(WORDS, k=k)) for k in (6, 2, 4))
        c = "nothing" if number == 4 else b
        return {"q": f"{q} {number}", "a": a, "b": b, "c": c, "y": number % 3 % 2}

    files = {}
    for split, count in (("train", 9), ("validation", 14), ("test", 10)):
        files[split] = str(folder / f"{split}.jsonl")
        lines = [json.dumps(row(number)) for number in range(count)]
        (folder / f"{split}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    for name, text in TASKS.items():
        head = f"task: {name}\ndataset_path: json\noutput_type: multiple_choice\n"
        head += f"dataset_kwargs: {{data_files: {json.dumps(files)}}}\n"
        head += "training_split: train\nvalidation_split: validation\n"
        head += "metric_list: [{metric: acc}, {metric: acc_norm}]\n"
        (folder / f"{name}.yaml").write_text(head + re.sub("^ +", "", text, flags=re.M))
    return folder


@pytest.fixture(autouse=True)
def _quiet(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path))


def its_own(model, task, shots, seed=1234, name="hf", **options):
    """Return the accuracies and every document's log-likelihoods by its own runner."""
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    register()
    found = simple_evaluate(
        model=name,
        model_args={"pretrained": str(model), "dtype": "float32", **options},
        tasks=[str(task)],
        num_fewshot=shots,
        fewshot_random_seed=seed,
        task_manager=TaskManager(include_defaults=False),
        bootstrap_iters=0,
        device="cpu",
        batch_size=4,
    )
    (samples,), (result,) = found["samples"].values(), found["results"].values()
    samples = sorted(samples, key=lambda sample: sample["doc_id"])
    values = [[float(value) for value, _ in s["filtered_resps"]] for s in samples]
    return result["acc,none"], result["acc_norm,none"], np.array(values)


@needs_harness
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize(
    ("name", "shots"), [("pick", None), ("sort", 0), ("sort", 3), ("follow", 1)]
)
def test_ours_are_its_own_numbers(tasks, model, name, shots, tmp_path):
    file = tasks / f"{name}.yaml"
    task = Task.load(f"lm-eval:{file}", shots=shots)
    assert task.shots == (2 if shots is None else shots)
    recipe = Recipe(eckart="0.1.0", model=str(model), edits=(str(EDIT),), dtype="float32")
    (tmp_path / "eckart.json").write_text(recipe.text(), encoding="utf-8")
    said = {"edits": str(EDIT)} if shots else {"recipe": str(tmp_path)}
    for edits, its in (((), {}), ((EDIT,), {"name": "eckart", **said})):
        acc, acc_norm, values = its_own(model, file, shots, **its)
        ours = {
            scoring: evaluate(model, task, edits, split="all", scoring=scoring, dtype="float32")
            for scoring in ("sum", "character")
        }
        if name == "follow":  # the row without an answer is wrong, as it counts
            assert any("left out 1 row" in note for note in task.notes)
            values, n = np.delete(values, 4, axis=0), len(values)
            acc, acc_norm = acc * n / (n - 1), acc_norm * n / (n - 1)
        assert np.allclose(ours["sum"].score.log_likelihoods, values, atol=1e-4)
        assert ours["sum"].score.accuracy == pytest.approx(acc)
        assert ours["character"].score.accuracy == pytest.approx(acc_norm)


@needs_harness
@pytest.mark.filterwarnings("default")
def test_the_first_seed_is_its_own_and_the_next_its_next(tasks, model):
    file = tasks / "pick.yaml"
    for seed in (0, 1):
        task = Task.load(f"lm-eval:{file}").redrawn(seed=seed)
        ours = evaluate(model, task, split="test", dtype="float32")
        values = {
            p.id: row for p, row in zip(ours.prompts, ours.score.log_likelihoods, strict=True)
        }
        its = its_own(model, file, None, seed=1234 + seed)[2]
        assert np.allclose([values[f"test:{i}"] for i in range(len(its))], its, atol=1e-4)


@needs_harness
def test_rows_to_choose_with_are_none_of_those_that_are_tested(tasks):
    both = Task.load(f"lm-eval:{tasks / 'pick.yaml'}", split_sizes="5")
    assert {row.id.split(":")[0] for row in both.validation} == {"validation"}
    assert {row.id.split(":")[0] for row in both.test} == {"test"}
    assert (len(both.validation), len(both.test), len(both.all)) == (5, 10, 10)
    one = Task.load(f"lm-eval:{tasks / 'sort.yaml'}", shots=1)
    assert (one.kind, one.labels, both.kind) == ("classification", ("good", "bad town"), "choices")
    assert len(one.validation) == len(one.test) == 7
    assert not {row.id for row in one.validation} & {row.id for row in one.test}
    assert any("validation and test divide" in note for note in one.notes)
    other = one.redrawn(seed=1)
    assert other.digest != one.digest
    assert other.test == one.test == one.sealed_from([other]).test
    assert one.with_fewer(0).shots == 0


@needs_harness
def test_a_search_and_its_guard(tasks, model, tmp_path):
    task = Task.load(f"lm-eval:{tasks / 'sort.yaml'}", shots=2)
    result = search(
        *(str(model), task),
        rates=[0.5],
        layer="0",
        guard=True,
        guard_task=[f"lm-eval:{tasks / 'pick.yaml'}"],
        rivals=True,
        out=tmp_path / "run",
        dtype="float32",
    )
    assert "lm-eval-sort" in str(result)
    assert Chosen.of_result(result, task).task is None  # no recipe says how its rows are asked
    named = {"task": f"lm-eval:{tasks / 'sort.yaml'}"}
    grid = sweep(
        *(str(model), named),
        layers=[0],
        parts="mlp",
        rates=[0.5],
        shots=[0, 2],
        out=tmp_path / "grid",
        dtype="float32",
    )
    assert {line.setting.task for line in grid.lines} == {"lm-eval-sort"}
    assert {line.setting.shots for line in grid.lines} == {0, 2}


@needs_harness
@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("doc_to_target: !function code.answer", "lm-eval\\+code:"),
        ("include: other.yaml", "!function process.rows"),
        ("class: eckart.Task", "runs code of its own \\(class\\)"),
        ('doc_to_text: "{{ q.__class__.__mro__ }}"', "SecurityError"),
        ("output_type: generate_until", "generate_until"),
        ("doc_to_target: '{{ [0, 1] }}'", "several of its candidates are right"),
        ("doc_to_target: '{{ ghost }}'", "ghost"),
        ("num_fewshot: 99", "demonstrations"),
        ("  broken: [", "broken YAML"),
    ],
)
def test_what_a_file_may_not_do(tasks, tmp_path, line, said):
    (tmp_path / "other.yaml").write_text("process_docs: !function process.rows")
    (tmp_path / "code.py").write_text("raise SystemExit('it ran')")
    kept = re.sub(f"^{line.split(':')[0]}:.*$", "", (tasks / "sort.yaml").read_text(), flags=re.M)
    (tmp_path / "mine.yaml").write_text(f"{kept}\n{line}\n", encoding="utf-8")
    with pytest.raises(TaskError, match=said) as raised:
        Task.load(f"lm-eval:{tmp_path / 'mine.yaml'}")
    assert "\n" not in str(raised.value)


@needs_harness
def test_code_that_is_asked_for_is_run(tasks, tmp_path):
    (tmp_path / "code.py").write_text("def answer(row):\n    return 1 - row['y']\n")
    text = (tasks / "sort.yaml").read_text().replace("target: y", "target: !function code.answer")
    (tmp_path / "mine.yaml").write_text(text)
    task = Task.load(f"lm-eval+code:{tmp_path / 'mine.yaml'}")
    plain = Task.load(f"lm-eval:{tasks / 'sort.yaml'}")
    assert [row.label for row in task.all] == [1 - row.label for row in plain.all]


@needs_harness
def test_its_own_command_line_knows_the_model(tasks, model):
    asked = f"pretrained={model},dtype=float32,edits=1:mlp:0.5+0:attn:0.5"
    ended = subprocess.run(
        [
            *(sys.executable, "-m", "eckart.exports.harness", "--model", "eckart"),
            *("--model_args", asked, "--tasks", str(tasks / "sort.yaml")),
            *("--num_fewshot", "2", "--device", "cpu"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    edits = parse_edits("1:mlp:0.5+0:attn:0.5")
    task = Task.load(f"lm-eval:{tasks / 'sort.yaml'}", shots=2)
    ours = evaluate(model, task, edits, split="all", dtype="float32")
    assert f"{ours.score.accuracy:.4f}" in ended.stdout, ended.stderr
    with pytest.raises(EckartError, match="no edits"):
        its_own(model, tasks / "sort.yaml", 0, name="eckart")


def test_without_the_package_one_line_says_so(monkeypatch):
    monkeypatch.setattr(harness_files, "installed", lambda name: None)
    with pytest.raises(TaskError, match=r"pip install 'eckart\[lm-eval\]'"):
        Task.load("lm-eval:copa")
    with pytest.raises(TaskError, match="brings its own data and prompts; leave out template"):
        Task.load("lm-eval:copa", template="{{ text }}")
