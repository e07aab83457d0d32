"""Files that leave the program: whole or not at all, where they were asked for, and never over what
was read; and what comes in: YAML of somebody else's, read as it was typed and in bounded memory,
and values that know their keys."""

from __future__ import annotations

import glob
import inspect
import os
import shutil
import tempfile
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, ClassVar, Self, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from eckart.errors import EckartError, RunError, TaskError, closest, of_option, plainly

KEPT = ("run.sqlite", "study.yaml", "result.json")
"""The files of a run's folder that no other command makes again."""
BESIDE_WEIGHTS = (
    "*config.json",
    "tokenizer*",
    "vocab*",
    "merges.txt",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template*",
    "*.jinja",
    "tekken.json",
    "*.tiktoken",
    "*.model",
    "*.py",
)
"""The files of a checkpoint beside its weights, which loading may read and a copy of it needs."""
WEIGHTS = ("*.safetensors", "*.bin", "*.gguf")
LOCK = "lock"


def home(path: str | Path) -> Path:
    """Return a path in which `~` is the home folder, as a shell would have it.

    >>> home("~/runs/x") == Path.home() / "runs/x", home("runs/x")
    (True, PosixPath('runs/x'))
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:  # there is no user of that name, so it is one
        return Path(path)


def same_file(one: Path, other: Path) -> bool:
    """Return whether two paths mean one file, whatever links or letters' case they are written
    with."""
    try:
        return one.samefile(other)
    except OSError:  # one of them is not there yet
        return one.resolve() == other.resolve()


@dataclass(frozen=True)
class Read:
    """What a command reads.

    Arguments:
        what: it is, for messages: `the data`.
        path: a file, or a folder of which some files are read.
        files: whether a file of that name in the folder is read, whether or not it is there yet;
            none by default.
    """

    what: str
    path: Path
    files: Callable[[str], bool] = lambda name: False

    def is_at(self, path: Path) -> bool:
        """Say whether writing to a path would change what is read."""
        return same_file(path, self.path) or (
            self.files(path.name) and same_file(path.parent, self.path)
        )


def check_outputs(outputs: Sequence[tuple[str, Path]], inputs: Sequence[Read]) -> None:
    """Refuse to write over what is read, and two outputs, named by their options, in one place;
    whatever is no file (a terminal) takes both."""
    places = [
        (option, path)
        for option, path in outputs
        if path.is_file() or path.is_dir() or not path.exists()
    ]
    for number, (option, path) in enumerate(places):
        over = next((read for read in inputs if not path.is_dir() and read.is_at(path)), None)
        if over is not None:
            raise RunError(
                f"{option} '{path}' is {over.what} itself, or would be read as part of it; name"
                " another"
            )
        twice = next(
            (other for other, place in places[:number] if _clash(path, place, other)), None
        )
        if twice is not None:
            raise RunError(
                f"{twice} and {option} share a place, '{path}'; name another for one of them"
            )


def _clash(path: Path, other: Path, option: str) -> bool:
    """Say whether two outputs cannot both be written; the folder of a checkpoint holds nothing
    else."""
    return same_file(path, other) or (
        option == "--save" and other.resolve() in path.resolve().parents
    )


def check_writable(path: Path) -> None:
    """Refuse a file that could not be written, before anything is computed: a folder, or one that
    is read-only, absent with its folder, or in a read-only one."""
    if path.is_dir() or not path.parent.is_dir():
        raise RunError(
            f"'{path}' cannot be written: it is a folder, or there is no folder '{path.parent}'"
        )
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise RunError(f"'{path}' cannot be written: it or its folder is read-only; name another")


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that a reader sees the old one or the new one, never a part; a RunError where
    it cannot be written.

    A link stays a link, and what is no file (a terminal, a pipe) is written to as it is.
    """
    target = path.resolve()
    try:
        if path.exists() and not path.is_file():  # a pipe's own path leads nowhere once resolved
            path.write_bytes(content)
            return
        with drafted(target) as draft:
            draft.write_bytes(content)
    except OSError as error:
        raise RunError(
            f"'{path}' cannot be written ({error.strerror}); check space and permissions"
        ) from error


