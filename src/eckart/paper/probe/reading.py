"""The reading of a probe, by layer and head, and how it moved as a layer was clipped."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from eckart.errors import EditError
from eckart.records import Edit

Heads = Float[np.ndarray, "prompts heads"]
Prompts = Float[np.ndarray, " prompts"]

OF_HEADS = {
    "share": "the demonstrations' share of the attention",
    "log_normaliser": "log D'",
    "log_norm": "log |ΔW'|, the implicit gradient's norm (softmax dual)",
    "rank": "numerical rank of ΔW'",
    "stable_rank": "stable rank of ΔW'",
    "update_norm": "|ΔW' φ(q)|, the norm of what it adds",
    "linear_norm": "|Σ v ⊗ k|, the linear form's norm, W_Q left out",
    "norm_term": "Theorem 2 with g = v ⊗ k, W_Q left out: the norm term",
    "log_determinant": "Theorem 2 with g = v ⊗ k, W_Q left out: log det",
    "term": "Theorem 2 with g = v ⊗ k, W_Q left out: the term",
}
OF_LAYERS = {
    "step_norm": "|τ_t|, the norm of the layer's step",
    "path_norm": "|τ_1 + ... + τ_t|, the norm of the trajectory",
}
QUANTITIES = OF_HEADS | OF_LAYERS


@dataclass(frozen=True, eq=False)
class LayerProbe:
    """One layer's quantities, for each prompt and query head.

    Arguments:
        layer: 0-based.
        tokens: (prompts,), N, how many of the demonstrations' tokens the last token sees here.
        log_normaliser: log D', of the softmax's denominator.
        share: the demonstrations' share of the attention, in [0, 1].
        log_norm: log of |Delta W'|, the implicit gradient's norm, Appendix B.2. NaN under a soft
            cap, as are the ranks.
        rank, stable_rank: of Delta W'; see `eckart.paper.probe.quantities.Update`.
        update_norm: norm of Delta W' phi(q), what the demonstrations add to the head's output.
        linear_norm: norm of the linear form's sum_i v_i ⊗ k_i, W_Q left out: Lemma 1's Delta W is
            this times W_Q.
        trace, norm_term, log_determinant: of Theorem 2 with g_i = v_i ⊗ k_i, W_Q and earlier layers
            left out, see `eckart.paper.theory.bound.LayerTerm`; NaN for fewer than two tokens.
            Clipping `q` moves neither these nor `linear_norm` in its own layer.
        step_norm: (prompts,), norm of tau_t = W_O sum over heads of Delta W' phi(q): what the
            demonstrations add to the residual stream at the last token through this layer's
            attention. A norm or a multiplier that some models have behind the output projection is
            left out.
        path_norm: (prompts,), norm of tau_1 + ... + tau_t. A softmax model has no W_t of Theorem 1,
            one matrix for
            every token: this is its W_t h^0 for the one token at hand, without what MLPs and the
                other tokens add.
        residual: relative distance of the heads' outputs, computed anew from what was recorded,
            from the model's own.
    """

    layer: int
    tokens: Int[np.ndarray, " prompts"]
    log_normaliser: Heads
    share: Heads
    log_norm: Heads
    rank: Heads
    stable_rank: Heads
    update_norm: Heads
    linear_norm: Heads
    trace: Heads
    norm_term: Heads
    log_determinant: Heads
    step_norm: Prompts
    path_norm: Prompts
    residual: Heads

    @property
    def term(self) -> Heads:
        """Theorem 2's with g_i = v_i ⊗ k_i, W_Q left out: `norm_term - log_determinant`."""
        return self.norm_term - self.log_determinant

    def mean(self, quantity: str) -> float:
        """Return a quantity's mean over prompts, and heads where it has some.

        Arguments:
            quantity: one of `QUANTITIES`.
        """
        return float(np.mean(getattr(self, quantity)))

    def to_json(self) -> dict[str, Any]:
        """Return means over prompts, of every head and of the layer; None for what is not
        defined."""
        heads = [
            {
                "head": head,
                **{name: number(getattr(self, name)[:, head].mean()) for name in OF_HEADS},
            }
            for head in range(self.share.shape[1])
        ]
        return {
            "layer": self.layer,
            "tokens": float(self.tokens.mean()),
            **{name: number(self.mean(name)) for name in QUANTITIES},
            "residual": float(self.residual.max()),
            "heads": heads,
        }


