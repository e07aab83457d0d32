"""The explorer: what a page asks of one model on one task, as JSON values."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np

from eckart.analysis.outcomes import written_result
from eckart.cli.explore.elsewhere import Elsewhere
from eckart.cli.options import LOOKED
from eckart.errors import TaskError
from eckart.records import Edit, Row, Split
from eckart.runs import RunStore
from eckart.scoring.evaluation import Evaluation
from eckart.scoring.evaluator import Evaluator
from eckart.scoring.labelling import Labeller
from eckart.selection.byhand import begun, seen, tested_once
from eckart.selection.guard import Guard, keep_guard
from eckart.selection.looks import looks_by_now
from eckart.selection.plan import GuardOptions
from eckart.selection.recorded import Recorded
from eckart.selection.settings import by_hand, folder_of
from eckart.statistics.crossed import nothing_learned
from eckart.statistics.gain import parts, verdict
from eckart.tasks.portable import PortableTask
from eckart.weights.edits import Cut, droppable
from eckart.weights.options import ReadingOptions

POINTS = 200
"""The most singular values of a matrix that are drawn."""
MATRICES = 24
"""The most matrices whose spectra are drawn: a mixture of experts has hundreds."""
TOKENS = 24
"""How many tokens each model writes after a text."""


class StoppedError(Exception):
    """Nobody waits for this any more."""


@dataclass
class Watch:
    """How far a reading is; it stops between two batches once nobody waits for it."""

    stop: Event
    what: str = ""
    rows: int = 0
    done: int = 0

    def check(self, done: int = 0) -> None:
        self.done += done
        if self.stop.is_set():
            raise StoppedError


class Explorer:
    """Looks at edits of a model on a task's validation rows, and keeps every look in a run.

    It is used by one thread at a time; what is stopped raises `StoppedError`.

    Arguments:
        evaluator: of the model and the task; its progress is `watched` from here on.
        elsewhere: says which command and which Python do the same.
        guard: on what every edit is read that chose none.
        folder: the run's; by default under runs/, named by its settings.
        rows: how many of the validation rows are looked at: the first, which are in random order.

    Raises:
        EckartError: the run's folder is another run's, the rows cannot be read, or the guard would
            read sealed ones.
    """

    def __init__(
        self,
        evaluator: Evaluator,
        elsewhere: Elsewhere,
        guard: GuardOptions,
        folder: Path | None = None,
        rows: int = LOOKED,
    ) -> None:
        self.evaluator = evaluator
        self.all_rows = len(evaluator.rows("validation").rows)
        few = rows < self.all_rows
        self.split = Split.part("validation", 0, rows) if few else Split("validation")
        self.elsewhere = elsewhere
        self.settings = by_hand(evaluator)
        self.folder = folder or folder_of(self.settings, evaluator, "explore")
        self.watch = Watch(Event())
        evaluator.progress = self.watched
        self.guard = Guard(evaluator, guard.guard_text, guard.guard_task, guard.guard_margin)
        self.guard.refuse_sealed(evaluator.task)
        self._open = ExitStack()
        self._sharing = False
        with self._working(Event()):
            # Refused before a page is opened.
            evaluator.tokens(self.split, [evaluator.scoring])

    @contextmanager
    def watched(self, what: str, rows: int) -> Iterator[Callable[[int], None]]:
        """Let a reading go on as long as somebody waits for it."""
        self.watch.what, self.watch.rows, self.watch.done = what, rows, 0
        self.watch.check()
        yield self.watch.check

    def close(self) -> None:
        """Let go of the states that looks share."""
        self._open.close()

    def about(self, stop: Event) -> dict[str, Any]:
        """Return what there is to choose from, and what was done so far."""
        task, model, anatomy = self.evaluator.task, self.evaluator.model, self.evaluator.anatomy
        with self._working(stop) as store:
            tested = begun(store, self.evaluator)
            text, *tasks = self.guard.read
            looks = looks_by_now(store, [self.evaluator.rows("test")], bool(tested))
            return {
                "model": Path(model.name).name,
                "task": task.full_name,
                "labels": list(task.labels),
                "rows": len(self._rows()),
                "all_rows": self.all_rows,
                "test_rows": len(self.evaluator.rows("test").rows),
                "shots": task.shots,
                "seed": task.seed,
                "dtype": model.dtype,
                "layers": [list(dict.fromkeys(w.kind for w in ws)) for ws in anatomy.layers],
                "droppable": droppable(anatomy),
                "fields": list(self.portable.columns.needed) if self.portable else [],
                "guard": {"text": text.name, "tasks": [each.full_name for each in tasks]},
                "run": str(self.folder),
                "looked_at_before": str(looks) if looks else "",
                "tested": self._result(),
                "begun": [str(edit) for edits in tested for edit in edits],
                "looks": self._looks(store),
            }

    def look(self, edits: Sequence[Edit], stop: Event) -> dict[str, Any]:
        """Return what edits do to the validation rows, and what they take away of each matrix."""
        with self._working(stop) as store:
            evaluation = self._evaluation(edits, store)
            cuts = self.evaluator.cuts(evaluation.trial.edits)
            return {
                **evaluation.to_json(),
                **_said(evaluation),
                "turned": list(self._turned(evaluation)),
                "cuts": [_drawn(cut) for cut in cuts[:MATRICES]],
                "matrices": len(cuts),
                "elsewhere": self.elsewhere.said(evaluation.trial.edits, self.split),
                "looks": self._looks(store),
            }

    def guarded(self, edits: Sequence[Edit], stop: Event) -> dict[str, Any]:
        """Return what else edits do, on a text and on tasks that chose nothing."""
        with self._working(stop) as store:
            keep_guard(store, self.guard.margin, self.guard.read)
            found = self.guard.look(edits, store)
        return {} if found is None else {**found.to_json(), "says": str(found)}

    def text(
        self, edits: Sequence[Edit], fields: Mapping[str, str], stop: Event
    ) -> list[dict[str, Any]]:
        """Return what both models make of a text: label probabilities, and what they write next.

        Raises:
            TaskError: nothing says how a text becomes a prompt, or it does not fit.
        """
        if self.portable is None:
            raise TaskError("this task does not say how a new text becomes a prompt")
        with self._working(stop):
            how = self.evaluator.reading.only(ReadingOptions)
            labeller = Labeller(
                *(self.evaluator.model, self.portable, edits),
                compare=bool(self.evaluator.canonical(edits)),
                progress=self.watched,
                **how,
            )
            labeller.share_factors(self.evaluator)
            return labeller.answers("your text", fields, TOKENS)

    def test(self, edits: Sequence[Edit], stop: Event) -> dict[str, Any] | None:
        """Look at the test rows, once; see `tested_once`."""
        with self._working(stop) as store:
            # With states of its own: those of validation stay for looks to come.
            sealed = self.evaluator.on(self.evaluator.model)
            sealed.share_factors(self.evaluator)
            tested_once(sealed, edits, self.guard, store)
        return self._result()

    @cached_property
    def portable(self) -> PortableTask | None:
        """What makes prompts of new texts; None where nothing does."""
        return PortableTask.if_any(self.evaluator.task, self.evaluator.scoring)

    @contextmanager
    def _working(self, stop: Event) -> Iterator[RunStore]:
        """Hold the run while something is done that may be stopped."""
        self.watch = Watch(stop)
        self.watch.check()
        with RunStore(self.folder, self.settings, self.elsewhere.typed) as store:
            yield store

    def _evaluation(self, edits: Sequence[Edit], store: RunStore) -> Evaluation:
        self._share()
        asked = dict.fromkeys([(), self.evaluator.canonical(edits)])
        trials = Recorded(self.evaluator, store).score(list(asked), self.split)
        return self.evaluator.evaluation(trials, self.split)

    def _share(self) -> None:
        """Let all looks share the unpruned model's states, wherever they begin."""
        if self._sharing:
            return
        layers = range(len(self.evaluator.anatomy.layers))
        places = [(Edit(layer, part, 0.5),) for layer in layers for part in ("attn", "mlp")]
        self._open.enter_context(self.evaluator.sharing(places))
        self._sharing = True

    def _looks(self, store: RunStore) -> list[dict[str, Any]]:
        """Return every look so far: where it began, and how long it took."""
        return [
            {
                "edits": [str(edit) for edit in trial.edits],
                "layer": min((edit.layer for edit in trial.edits), default=0),
                "seconds": trial.seconds,
            }
            for trial in seen(store, self.evaluator, "validation")
        ]

    def _turned(self, evaluation: Evaluation) -> Iterator[dict[str, Any]]:
        """Yield the rows whose prediction changed."""
        before, after, labels = evaluation.before, evaluation.score, evaluation.task.labels
        if before is None:
            return
        each = zip(self._rows(), after.labels, before.predictions, after.predictions, strict=True)
        for row, label, was, now in each:
            if was == now:
                continue
            names = row.choices or labels
            kind = "fixed" if now == label else "broken" if was == label else "still wrong"
            yield {
                "kind": kind,
                "text": row.text,
                "label": names[label],
                "before": names[was],
                "after": names[now],
            }

    def _rows(self) -> Sequence[Row]:
        """Return the rows that are looked at."""
        return self.evaluator.rows(self.split).rows[self.split.slice]

    def _result(self) -> dict[str, Any] | None:
        """Return what the test found, once it has ended and as long as its result is whole."""
        found = written_result(self.folder)
        return found and {"edits": found["edits"], "says": found["says"], "run": str(self.folder)}


def _said(found: Evaluation) -> dict[str, str]:
    """Say what was gained on the rows that were looked at, and whether anything was learned."""
    if found.before is None or found.comparison is None:
        caution = nothing_learned({"unpruned": found.score})
        return {"caution": caution}
    caution = nothing_learned({"unpruned": found.before, "clipped": found.score})
    gain, sure = parts(found.comparison, "accuracy")
    told = {"verdict": verdict(found.comparison), "gain": gain, "sure": "; ".join(sure)}
    return {**told, "caution": caution}


def _drawn(cut: Cut) -> dict[str, Any]:
    """Return a matrix's spectrum with its cut, thinned to what a figure shows."""
    places = np.unique(np.linspace(0, len(cut.values) - 1, POINTS).round().astype(int))
    largest = float(cut.values[0]) or 1.0
    return {
        "layer": cut.weight.layer,
        "name": cut.weight.name,
        "shape": list(cut.weight.shape),
        "rank": cut.rank,
        "full": len(cut.values),
        "gone_energy": cut.gone_energy,
        "places": places.tolist(),
        "values": (cut.values.numpy()[places] / largest).tolist(),
        "kept": cut.kept.numpy()[places].tolist(),
    }
