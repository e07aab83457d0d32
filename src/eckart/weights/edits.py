"""Clip matrices of a live model in place; what comes back afterwards is the bytes, never a
reconstruction."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

import torch
from transformers import PreTrainedModel

from eckart.errors import EditError
from eckart.records import Edit
from eckart.weights.anatomy import Anatomy, Weight
from eckart.weights.linalg import Factor, factored_size, rank_at

Factors = dict[str, Factor]
"""One factorisation a matrix, by `Weight.key`: passed again, it makes every further rate cost one
product."""

_held: set[tuple[int, int | None, str]] = set()
"""Which matrices an open `clip` has truncated, so that a second one does not take them for the
original."""


@dataclass(frozen=True)
class Clipped:
    """What clipping did to one matrix.

    Arguments:
        layer: 0-based.
        name: as `Weight.name`.
        rate: the clipping rate xi of Section 2.
        rank: the rank that it keeps.
        shape: (m, n).
        kept_energy: the kept share of the squared Frobenius norm, in [0, 1].
        factored_parameters: `rank * (m + n)`, the numbers that two factors of this rank hold.
    """

    layer: int
    name: str
    rate: float
    rank: int
    shape: tuple[int, int]
    kept_energy: float
    factored_parameters: int


@contextmanager
def clip(
    model: PreTrainedModel,
    edits: Edit | Sequence[Edit],
    *,
    anatomy: Anatomy | None = None,
    factors: Factors | None = None,
) -> Iterator[tuple[Clipped, ...]]:
    """Clip a model while a `with` block runs, and bring every byte back when it ends, however it
    ends.

    Arguments:
        model: edited in place; its parameters stay the same objects, and no gradient is recorded.
        edits: one or several, on different matrices; none leaves the model as it is.
        anatomy: the model's, if it is at hand; made if not.
        factors: a memo; without it, each matrix is factorised anew and its factors are dropped at
            once.

    Yields:
        What was done to each matrix, in the order of the edits; a matrix that is tied to others
        counts once.

    Raises:
        EditError: an edit names what the model does not have, what another edit names, what an open
            `clip` holds, or what is tied to a matrix outside of the edits; or the memo is of other
            weights.
        ModelError: a matrix has NaN or infinite entries, or no values; the model cannot be taken
            apart.

    >>> from transformers import GPT2Config, GPT2LMHeadModel
    >>> model = GPT2LMHeadModel(GPT2Config(n_layer=2, n_embd=8, n_head=2, vocab_size=16))
    >>> with clip(model, Edit(layer=-1, part="mlp", rate=0.75)) as clipped:
    ...     [(c.layer, c.name, c.rank, c.shape) for c in clipped]
    [(1, 'fc_in', 2, (32, 8)), (1, 'fc_out', 2, (8, 32))]
    """
    targets = targets_of(model, edits, anatomy)
    with _hold(targets), ExitStack() as undo:
        yield _clip_all(undo, targets, factors)


def clip_(
    model: PreTrainedModel,
    edits: Edit | Sequence[Edit],
    *,
    anatomy: Anatomy | None = None,
    factors: Factors | None = None,
) -> tuple[Clipped, ...]:
    """Clip a model in place, for good; if one matrix cannot be clipped, none is.

    Arguments, Returns, Raises: as `clip`.
    """
    targets = targets_of(model, edits, anatomy)
    with _hold(targets), ExitStack() as undo:
        clipped = _clip_all(undo, targets, factors)
        undo.pop_all()  # all went well: nothing is brought back
    return clipped


def resolve(anatomy: Anatomy, edits: Edit | Sequence[Edit]) -> dict[Weight, float]:
    """Return which matrices the edits clip, and at which rate.

    Arguments:
        anatomy: the model's.
        edits: one or several, on different matrices.

    Raises:
        EditError: an edit names what the model does not have, or what another edit names.
    """
    rates: dict[Weight, float] = {}
    for edit in [edits] if isinstance(edits, Edit) else edits:
        for weight in anatomy.select(edit.layer, edit.part):
            if weight in rates:
                raise EditError(
                    f"{weight.label} is named twice, at rates {rates[weight]:g} and {edit.rate:g}; "
                    "a matrix has one rate: leave one of the edits out"
                )
            rates[weight] = edit.rate
    return rates


def canonical(anatomy: Anatomy, edits: Iterable[Edit]) -> tuple[Edit, ...]:
    """Resolve negative layers, drop edits at rate 0, and sort, so that equal edits are equal
    values.

    Arguments:
        anatomy: the model's.
        edits: any number.

    Raises:
        EditError: the model has no such layer.
    """
    resolved = [replace(edit, layer=anatomy.layer_index(edit.layer)) for edit in edits]
    return tuple(sorted(edit for edit in resolved if edit.rate > 0))


def targets_of(
    model: PreTrainedModel, edits: Edit | Sequence[Edit], anatomy: Anatomy | None = None
) -> dict[Weight, float]:
    """Return what edits clip and at which rate, a tied matrix once, after every check that needs no
    arithmetic.

    Arguments, Raises: as `clip`.
    """
    anatomy = Anatomy.of(model) if anatomy is None else anatomy
    if anatomy.model is not model:
        raise EditError(
            "the anatomy is of another model than the one to clip; make it with Anatomy.of(model)"
        )
    rates = resolve(anatomy, edits)
    _check_tied(rates)
    # Of several names of the same numbers the first stands for all.
    once = {
        f"{min([weight.path, *weight.tied])}:{weight.name}": weight for weight in reversed(rates)
    }
    return {weight: rate for weight, rate in rates.items() if weight in once.values()}


def _check_tied(rates: Mapping[Weight, float]) -> None:
    by_key = {weight.key: rate for weight, rate in rates.items()}
    for weight, rate in rates.items():
        outside = [path for path in weight.tied if by_key.get(f"{path}:{weight.name}") != rate]
        if rate and outside:
            raise EditError(
                f"{weight.label} is tied to {', '.join(outside)}: clipping one changes both; "
                "name all of them at the same rate, or load the model untied"
            )


@contextmanager
def _hold(targets: Mapping[Weight, float]) -> Iterator[None]:
    """Mark matrices as clipped while a block runs."""
    regions = {_region(weight): weight for weight, rate in targets.items() if rate}
    for taken in regions.keys() & _held:
        raise EditError(
            f"{regions[taken].label} is clipped already, by a clip that is still open; truncation"
            " is always of the original weights: leave that block first, or name the matrix in one"
            " of the two only"
        )
    _held.update(regions)
    try:
        yield
    finally:
        _held.difference_update(regions)


def _region(weight: Weight) -> tuple[int, int | None, str]:
    """Return what identifies the numbers that a matrix occupies, whatever anatomy it was found
    by."""
    return (id(weight.parameter), weight.expert, weight.kind if weight.fused else "")


def _clip_all(
    undo: ExitStack, targets: Mapping[Weight, float], factors: Factors | None
) -> tuple[Clipped, ...]:
    return tuple(_clip_one(undo, weight, rate, factors) for weight, rate in targets.items())


def _clip_one(undo: ExitStack, weight: Weight, rate: float, factors: Factors | None) -> Clipped:
    """Truncate one matrix, after leaving its bytes where they can be brought back from."""
    kept_energy = 1.0
    if rate:
        factor = _factor(weight, factors)
        truncated = factor.truncate(rate)
        kept_energy = factor.kept_energy(rate)
        undo.callback(
            weight.write_, factor.original
        )  # first, so that an interrupt in between does no harm
        weight.write_(truncated)
    rank = rank_at(rate, weight.shape)
    return Clipped(
        weight.layer,
        weight.name,
        rate,
        rank,
        weight.shape,
        kept_energy,
        factored_size(rate, weight.shape),
    )


def _factor(weight: Weight, factors: Factors | None) -> Factor:
    """Return a matrix's factorisation: the memo's, if it is of the very numbers that the model
    holds."""
    stored = weight.read()
    memo = {} if factors is None else factors
    if weight.key not in memo:
        memo[weight.key] = Factor.of(stored, name=weight.label)
    factor = memo[weight.key]
    original = factor.original
    if (original.dtype, original.device) != (stored.dtype, stored.device) or not torch.equal(
        original, stored
    ):
        raise EditError(
            f"{weight.label} is not what its factorisation was made of: it was changed since, or"
            " the memo is another model's; pass a fresh memo"
        )
    return factor
