"""A sweep on a Ray cluster: a task for each unit, and one process that keeps what they write."""

from __future__ import annotations

import re
import socket
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any
from uuid import uuid4

from eckart.errors import EckartError, RunError, StudyError, how_to_install
from eckart.records import Rows, Setting, Trial
from eckart.statistics.gain import LEVEL
from eckart.statistics.power import Design, Outlook
from eckart.sweeps.grid import ModelEntry, Sweep, Unit
from eckart.sweeps.sources import Outline, Sources, content
from eckart.sweeps.sweep import Execute, Job, keep_facts, score_unit
from eckart.sweeps.units import Facts, look_at
from eckart.tasks.task import Task
from eckart.weights.models import LoadedModel

PATIENCE = 5.0
"""Seconds within which a cluster's head must answer."""
ATTEMPTS = 5
"""How often in a row a unit may end without a single new trial before the sweep gives up."""


def on_cluster(address: str = "auto", cpus: float = 1, gpus: float = 0) -> Execute:
    """Return what scores a sweep's units on a Ray cluster.

    Only this process writes the run. A worker that dies loses the trial under way; the rest of its
    unit is scored again elsewhere. Models are loaded on the workers by their names, once a process,
    and must have the same weights there.

    Arguments:
        address: the cluster's as `HOST:PORT`, `auto` for the one that this machine belongs to,
            `local` for one of its own processes.
        cpus, gpus: what a unit takes.

    Raises:
        StudyError: Ray is not installed, or nothing answers at the address.
    """
    try:
        import ray
    except ImportError:
        raise StudyError(f"a cluster needs Ray: {how_to_install('cluster')}") from None
    _check_address(address)
    if address == "auto":
        with _connected(ray, address):
            pass  # now, and not once the run's folder is made

    def execute(job: Job) -> None:
        """Score a sweep's units on the cluster, and keep what they write."""
        live = next((entry for entry in job.sweep.models if entry.live), None)
        if live is not None:
            raise StudyError(
                f"model '{live.name}' lies in this process's memory; save it, and give the cluster"
                " its folder"
            )
        if job.tell:
            _tell_unread(job, job.tell)
        with _connected(ray, address):
            _Driver(ray, job, {"num_cpus": cpus, "num_gpus": gpus, "max_retries": 0}).run()

    return execute


def _check_address(address: str) -> None:
    """Refuse at once an address where nothing answers: Ray itself would try for minutes."""
    if address in ("auto", "local"):
        return
    found = re.fullmatch(r"\[?([^/\[\]]+)\]?:(\d{1,5})", address)
    if found is None:
        raise StudyError(
            f"'{address}' is no address of a cluster: give its head's HOST:PORT, such as"
            " 10.0.0.1:6379 (ray://, Ray's client, is not served), auto, or local"
        )
    try:
        socket.create_connection((found[1], int(found[2])), timeout=PATIENCE).close()
    except (OSError, OverflowError, UnicodeError) as error:
        raise StudyError(
            f"no Ray cluster at '{address}' ({error}); is the head up ('ray start --head'), and is"
            " this its port?"
        ) from error


