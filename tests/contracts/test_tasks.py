"""The contract of tasks: what a search, a sweep and a run rely on, whatever is asked for."""

import pytest

from eckart import Task
from eckart.errors import TaskError
from eckart.statistics.scores import METRICS
from eckart.tasks.task import AnyTask


@pytest.fixture(scope="module")
def labels(table) -> AnyTask:
    return Task.load(data=table, text_column="review", label_column="verdict", shots=2)


@pytest.fixture(scope="module")
def variant(tmp_path_factory) -> AnyTask:
    folder = tmp_path_factory.mktemp("task")
    rows = [f"the view {i},{'good' if i % 2 else 'bad'}" for i in range(40)]
    (folder / "rows.csv").write_text("text,label\n" + "\n".join(rows) + "\n")
    (folder / "mood.yaml").write_text(
        "name: mood\ndata: rows.csv\ntemplate: '{{ text }} is'\nlabel: label\n"
        "variants: {asked: {template: 'How is {{ text }}?'}}\n"
    )
    return Task.load(folder / "mood.yaml", variant="asked", shots=3)


@pytest.fixture(scope="module")
def choices(tmp_path_factory) -> AnyTask:
    path = tmp_path_factory.mktemp("data") / "choices.csv"
    rows = [f"the view {i} is,good {i},bad {i},{i % 2}" for i in range(40)]
    path.write_text("question,one,two,right\n" + "\n".join(rows) + "\n")
    return Task.load(
        data=path,
        template="{{ question }}",
        choices=["one", "two"],
        label_column="right",
        shots=1,
    )


@pytest.fixture(scope="module")
def numbers() -> AnyTask:
    tasks = pytest.importorskip("eckart.paper.functions.task")
    return tasks.FunctionTask("linear", dimension=5, shots=4, size=12)


@pytest.fixture(params=["labels", "variant", "choices", "numbers"])
def task(request) -> AnyTask:
    return request.getfixturevalue(request.param)


def test_it_is_a_task(task):
    assert isinstance(task, AnyTask)


def test_its_full_name_is_its_name_and_its_variant(task):
    assert task.full_name == (f"{task.name}:{task.variant}" if task.variant else task.name)


def test_what_a_search_compares_is_one_of_what_it_can(task):
    assert task.metric in task.metrics
    assert (task.metrics == METRICS) == bool(task.labels)


@pytest.mark.parametrize("said", [{"shots": 2}, {"seed": 7}, {"shots": 2, "seed": 7}, {}])
def test_redrawn_is_the_task_with_other_demonstrations(task, said):
    other = task.redrawn(**said)
    asked = {"shots": task.shots, "seed": task.seed, **said}
    assert {"shots": other.shots, "seed": other.seed} == asked
    assert (other.full_name, other.labels, other.metrics) == (
        task.full_name,
        task.labels,
        task.metrics,
    )
    assert other.redrawn(shots=task.shots, seed=task.seed).digest == task.digest


def test_a_digest_is_of_the_demonstrations_and_not_of_the_rows(task):
    assert task.redrawn().digest == task.digest
    others = {task.redrawn(seed=seed).digest for seed in (1, 2, 3)}
    assert task.digest not in others
    assert len(others) == 3
    assert task.redrawn(shots=task.shots - 1).digest != task.digest


def test_a_rows_digest_is_of_the_rows_and_not_of_the_demonstrations(task):
    digests = {split: task.rows_digest(split) for split in ("validation", "test")}
    assert len(set(digests.values())) == 2
    again = task.redrawn()
    assert {split: again.rows_digest(split) for split in digests} == digests


def test_more_demonstrations_than_there_are_rows_are_refused(task):
    with pytest.raises(TaskError, match="shots"):
        task.redrawn(shots=10_000 if task.labels else -1)
