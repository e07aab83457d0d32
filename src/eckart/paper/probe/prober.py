"""Probing a model: which prompts, which of their tokens are demonstrations', and every quantity,
for any edits."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float

from eckart.errors import ModelError, TaskError
from eckart.paper.probe.quantities import Attended, Update, attended, residual, seen, update_of
from eckart.paper.probe.reading import LayerProbe, Probe, check_floor
from eckart.paper.probe.recording import Parts, Recorder
from eckart.records import Edit, Split, fingerprint
from eckart.scoring.encoding import Encoder, Tokens, common_prefix
from eckart.scoring.fitting import fit
from eckart.scoring.requests import build_requests, check_vocabulary
from eckart.scoring.scorer import Progress, silent
from eckart.tasks.task import Task
from eckart.weights.anatomy import Anatomy
from eckart.weights.edits import Factors, canonical, clip, resolve
from eckart.weights.loading.config import context_window
from eckart.weights.models import LoadedModel, Model, Tokenizer, load_model, needed_tokenizer

PROMPTS = 8
FLOOR = 1e-3


class _Tolerance(NamedTuple):
    """How far, relatively, numbers may be from those that they are checked against.

    Arguments:
        outputs: a head's output from the one computed anew. Seen: 4.3e-6 in float32, 0.065 in
            bfloat16 and 0.009 in float16, where the softmax's weights are rounded.
        goes: recordings of a prompt read in two goes from those of the whole prompt. Seen: 5.1e-7
            in float32; products of other sizes may round otherwise.
    """

    outputs: float
    goes: float


EXACT = _Tolerance(1e-4, 1e-5)
TOLERANCES = {torch.bfloat16: _Tolerance(1e-1, 1e-2), torch.float16: _Tolerance(2e-2, 2e-3)}


@dataclass(frozen=True)
class _Row:
    """A prompt as the model reads it, up to the token that predicts the label; its demonstrations'
    tokens are those from `start` to `stop`."""

    tokens: Tokens
    start: int
    stop: int


class Prober:
    """Reads the theory's quantities off a model, as often as wanted, with any edits.

    Two things are shared, because nearly all of a prompt is its demonstrations and prompts show the
    same ones. The tokens that all prompts begin with are read once for each edit (`_shared`), which
    saves most of the reading; only where a check says that it gives the same recordings. What
    demonstrations make of a layer whatever the query is, a decomposition of a matrix for each head,
    is kept by a hash of the keys and values that it is made of (`_updates`): once for all prompts,
    and for all edits that leave the layer as it was, such as those above it. What is taken from
    there was computed from numbers that are bit for bit the same, so no reading depends on the ones
    before it.

    Arguments:
        model: what `load_model` returned; in float32 if the residuals are to be small.
        task: with at least one demonstration.
        prompts: how many rows of the split are read, from its beginning.
        split: `validation`, `test` or `all`.
        floor: the noise's variance in every direction in the linear form's part of Theorem 2, which
            is infinite without one.
        truncate_demonstrations, drop_long_rows, progress: as for `Evaluator`.

    Raises:
        TaskError: the task has no demonstrations or no rows, or a prompt is longer than the model
            reads.
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
        progress: Progress = silent,
    ) -> None:
        check_floor(floor, prompts)
        if task.shots == 0:
            raise TaskError(
                f"task {task.name} shows no demonstrations, and the probe reads what they do; use"
                " --shots 4, say"
            )
        self.model, self.split, self.floor, self.progress = model, split, floor, progress
        self.task = task.for_tokenizer(needed_tokenizer(model))
        self.anatomy = Anatomy.of(model.model)
        self.recorder = Recorder(self.anatomy)
        self.tolerance = TOLERANCES.get(model.model.dtype, EXACT)
        self.rows = self._rows(prompts, truncate_demonstrations, drop_long_rows)
        self._factors: Factors = {}
        self._updates: dict[bytes, Update] = {}
        self._shared = self._sharable()

    def __call__(self, edits: Edit | Sequence[Edit] = ()) -> Probe:
        """Read the model with these edits, all together; it is as before afterwards.

        An EditError where the model has no such layer or part; a ModelError where a head's output
        cannot be computed from what was recorded of it.
        """
        chosen = canonical(self.anatomy, [edits] if isinstance(edits, Edit) else edits)
        rates = resolve(self.anatomy, chosen)
        reach = min(
            (weight.layer + (weight.part == "mlp") for weight in rates),
            default=len(self.anatomy.layers),
        )
        clipped = clip(self.model.model, chosen, anatomy=self.anatomy, factors=self._factors)
        with clipped if chosen else nullcontext():
            prompts = self._recorded()
            # Inside the clip too: what reaches the residual stream takes the output projection as
            # it is now.
            layers = self._probed(prompts, ", ".join(map(str, chosen)) or "unpruned")
        return Probe(
            model=self.model.name,
            dtype=self.model.dtype,
            task=self.task.full_name,
            split=self.split,
            shots=self.task.shots,
            prompts=len(self.rows),
            rows=fingerprint([asdict(row) for row in self.rows]),
            floor=self.floor,
            edits=chosen,
            reach=reach,
            layers=layers,
        )

    def _rows(self, prompts: int, truncate: bool, drop: bool) -> tuple[_Row, ...]:
        tokenizer, window = needed_tokenizer(self.model), context_window(self.model.model.config)
        fitted = fit(self.task, self.split, tokenizer, window, truncate=truncate, drop=drop)
        if not fitted.prompts:
            raise TaskError(
                f"task {self.task.name} has no {self.split} rows to read; give it more rows"
            )
        asked = Split.part(self.split, 0, min(prompts, len(fitted.prompts)))
        fitted = fitted.part(asked)
        encoder = Encoder(tokenizer, fitted.prompts)
        requests = build_requests(fitted.prompts, tokenizer, window).without_prefix()
        check_vocabulary(self.model, requests)
        rows = []
        for (first, *_), shots in zip(requests.continuations, fitted.shots, strict=True):
            tokens = requests.rows[first.row][: first.start + 1]
            frames = map(self.task.format.frame, ((), self.task.shown[:shots]))
            prefixes = encoder([frame.before for frame in frames])
            start, stop = (len(common_prefix([tokens, prefix])) for prefix in prefixes)
            rows.append(_Row(tokens, start, stop))
        return tuple(rows)

    def _recorded(self) -> list[list[Parts]]:
        """Read every prompt; what all of them begin with once."""
        if not self._shared:
            return [self.recorder(row.tokens) for row in self.rows]
        beginning = self.recorder.begin(self.rows[0].tokens[: self._shared])
        return [self.recorder(row.tokens[self._shared :], beginning) for row in self.rows]

    def _sharable(self) -> int:
        """Return how many tokens all prompts begin with; none where reading them apart does not
        give the same heads."""
        if len(self.rows) < 2:
            return 0
        tokens = self.rows[0].tokens
        shared = len(common_prefix(row.tokens[:-1] for row in self.rows))
        if not shared:
            return 0
        whole = self.recorder(tokens)
        try:
            apart = self.recorder(tokens[shared:], self.recorder.begin(tokens[:shared]))
        except (RuntimeError, TypeError, ValueError, AttributeError, IndexError, ModelError):
            return 0  # what this model keeps from one pass to the next is not keys and values
        pairs = zip(whole, apart, strict=True)
        return shared if all(_agree(a, b, self.tolerance.goes) for a, b in pairs) else 0

    def _probed(self, prompts: Sequence[Sequence[Parts]], what: str) -> tuple[LayerProbe, ...]:
        found = []
        with self.progress(f"layers, {what}", len(self.anatomy.layers)) as advance:
            for layer in self._layers(prompts):
                found.append(layer)
                advance(1)
        return tuple(found)

    def _layers(self, prompts: Sequence[Sequence[Parts]]) -> Iterator[LayerProbe]:
        """Yield every layer's quantities, the first layer's first: the trajectory adds up."""
        path = np.zeros(())
        for layer, recorded in enumerate(zip(*prompts, strict=True)):
            residuals = np.array([residual(parts) for parts in recorded])
            self._check(layer, residuals)
            shown = [
                (parts, seen(parts, row.start, row.stop))
                for parts, row in zip(recorded, self.rows, strict=True)
            ]
            heads = [attended(parts, which) for parts, which in shown]
            updates = [self._update(layer, parts, which) for parts, which in shown]
            of_updates = {
                name: np.array([getattr(update, name) for update in updates])
                for name in ("rank", "stable_rank", "linear_norm")
            }
            log_normaliser = np.array([found.log_normaliser for found in heads])
            step = self._step(layer, heads)
            path = path + step
            yield LayerProbe(
                **of_updates,
                layer=layer,
                tokens=np.array([which.sum() for _, which in shown]),
                log_normaliser=log_normaliser,
                log_norm=np.array([update.log_norm for update in updates]) - log_normaliser,
                share=np.array([found.share for found in heads]),
                update_norm=np.array([np.linalg.norm(found.update, axis=1) for found in heads]),
                step_norm=np.linalg.norm(step, axis=1),
                path_norm=np.linalg.norm(path, axis=1),
                residual=residuals,
                variances=tuple(update.variances for update in updates),
                dimension=recorded[0].keys.shape[-1] * recorded[0].values.shape[-1],
                floor=self.floor,
            )

    def _update(self, layer: int, parts: Parts, shown: Bool[np.ndarray, " tokens"]) -> Update:
        """Return what the demonstrations make of a layer, once for keys and values that are bit for
        bit the same."""
        digest = hashlib.blake2b(f"{layer} {parts.scale} {parts.softcap}".encode(), digest_size=16)
        for array in (parts.keys[:, shown], parts.values[:, shown], parts.bias[:, shown]):
            digest.update(np.ascontiguousarray(array).data)
        known = digest.digest()
        if known not in self._updates:
            self._updates[known] = update_of(parts, shown)
        return self._updates[known]

    def _step(self, layer: int, heads: Sequence[Attended]) -> Float[np.ndarray, "prompts d"]:
        """Return what the demonstrations add to the last token through the output projection as it
        is now."""
        output = self.recorder.outputs[layer].read()
        exact = output.to(torch.float32 if output.device.type == "mps" else torch.float64)
        updates = torch.from_numpy(np.array([found.update.ravel() for found in heads])).to(exact)
        return (updates @ exact.T).cpu().double().numpy()

    def _check(self, layer: int, residuals: Float[np.ndarray, "prompts heads"]) -> None:
        if not residuals.max() <= self.tolerance.outputs:
            raise ModelError(
                f"layer {layer}: a head's output is {residuals.max():.1e} away, relatively, from"
                f" what its queries, keys and values give; a '{self.anatomy.model_type}' model does"
                " more in its attention than the probe knows, or its outputs are not numbers"
            )


def _agree(one: Parts, other: Parts, tolerance: float) -> bool:
    """Say whether two recordings of a prompt's layer are the same but for rounding."""
    for name in ("query", "keys", "values", "output"):
        a, b = getattr(one, name), getattr(other, name)
        if a.shape != b.shape:
            return False
        if not np.abs(a - b).max(initial=0) <= tolerance * np.abs(a).max(initial=0):  # or NaN
            return False
    return np.array_equal(np.isfinite(one.bias), np.isfinite(other.bias))


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

    For several edits make one `Prober`, which keeps what they share; `Probe.compare` sets two
    readings side by side.

    Arguments:
        model: a hub id, a local folder, or a live `PreTrainedModel`, which is left as it was.
        task, options: see `Prober`.
        edits: what to clip, all together.
        dtype, device, tokenizer: see `load_model`; float32 unless said otherwise, for exactness.

    Raises:
        EckartError: the model, the task or an edit is not usable.
    """
    live = isinstance(model, (Model, LoadedModel))
    loaded = load_model(model, dtype="auto" if live else dtype, device=device, tokenizer=tokenizer)
    return Prober(loaded, task, **options)(edits)
