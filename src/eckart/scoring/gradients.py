"""The gradient of a task's log-loss by weight matrices, in the memory of one layer at a time.

Forward, the layers run without a graph and leave their inputs. Backward, from the last layer down,
each runs again on them, batch by batch; its matrices' gradients are handed on, and let go of before
the layer below begins. The layers are the model's own, so whatever they do inside (rotary
positions, windows, routed experts) is passed back through as it was computed. In a layer that goes
back, leaves of the graph stand in for its parameters, whose `requires_grad` and `grad` nobody
touches.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field
from itertools import chain, groupby
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from eckart.errors import ModelError, NotANumberError
from eckart.scoring.forward.padded import pad, plan_batches
from eckart.scoring.forward.patches import Lengths, head_at
from eckart.scoring.forward.reader import is_out_of_memory
from eckart.scoring.requests import Continuation, Requests
from eckart.weights.anatomy import Anatomy, Weight
from eckart.weights.hooks import HALF, Forward, in_float32, replace_forward

Take = Callable[[Weight, Tensor], None]
"""Is handed a matrix and the loss's gradient by it, (m, n), both of which it lets go of."""


@dataclass(frozen=True)
class Question:
    """What a loss is of.

    Arguments:
        requests: token rows, and what is scored in them.
        labels: the right label of each prompt.
        per_token: labels are ranked by the mean log-likelihood of their tokens, not by the sum.
    """

    requests: Requests
    labels: Sequence[int]
    per_token: bool = False


@dataclass(eq=False)
class _Batch:
    """Prompts that are read together.

    Arguments:
        prompts: which.
        length: of their longest row, where the model reads some lengths otherwise than others.
        inputs: what each layer was given: hidden states, and what stands beside them.
        slope: the gradient of the loss by the outputs of the layer that goes back next.
    """

    prompts: list[int]
    length: int | None
    inputs: list[tuple[Tensor, Any, Any]] = field(default_factory=list)
    slope: Tensor | None = None

    def pinned(self, lengths: Lengths) -> AbstractContextManager[None]:
        """Let the model read these rows as rows of their length while a `with` block runs."""
        return nullcontext() if self.length is None else lengths.pinned(self.length)


def log_loss_gradients(
    anatomy: Anatomy, question: Question, weights: Collection[Weight], budget: int, take: Take
) -> None:
    """Hand on the gradient of the mean log-loss of the right label by each matrix, the deepest
    layer's first.

    The log-loss of a row is minus the log of the right label's share in the softmax over the row's
    labels, of their log-likelihoods. A model in half precision computes in float32, layer by layer.
    A matrix that is tied to another layer's is handed on once for each, with the gradient by its
    use there.

    Arguments:
        anatomy: of a model in evaluation mode, which is left as it is.
        question: rows and their labels.
        weights: the matrices.
        budget: about the most tokens in a batch.
        take: gets each matrix and its gradient, while the model is not to be run.

    Raises:
        ModelError: it does not fit into memory.
        NotANumberError: the outputs are no numbers.
    """
    lengths = Lengths(anatomy.model)
    batches = _batches(question.requests, lengths, budget)
    try:
        with in_float32(anatomy.model, anatomy.blocks), torch.enable_grad():
            for batch in batches:
                with batch.pinned(lengths):
                    _forward(anatomy, question, batch)
            for layer in range(len(anatomy.blocks) - 1, -1, -1):
                own = [weight for weight in weights if weight.layer == layer]
                _backward(anatomy.blocks[layer], own, batches, lengths, take)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise ModelError(
            f"the gradients of {len(question.labels)} rows do not fit into memory; take fewer"
            " --screen-rows, or fewer --batch-tokens"
        ) from error


def _batches(requests: Requests, lengths: Lengths, budget: int) -> list[_Batch]:
    """Group prompts, each with all its rows, those of a regime together."""
    rows = [sorted({c.row for c in choices}) for choices in requests.continuations]
    longest = [max(map(requests.length, own)) for own in rows]
    several = lengths.several(longest)
    order = sorted(range(len(rows)), key=longest.__getitem__)
    found = []
    for _, group in groupby(order, key=lambda prompt: lengths.regime(longest[prompt])):
        prompts = list(group)
        # A prompt takes as much room as its longest row, for each of its rows.
        planned = plan_batches([(0,) * (longest[p] * len(rows[p])) for p in prompts], budget)
        for batch in planned:
            own = [prompts[place] for place in batch]
            most = max(longest[prompt] for prompt in own)
            found.append(_Batch(own, most if several else None))
    return found


