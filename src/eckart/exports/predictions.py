"""Predictions: new rows, labelled by what a run chose, by an exported model, or by any model and
task."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import asdict, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any, TypeAlias

from scipy.special import softmax

from eckart.errors import EditError, RunError, TaskError
from eckart.exports.choices import Chosen, chosen_of, is_run
from eckart.exports.folder import base_of, check_digest
from eckart.exports.recipe import RECIPE, Recipe
from eckart.files import home
from eckart.records import Edit
from eckart.scoring.labelling import Labeller, Ranked, Tally, has_input
from eckart.scoring.methods import OF_ALL_ROWS, SCORING_VERSION
from eckart.tasks.files import RowStream, open_file
from eckart.tasks.portable import PortableTask
from eckart.tasks.tables import Row
from eckart.tasks.task import Task
from eckart.weights.models import LoadedModel, Model, Tokenizer, load_model

Rows: TypeAlias = str | Path | Iterable[Any]


CHUNK = 512
"""Rows that are read together, and that a stop loses at most."""


def predict(
    source: str | Path | Model | LoadedModel,
    rows: Rows | Callable[[PortableTask], RowStream],
    task: Task | PortableTask | str | None = None,
    edits: Edit | Sequence[Edit] = (),
    *,
    compare: bool = False,
    scoring: str | None = None,
    choice: str | None = None,
    base: str | Path | None = None,
    dtype: str = "auto",
    device: str = "auto",
    device_map: str | None = None,
    trust_remote_code: bool = False,
    tokenizer: Tokenizer | None = None,
    **reading: Any,
) -> Predictions:
    """Label new rows, with labels of their own or without.

    Arguments:
        source: the folder of a finished run, whose choice and prompt are used; a folder that
            `export` wrote; or a model, as of `load_model`, which is left as it was.
        rows: a table's path, a pandas DataFrame, a `datasets.Dataset`, or dicts (texts, where the
            prompt is made of one column), in any iterable; read as they are asked for. Or what
            opens a stream of them, once it is told the task.
        task: makes the prompts; of a run and of an exported folder, theirs by default.
        edits: what to clip of a model.
        compare: the unpruned model's predictions, too; of an exported folder those of the model
            that it was made of, which lies beside it, or where `base` says.
        scoring: how labels are ranked; the task's own by default.
        choice: which of a sweep's choices.
        base: where a run's model lies now, if not where it was; or an exported folder's.
        dtype: see `load_model`; a run's own by default.
        device, device_map, trust_remote_code, tokenizer: see `load_model`.
        reading: the fields of `ReadingOptions`.

    Returns:
        An iterator of rows, each a dict; see `Predictions`.

    Raises:
        EckartError: the source, the task, an edit or a row is not usable.
    """
    chosen = _found(source, task, edits, scoring, choice, base)
    made = needed_task(chosen)
    stream = _checked(rows(made) if callable(rows) else _stream(rows, made), made, compare)
    loading = {
        "dtype": dtype,
        "device": device,
        "device_map": device_map,
        "trust_remote_code": trust_remote_code,
        "tokenizer": tokenizer,
    }
    if compare and not chosen.edits:
        reading["base"] = _unpruned(source, chosen, base, loading, reading)
        compare = False
    return Predictions(_labeller(source, chosen, loading, compare=compare, **reading), stream)


def labeller_of(
    source: str | Path | Model | LoadedModel,
    task: Task | PortableTask | str | None = None,
    edits: Edit | Sequence[Edit] = (),
    *,
    scoring: str | None = None,
    choice: str | None = None,
    base: str | Path | None = None,
    loading: Mapping[str, Any] | None = None,
    **reading: Any,
) -> Labeller:
    """Return what labels new rows, by the unpruned model, too, where anything is clipped; see
    `predict`."""
    chosen = _found(source, task, edits, scoring, choice, base)
    return _labeller(source, chosen, loading or {}, compare=bool(chosen.edits), **reading)


def _labeller(
    source: str | Path | Model | LoadedModel,
    chosen: Chosen,
    loading: Mapping[str, Any],
    **reading: Any,
) -> Labeller:
    named = isinstance(source, str | Path)
    how = {**loading, "dtype": _dtype(chosen, loading)}
    model = load_model(chosen.model if named else source, **how)
    if chosen.weights is not None:
        chosen.check(model.fingerprint, model.name)
    return Labeller(model, needed_task(chosen), chosen.edits, **reading)


def _unpruned(
    source: Any,
    chosen: Chosen,
    base: str | Path | None,
    loading: Mapping[str, Any],
    reading: Mapping[str, Any],
) -> Labeller:
    """Return what labels rows with the model that an exported folder was made of.

    Raises:
        EditError: nothing is clipped.
        ModelError: this model is not there, or another.
    """
    recipe = _recipe_of(source)
    if recipe is None or not recipe.edits:
        raise EditError(
            f"there is nothing to compare: {chosen.model} is read with nothing clipped; leave out"
            " --compare, or name an --edit of a model"
        )
    place = str(base or base_of(recipe, home(source).absolute().parent))
    loaded = load_model(place, **{**loading, "dtype": _dtype(chosen, loading)})
    if loaded.file is not None:
        check_digest(loaded.file, recipe.base)
    elif loaded.dtype == recipe.scored_in:
        replace(chosen, weights=recipe.weights).check(loaded.fingerprint, place)
    return Labeller(loaded, needed_task(chosen), **reading)


def _dtype(chosen: Chosen, loading: Mapping[str, Any]) -> str:
    said = str(loading.get("dtype", "auto"))
    return chosen.scored_in if said == "auto" else said


def needed_task(chosen: Chosen) -> PortableTask:
    """Return the task of what was found; there is one."""
    assert chosen.task is not None
    return chosen.task


def _found(
    source: str | Path | Model | LoadedModel,
    task: Task | PortableTask | str | None,
    edits: Edit | Sequence[Edit],
    scoring: str | None,
    choice: str | None,
    base: str | Path | None,
) -> Chosen:
    """Return which model is read, clipped where, in what dtype, and by which prompts."""
    edits = (edits,) if isinstance(edits, Edit) else tuple(edits)
    said = Task.load(task) if isinstance(task, str) else task
    made = PortableTask.of(said) if isinstance(said, Task) else said
    if isinstance(source, str | Path):
        exported = base is not None and not edits and _recipe_of(source) is not None
        found = chosen_of(source, edits, choice, None if exported else base)
        if not is_run(source):
            found = _as_exported(found) if made is None else replace(found, scored_in="auto")
    else:
        found = Chosen(type(source).__name__, edits, scored_in="auto", known=("it is a model",))
    found, why = replace(found, task=made or found.task), "; ".join(found.known)
    if found.task is None:
        raise TaskError(f"nothing makes prompts of new rows: {why}; give a task (--task or --data)")
    if scoring is None:
        return found
    return replace(found, task=found.task.model_copy(update={"scoring": scoring}))


def _as_exported(model: Chosen) -> Chosen:
    """Return a model with the task and dtype of its recipe, where it is a folder that has one."""
    recipe = _recipe_of(model.model)
    if recipe is None:
        why = f"'{model.model}' is no run, and has no recipe ({RECIPE}) with one"
        return replace(model, scored_in="auto", known=(why,))
    return replace(model, task=recipe.task, scored_in=recipe.scored_in)


def _recipe_of(source: Any) -> Recipe | None:
    """Return what an exported folder is made by; None of what is none."""
    named = isinstance(source, str | Path) and (home(source) / RECIPE).is_file()
    return Recipe.read(source) if named else None


def _stream(rows: Rows, task: PortableTask) -> RowStream:
    """Return rows of whatever kind as they are read; a TaskError where they are of none."""
    if isinstance(rows, str | Path):
        return open_file(home(rows))
    if isinstance(rows, Mapping):
        raise TaskError("the rows are one dict; give a list of them, or a DataFrame for columns")
    return RowStream(
        "row",
        (as_row(row, task) for row in _records(rows)),
        len(rows) if isinstance(rows, Sized) else None,
    )


def _records(rows: Any) -> Iterator[Any]:
    if not hasattr(rows, "itertuples"):
        yield from rows
        return
    names = list(map(str, rows.columns))  # of pandas, whose own iterator yields these
    for row in rows.itertuples(index=False, name=None):
        yield dict(zip(names, row, strict=True))


def as_row(row: Any, task: PortableTask) -> Row:
    """Return a row as a dict; a text is one where prompts are made of one column."""
    if isinstance(row, Mapping):
        return dict(row)
    needed = task.columns.needed
    if isinstance(row, str) and len(needed) == 1:
        return {needed[0]: row}
    raise TaskError(
        f"a row is {row!r:.40}, and a prompt of task '{task.name}' is made of the columns"
        f" {', '.join(needed)}; give rows as dicts"
    )


def _checked(stream: RowStream, task: PortableTask, compare: bool) -> RowStream:
    """Return the same rows; a TaskError where there are none, or the first lacks a column."""
    rows = iter(stream.rows)
    first = next(rows, None)
    if first is None:
        raise TaskError("there are no rows to label; is the input empty?")
    if has_input(task, first):
        task.query(first, f"{stream.name}:0")
    _check_free(first, added(task, compare), stream.name)
    return replace(stream, rows=chain([first], rows))


def _check_free(row: Mapping[str, Any], names: Iterable[str], where: str) -> None:
    taken = next((name for name in names if name in row), None)
    if taken is not None:
        raise TaskError(
            f"the rows of '{where}' have a column '{taken}' already, which predictions are named;"
            " rename it"
        )


def _of_model(said: str, task: PortableTask) -> tuple[str, ...]:
    return (f"{said}prediction", *(f"{said}probability_{label}" for label in task.labels))


def added(task: PortableTask, compare: bool) -> tuple[str, ...]:
    """Return the columns that predictions add to a row."""
    return tuple(name for said in _models(compare) for name in _of_model(said, task))


def _models(compare: bool) -> tuple[str, ...]:
    return ("unpruned_", "") if compare else ("",)


class Predictions(Iterator[dict[str, Any]]):
    """Rows with what a model says of them, made as they are asked for.

    Each is the row itself, with `prediction`, a label, and `probability_LABEL` for each: the
    softmax of what ranks them, which under a calibrated scoring is not what the model itself gives;
    of the unpruned model, too, each as `unpruned_...`, where it is compared. `tally` counts what
    came of them.

    Arguments:
        labeller: ranks labels.
        stream: the rows; so many are read together as `CHUNK` says, or all where the scoring needs
            them so.
    """

    def __init__(self, labeller: Labeller, stream: RowStream) -> None:
        self.labeller = labeller
        self.stream = stream
        self.task = labeller.portable
        self.compare = labeller.compares
        self.added = added(self.task, self.compare)
        self.tally = Tally()
        self._rows = iter(stream.rows)
        self._chunk = None if labeller.scoring in OF_ALL_ROWS else CHUNK
        self._each = chain.from_iterable(self.chunks())

    def __next__(self) -> dict[str, Any]:
        return next(self._each)

    @property
    def settings(self) -> dict[str, Any]:
        """All that predictions depend on besides their rows, as JSON values."""
        labeller = self.labeller
        reading = labeller.reading.only(type(labeller.reading))
        return {
            "weights": labeller.model.fingerprint,
            "dtype": labeller.model.dtype,
            "edits": [str(edit) for edit in labeller.edits],
            "prompts": self.task.digest,
            "scoring": labeller.scoring,
            "scored": SCORING_VERSION,
            "compare": self.compare,
            "truncate_demonstrations": reading["truncate_demonstrations"],
            "drop_long_rows": reading["drop_long_rows"],
            **labeller.reading_key,
        }

    def chunks(self) -> Iterator[list[dict[str, Any]]]:
        """Yield the rows a chunk at a time, whole; an empty one where all of it are left out."""
        while rows := list(islice(self._rows, self._chunk)):
            start = self.tally.read
            for row in rows:
                _check_free(row, self.added, self.stream.name)
            self.tally.note(rows)
            names = (f"{self.stream.name}:{start + place}" for place in range(len(rows)))
            ranked = self.labeller.rank(list(zip(names, rows, strict=True)))
            self.tally.add(ranked)
            yield list(self._labelled(rows, ranked))

    def pass_over(self, tally: Mapping[str, Any]) -> None:
        """Go on behind the rows that were labelled before.

        Raises:
            RunError: the rows are not those.
        """
        passed, known = Tally(), Tally(**tally)
        while passed.read < known.read:
            rows = list(islice(self._rows, self._chunk))
            passed.note(rows)
            if not rows:
                break
        if (passed.read, passed.digest) != (known.read, known.digest):
            raise RunError(
                f"the first {known.read:,} rows are not those that were labelled before; name"
                " another --out"
            )
        self.tally = known

    def to_json(self) -> dict[str, Any]:
        """Return what came of the rows, without them."""
        about = {"model": self.labeller.model.name, "task": self.task.full_name, **self.settings}
        return {**about, **asdict(self.tally), "says": self.tally.accuracy()}

    def _labelled(
        self, rows: Sequence[Mapping[str, Any]], ranked: Ranked
    ) -> Iterator[dict[str, Any]]:
        found = [(ranks.argmax(axis=1), softmax(ranks, axis=1)) for ranks in ranked.ranks]
        for number, place in enumerate(ranked.places):
            said = [
                value
                for predictions, shares in found
                for value in (self.task.labels[predictions[number]], *shares[number].tolist())
            ]
            yield {**rows[place], **dict(zip(self.added, said, strict=True))}
