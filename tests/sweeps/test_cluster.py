"""The same sweep on a real Ray cluster of two nodes, one of which dies on the way."""

from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import pytest
from families import save_family

from eckart import sweep
from eckart.errors import RunError, StudyError
from eckart.weights.models import load_model

ray = pytest.importorskip("ray", reason="needs Ray: pip install 'eckart[cluster]'")
pytestmark = pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)

GRID = {"rates": [0.5, 0.9], "shots": [0, 2], "seeds": "0..2", "scorings": ["sum", "batch"]}


@pytest.fixture(scope="module")
def cluster():
    from ray.cluster_utils import Cluster

    nodes = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False}
    )
    nodes.add_node(num_cpus=1)
    ray.init(address=nodes.address, log_to_driver=False)
    yield nodes
    ray.shutdown()
    nodes.shutdown()


@pytest.fixture
def task(table) -> dict:
    return {"data": str(table), "text_column": "review", "label_column": "verdict"}


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory) -> str:
    return str(save_family("llama", tmp_path_factory.mktemp("cluster") / "llama"))


def same(one, other) -> None:
    """Check that two runs hold the same, timings aside."""
    trials = [{key: replace(t, seconds=0) for key, t in r.run.trials.items()} for r in (one, other)]
    assert trials[0] == trials[1]
    assert (one.run.rows, one.run.models, one.run.spectra) == (
        other.run.rows,
        other.run.models,
        other.run.spectra,
    )


def test_a_node_that_dies_costs_nothing_but_time(cluster, model_folder, task, tmp_path):
    from eckart.sweeps.cluster import on_cluster

    found = Counter()

    def disturbed(job):
        def watch(event):
            if sum(found.values()) == 4:
                cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)
                cluster.add_node(num_cpus=1)
            if hasattr(event, "key"):
                found[event.key] += 1

        on_cluster("auto")(replace(job, watch=watch))

    local = sweep(model_folder, task, **GRID, out=tmp_path / "local")
    spread = sweep(model_folder, task, **GRID, out=tmp_path / "cluster", execute=disturbed)
    same(local, spread)
    assert set(found) == set(local.run.trials)
    assert max(found.values()) == 1, "what was kept was not computed again"


def test_a_fault_on_a_worker_is_one_line(cluster, model_folder, task, tmp_path):
    from eckart.sweeps.cluster import on_cluster

    sweep(model_folder, task, rates=[0.5], shots=[2], layers=[0], out=tmp_path / "run")
    save_family("llama", model_folder, seed=1)
    with pytest.raises(RunError, match="has other weights"):
        sweep(
            model_folder,
            task,
            rates=[0.5],
            shots=[2],
            layers=[0],
            out=tmp_path / "run",
            execute=on_cluster(),
        )


def test_a_worker_with_other_data_is_refused(cluster, model_folder, task, tmp_path):
    from eckart.sweeps.cluster import on_cluster

    def elsewhere(job):
        asked = {name: {**found, "test rows": "other"} for name, found in job.contents.items()}
        return on_cluster()(replace(job, contents=asked))

    with pytest.raises(RunError, match="has other rows, prompts or demonstrations than elsewhere"):
        sweep(
            model_folder,
            task,
            rates=[0.5],
            shots=[2],
            layers=[0],
            out=tmp_path / "run",
            execute=elsewhere,
        )


def test_a_model_in_memory_is_refused(model, task, tmp_path):
    from eckart.sweeps.cluster import on_cluster

    with pytest.raises(StudyError, match="save it"):
        sweep(load_model(model), task, shots=[2], out=tmp_path / "run", execute=on_cluster())


def test_without_ray_it_says_what_to_install(monkeypatch):
    from eckart.sweeps.cluster import on_cluster

    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(StudyError, match=r"pip install 'eckart\[cluster\]'"):
        on_cluster()


class DiedError(Exception):
    """What a fake cluster raises where a worker died."""


class FakeRay:
    """Runs tasks in this process, one step each time that one is asked for."""

    exceptions = SimpleNamespace(RayTaskError=KeyError, RayError=DiedError)

    def __init__(self):
        self.begun = 0

    def remote(self, function):
        def options(num_returns=None, **_):
            def submit(*args):
                if num_returns is None:
                    return lambda: function(*args)
                self.begun += 1
                steps = function(*args)
                return iter(self._steps(steps))

            return SimpleNamespace(remote=submit)

        return SimpleNamespace(options=options)

    def _steps(self, steps):
        for _ in range(100):
            try:
                step = next(steps)
            except StopIteration:
                return
            except DiedError:
                yield self._died
                return
            yield lambda step=step: step

    def _died(self):
        raise DiedError

    def wait(self, streams, num_returns):
        return streams[:1], streams[1:]

    def get(self, reference):
        return reference()


def test_a_unit_whose_workers_all_die_gives_up_whatever_was_kept_before(
    model_folder, task, tmp_path, monkeypatch
):
    from eckart.sweeps import cluster

    grid = {"rates": [0.5], "shots": [2], "layers": [0], "out": tmp_path / "run"}
    sweep(model_folder, task, **grid)
    ray, scored = FakeRay(), cluster.score_unit

    def dying(*args):
        yield next(scored(*args))  # a trial that is kept already
        raise DiedError

    monkeypatch.setattr(cluster, "score_unit", dying)

    def execute(job):
        cluster._Driver(ray, job, {}).run()

    with pytest.raises(RunError, match=f"{cluster.ATTEMPTS} workers in a row died"):
        sweep(model_folder, task, **grid, execute=execute)
    assert ray.begun == cluster.ATTEMPTS
