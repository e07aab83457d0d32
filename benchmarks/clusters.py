"""Rows that differ: a matrix's rows in K groups, each truncated by itself, or all of them at once.

A prototype of what Sreeram et al. 2025 (arXiv:2510.20800) call clustering. Rows are grouped by
k-means, or as they lie; a direction of a block of m_k rows costs m_k + n numbers, and the ranks are
those that keep the most energy of no more numbers than plain truncation's r (m + n). Every
difference is paired: the same rows of the task, read through the same model.

python benchmarks/clusters.py MODEL --data sst2=DATA --shots 0 --layers 3,12,21,29 --rates 0.5,0.9
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Callable
from unittest.mock import patch

import numpy as np
import torch
from common import machine, show
from scipy.cluster.vq import kmeans2
from scipy.special import log_softmax
from torch import Tensor

from eckart import Edit, Factor, Task
from eckart.records import ATTENTION, Trial
from eckart.scoring.evaluator import Evaluator
from eckart.statistics.paired import compare, mean_interval
from eckart.weights.linalg import Order
from eckart.weights.models import load_model

WAYS = {"2": 2e-6, "4": 4e-6, "8": 8e-6, "4 as they lie": 5e-6}
"""How rows are grouped, by what stands for it in a rate: too little to change any rank."""
PLAIN = "plain"
Lost = dict[Edit, np.ndarray]
"""The squared norm that each edit lost, and that there was."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model")
    parser.add_argument("--data", action="append", required=True, help="TASK[:VARIANT]=FOLDER")
    parser.add_argument("--shots", type=int, default=0)
    parser.add_argument("--layers", default="0,-1")
    parser.add_argument("--rates", default="0.5,0.9")
    parser.add_argument("--rows", type=int, default=200, help="validation rows")
    asked = parser.parse_args()
    print(machine(), flush=True)
    model = load_model(asked.model, dtype="float32")
    for said in asked.data:
        name, _, data = said.partition("=")
        task, _, variant = name.partition(":")
        sizes = f"{asked.rows},{asked.rows}"
        evaluator = Evaluator(
            model,
            Task.load(
                task,
                data=data,
                variant=variant or None,
                shots=asked.shots,
                split_sizes=sizes,
            ),
        )
        report(name, evaluator, places(evaluator, asked))


def places(evaluator: Evaluator, asked: argparse.Namespace) -> list[Edit]:
    """Return the edits that are compared, as plain truncation."""
    return [
        Edit(evaluator.anatomy.layer_index(int(layer)), part, float(rate))
        for layer in asked.layers.split(",")
        for part in ("mlp", "attn")
        for rate in asked.rates.split(",")
    ]


def report(name: str, evaluator: Evaluator, edits: list[Edit]) -> None:
    """Score every way of grouping at every place, and print how much each gains on plain
    truncation."""
    lost: Lost = defaultdict(lambda: np.zeros(2))
    asked = [(), *((variant(edit, way),) for edit in edits for way in (PLAIN, *WAYS))]
    with patch.object(Factor, "truncate", truncation(lost)):
        trials = {trial.edits: trial for trial in evaluator.score(asked, "validation")}
    unpruned = trials[()]
    rows = []
    for edit in edits:
        plain = trials[variant(edit, PLAIN),]
        rows.append(line(str(edit), PLAIN, kept(lost, edit, PLAIN), unpruned, plain))
        for way in WAYS:
            trial = trials[variant(edit, way),]
            rows.append(line("", way, kept(lost, edit, way), plain, trial))
    n = len(losses(unpruned))
    show(
        f"{name}, n = {n}; changes are of plain from unpruned, of groups from plain",
        [
            "edit",
            "groups",
            "energy kept",
            "accuracy",
            "log-loss",
            "accuracy, points",
            "p",
            "log-loss, nats",
        ],
        rows,
    )
    pooled = []
    for way in WAYS:
        pairs = [(trials[variant(edit, PLAIN),], trials[variant(edit, way),]) for edit in edits]
        loss = np.mean([losses(after) - losses(before) for before, after in pairs], axis=0)
        right = np.mean([hits(after) - hits(before) for before, after in pairs], axis=0)
        energy = np.mean([kept(lost, e, way) - kept(lost, e, PLAIN) for e in edits])
        pooled.append([way, f"{energy:+.4f}", interval(100 * right, 2), interval(loss, 4)])
    show(
        f"{name}: mean over the {len(edits)} places, groups less plain",
        ["groups", "energy kept", "accuracy, points", "log-loss, nats"],
        pooled,
    )


