"""A folder of exported weights: written, made again from its recipe, and sent to the hub."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]
from safetensors import SafetensorError

from eckart.errors import ModelError, RunError
from eckart.exports.card import (
    CARD,
    MODELFILE,
    PER,
    PROMPT,
    USE,
    card,
    modelfile,
    program,
    prompt_text,
)
from eckart.exports.copying import copy_clipped, save
from eckart.exports.gguf import patch
from eckart.exports.recipe import RECIPE, SUMS, TYPES, Recipe, Scores, sha256, sums, versions
from eckart.files import WEIGHTS, drafted, home
from eckart.weights.edits import clip, clip_
from eckart.weights.gguf import GgufFile
from eckart.weights.identity import tokenizer_text
from eckart.weights.loading.failures import first_line
from eckart.weights.models import (
    LoadedModel,
    load_checkpoint,
    load_tokenizer,
    needed_tokenizer,
    outlined_model,
)
from eckart.weights.options import PLAIN, ModelOptions

WRITTEN = (CARD, USE, MODELFILE)
"""What is worded by the version that writes it."""
ROUNDED = (".safetensors", ".gguf")


def source_of(name: str, options: ModelOptions = PLAIN) -> LoadedModel:
    """Return a model without its weights, to be exported from its files."""
    file = GgufFile.of(name)
    outlined = outlined_model(name, options)
    return LoadedModel(outlined.model, outlined.tokenizer, name, options=options, file=file)


def write_folder(
    source: LoadedModel,
    recipe: Recipe,
    folder: Path,
    wanted: Mapping[str, str] | None = None,
    near: str | None = None,
    score: Callable[[Path], Scores] | None = None,
) -> Recipe:
    """Write a clipped model and all that goes with it into an empty folder.

    Arguments:
        source: the base model; of a checkpoint's files its weights need not be in memory.
        recipe: without the digests, which are found here.
        wanted: the digests that the base model's files must have.
        near, score: of a GGUF file: the model that it must be near, and what reads the test rows
            through it.

    Returns:
        the recipe as it was written.
    """
    more: dict[str, Any] = {}
    texts: dict[str, str] = {}
    kept: dict[str, str] = {}
    if recipe.dtype in TYPES:
        file = _needed_file(source)
        base = check_digest(file, wanted)
        name = " ".join(f"{file.path.stem}{'.clipped' * bool(recipe.edits)}.gguf".split())
        found = patch(file, source.model, recipe.parsed, folder / name, recipe.dtype, near)
        more["gguf"] = recipe.gguf or found  # one that is made again lies near nothing
        if score is not None:
            more["as_written"] = score(folder / name)
        texts[MODELFILE] = modelfile(name, recipe)
    else:
        base, kept = _write_weights(source, recipe, folder, wanted)
    made = recipe.model_copy(update={**more, "base": base})
    if made.task is not None:
        texts[PROMPT] = prompt_text(made.task)
        if made.task.scoring in PER and made.gguf is None:
            texts[USE] = program(made.task, needed_tokenizer(source), made.scored_in)
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8", newline="")
    (folder / CARD).write_text(card(made, folder), encoding="utf-8", newline="")
    names = sorted(path.name for path in folder.iterdir())
    files = {name: kept.get(name) or sha256(folder / name) for name in names}
    made = made.model_copy(update={"files": files})
    _write_recipe(made, folder)
    return made


def _write_recipe(recipe: Recipe, folder: Path) -> None:
    (folder / RECIPE).write_text(recipe.text(), encoding="utf-8", newline="")
    digests = {**recipe.files, RECIPE: sha256(folder / RECIPE)}
    (folder / SUMS).write_text(sums(digests), encoding="utf-8", newline="")


def _write_weights(
    source: LoadedModel, recipe: Recipe, folder: Path, wanted: Mapping[str, str] | None
) -> tuple[dict[str, str], dict[str, str]]:
    """Write the clipped model, every tensor in the dtype that it is stored in; return the digests
    of the base model's files, and of those that lie in the folder as they are."""
    edits, tokenizer = recipe.parsed, needed_tokenizer(source)
    if source.live:
        with clip(source.model, edits):
            save(source.model, folder)
        tokenizer.save_pretrained(folder)
        return {}, {}
    if source.file is not None:
        base = check_digest(source.file, wanted)
        exact = load_checkpoint(source.name, None, source.options)
        clip_(exact, edits)
        save(exact, folder)
        tokenizer.save_pretrained(folder)
        return base, {}
    copied = copy_clipped(source, edits, folder, wanted)
    kept = {name: d for name, d in copied.kept.items() if name.endswith(".safetensors")}
    if tokenizer_text(tokenizer) != tokenizer_text(load_tokenizer(source.name, source.options)):
        tokenizer.save_pretrained(folder)  # another one than the checkpoint's was asked for
    return copied.base, kept


