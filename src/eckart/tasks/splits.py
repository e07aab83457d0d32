"""Demonstrations, validation and test: disjoint, without duplicates, and settled before anything
runs."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, zip_longest

from eckart.errors import TaskError, numbered
from eckart.tasks.columns import Columns
from eckart.tasks.labels import Labels
from eckart.tasks.prompts import Example, PromptFormat
from eckart.tasks.spec import SplitSpec, TaskSpec

Size = int | float
"""A number of rows, or a share in (0, 1] of the rows that there are."""


@dataclass(frozen=True, eq=False)
class Gathered:
    """Labelled rows, without repeats, by the source's splits, before they are divided; and all that
    dividing them and making prompts of them takes."""

    spec: TaskSpec
    examples: Mapping[str, Sequence[Example]]
    plan: SplitSpec
    sizes: Mapping[str, Size]
    format: PromptFormat
    columns: Columns
    labels: Labels
    where: str
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Draw:
    """How the rows are drawn.

    Arguments:
        shots: how many demonstrations are shown.
        reserve: how many are set aside at least, where the rows allow it. Validation and test are
            the same for all numbers of shots up to it.
        seed, split_seed: choose the demonstrations and their order; validation and test.
        balanced: as many demonstrations of each class, or at random.
        sealed: the ids of rows that are not tested, because another draw chose with them.
    """

    shots: int
    reserve: int
    seed: int = 0
    split_seed: int = 0
    balanced: bool = True
    sealed: frozenset[str] = frozenset()


def used_splits(plan: SplitSpec) -> tuple[str, ...]:
    """Return the names of the source's splits that a plan uses, the test's first."""
    return tuple(dict.fromkeys([plan.test.source, plan.validation.source, plan.demonstrations]))


def plan_splits(sizes: Mapping[str, int], single: bool) -> tuple[SplitSpec, tuple[str, ...]]:
    """Return which split serves as what, where a task does not say so, and the sentences that tell
    the user about it.

    Three splits are taken as they are. Of two, the first gives demonstrations and validation and
    the second is the test, as the paper does for RTE (C.3). One gives all three.

    Arguments:
        sizes: a split's name -> its number of labelled rows.
        single: whether the rows come from one file.
    """
    names = (
        list(sizes)
        if single
        else [name for name in ("train", "validation", "test") if sizes.get(name)]
    )
    if not names:
        raise TaskError(
            f"no labelled rows in a split train, validation or test; there are {', '.join(sizes)}"
        )
    first = names[0]
    middle = names[1] if len(names) == 3 else names[0]
    last = names[-1]
    plan = SplitSpec.model_validate(
        {"demonstrations": first, "validation": {"from": middle}, "test": {"from": last}}
    )
    notes = []
    if len(names) == 2:
        notes = [f"demonstrations and validation come from {first}, and {last} serves as the test"]
    if len(names) == 1:
        where = "one file, whose rows are called train:0, train:1, ..." if single else first
        notes = [f"demonstrations, validation and test all come from {where}"]
    return plan, tuple(notes)


def parse_sizes(
    sizes: str | Size | Sequence[Size | None] | Mapping[str, Size] | None,
) -> dict[str, Size]:
    """Read the sizes of validation and test: `(validation, test)`, a mapping with these keys, one
    size (validation's), or a text such as `500,0.5`.

    A TaskError where it is none of these, or a size is no number of rows and no share.

    >>> parse_sizes("500,0.5")
    {'validation': 500, 'test': 0.5}
    """
    values: object = sizes
    if isinstance(values, str):
        values = [_number(part) for part in values.split(",")]
    if isinstance(values, int | float):
        values = [values]
    if isinstance(values, Mapping) and set(values) <= {"validation", "test"}:
        pairs = dict(values)
    elif isinstance(values, Sequence) and len(values) <= 2:
        pairs = dict(zip(("validation", "test"), values, strict=False))
    elif values is None:
        pairs = {}
    else:
        raise TaskError(
            f"split sizes {sizes!r} are not (validation, test), such as 500,1000 or 0.5,0.5"
        )
    return {name: _checked(size) for name, size in pairs.items() if size is not None}


def _number(text: str) -> Size | None:
    if not text.strip():
        return None
    try:
        return float(text) if "." in text else int(text)
    except ValueError:
        raise TaskError(
            f"split size '{text}' is no number; give rows, such as 500, or a share, such as 0.5"
        ) from None


def _checked(size: object) -> Size:
    if isinstance(size, float) and 0 < size <= 1:
        return size
    if isinstance(size, int) and not isinstance(size, bool) and size >= 1:
        return size
    raise TaskError(
        f"split size {size} is neither a number of rows, such as 500, nor a share, such as 0.5"
    )


def make_splits(source: Gathered, draw: Draw) -> dict[str, tuple[Example, ...]]:
    """Divide the examples into what the paper's Algorithm 1 calls H_s, V and T.

    Validation and test come from an order that `split_seed` alone decides, less the reserved
    demonstrations, so that another `seed` or another number of shots changes as few of their rows
    as can be.

    Returns:
        `demonstrations`, in the order in which they are shown; `validation` and `test`, of which no
        row of the one has the text of a row of the other, or of a reserved demonstration, in a
        random order, so that the first few are a fair sample; and `all`, every row that is not
        shown, in the file's order.

    Raises:
        TaskError: there are too few rows, or a split is left empty.
    """
    kept, plan = source.examples, source.plan
    shown = plan.demonstrations
    reserved = _draw_demonstrations(kept[shown], draw, source.labels.names, shown)
    apart = {example.id for example in reserved}
    pools = {
        name: [row for row in _shuffled(rows, f"split {draw.split_seed}") if row.id not in apart]
        for name, rows in kept.items()
    }
    validation, test = _allot(plan, pools, source.sizes)
    seen = {example.id for example in reserved[: draw.shots]}
    return {
        "demonstrations": tuple(reserved[: draw.shots]),
        "validation": tuple(validation),
        "test": tuple(row for row in test if row.id not in draw.sealed),
        "all": tuple(
            row for name in reversed(used_splits(plan)) for row in kept[name] if row.id not in seen
        ),
    }


def spare_rows(source: Gathered, draw: Draw, taken: Iterable[Example]) -> tuple[Example, ...]:
    """Return the rows of the demonstrations' split that are none of those, in a random order.

    With other demonstrations, as few of them change as can be.
    """
    used = {example.id for example in taken}
    pool = _shuffled(source.examples[source.plan.demonstrations], f"split {draw.split_seed}")
    return tuple(row for row in pool if row.id not in used)


def _shuffled(examples: Iterable[Example], salt: str) -> list[Example]:
    # An order by hash is the same on every Python, and a row more or less does not move the others.
    return sorted(
        examples, key=lambda example: hashlib.sha256(f"{salt} {example.id}".encode()).digest()
    )


def _draw_demonstrations(
    pool: Sequence[Example], draw: Draw, labels: Sequence[str], where: str
) -> list[Example]:
    """Return at least `draw.shots` demonstrations; each number of shots shows a beginning of the
    same order."""
    order = _shuffled(pool, f"demonstrations {draw.seed}")
    if not draw.balanced:
        if draw.shots > len(order):
            raise TaskError(
                f"{draw.shots} shots need {draw.shots} rows of {where}, which has {len(order)}"
                " without repeats"
            )
        return order[: max(draw.shots, min(draw.reserve, len(order) // 3))]
    classes = [
        [example for example in order if example.label == label] for label in range(len(labels))
    ]
    # Demonstrations that nobody asked to see never take more than a third of a class away.
    spare = len(classes) * (min(map(len, classes)) // 3)
    turns = _interleaved(classes, draw.seed)
    if order and order[0].choices:
        # The places of candidates are no classes: lists are of several lengths, and the last place
        # may be rare.
        turns = (example for example in turns if example is not None)
    rounds = list(islice(turns, max(draw.shots, min(draw.reserve, spare))))
    drawn = [example for example in rounds if example is not None]
    if len(drawn) < draw.shots:
        raise _too_poor(draw, classes, labels, where)
    return drawn


def _interleaved(classes: Sequence[Sequence[Example]], seed: int) -> Iterator[Example | None]:
    """Yield rounds of one example of each class; None where a class has no more.

    The order within a round is random: with one order throughout, a model could go by the position
    alone, and the last demonstration, which counts most, would always be of the same class.
    """
    for turn, row in enumerate(zip_longest(*classes)):
        places = [
            hashlib.sha256(f"round {seed} {turn} {label}".encode()).digest()
            for label in range(len(row))
        ]
        yield from (row[label] for label in sorted(range(len(row)), key=places.__getitem__))


def _too_poor(
    draw: Draw, classes: Sequence[Sequence[Example]], labels: Sequence[str], where: str
) -> TaskError:
    each = -(-draw.shots // len(classes))
    poor = min(range(len(classes)), key=lambda label: len(classes[label]))
    return TaskError(
        f"{draw.shots} balanced shots need {each} rows of each class, and {where} has"
        f" {len(classes[poor])} of '{labels[poor]}'; give fewer shots, or draw at random:"
        " --unbalanced (balanced=False from Python)"
    )


def _allot(
    plan: SplitSpec, pools: Mapping[str, list[Example]], sizes: Mapping[str, Size]
) -> tuple[list[Example], list[Example]]:
    """Take validation from the front of its pool and test from the back of its own, which may be
    the same."""
    front = pools[plan.validation.source]
    back = pools[plan.test.source]
    validation = _rows(sizes.get("validation", plan.validation.rows), front, plan.validation.source)
    test = _rows(sizes.get("test", plan.test.rows), back, plan.test.source)
    shared = front is back
    if shared and validation is None and test is None:
        validation = len(front) // 2
    if validation is None:
        validation = len(front) - (test or 0) if shared else len(front)
    if test is None:
        test = len(back) - validation if shared else len(back)
    if shared and validation + test > len(front):
        raise _too_few(validation + test, front, plan.test.source)
    for name, rows in (("validation", validation), ("test", test)):
        if rows < 1:
            raise TaskError(
                f"{name} is left empty: besides the demonstrations {plan.test.source} has"
                f" {numbered(len(back), 'row')}; give more rows, fewer shots or other split sizes"
            )
    return front[:validation], back[len(back) - test :]


def _rows(size: Size | None, pool: Sequence[Example], where: str) -> int | None:
    if isinstance(size, float):
        return max(1, int(size * len(pool)))
    if size is not None and size > len(pool):
        raise _too_few(size, pool, where)
    return size


def _too_few(wanted: int, pool: Sequence[Example], where: str) -> TaskError:
    half = len(pool) // 2
    return TaskError(
        f"validation and test want {wanted:,} rows of {where}, which has {len(pool):,} without"
        " repeats and demonstrations; give split sizes that it has, such as --split-sizes"
        f" {half},{len(pool) - half}"
    )


_MARKS = re.compile(r"[\W_]+")


def without_repeats(
    examples: Mapping[str, Sequence[Example]], order: Sequence[str]
) -> tuple[dict[str, list[Example]], tuple[str, ...]]:
    """Keep each question once: one that stands in several splits stays in the first of `order`.

    The same candidates in another order make the same question. Questions that differ in case,
    white space, punctuation or Unicode forms only are kept, and counted.

    Returns:
        The examples of each split, and sentences about what was left out and what nearly repeats.
    """
    seen: dict[Hashable, str | int] = {}
    kept: dict[str, list[Example]] = {}
    notes = []
    for name in order:
        conflicts = 0
        kept[name] = []
        for example in examples[name]:
            key = _question(example)
            if key not in seen:
                seen[key] = _answer(example)
                kept[name].append(example)
            else:
                conflicts += seen[key] != _answer(example)
        dropped = len(examples[name]) - len(kept[name])
        if dropped:
            other = f" ({conflicts:,} with another label)" if conflicts else ""
            notes.append(
                f"{name}: left out {numbered(dropped, 'row')} for repeating an input{other}"
            )
    return kept, (*notes, *_near_repeats(kept))


def _question(example: Example) -> Hashable:
    return (example.question or example.text).strip(), *sorted(example.choices)


def _answer(example: Example) -> str | int:
    return example.choices[example.label] if example.choices else example.label


def _near_repeats(kept: Mapping[str, Sequence[Example]]) -> list[str]:
    first: dict[Hashable, str] = {}
    pairs: Counter[tuple[str, str]] = Counter()
    for name, examples in kept.items():
        for example in examples:
            key = _nearly(example)
            if key in first:
                pairs[name, first[key]] += 1
            else:
                first[key] = name
    return [
        f"{name}: kept {numbered(count, 'row')} that repeat{'s' * (count == 1)} a row of {met} but"
        " for case, white space, punctuation or Unicode form"
        for (name, met), count in pairs.items()
    ]


def _nearly(example: Example) -> Hashable:
    """Return what is left of a question without what a reader hardly sees.

    Where a template fills in three columns or more, they may be options, whose order is no matter.
    """
    values = [value for value in example.fields.values() if isinstance(value, str)]
    if len(values) == len(example.fields) > 2 and not example.choices:
        return tuple(sorted(map(letters, values)))
    return letters(example.question or example.text), *sorted(map(letters, example.choices))


def letters(text: str) -> str:
    """Return a text's letters and digits, or the text where it has none.

    >>> letters("Great, GREAT film!"), letters(":-)")
    ('greatgreatfilm', ':-)')
    """
    plain = text.lower() if text.isascii() else unicodedata.normalize("NFKC", text).casefold()
    return _MARKS.sub("", plain) or text