def _forward(anatomy: Anatomy, question: Question, batch: _Batch) -> None:
    """Run a batch through the model; leave each layer's inputs, and the loss's gradient by the last
    one's outputs."""
    requests = question.requests.subset(batch.prompts).without_prefix()
    scored = {(c.row, c.start + step) for c in _each(requests) for step in range(len(c.tokens))}
    places = {place: index for index, place in enumerate(sorted(scored))}
    device = anatomy.model.device
    at = torch.tensor(list(places), device=device)
    tops: list[Tensor] = []
    with ExitStack() as undo:
        for block in anatomy.blocks:
            last = block is anatomy.blocks[-1]
            replace_forward(undo, block, _leaving(block.forward, batch, tops if last else None))
        undo.enter_context(head_at(anatomy.model, at[:, 0], at[:, 1]))
        logits = anatomy.model(input_ids=pad(requests.rows, device), use_cache=False).logits[0]
        likelihoods = logits.log_softmax(-1)
        values = {c: _value(c, likelihoods, places, question) for c in _each(requests)}
        losses = [
            -torch.stack([values[c] for c in choices]).log_softmax(0)[question.labels[prompt]]
            for prompt, choices in zip(batch.prompts, requests.continuations, strict=True)
        ]
        loss = torch.stack(losses).sum() / len(question.labels)
        if not loss.isfinite():
            raise NotANumberError(
                "the model gives no probability (NaN or infinite) for a row that the gradient is"
                " taken on; use another --dtype, or another --layer"
            )
        (batch.slope,) = torch.autograd.grad(loss, tops)


def _each(requests: Requests) -> Iterator[Continuation]:
    return chain.from_iterable(requests.continuations)


def _value(
    c: Continuation, likelihoods: Tensor, places: Mapping[tuple[int, int], int], question: Question
) -> Tensor:
    """Return what ranks a continuation, by the log-likelihoods at the scored places."""
    own = [places[c.row, c.start + step] for step in range(len(c.tokens))]
    total = likelihoods[own, list(c.tokens)].sum()
    return total / len(c.tokens) if question.per_token else total


def _leaving(forward: Forward, batch: _Batch, tops: list[Tensor] | None) -> Forward:
    """Return a layer's forward that runs without a graph and leaves its inputs; the graph of what
    stands above begins with the last one's outputs."""

    def left(hidden: Tensor, *args: Any, **kwargs: Any) -> Any:
        """Stand in for the layer's forward."""
        batch.inputs.append((hidden.detach(), args, kwargs))
        with torch.no_grad():
            output = forward(hidden, *args, **kwargs)
        if tops is None:
            return output
        tops.append(_states(output).detach().requires_grad_())
        return (tops[0], *output[1:]) if isinstance(output, tuple) else tops[0]

    return left


def _backward(
    block: nn.Module,
    weights: Sequence[Weight],
    batches: Sequence[_Batch],
    lengths: Lengths,
    take: Take,
) -> None:
    """Pass all batches back through a layer, and hand on its matrices' gradients."""
    names = {id(parameter): name for name, parameter in block.named_parameters()}
    leaves = {names[id(w.parameter)]: _leaf(w.parameter) for w in weights}
    totals = [torch.zeros_like(leaf) for leaf in leaves.values()]
    for batch in batches:
        hidden, args, kwargs = batch.inputs.pop()
        hidden.requires_grad_()
        with batch.pinned(lengths):
            output = _states(functional_call(block, leaves, (hidden, *args), kwargs))
        batch.slope, *found = torch.autograd.grad(
            output, [hidden, *leaves.values()], batch.slope, materialize_grads=True
        )
        for total, gradient in zip(totals, found, strict=True):
            total += gradient
    by_name = dict(zip(leaves, totals, strict=True))
    for weight in weights:
        take(weight, weight.of(by_name[names[id(weight.parameter)]]))


def _states(output: Any) -> Tensor:
    return output[0] if isinstance(output, tuple) else output


def _leaf(parameter: Tensor) -> Tensor:
    values = parameter.detach()
    return (values.float() if values.dtype in HALF else values).requires_grad_()