@contextmanager
def _connected(ray: Any, address: str) -> Iterator[None]:
    """Join a cluster, unless this process has joined one."""
    if ray.is_initialized():
        yield
        return
    try:
        ray.init(
            address=None if address == "local" else address,
            include_dashboard=None if address != "local" else False,
            log_to_driver=False,
            logging_level="ERROR",
        )
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise StudyError(
            f"no Ray cluster at '{address}' ({' '.join(str(error).split())[:200]})"
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


EXAMPLE = 0.1
"""The share of rows that turn of which it is said what can be seen, where none was measured."""


def _tell_unread(job: Job, tell: Callable[[str], None]) -> None:
    """Say what can be seen, as far as rows and draws tell: this process reads none of them."""
    sweep, sources = job.sweep, job.sources
    for unit in sweep.units if sweep.test != "none" else ():
        draws = sweep.draws_of(unit.shots)
        if unit.seed == draws[0]:
            task = sources.task(unit.task, unit.shots, unit.seed)
            model = Outline.of(unit.model, sweep, sources).model
            rows = len(sources.scorer(sweep, task, model).rows("test").rows)
            design = Design(EXAMPLE, len(draws), level=LEVEL / sweep.choices)
            tell(f"{unit}: {Outlook(design, rows)}; how many turn is not measured on a cluster")


class _Driver:
    """Hands units to the cluster, and collects what they find.

    A unit that ends before its time is handed out again with all that is known by then; Ray's own
    retries would begin it anew.
    """

    def __init__(self, ray: Any, job: Job, options: dict[str, Any]) -> None:
        self._ray = ray
        self._job = job
        self._run = uuid4().hex
        self._options = options
        self._look = ray.remote(_look).options(**options)
        self._score = ray.remote(_score).options(**options, num_returns="streaming")
        self._failures: Counter[str] = Counter()
        self._known: defaultdict[Setting, dict[str, Trial]] = defaultdict(dict)
        self._guards = {each.full_name for each in job.sources.guards(job.sweep)}

    def run(self) -> None:
        """Score every unit; what a worker writes is written here as it comes."""
        sweep = self._job.sweep
        for trial in self._job.store.trials():
            self._known[trial.setting][trial.key] = _light(trial)
        facts: dict[str, Facts] = {}
        for entry in sweep.models:
            facts[entry.name] = self._facts(entry)
            keep_facts(self._job.store, facts[entry.name])
            self._job.watch(facts[entry.name])
        running = [(self._submit(unit, facts), unit) for unit in sweep.units]
        while running:
            ready, _ = self._ray.wait([stream for stream, _ in running], num_returns=1)
            place = next(i for i, (stream, _) in enumerate(running) if stream is ready[0])
            stream, unit = running.pop(place)
            try:
                came = self._get(str(unit), next(stream))
            except StopIteration:
                self._job.watch(unit)
                continue
            if came is None:
                running.append((self._submit(unit, facts), unit))
                continue
            self._failures[str(unit)] = 0
            running.append((stream, unit))
            self._write(came)

    def _facts(self, entry: ModelEntry) -> Facts:
        """Look at a model on a worker, and keep the spectra that it measured."""
        store = self._job.store
        while True:
            known = Remote(spectra=store.spectra())
            looking = self._look.remote(self._run, self._job.sweep, entry, known)
            came = self._get(entry.name, looking)
            if came is not None:
                facts, written = came
                self._write(written)
                return facts

    def _write(self, written: Written) -> None:
        """Write what a worker wrote, and tell of every trial."""
        for name, values in written:
            same = getattr(self._job.store, name)(*values)
            trial = values[0] if name == "keep" else same
            if isinstance(trial, Trial):
                self._known[trial.setting][trial.key] = _light(trial)
                self._job.watch(trial)

    def _submit(self, unit: Unit, facts: Mapping[str, Facts]) -> Any:
        store = self._job.store
        # A guard's trials are of no unit, and of use to every one.
        mine = [
            trials
            for setting, trials in self._known.items()
            if unit.has(setting) or setting.task in self._guards
        ]
        known = Remote(
            trials={key: trial for trials in mine for key, trial in trials.items()},
            rows=set(store.row_digests()),
        )
        return self._score.remote(
            self._run,
            self._job.sweep,
            unit,
            facts[unit.model.name],
            known,
            dict(self._job.sources.tasks),
            self._job.contents[unit.asked],
        )

    def _get(self, what: str, reference: Any) -> Any:
        """Return what a worker found; None where it died, or its findings were lost.

        Raises:
            EckartError: the worker raised it, or this is the last attempt.
        """
        exceptions = self._ray.exceptions
        try:
            return self._ray.get(reference)
        except exceptions.RayTaskError as error:
            if isinstance(error.cause, EckartError):
                raise type(error.cause)(*error.cause.args) from error
            raise
        except exceptions.RayError as error:
            self._failures[what] += 1
            if self._failures[what] >= ATTEMPTS:
                raise RunError(
                    f"{what}: {ATTEMPTS} workers in a row died ({type(error).__name__}); what was"
                    " finished is kept; look at the cluster's memory, and run the same command"
                    " again"
                ) from error
            return None


Written = list[tuple[str, tuple[Any, ...]]]
"""Calls of a store's methods, in their order."""


@dataclass
class Remote:
    """The store as a worker has it: what was known when its task began, and what it writes since.

    Arguments:
        trials: by key, without their rows.
        rows: digests of rows.
        spectra: by matrix.
        written: what the driver is to write.
    """

    trials: dict[str, Trial] = field(default_factory=dict)
    rows: set[str] = field(default_factory=set)
    spectra: dict[str, dict[str, Any]] = field(default_factory=dict)
    written: Written = field(default_factory=list)

    def trial(self, key: str) -> Trial | None:
        return self.trials.get(key)

    def keep(self, trial: Trial) -> None:
        self.trials[trial.key] = _light(trial)
        self.written.append(("keep", (trial,)))

    def keep_same(self, key: str, setting: Setting) -> Trial | None:
        self.written.append(("keep_same", (key, setting)))
        return None  # whether it is new is known where it is written

    def keep_rows(self, rows: Rows) -> None:
        if rows.digest not in self.rows:
            self.rows.add(rows.digest)
            self.written.append(("keep_rows", (rows,)))

    def spectrum(self, matrix: str) -> dict[str, Any] | None:
        return self.spectra.get(matrix)

    def keep_spectrum(self, matrix: str, spectrum: dict[str, Any]) -> None:
        self.spectra[matrix] = spectrum
        self.written.append(("keep_spectrum", (matrix, spectrum)))

    def drained(self) -> Written:
        """Return what was written since this was asked last."""
        written, self.written = self.written, []
        return written


def _light(trial: Trial) -> Trial:
    """Return a trial without its rows: its merits are enough to choose what is tested."""
    return trial if trial.score is None else replace(trial, score=trial.score.without_rows())


@lru_cache(maxsize=1)
def _model(run: str, entry: ModelEntry) -> LoadedModel:
    """Load a model once a process and run; its fingerprint stays with it."""
    return Sources().model(entry)


@lru_cache(maxsize=1)
def _sources(run: str) -> Sources:
    """Read tasks once a process and run."""
    return Sources()


def _look(run: str, sweep: Sweep, entry: ModelEntry, known: Remote) -> tuple[Facts, Written]:
    """Run on a worker: look at a model."""
    facts = look_at(_model(run, entry), sweep, known)
    return facts, known.drained()


def _score(
    run: str,
    sweep: Sweep,
    unit: Unit,
    facts: Facts,
    known: Remote,
    tasks: Mapping[str, Task],
    asked: Mapping[str, Any],
) -> Iterator[Written]:
    """Run on a worker: score a unit, and yield what is to be written, trial by trial."""
    model = _model(run, unit.model)
    if (model.fingerprint, model.dtype) != (facts.fingerprint, facts.dtype):
        raise RunError(
            f"model '{facts.name}' on {socket.gethostname()} has other weights or another dtype"
            " than elsewhere in the cluster; bring the same files everywhere, and name a --dtype"
        )
    sources = replace(_sources(run), tasks=tasks)
    if content(sources.task(unit.task, unit.shots, unit.seed), sweep) != asked:
        raise RunError(
            f"task '{unit.asked}' on {socket.gethostname()} has other rows, prompts or"
            " demonstrations than elsewhere in the cluster; bring the same files everywhere"
        )
    for _ in score_unit(sweep, unit, sources, model, facts, known):
        if known.written:  # a trial that was known says nothing, not even that the worker lives
            yield known.drained()
