"""A clipped model as an ordinary checkpoint, which plain transformers loads."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError

from eckart.errors import RunError
from eckart.exports.copying import copy_clipped, save, stored_dtype
from eckart.files import clear_drafts, drafted, home
from eckart.records import Edit, Trial
from eckart.scoring.evaluator import scorer_of
from eckart.scoring.scorer import Scorer
from eckart.selection.draws import Draws, drawn_tasks
from eckart.selection.tested import Tested
from eckart.statistics.scores import Score
from eckart.tasks.task import AnyTask, Task
from eckart.weights.edits import clip, clip_
from eckart.weights.identity import tokenizer_text
from eckart.weights.models import (
    LoadedModel,
    Model,
    Tokenizer,
    load_checkpoint,
    load_model,
    load_tokenizer,
    needed_tokenizer,
)

ABOUT = "eckart.json"
"""What a saved model is, beside it."""
SAME = ("eckart", "weights", "edits", "dtype")
"""What two saved models that are the same agree on."""

STORAGE = {"float64": 1e-6, "float32": 1e-3, "float16": 0.1, "bfloat16": 0.75}
"""How far, in nats, storing weights in a dtype may move a ranked value before a checkpoint is not
trusted."""


@dataclass(frozen=True)
class Saved:
    """A checkpoint that was written, loaded again and scored again on the test rows.

    Arguments:
        path: its folder.
        dtype: of the stored weights; where they are of several, the one of most numbers.
        score: the reloaded model's score, in the run's dtype.
        changed: on how many rows the reloaded model predicts otherwise than the run's clipped one:
            what rounding did, since a run clips the weights that it has in memory, and a checkpoint
            is clipped as it is stored.
        largest_change: of any ranked value by that rounding, in nats.
        before: whether the same command had written it already, so that it was only scored again.
    """

    path: Path
    dtype: str
    score: Score
    changed: int
    largest_change: float
    before: bool = False


def export(
    result: Tested,
    directory: str | Path,
    model: str | Path | Model | LoadedModel,
    task: AnyTask | str,
    *,
    device: str = "auto",
    tokenizer: Tokenizer | None = None,
    **options: Any,
) -> Saved:
    """Write a result's clipped model as a dense checkpoint with its tokenizer, and check it by
    scoring it again.

    The checkpoint's own files are copied, and only the clipped matrices change; each keeps its
    stored dtype. The folder appears only once the reloaded model has given the run's scores again.
    A folder that holds this very model, written by the same version, is scored again and left as it
    is.

    Arguments:
        result: what `search` returned.
        directory: a folder that does not exist yet, or is empty, or that the same export has
            written.
        model, task, device, tokenizer, options: as `search` was given them.

    Raises:
        RunError: the model or the task is not the result's, the folder is taken or cannot be
            written, or the reloaded model scores differently.
        ModelError: the model reads numbers.
    """
    task = Task.load(task) if isinstance(task, str) else task
    settings = result.settings
    task = drawn_tasks(task, settings.get("seeds", ()), settings.get("templates", ()))[0]
    loaded = load_model(model, dtype=settings["dtype"], device=device, tokenizer=tokenizer)
    return save_clipped(result, scorer_of(task, loaded, **options), directory)


def save_clipped(result: Tested, scorer: Scorer, directory: str | Path) -> Saved:
    """Write a result's clipped model; see `export`.

    Arguments:
        scorer: what scored the result, or its like; of several draws the first that chose.
    """
    source = scorer.model
    needed_tokenizer(source)
    asked = {"weights": source.fingerprint, "prompts": scorer.task.digest}
    for name, digest in asked.items():
        if result.settings[name] != digest:
            raise RunError(
                f"the result's {name} are {result.settings[name][:12]}, and these are"
                f" {digest[:12]}; give the model and the task that were searched"
            )
    about, target = _about(source, result.edits), check_target(directory, source)
    if _is_taken(target):
        there = _written(target)
        if any(there.get(name) != about[name] for name in SAME):
            raise _taken(directory)
        clear_drafts(target)
        return _score_again(result, scorer, target, target, about["dtype"])
    try:
        with drafted(target) as draft:
            draft.mkdir()
            _write(source, result.edits, about, draft)
            saved = _score_again(result, scorer, draft, target, about["dtype"])
    except (OSError, SafetensorError) as error:
        raise RunError(
            f"checkpoint '{target}' cannot be written ({error}); check space and permissions"
        ) from error
    return saved


def check_target(directory: str | Path, model: LoadedModel | None = None) -> Path:
    """Return a folder that a checkpoint can be written to, or that holds one which this version
    wrote, of that model where one is given; a RunError where it is a file, holds something else, or
    cannot be made."""
    target = home(directory).absolute()
    if _is_taken(target):
        there = _written(target)
        if there.get("eckart") != version("eckart") or (
            model and there.get("weights") != model.fingerprint
        ):
            raise _taken(directory)
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(
            f"'{target.parent}' cannot be made ({error.strerror}); name another folder"
        ) from error
    if not os.access(target.parent, os.W_OK):
        raise RunError(f"'{target.parent}' cannot be written to; name another folder")
    return target


def _is_taken(target: Path) -> bool:
    return target.exists() and not (target.is_dir() and not any(target.iterdir()))


def _taken(directory: str | Path) -> RunError:
    return RunError(
        f"'{directory}' exists and is not an empty folder, nor what this command writes; name a new"
        " one, nothing is overwritten"
    )


def _about(source: LoadedModel, edits: Sequence[Edit]) -> dict[str, Any]:
    """Return what tells a saved model from every other."""
    return {
        "eckart": version("eckart"),
        "model": source.name,
        "weights": source.fingerprint,
        "edits": [str(edit) for edit in edits],
        "dtype": stored_dtype(source),
    }


def _written(target: Path) -> dict[str, Any]:
    """Return what a folder says of the model in it; nothing where it is no export's."""
    try:
        about = json.loads((target / ABOUT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return about if isinstance(about, dict) else {}


def _write(source: LoadedModel, edits: Sequence[Edit], about: dict[str, Any], folder: Path) -> None:
    """Save the clipped model, every tensor in the dtype that it is stored in."""
    tokenizer = needed_tokenizer(source)
    if source.live:
        with clip(source.model, edits):
            save(source.model, folder)
        tokenizer.save_pretrained(folder)
    elif source.file is not None:
        exact = load_checkpoint(source.name, None, source.options)
        clip_(exact, edits)
        save(exact, folder)
        tokenizer.save_pretrained(folder)
    else:
        copy_clipped(source, edits, folder)
        if tokenizer_text(tokenizer) != tokenizer_text(load_tokenizer(source.name, source.options)):
            tokenizer.save_pretrained(folder)  # another one than the checkpoint's was asked for
    (folder / ABOUT).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")


def _score_again(result: Tested, scorer: Scorer, folder: Path, target: Path, dtype: str) -> Saved:
    source, before = scorer.model, folder == target
    seeds, templates = (result.settings.get(name, ()) for name in ("seeds", "templates"))
    scorer, *_ = Draws.of(scorer, seeds, templates).testing
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
    return Saved(target, dtype, again, changed, largest, before)


def _score(trial: Trial) -> Score:
    score = trial.labelled
    assert score is not None
    return score
