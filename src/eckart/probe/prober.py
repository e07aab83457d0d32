"""Probing a model: which prompts, which of their tokens are demonstrations', and every quantity, for any edits."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float

from eckart.anatomy import Anatomy
from eckart.edits import Factors, clip, resolve
from eckart.errors import EditError, ModelError, TaskError
from eckart.evaluation.encoding import Encoder, Tokens, common_prefix, shared_text
from eckart.evaluation.fitting import fit
from eckart.evaluation.requests import build_requests, context_window
from eckart.models import LoadedModel, Model, Tokenizer, load_model, needed_tokenizer
from eckart.probe.quantities import Attended, Update, attended, residual, seen, update_of
from eckart.probe.reading import LayerProbe, Probe
from eckart.probe.recording import Parts, Recorder
from eckart.records import Edit
from eckart.tasks.task import Task

PROMPTS = 8
FLOOR = 1e-3


@dataclass(frozen=True)
class _Row:
    """A prompt as the model reads it: up to the token that predicts the label.

    Arguments:
        tokens: what the model reads.
        start, stop: the demonstrations' tokens.
    """

    tokens: Tokens
    start: int
    stop: int


@dataclass(frozen=True, eq=False)
class _Known:
    """An update, and the tokens that it was computed from."""

    shown: Bool[np.ndarray, " tokens"]
    parts: Parts
    update: Update

    def is_of(self, parts: Parts, shown: Bool[np.ndarray, " _"], tolerance: float) -> bool:
        """Say whether another prompt's demonstrations are these: their tokens come first, so no query changes them."""
        if np.flatnonzero(shown).tolist() != np.flatnonzero(self.shown).tolist():
            return False
        return all(
            np.abs(mine - other).max(initial=0) <= tolerance * np.abs(mine).max(initial=0)
            for mine, other in zip(_shown(self.parts, self.shown), _shown(parts, shown), strict=True)
        )