def _needed_file(source: LoadedModel) -> GgufFile:
    if source.file is None:
        raise ModelError(
            f"'{source.name}' is no GGUF file; give the one to patch with --gguf BASE.gguf"
            " (llama.cpp's convert_hf_to_gguf.py makes one of a folder)"
        )
    return source.file


def check_digest(file: GgufFile, wanted: Mapping[str, str] | None) -> dict[str, str]:
    """Return a file's digest by its name; the recipe may know it by another."""
    if wanted is not None and file.digest not in wanted.values():
        raise ModelError(
            f"'{file.name}' is not the recipe's base model: its SHA-256 is {file.digest[:12]}, and"
            f" the recipe's {min(wanted.values())[:12]}"
        )
    return {file.path.name: file.digest}


@contextmanager
def writing(target: Path) -> Iterator[Path]:
    """Give an empty folder that becomes the target once the block has ended well; see `drafted`. A
    RunError where it cannot be written."""
    try:
        with drafted(target) as draft:
            draft.mkdir()
            yield draft
    except (OSError, SafetensorError) as error:
        if getattr(error, "errno", None) in (errno.ENOTEMPTY, errno.EEXIST):
            raise taken(target) from error  # by another command, meanwhile
        raise RunError(
            f"checkpoint '{target}' cannot be written ({error}); check space and permissions"
        ) from error


def free_target(directory: str | Path) -> Path:
    """Return a folder that a checkpoint can be written to; a RunError where it is a file, holds
    something, or cannot be made."""
    target = home(directory).absolute()
    if is_taken(target):
        raise taken(directory)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(
            f"'{target.parent}' cannot be made ({error.strerror}); name another folder"
        ) from error
    if not os.access(target.parent, os.W_OK):
        raise RunError(f"'{target.parent}' cannot be written to; name another folder")
    return target


def is_taken(target: Path) -> bool:
    return target.exists() and not (target.is_dir() and not any(target.iterdir()))


def taken(directory: str | Path) -> RunError:
    return RunError(
        f"'{directory}' exists and is not an empty folder, nor what this command writes; name a new"
        " one, nothing is overwritten"
    )


def apply(
    recipe: str | Path,
    directory: str | Path,
    model: str | Path | None = None,
    *,
    trust_remote_code: bool = False,
    inexact: bool = False,
    tell: Callable[[str], None] = lambda text: None,
) -> Recipe:
    """Make an exported folder again, from its recipe and the base model, and check every byte.

    Arguments:
        recipe: the file, or a folder that holds one.
        directory: a folder that does not exist yet, or is empty.
        model: where the base model lies, if not where the recipe says.
        trust_remote_code: run code that the base model brings.
        inexact: keep the folder where the clipped matrices were rounded otherwise here, as another
            processor or version may round them.
        tell: is told what differs and is kept all the same.

    Raises:
        RunError: the recipe is damaged, the folder taken, or a file is not what the recipe says.
        ModelError: the base model is another, or there is none.
    """
    said = Recipe.read(recipe)
    if not said.base:
        raise RunError(
            f"recipe '{recipe}' is of a model that lay in memory, so no file is its base; export a"
            " model that is saved"
        )
    target = free_target(directory)
    place = home(recipe).absolute()
    beside = place.parent if place.is_dir() else place.parent.parent
    name = str(model) if model is not None else base_of(said, beside)
    source = source_of(name, ModelOptions(trust_remote_code=trust_remote_code))
    with writing(target) as draft:
        made = write_folder(source, said.model_copy(update={"files": {}}), draft, said.base)
        _compare(said, made, inexact, tell)
        _write_recipe(said if said.files == made.files else made, draft)
    return said