@contextmanager
def drafted(target: Path) -> Iterator[Path]:
    """Give a path for a new file or folder, which becomes the target once the block has ended well;
    a folder must not exist yet, or be empty.

    It lies in a folder of its own beside the target: the last step is a rename, nobody else's draft
    is touched, and whatever way the block ends, nothing of it is left. What writers that were
    killed left of the same target is cleared away. An OSError where it cannot be written.
    """
    clear_drafts(target)
    folder, lock = _new_draft(target)
    try:
        with lock:
            yield folder / target.name
            (folder / target.name).replace(target)
    finally:
        _clear(folder, target.name)


def clear_drafts(target: Path) -> None:
    """Remove the drafts of a target whose writers were killed: the system has let go of their
    locks."""
    for folder in target.parent.glob(f"{glob.escape(_prefix(target))}*"):
        try:
            with (folder / LOCK).open("r+") as lock:
                if _locked(lock, wait=False):
                    _clear(folder, target.name)
        except OSError:  # its writer was killed before it had a lock, or has not come to it yet
            with suppress(OSError):
                folder.rmdir()


def _prefix(target: Path) -> str:
    return f".{target.name}.draft-"


def _new_draft(target: Path) -> tuple[Path, IO[str]]:
    """Make a folder for a draft, and hold its lock.

    Between the two somebody else may take it for a dead writer's and remove it; then another is
    made.
    """
    while True:
        folder = Path(tempfile.mkdtemp(prefix=_prefix(target), dir=target.parent))
        with suppress(FileNotFoundError), ExitStack() as undo:
            undo.callback(_clear, folder, target.name)
            lock = undo.enter_context((folder / LOCK).open("w"))
            _locked(lock, wait=True)
            if os.path.samestat(os.fstat(lock.fileno()), (folder / LOCK).stat()):
                undo.pop_all()
                return folder, lock


def _locked(file: IO[str], *, wait: bool) -> bool:
    """Lock a file for as long as it is open, and say whether that could be done."""
    try:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except (ImportError, OSError):  # it is held, or this system has no locks: nothing is cleared
        return False
    return True


def _clear(folder: Path, name: str) -> None:
    """Remove a draft: the lock last, so that a kill in between leaves what the next one clears."""
    shutil.rmtree(folder / name, ignore_errors=True)
    with suppress(OSError):
        for path in (folder / name, folder / LOCK):
            path.unlink(missing_ok=True)
        folder.rmdir()


MOST_BYTES = 256 * 1024
MOST_NODES = 20_000
"""Of a file's values, aliases counted as often as they are named."""


class _Loader(yaml.BaseLoader):
    # The base loader leaves every scalar as it was typed. YAML 1.1 would read the label words `yes`
    # and `no` as booleans, 010 as eight and 1e5 as a number; pydantic turns the few keys that are
    # numbers into numbers.

    def construct_document(self, node: yaml.Node) -> Any:
        """Return what the file holds, if it is small enough once every alias stands for what it
        names."""
        if _size(node, {}) > MOST_NODES:
            raise yaml.constructor.ConstructorError(
                problem=f"it holds more than {MOST_NODES:,} values"
            )
        return super().construct_document(node)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """Return a mapping's values by its keys; a key that stands twice is an error."""
        seen = set()
        for key, value in node.value:
            name = key.value if isinstance(key, yaml.ScalarNode) else id(key)
            if name in seen:
                raise yaml.constructor.ConstructorError(
                    problem=f"'{name}' stands twice", problem_mark=key.start_mark
                )
            seen.add(name)
            if name == "template":
                _without_closing_break(value)
        return super().construct_mapping(node, deep)


def _size(node: yaml.Node, sizes: dict[int, int]) -> int:
    """Return how many values a node stands for; an alias stands for all that it names."""
    if id(node) not in sizes:
        parts = [node.value] if isinstance(node, yaml.ScalarNode) else node.value
        inner = (
            [part for pair in parts for part in pair]
            if isinstance(node, yaml.MappingNode)
            else parts
        )
        sizes[id(node)] = 1 + sum(
            _size(part, sizes) for part in inner if isinstance(part, yaml.Node)
        )
    return sizes[id(node)]


def _without_closing_break(node: yaml.Node) -> None:
    """Take away the line break that every block (`|`, `>`) ends in; `|+` says that it is meant."""
    if isinstance(node, yaml.ScalarNode) and node.style in ("|", ">"):
        mark = node.start_mark
        header = (mark.buffer or "")[mark.pointer :].split("\n", 1)[0] if mark.buffer else ""
        if "+" not in header.split("#")[0]:
            node.value = node.value.removesuffix("\n")


