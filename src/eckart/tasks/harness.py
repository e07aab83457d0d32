"""Tasks of lm-evaluation-harness: its prompts, its draw of demonstrations for every row, its
candidates; scored by our evaluator."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal, NoReturn, Self

from eckart.errors import TaskError, numbered
from eckart.records import fingerprint
from eckart.tasks.columns import Columns
from eckart.tasks.harness_files import is_plain, load, templates, understood
from eckart.tasks.labels import Labels
from eckart.tasks.prompts import CONTENT_FREE, Example, Prompt, PromptFormat
from eckart.tasks.spec import HARNESS, HARNESS_CODE, DrawnTask, SplitSpec, TaskSpec
from eckart.tasks.splits import Draw, Gathered, make_splits, parse_sizes, without_repeats
from eckart.tasks.task import READERS, Task

SEED = 1234
"""lm-evaluation-harness's own seed of demonstrations. Ours are counted from it: 0 is its draw."""

OWN = ("task", "name", "shots", "seed", "split_seed", "split_sizes")
"""The options that go with a task which brings its own prompts."""

Asked = tuple[Example, Prompt]
"""A document, and what is asked about it; label -1 where none of its candidates is right."""


@dataclass(frozen=True, eq=False)
class HarnessTask(Task):
    """A multiple-choice task as lm-evaluation-harness asks it.

    `all` are the documents that it scores itself, in its order, with its prompts.

    Arguments:
        harness: its own object of the task.
        asked: every row's prompt, by the row's id; each shows demonstrations of its own.
        few: how many.
    """

    harness: Any = field(default=None, repr=False)
    asked: Mapping[str, Prompt] = field(default_factory=dict, repr=False)
    few: int = 0

    @property
    def shots(self) -> int:
        return self.few

    @property
    def default_score(self) -> Literal["sum", "mean"]:
        """Its `acc`; its `acc_norm` is the scoring `character`."""
        return "sum"

    @cached_property
    def digest(self) -> str:
        """The SHA-256 of all prompts: no template says how they are made."""
        prompts = [(p.id, p.context, p.continuations) for p in self.asked.values()]
        return fingerprint([HARNESS, self.kind, self.labels, prompts])

    def prompt(self, example: Example, shots: int | None = None) -> Prompt:
        if shots not in (None, self.few):
            self._lacks("--truncate-demonstrations")
        return self.asked[example.id]

    def null_prompt(
        self, prompt: Prompt, shots: int | None = None, text: str = CONTENT_FREE
    ) -> Prompt:
        self._lacks("scorings that need a prompt without content")

    def _lacks(self, what: str) -> NoReturn:
        raise TaskError(
            f"the prompts of task '{self.name}' are lm-evaluation-harness's own and cannot be made"
            f" otherwise; leave out {what}"
        )

    def redrawn(self, *, shots: int | None = None, seed: int | None = None) -> Self:
        assert self.said is not None
        drawn = {
            "shots": self.few if shots is None else shots,
            "seed": self.seed if seed is None else seed,
        }
        return self._drawn_by(self.harness, self.said.model_copy(update=drawn))

    def sealed_from(self, others: Iterable[Task]) -> Self:
        return self  # no draw sets rows apart, so all divide them alike

    def with_fewer(self, shots: int) -> Self:
        return self.redrawn(shots=shots)

    @classmethod
    def read(cls, said: DrawnTask) -> Self:
        """Read the task that is named `lm-eval:NAME`, or stands in the file `lm-eval:FILE.yaml`.

        Raises:
            TaskError: as `load`; or the task is of no kind that can be scored here, or something is
                said of it that it brings itself.
        """
        _check_said(said)
        harness = load(str(said.task))
        _check_kind(harness, str(said.task))
        return cls._drawn_by(harness, said)

    @classmethod
    def _drawn_by(cls, harness: Any, said: DrawnTask) -> Self:
        shots, seed = _shots(harness, said), SEED + said.seed
        with understood(str(said.task)), templates(sandboxed=is_plain(harness)):
            asked = {
                name: list(_asked(harness, name, docs, shots, seed))
                for name, docs in _documents(harness).items()
            }
        rows = _Rows.of(asked)
        scored, *more = rows.examples
        name = said.name or f"{HARNESS}-{harness.config.task}"
        source = _gathered(rows, name, said, _notes(harness, shots, scored, more))
        draw = Draw(0, 0, said.seed, said.split_seed, balanced=False)
        splits = make_splits(source, draw)
        return cls(
            name=name,
            kind="classification" if rows.words else "choices",
            labels=rows.labels,
            format=source.format,
            demonstrations=(),
            validation=splits["validation"],
            test=splits["test"],
            all=rows.examples[scored],
            seed=said.seed,
            split_seed=said.split_seed,
            balanced=False,
            notes=source.notes,
            source=source,
            draw=draw,
            said=said,
            harness=harness,
            asked=rows.prompts,
            few=shots,
        )


READERS[HARNESS] = READERS[HARNESS_CODE] = HarnessTask.read


def _check_said(said: DrawnTask) -> None:
    for name, value in said:
        if name not in OWN and value != type(said).model_fields[name].default:
            raise TaskError(
                f"task '{said.task}' brings its own data and prompts; leave out"
                f" {name} (here {value!r}), or make a task file of your own"
            )


def _check_kind(harness: Any, task: str) -> None:
    """Refuse what is no choice among continuations of one prompt, one of which is right."""
    kind = harness.OUTPUT_TYPE
    lacks = {
        f"its output_type is {kind}, not multiple_choice": kind != "multiple_choice",
        "it has a scorer of its own (process_results)": bool(harness.get_config("process_results")),
        "it compares several contexts before one continuation": bool(
            getattr(harness, "multiple_input", 0)
        ),
        "several of its candidates are right": bool(getattr(harness, "multiple_target", 0)),
    }
    for reason, lacking in lacks.items():
        if lacking:
            raise TaskError(
                f"task '{task}' cannot be scored here: {reason}; run it with lm-evaluation-harness"
                " itself (docs/harness.md)"
            )


