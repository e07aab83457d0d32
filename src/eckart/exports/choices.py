"""The choice that an export writes down: a run's, an evaluation's, or one's own edits."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from eckart.analysis.findings import Choice, Findings, find
from eckart.analysis.outcomes import Pick, edits_of
from eckart.errors import EditError, RunError
from eckart.exports.recipe import Scores
from eckart.files import home
from eckart.records import Edit, Edits
from eckart.reports.sentences import choice_name, choice_sentence, evaluation_verdict, summary
from eckart.runs import Run, read_run
from eckart.scoring.evaluation import Evaluation
from eckart.selection.result import Composed
from eckart.selection.tested import Tested
from eckart.tasks.portable import PortableTask
from eckart.tasks.task import AnyTask


@dataclass(frozen=True)
class Chosen:
    """Edits of a model, and what is known of them.

    Arguments:
        model: the base model's name.
        edits: none where nothing is clipped.
        weights: the base model's fingerprint as it was scored; None where it was not.
        scored_in: the dtype of that.
        task: what the gain was measured with; None where nothing says it.
        scores: the gain; None where it was not measured.
        known: whatever the user should know of these.
    """

    model: str
    edits: Edits
    weights: str | None = None
    scored_in: str = "float32"
    task: PortableTask | None = None
    scores: Scores | None = None
    known: tuple[str, ...] = ()

    def check(self, found: str, name: str) -> None:
        """Refuse weights that are not those that were scored.

        Arguments:
            found: their fingerprint in `scored_in`.
            name: the model's.
        """
        if self.weights not in (None, found):
            raise RunError(
                f"the weights that were searched, in {self.scored_in}, are {self.weights[:12]}, and"
                f" those of '{name}' are {found[:12]}; give the model that was searched (--base),"
                " and no other --dtype"
            )

    @classmethod
    def of_result(cls, result: Tested, task: AnyTask) -> Chosen:
        """Return what a search chose, whose first draw that tested is of this task."""
        settings, values = result.settings, json.loads(json.dumps(result.to_json()["test"]))
        says = result.sentences() if isinstance(result, Composed) else _sentences(result.run)
        return cls(
            settings["model"],
            result.edits,
            settings["weights"],
            settings["dtype"],
            PortableTask.if_any(task, settings["scoring"]),
            _tested(values, says),
        )

    @classmethod
    def of_evaluation(cls, evaluation: Evaluation, weights: str) -> Chosen:
        """Return edits of one's own that were scored."""
        values = evaluation.to_json()
        kept = ("n", "accuracy", "balanced_accuracy", "macro_f1", "log_loss", "majority_rate")
        clipped = {name: values[name] for name in (*kept, "interval")}
        return cls(
            evaluation.model,
            evaluation.trial.edits,
            weights,
            evaluation.dtype,
            PortableTask.if_any(evaluation.task, evaluation.scoring),
            Scores(
                says=(evaluation_verdict(evaluation),),
                split=str(evaluation.trial.split),
                unpruned=values.get("unpruned"),
                clipped=clipped,
                comparison=values.get("comparison"),
            ),
        )

    @classmethod
    def of_run(cls, folder: str | Path, named: str | None = None) -> Chosen:
        """Return what a finished run chose.

        Arguments:
            folder: of a search, or a sweep.
            named: which of a sweep's choices, by some words of its name.

        Raises:
            RunError: there is no run, it is not finished, makes no choice, or several.
        """
        run = read_run(folder)
        if run.settings.get("kind") == "search":
            return cls._of_search(run)
        kind = run.settings.get("kind", "unknown")
        if kind != "sweep":
            measured = f"`eckart functions evaluate {folder}` measures it; here "
            raise RunError(
                f"run '{folder}' is of kind {kind}, which chooses no edit;"
                f" {measured * (kind == 'training')}give a search's or a sweep's folder, or a model"
                " with --edit"
            )
        return cls._of_sweep(run, named)

    @classmethod
    def _of_search(cls, run: Run) -> Chosen:
        path = run.folder / "result.json"
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            settings, test = found["settings"], found["test"]
            if "edits" in found:
                edits = tuple(map(Edit.parse, found["edits"]))
            else:
                chosen = Edit(found["layer"], found["part"], found["rate"])
                edits = (chosen,) if chosen.rate else ()
            says = found.get("says") or _sentences(run)
            about = settings["model"], edits, settings["weights"], settings["dtype"]
        except FileNotFoundError:
            raise RunError(
                f"run '{run.folder}' is not finished (no result.json): run the same search again,"
                " which goes on from what it has"
            ) from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RunError(
                f"run '{run.folder}' has a damaged result.json ({error!r}); run the same search"
                " again, which writes it anew"
            ) from None
        kept = next(iter(run.portable.values()), None)
        return cls(*about, _task(kept, run), _tested(test, says), _unkept(kept, run))

    @classmethod
    def _of_sweep(cls, run: Run, named: str | None) -> Chosen:
        findings = find(run)
        choice = _one(findings, named, run)
        where = choice.condition
        if not choice.agreed:
            raise RunError(
                f"the seeds of '{choice_name(choice)}' chose differently, so there is no one edit;"
                " name your own: MODEL --edit LAYER:PART:RATE"
            )
        facts = run.models.get(where.model, {})
        tasks = [_task(values, run) for values in run.portable.values()]
        seed = min(choice.picks, default=0)
        mine = (t for t in tasks if t and (t.full_name, t.shots) == (where.task, where.shots))
        task = next((t for t in mine if t.seed == seed), None)
        if task is not None:
            task = task.model_copy(update={"scoring": where.scoring})
        return cls(
            where.model,
            edits_of(choice.edit),
            facts.get("fingerprint"),
            facts.get("dtype", "float32"),
            task,
            _measured(findings, choice),
            _unkept(task, run),
        )