@dataclass(frozen=True, eq=False)
class Probe:
    """The theory's quantities of a model, clipped or not, on some prompts of a task.

    Arguments:
        model, dtype, task, split: what was read.
        shots: demonstrations in a prompt, at most.
        prompts: how many prompts.
        rows: a hash of what the model read: every prompt's tokens, and which of them are
            demonstrations'.
        floor: the noise's variance in every direction, of the linear form.
        edits: what was clipped.
        reach: the lowest layer whose quantities these edits may move (Remark 5): the clipped one
            for a matrix of its attention, the one after it for its MLP; the number of layers for
            none.
        layers: one for each.
    """

    model: str
    dtype: str
    task: str
    split: str
    shots: int
    prompts: int
    rows: str
    floor: float
    edits: tuple[Edit, ...]
    reach: int
    layers: tuple[LayerProbe, ...]

    @property
    def residual(self) -> float:
        """The largest of all layers, heads and prompts."""
        return max(float(layer.residual.max()) for layer in self.layers)

    def means(self, quantity: str) -> Float[np.ndarray, " layers"]:
        """Return a quantity's mean over prompts and heads, for every layer."""
        return np.array([layer.mean(quantity) for layer in self.layers])

    def compare(self, after: Probe) -> Comparison:
        """Return how the quantities moved from this probe to another of the same prompts.

        Raises:
            EditError: the other is of another model, of other prompts, or has another floor.
        """
        for name in ("model", "dtype", "floor"):
            mine, other = getattr(self, name), getattr(after, name)
            if mine != other:
                raise EditError(
                    f"probes with {name} {mine} and {other} cannot be compared; make both with one"
                    " Prober"
                )
        if self.rows != after.rows:
            read = " and ".join(
                f"{p.prompts} {p.split} prompts of {p.task}, {p.shots} shots" for p in (self, after)
            )
            raise EditError(
                f"probes read different tokens ({read}): another task, seed or tokenizer; make both"
                " with one Prober"
            )
        return Comparison(self, after)

    def to_json(self) -> dict[str, Any]:
        """Return the document that `--json` prints for it."""
        return {
            "model": self.model,
            "dtype": self.dtype,
            "task": self.task,
            "split": self.split,
            "shots": self.shots,
            "prompts": self.prompts,
            "floor": self.floor,
            "edits": [str(edit) for edit in self.edits],
            "residual": self.residual,
            "layers": [layer.to_json() for layer in self.layers],
        }


@dataclass(frozen=True, eq=False)
class Comparison:
    """How a model's quantities moved as it was clipped."""

    before: Probe
    after: Probe

    @property
    def reach(self) -> int:
        """The lowest layer that may have moved (Remark 5)."""
        return min(self.before.reach, self.after.reach)

    def change(self, quantity: str) -> Float[np.ndarray, " layers"]:
        """Return a quantity's mean after less that before, for every layer; NaN where one of them
        is not defined."""
        with np.errstate(
            invalid="ignore"
        ):  # without demonstrations in its window, both are minus infinity
            return self.after.means(quantity) - self.before.means(quantity)

    @property
    def moved_below(self) -> float:
        """The most that any number of any prompt and head moved in the layers below `reach`: 0 by
        Remark 5."""
        pairs = list(zip(self.before.layers, self.after.layers, strict=True))[: self.reach]
        return max((_most(a, b) for a, b in pairs), default=0.0)

    def to_json(self) -> dict[str, Any]:
        """Return the document that `--json` prints for it."""
        changes = {name: [number(value) for value in self.change(name)] for name in QUANTITIES}
        return {
            **self.before.to_json(),
            "clipped": self.after.to_json(),
            "change": changes,
            "first_layer_that_may_move": self.reach,
            "moved_below": self.moved_below,
        }


def number(value: float) -> float | None:
    """Return a number for JSON, which has neither NaN nor infinities."""
    return float(value) if math.isfinite(value) else None


def _most(a: LayerProbe, b: LayerProbe) -> float:
    """Return the largest difference of two layers' numbers, where both are numbers; infinity where
    one alone is."""
    most = 0.0
    for name in (f.name for f in fields(LayerProbe)):
        x, y = (np.atleast_1d(np.asarray(getattr(layer, name), dtype=float)) for layer in (a, b))
        same = (x == y) | (np.isnan(x) & np.isnan(y))
        difference = np.where(same, 0.0, np.abs(np.where(same, 0.0, x) - np.where(same, 0.0, y)))
        most = max(most, float(np.nan_to_num(difference, nan=np.inf).max()))
    return most
