"""Rows of a task, wherever they lie: a local file, a folder laid out like the hub's, or the hub."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from eckart.errors import TaskError, reason
from eckart.tasks.files import bare_name, read_file, readable, split_words
from eckart.tasks.tables import FileTable, Row

ONE = "train"
"""What the only split is called, whatever the file is: the rows alone decide what is drawn from
them."""

SPLIT_NAMES = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing"),
}


@dataclass(frozen=True, eq=False)
class Source:
    """Rows, by the split that they stand in.

    Arguments:
        where: the file, folder or hub id, for messages.
        splits: a split's name -> its rows in the file's order. A single file is one split, `train`.
        single: whether it is one file, that is, nobody has divided the rows yet.
        classes: a column -> what the files call the numbers in it; more than one answer where they
            differ.
        notes: how the files were read, where that needs to be said.
    """

    where: str
    splits: dict[str, list[Row]]
    single: bool = False
    classes: dict[str, set[tuple[str, ...]]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of all columns, in the order in which they are met."""
        return tuple(
            dict.fromkeys(name for rows in self.splits.values() for row in rows for name in row)
        )

    def undivided(self) -> Source:
        """Return the only split under the name that a single file's has; several splits stay as
        they are."""
        rows = list(self.splits.values())
        return replace(self, splits={ONE: rows[0]}) if len(rows) == 1 else self

    def only(self, names: Collection[str]) -> Source:
        """Return the splits with these names; a TaskError where one is not there."""
        missing = [name for name in names if name not in self.splits]
        if missing:
            raise TaskError(
                f"the task wants a split '{missing[0]}', and {self.where} has"
                f" {', '.join(self.splits)}; give one file as the data, or say in a task file which"
                " split serves as what"
            )
        return replace(
            self, splits={name: rows for name, rows in self.splits.items() if name in names}
        )


def read_local(path: Path, config: str | None = None) -> Source:
    """Read a file, or a folder with a file or more for each split; a TaskError where there is
    nothing to read, or it cannot be read.

    Text stays text: 'NA', 'null' and '1e5' are not made into anything else.

    Arguments:
        path: a parquet, Arrow, JSON Lines, JSON, CSV or TSV file, texts also packed; or a folder
            with, say, `train.parquet` or `data/train-00000-of-00002.parquet` (`dev`, `val`, `valid`
            and `validation` are one split), or as `save_to_disk` of the datasets library writes it.
        config: the folder's subfolder to look in first, where there is one: a data set's
            configuration on the hub.
    """
    try:
        if not path.exists():
            raise TaskError(f"no data at '{path}'; is the path right?")
        if path.is_dir():
            return _read_folder(path, config)
        return _single(path, [path])
    except OSError as error:
        raise TaskError(f"cannot read '{path}': {' '.join(str(error).split())}") from None


def read_hub(hub: str, config: str | None) -> Source:
    """Read a data set from the Hugging Face hub, or from its local cache; a TaskError where there
    is none, or the hub cannot be reached."""
    import datasets  # takes two seconds, and is not needed for local data

    try:
        loaded = datasets.load_dataset(hub, config)
    # The hub's client raises a dozen unrelated kinds of error; each means that the data could not
    # be had.
    except Exception as error:
        raise TaskError(
            f"cannot load '{hub}' from the hub ({reason(error, 200)}); with the data on this"
            " machine, give it as --data"
        ) from None
    tables = {
        str(name): FileTable(split.to_list(), _hub_classes(split.features))
        for name, split in loaded.items()
    }
    return Source(
        hub, {name: table.rows for name, table in tables.items()}, classes=_classes(tables.values())
    )


def _hub_classes(features: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    named = {column: getattr(feature, "names", None) for column, feature in features.items()}
    return {column: tuple(names) for column, names in named.items() if names}


def _classes(tables: Iterable[FileTable]) -> dict[str, set[tuple[str, ...]]]:
    found: dict[str, set[tuple[str, ...]]] = {}
    for table in tables:
        for column, names in table.classes.items():
            found.setdefault(column, set()).add(names)
    return found


def _single(where: Path, files: Sequence[Path]) -> Source:
    """Read one file, or the numbered files that are one."""
    return replace(_source(where, {ONE: files}), single=True)


def _source(where: Path, files: Mapping[str, Sequence[Path]]) -> Source:
    tables = {path: read_file(path) for shards in files.values() for path in shards}
    return Source(
        str(where),
        {
            name: [row for path in shards for row in tables[path].rows]
            for name, shards in files.items()
        },
        classes=_classes(tables.values()),
        notes=tuple(
            f"{path.name}: {note}" for path, table in tables.items() for note in table.notes
        ),
    )


def _read_folder(folder: Path, config: str | None) -> Source:
    places = [folder / config] if config and (folder / config).is_dir() else []
    for place in (*places, folder, folder / "data"):
        files = _files_by_split(place)
        if files:
            return _source(place, files)
    alone = sorted(filter(readable, folder.iterdir()))
    numbered = bool(alone) and all(_SHARD.search(bare_name(file)) for file in alone)
    if numbered:
        _check_shards("only", alone)
    if numbered or len(alone) == 1:
        return _single(folder if numbered else alone[0], alone)
    seen = ", ".join(sorted(file.name for file in folder.iterdir())[:8]) or "nothing"
    raise TaskError(
        f"'{folder}' has no file called like a split, such as train.csv or test.parquet; it holds"
        f" {seen}"
    )


def _files_by_split(folder: Path) -> dict[str, list[Path]]:
    """Return the files of each split, in the order of their names: `train-*`, or all in a folder
    `train`."""
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        split = split_name(path)
        files = sorted(path.iterdir()) if path.is_dir() else [path]
        if split and any(map(readable, files)):
            found.setdefault(split, []).extend(filter(readable, files))
    for split, files in found.items():
        _check_shards(split, files)
    return {name: found[name] for name in SPLIT_NAMES if name in found}


def split_name(path: Path) -> str | None:
    """Return the split that a file or folder of that name is; None if of none."""
    words = split_words(path)
    return next(
        (name for name, synonyms in SPLIT_NAMES.items() if not words.isdisjoint(synonyms)), None
    )


_SHARD = re.compile(r"-(\d+)-of-(\d+)$")


def _check_shards(split: str, files: list[Path]) -> None:
    """Refuse what is not one whole set of numbered files: a copy beside the original would be read
    twice."""
    of_total = [match for file in files if (match := _SHARD.search(bare_name(file)))]
    numbered = (
        all(re.search(r"\d$", bare_name(file)) for file in files)
        and len({file.suffix for file in files}) == 1
    )
    if len(files) > 1 and not numbered:
        names = ", ".join(file.name for file in files)
        raise TaskError(
            f"more than one file is the {split} split: {names}; keep one, or give one file as the"
            " data"
        )
    total = int(of_total[0][2]) if of_total else len(files)
    if len(files) != total:
        raise TaskError(
            f"the {split} split has {len(files)} of its {total} files; fetch the others too"
        )