def _one(findings: Findings, named: str | None, run: Run) -> Choice:
    words = [word.strip().lower() for word in (named or "").split(",") if word.strip()]
    fits = [
        choice
        for choice in findings.choices
        if set(words) <= {part.strip().lower() for part in choice_name(choice).split(",")}
    ]
    if len(fits) == 1:
        return fits[0]
    names = "; ".join(map(choice_name, fits or findings.choices)) or "none"
    raise RunError(
        f"run '{run.folder}' has {len(fits)} choices{f' named {named!r}' if named else ''}; name"
        f" one with --choice, by words of it that no other has: {names}"
    )


def _measured(findings: Findings, choice: Choice) -> Scores:
    split, gain = findings.split(choice), choice.gain
    compared = None
    if gain is not None:
        numbers = {"n": gain.rows, "seeds": gain.seeds, "difference": gain.mean}
        compared = {**numbers, "interval": list(gain.interval), "p_value": choice.p_adjusted}

    def measured(edit: Pick | None) -> dict[str, Any] | None:
        found = findings.measured(choice.condition, edit, split)
        if found is None:
            return None
        about = {"n": found.rows, findings.kind.headline: found.mean}
        return {**about, "interval": list(found.interval)}

    return Scores(
        says=(choice_sentence(choice, findings),),
        split=split,
        unpruned=measured(None),
        clipped=measured(choice.edit),
        comparison=compared,
    )


def _sentences(run: Run) -> Sequence[str]:
    return summary(find(run))


def _tested(test: dict[str, Any], says: Sequence[str]) -> Scores:
    compared = {name: test[name] for name in test if name not in ("baseline", "clipped")}
    return Scores(
        says=tuple(says), unpruned=test["baseline"], clipped=test["clipped"], comparison=compared
    )


def _task(values: dict[str, Any] | None, run: Run) -> PortableTask | None:
    where = f"the task that run '{run.folder}' keeps"
    return None if values is None else PortableTask.from_json(values, where)


def _unkept(kept: object, run: Run) -> tuple[str, ...]:
    if kept is not None:
        return ()
    return (
        f"run '{run.folder}' keeps no prompt (it was made by an earlier version, or asks for"
        " numbers), so none is exported; the same command again keeps it",
    )


def is_run(source: str | Path) -> bool:
    """Say whether a name is a run's folder, and not a model."""
    return (home(source) / "run.sqlite").is_file()


def chosen_of(
    source: str | Path,
    edits: Sequence[Edit | str] = (),
    choice: str | None = None,
    base: str | Path | None = None,
) -> Chosen:
    """Return what a run chose, or one's own edits of a model.

    Arguments:
        source: the run's folder, or the model.
        edits: of a model.
        choice: which of a sweep's choices, by words of its name.
        base: where a run's model lies now, if not where it was.

    Raises:
        EditError: an edit is none, or is said of a run; a choice or a base is said of a model.
        RunError: the run makes no choice, or several.
    """
    said = tuple(Edit.parse(edit) if isinstance(edit, str) else edit for edit in edits)
    if not is_run(source):
        if choice is not None or base is not None:
            raise EditError(
                f"'{source}' is no run's folder, and a choice ({choice}) or base ({base}) is a"
                " run's; leave it out, or name the run"
            )
        return Chosen(str(source), said)
    if said:
        raise EditError(
            f"'{source}' is a run, whose choice is what is clipped; for other edits name its model:"
            " MODEL --edit LAYER:PART:RATE"
        )
    found = Chosen.of_run(source, choice)
    return found if base is None else replace(found, model=str(base))


def no_edit(model: str) -> EditError:
    return EditError(
        f"no edit of '{model}': give one, such as --edit 26:mlp:0.95, or a run's folder"
    )
