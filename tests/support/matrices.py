"""Matrices that are hard in known ways, and numpy's word on them."""

import numpy as np
import torch
from hypothesis import settings
from hypothesis import strategies as st
from torch import Tensor

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
EPS = torch.finfo(torch.float64).eps

deterministic = settings(derandomize=True, deadline=None, max_examples=60, database=None)
rates = st.floats(0, 1, exclude_max=True)


@st.composite
def matrices(draw: st.DrawFn, dtypes: tuple[torch.dtype, ...] = (torch.float64,)) -> Tensor:
    """1 x n, m x 1, tall, wide, square; of full rank, rank-deficient, with repeated values, or
    zero."""
    m, n = draw(st.integers(1, 12)), draw(st.integers(1, 12))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    inner = draw(st.integers(0, min(m, n)))
    kind = draw(st.sampled_from(["full", "deficient", "repeated"]))
    if kind == "full":
        values = random.standard_normal((m, n))
    elif kind == "deficient":
        values = random.standard_normal((m, inner)) @ random.standard_normal((inner, n))
    else:
        values = random.integers(-1, 2, (m, n)).astype(float)
    scale = 10.0 ** draw(st.integers(-3, 3))
    return torch.from_numpy(scale * values).to(draw(st.sampled_from(dtypes)))


def numpy_values(matrix: Tensor) -> np.ndarray:
    return np.linalg.svd(matrix.double().numpy(), compute_uv=False)


def frobenius(matrix: Tensor) -> float:
    return float(np.linalg.norm(matrix.double().numpy()))


def bits(matrix: Tensor) -> Tensor:
    return matrix.contiguous().view(torch.uint8)


def with_spectrum(values: np.ndarray, shape: tuple[int, int], seed: int = 0) -> Tensor:
    random = np.random.default_rng(seed)
    u, v = (np.linalg.qr(random.standard_normal((side, len(values))))[0] for side in shape)
    return torch.from_numpy(u @ np.diag(values) @ v.T)
