"""A clipped model as an ordinary checkpoint, which plain transformers loads."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError

from eckart import __version__
from eckart.edits import clip, clip_
from eckart.errors import RunError
from eckart.models import LoadedModel, Model, load_model, load_stored, needed_tokenizer
from eckart.records import Edit
from eckart.scores import Score
from eckart.selection.study import Study

STORAGE = {"float64": 1e-6, "float32": 1e-3, "float16": 0.1, "bfloat16": 0.75}
"""How far, in nats, storing weights in a dtype may move a ranked value before a checkpoint is not trusted."""


@dataclass(frozen=True)
class Saved:
    """A checkpoint that was written, loaded again and scored again.

    Arguments:
        path: its folder.
        dtype: of the stored weights.
        score: the reloaded model's score on the test rows.
        changed: on how many rows its prediction differs from the one in the run, through rounding to `dtype`.
        largest_change: of any ranked value, in nats.
    """

    path: Path
    dtype: str
    score: Score
    changed: int
    largest_change: float


def export(study: Study, directory: str | Path) -> Saved:
    """Write a study's clipped model as a dense checkpoint with its tokenizer, and check it by scoring it again.

    The weights are stored in the dtype of the original checkpoint. The folder appears only once the reloaded model
    has given the run's scores again.

    Arguments:
        study: what `search` returned.
        directory: a folder that does not exist yet, or is empty.

    Raises:
        RunError: the folder is taken or cannot be written, or the reloaded model scores differently.
        ModelError: the model reads numbers.
    """
    needed_tokenizer(study.scorer.model)
    target = check_target(directory)
    try:
        # Beside the target, so that the last step is a rename; a name of its own, so that nobody else's is touched.
        with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as folder:
            draft = Path(folder) / target.name
            dtype = _write(study.scorer.model, [study.edit], draft)
            saved = _score_again(study, draft, target, dtype)
            if target.exists():
                target.rmdir()
            draft.rename(target)
    except (OSError, SafetensorError) as error:
        raise RunError(
            f"checkpoint '{target}' cannot be written ({error}); check space and permissions"
        ) from error
    return saved


def check_target(directory: str | Path) -> Path:
    """Return a folder that a checkpoint can be written to.

    Raises:
        RunError: it is a file, holds something, or cannot be made.
    """
    target = Path(directory).expanduser().absolute()
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise RunError(
            f"'{directory}' exists and is not an empty folder; name a new one, nothing is overwritten"
        )
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"'{target.parent}' cannot be made ({error.strerror}); name another folder") from error
    if not os.access(target.parent, os.W_OK):
        raise RunError(f"'{target.parent}' cannot be written to; name another folder")
    return target


def _write(source: LoadedModel, edits: Sequence[Edit], folder: Path) -> str:
    """Save the clipped model in its original dtype; return that dtype."""
    folder.mkdir()
    original = load_stored(source)
    if original is None:
        with clip(source.model, edits):
            _save(source.model, folder)
        dtype = source.model.dtype
    else:
        clip_(original, edits)
        _save(original, folder)
        dtype = original.dtype
    needed_tokenizer(source).save_pretrained(folder)
    about = {"eckart": __version__, "model": source.name, "edits": [str(edit) for edit in edits]}
    (folder / "eckart.json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
    return str(dtype).removeprefix("torch.")


def _save(model: Model, folder: Path) -> None:
    with torch.no_grad():
        model.save_pretrained(folder, safe_serialization=True)


def _score_again(study: Study, draft: Path, target: Path, dtype: str) -> Saved:
    source = study.scorer.model
    model = load_model(draft, dtype=source.dtype, device=str(source.model.device))
    trial = study.scorer.on(model)([], "test")
    again, run = trial.labelled, study.clipped.labelled
    assert again is not None
    assert run is not None
    change = np.array(again.log_likelihoods) - np.array(run.log_likelihoods)
    largest = float(np.abs(change).max())
    allowed = STORAGE[dtype] + STORAGE[source.dtype]
    if largest > allowed:
        raise RunError(
            f"the saved model scores differently from the run (by up to {largest:.2g} nats, {allowed:g} allowed for "
            f"{dtype}), so it is not kept"
        )
    pairs = zip(again.predictions, run.predictions, strict=True)
    return Saved(target, dtype, again, sum(a != b for a, b in pairs), largest)