def base_of(recipe: Recipe, beside: Path) -> str:
    """Return where the base model of a recipe lies: by its name here or beside a folder, or on the
    hub in its revision.

    Raises:
        ModelError: nowhere there.
    """
    for place in (home(recipe.model), beside / recipe.model):
        if place.exists():
            return str(place)
    if recipe.revision is None:
        raise ModelError(
            f"the base model '{recipe.model}' lies neither here nor beside '{beside.name}'; name a"
            " folder or file that holds it: eckart apply RECIPE MODEL"
        )
    try:
        return snapshot_download(
            recipe.model, revision=recipe.revision, allow_patterns=list(recipe.base)
        )
    except (OSError, ValueError, HFValidationError) as error:
        raise ModelError(
            f"the base model '{recipe.model}' in revision {recipe.revision[:12]} cannot be had"
            f" ({first_line(error)}); name a folder that holds it: apply RECIPE MODEL"
        ) from error


def _compare(said: Recipe, made: Recipe, inexact: bool, tell: Callable[[str], None]) -> None:
    """Refuse a folder that is not the recipe's; the wording of another version is let pass."""
    names = sorted(said.files.keys() | made.files.keys())
    other = [name for name in names if said.files.get(name) != made.files.get(name)]
    worded = [name for name in other if name in WRITTEN and said.eckart != version("eckart")]
    rounded = [name for name in other if name.endswith(ROUNDED) and name in made.files]
    wrong = [n for n in other if n not in worded and not (inexact and n in rounded)]
    if wrong:
        here = ", ".join(f"{k} {v}" for k, v in versions().items() if said.versions.get(k) != v)
        raise RunError(
            f"{', '.join(wrong)} differ from what the recipe says, though the base model is the"
            f" same: the clipped matrices were rounded otherwise here (versions: {here or 'alike'};"
            " another processor may do so too), or the recipe was changed; --inexact keeps them"
        )
    if other:
        tell(f"not as in the recipe, and kept: {', '.join(other)}")


def check_repository(repo: str) -> None:
    """Refuse a name that no repository of the hub can have."""
    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise RunError(f"no repository can be called '{repo}': {first_line(error)}") from None


def push(
    folder: Path,
    repo: str,
    *,
    private: bool = False,
    token: str | None = None,
    endpoint: str | None = None,
) -> str:
    """Send an exported folder to the hub, and return its address. Weights that lay there go: they
    would be another model's.

    Arguments:
        repo: `name` or `owner/name`, made where there is none.
        private: nobody else may see it; a repository that is there and public is refused.
        token: the hub's; by default that of `hf auth login` or HF_TOKEN.
        endpoint: of the hub.

    Raises:
        RunError: the hub does not take it; the folder stays.
    """
    api = HfApi(endpoint=endpoint, token=token)
    try:
        made = api.create_repo(repo, private=private, exist_ok=True)
        if private and not api.repo_info(made.repo_id).private:
            raise RunError(
                f"'{folder}' was written and not sent: '{made.repo_id}' is there, and public; leave"
                " out --private, or name another"
            )
        api.upload_folder(
            repo_id=made.repo_id,
            folder_path=folder,
            commit_message="Exported by eckart",
            delete_patterns=[*WEIGHTS, "*.index.json"],
        )
    except (HfHubHTTPError, HFValidationError, OSError, ValueError) as error:
        raise RunError(
            f"'{folder}' was written, but '{repo}' did not take it ({first_line(error)}); log in"
            " with `hf auth login`, or set HF_TOKEN, check the name, and send it with `hf upload"
            f" {repo} {folder}`"
        ) from error
    return str(made)
