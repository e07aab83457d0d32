"""The recipe of an exported model: a few kilobytes, from which the folder is made again."""

from __future__ import annotations

import hashlib
import json
import platform
import shlex
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from eckart.errors import EckartError, RunError
from eckart.files import checked, home, read_text
from eckart.records import Edit
from eckart.tasks.portable import PortableTask

RECIPE = "eckart.json"
"""The recipe, beside the weights."""
SUMS = "SHA256SUMS"
"""The digest of every file, as `sha256sum --check` reads them."""
TYPES = ("f16", "bf16", "q8_0")
"""What the edited tensors of a GGUF file may be written as."""
DTYPES = ("float64", "float32", "float16", "bfloat16")
FORM: Literal[1] = 1
"""Of recipes: raise it when what this version writes is not what an earlier one read."""


def _edit(text: str) -> str:
    try:
        return str(Edit.parse(text))
    except EckartError as error:
        raise ValueError(str(error)) from None


class Scores(BaseModel):
    """What the edits are worth, as the run or the evaluation has it.

    Arguments:
        says: in sentences, the verdict first.
        split: the rows.
        unpruned, clipped: what each scored there, with its interval.
        comparison: clipped less unpruned on the same rows: difference, interval, p value.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    says: tuple[str, ...]
    split: str = "test"
    unpruned: dict[str, Any] | None = None
    clipped: dict[str, Any] | None = None
    comparison: dict[str, Any] | None = None


class PatchedTensor(BaseModel):
    """A tensor that was written anew: its name in the file, and its type before and after."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    before: str
    after: str


class Patched(BaseModel):
    """What is in a GGUF file that was made of another.

    Arguments:
        base: the file whose other tensors and keys it has, byte for byte.
        tensors: those that were written anew.
        kept: how many were copied.
        distance: how far the base's edited matrices are from those of the model that was searched
            beside it, at most: in Frobenius norm, as a share of the model's. None without one.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    base: str
    tensors: tuple[PatchedTensor, ...]
    kept: int
    distance: float | None = None

    def __str__(self) -> str:
        """Say what the file is."""
        kinds = ", ".join(dict.fromkeys(tensor.before for tensor in self.tensors))
        anew = (
            f"{len(self.tensors)} tensors dequantised from {kinds}, clipped and written as"
            f" {self.tensors[0].after}"
            if self.tensors
            else "nothing is clipped"
        )
        checked = (
            ""
            if self.distance is None
            else f"; the base's matrices there are within {self.distance:.2%} of the model's"
        )
        return f"{anew}; {self.kept} tensors and every key as in {self.base}{checked}"


class Recipe(BaseModel):
    """All that makes an exported folder of its base model.

    Arguments:
        recipe: its form.
        eckart: the version that wrote it.
        model: the base model: a hub id, or the name of its folder or file, wherever that lies.
        revision: of the base model on the hub; None for a folder.
        weights: the fingerprint of the base model as it was scored; None where it was not.
        base: the SHA-256 of each file of the base model that the folder is made of; empty where it
            lay in memory.
        edits: what was clipped.
        dtype: of the stored weights; of a GGUF file, of its edited tensors.
        scored_in: the dtype that the scores, and so the predictions, were computed in.
        task: how a row becomes a prompt, demonstrations and all; None where there was no task.
        scores: what the edits are worth; None where nothing was scored.
        gguf: what is in the GGUF file, where there is one.
        as_written: what the edits are worth through this file and its base, dequantised as they
            are; None where no test rows were read so.
        versions, command: what wrote it.
        files: the SHA-256 of every file of the folder but this one and the list of digests.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    recipe: Literal[1] = FORM
    eckart: str
    model: str
    revision: str | None = None
    weights: str | None = None
    base: dict[str, str] = {}
    edits: tuple[Annotated[str, AfterValidator(_edit)], ...]
    dtype: Annotated[str, Field(pattern=f"^({'|'.join((*DTYPES, *TYPES))})$")]
    scored_in: Annotated[str, Field(pattern=f"^({'|'.join(DTYPES)})$")] = "float32"
    task: PortableTask | None = None
    scores: Scores | None = None
    gguf: Patched | None = None
    as_written: Scores | None = None
    versions: dict[str, str] = {}
    command: str | None = None
    files: dict[str, str] = {}

    @property
    def parsed(self) -> tuple[Edit, ...]:
        """The edits."""
        return tuple(map(Edit.parse, self.edits))

    def text(self) -> str:
        """Return the recipe as its file holds it."""
        return json.dumps(self.model_dump(mode="json"), indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def read(cls, path: str | Path) -> Recipe:
        """Read a recipe, or that of a folder which holds one.

        Raises:
            RunError: there is none, it is damaged, or another version's.
        """
        place = home(path)
        place = place / RECIPE if place.is_dir() else place
        text = read_text(place, "recipe", RunError, "is it one?")
        try:
            values = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise RunError(f"recipe '{place}' is damaged: it is no JSON ({error})") from None
        if not isinstance(values, dict) or "eckart" not in values:
            raise RunError(f"'{place}' is no recipe: nothing in it says which eckart wrote it")
        if values.get("recipe") != FORM:
            raise RunError(
                f"recipe '{place}' was written by eckart {values['eckart']} in another form"
                f" ({values.get('recipe', 'none')}, and this version reads {FORM}); export the"
                " model again, or apply it with that version"
            )
        return checked(cls, values, f"recipe '{place}'", RunError)


def sha256(path: Path) -> str:
    """Return a file's digest, as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sums(files: Mapping[str, str]) -> str:
    """Return digests as `sha256sum` lists them."""
    return "".join(f"{digest}  {name}\n" for name, digest in sorted(files.items()))


def versions() -> dict[str, str]:
    """Return the versions of all that an export depends on."""
    names = ("eckart", "torch", "transformers", "tokenizers", "numpy")
    return {**{n: metadata.version(n) for n in names}, "python": platform.python_version()}


def placeless(command: str) -> str:
    """Return a command whose paths are names: it does not say where on this machine they lie."""

    def named(word: str) -> str:
        flag, equals, said = word.rpartition("=")
        path = home(said)
        return f"{flag}{equals}{path.name}" if path.is_absolute() else word

    return shlex.join(map(named, shlex.split(command)))
