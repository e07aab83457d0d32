"""A clipped model as files: an ordinary checkpoint, which plain transformers loads, or a GGUF file,
for llama.cpp and Ollama."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from eckart.errors import EditError, RunError
from eckart.exports.choices import Chosen, chosen_of, is_run, no_edit
from eckart.exports.copying import revision, stored_dtype
from eckart.exports.folder import (
    free_target,
    is_taken,
    source_of,
    taken,
    write_folder,
    writing,
)
from eckart.exports.recipe import RECIPE, TYPES, Recipe, Scores, placeless, versions
from eckart.files import clear_drafts, home
from eckart.records import Edit, Trial
from eckart.scoring.evaluator import Evaluator, scorer_of
from eckart.scoring.scorer import Scorer
from eckart.selection.draws import Draws, drawn_tasks
from eckart.selection.tested import Tested
from eckart.statistics.gain import sentence, verdict
from eckart.statistics.paired import compare
from eckart.statistics.scores import Score
from eckart.tasks.portable import PortableTask
from eckart.tasks.task import AnyTask, Task
from eckart.weights.anatomy import Anatomy
from eckart.weights.edits import canonical, targets_of
from eckart.weights.models import (
    DTYPES,
    LoadedModel,
    Model,
    Tokenizer,
    load_model,
    needed_tokenizer,
)
from eckart.weights.options import ModelOptions
from eckart.weights.quantised import GgufType
from eckart.weights.stored import StoredWeights, stored_fingerprint

SAME = ("eckart", "weights", "edits", "dtype")
"""What two saved models that are the same agree on."""

STORAGE = {"float64": 1e-6, "float32": 1e-3, "float16": 0.1, "bfloat16": 0.75}
"""How far, in nats, storing weights in a dtype may move a ranked value before a checkpoint is not
trusted."""


@dataclass(frozen=True)
class Saved:
    """A checkpoint that was written; of a result in memory, loaded and scored again on the test
    rows.

    Arguments:
        path: its folder.
        dtype: of the stored weights; where they are of several, the one of most numbers.
        score: the reloaded model's score, in the run's dtype; None where it was not loaded.
        changed: on how many rows the reloaded model predicts otherwise than the run's clipped one:
            what rounding did, since a run clips the weights that it has in memory, and a checkpoint
            is clipped as it is stored.
        largest_change: of any ranked value by that rounding, in nats.
        before: whether the same command had written it already, so that it was only scored again.
        notes: what the user should know of it.
        recipe: what it is.
    """

    path: Path
    dtype: str
    score: Score | None = None
    changed: int = 0
    largest_change: float = 0.0
    before: bool = False
    notes: tuple[str, ...] = ()
    recipe: Recipe | None = field(default=None, compare=False, repr=False)


def export(
    result: Tested | str | Path,
    directory: str | Path,
    model: str | Path | Model | LoadedModel | None = None,
    task: AnyTask | str | None = None,
    *,
    edits: Sequence[Edit | str] = (),
    choice: str | None = None,
    device: str = "auto",
    tokenizer: Tokenizer | None = None,
    unclipped: bool = False,
    format: str = "safetensors",
    gguf: str | Path | None = None,
    type_: str | None = None,
    command: str | None = None,
    **options: Any,
) -> Saved:
    """Write a clipped model as an ordinary checkpoint with its tokenizer, its recipe, its prompt
    and a model card; or as a GGUF file with all of these and a Modelfile.

    The checkpoint's own files are copied, and only the clipped matrices change; each keeps its
    stored dtype. The folder appears only once it is whole. A result in memory is checked by loading
    the folder and scoring it again, and where the folder holds this very model, written by the same
    version, it is scored again and left as it is; all else needs the memory of one matrix, unless
    there is a task to score.

    Arguments:
        result: what `search` returned; or the folder of a finished run; or a model to clip.
        directory: a folder that does not exist yet, or is empty.
        model: of a result, as `search` was given it; of a run, where it lies now, if elsewhere.
        task: of a result, as `search` was given it; of a model, what to score the edits on. A GGUF
            file is read on its test rows as it was written, beside its base: of a run, the task
            that was searched.
        edits: of a model: `Edit`s, or texts such as `26:mlp:0.95`.
        choice: which of a sweep's choices, by words of its name.
        device, tokenizer, options: as `search` was given them; of a model with a task, as
            `evaluate`.
        unclipped: write the model where nothing was chosen to be clipped, too.
        format: `safetensors`, or `gguf`: a GGUF file is patched, of which all but the edited
            tensors is copied byte for byte.
        gguf: the file to patch, where the model is none; it must be the same model.
        type_: what edited tensors of it are written as: `f16` (default), `bf16` or `q8_0`.
        command: what the recipe notes as what made it.

    Raises:
        RunError: the model or the task is not the result's, the run makes no choice or clips
            nothing, the folder is taken or cannot be written, or the reloaded model scores
            differently.
        EditError: there is no edit, or the model has no such matrix.
        ModelError: the model reads numbers, or there is none.
    """
    if not isinstance(result, str | Path):
        if model is None or task is None:
            raise RunError("a result is exported with the model and the task that were searched")
        task = Task.load(task) if isinstance(task, str) else task
        settings = result.settings
        task = drawn_tasks(task, settings.get("seeds", ()), settings.get("templates", ()))[0]
        loaded = load_model(model, dtype=settings["dtype"], device=device, tokenizer=tokenizer)
        return save_clipped(result, scorer_of(task, loaded, **options), directory, command)
    target, kind = free_target(directory), check_format(format, gguf, type_)
    said = {name: options.pop(name) for name in ModelOptions.model_fields if name in options}
    loading = ModelOptions.of(said)
    if model is not None and not isinstance(model, str | Path):
        raise RunError("a run's model is exported from its files: name the folder or hub id")
    made = Task.load(task) if isinstance(task, str) else task
    chosen = chosen_of(result, edits, choice, model)
    if is_run(result):
        source = _searched(chosen, made, kind, loading)
    else:
        chosen, source = _own(chosen, made, kind, loading, device, options)
    if not chosen.edits and not unclipped:
        raise EditError(
            f"'{result}' chose to clip nothing, so there is no other model than '{source.name}';"
            " --unclipped writes that one, with its recipe"
        )
    return _write(target, chosen, source, (kind, gguf), made, loading, options, command)


def _write(
    target: Path,
    chosen: Chosen,
    source: LoadedModel,
    patching: tuple[str | None, str | Path | None],
    task: AnyTask | None,
    loading: ModelOptions,
    reading: dict[str, Any],
    command: str | None,
) -> Saved:
    """Write what was chosen; see `export`.

    Arguments:
        patching: the type of a GGUF file's edited tensors, or None, and the file to patch.
    """
    (kind, gguf), near, score = patching, None, None
    if kind is not None:
        own, source = source, source if gguf is None else source_of(str(gguf), loading)
        same = own.file and source.file and own.file.path == source.file.path
        near = None if same else own.name
        if task is not None:
            score = partial(_as_written, source.name, task, loading, reading)
    with writing(target) as draft:
        recipe = _recipe(source, chosen, command, kind)
        recipe = write_folder(source, recipe, draft, near=near, score=score)
    return Saved(target, recipe.dtype, notes=chosen.known, recipe=recipe)


def check_format(format_: str, base: str | Path | None, type_: str | None) -> str | None:
    """Return the type of a GGUF file's edited tensors; None where none is to be written.

    Raises:
        EditError: there is no such format or type, or what was said does not go with the format.
    """
    if format_ == "gguf":
        return GgufType.of(type_ or "f16", TYPES).name
    if format_ != "safetensors":
        raise EditError(f"no format '{format_}' of models; there are safetensors and gguf")
    for flag, said in (("--gguf", base), ("--type", type_)):
        if said is not None:
            raise EditError(f"{flag} {said} is of GGUF files; add --format gguf")
    return None


def _own(
    own: Chosen,
    task: AnyTask | None,
    kind: str | None,
    loading: ModelOptions,
    device: str,
    options: dict[str, Any],
) -> tuple[Chosen, LoadedModel]:
    """Return edits of one's own, scored where there is a task, and the model that they are of; for
    a GGUF file they are scored once it is written."""
    name = own.model
    if not own.edits:
        raise no_edit(name)
    if task is None or kind is not None:
        source = source_of(name, loading)
        edits = canonical(Anatomy.of(source.model), own.edits)
        targets_of(source.model, edits)
        prompt = None if task is None else PortableTask.if_any(task, options.get("scoring"))
        return replace(own, edits=edits, task=prompt), source
    loaded = load_model(name, **{**loading.only(ModelOptions), "device": device})
    found = _evaluator(task, loaded, options).evaluate(own.edits, "test")
    return Chosen.of_evaluation(found, loaded.fingerprint), loaded


def _evaluator(task: AnyTask, model: LoadedModel, options: dict[str, Any]) -> Evaluator:
    scorer = scorer_of(task, model, **options)
    if not isinstance(scorer, Evaluator):
        raise RunError(f"task '{task.name}' asks for numbers, so there is no prompt to export")
    return scorer


def _searched(
    chosen: Chosen, task: AnyTask | None, kind: str | None, loading: ModelOptions
) -> LoadedModel:
    """Return the model that a run was of; a RunError where it, or the task, is another now."""
    source = source_of(chosen.model, loading)
    if task is not None and kind is None:
        raise EditError("a run has its own task, which was tested; leave out the other one")
    if isinstance(task, Task) and chosen.task is not None:
        asked = task.for_tokenizer(needed_tokenizer(source))
        if asked.digest != chosen.task.digest:
            raise RunError(
                f"the run searched other prompts ({chosen.task.full_name}, {chosen.task.shots}"
                f" shots, seed {chosen.task.seed}) than those to be scored; name its own"
            )
    if chosen.weights is not None:
        stored = StoredWeights.of(source.name, loading) if source.file is None else None
        found = stored and stored_fingerprint(stored, source.tokenizer, DTYPES[chosen.scored_in])
        if found != chosen.weights:  # not to be had from the files alone, perhaps
            code = loading.trust_remote_code
            found = load_model(
                source.name, dtype=chosen.scored_in, trust_remote_code=code
            ).fingerprint
        chosen.check(found, source.name)
    return source


def _as_written(
    base: str, task: AnyTask, loading: ModelOptions, reading: dict[str, Any], patched: Path
) -> Scores:
    """Read the test rows through a GGUF file and its base, both dequantised as they are."""
    said = loading.only(ModelOptions)
    # Which holds what the files say.
    said["dtype"] = "float32" if loading.dtype == "auto" else loading.dtype
    before, after = (
        _evaluator(task, load_model(name, **said), reading).evaluate([], "test").score
        for name in (base, str(patched))
    )
    gain = compare(before, after)
    told = (
        f"test rows through both files as they are written, dequantised, in {said['dtype']}: base"
        f" {before.accuracy:.4f}, patched {after.accuracy:.4f}; {verdict(gain)},"
        f" {sentence(gain, 'accuracy', f'n = {before.n}')}"
    )
    return Scores(
        says=(told,),
        unpruned=before.summary(),
        clipped=after.summary(),
        comparison={**gain.to_json(), "verdict": verdict(gain)},
    )


def save_clipped(
    result: Tested, scorer: Scorer, directory: str | Path, command: str | None = None
) -> Saved:
    """Write a result's clipped model; see `export`.

    Arguments:
        scorer: what scored the result, or its like; of several draws the first that chose.
    """
    source = scorer.model
    needed_tokenizer(source)
    if result.settings["prompts"] != scorer.task.digest:
        raise RunError(
            "the result was searched with other prompts; give the task that was searched"
        )
    seeds, templates = (result.settings.get(name, ()) for name in ("seeds", "templates"))
    again, *_ = Draws.of(scorer, seeds, templates).testing
    chosen = Chosen.of_result(result, again.task)
    chosen.check(source.fingerprint, source.name)
    recipe = _recipe(source, chosen, command)
    target = check_target(directory, source)
    if is_taken(target):
        there = _written(target)
        if any(there.get(name) != json.loads(recipe.text())[name] for name in SAME):
            raise taken(directory)
        clear_drafts(target)
        return _score_again(result, again, target, target, recipe)
    with writing(target) as draft:
        recipe = write_folder(source, recipe, draft)
        return _score_again(result, again, draft, target, recipe)


def check_target(directory: str | Path, model: LoadedModel | None = None) -> Path:
    """Return a folder that a checkpoint can be written to, or that holds one which this version
    wrote, of that model where one is given; a RunError where it is a file, holds something else, or
    cannot be made."""
    target = home(directory).absolute()
    if not is_taken(target):
        return free_target(directory)
    there = _written(target)
    if there.get("eckart") != version("eckart") or (
        model and there.get("weights") != model.fingerprint
    ):
        raise taken(directory)
    return target


def _recipe(
    source: LoadedModel, chosen: Chosen, command: str | None, kind: str | None = None
) -> Recipe:
    """Return what tells an exported model from every other, but for its digests; nothing in it says
    where on this machine anything lies."""
    task = chosen.task and chosen.task.for_tokenizer(needed_tokenizer(source))
    path = home(source.name)
    local = path.is_absolute() or path.exists()
    return Recipe(
        eckart=version("eckart"),
        model=path.absolute().name if local else source.name,
        revision=revision(source),
        weights=chosen.weights,
        edits=tuple(map(str, chosen.edits)),
        dtype=kind or stored_dtype(source),
        scored_in=chosen.scored_in,
        task=task,
        scores=chosen.scores,
        versions=versions(),
        command=command and placeless(command),
    )


def _written(target: Path) -> dict[str, Any]:
    """Return what a folder says of the model in it; nothing where it is no export's."""
    try:
        about = json.loads((target / RECIPE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return about if isinstance(about, dict) else {}


def _score_again(
    result: Tested, scorer: Scorer, folder: Path, target: Path, recipe: Recipe
) -> Saved:
    source, before, dtype = scorer.model, folder == target, recipe.dtype
    model = load_model(
        folder,
        dtype=source.dtype,
        device=str(source.model.device),
        trust_remote_code=source.options.trust_remote_code,
    )
    again, run = _score(scorer.on(model)([], "test")), _score(result.clipped.trials[0])
    change = np.array(again.log_likelihoods) - np.array(run.log_likelihoods)
    largest = float(np.abs(change).max())
    allowed = STORAGE[dtype] + STORAGE[source.dtype]
    if largest > allowed:
        raise RunError(
            f"the saved model scores differently from the run (by up to {largest:.2g} nats,"
            f" {allowed:g} allowed for {dtype}), so it is not"
            f" {'what this command writes' if before else 'kept'}"
        )
    changed = sum(a != b for a, b in zip(run.predictions, again.predictions, strict=True))
    return Saved(target, dtype, again, changed, largest, before, recipe=recipe)


def _score(trial: Trial) -> Score:
    score = trial.labelled
    assert score is not None
    return score
