"""A folder for llama.cpp and Ollama: the patched GGUF file, a Modelfile with the task's prompt, and
what the file scores as it was written."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from eckart.errors import EditError, RunError
from eckart.exports.choices import Chosen, chosen_of, is_run, no_edit
from eckart.exports.folder import free_target, writing
from eckart.exports.gguf import Patched, export_gguf
from eckart.scoring.evaluator import Evaluator
from eckart.statistics.gain import sentence, verdict
from eckart.statistics.paired import PairedDifference, compare
from eckart.statistics.scores import Score
from eckart.tasks.chat import MARK
from eckart.tasks.portable import PortableTask
from eckart.tasks.task import Task
from eckart.weights.gguf import GgufFile
from eckart.weights.models import load_model, load_tokenizer
from eckart.weights.options import ModelOptions

MODELFILE = "Modelfile"
ABOUT = "gguf.json"
"""What the folder holds, and what it scored."""
HERE = "{{ .Prompt }}"


@dataclass(frozen=True)
class Rescored:
    """The base file and the patched one, both dequantised as they are, on the same test rows."""

    dtype: str
    base: Score
    patched: Score

    @property
    def gain(self) -> PairedDifference:
        """The patched file less the base."""
        return compare(self.base, self.patched)

    def to_json(self) -> dict[str, Any]:
        return {
            "dtype": self.dtype,
            "base": self.base.summary(),
            "patched": self.patched.summary(),
            "gain": {**self.gain.to_json(), "verdict": verdict(self.gain)},
        }

    def __str__(self) -> str:
        """Say what the file is worth beside its base."""
        return (
            f"test rows through both files as they are written, dequantised, in {self.dtype}: base"
            f" {self.base.accuracy:.4f}, patched {self.patched.accuracy:.4f};"
            f" {verdict(self.gain)}, {sentence(self.gain, 'accuracy', f'n = {self.base.n}')}"
        )


@dataclass(frozen=True)
class GgufFolder:
    """What was written: the file, and what it scores, where there were rows to score."""

    path: Path
    patched: Patched
    scored: Rescored | None

    def to_json(self) -> dict[str, Any]:
        """Return the folder's `gguf.json`."""
        scored = {} if self.scored is None else {"test": self.scored.to_json()}
        return {"gguf": self.patched.to_json(), **scored}

    def __str__(self) -> str:
        return "\n".join(map(str, filter(None, (self.patched, self.scored))))


def chosen_edits(
    source: str,
    edits: Sequence[str],
    choice: str | None = None,
    moved: str | None = None,
    task: Task | None = None,
    scoring: str | None = None,
) -> Chosen:
    """Return what a run chose, or edits of one's own, to be exported as a GGUF file.

    Arguments:
        source: a run's folder, or a model.
        edits: of a model.
        choice: which of a sweep's.
        moved: where a run's model lies now.
        task, scoring: of a run, the task that it searched, whose test rows are to be scored.

    Raises:
        EckartError: there is no edit, or a run has its own edits, another task, or no choice.
    """
    chosen = chosen_of(source, edits, choice, moved)
    if not is_run(source):
        if not edits:
            raise no_edit(source)
        prompt = None if task is None else PortableTask.of(task, scoring)
        clipped = tuple(edit for edit in chosen.edits if edit.rate)
        return replace(chosen, edits=clipped, task=prompt)
    if task is not None and task.format.chat is not None:
        task = task.for_tokenizer(load_tokenizer(chosen.model))
    if task is not None and chosen.task is not None and task.digest != chosen.task.digest:
        raise RunError(
            f"run '{source}' searched other prompts ({chosen.task.full_name}, {chosen.task.shots}"
            f" shots, seed {chosen.task.seed}) than those to be scored; name its own"
        )
    return chosen


