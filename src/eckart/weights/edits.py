"""Clip matrices of a live model in place; what comes back afterwards is the bytes, never a
reconstruction."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from random import Random

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from transformers import PreTrainedModel

from eckart.algorithm1 import rank_at
from eckart.errors import EditError
from eckart.records import DROP, LARGEST, SMALLEST, Edit
from eckart.weights.anatomy import Anatomy, Weight
from eckart.weights.architectures import table
from eckart.weights.linalg import Factor, Order, factored_size

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


@dataclass(frozen=True, eq=False)
class Cut:
    """What an edit takes away of one matrix, singular value by singular value.

    Arguments:
        weight: the matrix.
        values: its singular values, descending, float64.
        kept: which of them stay.
    """

    weight: Weight
    values: Float[Tensor, " k"]
    kept: Bool[Tensor, " k"]

    @property
    def rank(self) -> int:
        """The rank that stays."""
        return int(self.kept.sum())

    @property
    def gone_energy(self) -> float:
        """The share of the squared Frobenius norm that goes, in [0, 1]."""
        energies = (self.values / self.values[0].clamp_min(1e-300)).square()
        whole = float(energies.sum())
        return float(energies[~self.kept].sum()) / whole if whole else 0.0


OUTPUTS = ("o", "down", "fc_out")
"""The matrices that write to the residual stream; what they add may have a bias."""


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
        yield _clip_all(undo, model, targets, factors)


def clip_(
    model: PreTrainedModel,
    edits: Edit | Sequence[Edit],
    *,
    anatomy: Anatomy | None = None,
    factors: Factors | None = None,
) -> tuple[Clipped, ...]:
    """Clip a model in place, for good; if one matrix cannot be clipped, none is. All else as
    `clip`."""
    targets = targets_of(model, edits, anatomy)
    with _hold(targets), ExitStack() as undo:
        clipped = _clip_all(undo, model, targets, factors)
        undo.pop_all()  # all went well: nothing is brought back
    return clipped


def resolve(anatomy: Anatomy, edits: Edit | Sequence[Edit]) -> dict[Weight, Edit]:
    """Return which matrices the edits change, and which edit does.

    An EditError where an edit names what the model does not have, or what another edit names, or
    drops a part of a model of which it is not known what the part's outputs pass through.
    """
    found: dict[Weight, Edit] = {}
    for edit in [edits] if isinstance(edits, Edit) else edits:
        if edit.cut == DROP and not droppable(anatomy):
            raise EditError(
                f"'{edit}' cannot drop a part of a '{anatomy.model_type}': the type is not in"
                " architectures.yaml, and what its layers add to their parts' outputs is not known;"
                " clip it at a rate"
            )
        for weight in anatomy.select(edit.layer, edit.part):
            if weight in found:
                raise EditError(
                    f"{weight.label} is named twice, at rates {found[weight].amount} and"
                    f" {edit.amount}; a matrix has one rate: leave one of the edits out"
                )
            found[weight] = edit
    return found


def droppable(anatomy: Anatomy) -> bool:
    """Whether it is known what a model's layers add to their parts' outputs."""
    return anatomy.model_type in table()


def canonical(anatomy: Anatomy, edits: Iterable[Edit]) -> tuple[Edit, ...]:
    """Resolve negative layers, drop edits at rate 0, and sort, so that equal edits are equal
    values; an EditError where the model has no such layer."""
    resolved = [replace(edit, layer=anatomy.layer_index(edit.layer)) for edit in edits]
    return tuple(sorted(edit for edit in resolved if edit.rate > 0))


def parameters(anatomy: Anatomy, edits: Iterable[Edit]) -> dict[str, int]:
    """Count the parameters of what edits clip, dense and with each matrix as two factors wherever
    that is smaller; what is dropped needs none."""
    shapes = [
        (weight.shape, edit) for edit in edits for weight in anatomy.select(edit.layer, edit.part)
    ]
    dense = sum(m * n for (m, n), _ in shapes)
    kept = [(shape, edit.rate) for shape, edit in shapes if edit.cut != DROP]
    factored = sum(min(m * n, factored_size(rate, (m, n))) for (m, n), rate in kept)
    return {"dense": dense, "factored": factored, "saved": dense - factored}


def targets_of(
    model: PreTrainedModel, edits: Edit | Sequence[Edit], anatomy: Anatomy | None = None
) -> dict[Weight, Edit]:
    """Return which matrices edits change and which edit does, a tied matrix once, after every check
    that needs no arithmetic; see `clip`."""
    anatomy = Anatomy.of(model) if anatomy is None else anatomy
    if anatomy.model is not model:
        raise EditError(
            "the anatomy is of another model than the one to clip; make it with Anatomy.of(model)"
        )
    found = resolve(anatomy, edits)
    _check_tied(found)
    # Of several names of the same numbers the first stands for all.
    once = {
        f"{min([weight.path, *weight.tied])}:{weight.name}": weight for weight in reversed(found)
    }
    return {weight: edit for weight, edit in found.items() if weight in once.values()}


def edit_(
    weight: Weight, edit: Edit, factors: Factors | None = None, undo: ExitStack | None = None
) -> Clipped:
    """Change one matrix in place as its layer's edit says: what edits do to a matrix is said here
    alone. At rate 0 it is not even read; `undo` is left what brings the bytes back. All else as
    `clip`."""
    rank = 0 if edit.cut == DROP else rank_at(edit.rate, weight.shape)
    kept_energy = 1.0
    if edit.rate:
        if edit.cut == DROP:
            original, kept_energy = weight.read(), 0.0
            changed = torch.zeros_like(original)
        else:
            factor, order = _factor(weight, factors), _order(weight, edit)
            original, kept_energy = factor.original, factor.kept_energy(edit.rate, order)
            changed = factor.truncate(edit.rate, order)
        if undo is not None:
            undo.callback(weight.write_, original)  # first: an interrupt in between does no harm
        weight.write_(changed)
    size = rank * sum(weight.shape)
    return Clipped(weight.layer, weight.name, edit.rate, rank, weight.shape, kept_energy, size)


def cut_of(weight: Weight, edit: Edit, factors: Factors | None = None) -> Cut:
    """Return what an edit takes away of a matrix, which is left as it is; see `edit_`."""
    factor = _factor(weight, factors)
    kept = torch.zeros(len(factor.s), dtype=torch.bool)
    if edit.cut != DROP:
        order = _order(weight, edit)
        kept[: factor.rank(edit.rate)] = True
        kept = kept if order is None else torch.zeros_like(kept).index_put((order,), kept)
    return Cut(weight, factor.s.cpu(), kept)


def dropped_biases(
    model: PreTrainedModel, targets: Mapping[Weight, Edit]
) -> dict[str, nn.Parameter]:
    """Return what else must be zero for the dropped parts to add nothing, by their paths: the
    biases of their output projections.

    The norms that follow one in a family of `architectures.yaml` have no bias: of zeros they make
    zeros.
    """
    named = dict(model.named_parameters(remove_duplicate=False))
    outputs = [w for w, edit in targets.items() if edit.cut == DROP and w.kind in OUTPUTS]
    paths = (
        path
        for weight in outputs
        # A module's, and that of experts, which are a parameter each.
        for path in (f"{weight.path.rpartition('.')[0]}.bias", f"{weight.path}_bias")
    )
    return {path: named[path] for path in paths if path in named}


def _order(weight: Weight, edit: Edit) -> Order:
    """Return which singular directions an edit keeps longest: at one seed, a larger rate removes
    what a smaller one does, and more."""
    numbers = range(min(weight.shape))
    if edit.cut == SMALLEST:
        return None
    if edit.cut == LARGEST:
        return torch.tensor(numbers[::-1])
    # Of Python's own generator `random` alone is promised to give the same in every version.
    draw = Random(f"{edit.cut}:{weight.layer}:{weight.name}")
    return torch.tensor(sorted(numbers, key=lambda number: draw.random()))


def _check_tied(edits: Mapping[Weight, Edit]) -> None:
    by_key = {weight.key: edit.amount for weight, edit in edits.items()}
    for weight, edit in edits.items():
        outside = [
            path for path in weight.tied if by_key.get(f"{path}:{weight.name}") != edit.amount
        ]
        if edit.rate and outside:
            raise EditError(
                f"{weight.label} is tied to {', '.join(outside)}: clipping one changes both; "
                "name all of them at the same rate, or load the model untied"
            )


@contextmanager
def _hold(targets: Mapping[Weight, Edit]) -> Iterator[None]:
    """Mark matrices as clipped while a block runs: by the numbers that each occupies, whatever
    anatomy it was found by."""
    regions = {
        (id(weight.parameter), weight.expert, weight.kind if weight.fused else ""): weight
        for weight, edit in targets.items()
        if edit.rate
    }
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


def _clip_all(
    undo: ExitStack,
    model: PreTrainedModel,
    targets: Mapping[Weight, Edit],
    factors: Factors | None,
) -> tuple[Clipped, ...]:
    clipped = tuple(edit_(weight, edit, factors, undo) for weight, edit in targets.items())
    for parameter in dropped_biases(model, targets).values():
        bias = parameter.detach()
        undo.callback(bias.copy_, bias.clone())
        bias.zero_()
    return clipped


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