class Prober:
    """Reads the theory's quantities off a model, as often as wanted, with any edits.

    What does not change from one reading to the next is computed once: tokens, factorisations, and the updates of
    layers whose keys and values are bit for bit the same, as those below a clipped layer are.

    Arguments:
        model: what `load_model` returned; in float32 if the residuals are to be small.
        task: with at least one demonstration.
        prompts: how many rows of the split are read, from its beginning.
        split: `validation`, `test` or `all`.
        floor: the noise's variance in every direction in the linear form's part of Theorem 2, which is infinite
            without one. It is the same before and after clipping.
        truncate_demonstrations, drop_long_rows: as for `Evaluator`.

    Raises:
        TaskError: the task has no demonstrations or no rows, or a prompt is longer than the model reads.
        ModelError: the model's attention cannot be recorded.
        EditError: the number of prompts or the floor is not positive.
    """

    def __init__(
        self,
        model: LoadedModel,
        task: Task,
        *,
        prompts: int = PROMPTS,
        split: str = "validation",
        floor: float = FLOOR,
        truncate_demonstrations: bool = False,
        drop_long_rows: bool = False,
    ) -> None:
        _check_floor(floor, prompts)
        if task.shots == 0:
            raise TaskError(
                f"task {task.name} shows no demonstrations, and the probe reads what they do; use --shots 4, say"
            )
        self.model, self.task, self.split, self.floor = model, task, split, floor
        self.anatomy = Anatomy.of(model.model)
        self.recorder = Recorder(self.anatomy)
        self.rows = self._rows(prompts, truncate_demonstrations, drop_long_rows)
        self._factors: Factors = {}
        self._updates: dict[bytes, dict[float, Update]] = {}
        self._shared = self._sharable()

    def __call__(self, edits: Edit | Sequence[Edit] = ()) -> Probe:
        """Read the model with these edits, all together; it is as before afterwards.

        Raises:
            EditError: the model has no such layer or part.
            ModelError: a head's output cannot be computed from what was recorded of it.
        """
        return self.at_floors([self.floor], edits)[0]

    def at_floors(self, floors: Sequence[float], edits: Edit | Sequence[Edit] = ()) -> list[Probe]:
        """Read the model with these edits once, and return what it gives at each of several noise floors.

        Raises:
            EditError, ModelError: as a call; or a floor is not positive.
        """
        for floor in floors:
            _check_floor(floor)
        chosen = self._canonical([edits] if isinstance(edits, Edit) else edits)
        rates = resolve(self.anatomy, chosen)
        reach = min(
            (weight.layer + (weight.part == "mlp") for weight in rates), default=len(self.anatomy.layers)
        )
        clipped = clip(self.model.model, chosen, anatomy=self.anatomy, factors=self._factors)
        with clipped if chosen else nullcontext():
            prompts = self._recorded()
            # Inside the clip too: what reaches the residual stream takes the output projection as it is now.
            return [
                Probe(
                    self.model.name,
                    self.model.dtype,
                    self.task.full_name,
                    self.split,
                    self.task.shots,
                    len(self.rows),
                    floor,
                    chosen,
                    reach,
                    self._layers(prompts, floor),
                )
                for floor in floors
            ]

    def mean_variance(self) -> float:
        """Return what a floor is small or large beside: the mean over prompts, layers and heads of tr C_t / d.

        Layers in which fewer than two of the demonstrations' tokens are seen have none, and are left out.
        """
        sizes = [p.keys.shape[-1] * p.values.shape[-1] for p in self.recorder(self.rows[0].tokens)]
        layers = zip(self().layers, sizes, strict=True)
        return float(np.nanmean([layer.trace / size - self.floor for layer, size in layers]))

    def release(self) -> None:
        """Let go of the factorisations of matrices; they are made again where they are needed again."""
        self._factors.clear()

    def _canonical(self, edits: Iterable[Edit]) -> tuple[Edit, ...]:
        resolved = [replace(edit, layer=self.anatomy.layer_index(edit.layer)) for edit in edits]
        return tuple(sorted(edit for edit in resolved if edit.rate > 0))

    def _rows(self, prompts: int, truncate: bool, drop: bool) -> tuple[_Row, ...]:
        tokenizer, window = needed_tokenizer(self.model), context_window(self.model.model.config)
        fitted = fit(self.task, self.split, tokenizer, window, truncate=truncate, drop=drop)
        if not fitted.prompts:
            raise TaskError(f"task {self.task.name} has no {self.split} rows to read; give it more rows")
        fitted = fitted.rows(0, min(prompts, len(fitted.prompts)))
        encoder = Encoder(tokenizer, shared_text(fitted.prompts))
        requests = build_requests(fitted.prompts, tokenizer, window).without_prefix()
        rows = []
        for (first, *_), shots in zip(requests.continuations, fitted.shots, strict=True):
            tokens = requests.rows[first.row][: first.start + 1]
            before, shown = (
                self.task.format.prefix(examples) for examples in ((), self.task.demonstrations[:shots])
            )
            start, stop = (len(common_prefix([tokens, found])) for found in encoder([before, shown]))
            rows.append(_Row(tokens, start, stop))
        return tuple(rows)

    def _recorded(self) -> list[list[Parts]]:
        """Read every prompt; what all of them begin with once."""
        if not self._shared:
            return [self.recorder(row.tokens) for row in self.rows]
        beginning = self.recorder.begin(self.rows[0].tokens[: self._shared])
        return [self.recorder(row.tokens[self._shared :], beginning) for row in self.rows]

    def _sharable(self) -> int:
        """Return how many tokens all prompts begin with; none where reading them apart does not give the same heads."""
        shared = len(common_prefix(row.tokens[:-1] for row in self.rows)) if len(self.rows) > 1 else 0
        if not shared:
            return 0
        tokens = self.rows[0].tokens
        whole = self.recorder(tokens)
        try:
            apart = self.recorder(tokens[shared:], self.recorder.begin(tokens[:shared]))
        except (RuntimeError, TypeError, ValueError, AttributeError, IndexError, ModelError):
            return 0  # a model that keeps something else than keys and values from one pass to the next
        return shared if all(_agree(a, b, self._tolerance) for a, b in zip(whole, apart, strict=True)) else 0

    def _layers(self, prompts: Sequence[Sequence[Parts]], floor: float) -> tuple[LayerProbe, ...]:
        found = [self._layer(layer, [p[layer] for p in prompts], floor) for layer in range(len(prompts[0]))]
        path = np.cumsum([steps for _, steps in found], axis=0)
        return tuple(
            replace(layer, path_norm=np.linalg.norm(past, axis=1))
            for (layer, _), past in zip(found, path, strict=True)
        )

    def _layer(
        self, layer: int, prompts: Sequence[Parts], floor: float
    ) -> tuple[LayerProbe, Float[np.ndarray, "prompts d"]]:
        """Return a layer's quantities but for the trajectory's norm, and its steps."""
        shown = [seen(parts, row.start, row.stop) for parts, row in zip(prompts, self.rows, strict=True)]
        updates = self._all_updates(layer, prompts, shown, floor)
        heads = [attended(parts, which) for parts, which in zip(prompts, shown, strict=True)]
        residuals = np.array([residual(parts) for parts in prompts])
        self._check(layer, residuals)
        steps = self._steps(layer, heads)
        log_normaliser = np.array([found.log_normaliser for found in heads])
        names = {f.name for f in fields(Update)} & {f.name for f in fields(LayerProbe)}
        of_updates = {name: np.array([getattr(u, name) for u in updates]) for name in sorted(names)}
        of_updates["log_norm"] = of_updates["log_norm"] - log_normaliser
        step_norm = np.linalg.norm(steps, axis=1)
        return LayerProbe(
            layer=layer,
            tokens=np.array([which.sum() for which in shown]),
            log_normaliser=log_normaliser,
            share=np.array([found.share for found in heads]),
            update_norm=np.array([np.linalg.norm(found.update, axis=1) for found in heads]),
            step_norm=step_norm,
            path_norm=step_norm,
            residual=residuals,
            **of_updates,
        ), steps

    def _all_updates(
        self, layer: int, prompts: Sequence[Parts], shown: Sequence[Bool[np.ndarray, " _"]], floor: float
    ) -> list[Update]:
        """Return each prompt's update, computed once for all that show the layer the same."""
        known: list[_Known] = []
        updates = []
        for parts, which in zip(prompts, shown, strict=True):
            found = next((k for k in known if k.is_of(parts, which, self._tolerance)), None)
            if found is None:
                found = _Known(which, parts, self._update(layer, parts, which, floor))
                known.append(found)
            updates.append(found.update)
        return updates

    def _update(self, layer: int, parts: Parts, shown: Bool[np.ndarray, " tokens"], floor: float) -> Update:
        digest = hashlib.blake2b(f"{layer} {parts.scale} {parts.softcap}".encode(), digest_size=16)
        for array in _shown(parts, shown):
            digest.update(np.ascontiguousarray(array).data)
        known = self._updates.setdefault(digest.digest(), {})
        if floor not in known:
            other = next(iter(known.values()), None)
            known[floor] = update_of(parts, shown, floor) if other is None else other.at_floor(floor)
        return known[floor]

    def _steps(self, layer: int, heads: Sequence[Attended]) -> Float[np.ndarray, "prompts d"]:
        """Return what the demonstrations add to the last token through the output projection as it is now."""
        output = self.recorder.outputs[layer].read()
        exact = output.float() if output.device.type == "mps" else output.double()  # mps has no float64
        updates = torch.from_numpy(np.array([found.update.ravel() for found in heads])).to(exact)
        return (updates @ exact.T).cpu().double().numpy()

    @property
    def _tolerance(self) -> float:
        """How far numbers of the model's dtype may be apart that are equal but for rounding."""
        return float(torch.finfo(self.model.model.dtype).eps) ** 0.5

    def _check(self, layer: int, residuals: Float[np.ndarray, "prompts heads"]) -> None:
        if not residuals.max() <= self._tolerance:
            raise ModelError(
                f"layer {layer}: a head's output is {residuals.max():.1e} away, relatively, from what its queries, "
                f"keys and values give; a '{self.anatomy.model_type}' model does more in its attention than the probe "
                "knows, or its outputs are not numbers"
            )


