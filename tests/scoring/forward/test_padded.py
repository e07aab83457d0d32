"""Rows into padded batches."""

import torch

from eckart.scoring.forward.padded import pad, plan_batches


def test_batches_hold_every_row_once_within_the_budget():
    rows = [(1,) * length for length in (5, 1, 9, 3, 3, 20, 2)]
    batches = plan_batches(rows, budget=12)
    assert sorted(i for batch in batches for i in batch) == list(range(len(rows)))
    assert all(len(b) == 1 or len(b) * max(len(rows[i]) for i in b) <= 12 for b in batches)


def test_padding_is_on_the_right():
    assert pad([(7, 8, 9), (5,)], torch.device("cpu")).tolist() == [[7, 8, 9], [5, 0, 0]]


def test_a_long_prefix_makes_batches_smaller_since_every_row_holds_it():
    rows = [(1, 2)] * 100
    assert max(map(len, plan_batches(rows, budget=100))) == 50
    assert max(map(len, plan_batches(rows, budget=100, prefix=38))) == 10
    assert sum(map(len, plan_batches(rows, budget=1, prefix=10_000))) == 100