def line(edit: str, way: str, energy: float, before: Trial, after: Trial) -> list[str]:
    assert before.labelled
    assert after.labelled
    paired = compare(before.labelled, after.labelled)
    return [
        edit,
        way,
        f"{energy:.4f}",
        f"{after.labelled.accuracy:.3f}",
        f"{after.labelled.log_loss:.4f}",
        f"{100 * paired.difference:+.1f}",
        f"{paired.p_value:.2g}",
        interval(losses(after) - losses(before), 4),
    ]


def kept(lost: Lost, edit: Edit, way: str) -> float:
    """Return the share of a part's energy that is kept, all its matrices together."""
    gone, whole = lost[variant(edit, way)]
    return float(1 - gone / whole)


def losses(trial: Trial) -> np.ndarray:
    """Return minus the log of the right label's probability, a row each."""
    assert trial.labelled
    values = log_softmax(np.array(trial.labelled.log_likelihoods), axis=1)
    return -values[np.arange(len(values)), trial.labelled.labels]


def hits(trial: Trial) -> np.ndarray:
    assert trial.labelled
    return np.array(trial.labelled.right, dtype=float)


def interval(values: np.ndarray, digits: int) -> str:
    """Return the mean and its 95% interval."""
    mean, margin = mean_interval(values)
    return f"{mean:+.{digits}f} ({mean - margin:+.{digits}f} to {mean + margin:+.{digits}f})"


def variant(edit: Edit, way: str) -> Edit:
    """Return the edit whose rate says how rows are grouped."""
    return Edit(edit.layer, edit.part, edit.rate - WAYS.get(way, 0))


def truncation(lost: Lost) -> Callable[..., Tensor]:
    """Return a stand-in for `Factor.truncate` that groups rows as the rate says, and notes what is
    lost."""
    plain, ways = Factor.truncate, {round(step * 1e6): way for way, step in WAYS.items()}

    def truncate(factor: Factor, rate: float, order: Order = None) -> Tensor:
        way = ways.get(round(-rate * 1e6) % 1000)
        matrix, rank = factor.original, factor.rank(rate)
        found = blocks(matrix, rank, groups(matrix, way)) if way else plain(factor, rate, order)
        _, layer, kind, _ = factor.name.split()
        part = "attn" if kind in ATTENTION else "mlp"
        lost[Edit(int(layer), part, rate)] += [
            float((matrix - found).norm() ** 2),
            float(matrix.norm() ** 2),
        ]
        return found

    return truncate


def groups(matrix: Tensor, way: str) -> list[np.ndarray]:
    """Return the rows of each group."""
    number = int(way.split()[0])
    if "lie" in way:
        return np.array_split(np.arange(len(matrix)), number)
    _, label = kmeans2(matrix.double().numpy(), number, minit="++", seed=0)
    return [np.flatnonzero(label == i) for i in range(number) if (label == i).any()]


def blocks(matrix: Tensor, rank: int, grouped: list[np.ndarray]) -> Tensor:
    """Truncate each group of rows to the ranks that keep the most energy of rank * (m + n)
    numbers."""
    left, n = rank * sum(matrix.shape), matrix.shape[1]
    factored = [torch.linalg.svd(matrix[rows].double(), full_matrices=False) for rows in grouped]
    ranks, costs = [0] * len(grouped), [len(rows) + n for rows in grouped]
    worth = [
        (float(s) ** 2 / costs[k], k) for k, (_, values, _) in enumerate(factored) for s in values
    ]
    for _, k in sorted(worth, reverse=True):
        if costs[k] <= left:
            ranks[k] += 1
            left -= costs[k]
    found = torch.empty_like(matrix)
    for rows, r, (u, s, vt) in zip(grouped, ranks, factored, strict=True):
        found[rows] = ((u[:, :r] * s[:r]) @ vt[:r]).to(matrix.dtype)
    return found


if __name__ == "__main__":
    main()
