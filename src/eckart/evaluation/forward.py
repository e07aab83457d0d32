"""The model's own forward, over batches of rows: the log-likelihood of every continuation."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from eckart.evaluation.batching import pad, plan_batches, run_halving
from eckart.evaluation.head import head_at
from eckart.evaluation.requests import Requests, Tokens
from eckart.evaluation.trunk import SharedPrefix
from eckart.models import Model
from eckart.tasks.prompts import Prompt

Prompts = Sequence[Prompt]
_Wanted = list[tuple[int, int, int, int]]  # prompt, label, position in the row, token


@torch.inference_mode()
def log_likelihoods(
    model: Model, requests: Requests, budget: int, advance: Callable[[int], None] = lambda prompts: None
) -> Float[np.ndarray, "prompts labels"]:
    """Return the summed log-likelihood, in nats, of every continuation of every prompt.

    Arguments:
        model: a causal language model, clipped or not.
        requests: token rows and what to score in them.
        budget: the most tokens in a batch, padding included.
        advance: told of prompts done.
    """
    sums = np.zeros((len(requests.continuations), max(map(len, requests.continuations), default=0)))
    wanted = _wanted(requests)
    prefix = SharedPrefix(model, requests.prefix)

    def run(batch: list[int]) -> None:
        ends = [wanted[row] for row in batch]
        values = _target_log_probabilities(model, prefix, [requests.rows[row] for row in batch], ends)
        where = np.array([(prompt, label) for end in ends for prompt, label, _, _ in end])
        np.add.at(sums, (where[:, 0], where[:, 1]), values)
        advance(len(set(where[where[:, 1] == 0, 0].tolist())))

    run_halving(run, plan_batches(requests.rows, budget, len(requests.prefix)), f"{len(requests.rows)} rows")
    return sums


@torch.inference_mode()
def plain_log_likelihoods(model: Model, requests: Requests) -> Float[np.ndarray, "prompts labels"]:
    """Compute what `log_likelihoods` does, the slow and obvious way: one row at a time, all logits, nothing shared.

    Arguments:
        model: a causal language model.
        requests: token rows, written out in full.
    """
    return np.array(
        [
            [_plain(model, requests.rows[c.row][: c.start + len(c.tokens)], c.tokens) for c in choices]
            for choices in requests.continuations
        ]
    )


def _plain(model: Model, row: Tokens, tokens: Tokens) -> float:
    logits = model(input_ids=torch.tensor([row], device=model.device), use_cache=False).logits[0]
    chosen = logits[-len(tokens) :].double().log_softmax(-1)
    return float(chosen[range(len(tokens)), list(tokens)].sum())


def _wanted(requests: Requests) -> dict[int, _Wanted]:
    """List for each row which token is scored where, and for whom."""
    wanted: dict[int, _Wanted] = defaultdict(list)
    for prompt, choices in enumerate(requests.continuations):
        for label, choice in enumerate(choices):
            wanted[choice.row] += [
                (prompt, label, choice.start + step, token) for step, token in enumerate(choice.tokens)
            ]
    return wanted


def _target_log_probabilities(
    model: Model, prefix: SharedPrefix, rows: Sequence[Tokens], wanted: Sequence[_Wanted]
) -> Float[np.ndarray, " targets"]:
    """Run one batch and return the log-probability of every wanted token, in order."""
    scored: dict[tuple[int, int], int] = {}
    picks = [
        (scored.setdefault((row, position), len(scored)), token)
        for row, ends in enumerate(wanted)
        for _, _, position, token in ends
    ]
    device = model.device
    places = torch.tensor(list(scored), device=device)
    with head_at(model, places[:, 0], places[:, 1]):
        output = model(input_ids=pad(rows, device), **prefix.for_rows(len(rows)))
    logits: Float[Tensor, "scored vocabulary"] = output.logits[0].float()
    index = torch.tensor(picks, device=logits.device)
    chosen = logits[index[:, 0], index[:, 1]] - logits.logsumexp(-1)[index[:, 0]]
    return chosen.double().cpu().numpy()
