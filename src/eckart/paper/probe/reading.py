"""The reading of a probe, by layer and head, and how it moved as a layer was clipped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from eckart.errors import EditError
from eckart.paper.theory.bound import floored_term
from eckart.records import Edit
from eckart.reports.table import finite

Heads = Float[np.ndarray, "prompts heads"]
Prompts = Float[np.ndarray, " prompts"]

OF_HEADS = {
    "share": "share",
    "log_normaliser": "log D'",
    "log_norm": "log |ΔW'|",
    "rank": "rank",
    "stable_rank": "stable rank",
    "update_norm": "|ΔW' φ(q)|",
    "linear_norm": "|Σ v ⊗ k|",
    "norm_term": "norm term",
    "log_determinant": "log det",
    "term": "term",
}
QUANTITIES = OF_HEADS | {"step_norm": "step", "path_norm": "trajectory"}
"""What is read of a layer, as `LayerProbe` has it, and how a table calls it."""


@dataclass(frozen=True, eq=False)
class LayerProbe:
    """One layer's quantities, for each prompt and query head.

    Arguments:
        layer: 0-based.
        tokens: (prompts,), N, how many of the demonstrations' tokens the last token sees here.
        log_normaliser: log D', of the softmax's denominator.
        share: the demonstrations' share of the attention, in [0, 1].
        log_norm: log of |Delta W'|, the implicit gradient's norm, Appendix B.2. NaN under a soft
            cap, which leaves no kernel, as are the ranks.
        rank, stable_rank: of Delta W': the number of its singular values above `RESOLVED` of the
            largest; the sum of their squares as a multiple of the largest's.
        update_norm: norm of Delta W' phi(q), what the demonstrations add to the head's output.
        linear_norm: norm of the linear form's sum_i v_i ⊗ k_i, W_Q left out: Lemma 1's Delta W is
            this times W_Q.
        step_norm: (prompts,), norm of tau_t = W_O sum over heads of Delta W' phi(q): what the
            demonstrations add to the residual stream at the last token through this layer's
            attention. A norm or a multiplier that some models have behind the output projection is
            left out.
        path_norm: (prompts,), norm of tau_1 + ... + tau_t. A softmax model has no W_t of Theorem 1,
            one matrix for every token: this is its W_t h^0 for the one token at hand, without what
            MLPs and the other tokens add.
        residual: relative distance of the heads' outputs, computed anew from what was recorded,
            from the model's own.
        variances: for each prompt (heads, r), the eigenvalues of Theorem 2's C_t with g_i = v_i ⊗
            k_i, W_Q and earlier layers left out; none for fewer than two tokens. Clipping `q` moves
            neither what is made of these nor `linear_norm` in its own layer.
        dimension: the number of entries of g_i.
        floor: the noise's variance in every direction beside C_t's.
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
    step_norm: Prompts
    path_norm: Prompts
    residual: Heads
    variances: tuple[Float[np.ndarray, "heads r"], ...]
    dimension: int
    floor: float

    @property
    def mean_variance(self) -> Heads:
        """tr C_t / d; NaN, as the properties below, for fewer than two tokens."""
        return self._where_noisy([found.sum(axis=1) / self.dimension for found in self.variances])

    @property
    def norm_term(self) -> Heads:
        """The first half of Theorem 2's term; see `LayerTerm`."""
        return self._of_terms("norm_term")

    @property
    def log_determinant(self) -> Heads:
        """What the term subtracts from its first half."""
        return self._of_terms("log_determinant")

    @property
    def term(self) -> Heads:
        """Theorem 2's with g_i = v_i ⊗ k_i, W_Q left out."""
        return self._of_terms("value")

    def _of_terms(self, name: str) -> Heads:
        terms = [
            floored_term(variances, square, self.dimension, self.floor)
            for variances, square in zip(self.variances, self.linear_norm**2, strict=True)
        ]
        return self._where_noisy([getattr(term, name) for term in terms])

    def _where_noisy(self, numbers: Sequence[Float[np.ndarray, " heads"]]) -> Heads:
        return np.where([[found.shape[1] > 0] for found in self.variances], numbers, np.nan)

    def mean(self, quantity: str) -> float:
        """Return the mean of one of `QUANTITIES` over prompts, and heads where it has some."""
        return float(np.mean(getattr(self, quantity)))

    def to_json(self) -> dict[str, Any]:
        """Return means over prompts, of every head and of the layer; None where not defined."""
        of_heads = {name: getattr(self, name).mean(axis=0).tolist() for name in OF_HEADS}
        return {
            "layer": self.layer,
            "tokens": float(self.tokens.mean()),
            **{name: finite(self.mean(name)) for name in QUANTITIES},
            "residual": float(self.residual.max()),
            "heads": [
                {"head": head, **{name: finite(values[head]) for name, values in of_heads.items()}}
                for head in range(self.share.shape[1])
            ],
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

    def at(self, floor: float) -> Probe:
        """Return the same reading with another floor; an EditError where it is not positive."""
        check_floor(floor)
        layers = tuple(replace(layer, floor=floor) for layer in self.layers)
        return replace(self, floor=floor, layers=layers)

    @property
    def mean_variance(self) -> float:
        """What a floor is small or large beside: the mean over prompts, layers and heads of tr C_t
        / d, without the layers in which fewer than two of the demonstrations' tokens are seen."""
        return float(np.nanmean([layer.mean_variance for layer in self.layers]))

    @property
    def residual(self) -> float:
        """The largest of all layers, heads and prompts."""
        return max(float(layer.residual.max()) for layer in self.layers)

    def means(self, quantity: str) -> Float[np.ndarray, " layers"]:
        """Return a quantity's mean over prompts and heads, for every layer."""
        return np.array([layer.mean(quantity) for layer in self.layers])

    def compare(self, after: Probe) -> Comparison:
        """Return how the quantities moved from this probe to another of the same prompts; an
        EditError where that is of another model, of other prompts, or has another floor."""
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
        read = ("model", "dtype", "task", "split", "shots", "prompts", "floor")
        return {
            **{name: getattr(self, name) for name in read},
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
        # Without demonstrations in its window, both are minus infinity.
        with np.errstate(invalid="ignore"):
            return self.after.means(quantity) - self.before.means(quantity)

    @property
    def moved_below(self) -> float:
        """The most that any number of any prompt and head moved in the layers below `reach`: 0 by
        Remark 5."""
        pairs = list(zip(self.before.layers, self.after.layers, strict=True))[: self.reach]
        return max((_most(a, b) for a, b in pairs), default=0.0)

    def to_json(self) -> dict[str, Any]:
        changes = {name: finite(self.change(name).tolist()) for name in QUANTITIES}
        return {
            **self.before.to_json(),
            "clipped": self.after.to_json(),
            "change": changes,
            "first_layer_that_may_move": self.reach,
            "moved_below": self.moved_below,
        }


def check_floor(floor: float, prompts: int = 1) -> None:
    if prompts < 1 or not floor > 0:
        raise EditError(f"{prompts} prompts and floor {floor:g}: both are to be positive")


def _most(a: LayerProbe, b: LayerProbe) -> float:
    """Return the largest difference of two layers' numbers, where both are numbers; infinity where
    one alone is."""
    most = 0.0
    for name in (*QUANTITIES, "tokens", "residual"):
        x, y = (np.atleast_1d(np.asarray(getattr(of, name), dtype=float)) for of in (a, b))
        apart = np.abs(np.subtract(x, y, where=x != y, out=np.zeros_like(x)))
        apart[np.isnan(x) & np.isnan(y)] = 0
        most = max(most, float(np.nan_to_num(apart, nan=np.inf).max()))
    return most