def _check_floor(floor: float, prompts: int = 1) -> None:
    if prompts < 1 or not floor > 0:
        raise EditError(f"{prompts} prompts and floor {floor:g}: both are to be positive")


def _shown(parts: Parts, shown: Bool[np.ndarray, " tokens"]) -> tuple[np.ndarray, ...]:
    return parts.keys[:, shown], parts.values[:, shown], parts.bias[:, shown]


def _agree(one: Parts, other: Parts, tolerance: float) -> bool:
    """Say whether two recordings of a prompt's layer are the same but for rounding."""
    pairs = ((getattr(one, name), getattr(other, name)) for name in ("query", "keys", "values", "output"))
    same = all(
        a.shape == b.shape and np.abs(a - b).max(initial=0) <= tolerance * np.abs(a).max(initial=0)
        for a, b in pairs
    )
    return same and np.array_equal(np.isfinite(one.bias), np.isfinite(other.bias))


def probe(
    model: str | Path | Model | LoadedModel,
    task: Task,
    edits: Edit | Sequence[Edit] = (),
    *,
    dtype: str = "float32",
    device: str = "auto",
    tokenizer: Tokenizer | None = None,
    **options: Any,
) -> Probe:
    """Read the theory's quantities off a model, on the demonstrations of some prompts of a task.

    For several edits make one `Prober`, which keeps what they share; `Probe.compare` sets two readings side by side.

    Arguments:
        model: a hub id, a local folder, or a live `PreTrainedModel`, which is left as it was.
        task: a `Task` with demonstrations.
        edits: what to clip, all together.
        dtype, device, tokenizer: see `load_model`; float32 unless said otherwise, for exactness.
        options: passed on to `Prober`: `prompts`, `split`, `floor`, `truncate_demonstrations`, `drop_long_rows`.

    Raises:
        EckartError: the model, the task or an edit is not usable.
    """
    live = isinstance(model, (Model, LoadedModel))
    loaded = load_model(model, dtype="auto" if live else dtype, device=device, tokenizer=tokenizer)
    return Prober(loaded, task, **options)(edits)