def export_gguf_folder(
    chosen: Chosen,
    directory: str | Path,
    base: str | Path | None = None,
    type_: str = "f16",
    task: Task | None = None,
    loading: ModelOptions | None = None,
    **reading: Any,
) -> GgufFolder:
    """Write a clipped model as a folder for llama.cpp and Ollama; it appears once it is whole.

    Arguments:
        chosen: the edits, the model that they are of, and the task's prompt.
        directory: a folder that does not exist yet, or is empty.
        base: the GGUF file to patch, where the model is none; it must be the same model.
        type_: what edited tensors are written as.
        task: its test rows are read through both files; none are without one.
        loading: how; in float32 unless a dtype is named, which holds what the files say.
        reading: see `Evaluator`.

    Raises:
        EditError: nothing is clipped, or the model has no such matrix.
        ModelError: see `export_gguf`.
        RunError: the folder is taken or cannot be written, or the model is not the one that was
            searched.
    """
    if not chosen.edits:
        raise EditError(f"nothing of '{chosen.model}' is clipped: its GGUF file is what there is")
    target, named = free_target(directory), GgufFile.of(chosen.model)
    own = base is None or (named is not None and named == GgufFile.of(str(base)))
    start = chosen.model if base is None else str(base)
    if own and chosen.weights is not None:
        _check_searched(chosen)
    said = loading or ModelOptions()
    said = said if said.dtype != "auto" else said.model_copy(update={"dtype": "float32"})
    file = GgufFile.of(start)
    name = f"{_line(file.path.stem) if file else 'model'}.clipped.gguf"
    with writing(target) as draft:
        patched = export_gguf(
            start, chosen.edits, draft / name, type_, None if own else chosen.model
        )
        if chosen.task is not None and chosen.task.format.chat is not None:
            told = chosen.task.for_tokenizer(load_tokenizer(start, said))
            chosen = replace(chosen, task=told)
        text = modelfile(name, chosen)
        (draft / MODELFILE).write_text(text, encoding="utf-8", newline="")
        scored = None if task is None else _scored(start, draft / name, task, said, reading)
        found = GgufFolder(target, replace(patched, path=target / name), scored)
        (draft / ABOUT).write_text(json.dumps(found.to_json(), indent=2) + "\n", encoding="utf-8")
    return found


def modelfile(name: str, chosen: Chosen) -> str:
    """Return an Ollama Modelfile of a GGUF file: greedy, with the task's prompt around what is
    asked, in place of a chat template.

    Where a row is one text, that is what is asked; otherwise the whole query, as the template would
    make it.
    """
    lines = [
        f"# {_line(chosen.model)} with {', '.join(map(str, chosen.edits))} clipped by eckart.",
        "# ollama create NAME -f Modelfile; ollama run NAME 'the text of a row'",
        f"FROM ./{name}",
        "PARAMETER temperature 0",
    ]
    if chosen.task is None:
        return "\n".join([*lines, f'TEMPLATE """{HERE}"""']) + "\n"
    task, frame, chat = chosen.task, chosen.task.frame, chosen.task.format.chat
    query = task.format.null_query(MARK)
    single = query.count(MARK) == 1
    if not single:
        lines.append(f"# A prompt is a whole query: {json.dumps(task.format.template)} filled in.")
    before, _, after = frame.around(query if single else MARK).rpartition(MARK)
    before = before if chat is None else chat.without_bos(before)
    template = f"{_escaped(before)}{HERE}{_escaped(after)}"
    stop = task.format.label_end or ("" if chat else task.format.separator or "\n")
    longest = max(len(label.encode()) for label in task.labels)  # a token is a byte or more
    return (
        "\n".join(
            [
                *lines,
                f"PARAMETER num_predict {longest + 2}",
                *([f'PARAMETER stop """{stop}"""'] if stop else []),  # a turn ends by itself
                f'TEMPLATE """{template}"""',
            ]
        )
        + "\n"
    )


def _line(name: str) -> str:
    """Return a name in which no line ends: the next would be a command of the file's."""
    return " ".join(name.split())


def _escaped(text: str) -> str:
    """Write a text so that neither the Modelfile's quotes nor the template's braces end in it."""
    # Every brace that opens: one alone would join those of an action behind it.
    return re.sub(r'[{"]', lambda mark: f"{{{{ {json.dumps(mark[0])} }}}}", text)


def _check_searched(chosen: Chosen) -> None:
    """Refuse a GGUF file that is no longer the one that was searched."""
    found = load_model(chosen.model, dtype=chosen.scored_in).fingerprint
    if found != chosen.weights:
        raise RunError(
            f"the weights that were searched are {str(chosen.weights)[:12]}, and those of"
            f" '{chosen.model}' are {found[:12]}; give the model that was searched"
        )


def _scored(
    base: str, patched: Path, task: Task, loading: ModelOptions, reading: dict[str, Any]
) -> Rescored:
    said = loading.only(ModelOptions)
    scores = []
    for name in (base, str(patched)):
        evaluator = Evaluator(load_model(name, **said), task, **reading)
        scores.append(evaluator.evaluate([], "test").score)
    return Rescored(said["dtype"], *scores)
