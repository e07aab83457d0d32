"""Activations that a model computes in several elementwise steps, computed in one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

from torch import nn
from torch.nn.functional import gelu
from transformers.activations import FastGELUActivation, NewGELUActivation

from eckart.scoring.forward.trunk import replace_forward

STEPWISE = (NewGELUActivation, FastGELUActivation)
"""Both are the tanh approximation of GELU (Hendrycks and Gimpel 2016), which torch computes in one
pass over memory."""


@contextmanager
def fused_activations(model: nn.Module) -> Iterator[None]:
    """Compute a model's activations in one step each while a `with` block runs; they differ by
    rounding alone."""
    with ExitStack() as undo:
        for module in model.modules():
            if isinstance(module, STEPWISE):
                replace_forward(undo, module, partial(gelu, approximate="tanh"))
        yield