def _shots(harness: Any, said: DrawnTask) -> int:
    own, asked = harness.config.num_fewshot, said.shots
    shots: int = (own or 0) if asked is None else asked
    if own == 0 != shots:
        raise TaskError(
            f"task '{said.task}' is made for no demonstrations (its num_fewshot is 0), whatever is"
            f" asked for; leave out shots (here {shots})"
        )
    if shots and shots > len(harness.fewshot_docs()):
        raise TaskError(
            f"task '{said.task}' has {len(harness.fewshot_docs())} rows to draw demonstrations"
            f" from, and {shots} are asked for; give fewer shots"
        )
    return shots


def _documents(harness: Any) -> dict[str, Sequence[Any]]:
    """Return its documents by split: first those that it scores, then those to choose with, where
    it has others."""
    if harness.has_test_docs() and harness.has_validation_docs():
        return {"test": harness.test_docs(), "validation": harness.validation_docs()}
    return {"test" if harness.has_test_docs() else "validation": harness.eval_docs}


def _asked(
    harness: Any, split: str, documents: Sequence[Any], shots: int, seed: int
) -> Iterator[Asked]:
    """Yield a split's rows, in order: each row's demonstrations depend on how often the generator
    was asked before."""
    harness.set_fewshot_seed(seed)
    for place, document in enumerate(documents):
        context = harness.fewshot_context(
            document, num_fewshot=shots, gen_prefix=harness.doc_to_prefix(document)
        )
        choices = tuple(harness.doc_to_choice(document))
        requests = harness.construct_requests(
            doc=document, ctx=context, metadata=(harness.config.task, place, 1)
        )
        # It moves white space at a context's end to the continuation before it encodes both.
        plain = context.rstrip()
        continuations = tuple(
            context[len(plain) :] + request.args[1] for request in requests[: len(choices)]
        )
        id, label = f"{split}:{place}", _label(harness.doc_to_target(document), choices)
        lengths = tuple(map(len, choices))
        yield (
            Example(id, str(harness.doc_to_text(document)), label, choices),
            Prompt(id, plain, continuations, label, lengths),
        )


def _label(target: Any, choices: Sequence[str]) -> int:
    if isinstance(target, str):
        return choices.index(target) if target in choices else -1
    return target if isinstance(target, int) and 0 <= target < len(choices) else -1


@dataclass(frozen=True)
class _Rows:
    """The rows that can be scored: each with a right one among as many candidates as most have.

    Arguments:
        examples: by split; the one that lm-evaluation-harness scores comes first.
        prompts: by the row's id.
        words: the candidates, where all rows have the same.
        labels: these, or the candidates' places.
        notes: which rows are left out.
    """

    examples: dict[str, tuple[Example, ...]]
    prompts: dict[str, Prompt]
    words: tuple[str, ...]
    labels: tuple[str, ...]
    notes: tuple[str, ...]

    @classmethod
    def of(cls, splits: Mapping[str, Sequence[Asked]]) -> Self:
        every = [asked for rows in splits.values() for asked in rows]
        (most, _), *_ = Counter(len(row.choices) for row, _ in every).most_common(1)
        examples, notes, words = {}, [], _words([row for row, _ in every])
        for name, rows in splits.items():
            fitting = [row for row, _ in rows if row.label >= 0 and len(row.choices) == most]
            examples[name] = tuple(replace(r, choices=()) if words else r for r in fitting)
            if len(fitting) < len(rows):
                others = numbered(len(rows) - len(fitting), "row")
                notes.append(
                    f"{name}: left out {others} with other than {most} candidates, or none of them"
                    " right; lm-evaluation-harness counts these, too"
                )
        labels = words or tuple(map(str, range(most)))
        return cls(examples, {row.id: p for row, p in every}, words, labels, tuple(notes))


def _words(rows: Sequence[Example]) -> tuple[str, ...]:
    """Return the candidates of all rows, where they are the same: classes."""
    words = tuple(choice.strip() for choice in rows[0].choices)
    same = len({row.choices for row in rows}) == 1 and len(set(words)) == len(words)
    return words if same else ()


def _gathered(rows: _Rows, name: str, said: DrawnTask, notes: Sequence[str]) -> Gathered:
    scored, *more = rows.examples
    chosen = (*more, scored)[0]
    plan = {"demonstrations": chosen, "validation": {"from": chosen}, "test": {"from": scored}}
    kept, repeats = without_repeats(rows.examples, [*rows.examples])
    return Gathered(
        spec=TaskSpec(name=name),
        examples=kept,
        plan=SplitSpec.model_validate(plan),
        sizes=parse_sizes(said.split_sizes),
        format=PromptFormat("", words=rows.words),
        columns=Columns("label", {}),
        labels=Labels(rows.labels, {}),
        where=f"task '{said.task}'",
        notes=(*notes, *rows.notes, *repeats),
    )


def _notes(harness: Any, shots: int, scored: str, more: Sequence[str]) -> list[str]:
    drawn_from = harness.fewshot_cfg.split or harness.config.training_split
    notes = [] if more else [f"validation and test divide its {scored} rows, all that it scores"]
    if shots:
        notes.append(f"lm-evaluation-harness draws {shots} demonstrations for each row anew")
    if shots and drawn_from in (None, harness.config.validation_split, harness.config.test_split):
        notes.append("it draws them from rows that are scored, each with its answer")
    return notes