def read_text(
    path: Path,
    what: str,
    wrong: type[EckartError] = TaskError,
    too_large: str = "is it the rows (--data)?",
) -> str:
    """Return the text of a file that a user names; `what` it is, and what is said of one larger
    than `MOST_BYTES`, stand in the error for one that is not there or cannot be read."""
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
        if len(content) > MOST_BYTES:
            raise wrong(f"{what} '{path}' is larger than {MOST_BYTES // 1024:,} KiB; {too_large}")
        return content.decode("utf-8-sig")
    except FileNotFoundError:
        raise wrong(f"no {what} '{path}'; is the path right?") from None
    except (OSError, UnicodeDecodeError) as error:
        raise wrong(f"cannot read {what} '{path}': {error}") from None


def parse_yaml(text: str, where: str, error: type[EckartError] = TaskError) -> Any:
    """Read YAML, every scalar as the text that was typed; the error for broken YAML gives the
    line."""
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as broken:
        mark = broken.problem_mark or broken.context_mark
        line = f" line {mark.line + 1}" if mark else ""
        raise error(f"{where}{line}: broken YAML: {broken.problem or broken.context}") from None
    except RecursionError:
        raise error(f"{where}: broken YAML: it is nested too deeply") from None
    except yaml.YAMLError as broken:
        raise error(f"{where}: broken YAML: {' '.join(str(broken).split())}") from None


CalledT = TypeVar("CalledT", bound=Callable[..., Any])


def option(default: Any, help: str) -> Any:
    """Return a field of a `Closed`: its default, and its help on the command line."""
    return Field(default=default, description=help)


ModelT = TypeVar("ModelT", bound=BaseModel)


def checked(
    model: type[ModelT],
    values: Mapping[str, Any],
    where: str,
    wrong: type[EckartError],
    options: bool = False,
) -> ModelT:
    """Return values as a model that knows its keys; the error for an unknown key or a value of the
    wrong kind names it in one line, and has its name where keys are options."""
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        # An unknown key is a misspelt one, which explains what else is missing.
        first = min(
            error.errors(), key=lambda e: e["type"] != "extra_forbidden" or len(e["loc"]) > 1
        )
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        known = f"; {closest(key, model.model_fields)}" if len(first["loc"]) == 1 else ""
        raise wrong(f"{where}: unknown key '{key}'{known}")
    if first["type"] == "missing":
        raise wrong(f"{where}: {key} is missing")
    value = repr(first["input"])[:80]
    why = str(first.get("ctx", {}).get("error") or first["msg"])
    name = f"{where}: {key}"
    said = f"is {value}: {plainly(why)}"
    if options and key:
        raise of_option(wrong, str(first["loc"][0]), name, said)
    raise wrong(f"{name} {said}")


class Closed(BaseModel):
    """What a file, a flag or a keyword says: frozen, with no key but its own.

    Its fields' descriptions are the help of the command line, and `heading` stands over them; an
    error says what they are `called`.
    """

    heading: ClassVar[str | None] = None
    called: ClassVar[str] = "the options"
    wrong: ClassVar[type[EckartError]] = TaskError
    model_config = ConfigDict(extra="forbid", frozen=True)

    @classmethod
    def of(cls, values: Mapping[str, Any], where: str | None = None) -> Self:
        """Return checked values; the error for an unknown key or a value of the wrong kind names it
        in one line, and where it stands: None if the values are options that somebody typed."""
        return checked(cls, values, where or cls.called, cls.wrong, options=where is None)

    @classmethod
    def as_keywords(cls, *but: str) -> Callable[[CalledT], CalledT]:
        """Show these keys, but some, in the signature of what takes them as keywords."""

        def shown(called: CalledT) -> CalledT:
            own = inspect.signature(called)
            taken = [p for p in own.parameters.values() if p.kind is not p.VAR_KEYWORD]
            ours = [
                inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=key.default)
                for name, key in cls.model_fields.items()
                if name not in but
            ]
            signature = own.replace(parameters=[*taken, *ours])
            called.__signature__ = signature  # type: ignore[attr-defined]
            return called

        return shown

    def only(self, kind: type[Closed]) -> dict[str, Any]:
        """Return the values of the fields that this has in common with a kind, to hand them on."""
        return {name: getattr(self, name) for name in kind.model_fields}
