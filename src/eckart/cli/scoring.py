"""The options of every verb that scores or probes a model on a task, said once."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, get_type_hints

from eckart.cli import options as o
from eckart.cli.console import progress_bar

if TYPE_CHECKING:
    from eckart.scoring.evaluator import Evaluator
    from eckart.tasks import Task


@dataclass(frozen=True)
class Shown:
    """Which prompts a verb is about, as the command line says it: one field an option."""

    task: o.TaskName = None
    data: o.Data = None
    text_column: o.TextColumn = None
    label_column: o.LabelColumn = None
    template: o.Template = None
    labels: o.Labels = None
    label_end: o.LabelEnd = None
    variant: o.Variant = None
    shots: o.Shots = None
    seed: o.Seed = 0
    split_seed: o.SplitSeed = 0
    split_sizes: o.SplitSizes = None
    unbalanced: o.Unbalanced = False
    truncate_demonstrations: o.Truncate = False
    drop_long_rows: o.DropLong = False

    def read_task(self) -> Task:
        """Load the task."""
        from eckart.tasks import Task

        return Task.load(
            self.task,
            data=self.data,
            text_column=self.text_column,
            label_column=self.label_column,
            template=self.template,
            labels=o.parse_labels(self.labels),
            label_end=self.label_end,
            variant=self.variant,
            shots=self.shots,
            seed=self.seed,
            split_seed=self.split_seed,
            split_sizes=self.split_sizes,
            balanced=not self.unbalanced,
        )


@dataclass(frozen=True)
class Scoring(Shown):
    """What is scored and how."""

    scoring: o.Scoring = None
    batch_tokens: o.BatchTokens = None
    cache_memory: o.CacheMemory = None
    dtype: o.Dtype = "auto"
    device: o.Device = "auto"
    device_map: o.DeviceMap = None
    trust_remote_code: o.RemoteCode = False

    def evaluator(self, model: str, task: Task) -> Evaluator:
        """Load the model, and return what scores it on the task."""
        from eckart.scoring.evaluator import Evaluator

        memory = o.parse_memory(self.cache_memory)
        return Evaluator(
            o.read_model(model, self.dtype, self.device, self.trust_remote_code, self.device_map),
            task,
            scoring=self.scoring,
            batch_tokens=self.batch_tokens,
            cache_memory=memory,
            truncate_demonstrations=self.truncate_demonstrations,
            drop_long_rows=self.drop_long_rows,
            progress=progress_bar,
        )


def with_options(kind: type[Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a verb that takes `how` of some kind an option for each of the kind's fields, after its
    own options."""
    hints = get_type_hints(kind, include_extras=True)
    shared = {
        f.name: inspect.Parameter(
            f.name, inspect.Parameter.KEYWORD_ONLY, default=f.default, annotation=hints[f.name]
        )
        for f in fields(kind)
    }

    def decorated(verb: Callable[..., None]) -> Callable[..., None]:
        """Return the verb with these options in place of `how`."""

        @functools.wraps(verb)
        def command(**given: Any) -> None:
            how = kind(**{name: given.pop(name) for name in shared})
            verb(**given, how=how)

        own = [
            p for p in inspect.signature(verb, eval_str=True).parameters.values() if p.name != "how"
        ]
        command.__signature__ = inspect.Signature([*own, *shared.values()])  # type: ignore[attr-defined]
        return command

    return decorated


scoring_options = with_options(Scoring)
